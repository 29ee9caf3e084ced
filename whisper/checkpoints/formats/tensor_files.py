"""Reads tensor files, torch's own and safetensors, as data: no code in them is run.

The error for a file of another kind says what it is and what to do. Knows nothing of models.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..lazy_tensors import KeptFile

_HEAD_BYTES = 512
_LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # of torch.save before zip files (torch 1.6)


def read_torch(file: KeptFile) -> Any:
    """Return what ``torch.save`` wrote, mapped into memory where file and format allow, running no code of it.

    Raises
    ------
    CheckpointError
        Where the file is truncated, something else, or asks for more than weights.
    """
    path, head = file.path, file.bytes_at(0, _HEAD_BYTES)
    zipped = head.startswith(b"PK\x03\x04")
    if not zipped and not head.startswith(b"\x80"):
        raise CheckpointError(f"{path} {_foreign_file(head)}")
    if not zipped and _LEGACY_MAGIC not in head[:16]:
        raise CheckpointError(
            f"{path} is a Python pickle that torch.save did not write, which may hold code and was not opened; "
            "give a .pt file or a Hugging Face folder"
        )
    if zipped:
        _check_archive(file)
    try:
        if file.content is not None:
            return torch.load(io.BytesIO(file.content), map_location="cpu", weights_only=True)
        return torch.load(file.place, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # strange bytes can fail in any way inside an unpickler
        raise CheckpointError(f"{path} {_refusal(error)}") from error


def _refusal(error: Exception) -> str:
    """Say why torch did not load a file; continues a sentence that began with the path.

    Its own message is not passed on whole: it advises to load without the protection.
    """
    message = str(error)
    asked = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"(?:class|function) (\w+\.[\w.]+)", message)
    if asked:
        return (
            f"is a pickle that asks for {asked[1]}, which is code and not weights, and was not run; "
            "ask its author for a file with plain tensors only"
        )
    reason = type(error).__name__
    if not isinstance(error, pickle.UnpicklingError):
        reason += ": " + message.strip().split("\n")[0][:200]
    return f"is a damaged or truncated torch file ({reason}); get it again from where it came"


def read_safetensors(file: KeptFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, mapped where it is not in memory, and its metadata."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    try:
        if file.content is not None:
            return load(file.content), _metadata(file.content)
        with safe_open(file.place, framework="pt", device="cpu") as opened:
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}, dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{file.path} is no whole safetensors file ({error}); it is truncated or something else, get it again"
        ) from error


def _metadata(content: bytes) -> dict[str, str]:
    size = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + size]).get("__metadata__") or {})


def is_safetensors(file: KeptFile) -> bool:
    """Whether a file begins like safetensors."""
    head = file.bytes_at(0, _HEAD_BYTES)
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30


# ---------------------------------------------------------------------------------------------------------
# What is it, if it is no checkpoint
# ---------------------------------------------------------------------------------------------------------


def _check_archive(file: KeptFile) -> None:
    path = file.path
    try:
        with zipfile.ZipFile(file.place if file.content is None else io.BytesIO(file.content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is truncated: a torch file whose end is missing; get it again from where it came"
        ) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{path} is a TorchScript program, and the weights with their dims are missing; "
            "give the .pt file that it was made from"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(
            f"{path} is a zip archive, and data.pkl, which every torch file has, is missing; "
            "unpack it and give the checkpoint inside"
        )


def _foreign_file(head: bytes) -> str:
    """Name a file by its first bytes; continues a sentence that began with the path."""
    text = head.lstrip().lower()
    if not head:
        return "is empty; get it again from where it came"
    if b"WhisperSpec" in head:
        return (
            "is a CTranslate2 model (faster-whisper), which holds no torch tensors; "
            "give the .pt file or the Hugging Face folder that it was made from"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, most likely an error page saved instead of the model; download the model again"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, and the weights it points to are missing; run git lfs pull"
    if head[:4] in (b"RIFF", b"fLaC", b"OggS") or head[:3] == b"ID3":
        return "is a recording, not a model; give the model's name or its .pt file"
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return "is a text file without weights; give a .pt file or a Hugging Face folder"
    return f"is no torch file (it begins with {head[:8].hex(' ')}); give a .pt file or a Hugging Face folder"
