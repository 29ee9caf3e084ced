"""The same random weights of full size for every implementation, each in its own format, made without a network.

The speed of a Whisper does not depend on what its weights know, except through when it stops. So the rows of all
special tokens in the embedding are zero: their logits are zero, random text always has a likelier token, and nobody
ever says "end of text" or a timestamp of its own accord. All implementations then decode as many tokens as they are
allowed, without an option that some of them lack.

Weights are drawn once, rounded to float16 as the published checkpoints are, and converted from there:
  model.pt              openai-whisper, Sotto
  hf/                   the layout of Hugging Face, with a tokenizer (what the converters of others start from)
  ct2/                  faster-whisper, int8                      needs ctranslate2, so it runs in that environment
  ggml-q8_0.bin         whisper.cpp, q8_0, as its own `quantize` tool would write it
  openvino/             openvino-genai, int8 weights, stateful    needs optimum-intel, so it runs in that environment

Run by another implementation's Python as `rival_models.py ct2|openvino FOLDER`; imports nothing of Sotto at the top.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "whisper" / "assets"
SIZES = {  # n_mels, n_vocab, (state, heads, layers) of encoder and decoder: Radford et al. 2022, and the model cards
    "tiny": (80, 51865, (384, 6, 4), (384, 6, 4)),
    "base": (80, 51865, (512, 8, 6), (512, 8, 6)),
    "small": (80, 51865, (768, 12, 12), (768, 12, 12)),
    "large-v3": (128, 51866, (1280, 20, 32), (1280, 20, 32)),
    "large-v3-turbo": (128, 51866, (1280, 20, 32), (1280, 20, 4)),
}
EOT = 50257  # the first special token of the multilingual vocabulary
FORMATS = ("ct2", "openvino", "ggml")
MADE = 2  # increase when what is written changes: folders of another number are made again


# ---------------------------------------------------------------------------------------------------------
# Drawing the weights
# ---------------------------------------------------------------------------------------------------------


def prepare(size: str, cache: Path, formats: dict[str, str]) -> Path:
    """Return the folder of `size` under `cache`, with the checkpoint and every one of `formats`, made where missing.

    Parameters
    ----------
    formats
        For each format, the Python that can write it.
    """
    folder = cache / f"{size}-{MADE}"
    if not (folder / "hf" / "config.json").exists():
        _write("weights", size, folder)
    for name, python in formats.items():
        if not (folder / _FILES[name]).exists():
            print(f"converting {size} for {name}", file=sys.stderr, flush=True)
            command = [python, str(Path(__file__).resolve()), name, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return folder


_FILES = {"ct2": "ct2/model.bin", "openvino": "openvino/openvino_decoder_model.bin", "ggml": "ggml-q8_0.bin"}


def _write(what: str, size: str, folder: Path) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "hf").mkdir(parents=True)
    print(f"drawing the {what} of {size}", file=sys.stderr, flush=True)
    model = draw(size)
    from safetensors.torch import save_file

    from whisper.checkpoints.load import save_checkpoint

    save_checkpoint(model, partial / "model.pt", half=True)
    state = {their_name(name): tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, partial / "hf" / "model.safetensors", metadata={"format": "pt"})
    write_configs(size, partial / "hf")
    write_tokenizer(size, partial / "hf")
    partial.rename(folder)


def draw(size: str) -> Any:
    """Draw a model of `size`, always the same one."""
    import torch

    from whisper.model import ModelDimensions, Whisper

    n_mels, n_vocab, audio, text = SIZES[size]
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(n_mels, 1500, *audio, n_vocab, 448, *text))
    with torch.no_grad():
        # text logits with a deviation of 3 and the position louder than the last token: the text varies, and its
        # likeliest token also beats all timestamps together
        model.decoder.token_embedding.weight.mul_(3 / text[0] ** 0.5)[EOT:] = 0
        model.decoder.positional_embedding.normal_()
    return model


def special_tokens(n_vocab: int) -> list[str]:
    """Return the names of the tokens from `EOT` on."""
    from whisper.tokenizer import LANGUAGES

    languages = list(LANGUAGES)[: 99 + (n_vocab == 51866)]
    names = ["endoftext", "startoftranscript", *languages, "translate", "transcribe", "startoflm", "startofprev"]
    names += ["nospeech", "notimestamps", *(f"{i * 0.02:.2f}" for i in range(1501))]
    return [f"<|{name}|>" for name in names]


# ---------------------------------------------------------------------------------------------------------
# The layout of Hugging Face
# ---------------------------------------------------------------------------------------------------------

_RENAMED = (  # in this order
    (r"\.token_embedding\.", ".embed_tokens."),
    (r"\.positional_embedding$", ".embed_positions.weight"),
    (r"^(encoder)\.ln_post\.|^(decoder)\.ln\.", lambda found: f"{found[1] or found[2]}.layer_norm."),
    (r"\.blocks\.", ".layers."),
    (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.attn\.", ".self_attn."),
    (r"\.query\.", ".q_proj."),
    (r"\.key\.", ".k_proj."),
    (r"\.value\.", ".v_proj."),
    (r"\.out\.", ".out_proj."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
)


def their_name(name: str) -> str:
    """Return the name that transformers gives to our parameter `name`."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return f"model.{name}"


