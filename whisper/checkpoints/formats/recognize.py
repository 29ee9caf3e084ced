"""Reads a checkpoint of any known format: what a file or folder is, its content tells, never its name."""

from __future__ import annotations

import os

from .. import bundled
from ..lazy_tensors import KeptFile, keep
from ..weights import Weights
from . import huggingface, openai
from .tensor_files import is_safetensors


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
    if content is None and os.path.isdir(path):
        return _read_folder(path)
    return _read_file(KeptFile(path, content) if content is not None else keep([path], in_memory=in_memory)[0])


def _read_file(file: KeptFile) -> Weights:
    if file.bytes_at(0, 4) in (b"lmgg", b"GGUF"):
        from . import ggml

        return ggml.read(file)
    if is_safetensors(file):
        return bundled.read(file)
    return openai.read(file)


def _read_folder(folder: str) -> Weights:
    return huggingface.read_folder(folder)
