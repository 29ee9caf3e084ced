"""Writes a model as a folder that Hugging Face's `transformers` loads, with all that transcription needs there."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import torch

from ...files import atomic_folder
from ..weights import dimensions_of, state_of
from .model_folders import CONFIG, HUGGING_FACE_NAMES
from .tokenizer_files import VOCABULARIES, preprocessor_config, suppressed_tokens, tokenizer_json, tokenizer_of

if TYPE_CHECKING:
    from ...model import Whisper

PRECISIONS = ("float32", "float16", "bfloat16")

_RENAMED = {  # every rule that fits is applied, in this order
    r"^decoder\.token_embedding\.": "decoder.embed_tokens.",
    r"\.positional_embedding$": ".embed_positions.weight",
    r"^encoder\.ln_post\.": "encoder.layer_norm.",
    r"^decoder\.ln\.": "decoder.layer_norm.",
    r"\.blocks\.": ".layers.",
    r"\.cross_attn_ln\.": ".encoder_attn_layer_norm.",
    r"\.attn_ln\.": ".self_attn_layer_norm.",
    r"\.cross_attn\.": ".encoder_attn.",
    r"\.attn\.": ".self_attn.",
    r"\.query\.": ".q_proj.",
    r"\.key\.": ".k_proj.",
    r"\.value\.": ".v_proj.",
    r"\.out\.": ".out_proj.",
    r"\.mlp\.0\.": ".fc1.",
    r"\.mlp\.2\.": ".fc2.",
    r"\.mlp_ln\.": ".final_layer_norm.",
}
_MAX_INITIAL_TIMESTAMP = 50  # in steps of 20 ms


def write(model: Whisper, path: str, precision: str) -> None:
    """Write `model` as the new folder `path`, in one of `PRECISIONS`.

    The tokenizer and what generation needs to know of its tokens are left out where a model's vocabulary is not one of
    Whisper's.

    Raises
    ------
    CheckpointError
        Where a weight is too large for the precision.
    OptionError
        Where there is something at `path`.
    """
    from safetensors.torch import save_file

    state = state_of(model, getattr(torch, precision))
    files = {
        CONFIG: _config(model, precision),
        "generation_config.json": _generation_config(model),
        "preprocessor_config.json": preprocessor_config(model.dims.n_mels),
    }
    if model.dims.n_vocab in VOCABULARIES:
        files["tokenizer.json"] = tokenizer_json(model.dims.n_vocab)
        files["tokenizer_config.json"] = {
            "tokenizer_class": "WhisperTokenizer",
            "model_max_length": model.dims.n_text_ctx,
            **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
        }
    with atomic_folder(path) as folder:
        tensors = {_their_name(name): tensor.contiguous() for name, tensor in state.items()}
        for name, content in files.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as text:
                json.dump(content, text, ensure_ascii=False, indent=2)
        weights = os.path.join(folder, "model.safetensors")
        save_file(tensors, weights, metadata={"format": "pt"})
        # safetensors keeps others from reading it; the permissions are those of the files beside it
        shutil.copymode(os.path.join(folder, CONFIG), weights)


def _their_name(name: str) -> str:
    for pattern, replacement in _RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return f"model.{name}"


def _config(model: Whisper, precision: str) -> dict[str, Any]:
    dims = dimensions_of(model)
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "torch_dtype": precision,
        **{theirs: dims[ours] for ours, theirs in HUGGING_FACE_NAMES.items()},
        "encoder_ffn_dim": 4 * dims["n_audio_state"],
        "decoder_ffn_dim": 4 * dims["n_text_state"],
        "num_hidden_layers": dims["n_audio_layer"],
        "activation_function": "gelu",
        "scale_embedding": False,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        **_known_tokens(model),
    }


def _known_tokens(model: Whisper) -> dict[str, Any]:
    """Return what the two configurations say of single tokens."""
    if model.dims.n_vocab not in VOCABULARIES:
        return {}
    tokenizer = tokenizer_of(model.dims.n_vocab)
    return {
        "bos_token_id": tokenizer.eot,
        "eos_token_id": tokenizer.eot,
        "pad_token_id": tokenizer.eot,
        "decoder_start_token_id": tokenizer.sot,
    }


def _generation_config(model: Whisper) -> dict[str, Any]:
    heads = model.alignment_heads
    heads = heads.to_dense() if heads.is_sparse else heads
    made: dict[str, Any] = {
        "alignment_heads": heads.cpu().nonzero().tolist(),
        "max_length": model.dims.n_text_ctx,
        "max_initial_timestamp_index": _MAX_INITIAL_TIMESTAMP,
        "return_timestamps": False,
        **_known_tokens(model),
    }
    if model.dims.n_vocab not in VOCABULARIES:
        return made
    tokenizer = tokenizer_of(model.dims.n_vocab)
    made["suppress_tokens"], made["begin_suppress_tokens"] = suppressed_tokens(tokenizer)
    made["no_timestamps_token_id"] = tokenizer.no_timestamps
    made["prev_sot_token_id"] = tokenizer.sot_prev
    made["is_multilingual"] = model.is_multilingual
    if model.is_multilingual:
        languages = zip(tokenizer.all_language_codes, tokenizer.all_language_tokens, strict=True)
        made["lang_to_id"] = {f"<|{code}|>": token for code, token in languages}
        made["task_to_id"] = {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate}
    return made
