"""The ``.bin`` files of whisper.cpp (GGML): float32, float16, bfloat16 and every block format, read one by one.

A reader of our own, as no light library knows this layout: a header of numbers, the mel filters, the vocabulary, and
named tensors up to the end of the file (whisper.cpp's models/convert-pt-to-ggml.py and `whisper_model_load`, MIT). The
filters and the vocabulary must be those that this package has, so a file whose tokens mean something else is refused.
GGUF, which succeeded this layout elsewhere and which whisper.cpp does not use, is refused by name.
"""

from __future__ import annotations

import functools
import math
import struct
from typing import NamedTuple

import torch
from torch import Tensor

from ...audio import mel_filters
from ...errors import CheckpointError
from ...model import ModelDimensions
from ...tokenizer import get_encoding
from ..lazy_tensors import ComputedTensors, KeptFile
from ..weights import Weights, checked_dimensions
from .alignment_heads import published_heads
from .byte_reader import ByteReader
from .ggml_blocks import BLOCK_FORMATS

MAGIC = 0x67676D6C
HEADER = (  # whole numbers of 32 bits, in this order
    "n_vocab",
    "n_audio_ctx",
    "n_audio_state",
    "n_audio_head",
    "n_audio_layer",
    "n_text_ctx",
    "n_text_state",
    "n_text_head",
    "n_text_layer",
    "n_mels",
)
COLUMNS = ("encoder.conv1.bias", "encoder.conv2.bias")  # (n, 1) in the file, which whisper.cpp adds to (n, n_frames)
PLAIN_TYPES = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}  # by the number of a type in the file
_BLOCK_VERSION = 2  # of the block formats: GGML_QNT_VERSION, which stands in the file type times 1000

N_VOCAB = {51864: 99, 51865: 99, 51866: 100}  # the sizes of Whisper's vocabularies, and their languages
_FILTERS_DIFFER = 1e-5  # the largest filter is 0.04, and versions of librosa differ by 1e-8
_MOST_FURTHER_TOKENS = 2000  # an empty one, and special ones, which some converters write behind those of text
_MOST_DIMENSIONS = 4
_LONGEST_NAME = 256


class _Stored(NamedTuple):
    """A tensor as it lies in the file."""

    offset: int
    type: int
    shape: tuple[int, ...]


def read(file: KeptFile) -> Weights:
    """Read a file of whisper.cpp.

    Quantised tensors are float32 numbers from here on, each made when it is asked for.

    Raises
    ------
    CheckpointError
        With one sentence: what the file is, what is missing, what to do.
    """
    if file.bytes_at(0, 4) == b"GGUF":
        raise CheckpointError(f"{file.path} {_about_gguf(file)}")
    reader = ByteReader(file)
    dims = _read_header(reader)
    _check_filters(reader, dims)
    _check_vocabulary(reader, dims)
    if not reader.left:
        raise CheckpointError(
            f"{file.path} holds a vocabulary and no tensors: it is one of whisper.cpp's for-tests files, or truncated; "
            "give a ggml file that holds a model"
        )
    stored = _find_tensors(reader)
    if (positions := stored.get("decoder.positional_embedding")) is not None:
        dims.n_text_ctx = positions.shape[0]  # the header of a converted Hugging Face model can have max_length there
    makers = {name: (_view(found), functools.partial(_make, file, found)) for name, found in stored.items()}
    blocks = sorted({BLOCK_FORMATS[found.type].name for found in stored.values() if found.type in BLOCK_FORMATS})
    return Weights(dims, ComputedTensors(makers), published_heads(dims, file.path), file.path, ", ".join(blocks))


# ---------------------------------------------------------------------------------------------------------
# Before the tensors
# ---------------------------------------------------------------------------------------------------------


def _read_header(reader: ByteReader) -> ModelDimensions:
    path = reader.file.path
    reader.number("i", "the magic number")
    numbers = reader.numbers(f"{len(HEADER)}i", "the header")
    version, file_type = divmod(reader.number("i", "the type of the file"), 1000)
    dims = checked_dimensions(dict(zip(HEADER, numbers, strict=True)), path)
    if dims.n_vocab not in N_VOCAB:
        raise CheckpointError(
            f"{path} is the ggml file of a model with {dims.n_vocab} tokens, and Whisper's vocabularies have "
            f"{', '.join(map(str, N_VOCAB))}; give the .pt file or the Hugging Face folder that it was made from"
        )
    if file_type > 1 and version != _BLOCK_VERSION:  # 0 and 1 are float32 and float16
        raise CheckpointError(
            f"{path} was quantised in version {version} of ggml's block formats, which are laid out otherwise than "
            f"in version {_BLOCK_VERSION}; quantise it again with a whisper.cpp of today"
        )
    return dims


def _check_filters(reader: ByteReader, dims: ModelDimensions) -> None:
    path, ours = reader.file.path, mel_filters("cpu", 80 if dims.n_mels == 80 else 128)
    shape = reader.numbers("2i", "the shape of the mel filters")
    if shape != (dims.n_mels, ours.shape[1]) or dims.n_mels != len(ours):
        raise CheckpointError(
            f"{path} has mel filters of shape {shape}, and a Whisper has 80 or 128 bands of {ours.shape[1]} "
            "frequencies; it is another model, or damaged: get it again from where it came"
        )
    theirs = _read_plain(reader.file, reader.skip(4 * ours.numel(), "the table of mel filters"), torch.float32, shape)
    if not (theirs - ours).abs().max() <= _FILTERS_DIFFER:
        raise CheckpointError(
            f"{path} was made for other mel filters than Whisper's, so this package would feed it wrong "
            "features; give a file that whisper.cpp's converters wrote, or the .pt file that it was made from"
        )


