"""What a voice sounds like, as 192 numbers: CAM++, from the log mel power of pieces of 2 s.

The network (Wang and others 2023, arXiv:2303.00332) and its weights are those of 3D-Speaker, written anew from the
description of its layers. Vectors point into nearly the same direction where the voice is the same.

Batch norms are folded into the layers beside them. Where one stands before a layer, with a rectifier between the two,
``relu(a x + b)`` is ``a max(x, -b / a) + b``: a maximum, and the rest belongs to the layer. The network gates its
layers by the mean over the piece plus the mean over each 2 s, which in pieces of 2 s are the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..device.torch_state import clean_state
from ..spans import HOP_LENGTH, SAMPLE_RATE
from . import weights

if TYPE_CHECKING:
    from .weights import Weights

N_FFT, WINDOW_LENGTH, N_MELS, SIZE = 512, 400, 80, 192
PIECE = 200  # frames of 10 ms
BLOCKS = ((12, 1), (24, 2), (16, 2))  # number of layers and dilation
GROWTH, HIDDEN = 32, 128  # channels that a layer adds, and that it has inside
EPSILON = 1e-5
PREEMPHASIS, LOWEST_HZ, FLOOR = 0.97, 20.0, 1.2e-7 / 32768**2  # full scale is 1 here, and 32768 in the original

Floats = npt.NDArray[np.float32]


class Rectified(NamedTuple):
    """A layer of ``relu(a x + b)``: a clamp, and then a matrix into which the rest is folded."""

    low: Tensor
    high: Tensor | None  # where a channel has a negative `a`
    matrix: Tensor  # (channels, out)
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``(n, channels)`` -> ``(n, out)``."""
        x = torch.maximum(x, self.low)
        if self.high is not None:
            x = torch.minimum(x, self.high)
        return torch.addmm(self.bias, x, self.matrix)


class DenseLayer(NamedTuple):
    """One layer of a block: 1x1, then three taps, gated by what the whole piece is like."""

    into: Rectified
    taps: Tensor  # (HIDDEN, 3 * GROWTH): the taps side by side
    squeeze: tuple[Tensor, Tensor]
    excite: tuple[Tensor, Tensor]


class Block(NamedTuple):
    """Layers of which each reads the input and what all before it have added."""

    layers: list[DenseLayer]
    dilation: int
    out: Rectified


