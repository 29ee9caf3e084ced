"""Whisper models in the layout of Hugging Face: a folder, or the name of one on the hub.

Converts names and configuration to ours; `transformers` is not needed. Adapters without their base model,
quantised weights and variants of the architecture that our network cannot express are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError, DownloadError, MissingDependencyError, WhisperError
from ...model import sinusoids
from ..lazy_tensors import KeptFile, keep, left_in_files
from ..weights import Weights, checked_dimensions
from .model_folders import heads_of_pairs, known_tokens, read_json
from .tensor_files import read_safetensors, read_torch

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

_DIMENSIONS = {
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

_RENAMED = {  # the first rule that fits is applied, in this order
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


def has_weights(folder: str) -> bool:
    """Whether a folder holds one of `WEIGHT_FILES`."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in WEIGHT_FILES)


def read_folder(folder: str) -> Weights:
    """Read a folder with a configuration and weights in one of `WEIGHT_FILES`, whole or in shards.

    Fine-tuned and distilled models too; tokens that were added behind Whisper's vocabulary are cut off, with a
    warning, because the number of tokens is how a Whisper tells its languages.

    Raises
    ------
    CheckpointError
        Where files are missing or broken, or describe something other than a Whisper.
    """
    config = _read_config(folder)
    dims = checked_dimensions(
        {ours: config.get(theirs, f"no {theirs}") for ours, theirs in _DIMENSIONS.items()},
        os.path.join(folder, "config.json"),
    )
    generation = read_json(folder, "generation_config.json") or {}
    files, read = _read_tensors(folder)
    tensors = renamed(read, folder)
    tensors.setdefault("encoder.positional_embedding", sinusoids(dims.n_audio_ctx, dims.n_audio_state))
    generation_config = f"generation_config.json in {folder}"
    mask = heads_of_pairs(generation.get("alignment_heads"), dims, generation_config)
    no_timestamps, name = generation.get("no_timestamps_token_id"), "decoder.token_embedding.weight"
    n_known = known_tokens(dims.n_vocab, no_timestamps, folder, "the no_timestamps_token_id of generation_config.json")
    if n_known < dims.n_vocab and name in tensors:
        tensors[name], dims.n_vocab = tensors[name][:n_known], n_known
    return Weights(dims, left_in_files(tensors, files), mask, folder)


def fetch(name: str, download_root: str | None = None) -> str:
    """Load the files of the hub's model `name`, ``owner/name``, and return the folder that holds them.

    Parameters
    ----------
    name
        The model's name on the hub.
    download_root
        The folder to keep it in; without it, the hub's own cache (``HF_HOME``).

    Raises
    ------
    DownloadError
        The hub does not give the files.
    MissingDependencyError
        The package ``huggingface_hub`` is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        what = f"{name} is no file or folder here, and to load it from the Hugging Face hub needs huggingface_hub"
        raise MissingDependencyError(what, extra="hub") from error
    configs = ["config.json", "generation_config.json"]
    try:
        folder = snapshot_download(name, cache_dir=download_root, allow_patterns=[*configs, "model*.safetensors*"])
        if not any(os.path.isfile(os.path.join(folder, file)) for file in WEIGHT_FILES[:2]):
            folder = snapshot_download(name, cache_dir=download_root, allow_patterns=[*configs, "pytorch_model*.bin*"])
    except WhisperError:
        raise
    except Exception as error:  # exceptions of the hub's client depend on its version and its HTTP library
        reason = str(error).strip().split("\n")[0]
        raise DownloadError(
            f"{name} is no file or folder here, and the Hugging Face hub did not give it ({reason}); "
            "check the name and the connection, or give the path of a folder that holds the model"
        ) from error
    return str(folder)


# ---------------------------------------------------------------------------------------------------------
# The configuration
# ---------------------------------------------------------------------------------------------------------


def _read_config(folder: str) -> dict[str, Any]:
    config = read_json(folder, "config.json")
    if config is None and os.path.isfile(os.path.join(folder, "adapter_config.json")):
        raise CheckpointError(
            f"{folder} holds an adapter (LoRA) without its base model; merge the two "
            "(merge_and_unload() of peft) and give the merged folder"
        )
    if config is None:
        raise CheckpointError(
            f"{folder} is no Hugging Face model: config.json is missing; give the folder that holds it, "
            "or the path of a .pt file"
        )
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
        "quantization_config": None,
    }.items():
        if config.get(key, ours) != ours:
            raise CheckpointError(
                f"the model in {folder} has {key} = {config[key]!r} where Whisper has {ours!r}; "
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
    ours = {_our_name(name): tensor for name, tensor in found.items()}
    if len(ours) < len(found):
        raise CheckpointError(f"{source} holds tensors twice under different names; get the model again")
    embedding = ours.get("decoder.token_embedding.weight")
    if output is not None and embedding is None:
        ours["decoder.token_embedding.weight"] = output
    elif output is not None and embedding is not None and not torch.equal(output, embedding):
        raise CheckpointError(
            f"{source} has an output layer proj_out of its own, and a Whisper shares it with its token "
            "embedding; save the model with tied weights"
        )
    return ours


def _our_name(name: str) -> str:
    for pattern, replacement in _RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name


def _read_tensors(folder: str) -> tuple[list[KeptFile], dict[str, Tensor]]:
    name = next((n for n in WEIGHT_FILES if os.path.isfile(os.path.join(folder, n))), None)
    if name is None:
        raise CheckpointError(
            f"{folder} holds no weights: one of {', '.join(WEIGHT_FILES)} is missing beside config.json; "
            "get the folder again with its weights"
        )
    if not name.endswith(".index.json"):
        files = keep([os.path.join(folder, name)])
        return files, read_file(files[0])
    index = (read_json(folder, name) or {}).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise CheckpointError(f"{os.path.join(folder, name)} has no weight_map; get the file again")
    return _read_shards(folder, sorted(set(index.values())))


def _read_shards(folder: str, names: Iterable[str]) -> tuple[list[KeptFile], dict[str, Tensor]]:
    names = list(names)
    # a name with a folder in it could lead anywhere; the hub's shards lie side by side
    missing = [n for n in names if os.path.basename(n) != n or not os.path.isfile(os.path.join(folder, n))]
    if missing:
        raise CheckpointError(
            f"{folder} is incomplete: {len(missing)} of {len(names)} shards are missing "
            f"({', '.join(missing[:3])}); get them from where the folder came"
        )
    files = keep([os.path.join(folder, name) for name in names])
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(read_file(file))
    return files, tensors


def read_file(file: KeptFile) -> dict[str, Tensor]:
    """Read one file of weights, mapped into memory rather than loaded: safetensors, or torch's own."""
    if file.path.endswith(".safetensors"):
        return read_safetensors(file)[0]
    content = read_torch(file)
    if not isinstance(content, dict):
        raise CheckpointError(f"{file.path} holds a {type(content).__name__}, not a state dict; get the file again")
    return content
