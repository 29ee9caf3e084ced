"""`Weights`: what every checkpoint format is read into, and how a `Whisper` is built from it.

That is ten dimensions, named tensors and alignment heads. Tensors that are missing, left over or of
the wrong shape are refused before anything is built. It opens no files and knows no format.
"""

from __future__ import annotations

import base64
import functools
import gzip
import reprlib
import zlib
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..device.torch_state import clean_state
from ..errors import CheckpointError
from ..lazy_modules import DeferredModules
from ..model import ModelDimensions, Whisper, causal_mask, default_alignment_mask
from ..network.dimensions import expected_shapes
from .lazy_tensors import StoredTensors


@dataclass
class Weights:
    """The contents of a checkpoint, whatever file it came from."""

    dims: ModelDimensions
    tensors: Mapping[str, Tensor]  # under the names of `Whisper.state_dict`, in any floating-point precision
    alignment_heads: Tensor | None  # booleans (n_text_layer, n_text_head); None: not known
    source: str  # for messages: the file or folder
    quantised: str = ""  # how, where the file has fewer bits for a number than float16: "q5_1"


def checked_dimensions(dims: object, source: str) -> ModelDimensions:
    """Return `dims`, a mapping of the ten numbers, as `ModelDimensions`.

    Raises
    ------
    CheckpointError
        Where a number is missing, unknown, or no positive integer, or where heads do not divide the state.
    """
    names = [field.name for field in fields(ModelDimensions)]
    if not isinstance(dims, Mapping):
        raise CheckpointError(
            f"{source} holds 'dims' of type {type(dims).__name__} instead of a dictionary of ten numbers; "
            "save the model again with whisper.checkpoints.save_checkpoint"
        )
    wrong = [f"{name} is missing" for name in names if name not in dims]
    wrong += [f"{name} is unknown" for name in dims if name not in names]
    wrong += [f"{n} = {reprlib.repr(dims[n])}" for n in names if n in dims and not _is_count(dims[n], n)]
    if not wrong:
        for state, head in (("n_audio_state", "n_audio_head"), ("n_text_state", "n_text_head")):
            if dims[state] % dims[head]:
                wrong.append(f"{state} = {dims[state]} is no multiple of {head} = {dims[head]}")
    if wrong:
        raise CheckpointError(
            f"the dimensions in {source} do not describe a Whisper ({'; '.join(wrong[:4])}); "
            "all ten must be there as positive integers of a Whisper's size"
        )
    return ModelDimensions(**{name: dims[name] for name in names})


def _is_count(value: object, name: str) -> bool:
    """Whether a number can be meant; no memory is reserved for a forged one."""
    most = 1 << 10 if name.endswith(("_layer", "_head")) else 1 << 20
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def dump_alignment_heads(mask: Tensor) -> str:
    """Write booleans in the original's form: gzipped, in base 85."""
    flags = mask.cpu().to_dense() if mask.is_sparse else mask.cpu()
    packed = gzip.compress(flags.bool().numpy().tobytes(), mtime=0)  # same heads, same text
    return base64.b85encode(packed).decode("ascii")


def parse_alignment_heads(dump: str | bytes, dims: ModelDimensions, source: str) -> Tensor:
    """Read what `dump_alignment_heads` wrote, as booleans ``(n_text_layer, n_text_head)``."""
    shape = (dims.n_text_layer, dims.n_text_head)
    try:
        flags = np.frombuffer(gzip.decompress(base64.b85decode(dump)), dtype=bool)
        return torch.from_numpy(flags.copy()).reshape(shape)
    except (ValueError, TypeError, OSError, EOFError, zlib.error, RuntimeError) as error:
        raise CheckpointError(
            f"the alignment heads in {source} are not {shape[0]} x {shape[1]} gzipped booleans in base 85; "
            "take them out, or save the model again"
        ) from error


# ---------------------------------------------------------------------------------------------------------
# Modules, shapes and weights of a network
# ---------------------------------------------------------------------------------------------------------

Anatomy = tuple[list[tuple[str, type, int]], dict[str, tuple[int, ...]]]


def anatomy(of: Whisper | ModelDimensions) -> Anatomy:
    """Return the names, classes and heads of all modules, and the names and shapes of all tensors.

    Of a network as it is, or as its dimensions ask for.
    """
    if isinstance(of, ModelDimensions):
        return _skeleton_of(astuple(of))
    modules = [(name, type(module), getattr(module, "n_head", 0)) for name, module in of.named_modules()]
    return modules, {name: tuple(tensor.shape) for name, tensor in of.state_dict(keep_vars=True).items()}


@functools.lru_cache(maxsize=4)
def _skeleton_of(numbers: tuple[int, ...]) -> Anatomy:
    return anatomy(skeleton(ModelDimensions(*numbers)))


def skeleton(dims: ModelDimensions) -> Whisper:
    """Return the network without weights, on the meta device."""
    with torch.device("meta"), InFloat32(), _Undrawn():
        return Whisper(dims)


