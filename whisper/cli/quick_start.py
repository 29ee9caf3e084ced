"""The quick start of the command: a model from its packed weights on disk, without torch, where nothing needs more.

The first time a model is loaded as a whole and packed; from then on its packed weights are read. A program's own
`load_model` and `transcribe` do not come here.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..checkpoints.finding import find, names
from ..checkpoints.identity import identity_of
from ..checkpoints.published import _MODELS, BUNDLED, BUNDLED_NAME
from ..device.lazy_torch import set_n_threads
from ..device.precision import resolve
from ..errors import CheckpointError
from ..network.dimensions import ModelDimensions
from ..runtime.native import packed_files
from ..runtime.packed_model import PackedModel

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
    paths, line = _located(name, options)
    path = packed_files.path_for(identity_of(paths, name), compute_type)
    if path is None:
        return whole()
    if options.threads:
        set_n_threads(options.threads)
    if (packed := _packed(path, compute_type, options, whole)) is not None:
        if line:
            find.tell_once(line)
        return packed
    model = whole()
    from ..runtime import select

    if select.usable(model):
        select.runner_for(model, fp16=True)  # packs, and writes the file
        select.refresh(model)
    return _packed(path, compute_type, options, whole) or model


def may_be_quick(device: str) -> bool:
    """Whether the processor is what computes, as far as can be told without torch."""
    return device in ("auto", "cpu") and platform.system() in ("Linux", "Darwin") and not any(map(os.path.exists, GPUS))


def _located(name: str, options: ModelOptions) -> tuple[Sequence[str], str]:
    """Return the files that `load_model` would read, none where that is not known here, and what it would say."""
    if name in _MODELS or name in names.DISTILLED:
        if own := find.downloaded(name, options.model_dir):
            return own.paths, ""
        found = next(find.copies(name, quantized=options.quantized), None)
        return (found.paths, found.taken()) if found is not None else ((), "")
    if name == BUNDLED_NAME:
        return [BUNDLED], ""
    return ([name] if os.path.exists(name) and not options.quantized else []), ""


def _packed(path: str, compute_type: str, options: ModelOptions, whole: Callable[[], Whisper]) -> PackedModel | None:
    """Return the model of a file of packed weights; None where there is none that can be used."""
    header = packed_files.read_header(path)
    if header is None:
        return None
    from ..runtime.native.runner import NativeRunner

    about = header.about
    dims = ModelDimensions(**about["dims"])
    try:
        runner: Any = NativeRunner(dims, path, compute_type, plain=True)
    except CheckpointError:
        return None
    return PackedModel(runner, dims, about["alignment_heads"], options.compute_type, about["quantised"], whole)
