"""`load_model` loads a model by its name or path; `save_checkpoint` writes one.

Names of published models, ``.pt`` files, Hugging Face folders and hub names, and the model that comes with the
package. Weights are read as data: a pickle that asks for anything else is refused, and the error for a file
of another kind says what it is.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib

import torch
from torch import Tensor

from ..device.precision import resolve
from ..device.processes import check_device
from ..device.torch_state import clean_state
from ..errors import CheckpointError, DeviceError, ModelNotFoundError, OptionError
from ..files import atomic_write
from ..model import Whisper
from . import bundled, huggingface
from .download import _download as _download
from .lazy_tensors import KeptFile, keep, left_in_files
from .published import _ALIGNMENT_HEADS, _MODELS
from .tensor_files import is_safetensors, read_torch
from .weights import Weights, build, checked_dimensions, dimensions_of, dump_alignment_heads, parse_alignment_heads

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
        One of `available_models`, the path of a ``.pt`` file or of a Hugging Face folder, or the name
        ``owner/name`` of a model on the Hugging Face hub.
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
        hurts most are in bfloat16. docs/guide.md has the errors of each type.

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
        weights = read_checkpoint(path, found if isinstance(found, bytes) else None)
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
    if os.path.isfile(path):
        return read_checkpoint(path, in_memory=in_memory)
    if os.path.isdir(path):
        return huggingface.read_folder(path)
    if isinstance(name, str) and _looks_like_hub_name(name):
        return huggingface.read_folder(huggingface.fetch(name, download_root))
    known = ", ".join(available_models())
    if os.path.basename(path) != path or os.path.splitext(path)[1] in _FILE_ENDINGS:
        raise ModelNotFoundError(
            f"there is no file or folder {path!r} (looked from {os.getcwd()}); "
            f"give the path of a checkpoint that exists, or a model name: {known}"
        )
    near = difflib.get_close_matches(path.lower(), available_models(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ModelNotFoundError(f"model {reprlib.repr(path)} not found; {hint}available models: {known}")


_FILE_ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".gguf", ".ggml", ".onnx", ".zip")


def _looks_like_hub_name(name: str) -> bool:
    plain = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None
    return plain and not name.endswith(_FILE_ENDINGS)


# ---------------------------------------------------------------------------------------------------------
# .pt files
# ---------------------------------------------------------------------------------------------------------


def save_checkpoint(model: Whisper, path: str | os.PathLike[str], half: bool = False) -> None:
    """Write `model` as a ``.pt`` file that openai-whisper loads too; in place as a whole or not at all.

    Parameters
    ----------
    model
        The model; its alignment heads travel along, under a key that openai-whisper passes over.
    path
        Where to write.
    half
        Store float16, as the published checkpoints do: half the size.

    Raises
    ------
    CheckpointError
        Where a weight is too large for float16.
    """
    dtype = torch.float16 if half else torch.float32
    state = {}
    for name, tensor in model.state_dict().items():
        state[name] = tensor.detach().to("cpu", dtype)
        if half and not state[name].isfinite().all():
            raise CheckpointError(f"{name} has numbers that float16 cannot hold; save with half=False")
    content = {
        "dims": dimensions_of(model),
        "model_state_dict": state,
        "alignment_heads": dump_alignment_heads(model.alignment_heads),
    }
    with atomic_write(path) as file:
        torch.save(content, file)


def read_checkpoint(path: str, content: bytes | None = None, *, in_memory: bool = False) -> Weights:
    """Read a checkpoint file, or its `content` where that was read already; `path` is for messages then.

    Whatever happens to the file afterwards, the weights are those that it held; `in_memory` keeps no copy on disk.

    Raises
    ------
    CheckpointError
        With one sentence: what the file is, what is missing, what to do.
    """
    file = KeptFile(path, content) if content is not None else keep([path], in_memory=in_memory)[0]
    if is_safetensors(file):
        return bundled.read(file)
    checkpoint = read_torch(file)
    if not isinstance(checkpoint, dict) or not {"dims", "model_state_dict"} <= checkpoint.keys():
        raise CheckpointError(f"{path} {_foreign_content(checkpoint)}")
    dims = checked_dimensions(checkpoint["dims"], path)
    state = checkpoint["model_state_dict"]
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} holds a model_state_dict of type {type(state).__name__} instead of named tensors; "
            "save it again with save_checkpoint"
        )
    if hollow := next((name for name, value in state.items() if getattr(value, "is_meta", False)), None):
        raise CheckpointError(f"{path} has no numbers for {hollow}: it was saved without weights; get it again")
    heads = checkpoint.get("alignment_heads")
    mask = parse_alignment_heads(heads, dims, path) if isinstance(heads, (str, bytes)) else None
    return Weights(dims, left_in_files(state, [file]), mask, path)


def _foreign_content(content: object) -> str:
    """Name a torch file by what is in it; continues a sentence that began with the path."""
    if not isinstance(content, dict):
        return f"is a torch file that holds a {type(content).__name__}; a dictionary with dims is needed"
    names = [str(key) for key in content]
    if any(name.removeprefix("model.").startswith("encoder.layers.") for name in names):
        return (
            "is the weights file of a Hugging Face model, and its dimensions stand in config.json; "
            "give the folder that holds both"
        )
    missing = " and ".join(key for key in ("dims", "model_state_dict") if key not in content)
    if all(isinstance(value, Tensor) for value in content.values()) and content:
        return f"is a bare state dict of {len(names)} tensors, and {missing} are missing; wrap it as {_FORM}"
    found = ", ".join(names[:5]) or "nothing"
    return f"is a torch file that holds {found}, and {missing} is missing; a checkpoint is {_FORM}"


_FORM = '{"dims": {ten numbers}, "model_state_dict": {tensors}}'
