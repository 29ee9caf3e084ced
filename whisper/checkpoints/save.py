"""`save_checkpoint` writes a model to disk, in a format of ours or of another program."""

from __future__ import annotations

import importlib
import os
from typing import Any

from ..errors import OptionError
from ..model import Whisper

FORMATS = {  # each a module of `formats` with `write` and `PRECISIONS`, the first of which is its default
    "pt": "openai",
    "ctranslate2": "ctranslate2_writer",
    "huggingface": "huggingface_writer",
    "ggml": "ggml_writer",
}


def save_checkpoint(
    model: Whisper,
    path: str | os.PathLike[str],
    half: bool = False,
    *,
    format: str = "pt",
    precision: str | None = None,
) -> None:
    """Write `model`; in place as a whole or not at all.

    Parameters
    ----------
    model
        The model; its alignment heads travel along where the format has a place for them.
    path
        Where to write.
    half
        Store float16, as the published checkpoints do: the same as ``precision="float16"``.
    format
        ``"pt"``, which openai-whisper loads too; ``"ctranslate2"``, a new folder for faster-whisper;
        ``"huggingface"``, a new folder for `transformers`; ``"ggml"``, a file for whisper.cpp.
    precision
        How numbers are stored; without it, as `half` says. ``"pt"`` has ``"float32"`` and ``"float16"``,
        ``"huggingface"`` also ``"bfloat16"``. ``"ctranslate2"`` also has ``"int16"`` and ``"int8"``, or
        ``"int8_float16"`` and the like, which say what the other tensors are in. ``"ggml"`` has ``"float16"``,
        and the block formats ``"q8_0"``, ``"q5_1"``, ``"q5_0"``, ``"q4_1"`` and ``"q4_0"``.

    Raises
    ------
    CheckpointError
        Where a weight is too large for the precision, or the format cannot hold such a model.
    OptionError
        Where the format, or the precision in this format, is not known, or where there is something in the place of
        a new folder.
    """
    known = precisions(format)
    if precision is None:
        precision = "float16" if half else known[0]
    if precision not in known:
        raise OptionError(
            f"a checkpoint of format {format!r} can be stored in {', '.join(known)}, not in {precision!r}"
        )
    _writer(format).write(model, os.fspath(path), precision)


def precisions(format: str) -> tuple[str, ...]:
    """Return the precisions that `format` can store numbers in, the default first.

    Raises
    ------
    OptionError
        Where the format is not known.
    """
    if format not in FORMATS:
        raise OptionError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    return tuple(_writer(format).PRECISIONS)


def _writer(format: str) -> Any:
    return importlib.import_module(f".formats.{FORMATS[format]}", __package__)
