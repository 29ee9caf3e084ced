"""CTranslate2's Whisper models, which faster-whisper runs: the file ``model.bin``, alone or in its folder.

The reader is our own because no light library reads the format, whose layout is that of CTranslate2 4.8 (MIT licence).
Integers become float32 whenever a tensor is asked for, one at a time. Refused are weights that our network cannot
express: an output layer apart from the token embedding, keys with a bias, other settings than Whisper's, AWQ.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....errors import CheckpointError
from ....model import ModelDimensions
from ...lazy_tensors import ComputedTensors, KeptFile, keep
from ...weights import Weights, checked_dimensions
from ..alignment_heads import published_heads
from ..byte_reader import ByteReader
from ..foreign import described
from ..model_folders import heads_of_pairs, known_tokens, read_json
from .layout import (
    EMBEDDING,
    MODEL_FILE,
    NEWEST_REVISION,
    NEWEST_VERSION,
    PROJECTION,
    SETTINGS,
    SPEC_NAME,
    TYPES,
    is_ctranslate2,
    layout,
)

_OLD_TYPES = {1: torch.int8, 2: torch.int16, 4: torch.float32}  # by the size of a number, before version 4
_MOST_VARIABLES = 20_000  # large-v3 has 1,200 in int8
_INT16_SCALE = 1000.0  # where a file gives none
_BLOCK = 1 << 20


def read_folder(folder: str) -> Weights:
    """Read a folder with ``model.bin``; ``config.json`` and the vocabulary beside it are used where they are there.

    Tokens that were added behind Whisper's vocabulary are cut off, with a warning, because the number of tokens is how
    a Whisper tells its languages.

    Raises
    ------
    CheckpointError
        Where files are broken, do not belong together, or hold something other than a Whisper.
    """
    file = keep([os.path.join(folder, MODEL_FILE)])[0]
    if not is_ctranslate2(file):
        raise CheckpointError(f"{file.path} {_foreign(file)}")
    return _read(file, folder, read_json(folder, "config.json") or {}, _read_vocabulary(folder))


def read(file: KeptFile) -> Weights:
    """Read ``model.bin`` alone: the alignment heads are those of the published model of its dimensions.

    Raises
    ------
    CheckpointError
        Where the file is truncated or forged, or holds something other than a Whisper.
    """
    return _read(file, file.path, {}, None)


def _read(file: KeptFile, source: str, config: Mapping[str, Any], vocabulary: list[str] | None) -> Weights:
    if config.get("quantization_type"):
        raise CheckpointError(
            f"{source} is quantised by AWQ, as its config.json says, which is read nowhere but in CTranslate2; "
            "convert the model again in int8 or float16"
        )
    variables = _Variables(*_parse(file), file.path)
    _check_settings(variables)
    dims = _dimensions(variables)
    n_vocab = dims.n_vocab
    if vocabulary is not None:
        if len(vocabulary) != n_vocab:
            raise CheckpointError(
                f"{source} has a vocabulary of {len(vocabulary)} tokens and embeddings of {n_vocab}; "
                "its files belong to two models, get them again"
            )
        no_timestamps = vocabulary.index("<|notimestamps|>") if "<|notimestamps|>" in vocabulary else None
        dims.n_vocab = known_tokens(n_vocab, no_timestamps, source, "a vocabulary with <|notimestamps|>")
    else:
        dims.n_vocab = known_tokens(n_vocab, None, source, "vocabulary.json or vocabulary.txt")
    tensors = _tensors(variables, dims)
    heads = heads_of_pairs(config.get("alignment_heads"), dims, f"config.json in {source}")
    return Weights(dims, tensors, published_heads(dims, source) if heads is None else heads, source)


def _foreign(file: KeptFile) -> str:
    """Name a ``model.bin`` that is none by its first bytes; continues a sentence that began with the path."""
    head = file.bytes_at(0, 4)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return (
            "is a torch file under the name of a CTranslate2 model; "
            "convert it with ct2-transformers-converter, or give the file itself instead of its folder"
        )
    if head.startswith(b"\x01\0\0\0"):
        return "is a CTranslate2 model of binary version 1, older than any Whisper; convert the model again"
    return described(file)


# ---------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Variable:
    """Where an array lies in a file."""

    file: KeptFile
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        return self.file.read(self.offset, self.n_bytes).view(self.dtype).reshape(self.shape)

    def rows(self, first: int, last: int) -> _Variable:
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        return _Variable(self.file, self.offset + first * row, (last - first, *self.shape[1:]), self.dtype)

    def blocks(self) -> Iterator[bytes]:
        for start in range(0, self.n_bytes, _BLOCK):
            yield self.file.bytes_at(self.offset + start, min(_BLOCK, self.n_bytes - start))


def _parse(file: KeptFile) -> tuple[dict[str, _Variable], dict[str, str]]:
    """Return the variables of a file, and further names of some."""
    reader = ByteReader(file)
    version = _read_header(reader)
    variables: dict[str, _Variable] = {}
    for _ in range(_read_count(reader, "variables")):
        name = _read_text(reader, "the name of a variable")
        if name in variables:
            raise CheckpointError(f"{file.path} holds {name!a} twice; it is damaged, get it again from where it came")
        variables[name] = _read_variable(reader, name, version)
    aliases = {}
    if version >= 3:
        for _ in range(_read_count(reader, "aliases")):
            alias = _read_text(reader, "an alias")
            aliases[alias] = _read_text(reader, "the variable of an alias")
    if reader.left:
        raise CheckpointError(
            f"{file.path} goes on for {reader.left} bytes behind its last variable; "
            "it is damaged, get it again from where it came"
        )
    return variables, aliases


def _read_header(reader: ByteReader) -> int:
    """Return the binary version of a file with Whisper's spec."""
    path = reader.file.path
    version = reader.number("I", "the binary version")
    spec = _read_text(reader, "the name of the spec")
    revision = reader.number("I", "the revision of the spec")
    if spec != SPEC_NAME:
        raise CheckpointError(
            f"{path} is a CTranslate2 model with {spec[:60]!a}, and a Whisper has {SPEC_NAME}; "
            "give the folder of a Whisper"
        )
    if version > NEWEST_VERSION or revision > NEWEST_REVISION:
        raise CheckpointError(
            f"{path} has CTranslate2's binary version {version} and revision {revision}, and here "
            f"{NEWEST_VERSION} and {NEWEST_REVISION} are known; update sotto, or give the model that it was made from"
        )
    return version


