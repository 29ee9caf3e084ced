"""What folders of weights have in common: JSON, dimensions, heads as pairs of numbers, tokens behind the vocabulary."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...model import ModelDimensions, sinusoids
from ..weights import checked_dimensions

CONFIG = "config.json"
HUGGING_FACE_NAMES = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
_MOST_POSITIONS = 1 << 24  # numbers; large has 1500 x 1280
_MOST_BYTES = 1 << 26  # of a JSON file; the index of the largest Whisper's shards has 150 kB

# <|notimestamps|> comes 1502 ids before the end of each of Whisper's three vocabularies
_VOCABULARY_OF_NO_TIMESTAMPS = {50362: 51864, 50363: 51865, 50364: 51866}


def read_json(folder: str, name: str) -> dict[str, Any] | None:
    """Return the object in a file of a folder; None where there is no such file.

    Raises
    ------
    CheckpointError
        Where the file is broken, or holds something other than an object.
    """
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return None
    try:
        if os.path.getsize(path) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); get the file again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not an object; get the file again")
    return content


def dimensions(config: Mapping[str, Any], folder: str) -> ModelDimensions:
    """Return the ten dimensions that `config` of `folder` states, in OpenAI's names or in Hugging Face's."""
    names = {field.name: field.name for field in fields(ModelDimensions)}
    if "n_mels" not in config:
        names = HUGGING_FACE_NAMES
    stated = {ours: config.get(theirs, f"no {theirs}") for ours, theirs in names.items()}
    return checked_dimensions(stated, os.path.join(folder, CONFIG))


def encoder_positions(dims: ModelDimensions, folder: str) -> Tensor:
    """Return the encoder's positional embedding, which is known beforehand, for files that leave it out.

    Raises
    ------
    CheckpointError
        Where it would be larger than any Whisper's: the dimensions are wrong then.
    """
    if dims.n_audio_ctx * dims.n_audio_state > _MOST_POSITIONS:
        raise CheckpointError(
            f"{folder} announces positions of {dims.n_audio_ctx} x {dims.n_audio_state} numbers, more than any Whisper "
            "has; get config.json again"
        )
    return sinusoids(dims.n_audio_ctx, dims.n_audio_state)


def heads_of_pairs(pairs: Any, dims: ModelDimensions, source: str) -> Tensor | None:
    """Return alignment heads, listed as pairs of layer and head, as booleans ``(n_text_layer, n_text_head)``.

    None where there are none, or, with a warning, where one of them is not the model's.
    """
    if not pairs:
        return None
    mask = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool, device="cpu")
    for pair in pairs if isinstance(pairs, (list, tuple)) else [pairs]:
        is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(n, int) for n in pair)
        layer, head = pair if is_pair else (-1, -1)
        if layer not in range(dims.n_text_layer) or head not in range(dims.n_text_head):
            warnings.warn(
                f"{source} names the alignment head {pair}, which this model does "
                "not have: the list is another model's and is left out; word times use the upper layers",
                stacklevel=5,
            )
            return None
        mask[layer, head] = True
    return mask


def known_tokens(n_vocab: int, no_timestamps: object, folder: str, where: str) -> int:
    """Return how many of a model's tokens are Whisper's; a warning says how many others follow.

    They have to be cut off, because the number of tokens is how a Whisper tells its languages.

    Parameters
    ----------
    n_vocab
        How many tokens there are.
    no_timestamps
        The id of ``<|notimestamps|>``, which tells Whisper's three vocabularies apart; None where it is not known.
    folder
        The model's.
    where
        Which file would have told that id, for the error.

    Raises
    ------
    CheckpointError
        Where there are more tokens than any Whisper has, and the id is not known.
    """
    n_known = _VOCABULARY_OF_NO_TIMESTAMPS.get(no_timestamps) if isinstance(no_timestamps, int) else None
    if n_known is None and n_vocab > max(_VOCABULARY_OF_NO_TIMESTAMPS.values()):
        raise CheckpointError(
            f"{folder} has {n_vocab} tokens, more than any Whisper, and the added ones cannot be "
            f"identified without {where}; put that of its base model beside it"
        )
    if n_known is None or n_vocab <= n_known:
        return n_vocab
    warnings.warn(
        f"{folder} has {n_vocab - n_known} tokens behind Whisper's {n_known}; they are left out",
        stacklevel=5,
    )
    return n_known
