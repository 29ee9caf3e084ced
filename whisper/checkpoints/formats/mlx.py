"""MLX folders, of mlx-whisper and of mlx-community on the hub: ``config.json`` and safetensors or npz beside it.

The names are openai-whisper's with small changes, and convolutions lie in another order. Linear layers and the token
embedding may be quantised in groups: 2 to 8 bits a number, a scale and a bias for each group. Which bits and which
groups is read off the shapes, since one file may mix them.

From mlx-examples ``whisper/convert.py`` and mlx ``ops.cpp`` (MIT); checked against mlx itself. mlx's own reader wants
an installation of mlx.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...network.dimensions import ModelDimensions, expected_shapes
from ..lazy_tensors import ComputedTensors, StoredTensors, left_in_files, own, views_of
from ..weights import Weights
from . import alignment_heads
from .model_folders import CONFIG, dimensions, encoder_positions, read_json
from .tensor_files import read_tensors

WEIGHT_FILES = ("weights.safetensors", "weights.npz", "model.safetensors", "model.safetensors.index.json")
_BITS = (2, 3, 4, 5, 6, 8)
_BLOCK = 1 << 20  # numbers that are dequantised at once
_POSITIONS = "encoder.positional_embedding"


def read_folder(folder: str, name: str | None = None) -> Weights:
    """Read a folder with a configuration and weights in one of `WEIGHT_FILES`, or in the file `name`.

    Raises
    ------
    CheckpointError
        Where files are missing or broken, or describe something other than a Whisper.
    """
    config = read_json(folder, CONFIG)
    if config is None:
        raise CheckpointError(
            f"{folder} holds weights in MLX's form, and config.json is missing; get it from where the folder came"
        )
    name = name or next((n for n in WEIGHT_FILES if os.path.isfile(os.path.join(folder, n))), None)
    if name is None:
        raise CheckpointError(
            f"{folder} holds no weights: one of {', '.join(WEIGHT_FILES)} is missing beside config.json; "
            "get the folder again with its weights"
        )
    files, read = read_tensors(folder, name)
    stored = read if isinstance(read, StoredTensors) else left_in_files(read, files)
    return translated(stored, dimensions(config, folder), folder)


def has_its_names(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors have openai-whisper's names, which MLX has kept but for a few, rather than Hugging Face's."""
    return any(".blocks." in str(name) for name in tensors)


def translated(stored: Mapping[str, Tensor], dims: ModelDimensions, source: str) -> Weights:
    """Return tensors in MLX's names and order as `Weights`."""
    shapes = expected_shapes(dims) if dims.n_audio_layer + dims.n_text_layer <= len(stored) else {}
    views = views_of(stored)
    makers: dict[str, tuple[Tensor, Callable[[], Tensor]]] = {}
    all_bits = set()
    for name, view in views.items():
        base, _, kind = name.rpartition(".")
        scales = f"{base}.scales" in views
        if name == "alignment_heads" or (kind in ("scales", "biases") and f"{base}.weight" in views and scales):
            continue
        ours = name.replace(".mlp1.", ".mlp.0.").replace(".mlp2.", ".mlp.2.").removeprefix("model.")
        if ours in makers:
            raise CheckpointError(f"{source} holds {ours} twice under different names; get the model again")
        if kind == "weight" and scales and view.dtype == torch.uint32:
            shape = shapes.get(ours, ())
            bits = _checked_bits(views, base, shape, source)
            makers[ours] = (
                torch.empty(shape, dtype=torch.float32, device="meta"),
                partial(_dequantized, stored, base, bits, shape),
            )
            all_bits.add(bits)
        elif ".conv" in name and view.ndim == 3 and view.shape[1] == 3 != view.shape[2]:
            makers[ours] = view.transpose(1, 2), partial(_transposed, stored, name)
        else:
            makers[ours] = view, partial(own, stored, name)
    if _POSITIONS not in makers:
        positions = encoder_positions(dims, source)
        if all(view.dtype != torch.float32 for view in views.values()):
            positions = positions.half()  # as in OpenAI's files and in mlx-whisper, where weights have 16 bits
        makers[_POSITIONS] = positions.to("meta"), positions.clone
    quantised = ", ".join(f"{bits} bits of MLX" for bits in sorted(all_bits))
    return Weights(dims, ComputedTensors(makers), _heads(stored, dims, source), source, quantised)


