"""Sotto: OpenAI Whisper, done again.

>>> import whisper
>>> model = whisper.load_model("base")
>>> model.transcribe("audio.wav")["text"]
"""

import importlib
import os
import sys
import types
import typing

from . import compat


def _is_command() -> bool:
    """Whether this process is the command ``whisper``, which imports what it needs itself, and torch if it must."""
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0] if getattr(sys, "argv", None) else ""
    if name == "-m" and "-m" in sys.orig_argv:  # while ``python -m`` looks for the module of that name
        return sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] == [__name__]
    return name in ("whisper", "whisper-script")


_is_whole: bool = globals().get("_is_whole", not _is_command())  # whether all names are here; see `_import_all`

if typing.TYPE_CHECKING or _is_whole:
    from .audio import load_audio as load_audio
    from .audio import log_mel_spectrogram as log_mel_spectrogram
    from .audio import pad_or_trim as pad_or_trim
    from .checkpoints.load import _download as _download
    from .checkpoints.load import available_models as available_models
    from .checkpoints.load import load_model as load_model
    from .checkpoints.published import _ALIGNMENT_HEADS as _ALIGNMENT_HEADS
    from .checkpoints.published import _MODELS as _MODELS
    from .decoding import DecodingOptions as DecodingOptions
    from .decoding import DecodingResult as DecodingResult
    from .decoding import decode as decode
    from .decoding import detect_language as detect_language
    from .model import ModelDimensions as ModelDimensions
    from .model import Whisper as Whisper
    from .runtime import select as fast_path
    from .transcribe import iter_segments as iter_segments
    from .transcribe import transcribe as transcribe
    from .transcribe import transcribe_with_report as transcribe_with_report
    from .transcription.identify import identify_language as identify_language
    from .version import __version__ as __version__

    for _method in ("decode", "detect_language", "transcribe"):
        setattr(Whisper, _method, globals()[_method])
    del _method
    Whisper.refresh = fast_path.refresh
    compat.remember("Whisper.decode", (vars(Whisper), ["decode", "detect_language"]))
else:

    class _Unfinished(types.ModuleType):
        """The package while it is not whole: ``transcribe`` is its function, never the module of that name."""

        def __setattr__(self, name: str, value: typing.Any) -> None:
            is_module = name == "transcribe" and isinstance(value, types.ModuleType)
            super().__setattr__(name, value.transcribe if is_module else value)

    sys.modules[__name__].__class__ = _Unfinished

if typing.TYPE_CHECKING:
    from .alignment.align import align as align
    from .speakers.diarize import diarize as diarize
    from .speakers.voices import enrol as enrol


def _import_all() -> None:
    """Import what the command did without at its start."""
    global _is_whole
    if not _is_whole:
        _is_whole = True
        importlib.reload(sys.modules[__name__])  # runs this file again, in which that is asked


_ON_DEMAND = {"align": ".alignment.align", "diarize": ".speakers.diarize", "enrol": ".speakers.voices"}


def __getattr__(name: str) -> typing.Any:
    """Import a function when a program asks for it: few do, and `import whisper` should stay quick."""
    if name in _ON_DEMAND:
        function = getattr(importlib.import_module(_ON_DEMAND[name], __name__), name)
        globals()[name] = function  # the next access finds it at once
        return function
    if not _is_whole and not name.startswith("__"):
        _import_all()
        if name in globals():
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_DEMAND})
