"""The voice encoder in int8, for the compiled kernels: its layers packed as `src/voices.h` reads them.

A byte stands for a channel's number by a scale that is fixed: from so many standard deviations below its mean to as
many above, or from 0 on behind a rectifier, by the batch norm that the network has there. Scales, zero points and
biases are folded into the factor and the addend that make the next layer's bytes of a layer's integer sums.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import from_numpy, get_num_threads

from ...device.torch_state import clean_state
from ...runtime.native import kernels
from ...runtime.native.pointers import address
from .packed_arrays import TOP, Array, PackedNetwork, array_of
from .voice_encoder import BLOCKS

if TYPE_CHECKING:
    from .voice_encoder import Floats, VoiceEncoder

DEVIATIONS = 6.0  # of a channel that is read by a batch norm: what lies further from its mean is cut off
RECTIFIED_DEVIATIONS = 8.0  # of one behind a batch norm and a rectifier, above its mean
MIDDLE = 127.5


class PackedEncoder(PackedNetwork):
    """Computes what `VoiceEncoder.embed` does; `packed` returns one where the kernels have it.

    Parameters
    ----------
    library
        The kernels.
    plain
        The network, in float32.
    """

    def __init__(self, library: ctypes.CDLL, plain: VoiceEncoder) -> None:
        super().__init__(library, "voices")
        self._plain = plain
        with clean_state():
            self._dense = plain.dense_layer()
            top = self._head()
            self._blocks(top)
        self._make()

    def embed(self, pieces: Sequence[Floats]) -> Floats:
        """Return a vector of length 1 for each piece, ``(n_frames, 80)`` each -> ``(n, 192)``."""
        mel = np.ascontiguousarray(np.concatenate(pieces), np.float32)
        starts = np.cumsum([0, *map(len, pieces)], dtype=np.int32)
        statistics = np.empty((len(pieces), 1024), np.float32)
        status = self._library.sotto_embed_voices(
            self._network, address(mel, np.float32, int(starts[-1]) * 80, "mel"), starts.ctypes.data, len(pieces),
            address(statistics, np.float32, statistics.size, "statistics"), get_num_threads(),
        )  # fmt: skip
        if status:
            raise MemoryError("no memory is left for the voices of a recording")
        with clean_state():
            embedded: Floats = F.normalize(F.linear(from_numpy(statistics), *self._dense), dim=1).numpy()
        return embedded

    # -----------------------------------------------------------------------------------------------------
    # Packing, in the order in which voices.h takes the arrays
    # -----------------------------------------------------------------------------------------------------

    def _head(self) -> Array:
        """Pack the two-dimensional layers; returns what stands for the bytes 255 of the last one's channels."""
        kernel, bias, mean, deviation = self._convolution("head.conv1", "head.bn1")
        top = _top(mean, deviation)
        self._arrays.floats(kernel * (TOP / top)[:, None], transposed=True)
        self._arrays.floats(bias * TOP / top)
        for i in (1, 2):
            for j in (0, 1):
                top, mean, deviation = self._residual(f"head.layer{i}.{j}", top, mean, deviation)
        kernel, bias, mean, deviation = self._convolution("head.conv2", "head.bn2")
        last_top = _top(mean, deviation)
        self._arrays.layer(kernel * np.tile(top / TOP, 9), bias, TOP / last_top)
        return last_top

    def _residual(self, name: str, top: Array, mean: Array, deviation: Array) -> tuple[Array, Array, Array]:
        """Pack a block of two layers, whose input has these channels; returns the same of its output."""
        kernel, bias, inner_mean, inner_deviation = self._convolution(f"{name}.conv1", f"{name}.bn1")
        inner_top = _top(inner_mean, inner_deviation)
        self._arrays.layer(kernel * np.tile(top / TOP, 9), bias, TOP / inner_top)
        kernel, bias, own_mean, own_deviation = self._convolution(f"{name}.conv2", f"{name}.bn2")
        kernel = kernel * np.tile(inner_top / TOP, 9)
        if f"{name}.shortcut.0.weight" in self._plain.weights:
            beside, shift, mean, deviation = self._convolution(f"{name}.shortcut.0", f"{name}.shortcut.1")
            kernel, bias = np.concatenate([kernel, beside * (top / TOP)], 1), bias + shift
            kept = None
        else:
            mean, kept = mean.clip(0), top / TOP
        mean, deviation = mean + own_mean, np.hypot(deviation, own_deviation)
        new_top = _top(mean, deviation)
        self._arrays.layer(kernel, bias, TOP / new_top)
        if kept is not None:
            self._arrays.floats(kept * TOP / new_top)
        return new_top, mean, deviation

    def _convolution(self, layer: str, norm: str) -> tuple[Array, Array, Array, Array]:
        """Return kernel ``(out, k)``, bias, and the mean and deviation of each channel; k: time, frequency, channel."""
        kernel, bias = self._plain.folded(layer, norm)
        kernel = kernel.permute(0, 3, 2, 1).reshape(len(kernel), -1)
        return array_of(kernel), array_of(bias), *self._spread(norm)

    def _spread(self, norm: str) -> tuple[Array, Array]:
        """Return mean and deviation behind a batch norm."""
        w = self._plain.weights
        deviation = w.get(f"{norm}.weight", w[f"{norm}.running_var"] * 0 + 1).abs()
        return array_of(w.get(f"{norm}.bias", deviation * 0)), array_of(deviation)

    def _blocks(self, top: Array) -> None:
        """Pack the layers over time; `top` stands for the bytes 255 of what they read."""
        norm = "xvector.tdnn.nonlinear.batchnorm"
        kernel, bias = self._plain.folded("xvector.tdnn.linear", norm)  # (128, 320, 5)
        kernel = kernel.view(128, 32, -1, 5).permute(0, 3, 2, 1).reshape(128, -1)  # five frames, frequency, channel
        low, step = self._range("xvector.transit1.nonlinear.batchnorm")
        new = slice(0, 128)
        self._arrays.layer(
            array_of(kernel) * np.tile(top / TOP, 50), array_of(bias), 1 / step[new], -low[new] / step[new]
        )
        self._arrays.floats(-low[new] / step[new])
        for number, (n_layers, _) in enumerate(BLOCKS, 1):
            transit = f"xvector.transit{number}"
            for i in range(n_layers):
                self._gated(f"xvector.block{number}.tdnnd{i + 1}", low, step)
            matrix = array_of(self._plain.weights[f"{transit}.linear.weight"][:, :, 0])
            folded, bias_of = self._clamped(f"{transit}.nonlinear.batchnorm", low, step, matrix)
            if number < len(BLOCKS):
                low, step = self._range(f"xvector.transit{number + 1}.nonlinear.batchnorm")
                new = slice(0, len(matrix))
                self._arrays.layer(folded, bias_of, 1 / step[new], -low[new] / step[new], zero=MIDDLE)
            else:
                scale, shift = map(array_of, self._plain.norm("xvector.out_nonlinear.batchnorm"))
                self._arrays.layer(folded, bias_of, scale, shift, zero=MIDDLE)

    def _range(self, norm: str) -> tuple[Array, Array]:
        """Return what the byte 0 stands for, and one more, of each channel that a batch norm reads."""
        w = self._plain.weights
        mean, deviation = array_of(w[f"{norm}.running_mean"]), np.sqrt(array_of(w[f"{norm}.running_var"]))
        return mean - DEVIATIONS * deviation, DEVIATIONS * deviation / MIDDLE

    def _clamped(self, norm: str, low: Array, step: Array, matrix: Array) -> tuple[Array, Array]:
        """Pack a batch norm and a rectifier as limits of bytes; returns the layer behind, of bytes less `MIDDLE`."""
        scale, shift = map(array_of, self._plain.norm(norm))
        low, step = low[: len(scale)], step[: len(scale)]
        threshold = np.rint((-shift / scale - low) / step).clip(0, TOP)
        self._arrays.bytes(np.where(scale > 0, threshold, 0))
        self._arrays.bytes(np.where(scale > 0, TOP, threshold))
        return matrix * (scale * step), matrix @ (scale * (low + MIDDLE * step) + shift)

    def _gated(self, name: str, low: Array, step: Array) -> None:
        norm = f"{name}.nonlinear2.batchnorm"
        matrix, bias = self._plain.folded(f"{name}.linear1", norm)
        size = matrix.shape[1]
        folded, bias_of = self._clamped(f"{name}.nonlinear1.batchnorm", low, step, array_of(matrix[:, :, 0]))
        inner_top = _top(*self._spread(norm))
        self._arrays.layer(folded, bias_of + array_of(bias), TOP / inner_top, zero=MIDDLE)
        cam = f"{name}.cam_layer"
        taps = self._plain.weights[f"{cam}.linear_local.weight"].permute(0, 2, 1).reshape(32, -1)
        new = slice(size, size + 32)
        self._arrays.layer(
            array_of(taps) * np.tile(inner_top / TOP, 3), np.zeros(32), 1 / step[new], -low[new] / step[new]
        )
        self._arrays.floats(2 * inner_top / TOP)
        for k in ("linear1", "linear2"):
            self._arrays.floats(array_of(self._plain.weights[f"{cam}.{k}.weight"][:, :, 0]), transposed=True)
            self._arrays.floats(array_of(self._plain.weights[f"{cam}.{k}.bias"]))


def packed(plain: VoiceEncoder) -> PackedEncoder | None:
    """Return the network in int8; None where the kernels of this processor have none."""
    library = kernels.load()
    encoder = PackedEncoder(library, plain) if library is not None else None
    return encoder if encoder is not None and encoder.is_there else None


def _top(mean: Array, deviation: Array) -> Array:
    """Return what the byte 255 stands for, behind a rectifier."""
    top: Array = np.maximum(mean + RECTIFIED_DEVIATIONS * deviation, 1e-3)
    return top
