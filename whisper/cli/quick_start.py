"""The quick start of the command: a model from its packed weights on disk, without torch, where nothing needs more.

The first time its weights are packed: without torch where their file is of a kind that needs none, else in a child
process; from then on the packed weights are read. A program's own `load_model` and `transcribe` do not come here.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..checkpoints.cache import cache_folder
from ..checkpoints.download import _download, is_verified
from ..checkpoints.finding import find, names
from ..checkpoints.finding.stored import CTRANSLATE2
from ..checkpoints.formats import openai_arrays
from ..checkpoints.formats.ctranslate2 import arrays as ctranslate2_arrays
from ..checkpoints.formats.ctranslate2.layout import MODEL_FILE
from ..checkpoints.identity import identity_of
from ..checkpoints.published import _MODELS, BUNDLED, BUNDLED_NAME
from ..checkpoints.stored_arrays import Source, StoredArrays
from ..device import child
from ..device.lazy_torch import set_n_threads
from ..device.precision import resolve
from ..errors import CheckpointError, DownloadError
from ..network.dimensions import ModelDimensions
from ..runtime.native import packed_files
from ..runtime.packed_model import PackedModel
from .common import naming_models_here

if TYPE_CHECKING:
    from ..model import Whisper
    from .common import ModelOptions

# what is there where torch may find a device that is faster than the processor: CUDA, WSL's, ROCm
GPUS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")


def load(options: ModelOptions, name: str, fp16: bool, whole: Callable[[], Whisper]) -> Whisper | PackedModel:
    """Load a model, quickly where that can be.

    Parameters
    ----------
    options
        Which model, and where it runs.
    name
        Of the model.
    fp16
        Whether it may compute in less than float32.
    whole
        Loads it with its modules.
    """
    if not fp16 or not may_be_quick(options.device):
        return whole()
    compute_type = resolve(options.compute_type, "cpu")
    paths, found = _located(name, options)
    if not paths and name in _MODELS and packed_files.path_for(name, compute_type) is not None:
        _download_model(name, options)
        paths, found = _located(name, options)
    path = packed_files.path_for(identity_of(paths, name), compute_type)
    if path is None:
        return whole()
    if options.threads:
        set_n_threads(options.threads)

    def packed(of: str | StoredArrays | None) -> PackedModel | None:
        return None if of is None else _packed(of, compute_type, options, whole)

    model = packed(path if os.path.exists(path) else None) or packed(_arrays(paths, found, name))
    if model is not None:
        if found is not None and found.whose != find.OWN:
            find.tell_once(found.taken())
        return model
    if child.saves_memory() and packed_files.can_write():
        child.run(partial(_pack, whole))
        return packed(path) or whole()
    loaded = _pack(whole)
    return packed(path) or loaded


def _download_model(name: str, options: ModelOptions) -> None:
    """Download a published model, as `load_model` does it, without torch."""
    with naming_models_here(options, name):
        try:
            _download(_MODELS[name], options.model_dir or cache_folder(), False)
        except DownloadError as error:
            raise DownloadError(f"{error}{find.inexact_copies(name)}") from error


def _pack(whole: Callable[[], Whisper]) -> Whisper:
    """Load a model and pack it, so that its packed weights are on disk."""
    from ..runtime import select

    model = whole()
    if select.usable(model):
        select.runner_for(model, fp16=True)
        select.refresh(model)
    return model


def may_be_quick(device: str) -> bool:
    """Whether the processor is what computes, as far as can be told without torch."""
    return device in ("auto", "cpu") and platform.system() in ("Linux", "Darwin") and not any(map(os.path.exists, GPUS))


def _located(name: str, options: ModelOptions) -> tuple[Sequence[str], find.Found | None]:
    """Return the files that `load_model` would read, none where that is not known here, and how they were found."""
    if name in _MODELS or name in names.DISTILLED:
        copy = find.downloaded(name, options.model_dir) or next(find.copies(name, quantized=options.quantized), None)
        return (copy.paths, copy) if copy is not None else ((), None)
    if name == BUNDLED_NAME:
        return [BUNDLED], None
    return ([name] if os.path.exists(name) and not options.quantized else []), None


def _arrays(paths: Sequence[str], found: find.Found | None, name: str) -> StoredArrays | None:
    """Return the weights of a model that can be packed without torch: what `load_model` would read, as verified."""
    source = Source.of(paths, name, within=MODEL_FILE)
    if source is None:
        return None
    if found is not None and found.stored.format == CTRANSLATE2:
        arrays = ctranslate2_arrays.read(source, names.dimensions(name))
    else:
        arrays = openai_arrays.read(source)
    return arrays if arrays is not None and (found is None or _is_good(found, name, arrays)) else None


def _is_good(found: find.Found, name: str, arrays: StoredArrays) -> bool:
    """Whether a copy of a published model is what its name says, as far as `load_model` looks."""
    if found.whose == find.OWN:
        return is_verified(found.path, _MODELS[name].split("/")[-2])
    try:
        found.verify()
    except CheckpointError:
        return False
    return arrays.dims == names.dimensions(name)


def _packed(
    of: str | StoredArrays, compute_type: str, options: ModelOptions, whole: Callable[[], Whisper]
) -> PackedModel | None:
    """Return the model of a file of packed weights, or of weights to pack; None where they cannot be used."""
    from ..runtime.native.runner import NativeRunner, supports

    known = packed_files.read_header(of) if isinstance(of, str) else of.origin
    if known is None:
        return None
    about = known.about
    dims = ModelDimensions(**about["dims"])
    if not supports(dims, compute_type):
        return None
    try:
        runner: Any = NativeRunner(dims, of, compute_type, plain=True)
    except CheckpointError:
        return None
    if isinstance(of, StoredArrays) and of.origin != known:  # the file was changed meanwhile
        return None
    return PackedModel(runner, dims, about["alignment_heads"], options.compute_type, about["quantised"], whole)
