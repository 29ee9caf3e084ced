"""Models on the Hugging Face hub: ``owner/name``, or ``owner/name:file`` where a repository holds several.

A repository often holds one model several times: for PyTorch, TensorFlow and ONNX, in two precisions. Its files are
listed first, and only those of one form are fetched, the most exact that is read here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from ..errors import DownloadError, MissingDependencyError, ModelNotFoundError, WhisperError

_TIMEOUT = 10  # seconds in which the hub must have answered
_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::([\w][\w./+-]*))?")
FILE_ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".gguf", ".ggml", ".onnx", ".zip", ".npz")

# What is read of a folder beside its weights, all of it small
_BESIDE = re.compile(r"(config|generation_config|preprocessor_config|tokenizer|vocabulary)\.json|vocabulary\.txt")
# Forms of weights, the best first: as published, then exact copies in other forms, then variants in lower precision
_FORMS = tuple(
    re.compile("|".join(alternatives))
    for alternatives in (
        [r"model\.safetensors"],
        [r"model-\d+-of-\d+\.safetensors", r"model\.safetensors\.index\.json"],
        [r"pytorch_model\.bin"],
        [r"pytorch_model-\d+-of-\d+\.bin", r"pytorch_model\.bin\.index\.json"],
        [r"model\.bin"],
        [r"weights\.safetensors"],
        [r"weights\.npz"],
        [r"model\.fp32(-\d+-of-\d+)?\.safetensors", r"model\.safetensors\.index\.fp32\.json"],
        [r"model\.fp16(-\d+-of-\d+)?\.safetensors", r"model\.safetensors\.index\.fp16\.json"],
        [r"model\.bf16(-\d+-of-\d+)?\.safetensors", r"model\.safetensors\.index\.bf16\.json"],
    )
)
_ALONE = re.compile(r"(.*/)?(ggml-[^/]*\.bin|(?!optimizer|scheduler)[^/]+\.pt)")  # a whole model in one file
_NOT_READ = {
    r"flax_model.*\.msgpack": "Flax weights",
    r"tf_model.*\.h5": "TensorFlow weights",
    r".*\.onnx": "ONNX graphs",
    r"openvino_.*": "OpenVINO graphs",
    r".*\.mlmodelc/.*|.*\.mlpackage/.*": "CoreML models",
    r".*\.gguf": "GGUF files",
    r"adapter_.*": "an adapter (LoRA) without its base model",
}


def is_hub_name(name: str) -> bool:
    """Whether `name` can be that of a model on the hub; a path that looks like one was tried before."""
    found = _NAME.fullmatch(name)
    return found is not None and (found[2] is not None or not name.endswith(FILE_ENDINGS))


def fetch(name: str, download_root: str | None = None) -> str:
    """Load the files of a model on the hub, and return the folder that holds them, or the file that was named.

    Parameters
    ----------
    name
        ``owner/name``, or ``owner/name:file``.
    download_root
        The folder to keep it in; without it, the hub's own cache (``HF_HOME``).

    Raises
    ------
    DownloadError
        The hub does not give the files.
    MissingDependencyError
        The package ``huggingface_hub`` is not installed.
    ModelNotFoundError
        The repository holds no weights that are read here, or several models, or not the file that was named.
    """
    try:
        from huggingface_hub import HfApi, constants, snapshot_download
    except ImportError as error:
        what = f"{name} is no file or folder here, and to load it from the Hugging Face hub needs huggingface_hub"
        raise MissingDependencyError(what, extra="hub") from error
    repository, _, file = name.partition(":")
    cached = snapshot(os.path.join(download_root or constants.HF_HUB_CACHE, cache_name(repository)))
    try:
        try:
            found = HfApi().model_info(repository, timeout=_TIMEOUT).siblings
        except Exception:  # no connection, or withdrawn: what was fetched before is good
            if cached is None:
                raise
            folder, wanted = cached, chosen(sorted(_files_of(cached)), name, file)
        else:
            wanted = chosen(sorted(sibling.rfilename for sibling in found or ()), name, file)
            patterns = [re.sub(r"([*?\[])", r"[\1]", path) for path in wanted]
            folder = snapshot_download(repository, cache_dir=download_root, allow_patterns=patterns)
    except WhisperError:
        raise
    except Exception as error:  # exceptions of the hub's client depend on its version and its HTTP library
        reason = str(error).strip().split("\n")[0]
        raise DownloadError(
            f"{name} is no file or folder here, and the Hugging Face hub did not give it ({reason}); "
            "check the name and the connection, or give the path of a folder that holds the model"
        ) from error
    alone = file or next((path for path in wanted if _ALONE.fullmatch(path)), "")
    return os.path.join(str(folder), *alone.split("/")) if alone else str(folder)


def cache_name(repository: str) -> str:
    """Return the name of a repository's folder in Hugging Face's cache."""
    return "models--" + repository.replace("/", "--")


def snapshot(folder: str) -> str | None:
    """Return the snapshot that is up to date in a repository's folder in the cache; None where it is no such folder."""
    snapshots = os.path.join(folder, "snapshots")
    if not os.path.isdir(snapshots):
        return None
    try:
        with open(os.path.join(folder, "refs", "main"), encoding="utf-8") as file:
            commit = file.read(100).strip()
    except (OSError, ValueError):
        commit = ""
    if re.fullmatch(r"[0-9a-f]+", commit) and os.path.isdir(os.path.join(snapshots, commit)):
        return os.path.join(snapshots, commit)
    with os.scandir(snapshots) as entries:
        found = max((entry for entry in entries if entry.is_dir()), key=lambda e: e.stat().st_mtime, default=None)
    return None if found is None else found.path


