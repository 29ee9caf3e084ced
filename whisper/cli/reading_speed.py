"""How fast this machine reads with a model: measured once on a window of noise and kept, or worked out from another's.

A window is encoded and 100 tokens are decoded, which is what half a minute of brisk speech takes. For models that were
not measured, the time of the encoder is scaled by its multiplications and that of a token by the decoder's weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ..checkpoints.cache import keep_record, read_record
from ..checkpoints.finding import names
from ..device import hardware
from ..device.precision import resolve
from ..version import __release__

if TYPE_CHECKING:
    from ..model import ModelDimensions, Whisper

FILE = "speeds.json"  # in the cache folder
N_TOKENS = 100  # of a window
WINDOW_S = 30.0


@dataclass(frozen=True)
class Times:
    """What one window of 30 s takes, in seconds."""

    encoder: float  # with the first token
    token: float  # each further one

    @property
    def times_real_time(self) -> float:
        """How many seconds of speech are read in one second."""
        return WINDOW_S / (self.encoder + N_TOKENS * self.token)


def setting() -> str:
    """Return what the speed depends on beside the model: processor or GPU, precision, threads, release."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else hardware.processor_name()
    n_threads = torch.get_num_threads()
    threads = "" if device == "cuda" else f", {n_threads} thread{'s' if n_threads > 1 else ''}"
    return f"{where}, {resolve('auto', device)}{threads}, sotto {__release__}"


def kept() -> dict[str, Times]:
    """Return the times that were measured in this setting before, by model."""
    found = {}
    for name, times in _kept_here().items():
        with suppress(TypeError):  # written by another release
            found[name] = Times(**times)
    return found


def keep(name: str, times: Times) -> None:
    """Keep what was measured."""
    keep_record(FILE, {**read_record(FILE), setting(): {**_kept_here(), name: asdict(times)}})


def _kept_here() -> dict[str, dict[str, float]]:
    found = read_record(FILE).get(setting())
    return found if isinstance(found, dict) else {}


def measure(model: Whisper) -> Times:
    """Time a window: the better of two, after one that packs the weights."""
    import numpy as np

    from ..audio import N_SAMPLES, log_mel_spectrogram
    from ..decoding import DecodingOptions, decode
    from ..tokenizer import get_tokenizer

    noise = np.random.default_rng(0).standard_normal(N_SAMPLES).astype(np.float32) * 0.01
    mel = log_mel_spectrogram(noise, model.dims.n_mels)
    end = get_tokenizer(model.is_multilingual, num_languages=model.num_languages).eot

    def seconds(n_tokens: int) -> float:
        options = DecodingOptions(
            language="en", without_timestamps=True, sample_len=n_tokens, suppress_tokens=[-1, end], temperature=0.0
        )
        start = time.perf_counter()
        decode(model, mel, options)
        return time.perf_counter() - start

    seconds(2)
    first = min(seconds(1) for _ in range(2))
    whole = min(seconds(1 + N_TOKENS) for _ in range(2))
    return Times(first, max(whole - first, 1e-6) / N_TOKENS)


def estimate(name: str, measured: dict[str, Times]) -> Times | None:
    """Work out the times of a model from those of the one that was measured and is nearest in size."""
    known = {other: times for other, times in measured.items() if other in names.known()}
    if not known:
        return None
    size = names.n_parameters(name)
    nearest = min(known, key=lambda other: abs(names.n_parameters(other) / size - 1))
    of, to = names.dimensions(nearest), names.dimensions(name)
    times = known[nearest]
    return Times(times.encoder * _encoder_work(to) / _encoder_work(of), times.token * _token_work(to) / _token_work(of))


def _encoder_work(dims: ModelDimensions) -> int:
    """Return the multiplications of a window, its convolutions left out."""
    width, frames = dims.n_audio_state, dims.n_audio_ctx
    return dims.n_audio_layer * frames * width * (12 * width + 2 * frames)


def _token_work(dims: ModelDimensions) -> int:
    """Return the weights that a token reads: those of the layers, and the table of tokens."""
    width = dims.n_text_state
    return dims.n_text_layer * 14 * width * width + dims.n_vocab * width


def first_to_measure(on_this_machine: Iterable[str]) -> str | None:
    """Choose a model from which the others are worked out: the largest that is measured in a few seconds."""
    small = [name for name in on_this_machine if names.n_parameters(name) < 100_000_000]
    return max(small, key=names.n_parameters, default=None)
