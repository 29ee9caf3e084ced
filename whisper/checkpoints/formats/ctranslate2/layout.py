"""How CTranslate2 stores a Whisper: types of numbers, names of variables, and what is stacked in each.

The numbers and names are those of CTranslate2 4.8 (MIT licence).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...lazy_tensors import KeptFile

MODEL_FILE = "model.bin"
SPEC_NAME = "WhisperSpec"
NEWEST_VERSION, NEWEST_REVISION = 6, 3  # of the format, and of the spec
EMBEDDING = "decoder/embeddings/weight"
PROJECTION = "decoder/projection/weight"  # the output layer: a further name of the embedding
TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")  # by their ids

SETTINGS = {  # what Whisper has; others change what the network computes
    "decoder/activation": (1, 3),  # GELU, by its numbers before and since revision 3
    "decoder/pre_norm": (1,),
    "decoder/alibi": (0,),
    "decoder/scale_embeddings": (0, 1.0),  # a flag, or a factor
    "decoder/start_from_zero_embedding": (0,),
}

_OUTSIDE_LAYERS = {
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
    EMBEDDING: "decoder.token_embedding.weight",
    "encoder/conv1/weight": "encoder.conv1.weight",
    "encoder/conv1/bias": "encoder.conv1.bias",
    "encoder/conv2/weight": "encoder.conv2.weight",
    "encoder/conv2/bias": "encoder.conv2.bias",
    "encoder/layer_norm/gamma": "encoder.ln_post.weight",
    "encoder/layer_norm/beta": "encoder.ln_post.bias",
    "decoder/layer_norm/gamma": "decoder.ln.weight",
    "decoder/layer_norm/beta": "decoder.ln.bias",
}
_NORMS = {  # in a layer
    "self_attention/layer_norm": "attn_ln",
    "attention/layer_norm": "cross_attn_ln",
    "ffn/layer_norm": "mlp_ln",
}
_LINEARS = {  # in a layer; several are stacked
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
}


def is_ctranslate2(file: KeptFile) -> bool:
    """Whether a file begins like CTranslate2's models since binary version 2: a version, and the name of a spec."""
    head = file.bytes_at(0, 64)
    return re.match(rb"[\x02-\xff]\0\0\0.\0[A-Za-z0-9]+Spec\0", head, re.DOTALL) is not None


def layout(n_audio_layer: int, n_text_layer: int) -> dict[str, tuple[str | None, ...]]:
    """Return all variables of a Whisper by name, each with the tensors of ours that are stacked in it.

    None stands for zeros: the bias of keys, which a Whisper has not.
    """
    names: dict[str, tuple[str | None, ...]] = {theirs: (ours,) for theirs, ours in _OUTSIDE_LAYERS.items()}
    layers = [("encoder", i) for i in range(n_audio_layer)] + [("decoder", i) for i in range(n_text_layer)]
    for side, i in layers:
        layer, block = f"{side}/layer_{i}", f"{side}.blocks.{i}"
        for theirs, ours in _NORMS.items():
            if side == "decoder" or not theirs.startswith("attention"):
                names[f"{layer}/{theirs}/gamma"] = (f"{block}.{ours}.weight",)
                names[f"{layer}/{theirs}/beta"] = (f"{block}.{ours}.bias",)
        for theirs, stacked in _LINEARS.items():
            if side == "decoder" or not theirs.startswith("attention"):
                names[f"{layer}/{theirs}/weight"] = tuple(f"{block}.{ours}.weight" for ours in stacked)
                names[f"{layer}/{theirs}/bias"] = tuple(
                    None if ours.endswith("key") else f"{block}.{ours}.bias" for ours in stacked
                )
    return names