def _files_of(folder: str) -> Iterable[str]:
    for place, _, names in os.walk(folder):
        inside = os.path.relpath(place, folder).replace(os.sep, "/")
        yield from (name if inside == "." else f"{inside}/{name}" for name in names)


def chosen(files: Sequence[str], name: str, file: str = "") -> list[str]:
    """Return which of a repository's files to fetch: one form of the weights and what is read beside it.

    Parameters
    ----------
    files
        The paths of all its files.
    name
        The model's, as it was given.
    file
        The one file of weights that was asked for.

    Raises
    ------
    ModelNotFoundError
        Where there is none, or no way to tell which.
    """
    alone = [path for path in files if _ALONE.fullmatch(path)]
    if file:
        if file not in files:
            raise ModelNotFoundError(f"{name}: the repository has no file {file}; it has {_some(alone or files)}")
        folder = file[: file.rfind("/") + 1]
        beside = [p for p in files if p.startswith(folder) and _BESIDE.fullmatch(p[len(folder) :])]
        return [file] if _ALONE.fullmatch(file) else sorted({file, *beside})
    if "config.json" in files:
        for form in _FORMS:
            if weights := [path for path in files if form.fullmatch(path)]:
                return sorted([*weights, *(path for path in files if _BESIDE.fullmatch(path))])
    if len(alone) == 1:
        return alone
    if alone:
        raise ModelNotFoundError(
            f"{name} holds {len(alone)} models; name one of its files behind a colon, as in {name}:{alone[0]} "
            f"(there are {_some(alone, 40)})"
        )
    found = [words for pattern, words in _NOT_READ.items() if any(re.fullmatch(pattern, path) for path in files)]
    raise ModelNotFoundError(
        f"{name} holds {' and '.join(found) or _some(files)}, and no weights that can be read "
        "(model.safetensors, pytorch_model.bin, model.bin, weights.npz, ggml-*.bin or *.pt); "
        "give the name of a repository that has them"
    )


def _some(paths: Sequence[str], most: int = 8) -> str:
    return ", ".join(paths[:most]) + (f" and {len(paths) - most} more" if len(paths) > most else "") or "no files"