def write_configs(size: str, folder: Path) -> None:
    n_mels, n_vocab, audio, text = SIZES[size]
    names = special_tokens(n_vocab)
    ids = {name: EOT + i for i, name in enumerate(names)}
    start, eot, no_timestamps = ids["<|startoftranscript|>"], EOT, ids["<|notimestamps|>"]
    config = {
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "torch_dtype": "float16",
        "d_model": audio[0], "vocab_size": n_vocab, "num_mel_bins": n_mels, "max_source_positions": 1500,
        "max_target_positions": 448, "encoder_layers": audio[2], "encoder_attention_heads": audio[1],
        "decoder_layers": text[2], "decoder_attention_heads": text[1], "encoder_ffn_dim": 4 * audio[0],
        "decoder_ffn_dim": 4 * text[0], "activation_function": "gelu", "scale_embedding": False, "use_cache": True,
        "is_encoder_decoder": True, "num_hidden_layers": audio[2], "bos_token_id": eot, "eos_token_id": eot,
        "pad_token_id": eot, "decoder_start_token_id": start,
    }  # fmt: skip
    languages = names[2 : names.index("<|translate|>")]
    layers = range(text[2] // 2, text[2])
    generation = {
        "alignment_heads": [[layer, head] for layer in layers for head in range(text[1])],
        "begin_suppress_tokens": [220, eot], "suppress_tokens": [], "bos_token_id": eot, "eos_token_id": eot,
        "pad_token_id": eot, "decoder_start_token_id": start, "is_multilingual": True, "max_length": 448,
        "max_initial_timestamp_index": 50, "no_timestamps_token_id": no_timestamps, "return_timestamps": False,
        "prev_sot_token_id": ids["<|startofprev|>"], "lang_to_id": {name: ids[name] for name in languages},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
    }  # fmt: skip
    features = {
        "feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor",
        "feature_size": n_mels, "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30, "n_fft": 400,
        "n_samples": 480000, "nb_max_frames": 3000, "padding_value": 0.0, "padding_side": "right",
        "return_attention_mask": False,
    }  # fmt: skip
    tokenizer = {
        "tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor", "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
        "model_max_length": 1024,
    }  # fmt: skip
    for name, content in {
        "generation_config": generation, "preprocessor_config": features, "tokenizer_config": tokenizer,
        "config": config,
    }.items():  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1))


def write_tokenizer(size: str, folder: Path) -> None:
    """Write the vocabulary as the package `tokenizers` reads it; the merges follow from tiktoken's ranks."""
    ranks = read_ranks()
    letters = {token: "".join(_BYTE_LETTERS[byte] for byte in token) for token in ranks}
    vocab = {letters[token]: rank for token, rank in ranks.items()}
    pairs = (_last_merge(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1)
    merges = [[letters[a], letters[b]] for a, b in filter(None, pairs)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": EOT + i, "content": name, "special": i < 108, **flags}
        for i, name in enumerate(special_tokens(SIZES[size][1]))
    ]
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    bpe = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": merges,
    }  # fmt: skip
    whole = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": bytewise, "post_processor": None, "decoder": bytewise, "model": bpe,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_ranks(vocabulary: str = "multilingual") -> dict[bytes, int]:
    """Read a vocabulary, ``multilingual`` or English ``gpt2``: bytes of a token, and its id."""
    lines = (ASSETS / f"{vocabulary}.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


def _last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """Return the two parts that `token` is put together from: what its bytes merge into before the last step."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        candidates = [(ranks.get(a + b, len(ranks)), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        rank, i = min(candidates)
        if rank >= ranks[token]:
            return None
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def _byte_letters() -> list[str]:
    """Return GPT-2's letter for each byte: itself where it can be seen, else one from U+0100 on."""
    seen = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in seen else chr(next(others)) for byte in range(256)]


