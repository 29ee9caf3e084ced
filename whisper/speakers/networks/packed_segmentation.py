"""The segmentation network in integers, for the compiled kernels: packed as `src/segmentation.h` reads it.

What the convolutions read has 16 bits, and what the LSTM reads 8: a channel behind an instance norm from so many
standard deviations below its mean to as many above, a state from -1 to 1. Scales and zero points are folded into
the layer that reads them.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import get_num_threads

from ...device.torch_state import clean_state
from ...runtime.native import kernels
from ...runtime.native.pointers import address
from .packed_arrays import LARGEST_WORD, TOP, Array, PackedNetwork, array_of
from .segmentation import LAYERS, UNITS, n_frames_of, sinc_filters

if TYPE_CHECKING:
    from .weights import Weights

WORD_DEVIATIONS, BYTE_DEVIATIONS = 32.0, 8.0  # of a channel, to both sides of its mean: the rest is cut off
SLOPE = 0.01  # of the rectifier below 0
STATE, MIDDLE = 127.0, 128.0  # a state of 1, and what is added to make bytes of states
LEAST_FRAMES = 2  # of a window: the kernels pool so many at once
CHANNELS, CLASSES, LANES = 64, 7, 16  # channels behind a convolution, rounded up; columns of a vector


class PackedSegmentation(PackedNetwork):
    """Computes what `Segmentation.classes` does; `packed` returns one where the kernels have it.

    Parameters
    ----------
    library
        The kernels.
    weights_by_name
        By their names in the original.
    """

    def __init__(self, library: ctypes.CDLL, weights_by_name: Weights) -> None:
        super().__init__(library, "segmentation")
        with clean_state():
            w = {name: array_of(tensor) for name, tensor in weights_by_name.items()}
            self._arrays.floats(np.concatenate([w["sincnet.wav_norm1d.weight"], w["sincnet.wav_norm1d.bias"]]))
            prefix = "sincnet.conv1d.0.filterbank."
            filters = sinc_filters(weights_by_name[prefix + "low_hz_"], weights_by_name[prefix + "band_hz_"])
            self._arrays.words(np.pad(array_of(filters), ((0, 0), (0, 1))))
        step = self._word_norm(w, 0)
        for i in (1, 2):
            kernel = (w[f"sincnet.conv1d.{i}.weight"] * step[:, None]).transpose(0, 2, 1)  # (out, 5, in)
            kernel = np.pad(kernel, ((0, CHANNELS - len(kernel)), (0, 0), (0, -kernel.shape[2] % LANES)))
            self._arrays.words(kernel.reshape(CHANNELS, -1))
            step, zero = (self._word_norm(w, 1), np.zeros(0)) if i == 1 else self._byte_norm(w, 2)
        for layer in range(LAYERS):
            for suffix in ("", "_reverse"):
                self._recurrent(w, f"l{layer}{suffix}", step, zero)
            step, zero = np.full(2 * UNITS, 1 / STATE), np.full(2 * UNITS, MIDDLE)
        self._arrays.layer(w["linear.0.weight"] / STATE, w["linear.0.bias"], zero=MIDDLE)
        self._arrays.floats(w["linear.1.weight"], transposed=True)
        self._arrays.floats(w["linear.1.bias"])
        self._arrays.floats(np.pad(w["classifier.weight"], ((0, LANES - CLASSES), (0, 0))), transposed=True)
        self._arrays.floats(np.pad(w["classifier.bias"], (0, LANES - CLASSES)))
        self._make()

    def classes(self, samples: npt.NDArray[np.float32], starts: list[int], n_samples: int) -> npt.NDArray[np.uint8]:
        """Return the likeliest class of each frame of some windows; see `Segmentation.classes`."""
        if min(starts) < 0 or max(starts) + n_samples > len(samples):
            raise ValueError("a window lies outside of the sound")
        if n_frames_of(n_samples) < LEAST_FRAMES:
            raise ValueError(f"a window of {n_samples} samples is too short")
        first = np.array(starts, np.int64)
        found = np.empty((len(starts), n_frames_of(n_samples)), np.uint8)
        status = self._library.sotto_segment(
            self._network, address(samples, np.float32, len(samples), "the sound"), first.ctypes.data, len(starts),
            n_samples, address(found, np.uint8, found.size, "classes"), get_num_threads(),
        )  # fmt: skip
        if status:
            raise MemoryError("no memory is left for the speakers of a recording")
        return found

    # -----------------------------------------------------------------------------------------------------
    # Packing, in the order in which segmentation.h takes the arrays
    # -----------------------------------------------------------------------------------------------------

    def _word_norm(self, w: dict[str, Array], i: int) -> Array:
        """Pack an instance norm whose result has 16 bits; returns what one of each channel stands for."""
        gain, offset = w[f"sincnet.norm1d.{i}.weight"], w[f"sincnet.norm1d.{i}.bias"]
        step = (np.abs(offset) + WORD_DEVIATIONS * np.abs(gain)) / LARGEST_WORD
        self._norm(gain / step, offset / step, np.zeros_like(step))
        return step

    def _byte_norm(self, w: dict[str, Array], i: int) -> tuple[Array, Array]:
        """Pack one whose result has 8 bits; returns what a step of each channel is, and the byte that stands for 0."""
        gain, offset = w[f"sincnet.norm1d.{i}.weight"], w[f"sincnet.norm1d.{i}.bias"]
        spread = BYTE_DEVIATIONS * np.abs(gain)
        low = SLOPE * np.minimum(offset - spread, 0)
        step = (np.maximum(offset + spread, 1e-6) - low) / TOP
        self._norm(gain / step, offset / step, low / step)
        return step, -low / step

    def _norm(self, gain: Array, offset: Array, low: Array) -> None:
        for numbers in (gain, offset, low):
            self._arrays.floats(np.pad(numbers, (0, -len(numbers) % LANES)))

    def _recurrent(self, w: dict[str, Array], name: str, step: Array, zero: Array) -> None:
        """Pack a direction of a layer: input and state one behind the other, gates as `Segmentation::step` has them."""
        of_input, of_state = w[f"lstm.weight_ih_{name}"] * step, w[f"lstm.weight_hh_{name}"] / STATE
        missing = -len(step) % CHANNELS
        matrix = np.concatenate([np.pad(of_input, ((0, 0), (0, missing))), of_state], 1)
        zeros = np.concatenate([np.pad(zero, (0, missing)), np.full(UNITS, MIDDLE)])
        order = np.arange(4 * UNITS).reshape(4, -1, LANES).transpose(1, 0, 2).ravel()
        bias = w[f"lstm.bias_ih_{name}"] + w[f"lstm.bias_hh_{name}"]
        self._arrays.layer(matrix[order], bias[order], zero=zeros)


def packed(weights_by_name: Weights) -> PackedSegmentation | None:
    """Return the network in integers; None where the kernels of this processor have none."""
    library = kernels.load()
    network = PackedSegmentation(library, weights_by_name) if library is not None else None
    return network if network is not None and network.is_there else None
