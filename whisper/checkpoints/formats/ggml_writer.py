"""Writes the ``.bin`` files of whisper.cpp: what its converter writes, and what its `quantize` tool makes of that.

Vectors and position embeddings are float32, convolutions float16, and matrices, the token embedding among them, are
float16 or blocks. A file all in float32, which its converter can write too, makes the convolutions of whisper.cpp
abort (1.8 of 2026), so that is none of the precisions here.
"""

from __future__ import annotations

import struct
import warnings
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import Tensor

from ...audio import mel_filters
from ...errors import CheckpointError
from ...files import atomic_write
from ...model import default_alignment_mask
from . import ggml
from .alignment_heads import published_heads
from .ggml_blocks import BLOCK_FORMATS

if TYPE_CHECKING:
    from ...model import Whisper

PRECISIONS = ("float16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")

_TYPES = {"float32": 0, "float16": 1, **{blocks.name: kind for kind, blocks in BLOCK_FORMATS.items()}}
# of a whole file: ggml's `enum ggml_ftype`, from the first block format on plus 1000 times their version
_FILE_TYPES = {"float16": 1, "q4_0": 2002, "q4_1": 2003, "q8_0": 2007, "q5_0": 2008, "q5_1": 2009}
_LARGEST = torch.finfo(torch.float16).max  # of a number in float16, and of what blocks scale in float16


def write(model: Whisper, path: str, precision: str) -> None:
    """Write `model` as a file that whisper.cpp reads, in one of `PRECISIONS`, one tensor at a time.

    Its alignment heads have no place there; where a reader will take others, a warning says so.

    Raises
    ------
    CheckpointError
        Where whisper.cpp could not read it: the model has another vocabulary than Whisper's, or is too narrow for
        blocks, or where a number is too large for the precision.
    """
    if model.dims.n_vocab not in ggml.N_VOCAB or model.dims.n_mels not in (80, 128):
        raise CheckpointError(
            f"a model with {model.dims.n_vocab} tokens and {model.dims.n_mels} mel bands cannot be written for "
            f"whisper.cpp, which knows {', '.join(map(str, ggml.N_VOCAB))} tokens and 80 or 128 bands; save it as .pt"
        )
    known = published_heads(model.dims, path)
    heads = default_alignment_mask(model.dims) if known is None else known
    if not model.alignment_heads.to_dense().cpu().equal(heads):
        warnings.warn(
            f"{path} has no place for the alignment heads of this model, and a reader takes others by its size: "
            "times of words can differ",
            stacklevel=3,
        )
    with atomic_write(path) as file:
        _write_header(file, model, precision)
        for name, tensor in model.state_dict().items():
            _write_tensor(file, name, tensor.detach().to("cpu", torch.float32), precision)


def _write_header(file: BinaryIO, model: Whisper, precision: str) -> None:
    """Write all that comes before the tensors."""
    numbers = [ggml.MAGIC, *(int(getattr(model.dims, name)) for name in ggml.HEADER)]
    file.write(struct.pack("<12i", *numbers, _FILE_TYPES[precision]))
    filters = mel_filters("cpu", model.dims.n_mels)
    file.write(struct.pack("<2i", *filters.shape) + filters.contiguous().numpy().tobytes())
    n_tokens, tokens = ggml.stored_tokens(model.dims.n_vocab)
    if model.is_multilingual:  # whose vocabulary has an id to spare, and so an empty token
        n_tokens, tokens = n_tokens + 1, tokens + struct.pack("<I", 0)
    file.write(struct.pack("<I", n_tokens) + tokens)


def _write_tensor(file: BinaryIO, name: str, tensor: Tensor, precision: str) -> None:
    if name in ggml.COLUMNS:
        tensor = tensor[:, None]
    if tensor.shape[1:].numel() == 1 or name.endswith("positional_embedding"):
        precision = "float32"
    elif tensor.ndim > 2:
        precision = "float16"
    kind, label = _TYPES[precision], name.encode()
    file.write(struct.pack(f"<{3 + tensor.ndim}i", tensor.ndim, len(label), kind, *reversed(tensor.shape)) + label)
    file.write(_stored(name, tensor.contiguous(), precision).numpy().tobytes())


def _stored(name: str, tensor: Tensor, precision: str) -> Tensor:
    """Return the numbers as `precision` has them in the file."""
    if precision == "float32":
        return tensor
    if not tensor.abs().max() <= _LARGEST:
        raise CheckpointError(f"{name} has numbers that {precision} cannot hold; save it as .pt in float32")
    if precision == "float16":
        return tensor.half()
    blocks = BLOCK_FORMATS[_TYPES[precision]]
    if tensor.shape[-1] % blocks.n_numbers:
        raise CheckpointError(
            f"{name} has rows of {tensor.shape[-1]} numbers, and {precision} stores {blocks.n_numbers} together; "
            "save in float16"
        )
    return blocks.quantise(tensor)