_BYTE_LETTERS = _byte_letters()


# ---------------------------------------------------------------------------------------------------------
# Other formats, each written from hf/model.safetensors by numpy
# ---------------------------------------------------------------------------------------------------------


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read float16 tensors without the package."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    tensors = {}
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            start, stop = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(content[start:stop], np.float16).reshape(entry["shape"])
    return tensors


def write_ct2(folder: Path) -> None:
    """Write the weights as CTranslate2 reads them, int8 where its own converter would."""
    from ctranslate2.specs import whisper_spec

    config = json.loads((folder / "hf" / "config.json").read_text())
    generation = json.loads((folder / "hf" / "generation_config.json").read_text())
    tensors = {name[6:]: value for name, value in read_safetensors(folder / "hf" / "model.safetensors").items()}
    spec = whisper_spec.WhisperSpec(
        config["encoder_layers"], config["encoder_attention_heads"], config["decoder_layers"],
        config["decoder_attention_heads"],
    )  # fmt: skip
    for conv in ("conv1", "conv2"):
        _set_pair(getattr(spec.encoder, conv), tensors, f"encoder.{conv}")
    spec.decoder.embeddings.weight = tensors["decoder.embed_tokens.weight"]
    spec.decoder.projection.weight = tensors["decoder.embed_tokens.weight"]
    for side, part in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        part.position_encodings.encodings = tensors[f"{side}.embed_positions.weight"]
        _set_norm(part.layer_norm, tensors, f"{side}.layer_norm")
        for i, layer in enumerate(part.layer):
            _set_layer(layer, tensors, f"{side}.layers.{i}", side == "decoder")
    with open(folder / "hf" / "tokenizer.json", encoding="utf-8") as file:
        tokenizer = json.load(file)
    words = {**tokenizer["model"]["vocab"], **{entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}}
    spec.register_vocabulary(sorted(words, key=words.__getitem__))
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], generation["begin_suppress_tokens"]
    spec.config.lang_ids = sorted(generation["lang_to_id"].values())
    spec.config.alignment_heads = [tuple(pair) for pair in generation["alignment_heads"]]
    spec.validate()
    spec.optimize(quantization="int8")
    target = folder / "ct2"
    target.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "preprocessor_config.json"):
        shutil.copy(folder / "hf" / name, target / name)
    spec.save(str(target))


def _set_layer(layer: Any, tensors: dict[str, np.ndarray], at: str, crosses: bool) -> None:
    q, k, v = (f"{at}.self_attn.{x}_proj" for x in "qkv")
    _set_fused(layer.self_attention.linear[0], tensors, [q, k, v])
    _set_pair(layer.self_attention.linear[1], tensors, f"{at}.self_attn.out_proj")
    _set_norm(layer.self_attention.layer_norm, tensors, f"{at}.self_attn_layer_norm")
    if crosses:
        q, k, v = (f"{at}.encoder_attn.{x}_proj" for x in "qkv")
        _set_fused(layer.attention.linear[0], tensors, [q])
        _set_fused(layer.attention.linear[1], tensors, [k, v])
        _set_pair(layer.attention.linear[2], tensors, f"{at}.encoder_attn.out_proj")
        _set_norm(layer.attention.layer_norm, tensors, f"{at}.encoder_attn_layer_norm")
    _set_pair(layer.ffn.linear_0, tensors, f"{at}.fc1")
    _set_pair(layer.ffn.linear_1, tensors, f"{at}.fc2")
    _set_norm(layer.ffn.layer_norm, tensors, f"{at}.final_layer_norm")


def _set_pair(spec: Any, tensors: dict[str, np.ndarray], at: str) -> None:
    spec.weight, spec.bias = tensors[f"{at}.weight"], tensors[f"{at}.bias"]