def _check_vocabulary(reader: ByteReader, dims: ModelDimensions) -> None:
    """Compare the tokens, whose place is their id, with ours, and move on to what follows them."""
    file, (n_ours, ours) = reader.file, stored_tokens(dims.n_vocab)
    count = reader.number("I", "the number of tokens")
    if not n_ours <= count <= n_ours + _MOST_FURTHER_TOKENS:
        raise CheckpointError(
            f"{file.path} has a vocabulary of {count} tokens, and Whisper's has {n_ours} and special ones; it is "
            "another model, or damaged: get it again from where it came"
        )
    if file.bytes_at(reader.skip(len(ours), "the vocabulary"), len(ours)) != ours:
        raise CheckpointError(
            f"{file.path} has another vocabulary than Whisper's, so its tokens mean something else, or is damaged; "
            "give the .pt file or the Hugging Face folder that it was made from"
        )
    for _ in range(count - n_ours):
        reader.skip(reader.number("I", "the length of a token"), "a token")


@functools.cache
def stored_tokens(n_vocab: int) -> tuple[int, bytes]:
    """Return the number of tokens of text in a vocabulary, one of `N_VOCAB`, and all of them as they lie in a file."""
    ranks = get_encoding("gpt2" if n_vocab < 51865 else "multilingual", N_VOCAB[n_vocab])._mergeable_ranks
    tokens = sorted(filter(None, ranks), key=ranks.__getitem__)
    return len(tokens), b"".join(struct.pack("<I", len(token)) + token for token in tokens)


# ---------------------------------------------------------------------------------------------------------
# The tensors
# ---------------------------------------------------------------------------------------------------------


def _find_tensors(reader: ByteReader) -> dict[str, _Stored]:
    stored: dict[str, _Stored] = {}
    while reader.left:
        name, found = _find_tensor(reader)
        if name in stored:
            raise CheckpointError(f"{reader.file.path} holds {name} twice; get it again from where it came")
        stored[name] = found
    return stored


def _find_tensor(reader: ByteReader) -> tuple[str, _Stored]:
    """Read the head of a tensor and pass over its numbers."""
    n_dims, length, kind = reader.numbers("2Ii", "the head of a tensor")
    shape: tuple[int, ...] = ()
    name = ""
    if 1 <= n_dims <= _MOST_DIMENSIONS and 1 <= length <= _LONGEST_NAME:
        shape = reader.numbers(f"{n_dims}I", "the shape of a tensor")[::-1]  # the fastest dimension comes first
        name = reader.bytes(length, "the name of a tensor").decode("ascii", "replace")
    if not name.isprintable() or not shape or not all(shape) or "\ufffd" in name:
        raise CheckpointError(
            f"{reader.file.path} is damaged before byte {reader.position}: there is no tensor of {n_dims} dimensions "
            f"{shape} with a name of {length} bytes like this; get it again from where it came"
        )
    count = math.prod(shape)
    if kind in PLAIN_TYPES:
        size = count * PLAIN_TYPES[kind].itemsize
    elif kind in BLOCK_FORMATS and shape[-1] % BLOCK_FORMATS[kind].n_numbers == 0:
        size = count // BLOCK_FORMATS[kind].n_numbers * BLOCK_FORMATS[kind].n_bytes
    else:
        known = ", ".join(["f32", "f16", "bf16", *(blocks.name for blocks in BLOCK_FORMATS.values())])
        raise CheckpointError(
            f"{reader.file.path} has {name} of shape {shape} in the type {kind} of ggml, which is none of {known} or "
            "does not fit the shape; quantise the model in one of them, or get it again from where it came"
        )
    offset = reader.skip(size, name)
    if name in COLUMNS and shape[1:] == (1,):
        shape = shape[:1]
    return name, _Stored(offset, kind, shape)


def _view(stored: _Stored) -> Tensor:
    return torch.empty(stored.shape, dtype=PLAIN_TYPES.get(stored.type, torch.float32), device="meta")


def _make(file: KeptFile, stored: _Stored) -> Tensor:
    if stored.type in PLAIN_TYPES:
        return _read_plain(file, stored.offset, PLAIN_TYPES[stored.type], stored.shape)
    blocks = BLOCK_FORMATS[stored.type]
    size = math.prod(stored.shape) // blocks.n_numbers * blocks.n_bytes
    return blocks.dequantise(file.read(stored.offset, size)).view(stored.shape)


def _read_plain(file: KeptFile, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return file.read(offset, math.prod(shape) * dtype.itemsize).view(dtype).view(shape)


# ---------------------------------------------------------------------------------------------------------
# GGUF
# ---------------------------------------------------------------------------------------------------------


def _about_gguf(file: KeptFile) -> str:
    """Say which model a GGUF file holds; continues a sentence that began with the path."""
    try:
        reader = ByteReader(file)
        reader.skip(4 + 4 + 8 + 8, "the header of GGUF")
        key = reader.bytes(min(reader.number("Q", "a length"), _LONGEST_NAME), "a key")
        is_text = reader.number("I", "a type") == 8
        value = reader.bytes(min(reader.number("Q", "a length"), _LONGEST_NAME), "a value") if is_text else b""
    except CheckpointError:
        key = value = b""
    kind = f" of a model called {value.decode('utf-8', 'replace')!r}" if key == b"general.architecture" else ""
    return (
        f"is a GGUF file{kind}, which whisper.cpp does not read either; give a ggml-*.bin of whisper.cpp, or the .pt "
        "file or the Hugging Face folder that it was made from"
    )
