"""The ``.pt`` files of openai-whisper: ten dimensions, a state dict, and perhaps alignment heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...files import atomic_write
from ..lazy_tensors import KeptFile, left_in_files
from ..weights import (
    Weights,
    checked_dimensions,
    dimensions_of,
    dump_alignment_heads,
    parse_alignment_heads,
    state_of,
)
from .tensor_files import read_torch

if TYPE_CHECKING:
    from ...model import Whisper

PRECISIONS = ("float32", "float16")


def has_dimensions(file: KeptFile) -> bool:
    """Whether a torch file states its dimensions, as a file of weights of other programs does not."""
    content = read_torch(file)
    return isinstance(content, dict) and "dims" in content


def read(file: KeptFile) -> Weights:
    """Read a ``.pt`` file.

    Raises
    ------
    CheckpointError
        With one sentence: what the file is, what is missing, what to do.
    """
    checkpoint = read_torch(file)
    if not isinstance(checkpoint, dict) or not {"dims", "model_state_dict"} <= checkpoint.keys():
        raise CheckpointError(f"{file.path} {_foreign_content(checkpoint)}")
    dims = checked_dimensions(checkpoint["dims"], file.path)
    state = checkpoint["model_state_dict"]
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{file.path} holds a model_state_dict of type {type(state).__name__} instead of named tensors; "
            "save it again with save_checkpoint"
        )
    if hollow := next((name for name, value in state.items() if getattr(value, "is_meta", False)), None):
        raise CheckpointError(f"{file.path} has no numbers for {hollow}: it was saved without weights; get it again")
    heads = checkpoint.get("alignment_heads")
    mask = parse_alignment_heads(heads, dims, file.path) if isinstance(heads, (str, bytes)) else None
    return Weights(dims, left_in_files(state, [file]), mask, file.path)


def write(model: Whisper, path: str, precision: str) -> None:
    """Write `model` as a ``.pt`` file that openai-whisper loads too, in one of `PRECISIONS`.

    Its alignment heads travel along, under a key that openai-whisper passes over.
    """
    content = {
        "dims": dimensions_of(model),
        "model_state_dict": state_of(model, getattr(torch, precision)),
        "alignment_heads": dump_alignment_heads(model.alignment_heads),
    }
    with atomic_write(path) as file:
        torch.save(content, file)


def _foreign_content(content: object) -> str:
    """Name a torch file by what is in it; continues a sentence that began with the path."""
    if not isinstance(content, dict):
        return f"is a torch file that holds a {type(content).__name__}; a dictionary with dims is needed"
    names = [str(key) for key in content]
    if any(name.removeprefix("model.").startswith("encoder.layers.") for name in names):
        return (
            "is the weights file of a Hugging Face model, and its dimensions stand in config.json; "
            "give the folder that holds both"
        )
    missing = " and ".join(key for key in ("dims", "model_state_dict") if key not in content)
    if all(isinstance(value, Tensor) for value in content.values()) and content:
        return f"is a bare state dict of {len(names)} tensors, and {missing} are missing; wrap it as {_FORM}"
    found = ", ".join(names[:5]) or "nothing"
    return f"is a torch file that holds {found}, and {missing} is missing; a checkpoint is {_FORM}"


_FORM = '{"dims": {ten numbers}, "model_state_dict": {tensors}}'