def _set_norm(spec: Any, tensors: dict[str, np.ndarray], at: str) -> None:
    spec.gamma, spec.beta = tensors[f"{at}.weight"], tensors[f"{at}.bias"]


def _set_fused(spec: Any, tensors: dict[str, np.ndarray], parts: list[str]) -> None:
    spec.weight = np.concatenate([tensors[f"{part}.weight"] for part in parts])
    none = np.zeros(len(tensors[f"{parts[0]}.weight"]), np.float16)  # keys have no bias
    spec.bias = np.concatenate([tensors.get(f"{part}.bias", none) for part in parts])


def write_ggml(folder: Path) -> None:
    """Write the checkpoint in `folder` as whisper.cpp reads it, with q8_0 matrices."""
    write_ggml_of(folder / "model.pt", folder / "ggml-q8_0.bin", "q8_0")


def write_ggml_of(checkpoint: Path, path: Path, kind: str) -> None:
    """Write whisper.cpp's file: a head, the mel bands, the vocabulary, and named tensors, matrices as f16 or q8_0.

    The format is that of whisper.cpp's models/convert-pt-to-ggml.py and examples/quantize (MIT).
    """
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    dims = content["dims"]
    with np.load(ASSETS / "mel_filters.npz") as bands:
        filters = bands[f"mel_{dims['n_mels']}"].astype(np.float32)
    sides = [dims[f"n_{side}_{what}"] for side in ("audio", "text") for what in ("ctx", "state", "head", "layer")]
    # the last number: mostly f16; mostly q8_0, second version of the quantised formats
    head = (0x67676D6C, dims["n_vocab"], *sides, dims["n_mels"], {"f16": 1, "q8_0": 2007}[kind], *filters.shape)
    ranks = read_ranks("multilingual" if dims["n_vocab"] >= 51865 else "gpt2")
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(struct.pack(f"<{len(head)}i", *head) + filters.tobytes())
        file.write(struct.pack("<i", len(ranks)))
        for token in sorted(ranks, key=ranks.__getitem__):
            file.write(struct.pack("<i", len(token)) + token)
        for name, tensor in content["model_state_dict"].items():
            file.write(_ggml_tensor(name, tensor.numpy(), kind))
    partial.rename(path)


def _ggml_tensor(name: str, tensor: np.ndarray, kind: str) -> bytes:
    if re.fullmatch(r"encoder\.conv[12]\.bias", name):
        tensor = tensor[:, None]
    if tensor.ndim < 2 or name.endswith(("positional_embedding", "conv1.bias", "conv2.bias")):
        code, data = 0, tensor.astype("<f4").tobytes()
    elif tensor.ndim == 2 and kind == "q8_0":
        code, data = 8, q8_0(tensor)
    else:
        code, data = 1, tensor.astype("<f2").tobytes()
    label = name.encode()
    head = struct.pack(f"<{3 + tensor.ndim}i", tensor.ndim, len(label), code, *reversed(tensor.shape))
    return head + label + data


def q8_0(matrix: np.ndarray) -> bytes:
    """Quantise rows in blocks of 32 numbers: one float16 scale and 32 signed bytes each."""
    blocks = matrix.astype(np.float32).reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    packed = np.empty(len(blocks), np.dtype([("scale", "<f2"), ("values", "i1", 32)]))
    packed["scale"], packed["values"] = scale[:, 0], np.round(blocks * inverse)
    return packed.tobytes()


def write_openvino(folder: Path) -> None:
    """Export by optimum-intel: encoder, a stateful decoder, tokenizers; weights int8."""
    partial = folder / "openvino.partial"
    shutil.rmtree(partial, ignore_errors=True)
    tool = Path(sys.executable).with_name("optimum-cli")
    command = [str(tool), "export", "openvino", "--model", str(folder / "hf"), "--weight-format", "int8", "--task"]
    command += ["automatic-speech-recognition-with-past", str(partial)]
    done = subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    shutil.rmtree(folder / "openvino", ignore_errors=True)
    partial.rename(folder / "openvino")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # after this file's own folder was; the package itself is imported where it is needed
    {"ct2": write_ct2, "openvino": write_openvino, "ggml": write_ggml}[sys.argv[1]](Path(sys.argv[2]))
