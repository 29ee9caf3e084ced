"""Files of weights, of every kind, to a `Whisper` and back."""

import importlib
import typing

if typing.TYPE_CHECKING:
    from .load import _download as _download
    from .load import available_models as available_models
    from .load import load_model as load_model
    from .published import _ALIGNMENT_HEADS as _ALIGNMENT_HEADS
    from .published import _MODELS as _MODELS
    from .save import save_checkpoint as save_checkpoint

_HOMES = {
    "_download": "load", "available_models": "load", "load_model": "load", "save_checkpoint": "save",
    "_ALIGNMENT_HEADS": "published", "_MODELS": "published",
}  # fmt: skip


def __getattr__(name: str) -> typing.Any:
    """Import the module of a name when a program asks for it: not all that lies here needs torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
