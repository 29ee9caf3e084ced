"""Writes a model as a folder that CTranslate2 and faster-whisper load, in any of their precisions.

The integers are those that CTranslate2's own converter makes (`layout` and rounding of version 4.8, MIT licence).
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

from ....errors import CheckpointError
from ....files import atomic_folder
from ..tokenizer_files import (
    VOCABULARIES,
    preprocessor_config,
    suppressed_tokens,
    token_texts,
    tokenizer_json,
    tokenizer_of,
)
from .layout import EMBEDDING, MODEL_FILE, PROJECTION, SPEC_NAME, TYPES, layout

if TYPE_CHECKING:
    from ....model import Whisper

PRECISIONS = ("float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16", "int8_bfloat16")

_VERSION, _REVISION = 6, 3
_FLOATS = {  # of what is not quantised; with "int8" as it is in the model
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int16": torch.float32,
    "int8_float32": torch.float32,
    "int8_float16": torch.float16,
    "int8_bfloat16": torch.bfloat16,
}


def write(model: Whisper, path: str, precision: str) -> None:
    """Write `model` as the new folder `path`, in one of `PRECISIONS`.

    Raises
    ------
    CheckpointError
        Where a weight is too large for the precision, or the model's tokens are not Whisper's.
    OptionError
        Where there is something at `path`.
    """
    n_vocab = model.dims.n_vocab
    if n_vocab not in VOCABULARIES:
        raise CheckpointError(
            f"a CTranslate2 folder holds the text of every token, and a vocabulary of {n_vocab} tokens is none of "
            f"Whisper's ({', '.join(map(str, VOCABULARIES))}); save the model as 'pt'"
        )
    with atomic_folder(path) as folder:
        with open(os.path.join(folder, MODEL_FILE), "wb") as file:
            write_model(model, file, precision)
            file.flush()
            os.fsync(file.fileno())
        for name, content in {
            "config.json": _config(model),
            "vocabulary.json": token_texts(n_vocab),
            "tokenizer.json": tokenizer_json(n_vocab),
            "preprocessor_config.json": preprocessor_config(model.dims.n_mels),
        }.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as text:
                json.dump(content, text, ensure_ascii=False, indent=2)


# ---------------------------------------------------------------------------------------------------------
# The weights
# ---------------------------------------------------------------------------------------------------------


def write_model(model: Whisper, file: BinaryIO, precision: str) -> None:
    """Write ``model.bin``: one variable after another, in the order of their names."""
    state = model.state_dict()
    names = layout(model.dims.n_audio_layer, model.dims.n_text_layer)
    stored: list[tuple[str, Tensor | tuple[str | None, ...]]] = [*_settings(model).items(), *names.items()]
    scales = sum(map(_is_quantized, names)) if precision.startswith("int") else 0
    file.write(struct.pack("<I", _VERSION) + _text(SPEC_NAME))
    file.write(struct.pack("<II", _REVISION, len(stored) + scales))
    for name, content in sorted(stored, key=lambda item: item[0]):
        if isinstance(content, Tensor):
            _write_variable(file, name, content)
            continue
        for variable, tensor in _converted(name, _stacked(name, content, state), precision):
            _write_variable(file, variable, tensor)
    file.write(struct.pack("<I", 1) + _text(PROJECTION) + _text(EMBEDDING))


def _stacked(name: str, parts: tuple[str | None, ...], state: dict[str, Tensor]) -> Tensor:
    """Return the tensors of ours that a variable consists of, on the CPU."""
    tensors = [None if part is None else state[part].detach().cpu() for part in parts]
    like = next(tensor for tensor in tensors if tensor is not None)
    return torch.cat([torch.zeros_like(like) if tensor is None else tensor for tensor in tensors])


def _is_quantized(name: str) -> bool:
    return name.endswith("/weight")  # of linear layers, convolutions and the embedding


def _converted(name: str, tensor: Tensor, precision: str) -> Iterator[tuple[str, Tensor]]:
    """Give out a variable in `precision`, and its scales behind it."""
    if not tensor.isfinite().all():
        raise CheckpointError(f"{name} of this model has numbers that are not finite; it cannot be saved")
    if _is_quantized(name) and precision.startswith("int"):
        levels, scale = _int16(tensor.float()) if precision == "int16" else _int8(tensor.float())
        yield name, levels
        yield name + "_scale", scale
        return
    dtype = _FLOATS.get(precision, tensor.dtype if _type(tensor.dtype) in TYPES else torch.float32)
    converted = tensor.to(dtype)
    if not converted.isfinite().all():
        raise CheckpointError(f"{name} has numbers that {str(dtype)[6:]} cannot hold; save in float32")
    yield name, converted


def _int8(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers and their scales by row: the largest number of a row becomes 127."""
    rows = tensor.flatten(start_dim=1)  # (n_out, ...)
    largest = rows.abs().amax(dim=1)
    largest[largest == 0] = 127
    largest = largest.clamp(min=1e-36)  # so that the tiniest row has a finite scale
    scale = torch.full_like(largest, 127) / largest  # 127 / largest is a reciprocal in torch, and rounds twice
    levels = (rows * scale[:, None]).round().to(torch.int8)
    return levels.reshape(tensor.shape), scale


def _int16(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers and their scale: the largest number of all becomes 1024, so that sums of products fit."""
    largest = tensor.abs().amax()
    scale = torch.where(largest > 0, 1024 / largest, 1).to(torch.float32)
    return (tensor * scale).round().to(torch.int16), scale


def _write_variable(file: BinaryIO, name: str, tensor: Tensor) -> None:
    content = tensor.contiguous()
    n_bytes = content.numel() * content.element_size()
    file.write(_text(name) + struct.pack(f"<B{content.ndim}I", content.ndim, *content.shape))
    file.write(struct.pack("<BI", TYPES.index(_type(content.dtype)), n_bytes))
    file.write(content.reshape(-1).view(torch.uint8).numpy().data)


def _text(text: str) -> bytes:
    content = text.encode("utf-8") + b"\0"
    return struct.pack("<H", len(content)) + content


def _settings(model: Whisper) -> dict[str, Tensor]:
    """Return what the converter writes beside weights, as arrays without axes."""
    short, byte = torch.int16, torch.int8
    return {
        name: torch.tensor(value, dtype=dtype, device="cpu")
        for name, value, dtype in (
            ("encoder/num_heads", model.dims.n_audio_head, short),
            ("decoder/num_heads", model.dims.n_text_head, short),
            ("decoder/activation", 3, byte),  # GELU
            ("decoder/pre_norm", 1, byte),
            ("decoder/scale_embeddings", 0, byte),
            ("decoder/start_from_zero_embedding", 0, byte),
            ("decoder/alibi", 0, byte),
            ("decoder/alignment_layer", -1, short),  # of translation models, as the next one: not for word times
            ("decoder/alignment_heads", 1, short),
        )
    }


# ---------------------------------------------------------------------------------------------------------
# The files beside them
# ---------------------------------------------------------------------------------------------------------


def _config(model: Whisper) -> dict[str, Any]:
    tokenizer = tokenizer_of(model.dims.n_vocab)
    never, at_the_beginning = suppressed_tokens(tokenizer)
    heads = model.alignment_heads
    heads = heads.to_dense() if heads.is_sparse else heads
    return {
        "alignment_heads": heads.cpu().nonzero().tolist(),
        "lang_ids": list(tokenizer.all_language_tokens),
        "suppress_ids": never,
        "suppress_ids_begin": at_the_beginning,
    }


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
