"""Whisper models in the layout of Hugging Face: a folder with a configuration and weights.

Converts names and configuration to ours; `transformers` is not needed. Adapters without their base model,
weights quantised otherwise than by bitsandbytes in 8 bits, and variants of the architecture that our network cannot
express are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..lazy_tensors import ComputedTensors, left_in_files, outline, own, views_of
from ..weights import Weights
from . import alignment_heads, mlx
from .foreign import described_folder
from .model_folders import CONFIG, dimensions, encoder_positions, heads_of_pairs, known_tokens, read_json
from .tensor_files import read_tensors

# The best first. A variant in another precision stands beside the main file, which is as exact as what was published.
WEIGHT_FILES = tuple(
    name
    for stem, ending in (("model", "safetensors"), ("pytorch_model", "bin"))
    for variant in ("", "fp32.", "bf16.", "fp16.")
    for name in (f"{stem}.{variant}{ending}", f"{stem}.{ending}.index.{variant}json")
)

_POSITIONS = "encoder.positional_embedding"
_EMBEDDING = "decoder.token_embedding.weight"

_RENAMED = {  # every rule that fits is applied, in this order
    r"^model\.": "",
    r"^decoder\.embed_tokens\.": "decoder.token_embedding.",
    r"\.embed_positions\.weight$": ".positional_embedding",
    r"\.layers\.": ".blocks.",
    r"\.self_attn_layer_norm\.": ".attn_ln.",
    r"\.encoder_attn_layer_norm\.": ".cross_attn_ln.",
    r"\.self_attn\.": ".attn.",
    r"\.encoder_attn\.": ".cross_attn.",
    r"\.q_proj\.": ".query.",
    r"\.k_proj\.": ".key.",
    r"\.v_proj\.": ".value.",
    r"\.out_proj\.": ".out.",
    r"\.fc1\.": ".mlp.0.",
    r"\.fc2\.": ".mlp.2.",
    r"\.final_layer_norm\.": ".mlp_ln.",
    r"^encoder\.layer_norm\.": "encoder.ln_post.",
    r"^decoder\.layer_norm\.": "decoder.ln.",
}


def read_folder(folder: str, name: str | None = None) -> Weights:
    """Read a folder with a configuration and weights in one of `WEIGHT_FILES`, whole or in shards.

    Fine-tuned and distilled models too; tokens that were added behind Whisper's vocabulary are cut off, with a
    warning, because the number of tokens is how a Whisper tells its languages.

    Parameters
    ----------
    folder
        The folder.
    name
        The file of weights, or the index of shards; without it, the first of `WEIGHT_FILES` that is there.

    Raises
    ------
    CheckpointError
        Where files are missing or broken, or describe something other than a Whisper.
    """
    config = _read_config(folder)
    dims = dimensions(config, folder)
    generation = read_json(folder, "generation_config.json") or {}
    name = name or next((n for n in WEIGHT_FILES if os.path.isfile(os.path.join(folder, n))), None)
    if name is None:
        raise CheckpointError(f"{folder} {described_folder(folder)}")
    files, read = read_tensors(folder, name)
    if mlx.has_its_names(read):
        return mlx.translated(left_in_files(read, files), dims, folder)
    tensors = renamed(read, folder)
    if _POSITIONS not in tensors:
        tensors[_POSITIONS] = encoder_positions(dims, folder)
    pairs, no_timestamps = generation.get("alignment_heads"), generation.get("no_timestamps_token_id")
    if pairs:
        mask = heads_of_pairs(pairs, dims, f"generation_config.json in {folder}")
    else:
        mask = alignment_heads.published_heads(dims, folder)
    n_known = known_tokens(dims.n_vocab, no_timestamps, folder, "the no_timestamps_token_id of generation_config.json")
    if n_known < dims.n_vocab and isinstance(embedding := tensors.get(_EMBEDDING), Tensor):
        tensors[_EMBEDDING], dims.n_vocab = embedding[:n_known], n_known
    quantised = "int8 of bitsandbytes" if any(name.endswith(".SCB") for name in tensors) else ""
    return Weights(dims, _without_int8(left_in_files(tensors, files), folder), mask, folder, quantised)


# ---------------------------------------------------------------------------------------------------------
# The configuration
# ---------------------------------------------------------------------------------------------------------


def _read_config(folder: str) -> dict[str, Any]:
    config = read_json(folder, CONFIG)
    if config is None:
        raise CheckpointError(f"{folder} {described_folder(folder)}")
    kind = config.get("model_type", "whisper")
    if kind != "whisper":
        raise CheckpointError(
            f"{folder} holds a model of type {kind!r}, not 'whisper'; give the folder of a Whisper model"
        )
    width = config.get("d_model")
    for key, ours in {
        "activation_function": "gelu",
        "scale_embedding": False,
        "encoder_ffn_dim": width * 4 if isinstance(width, int) else None,
        "decoder_ffn_dim": width * 4 if isinstance(width, int) else None,
    }.items():
        if config.get(key, ours) != ours:
            raise CheckpointError(
                f"the model in {folder} has {key} = {config[key]!r} where Whisper has {ours!r}; "
                "load the model that it was made from"
            )
    how = config.get("quantization_config")
    if how and not (isinstance(how, dict) and how.get("quant_method") == "bitsandbytes" and how.get("load_in_8bit")):
        how = how if isinstance(how, dict) else {"quant_method": how}
        method = " ".join(str(how[key]) for key in ("quant_method", "bnb_4bit_quant_type") if how.get(key))
        raise CheckpointError(
            f"the model in {folder} is quantised by {method or 'an unknown method'}, which is not read; "
            "load the model that it was made from"
        )
    return config


# ---------------------------------------------------------------------------------------------------------
# The tensors
# ---------------------------------------------------------------------------------------------------------


def renamed(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return `tensors` under the names of our network; the output layer must be the token embedding."""
    found = dict(tensors)
    output = found.pop("proj_out.weight", None)
    ours = {_our_name(str(name)): tensor for name, tensor in found.items()}
    if len(ours) < len(found):
        raise CheckpointError(f"{source} holds tensors twice under different names; get the model again")
    embedding = ours.get(_EMBEDDING)
    if output is not None and embedding is None:
        ours[_EMBEDDING] = output
    elif output is not None and embedding is not None and not _is_same(output, embedding):
        raise CheckpointError(
            f"{source} has an output layer proj_out of its own, and a Whisper shares it with its token "
            "embedding; save the model with tied weights"
        )
    return ours


