"""Reads a checkpoint of any known format: what a file or folder is, its content tells, never its name."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

from ...errors import CheckpointError
from .. import bundled, hub
from ..lazy_tensors import KeptFile, keep
from ..weights import Weights
from . import foreign, openai
from .ctranslate2.layout import MODEL_FILE, is_ctranslate2
from .model_folders import CONFIG, read_json
from .npz import ZIP_ERRORS, is_npz
from .tensor_files import is_safetensors, is_torch

_MOST_FILES = 1000  # that are looked into, of a folder


def read(path: str, content: bytes | None = None, *, in_memory: bool = False) -> Weights:
    """Read a checkpoint file or folder; whatever happens to it afterwards, the weights are those that it held.

    Parameters
    ----------
    path
        The file or folder.
    content
        All of the file, where it was read already; `path` is for messages then.
    in_memory
        Hold a file in memory as a whole, and keep no copy on disk.

    Raises
    ------
    CheckpointError
        With one sentence: what it is, what is missing, what to do.
    """
    if content is not None:
        return _read_file(KeptFile(path, content))
    if os.path.isdir(path):
        return _read_folder(path)
    return _read_file(keep([path], in_memory=in_memory)[0])


def _read_file(file: KeptFile) -> Weights:
    if file.bytes_at(0, 4) == b"lmgg":
        from .ggml import reader as ggml

        return ggml.read(file)
    if is_safetensors(file):
        return bundled.read(file) if bundled.is_packed(file) else _read_by_its_config(file.path)
    if is_ctranslate2(file):
        from .ctranslate2 import reader as ctranslate2

        folder, name = os.path.split(file.path)
        is_in_folder = name == MODEL_FILE and os.path.isfile(os.path.join(folder, CONFIG))
        return ctranslate2.read_folder(folder or os.curdir) if is_in_folder else ctranslate2.read(file)
    has_config = os.path.isfile(os.path.join(os.path.dirname(file.path), CONFIG))
    if is_npz(file) or (has_config and is_torch(file) and not openai.has_dimensions(file)):
        return _read_by_its_config(file.path)
    return openai.read(file)


def _read_by_its_config(path: str) -> Weights:
    """Read a file of weights whose dimensions stand in the ``config.json`` beside it."""
    folder, name = os.path.split(path)
    config = read_json(folder, CONFIG)
    if config is None:
        raise CheckpointError(
            f"{path} is a file of weights alone, and its dimensions are missing; "
            "give the folder that holds it and its config.json"
        )
    return _read_with_config(folder or os.curdir, config, name)


# ---------------------------------------------------------------------------------------------------------
# Folders
# ---------------------------------------------------------------------------------------------------------


def _read_folder(folder: str) -> Weights:
    folder = hub.snapshot(folder) or folder
    config = read_json(folder, CONFIG)
    if config is not None and (found := _weights_beside(folder)):
        return _read_with_config(folder, config, found)
    if os.path.isfile(os.path.join(folder, MODEL_FILE)):
        from .ctranslate2 import reader as ctranslate2

        return ctranslate2.read_folder(folder)
    alone = _checkpoints(folder)
    if len(alone) == 1:
        return read(os.path.join(folder, alone[0]))
    if alone:
        shown = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
        raise CheckpointError(f"{folder} holds {len(alone)} checkpoints; give the path of one of them ({shown})")
    raise CheckpointError(f"{folder} {foreign.described_folder(folder)}")


def _weights_beside(folder: str) -> str | None:
    """Return the name of a file of weights whose dimensions are those of the folder's configuration."""
    from . import huggingface, mlx

    known = (*huggingface.WEIGHT_FILES, *mlx.WEIGHT_FILES)
    return next((name for name in known if os.path.isfile(os.path.join(folder, name))), None)


def _read_with_config(folder: str, config: Mapping[str, Any], name: str) -> Weights:
    from . import huggingface, mlx

    if "n_mels" in config or "quantization" in config or name.startswith("weights."):
        return mlx.read_folder(folder, name)
    return huggingface.read_folder(folder, name)


def _checkpoints(folder: str) -> list[str]:
    """Return the names of the files that hold a whole model each, without configuration beside it."""
    with os.scandir(folder) as entries:
        files = sorted(entry.name for entry in entries if entry.is_file())
    return [name for name in files[:_MOST_FILES] if _is_alone(os.path.join(folder, name))]


def _is_alone(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = KeptFile(path, file.read(foreign.HEAD_BYTES))
        if head.bytes_at(0, 4) == b"lmgg":
            # a number takes a quarter of a byte at the least; whisper.cpp's folder also has files without weights
            n_vocab, _, _, _, _, _, n_text_state = struct.unpack("<7i", head.bytes_at(4, 28))
            return bool(os.path.getsize(path) > n_vocab * n_text_state // 4)
        if head.bytes_at(0, 4) == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("/data.pkl") for name in archive.namelist())
    except ZIP_ERRORS:
        return False
    return is_torch(head) or bundled.is_packed(head) or is_ctranslate2(head)
