"""`load_model` loads a model by its name or path.

Names of published models, wherever they lie on this machine (`finding`) or else downloaded; files and folders of every
format in `formats`; names on the Hugging Face hub; and the model that comes with the package. Weights are read as data:
a pickle that asks for anything else is refused, and the error for a file of another kind says what it is.
"""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import torch

from ..device.precision import resolve
from ..device.processes import check_device
from ..device.torch_state import clean_state
from ..errors import CheckpointError, DeviceError, DownloadError, ModelNotFoundError, OptionError
from ..model import Whisper, default_alignment_mask
from . import bundled, hub
from .cache import cache_folder as cache_folder
from .download import _download as _download
from .finding import names
from .formats import recognize
from .identity import Origin, identity_of
from .lazy_tensors import StoredTensors, keep
from .published import _ALIGNMENT_HEADS, _MODELS
from .published import BUNDLED_NAME as BUNDLED_NAME
from .published import available_models as available_models
from .save import save_checkpoint as save_checkpoint
from .weights import Weights, build, parse_alignment_heads


@clean_state()
def load_model(
    name: str | os.PathLike[str],
    device: str | torch.device | None = None,
    download_root: str | None = None,
    in_memory: bool = False,
    *,
    compute_type: str = "auto",
    quantized: bool = False,
) -> Whisper:
    """Load a model; its modules, which are created on first access, are in float32.

    On a CPU and on CUDA the weights take no memory until they are packed for the fast path, or the modules are
    first accessed: until then a copy of the file lies in a temporary one (sharing its blocks if the file system can).
    What is done to the file after loading does not matter.

    A published model is downloaded only if no exact copy lies on this machine: in the folder of downloads, the
    folders that ``SOTTO_MODELS`` names, installed packages, Hugging Face's cache, or folders of other programs, in this
    order. One line on standard error says which copy was taken. ``SOTTO_FIND=0`` looks into the folder of downloads
    alone.

    Parameters
    ----------
    name
        One of `available_models`; or the path of a file or folder of openai-whisper, Hugging Face, CTranslate2,
        whisper.cpp (GGML) or MLX; or the name of a model on the Hugging Face hub, ``owner/name``, with ``:file``
        behind it where the repository holds several.
    device
        Where to put the weights; without it, CUDA if there is one, otherwise the CPU.
    download_root
        The folder for downloads; without it, ``whisper`` in ``XDG_CACHE_HOME`` or ``~/.cache``, and for hub
        models the hub's own cache.
    in_memory
        Read a ``.pt`` file into memory as a whole, and keep no copy on disk.
    compute_type
        The precision of the fast path with ``fp16=True``: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"int8"``;
        ``"auto"`` is the fastest one that the device does well. With ``fp16=False`` it is always float32. int8 is
        that of weights; activations are finer where it costs little, and on a processor with AMX the layers that int8
        hurts most are in bfloat16. On real speech, language given, bfloat16 changes the text of 2.5 % of 800 clips with
        ``base`` and 2.7 % of 411 with ``tiny.en``, int8 3.5 and 4.9 %; word errors are within 0.2 points of float32
        (docs/guide.md).
    quantized
        Take also a copy in a precision that lost something, quantised or bfloat16, where this machine has no exact one.

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
        Where the device cannot compute in `compute_type`, `name` is neither text nor a path, or `quantized` is said of
        what is no published model.
    """
    for what, given in (("the name of a model", name), ("download_root", download_root or "")):
        if not isinstance(given, (str, os.PathLike)):
            raise OptionError(f"{what} must be text or a path, not {reprlib.repr(given)}")
    device = _usable_device(device)
    resolve(compute_type, device)
    download_root = None if download_root is None else os.fspath(download_root)
    if name in _MODELS or name in names.DISTILLED:
        weights = _read_published(str(name), download_root, in_memory, quantized)
    elif quantized:
        raise OptionError(
            f"quantized=True chooses among copies of a published model, and {reprlib.repr(name)} is none; leave it out"
        )
    elif name == BUNDLED_NAME:
        weights = _read_bundled()
    else:
        weights = _read_local_or_hub(name, download_root, in_memory)
    _describe(weights)
    model = build(weights, device, deferred=device.type in ("cpu", "cuda"))
    model.compute_type = compute_type
    return model


def _identified(name: object, paths: Sequence[str], read: Callable[[], Weights]) -> Weights:
    """Read a checkpoint and say in its tensors which it is, so that what is packed of them may be kept on disk."""
    before = identity_of(paths, str(name))
    weights = read()
    if isinstance(weights.tensors, StoredTensors) and before == identity_of(paths, str(name)):
        weights.tensors.origin = Origin(before)
    return weights


def _describe(weights: Weights) -> None:
    """Add to the origin of the tensors what is known of the model beside them."""
    if not isinstance(weights.tensors, StoredTensors):
        return
    mask = weights.alignment_heads
    heads = (default_alignment_mask(weights.dims) if mask is None else mask.to_dense()).nonzero().tolist()
    about = {"dims": asdict(weights.dims), "alignment_heads": heads, "quantised": weights.quantised}
    weights.tensors.origin = Origin(weights.tensors.origin.identity, about)


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


# ---------------------------------------------------------------------------------------------------------
# Published models
# ---------------------------------------------------------------------------------------------------------


def _read_published(name: str, download_root: str | None, in_memory: bool, quantized: bool) -> Weights:
    folder = download_root or cache_folder()
    url = _MODELS.get(name)
    path = os.path.join(folder, os.path.basename(url)) if url else ""
    weights = None
    if not os.path.exists(path):
        weights = _read_found(name, in_memory, quantized)
    if weights is None and url is None:
        weights = recognize.read(hub.fetch(names.DISTILLED[name], download_root))
    elif weights is None:
        try:
            content = _download(str(url), folder, in_memory)
        except DownloadError as error:
            from .finding import find

            raise DownloadError(f"{error}{find.inexact_copies(name)}") from error
        held = content if isinstance(content, bytes) else None
        weights = _identified(name, [path], lambda: recognize.read(path, held))
    if (heads := _ALIGNMENT_HEADS.get(name)) is not None:
        weights.alignment_heads = parse_alignment_heads(heads, weights.dims, weights.source)
    return weights


def _read_found(name: str, in_memory: bool, quantized: bool) -> Weights | None:
    """Read the first copy on this machine that can be read; None where there is none."""
    from .finding import find

    for found in find.copies(name, quantized=quantized):
        copy = f"{name} from {found.path} ({found.describe()})"
        try:
            weights = _identified(name, found.paths, partial(found.read, in_memory=in_memory))
        except CheckpointError as error:
            find.tell_once(f"not taking {copy}: {error}")
        else:
            find.tell_once(f"taking {copy}")
            return weights
    return None


# ---------------------------------------------------------------------------------------------------------
# What is no published model
# ---------------------------------------------------------------------------------------------------------


def _read_bundled() -> Weights:
    if not os.path.isfile(bundled.BUNDLED):
        raise CheckpointError(
            f"the bundled model {BUNDLED_NAME!r} is not in this installation ({bundled.BUNDLED} is missing); "
            "install sotto again from a wheel"
        )
    return _identified(BUNDLED_NAME, [bundled.BUNDLED], lambda: bundled.read(keep([bundled.BUNDLED])[0]))


def _read_local_or_hub(name: str | os.PathLike[str], download_root: str | None, in_memory: bool) -> Weights:
    path = os.fspath(name)
    if os.path.isfile(path) or os.path.isdir(path):
        return _identified(path, [path], lambda: recognize.read(path, in_memory=in_memory))
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
