"""What a voice sounds like, as 192 numbers: CAM++, from the log mel power of pieces of about 1.5 s.

The network (Wang and others 2023, arXiv:2303.00332) and its weights are those of 3D-Speaker, written anew from the
description of its layers. Vectors point into nearly the same direction where the voice is the same.

Batch norms are folded into the layers beside them. Where one stands before a layer, with a rectifier between the two,
``relu(a x + b)`` is ``a max(x, -b / a) + b``: a maximum, and the rest belongs to the layer. The network gates its
layers by the mean over the piece plus the mean over each 2 s, which in pieces of up to 2 s are the same, and for longer
ones are taken to be.

Pieces of any lengths are one long piece in the layers, with `GAP` frames of zeros between them, which each layer makes
zeros again: so none of the work is for padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ...device.torch_state import clean_state
from ...spans import HOP_LENGTH, SAMPLE_RATE

if TYPE_CHECKING:
    from .weights import Weights

N_FFT, WINDOW_LENGTH, N_MELS, SIZE = 512, 400, 80, 192
BLOCK = 512  # frames of spectrum at once: they stay in the cache
PIECE = 150  # frames of 10 ms; a voice is cut into pieces of about that length, 2/3 to 3/2 of it
SHORTEST_PIECE = 60  # a shorter voice is repeated
GAP = 4  # frames between pieces: the layers see at most so far
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
    """The network in PyTorch; `choice.voices` returns the one of this process.

    Parameters
    ----------
    weights_by_name
        By their names in the original.
    dtype
        Precision of the layers.
    """

    def __init__(self, weights_by_name: Weights, dtype: torch.dtype) -> None:
        self.weights, self._dtype = weights_by_name, dtype
        with clean_state():
            # once for the real parts and once for the imaginary ones, which stand side by side
            self._mel = torch.from_numpy(kaldi_filters().T.repeat(2, 0))
            window = torch.hann_window(WINDOW_LENGTH, periodic=False, dtype=torch.float32, device="cpu") ** 0.85
            self._window = F.pad(window, [(N_FFT - WINDOW_LENGTH) // 2] * 2)
            self._first = self._convolution("head.conv1", "head.bn1")
            self._residual = [self._residual_block(f"head.layer{i}.{j}") for i in (1, 2) for j in (0, 1)]
            self._last = self._convolution("head.conv2", "head.bn2")
            kernel, bias = self.folded("xvector.tdnn.linear", "xvector.tdnn.nonlinear.batchnorm")  # (128, 320, 5)
            # channels of the two-dimensional layers lie behind each other within each frequency
            kernel = kernel.view(HIDDEN, 32, -1, 5).permute(3, 2, 1, 0).reshape(-1, HIDDEN)
            self._into = kernel.to(dtype), bias.to(dtype)
            self._blocks = [self._block(i + 1, *sizes) for i, sizes in enumerate(BLOCKS)]
            self._out = self.norm("xvector.out_nonlinear.batchnorm")
            self._dense = self.dense_layer()

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the scale and the shift of a batch norm."""
        scale = torch.rsqrt(self.weights[f"{name}.running_var"] + EPSILON)
        if f"{name}.weight" in self.weights:
            scale = scale * self.weights[f"{name}.weight"]
        shift = -self.weights[f"{name}.running_mean"] * scale
        return scale, shift + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else shift

    def folded(self, layer: str, norm: str) -> tuple[Tensor, Tensor]:
        """Return the weight and the bias of a layer with the batch norm behind it."""
        scale, shift = self.norm(norm)
        weight = self.weights[f"{layer}.weight"]
        return weight * scale.view(-1, *[1] * (weight.ndim - 1)), shift

    def dense_layer(self) -> tuple[Tensor, Tensor]:
        """Return the weight and the bias of the last layer."""
        matrix, bias = self.folded("xvector.dense.linear", "xvector.dense.nonlinear.batchnorm")
        return matrix[:, :, 0], bias

    def _convolution(self, layer: str, norm: str) -> tuple[Tensor, Tensor]:
        """Return a two-dimensional layer over time and frequency, in this order."""
        kernel, bias = self.folded(layer, norm)
        kernel = kernel.transpose(2, 3).to(self._dtype).contiguous(memory_format=torch.channels_last)
        return kernel, bias.to(self._dtype)

    def _residual_block(self, name: str) -> tuple[tuple[Tensor, Tensor], ...]:
        shortcut = f"{name}.shortcut"
        pairs = [(f"{name}.conv1", f"{name}.bn1"), (f"{name}.conv2", f"{name}.bn2"), (f"{shortcut}.0", f"{shortcut}.1")]
        return tuple(self._convolution(*pair) for pair in pairs if f"{pair[0]}.weight" in self.weights)

    def _rectified(self, norm: str, matrix: Tensor, bias: Tensor | None = None) -> Rectified:
        """Return a batch norm, a rectifier and a matrix, ``(channels, out)``, as one layer."""
        scale, shift = self.norm(norm)
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
            matrix, bias = self.folded(f"{name}.linear1", f"{name}.nonlinear2.batchnorm")
            taps = self.weights[f"{name}.cam_layer.linear_local.weight"]  # (GROWTH, HIDDEN, 3)
            squeeze, excite = (
                (self.weights[f"{name}.cam_layer.{k}.weight"][:, :, 0], self.weights[f"{name}.cam_layer.{k}.bias"])
                for k in ("linear1", "linear2")
            )
            into = self._rectified(f"{name}.nonlinear1.batchnorm", matrix[:, :, 0].T, bias)
            layers.append(DenseLayer(into, taps.permute(1, 2, 0).reshape(HIDDEN, -1).to(self._dtype), squeeze, excite))
        name = f"xvector.transit{number}"
        matrix = self.weights[f"{name}.linear.weight"][:, :, 0].T
        return Block(layers, dilation, self._rectified(f"{name}.nonlinear.batchnorm", matrix))

    @clean_state()
    def mel(self, samples: Floats) -> Floats:
        """Return the log mel power around each 10 ms, ``(n_samples,)`` -> ``(1 + n_samples // 160, 80)``."""
        x = torch.from_numpy(samples)
        x = torch.cat([x[:1] * (1 - PREEMPHASIS), x[1:] - PREEMPHASIS * x[:-1]])
        n = 1 + len(x) // HOP_LENGTH
        frames = F.pad(x, (N_FFT // 2, N_FFT // 2)).as_strided((n, N_FFT), (HOP_LENGTH, 1))
        power = torch.empty(n, N_MELS, dtype=torch.float32, device="cpu")
        for at in range(0, n, BLOCK):
            part = slice(at, at + BLOCK)
            spectrum = torch.view_as_real(torch.fft.rfft(frames[part] * self._window)).flatten(1)
            torch.mm(spectrum.square_(), self._mel, out=power[part])
        logarithm: Floats = power.clamp_(min=FLOOR).log_().numpy()
        return logarithm

    @clean_state()
    def embed(self, pieces: Sequence[Floats]) -> Floats:
        """Return a vector of length 1 for each piece of `pieces_of`, ``(n_frames, 80)`` each -> ``(n, 192)``."""
        layout = Layout([len(piece) for piece in pieces], self._dtype)
        x = torch.zeros(layout.n_frames, N_MELS, dtype=self._dtype, device="cpu")
        for start, piece in zip(layout.starts, pieces, strict=True):
            x[start : start + len(piece)] = torch.from_numpy(piece)
        x = self._head(x, layout.gaps)  # (n_frames, 320)
        n = layout.n_frames // 2
        x = F.pad(x, (0, 0, 2, 2)).as_strided((n, 5 * x.shape[1]), (2 * x.shape[1], 1))  # five frames, every second
        x = torch.addmm(self._into[1], x.contiguous(), self._into[0]).relu_()
        for block in self._blocks:
            x = self._dense_block(x, layout, block)  # (n, 256), then (n, 512)
        scale, shift = self._out
        x = torch.addcmul(shift, x.to(torch.float32), scale).relu_()
        stretches = [x[part] for part in layout.halves]
        mean = torch.stack([part.mean(0) for part in stretches])
        # by its definition: torch.std takes ten times as long
        squares = [(part - own).square_().sum(0) / (len(part) - 1) for part, own in zip(stretches, mean, strict=True)]
        statistics = torch.cat([mean, torch.stack(squares).sqrt_()], 1)
        embedded: Floats = F.normalize(F.linear(statistics, *self._dense), dim=1).numpy()
        return embedded

    def _head(self, x: Tensor, gaps: Tensor) -> Tensor:
        """Apply the two-dimensional layers, which leave an eighth of the frequencies."""

        def kept_apart(x: Tensor) -> Tensor:
            return x.relu_().index_fill_(2, gaps, 0)

        x = x[None, None].contiguous(memory_format=torch.channels_last)  # (1, 1, n, 80)
        x = kept_apart(F.conv2d(x, *self._first, padding=1))
        for one, two, *shortcut in self._residual:
            stride = (1, 2) if shortcut else (1, 1)
            y = kept_apart(F.conv2d(x, *one, stride=stride, padding=1))
            if shortcut:
                x = F.conv2d(x, *shortcut[0], stride=stride)
            x = kept_apart(F.conv2d(y, *two, padding=1).add_(x))
        x = kept_apart(F.conv2d(x, *self._last, stride=(1, 2), padding=1))  # (1, 32, n, 10)
        return x[0].permute(1, 2, 0).reshape(x.shape[2], -1)

    def _dense_block(self, x: Tensor, layout: Layout, block: Block) -> Tensor:
        size, shift = x.shape[1], block.dilation
        all_of_block = x.new_empty(len(x), size + GROWTH * len(block.layers))
        all_of_block[:, :size] = x
        for layer in block.layers:
            hidden = layer.into(all_of_block[:, :size]).relu_().index_fill_(0, layout.half_gaps, 0)
            mean = (layout.members @ hidden).to(torch.float32) / layout.lengths
            gate = torch.sigmoid(F.linear(F.relu(F.linear(2 * mean, *layer.squeeze)), *layer.excite))
            before, new, after = (hidden @ layer.taps).view(-1, 3, GROWTH).unbind(1)
            new[shift:] += before[:-shift]
            new[:-shift] += after[shift:]
            gates = gate.to(self._dtype)[layout.owners]
            torch.mul(new, gates, out=all_of_block[:, size : size + GROWTH])
            size += GROWTH
        return block.out(all_of_block)


class Layout:
    """Where pieces lie behind each other, a gap before, between and behind them; the layers' second part halves time.

    Attributes
    ----------
    n_frames, starts
        Frames in all, an even number, and the first of each piece.
    gaps, half_gaps
        Indices of the frames between pieces, and of those of half the rate.
    halves
        Where each piece lies at half the rate.
    members, owners, lengths
        1 where a frame of half the rate belongs to a piece, ``(n, n_frames // 2)``; the piece of each frame; and
        how many each has, ``(n, 1)``.
    """

    def __init__(self, lengths: Sequence[int], dtype: torch.dtype) -> None:
        ends = np.cumsum([length + GAP for length in lengths])
        self.starts: list[int] = (ends - lengths).tolist()
        self.n_frames = int(ends[-1]) + GAP
        owners = np.full(self.n_frames // 2, -1)
        self.halves = [slice(s // 2, (s + n) // 2) for s, n in zip(self.starts, lengths, strict=True)]
        for i, part in enumerate(self.halves):
            owners[part] = i
        self.half_gaps = torch.from_numpy(np.flatnonzero(owners < 0))
        self.gaps = torch.cat([2 * self.half_gaps, 2 * self.half_gaps + 1])
        self.members = torch.from_numpy(owners == np.arange(len(lengths))[:, None]).to(dtype)
        self.owners = torch.from_numpy(owners.clip(0))
        self.lengths = torch.tensor(lengths, dtype=torch.float32, device="cpu")[:, None] / 2


def piece_bounds(n_frames: int) -> npt.NDArray[np.intp]:
    """Return where pieces of so many frames begin and end, evenly, ``(n + 1,)``."""
    n = max(round(n_frames / PIECE), 1)
    bounds: npt.NDArray[np.intp] = np.rint(np.linspace(0, n_frames, n + 1)).astype(np.intp)
    return bounds


def pieces_of(mel: Floats) -> list[Floats]:
    """Cut the log mel power of a voice, ``(n_frames, 80)``, into pieces of an even number of frames.

    The mean of each frequency is taken away. A voice that is shorter than a piece can be is repeated.
    """
    mel = mel - mel.mean(0)
    if len(mel) < SHORTEST_PIECE:
        mel = np.resize(mel, (SHORTEST_PIECE, N_MELS))
    return [mel[start : end - (end - start) % 2] for start, end in pairwise(piece_bounds(len(mel)))]


def kaldi_filters() -> Floats:
    """Return triangular filters on HTK's mel scale, as Kaldi makes them, ``(80, 257)``."""

    def mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return 1127 * np.log1p(np.asarray(hertz) / 700)

    points = np.linspace(mel(LOWEST_HZ), mel(SAMPLE_RATE / 2), N_MELS + 2)
    slopes = mel(np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)) - points[:, None]
    width = points[1] - points[0]
    filters: Floats = np.maximum(0, np.minimum(slopes[:-2], -slopes[2:]) / width).astype(np.float32)
    return filters