def tensors_of(*modules: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers that the result depends on, in a fixed order."""
    tensors: list[Tensor] = []
    for part in modules:
        for module in part.modules():
            own = vars(module)
            tensors += [tensor for tensor in own["_parameters"].values() if tensor is not None]
            if not isinstance(module, Whisper):  # whose buffer is the alignment heads
                tensors += [tensor for tensor in own["_buffers"].values() if tensor is not None]
    return tensors


class InFloat32(TorchFunctionMode):
    """Creates modules in float32, whatever torch's default dtype is, and without changing that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:  # makes the parameters of torch's modules
            kwargs["dtype"] = kwargs.get("dtype") or torch.float32
        return func(*args, **kwargs)


class _Undrawn(TorchFunctionMode):
    """Skips random initialization, which on the meta device would import torch's compiler (1 s)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@clean_state()
def build(weights: Weights, device: str | torch.device = "cpu", *, deferred: bool = False) -> Whisper:
    """Build the network, in float32 on `device`.

    No weight is drawn at random first, and a float16 tensor becomes float32 once, on the device. Tensors in memory are
    taken out of ``weights.tensors`` one by one, so that each is held once.

    Parameters
    ----------
    weights
        What to build from; belongs to the model from now on.
    device
        Where the network shall be.
    deferred
        Create the modules on first access; until then there are only the `weights`, for the fast path to pack.

    Raises
    ------
    CheckpointError
        Where tensors are missing, left over, of another shape, or not floating point.
    """
    device = torch.empty(0, dtype=torch.float32, device=device).device  # with its number
    _check_tensors(weights)
    model = Whisper.__new__(Whisper)
    nn.Module.__init__(model)
    model.dims = weights.dims
    model.quantised = weights.quantised
    mask = weights.alignment_heads
    model.set_alignment_mask(default_alignment_mask(weights.dims) if mask is None else mask)
    if device.type in ("cpu", "cuda"):  # others (mps) have no sparse tensors; the heads are only looked up
        model.alignment_heads = model.alignment_heads.to(device)
    modules = DeferredModules(model, ("encoder", "decoder"), partial(_parts, weights, device), device, weights)
    modules.install()
    if not deferred:
        modules.made()
    return model


def _parts(weights: Weights, device: torch.device) -> dict[str, nn.Module]:
    """Make encoder and decoder."""
    with torch.inference_mode(False):  # also if accessed in inference mode: these can be trained
        model = skeleton(weights.dims)
        state = {}
        for name in list(weights.tensors):
            moved = weights.tensors[name].detach().to(device)
            # a contiguous tensor of our own, since other models may share this one
            ours = isinstance(weights.tensors, StoredTensors) or moved.dtype != torch.float32 or device.type != "cpu"
            state[name] = moved.to(torch.float32, copy=not ours, memory_format=torch.contiguous_format)
            del moved
            if isinstance(weights.tensors, dict):
                del weights.tensors[name]
        model.load_state_dict(state, assign=True)
        model.decoder.mask = causal_mask(weights.dims.n_text_ctx, device=device)
    return {"encoder": model.encoder, "decoder": model.decoder}


def _check_tensors(weights: Weights) -> None:
    found, source = weights.tensors, weights.source
    if isinstance(found, StoredTensors):
        found = found.views
    layers = weights.dims.n_audio_layer + weights.dims.n_text_layer
    if layers > len(found):  # each has a dozen; and a forged number must not name a million tensors
        raise CheckpointError(
            f"{source} is incomplete: it announces {layers} layers and holds {len(found)} tensors; "
            "get the file again from where it came"
        )
    expected = expected_shapes(weights.dims)
    missing = [name for name in expected if name not in found]
    if missing:
        raise CheckpointError(
            f"{source} is incomplete: {len(missing)} of {len(expected)} tensors are missing "
            f"({_some(missing)}); get the file again from where it came"
        )
    extra = [name for name in found if name not in expected]
    if extra:
        raise CheckpointError(
            f"{source} holds {len(extra)} tensors that a Whisper of its dimensions does not have "
            f"({_some(extra)}); it is another model, or its dims are wrong"
        )
    for name, shape in expected.items():
        tensor: Any = found[name]
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.layout != torch.strided:
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CheckpointError(
                f"{name} in {source} is {kind}, not plain floating-point numbers; "
                "load the model that it was quantised from"
            )
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{name} in {source} has shape {tuple(tensor.shape)}, and its dimensions ask for {shape}; "
                "the file mixes two models: get it again from where it came"
            )


def _some(names: list[str]) -> str:
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")


def dimensions_of(model: Whisper) -> dict[str, int]:
    """Return the ten numbers as checkpoints hold them."""
    return {name: int(value) for name, value in asdict(model.dims).items()}


def state_of(model: Whisper, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return the tensors of `model` on the CPU in `dtype`, under the names of `Whisper.state_dict`.

    Raises
    ------
    CheckpointError
        Where a number is too large for `dtype`.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        state[name] = tensor.detach().to("cpu", dtype)
        if dtype != torch.float32 and not state[name].isfinite().all():
            raise CheckpointError(f"{name} has numbers that {str(dtype)[6:]} cannot hold; save in float32")
    return state
