"""What decides a result beside the content of a recording: the options and the model, as one digest.

A recording is done when there is a result of its content by this recipe.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import ModelNotFoundError
from ..options.transcription import DecodingOptions, TranscribeOptions

RESULT_FORMAT = 1  # counts up when equal recipes would give other results
WITHOUT_EFFECT = frozenset({"verbose", "progress", "cancel"})  # options that change no result


@dataclass(frozen=True)
class Recipe:
    """Options and model, as they decide results.

    Attributes
    ----------
    options
        Those of `transcribe` that are no defaults, so that a release with a new option leaves recipes as they are.
    model
        Its digest; see `model_digest`.
    precision
        In which the model runs.
    """

    options: Mapping[str, Any]
    model: str
    precision: str

    def to_json(self) -> str:
        """Return it as one line; equal recipes give equal lines."""
        facts = {"format": RESULT_FORMAT, "model": self.model, "precision": self.precision, "options": self.options}
        return json.dumps(facts, sort_keys=True, ensure_ascii=True, default=str)

    def digest(self, overrides: str = "{}") -> str:
        """Return 32 hexadecimal digits, for a recording with options of its own (JSON)."""
        return hashlib.sha256(f"{self.to_json()}\n{overrides}".encode()).hexdigest()[:32]


def effective(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that decide a result and are no defaults, as plain values.

    Raises
    ------
    OptionError
        A value is wrong.
    """
    found = {}
    for declared in (TranscribeOptions, DecodingOptions):
        own = {f.name: options[f.name] for f in fields(declared) if f.name in options and _is_for(f.name, declared)}
        checked, default = declared(**own), declared()
        for name in own:
            value = _plain(getattr(checked, name))
            if value != _plain(getattr(default, name)) and name not in WITHOUT_EFFECT:
                found[name] = value
    return found


def _is_for(name: str, declared: type) -> bool:
    """Whether a dataclass is the one that says what an option of `transcribe` takes; both have a ``temperature``."""
    return name != "temperature" or declared is TranscribeOptions


def _plain(value: Any) -> Any:
    """Return what JSON can say of a value; 0.6 and 0.6000000000000001 are one."""
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def differences(before: str, now: str) -> list[str]:
    """Return in words what differs between two recipes in JSON."""
    old, new = json.loads(before), json.loads(now)
    told = [f"{key} {old.get(key)} -> {new.get(key)}" for key in ("model", "precision", "format")
            if old.get(key) != new.get(key)]  # fmt: skip
    names_of_options = sorted({*old["options"], *new["options"]})
    was, is_now = ({**options["options"]} for options in (old, new))
    changed = [name for name in names_of_options if was.get(name) != is_now.get(name)]
    return [*told, *(f"{name} {was.get(name, 'default')} -> {is_now.get(name, 'default')}" for name in changed)]


# ---------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------


def model_digest(name: str, folder: str | None = None, *, quantized: bool = False) -> str:
    """Return what a model is: equal digests mean equal weights, on whatever machine.

    Parameters
    ----------
    name
        As `load_model` takes it. A published model is what was published, of whatever exact copy it is read; a file
        or folder is its content; a model on the hub is its name.
    folder
        Of downloads.
    quantized
        See `load_model`.

    Raises
    ------
    ModelNotFoundError
        There is no such file.
    """
    # here, as they load torch and every format of weights
    from ..checkpoints import bundled
    from ..checkpoints.download import digest_of
    from ..checkpoints.finding import find, names
    from ..checkpoints.load import BUNDLED_NAME
    from ..checkpoints.published import _MODELS

    name = os.fspath(name)
    if name in _MODELS or name in names.DISTILLED:
        own = find.downloaded(name, folder)
        copy = own or next(find.copies(name, quantized=quantized), None)
        if copy is None or copy.stored.is_exact or copy is own:
            published = _MODELS[name].split("/")[-2][:32] if name in _MODELS else name
            return f"published:{names.canonical(name)}:{published}"
        return f"copy:{digest_of(copy.paths)[:32]}"
    if name == BUNDLED_NAME:
        return f"bundled:{name}:{digest_of([bundled.BUNDLED])[:32]}"
    if os.path.exists(name):
        return f"file:{_digest_of_files(name)[:32]}"
    if "/" in name and not name.startswith((".", "/", "~")):
        return f"hub:{name}"
    raise ModelNotFoundError(f"there is no model {name!r}")


def _digest_of_files(path: str) -> str:
    """Digest a file, or all files of a folder with their names."""
    from ..checkpoints.download import digest_of

    if os.path.isfile(path):
        return str(digest_of([path]))
    digest = hashlib.sha256()
    for name in sorted(os.listdir(path)):
        if os.path.isfile(inner := os.path.join(path, name)) and not name.startswith("."):
            digest.update(f"{name}\0{digest_of([inner])}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
