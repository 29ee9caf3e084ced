"""`load_model` loads a model by its name or path.

Names of published models, files and folders of every format in `formats`, names on the Hugging Face hub, and the
model that comes with the package. Weights are read as data: a pickle that asks for anything else is refused, and the
error for a file of another kind says what it is.
"""

from __future__ import annotations

import difflib
import os
import reprlib

import torch

from ..device.precision import resolve
from ..device.processes import check_device
from ..device.torch_state import clean_state
from ..errors import CheckpointError, DeviceError, ModelNotFoundError, OptionError
from ..model import Whisper
from . import bundled, hub
from .download import _download as _download
from .formats import recognize
from .lazy_tensors import keep
from .published import _ALIGNMENT_HEADS, _MODELS
from .save import save_checkpoint as save_checkpoint
from .weights import Weights, build, parse_alignment_heads

BUNDLED_NAME = "nano"


def available_models() -> list[str]:
    """Return the names that `load_model` knows: the published models, then the one in this package."""
    return [*_MODELS, BUNDLED_NAME]


@clean_state()
def load_model(
    name: str | os.PathLike[str],
    device: str | torch.device | None = None,
    download_root: str | None = None,
    in_memory: bool = False,
    *,
    compute_type: str = "auto",
) -> Whisper:
    """Load a model; its modules, which are created on first access, are in float32.

    On a CPU and on CUDA the weights take no memory until they are packed for the fast path, or the modules are
    first accessed: until then a copy of the file lies in a temporary one (sharing its blocks if the file system can).
    What is done to the file after loading does not matter.

    Parameters
    ----------
    name
        One of `available_models`; or the path of a ``.pt`` file, or of a folder in the form of Hugging Face or MLX;
        or the name of a model on the Hugging Face hub, ``owner/name``, with ``:file`` behind it where the repository
        holds several.
    device
        Where to put the weights; without it, CUDA if there is one, otherwise the CPU.
    download_root
        The folder for downloads; without it, ``whisper`` in ``XDG_CACHE_HOME`` or ``~/.cache``, and for hub
        models the hub's own cache.
    in_memory
        Read a ``.pt`` file into memory as a whole, and keep no copy on disk.
    compute_type
        The precision of the fast path with ``fp16=True``: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"int8"``;
        ``"auto"`` is the fastest one that the device does well. With ``fp16=False`` it is always float32.

    Returns
    -------
    Whisper
        The model, ready to transcribe.

    Raises
    ------
    ModelNotFoundError
        Where `name` is nothing that is known or exists.
    DownloadError
        Where it cannot be downloaded, or what came is not what was promised.
    CheckpointError
        Where the file or folder is truncated, foreign or incomplete, or is being written.
    DeviceError
        Where this machine has no such device.
    OptionError
        Where the device cannot compute in `compute_type`, or `name` is neither text nor a path.
    """
    for what, given in (("the name of a model", name), ("download_root", download_root or "")):
        if not isinstance(given, (str, os.PathLike)):
            raise OptionError(f"{what} must be text or a path, not {reprlib.repr(given)}")
    device = _usable_device(device)
    resolve(compute_type, device)
    if download_root is None:
        pt_root = cache_folder()
    else:
        pt_root = download_root = os.fspath(download_root)

    if name in _MODELS:
        found = _download(_MODELS[str(name)], pt_root, in_memory)
        path = os.path.join(pt_root, os.path.basename(_MODELS[str(name)]))
        weights = recognize.read(path, found if isinstance(found, bytes) else None)
        if (heads := _ALIGNMENT_HEADS.get(str(name))) is not None:
            weights.alignment_heads = parse_alignment_heads(heads, weights.dims, path)
    elif name == BUNDLED_NAME:
        weights = _read_bundled()
    else:
        weights = _read_local_or_hub(name, download_root, in_memory)
    model = build(weights, device, deferred=device.type in ("cpu", "cuda"))
    model.compute_type = compute_type
    return model


def cache_folder() -> str:
    """Return the folder of downloaded models where none is named: that of openai-whisper."""
    return os.path.join(os.getenv("XDG_CACHE_HOME", os.path.join(os.path.expanduser("~"), ".cache")), "whisper")


def _usable_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        check_device(chosen)
        return chosen
    try:
        check_device(torch.device(device))
        torch.empty(0, dtype=torch.float32, device=device)  # before gigabytes are loaded for it
        return torch.device(device)
    except DeviceError:
        raise
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DeviceError(
            f"device {reprlib.repr(device)} cannot be used here ({reason[:200]}); leave it out or give 'cpu'"
        ) from error


def _read_bundled() -> Weights:
    if not os.path.isfile(bundled.BUNDLED):
        raise CheckpointError(
            f"the bundled model {BUNDLED_NAME!r} is not in this installation ({bundled.BUNDLED} is missing); "
            "install sotto again from a wheel"
        )
    return bundled.read(keep([bundled.BUNDLED])[0])


def _read_local_or_hub(name: str | os.PathLike[str], download_root: str | None, in_memory: bool) -> Weights:
    path = os.fspath(name)
    if os.path.isfile(path) or os.path.isdir(path):
        return recognize.read(path, in_memory=in_memory)
    if isinstance(name, str) and hub.is_hub_name(name):
        return recognize.read(hub.fetch(name, download_root))
    known = ", ".join(available_models())
    if os.path.basename(path) != path or os.path.splitext(path)[1] in hub.FILE_ENDINGS:
        raise ModelNotFoundError(
            f"there is no file or folder {path!r} (looked from {os.getcwd()}); "
            f"give the path of a checkpoint that exists, or a model name: {known}"
        )
    near = difflib.get_close_matches(path.lower(), available_models(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ModelNotFoundError(f"model {reprlib.repr(path)} not found; {hint}available models: {known}")
