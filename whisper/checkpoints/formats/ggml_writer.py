"""Writes the ``.bin`` files of whisper.cpp: what its converter writes, and what its `quantize` tool makes of that.

Vectors, convolutions' biases and position embeddings are float32, convolutions float16, and matrices, the token
embedding among them, are float16 or blocks. In ``"float32"`` everything is.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import Tensor

from ...audio import mel_filters
from ...errors import CheckpointError
from ...files import atomic_write
from . import ggml
from .ggml_blocks import BLOCK_FORMATS

if TYPE_CHECKING:
    from ...model import Whisper

# float16 first: it is what the published models have, and what whisper.cpp's own converter writes
PRECISIONS = ("float16", "float32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")

_TYPES = {"float32": 0, "float16": 1, **{blocks.name: kind for kind, blocks in BLOCK_FORMATS.items()}}
# the type of a whole file is another list of numbers: ggml's `enum ggml_ftype`
_FILE_TYPES = {"float32": 0, "float16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9}
_LARGEST = torch.finfo(torch.float16).max  # of a number in float16, and of what blocks scale in float16


def write(model: Whisper, path: str, precision: str) -> None:
    """Write `model` as a file that whisper.cpp reads, in one of `PRECISIONS`, one tensor at a time.

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
    with atomic_write(path) as file:
        _write_header(file, model, precision)
        for name, tensor in model.state_dict().items():
            _write_tensor(file, name, tensor.detach().to("cpu", torch.float32), precision)


def _write_header(file: BinaryIO, model: Whisper, precision: str) -> None:
    """Write all that comes before the tensors."""
    version = ggml.BLOCK_VERSION if _FILE_TYPES[precision] >= ggml.BLOCKS_SINCE else 0
    numbers = [ggml.MAGIC, *(int(getattr(model.dims, name)) for name in ggml.HEADER)]
    file.write(struct.pack("<12i", *numbers, version * 1000 + _FILE_TYPES[precision]))
    filters = mel_filters("cpu", model.dims.n_mels)
    file.write(struct.pack("<2i", *filters.shape) + filters.contiguous().numpy().tobytes())
    n_tokens, tokens = ggml.stored_tokens(model.dims.n_vocab)
    if model.is_multilingual:  # whose vocabulary has an id to spare, and so an empty token
        n_tokens, tokens = n_tokens + 1, tokens + struct.pack("<I", 0)
    file.write(struct.pack("<I", n_tokens) + tokens)


def _write_tensor(file: BinaryIO, name: str, tensor: Tensor, precision: str) -> None:
    if name.startswith("encoder.conv") and name.endswith(".bias"):
        tensor = tensor[:, None]
        kept = True
    else:
        kept = tensor.ndim < 2 or name.endswith("positional_embedding")
    if kept:
        precision = "float32"
    elif tensor.ndim > 2 and precision != "float32":
        precision = "float16"
    kind, label = _TYPES[precision], name.encode()
    file.write(struct.pack(f"<{3 + tensor.ndim}i", tensor.ndim, len(label), kind, *reversed(tensor.shape)) + label)
    file.write(_stored(name, tensor.contiguous(), precision).numpy().tobytes())


def _stored(name: str, tensor: Tensor, precision: str) -> Tensor:
    """Return the numbers as `precision` has them in the file."""
    if precision == "float32":
        return tensor
    if not tensor.abs().max() <= _LARGEST:
        raise CheckpointError(f"{name} has numbers that {precision} cannot hold; save in float32")
    if precision == "float16":
        return tensor.half()
    blocks = BLOCK_FORMATS[_TYPES[precision]]
    if tensor.shape[-1] % blocks.n_numbers:
        raise CheckpointError(
            f"{name} has rows of {tensor.shape[-1]} numbers, and {precision} stores {blocks.n_numbers} together; "
            "save in float16"
        )
    return blocks.quantise(tensor)