def _read_count(reader: ByteReader, what: str) -> int:
    count = reader.number("I", f"the number of {what}")
    if count > _MOST_VARIABLES:
        raise CheckpointError(
            f"{reader.file.path} announces {count} {what}, and no Whisper has as many; "
            "it is damaged, get it again from where it came"
        )
    return count


def _read_text(reader: ByteReader, what: str) -> str:
    size = reader.number("H", f"the length of {what}")
    content = reader.bytes(size, what)
    try:
        if content[-1:] != b"\0" or b"\0" in content[:-1]:
            raise ValueError
        return content[:-1].decode("utf-8")
    except ValueError as error:
        raise CheckpointError(
            f"{reader.file.path} is damaged: {what} before byte {reader.position} is no text that ends in a zero; "
            "get it again from where it came"
        ) from error


def _read_variable(reader: ByteReader, name: str, version: int) -> _Variable:
    rank = reader.number("B", f"the rank of {name!a}")
    if rank > 3:
        raise CheckpointError(
            f"{name!a} in {reader.file.path} has {rank} axes, and no tensor of a Whisper has more than 3; "
            "it is damaged, get it again from where it came"
        )
    shape = reader.numbers(f"{rank}I", f"the shape of {name!a}")
    kind, size = reader.numbers("BI", f"the type of {name!a}")
    if version >= 4:
        dtype: torch.dtype | None = getattr(torch, TYPES[kind]) if kind < len(TYPES) else None
    else:  # the size of a number, and how many there are
        dtype, size = _OLD_TYPES.get(kind), size * kind
    if dtype is None:
        raise CheckpointError(
            f"{name!a} in {reader.file.path} has a type of number that is not known (number {kind}); "
            "give the model that it was converted from"
        )
    if 0 in shape or math.prod(shape) * dtype.itemsize != size:
        raise CheckpointError(
            f"{name!a} in {reader.file.path} has shape {tuple(shape)} and {size} bytes, which do not fit; "
            "it is damaged, get it again from where it came"
        )
    return _Variable(reader.file, reader.skip(size, f"{name!a}"), shape, dtype)


