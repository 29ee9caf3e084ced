"""Local speakers: which of up to three voices speak in each 17 ms of a window of 10 s, by pyannote's segmentation-3.0.

The network (PyanNet: Bredin and Laurent 2021, arXiv:2104.04045; Plaquet and Bredin 2023, arXiv:2310.13025) is written
anew from the description of its layers. Its local speakers have no identity beyond their window.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ...device.torch_state import clean_state
from ...spans import SAMPLE_RATE
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

TAPS, STRIDE, POOL = 251, 10, 3  # of the filters, and how many values are pooled after each layer
HALF = TAPS // 2
READ = 272  # samples that `POOL` neighbours of the filters' values read, and one more
MIN_LOW_HZ = MIN_BAND_HZ = 50.0
UNITS, LAYERS = 128, 4  # of the LSTM
EPSILON = 1e-5


def frame_time(frame: float) -> float:
    """Return where a frame begins, in seconds; it is taken to end where the next one begins."""
    return max(0.0, (RECEPTIVE / 2 + (frame - 0.5) * HOP) / SAMPLE_RATE)


def n_frames_of(n_samples: int) -> int:
    """Return the number of frames of so many samples."""
    return max(0, 1 + (n_samples - RECEPTIVE) // HOP)


class Segmentation:
    """The network in PyTorch; `choice.segmentation` returns the one of this process.

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
            w = weights_by_name
            prefix = "sincnet.conv1d.0.filterbank."
            filters = sinc_filters(w[prefix + "low_hz_"], w[prefix + "band_hz_"])  # (80, 251)
            # the values that are pooled stand side by side: one product for the three of them
            moved = [F.pad(filters, (STRIDE * i, READ - TAPS - STRIDE * i)) for i in range(POOL)]
            self._filters = torch.cat(moved).T.to(dtype).contiguous()  # (272, 3 * 80)
            self._convolutions = [self._convolution(f"sincnet.conv1d.{i}") for i in (1, 2)]
            self._recurrent = weights.recurrent_weights(w, LAYERS, 2, dtype)
            self._linear = [
                (w[f"{name}.weight"].to(dtype), w[f"{name}.bias"].to(dtype)) for name in ("linear.0", "linear.1")
            ]

    def _convolution(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a layer over time as one over images of a single row, channels last: that is computed quickly."""
        kernel = self._w[f"{name}.weight"][:, :, None].to(self._dtype)
        return kernel.contiguous(memory_format=torch.channels_last), self._w[f"{name}.bias"].to(self._dtype)

    @clean_state()
    def classes(self, samples: npt.NDArray[np.float32], starts: list[int], n_samples: int) -> npt.NDArray[np.uint8]:
        """Return the likeliest class of each frame of some windows.

        Parameters
        ----------
        samples
            The stretch of sound that they lie in.
        starts
            First sample of each window in it.
        n_samples
            Of each window; `WINDOW`, or fewer for a recording that is shorter, at least `RECEPTIVE`.

        Returns
        -------
        Indices into `CLASSES`, uint8 ``(n_windows, n_frames_of(n_samples))``.
        """
        sound = torch.from_numpy(samples)
        x = torch.stack([self._filtered(sound[start : start + n_samples]) for start in starts])  # (n, 5325, 80)
        x = self._normalized(x, 0)
        for i, (kernel, bias) in enumerate(self._convolutions, 1):
            x = F.conv2d(x.transpose(1, 2)[:, :, None], kernel, bias)[:, :, 0].transpose(1, 2)
            x = self._normalized(_pooled(x), i)  # (n, 1773, 60), then (n, 589, 60)
        state = torch.zeros(2 * LAYERS, len(x), UNITS, dtype=self._dtype, device="cpu")
        x = torch.lstm(x, (state, state), self._recurrent, True, LAYERS, 0.0, False, True, True)[0]
        for weight, bias in self._linear:  # (n, 589, 256), then 128
            x = F.leaky_relu_(F.linear(x, weight, bias))
        scores = F.linear(x.to(torch.float32), self._w["classifier.weight"], self._w["classifier.bias"])
        return scores.argmax(-1).to(torch.uint8).numpy()  # of (n, 589, 7)

    def _filtered(self, sound: Tensor) -> Tensor:
        """Return the highest magnitudes that the filters give of each 30 samples of a window, ``(n, 80)``."""
        variance, mean = torch.var_mean(sound, correction=0)
        scale = self._w["sincnet.wav_norm1d.weight"] / torch.sqrt(variance + EPSILON)
        sound = (sound * scale + (self._w["sincnet.wav_norm1d.bias"] - scale * mean)).to(self._dtype)
        n = ((len(sound) - TAPS) // STRIDE + 1) // POOL
        rows = F.pad(sound, (0, READ)).as_strided((n, READ), (POOL * STRIDE, 1))
        return _pooled((rows @ self._filters).abs_().view(1, n * POOL, -1))[0]

    def _normalized(self, x: Tensor, i: int) -> Tensor:
        """Give each channel of each window the same mean and variance, then the rectifier: ``(n, time, channels)``."""
        x = x - x.mean(1, keepdim=True, dtype=torch.float32).to(x.dtype)  # first: in bfloat16 the rest is of its size
        power = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).square_() / x.shape[1]
        scale = self._w[f"sincnet.norm1d.{i}.weight"] * torch.rsqrt(power + EPSILON)
        return F.leaky_relu_(torch.addcmul(self._w[f"sincnet.norm1d.{i}.bias"].to(x.dtype), x, scale.to(x.dtype)))


def _pooled(x: Tensor) -> Tensor:
    """Return the highest of each three values, ``(n, time, channels)``."""
    n = x.shape[1] // POOL
    return x[:, : n * POOL].reshape(len(x), n, POOL, -1).amax(2)


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