def _is_same(output: object, embedding: object) -> bool:
    if not isinstance(output, Tensor) or not isinstance(embedding, Tensor):
        return False
    return output.dtype == embedding.dtype and torch.equal(output, embedding)


def _our_name(name: str) -> str:
    for pattern, replacement in _RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name


def _without_int8(stored: Mapping[str, Tensor], source: str) -> Mapping[str, Tensor]:
    """Return `stored` with the matrices that bitsandbytes put into int8 as float32, each made when it is asked for.

    A row is stored as ``127 / SCB`` times its numbers, rounded, where SCB is the largest of them.
    """
    views = views_of(stored)
    scaled = [name.removesuffix(".SCB") for name in views if name.endswith(".SCB")]
    if not scaled:
        return stored
    makers = {name: (view, partial(own, stored, name)) for name, view in views.items()}
    for base in scaled:
        scale, order = makers.pop(f"{base}.SCB")[0], makers.pop(f"{base}.weight_format", None)
        weight = views.get(f"{base}.weight")
        if weight is None or weight.dtype != torch.int8 or weight.ndim != 2 or scale.shape != weight.shape[:1]:
            raise CheckpointError(
                f"{base} in {source} has a scale SCB that does not fit its weight; get the model again"
            )
        if order is not None and stored[f"{base}.weight_format"].count_nonzero():
            raise CheckpointError(
                f"{base} in {source} is in the order of one kind of GPU; save the model again with bitsandbytes 0.43"
            )
        makers[f"{base}.weight"] = outline(weight).float(), partial(_from_int8, stored, base)
    return ComputedTensors(makers)


def _from_int8(stored: Mapping[str, Tensor], base: str) -> Tensor:
    return stored[f"{base}.weight"].float() * (stored[f"{base}.SCB"].float() / 127).unsqueeze(1)