def _transposed(stored: Mapping[str, Tensor], name: str) -> Tensor:
    return stored[name].transpose(1, 2).clone(memory_format=torch.contiguous_format)


def _heads(stored: Mapping[str, Tensor], dims: ModelDimensions, source: str) -> Tensor | None:
    if "alignment_heads" not in stored:
        return alignment_heads.published_heads(dims, source)
    pairs = stored["alignment_heads"]
    limits = torch.tensor([[dims.n_text_layer, dims.n_text_head]], dtype=torch.int64, device="cpu")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not ((pairs.long() >= 0) & (pairs.long() < limits)).all():
        raise CheckpointError(
            f"the alignment heads in {source} are not pairs of one of {dims.n_text_layer} layers and one of "
            f"{dims.n_text_head} heads; get the model again"
        )
    mask = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool, device="cpu")
    mask[tuple(pairs.long().T)] = True
    return mask


# ---------------------------------------------------------------------------------------------------------
# Numbers quantised in groups
# ---------------------------------------------------------------------------------------------------------


def _checked_bits(views: Mapping[str, Tensor], base: str, shape: tuple[int, ...], source: str) -> int:
    """Return how many bits each number of a quantised matrix has, where its parts fit together."""
    weight, scales = views[f"{base}.weight"], views[f"{base}.scales"]
    biases = views.get(f"{base}.biases")
    if biases is None or not scales.is_floating_point() or not biases.is_floating_point():
        raise CheckpointError(
            f"{base} in {source} is quantised in a way that is not read (scales without biases, as mxfp4 and nvfp4 "
            "have them); get the model in affine quantisation or in float16"
        )
    if len(shape) == weight.ndim == scales.ndim == 2 and scales.shape == biases.shape:
        rows, columns = shape
        bits, left = divmod(weight.shape[1] * 32, columns)
        grouped = scales.shape[1] and not columns % scales.shape[1] and not columns % 8
        if not left and bits in _BITS and grouped and len(weight) == len(scales) == rows:
            return bits
    raise CheckpointError(
        f"{base} in {source} is quantised, and its parts do not fit together (weight {tuple(weight.shape)}, "
        f"scales {tuple(scales.shape)}); get the model again"
    )


def _dequantized(stored: Mapping[str, Tensor], base: str, bits: int, shape: tuple[int, ...]) -> Tensor:
    """Return the numbers, ``scale * q + bias``; a row is a stream of bits, the lowest first."""
    rows, columns = shape
    packed = stored[f"{base}.weight"].view(torch.uint8).reshape(rows, columns // 8, bits)
    scales, biases = (stored[f"{base}.{name}"].float().unsqueeze(2) for name in ("scales", "biases"))
    made = torch.empty(shape, dtype=torch.float32, device="cpu")
    n_rows = max(_BLOCK // columns, 1)
    for first in range(0, rows, n_rows):
        some = slice(first, min(first + n_rows, rows))
        grouped = unpacked(packed[some], bits).view(-1, scales.shape[1], columns // scales.shape[1]).float()
        made[some] = grouped.mul_(scales[some]).add_(biases[some]).view(-1, columns)
    return made


def unpacked(packed: Tensor, bits: int) -> Tensor:
    """Return the numbers of `bits` bits each in `packed`, uint8 ``(..., bits)``, eight of which fill `bits` bytes."""
    numbers = torch.empty((*packed.shape[:-1], 8), dtype=torch.uint8, device="cpu")
    for i in range(8):
        byte, shift = divmod(i * bits, 8)
        number = packed[..., byte] >> shift
        if shift + bits > 8:
            number |= packed[..., byte + 1] << (8 - shift)
        numbers[..., i] = number & ((1 << bits) - 1)
    return numbers
