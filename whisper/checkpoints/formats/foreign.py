"""Names files and folders that are no checkpoint: what they are, what is missing, what to do.

Only to word errors: nothing is read here but the first bytes of a file and the names in a folder.
"""

from __future__ import annotations

import os
import re

from ..lazy_tensors import KeptFile

HEAD_BYTES = 512
_UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2")
_OTHER_MODEL = "give the .pt file or the Hugging Face folder that it was made from"

# The first bytes of a file, and what it is then
_BEGINNINGS: dict[tuple[bytes, ...], str] = {
    (b"version https://git-lfs",): (
        "is a Git LFS pointer, and the weights it points to are missing; run git lfs pull where it was cloned"
    ),
    (b"\x89HDF\r\n\x1a\n",): (
        "is an HDF5 file, as TensorFlow and Keras keep weights (tf_model.h5), and is not read; "
        "get model.safetensors of the same model"
    ),
    (b"ftrt", b"ptrt"): f"is a TensorRT engine, compiled for one GPU, and holds no weights to read; {_OTHER_MODEL}",
    (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"FORM", b"\x1aE\xdf\xa3"): (
        "is a recording, not a model; give the model's name or its .pt file"
    ),
    (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"7z\xbc\xaf\x27\x1c", b"(\xb5/\xfd", b"Rar!"): (
        "is a compressed archive; unpack it and give the checkpoint inside"
    ),
    (b"\x93NUMPY",): "is a single numpy array, and the other tensors are missing; give the folder of the whole model",
    (b"%PDF",): "is a PDF document, not a model; give a .pt file or a Hugging Face folder",
}

# Files of a folder, by their names, and what holds them
_CONTENTS: dict[str, str] = {
    r"flax_model.*\.msgpack": "Flax weights ({0})",
    r"tf_model.*\.h5": "TensorFlow weights ({0})",
    r"openvino_.*\.(xml|bin)|.*-openvino\.(xml|bin)": "an OpenVINO graph ({0})",
    r".*\.onnx(_data)?|onnx": "ONNX graphs ({0})",
    r".*\.(mlmodelc|mlpackage|mlmodel)|coremldata\.bin|model\.mil|Manifest\.json": "a CoreML model ({0})",
    r".*\.(engine|plan|trt)": "TensorRT engines ({0})",
    r".*\.tflite": "a TensorFlow Lite model ({0})",
    r".*\.gguf": "a GGUF model ({0})",
    r".*\.nemo": "a NeMo model ({0})",
    r".*(\.incomplete|\.part|\.partial|\.crdownload|\.aria2)": "an unfinished download ({0})",
    r".*\.(zip|tar|tgz|gz|xz|7z|rar)": "an archive ({0})",
}


def described(file: KeptFile) -> str:
    """Name a file by its first bytes; continues a sentence that began with its path."""
    if file.path.lower().endswith(_UNFINISHED):
        return "is an unfinished download, and its end is missing; let the download finish, or start it again"
    head = file.bytes_at(0, HEAD_BYTES)
    if not head:
        return "is empty; get it again from where it came"
    if head.count(0) == len(head):
        return "begins with nothing but zeros, as downloads do that were broken off; download it again"
    for beginnings, words in _BEGINNINGS.items():
        if head.startswith(beginnings):
            return words
    return _by_structure(head) or _text(head) or _unknown(head)


def _by_structure(head: bytes) -> str | None:
    if head.startswith(b"GGUF"):
        return (
            f"is a GGUF file{_architecture(head)}, which whisper.cpp does not use and which is not read; "
            "give a ggml-*.bin of whisper.cpp, or the .pt file or Hugging Face folder it was made from"
        )
    if head[4:8] == b"ftyp":
        return "is a recording, not a model; give the model's name or its .pt file"
    if head[257:262] == b"ustar":
        return "is a tar archive; unpack it and give the checkpoint inside"
    if head[:1] == b"\x08" and re.match(rb"\x08[\x01-\x20](\x12.([\w. -]+)|.{0,40}onnx)", head, re.DOTALL):
        return "is an ONNX graph, whose weights are renamed and folded; get model.safetensors of the same model"
    # msgpack: a map whose first key is a text, as in flax_model.msgpack
    if re.match(rb"[\x81-\x8f][\xa1-\xbf][a-z_]+[\x81-\x8f\xde]", head):
        return (
            "is a msgpack file, as Flax keeps weights (flax_model.msgpack), and is not read; "
            "get model.safetensors of the same model"
        )
    return None


def _architecture(head: bytes) -> str:
    found = re.search(rb"general\.architecture\x08\0\0\0.{8}([\w-]+?)(?=[^\w-]|$)", head, re.DOTALL)
    return f" of a {found[1].decode('ascii')} model" if found else ""


def _text(head: bytes) -> str | None:
    if b"\0" in head or any(byte < 32 and byte not in b"\t\n\r\f" for byte in head):
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<?xml") and b"<net" in text:
        return f"is the graph of an OpenVINO model, and is not read; {_OTHER_MODEL}"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, most likely an error page saved instead of the model; download the model again"
    if text.startswith((b"{", b"[")):
        return "is a JSON file, and weights are missing; give the folder that holds it and the weights"
    return "is a text file without weights; give a .pt file or a Hugging Face folder"


def _unknown(head: bytes) -> str:
    return (
        f"is no checkpoint of a known kind (it begins with {head[:8].hex(' ')}); "
        "give a .pt file, a ggml-*.bin, or a folder of Hugging Face, CTranslate2 or MLX"
    )


def described_folder(folder: str) -> str:
    """Name a folder without readable weights by what is in it; continues a sentence that began with its path."""
    names = sorted(os.listdir(folder))
    if not names:
        return "is an empty folder; give one that holds a model"
    if "adapter_config.json" in names:
        return (
            "holds an adapter (LoRA) without its base model; merge the two "
            "(merge_and_unload() of peft) and give the merged folder"
        )
    found = []
    for pattern, words in _CONTENTS.items():
        fitting = [name for name in names if re.fullmatch(pattern, name)]
        if fitting:
            found.append(words.format(fitting[0] + (", ..." if len(fitting) > 1 else "")))
    if found:
        return (
            f"holds {' and '.join(found[:3])}, and no weights that can be read; "
            "get model.safetensors and config.json of the same model"
        )
    if "config.json" in names:
        return (
            "holds config.json, and the weights are missing (model.safetensors, pytorch_model.bin, model.bin or "
            "weights.npz); get the folder again with its weights"
        )
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"holds no checkpoint ({shown}), and config.json is missing; give the folder that holds it, "
        "or the path of a .pt file"
    )