class _Variables:
    """The variables of a file by their names, aliases among them.

    Parameters
    ----------
    variables
        Those that are stored.
    aliases
        By further name, which one is meant.
    path
        The file's, for messages.
    """

    def __init__(self, variables: Mapping[str, _Variable], aliases: Mapping[str, str], path: str) -> None:
        self._stored, self._aliases, self.path = variables, aliases, path
        lost = next((alias for alias, name in aliases.items() if name not in variables), None)
        if lost is not None:
            raise CheckpointError(
                f"{path} lacks the variable {aliases[lost]!a} that {lost!a} stands for; "
                "it is damaged, get it again from where it came"
            )

    def __iter__(self) -> Iterator[str]:
        yield from self._stored
        yield from self._aliases

    def get(self, name: str) -> _Variable | None:
        return self._stored.get(self._aliases.get(name, name))

    def scale_of(self, name: str) -> _Variable | None:
        """Return the scales of a variable, which an alias shares."""
        return self.get(self._aliases.get(name, name) + "_scale")

    def is_scalar(self, name: str) -> bool:
        variable = self.get(name)
        return variable is not None and not variable.shape

    def scalar(self, name: str) -> float | None:
        variable = self.get(name)
        return variable.read().item() if variable is not None and not variable.shape else None

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """Return the shape of a variable that has so many axes."""
        variable = self.get(name)
        if variable is None or len(variable.shape) != rank:
            found = "is missing" if variable is None else f"has shape {variable.shape}"
            raise CheckpointError(
                f"{self.path} is no whole Whisper: {name} {found}; get the file again from where it came"
            )
        return variable.shape


# ---------------------------------------------------------------------------------------------------------
# The network
# ---------------------------------------------------------------------------------------------------------


def _check_settings(variables: _Variables) -> None:
    for name, allowed in SETTINGS.items():
        value = variables.scalar(name)
        if value is not None and value not in allowed:
            raise CheckpointError(
                f"the model in {variables.path} has {name} = {value:g}, and a Whisper has {allowed[-1]:g}; "
                "give the Whisper that it was made from"
            )


def _dimensions(variables: _Variables) -> ModelDimensions:
    """Read the ten numbers off the shapes: no file of a folder states them."""
    layers: dict[str, set[str]] = {"encoder": set(), "decoder": set()}
    for name in variables:
        if found := re.match(r"(encoder|decoder)/layer_(\d+)/", name):
            layers[found[1]].add(found[2])
    n_audio_ctx, n_audio_state = variables.shape("encoder/position_encodings/encodings", 2)
    n_text_ctx, n_text_state = variables.shape("decoder/position_encodings/encodings", 2)
    heads = {side: variables.scalar(f"{side}/num_heads") for side in layers}
    dims = {
        "n_mels": variables.shape("encoder/conv1/weight", 3)[1],
        "n_audio_ctx": n_audio_ctx,
        "n_audio_state": n_audio_state,
        "n_audio_head": heads["encoder"],
        "n_audio_layer": len(layers["encoder"]),
        "n_vocab": variables.shape(EMBEDDING, 2)[0],
        "n_text_ctx": n_text_ctx,
        "n_text_state": n_text_state,
        "n_text_head": heads["decoder"],
        "n_text_layer": len(layers["decoder"]),
    }
    return checked_dimensions(dims, variables.path)


def _check_names(variables: _Variables, expected: Mapping[str, object]) -> None:
    missing = [name for name in expected if variables.get(name) is None]
    if missing:
        raise CheckpointError(
            f"{variables.path} is incomplete: {len(missing)} of {len(expected)} variables are missing "
            f"({', '.join(missing[:3])}); get it again from where it came"
        )
    known = {*expected, PROJECTION}
    known |= {name + "_scale" for name in known}
    extra = [name for name in variables if name not in known and not variables.is_scalar(name)]
    if extra:
        raise CheckpointError(
            f"{variables.path} holds {len(extra)} variables that a Whisper does not have "
            f"({', '.join(map(ascii, extra[:3]))}); give the model that it was made from"
        )


def _tensors(variables: _Variables, dims: ModelDimensions) -> ComputedTensors:
    """Return the tensors of our network, each cut out of the variable in which it is stacked with others."""
    expected = layout(dims.n_audio_layer, dims.n_text_layer)
    _check_names(variables, expected)
    _check_tied(variables)
    makers: dict[str, tuple[Tensor, Callable[[], Tensor]]] = {}
    for name, parts in expected.items():
        numbers = _numbers(variables, name)
        n_rows = numbers.stored.shape[0]
        if name == EMBEDDING:
            n_rows = dims.n_vocab  # without tokens that were added
        if n_rows % len(parts):
            raise CheckpointError(
                f"{name} in {variables.path} has {n_rows} rows, which cannot be cut into {len(parts)}; "
                "it is damaged, get it again from where it came"
            )
        size = n_rows // len(parts)
        for i, ours in enumerate(parts):
            part = numbers.rows(i * size, (i + 1) * size)
            if ours is not None:
                makers[ours] = part.outline(), part.read
            elif part.read().any():
                raise CheckpointError(
                    f"{name} in {variables.path} has a bias for keys, which a Whisper has not; "
                    "give the Whisper that it was made from"
                )
    return ComputedTensors(makers)