class VoiceEncoder:
    """The network; `network` returns the one of this process.

    Parameters
    ----------
    weights_by_name
        By their names in the original.
    dtype
        Precision of the layers.
    """

    def __init__(self, weights_by_name: Weights, dtype: torch.dtype) -> None:
        self._w, self._dtype = weights_by_name, dtype
        with clean_state():
            self._mel = torch.from_numpy(kaldi_filters().T.copy())
            self._window = torch.hann_window(WINDOW_LENGTH, periodic=False, dtype=torch.float32, device="cpu") ** 0.85
            self._first = self._convolution("head.conv1", "head.bn1")
            self._residual = [self._residual_block(f"head.layer{i}.{j}") for i in (1, 2) for j in (0, 1)]
            self._last = self._convolution("head.conv2", "head.bn2")
            kernel, bias = self._folded("xvector.tdnn.linear", "xvector.tdnn.nonlinear.batchnorm")  # (128, 320, 5)
            # channels of the two-dimensional layers lie behind each other within each frequency
            kernel = kernel.view(HIDDEN, 32, -1, 5).permute(3, 2, 1, 0).reshape(-1, HIDDEN)
            self._into = kernel.to(dtype), bias.to(dtype)
            self._blocks = [self._block(i + 1, *sizes) for i, sizes in enumerate(BLOCKS)]
            self._out = self._norm("xvector.out_nonlinear.batchnorm")
            matrix, bias = self._folded("xvector.dense.linear", "xvector.dense.nonlinear.batchnorm")
            self._dense = matrix[:, :, 0], bias

    def _norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the scale and the shift of a batch norm."""
        scale = torch.rsqrt(self._w[f"{name}.running_var"] + EPSILON)
        if f"{name}.weight" in self._w:
            scale = scale * self._w[f"{name}.weight"]
        shift = -self._w[f"{name}.running_mean"] * scale
        return scale, shift + self._w[f"{name}.bias"] if f"{name}.bias" in self._w else shift

    def _folded(self, layer: str, norm: str) -> tuple[Tensor, Tensor]:
        """Return the weight and the bias of a layer with the batch norm behind it."""
        scale, shift = self._norm(norm)
        weight = self._w[f"{layer}.weight"]
        return weight * scale.view(-1, *[1] * (weight.ndim - 1)), shift

    def _convolution(self, layer: str, norm: str) -> tuple[Tensor, Tensor]:
        """Return a two-dimensional layer over time and frequency, in this order."""
        kernel, bias = self._folded(layer, norm)
        kernel = kernel.transpose(2, 3).to(self._dtype).contiguous(memory_format=torch.channels_last)
        return kernel, bias.to(self._dtype)

    def _residual_block(self, name: str) -> tuple[tuple[Tensor, Tensor], ...]:
        shortcut = f"{name}.shortcut"
        pairs = [(f"{name}.conv1", f"{name}.bn1"), (f"{name}.conv2", f"{name}.bn2"), (f"{shortcut}.0", f"{shortcut}.1")]
        return tuple(self._convolution(*pair) for pair in pairs if f"{pair[0]}.weight" in self._w)

    def _rectified(self, norm: str, matrix: Tensor, bias: Tensor | None = None) -> Rectified:
        """Return a batch norm, a rectifier and a matrix, ``(channels, out)``, as one layer."""
        scale, shift = self._norm(norm)
        threshold = -shift / scale
        infinite, positive = torch.full_like(scale, torch.inf), scale > 0
        low, high = torch.where(positive, threshold, -infinite), torch.where(positive, infinite, threshold)
        bias = shift @ matrix if bias is None else shift @ matrix + bias
        return Rectified(
            low.to(self._dtype),
            None if bool(positive.all()) else high.to(self._dtype),
            (scale[:, None] * matrix).to(self._dtype),
            bias.to(self._dtype),
        )

    def _block(self, number: int, n_layers: int, dilation: int) -> Block:
        layers = []
        for i in range(n_layers):
            name = f"xvector.block{number}.tdnnd{i + 1}"
            matrix, bias = self._folded(f"{name}.linear1", f"{name}.nonlinear2.batchnorm")
            taps = self._w[f"{name}.cam_layer.linear_local.weight"]  # (GROWTH, HIDDEN, 3)
            squeeze, excite = (
                (self._w[f"{name}.cam_layer.{k}.weight"][:, :, 0], self._w[f"{name}.cam_layer.{k}.bias"])
                for k in ("linear1", "linear2")
            )
            into = self._rectified(f"{name}.nonlinear1.batchnorm", matrix[:, :, 0].T, bias)
            layers.append(DenseLayer(into, taps.permute(1, 2, 0).reshape(HIDDEN, -1).to(self._dtype), squeeze, excite))
        name = f"xvector.transit{number}"
        matrix = self._w[f"{name}.linear.weight"][:, :, 0].T
        return Block(layers, dilation, self._rectified(f"{name}.nonlinear.batchnorm", matrix))

    @clean_state()
    def mel(self, samples: Floats) -> Floats:
        """Return the log mel power around each 10 ms, ``(n_samples,)`` -> ``(1 + n_samples // 160, 80)``."""
        x = torch.from_numpy(samples)
        x = torch.cat([x[:1] * (1 - PREEMPHASIS), x[1:] - PREEMPHASIS * x[:-1]])
        spectrum = torch.stft(
            x, N_FFT, HOP_LENGTH, WINDOW_LENGTH, self._window,
            center=True, pad_mode="constant", return_complex=True,
        )  # fmt: skip
        power = torch.view_as_real(spectrum.T).square().sum(-1) @ self._mel  # (n_frames, 80)
        logarithm: Floats = power.clamp_(min=FLOOR).log_().numpy()
        return logarithm

    @clean_state()
    def embed(self, pieces: Floats) -> Floats:
        """Return a vector of length 1 for each piece of `pieces_of`, ``(n, 200, 80)`` -> ``(n, 192)``."""
        x = self._head(torch.from_numpy(pieces))  # (n, 200, 320)
        n, n_frames = len(x), PIECE // 2
        x = F.pad(x, (0, 0, 2, 2))
        x = x.as_strided((n, n_frames, 5 * x.shape[2]), (x.stride(0), 2 * x.stride(1), 1))  # five frames, every second
        x = torch.addmm(self._into[1], x.reshape(n * n_frames, -1), self._into[0]).relu_()
        for block in self._blocks:
            x = self._dense_block(x, n, block)  # (n * 100, 256), then (n * 100, 512)
        scale, shift = self._out
        x = torch.addcmul(shift, x.to(torch.float32), scale).relu_().view(n, n_frames, -1)
        mean = x.mean(1)
        deviation = (x - mean[:, None]).square_().sum(1).div_(n_frames - 1).sqrt_()  # torch.std takes ten times as long
        embedded: Floats = F.normalize(F.linear(torch.cat([mean, deviation], 1), *self._dense), dim=1).numpy()
        return embedded

    def _head(self, x: Tensor) -> Tensor:
        """Apply the two-dimensional layers, which leave an eighth of the frequencies."""
        x = x[:, None].to(self._dtype).contiguous(memory_format=torch.channels_last)  # (n, 1, 200, 80)
        x = F.conv2d(x, *self._first, padding=1).relu_()
        for one, two, *shortcut in self._residual:
            stride = (1, 2) if shortcut else (1, 1)
            y = F.conv2d(x, *one, stride=stride, padding=1).relu_()
            if shortcut:
                x = F.conv2d(x, *shortcut[0], stride=stride)
            x = F.conv2d(y, *two, padding=1).add_(x).relu_()
        x = F.conv2d(x, *self._last, stride=(1, 2), padding=1).relu_()  # (n, 32, 200, 10)
        return x.permute(0, 2, 3, 1).reshape(len(x), x.shape[2], -1)

    def _dense_block(self, x: Tensor, n: int, block: Block) -> Tensor:
        size, shift = x.shape[1], block.dilation
        all_of_block = x.new_empty(len(x), size + GROWTH * len(block.layers))
        all_of_block[:, :size] = x
        by_piece = all_of_block.view(n, -1, all_of_block.shape[1])
        for layer in block.layers:
            hidden = layer.into(all_of_block[:, :size]).relu_()
            mean = hidden.view(n, -1, HIDDEN).mean(1, dtype=torch.float32)
            gate = torch.sigmoid(F.linear(F.relu(F.linear(2 * mean, *layer.squeeze)), *layer.excite))
            before, new, after = (hidden @ layer.taps).view(n, -1, 3, GROWTH).unbind(2)
            new[:, shift:] += before[:, :-shift]
            new[:, :-shift] += after[:, shift:]
            torch.mul(new, gate[:, None].to(self._dtype), out=by_piece[:, :, size : size + GROWTH])
            size += GROWTH
        return block.out(all_of_block)


def piece_starts(n_frames: int) -> npt.NDArray[np.intp]:
    """Return where the pieces of so many frames begin: the fewest that have all of them, evenly."""
    n = max(-(-n_frames // PIECE), 1)
    starts: npt.NDArray[np.intp] = np.rint(np.linspace(0, max(n_frames - PIECE, 0), n)).astype(np.intp)
    return starts


def pieces_of(mel: Floats) -> Floats:
    """Cut the log mel power of a voice into pieces, ``(n_frames, 80)`` -> ``(n, 200, 80)``.

    The mean of each frequency is taken away. A voice that is shorter than a piece is repeated.
    """
    mel = mel - mel.mean(0)
    starts = piece_starts(len(mel))
    if len(mel) < PIECE:
        mel = np.resize(mel, (PIECE, N_MELS))
    return np.stack([mel[start : start + PIECE] for start in starts])


def kaldi_filters() -> Floats:
    """Return triangular filters on HTK's mel scale, as Kaldi makes them, ``(80, 257)``."""

    def mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return 1127 * np.log1p(np.asarray(hertz) / 700)

    points = np.linspace(mel(LOWEST_HZ), mel(SAMPLE_RATE / 2), N_MELS + 2)
    slopes = mel(np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)) - points[:, None]
    width = points[1] - points[0]
    filters: Floats = np.maximum(0, np.minimum(slopes[:-2], -slopes[2:]) / width).astype(np.float32)
    return filters


@lru_cache(maxsize=1)
def network() -> VoiceEncoder:
    """Return the network of this process; the first call reads its weights."""
    return VoiceEncoder(weights.load("encoder"), weights.quick_dtype())
