"""Reads tensor files, torch's own, safetensors and npz, one or several of a folder, as data: no code in them is run.

Knows nothing of models.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..lazy_tensors import KeptFile, keep
from .foreign import HEAD_BYTES, described
from .model_folders import read_json
from .npz import ZIP_ERRORS, is_npz, read_npz

_LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # of torch.save before zip files (torch 1.6)


def read_tensors(folder: str, name: str) -> tuple[list[KeptFile], Mapping[str, Tensor]]:
    """Return the tensors of a file of `folder`, or of all the shards that `name`, an index, lists; and those files.

    Raises
    ------
    CheckpointError
        Where a file is missing or broken.
    """
    if ".index." not in name:
        files = keep([os.path.join(folder, name)])
        return files, _read_file(files[0])
    index = (read_json(folder, name) or {}).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(shard, str) for shard in index.values()):
        raise CheckpointError(f"{os.path.join(folder, name)} has no weight_map; get the file again")
    shards = sorted(set(index.values()))
    # a name with a folder in it could lead anywhere; the hub's shards lie side by side
    missing = [n for n in shards if os.path.basename(n) != n or not os.path.isfile(os.path.join(folder, n))]
    if missing:
        raise CheckpointError(
            f"{folder} is incomplete: {len(missing)} of {len(shards)} shards are missing "
            f"({', '.join(missing[:3])}); get them from where the folder came"
        )
    files = keep([os.path.join(folder, shard) for shard in shards])
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(_read_file(file))
    return files, tensors


def _read_file(file: KeptFile) -> Mapping[str, Tensor]:
    """Read one file of tensors, mapped into memory rather than loaded: safetensors, numpy's npz, or torch's own."""
    if is_safetensors(file):
        return read_safetensors(file)[0]
    if is_npz(file):
        return read_npz(file)
    content = read_torch(file)
    if not isinstance(content, dict):
        raise CheckpointError(f"{file.path} holds a {type(content).__name__}, not a state dict; get the file again")
    return content


def read_torch(file: KeptFile) -> Any:
    """Return what ``torch.save`` wrote, mapped into memory where file and format allow, running no code of it.

    Raises
    ------
    CheckpointError
        Where the file is truncated, something else, or asks for more than weights.
    """
    path, head = file.path, file.bytes_at(0, HEAD_BYTES)
    zipped = head.startswith(b"PK\x03\x04")
    if not zipped and not head.startswith(b"\x80"):
        raise CheckpointError(f"{path} {described(file)}")
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

    if not is_safetensors(file):
        raise CheckpointError(f"{file.path} {described(file)}")
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


def is_torch(file: KeptFile) -> bool:
    """Whether a file begins like what ``torch.save`` writes: a zip archive, or before torch 1.6 a pickle."""
    head = file.bytes_at(0, 16)
    return head.startswith(b"PK\x03\x04") or (head.startswith(b"\x80") and _LEGACY_MAGIC in head)


def is_safetensors(file: KeptFile) -> bool:
    """Whether a file begins like safetensors."""
    head = file.bytes_at(0, HEAD_BYTES)
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30


def _check_archive(file: KeptFile) -> None:
    path = file.path
    try:
        with zipfile.ZipFile(file.place if file.content is None else io.BytesIO(file.content)) as archive:
            names = archive.namelist()
    except ZIP_ERRORS as error:
        raise CheckpointError(
            f"{path} is truncated: a torch or zip file whose end is missing; get it again from where it came"
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