def _check_tied(variables: _Variables) -> None:
    """Refuse an output layer that differs from the token embedding."""
    pairs = [
        (variables.get(PROJECTION), variables.get(EMBEDDING)),
        (variables.scale_of(PROJECTION), variables.scale_of(EMBEDDING)),
    ]
    if pairs[0][0] is None or pairs[0][0] == pairs[0][1]:  # not there, or an alias
        return
    for output, embedding in pairs:
        same = output == embedding or (
            output is not None
            and embedding is not None
            and (output.shape, output.dtype) == (embedding.shape, embedding.dtype)
            and all(a == b for a, b in zip(output.blocks(), embedding.blocks(), strict=True))
        )
        if not same:
            raise CheckpointError(
                f"{variables.path} has an output layer of its own ({PROJECTION}), and a Whisper shares it with its "
                "token embedding; convert the model with tied weights"
            )


@dataclass(frozen=True)
class _Numbers:
    """An array of floating-point numbers: stored as such, or as integers that are to be divided by their scales."""

    stored: _Variable
    scale: _Variable | None  # (n_rows,), or () for all rows alike

    def rows(self, first: int, last: int) -> _Numbers:
        scale = self.scale.rows(first, last) if self.scale is not None and self.scale.shape else self.scale
        return _Numbers(self.stored.rows(first, last), scale)

    def outline(self) -> Tensor:
        dtype = self.stored.dtype if self.stored.dtype.is_floating_point else torch.float32
        return torch.empty(self.stored.shape, dtype=dtype, device="meta")

    def read(self) -> Tensor:
        tensor = self.stored.read()
        if tensor.is_floating_point():
            return tensor
        divisor: Tensor | float = _INT16_SCALE
        if self.scale is not None:
            divisor = self.scale.read().to(torch.float32).reshape(-1, *[1] * (tensor.ndim - 1))
        return tensor.to(torch.float32).div_(divisor)


def _numbers(variables: _Variables, name: str) -> _Numbers:
    """Return a variable with its scales, which are checked."""
    stored, scale, path = variables.get(name), variables.scale_of(name), variables.path
    if stored is None or not stored.shape:
        raise CheckpointError(f"{name} in {path} is a single number; it is damaged, get it again from where it came")
    if stored.dtype.is_floating_point or (stored.dtype == torch.int16 and scale is None):
        return _Numbers(stored, None)
    n_rows, n_scales = stored.shape[0], math.prod(scale.shape) if scale is not None else 0
    if stored.dtype == torch.int32 or n_scales not in (1, n_rows) or scale is None:
        raise CheckpointError(
            f"{name} in {path} is {str(stored.dtype)[6:]} with {n_scales} scales for {n_rows} rows, which is no "
            "quantisation that is known here; give the model that it was quantised from"
        )
    scale = _Variable(scale.file, scale.offset, () if n_scales == 1 else (n_rows,), scale.dtype)
    values = scale.read()
    if not values.is_floating_point() or not values.min() > 0:  # or NaN; infinite is that of a row of almost nothing
        raise CheckpointError(
            f"{name} in {path} has scales that are not positive numbers; it is damaged, get it again from where it came"
        )
    return _Numbers(stored, scale)


# ---------------------------------------------------------------------------------------------------------
# The vocabulary
# ---------------------------------------------------------------------------------------------------------


def _read_vocabulary(folder: str) -> list[str] | None:
    """Return the texts of all tokens; None where the folder does not hold them."""
    path = os.path.join(folder, "vocabulary.json")
    try:
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                tokens = json.load(file)
            if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
                raise ValueError("not a list of texts")
            return tokens
        path = os.path.join(folder, "vocabulary.txt")
        if os.path.isfile(path):
            with open(path, encoding="utf-8", newline="\n") as file:
                return [line.removesuffix("\n") for line in file]
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read as the texts of tokens ({error}); get the file again from where it came"
        ) from error
    return None
