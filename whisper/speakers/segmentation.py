"""Local speakers: which of up to three voices speak in each 17 ms of a window of 10 s, by pyannote's segmentation-3.0.

The network (PyanNet: Bredin and Laurent 2021, arXiv:2104.04045; Plaquet and Bredin 2023, arXiv:2310.13025) is written
anew from the description of its layers. Its local speakers have no identity beyond their window. The first layer is
computed once for windows that overlap: each window only scales and shifts its output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..device.torch_state import clean_state
from ..spans import SAMPLE_RATE
from . import weights

if TYPE_CHECKING:
    from .weights import Weights

HOP = 270  # samples from one frame to the next
RECEPTIVE = 991  # samples that one frame sees
WINDOW = 160_000  # samples of a whole window: 10 s
N_FRAMES = 1 + (WINDOW - RECEPTIVE) // HOP  # 589
MOST_LOCAL = 3  # speakers in a window

# which local speakers each of the seven classes stands for
CLASSES: npt.NDArray[np.bool_] = np.array(
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], np.bool_
)

TAPS, STRIDE = 251, 10  # of the filters
HALF = TAPS // 2
MIN_LOW_HZ = MIN_BAND_HZ = 50.0
UNITS, LAYERS = 128, 4  # of the LSTM
EPSILON = 1e-5
POOLED = 3 * STRIDE  # samples from one value of the first layer to the next


def frame_time(frame: float) -> float:
    """Return where a frame begins, in seconds; it is taken to end where the next one begins."""
    return max(0.0, (RECEPTIVE / 2 + (frame - 0.5) * HOP) / SAMPLE_RATE)


def n_frames_of(n_samples: int) -> int:
    """Return the number of frames of so many samples."""
    return max(0, 1 + (n_samples - RECEPTIVE) // HOP)


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """What the windows of a stretch of sound share: the filtered sound, pooled."""

    samples: Tensor  # (n_samples,)
    highest: Tensor  # (80, n_samples // 30), of three values each
    lowest: Tensor


class Segmentation:
    """The network; `network` returns the one of this process.

    Parameters
    ----------
    weights
        By their names in the original.
    dtype
        Precision of the recurrent layers.
    """

    def __init__(self, weights_by_name: Weights, dtype: torch.dtype) -> None:
        self._w, self._dtype = weights_by_name, dtype
        with clean_state():
            w = weights_by_name
            prefix = "sincnet.conv1d.0.filterbank."
            filters = sinc_filters(w[prefix + "low_hz_"], w[prefix + "band_hz_"])  # (80, 251)
            self._sums = filters.sum(1)
            # ten samples side by side are ten channels: the same sums, in a shape that computes 5 times as fast
            padded = F.pad(filters, (0, -TAPS % STRIDE))
            self._filters = padded.view(len(filters), -1, STRIDE).transpose(1, 2).contiguous()  # (80, 10, 26)
            self._recurrent = weights.recurrent_weights(w, LAYERS, 2, dtype)

    @clean_state()
    def first_layer(self, samples: npt.NDArray[np.float32]) -> FirstLayer:
        """Filter a stretch of sound, which all windows in it share: ``(n_samples,)``, at least 991."""
        x = torch.from_numpy(samples)
        n_frames = (len(samples) - TAPS) // STRIDE + 1
        highest, lowest = [], []
        for start in range(0, n_frames, 3 * 5000):  # pieces that stay in the processor's cache
            stop = min(start + 3 * 5000, n_frames)
            piece = x[start * STRIDE : (stop - 1) * STRIDE + TAPS]
            columns = F.pad(piece, (0, -len(piece) % STRIDE)).view(-1, STRIDE).T  # (10, n)
            filtered = F.conv1d(columns[None], self._filters)[:, :, : stop - start]
            highest.append(F.max_pool1d(filtered, 3)[0])
            lowest.append(F.max_pool1d(filtered.neg_(), 3)[0].neg_())
        return FirstLayer(x, torch.cat(highest, 1), torch.cat(lowest, 1))

    @clean_state()
    def classes(self, first: FirstLayer, starts: list[int], n_samples: int) -> npt.NDArray[np.uint8]:
        """Return the likeliest class of each frame of some windows.

        Parameters
        ----------
        first
            The stretch of sound that they lie in.
        starts
            First sample of each window in it, multiples of `HOP`.
        n_samples
            Of each window; `WINDOW`, or fewer for a recording that is shorter.

        Returns
        -------
        Indices into `CLASSES`, uint8 ``(n_windows, n_frames_of(n_samples))``.
        """
        x = torch.cat([self._normalized(first, start, n_samples) for start in starts])  # (n, 80, 5325)
        x = F.leaky_relu(self._instance_norm(x, 0))
        for i in (1, 2):
            name = f"sincnet.conv1d.{i}"
            x = F.max_pool1d(F.conv1d(x, self._w[f"{name}.weight"], self._w[f"{name}.bias"]), 3)
            x = F.leaky_relu(self._instance_norm(x, i))  # (n, 60, 1773), then (n, 60, 589)
        x = x.transpose(1, 2).to(self._dtype)
        state = torch.zeros(2 * LAYERS, len(x), UNITS, dtype=self._dtype, device="cpu")
        x = torch.lstm(x, (state, state), self._recurrent, True, LAYERS, 0.0, False, True, True)[0]
        x = x.to(torch.float32)  # (n, 589, 256)
        for name in ("linear.0", "linear.1"):
            x = F.leaky_relu(F.linear(x, self._w[f"{name}.weight"], self._w[f"{name}.bias"]))
        scores = F.linear(x, self._w["classifier.weight"], self._w["classifier.bias"])  # (n, 589, 7)
        return scores.argmax(-1).to(torch.uint8).numpy()

    def _normalized(self, first: FirstLayer, start: int, n_samples: int) -> Tensor:
        """Return what the filters and the first pooling give of one window whose sound is normalized, ``(1, 80, n)``.

        The filters are linear: of ``a x + b`` they give ``a filtered + b sums``, and the highest magnitude of three
        is that of their highest or of their lowest value.
        """
        sound = first.samples[start : start + n_samples]
        scale = self._w["sincnet.wav_norm1d.weight"] / torch.sqrt(sound.var(correction=0) + EPSILON)
        shift = ((self._w["sincnet.wav_norm1d.bias"] - scale * sound.mean()) * self._sums)[:, None]
        n = ((n_samples - TAPS) // STRIDE + 1) // 3
        part = slice(start // POOLED, start // POOLED + n)
        highest, lowest = (scale * edge[:, part] + shift for edge in (first.highest, first.lowest))
        return torch.maximum(highest, lowest.neg_())[None]

    def _instance_norm(self, x: Tensor, i: int) -> Tensor:
        name = f"sincnet.norm1d.{i}"
        return F.instance_norm(x, weight=self._w[f"{name}.weight"], bias=self._w[f"{name}.bias"], eps=EPSILON)


def sinc_filters(low_hz: Tensor, band_hz: Tensor) -> Tensor:
    """Return the band-pass filters, even ones and odd ones, ``(40, 1)`` and ``(40, 1)`` -> ``(80, 251)``.

    Ravanelli and Bengio 2018 (arXiv:1808.00158), with the odd filters of asteroid-filterbanks.
    """
    low = MIN_LOW_HZ + low_hz.abs()
    high = (low + MIN_BAND_HZ + band_hz.abs()).clamp(MIN_LOW_HZ, SAMPLE_RATE / 2)
    band = high - low
    n = 2 * math.pi * torch.arange(-HALF, 0, dtype=torch.float32, device="cpu") / SAMPLE_RATE
    window = torch.hamming_window(TAPS, periodic=False, dtype=torch.float32, device="cpu")[:HALF]
    even = ((high * n).sin() - (low * n).sin()) / (n / 2) * window
    odd = ((low * n).cos() - (high * n).cos()) / (n / 2) * window
    both = [
        torch.cat([even, 2 * band, even.flip(1)], 1),
        torch.cat([odd, torch.zeros_like(band), -odd.flip(1)], 1),
    ]
    return torch.cat([half / (2 * band) for half in both])


@lru_cache(maxsize=1)
def network() -> Segmentation:
    """Return the network of this process; the first call reads its weights."""
    return Segmentation(weights.load("segmentation"), weights.quick_dtype())
