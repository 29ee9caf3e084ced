"""The log-mel spectrogram of one recording, of any length, given out window by window.

What it gives is equal, to the bit, to ``log_mel_spectrogram(source, n_mels, padding=N_SAMPLES)``, whose level is set by
the loudest place of the whole recording. So all of it is decoded before the first window: a short recording is then
held as a spectrogram; of a long one only its samples (in a `Spool`), its level and one loudness per frame are kept, and
its frames are computed again where they are asked for. Knows no model, and changes no samples.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import audio, compat
from ..audio import N_FFT, Array, Source
from ..device import processes
from ..device.lazy_torch import Tensor, torch
from ..device.torch_state import clean_state
from ..media import reader
from ..media.bad_samples import Mending, zeroed
from ..media.sources import is_standard_input
from ..media.spool import Spool
from ..spans import HOP_LENGTH, N_FRAMES, N_SAMPLES, SAMPLE_RATE
from ..utils import cached_property
from . import log_mel

if TYPE_CHECKING:
    from .pauses import Loudness

HELD = 600 * SAMPLE_RATE  # samples: up to 10 minutes, whose spectrogram takes 19 MB, one pass is enough
KEPT_BLOCKS = 64  # of a long recording, 20 MB with 80 bands: a window needs 4, and several are read side by side

Load = Callable[..., Any]
_load_audio, _log_mel_spectrogram = audio.load_audio, audio.log_mel_spectrogram


class Features:
    """The log-mel spectrogram of one recording; `of` makes it. Threads may share it.

    Attributes
    ----------
    n_frames
        Frames of 10 ms that the recording has. `N_FRAMES` frames of silence follow.
    n_mels
        Bands.
    """

    n_frames: int
    n_mels: int
    _sound: _Samples

    def __init__(self) -> None:
        self._lock = processes.lock()

    @staticmethod
    def of(
        source: Source,
        n_mels: int,
        *,
        load_audio: Load = _load_audio,
        log_mel_spectrogram: Load | None = None,
        audio_track: int | str | None = None,
        container_time: bool = False,
        plain: bool = False,
    ) -> Features:
        """Read a recording.

        Parameters
        ----------
        source
            Whatever `load_audio` reads; an array has 16 kHz, and a long one is read again with every window, so it
            must not change until the last.
        n_mels
            Bands: 80 or 128.
        load_audio
            What the caller knows under this name; mixes the channels of an array.
        log_mel_spectrogram
            What a program has put in the place of ours: it makes the whole spectrogram, which is then held. So it is,
            too, where a program has replaced `audio.load_audio`.
        audio_track, container_time
            Of a file; see `load_audio`.
        plain
            Compute by NumPy, and give arrays in the place of tensors, for a file.

        Raises
        ------
        AudioError
            The sound cannot be read, or is mostly not finite.
        OptionError
            A file has no such track, or the track of an array is asked for.

        Warns
        -----
        RuntimeWarning
            What `load_audio` warns of; or a long recording finds no place on disk.
        """
        reading = Features.reading(
            source, n_mels, load_audio=load_audio, log_mel_spectrogram=log_mel_spectrogram,
            audio_track=audio_track, container_time=container_time, plain=plain,
        )  # fmt: skip
        try:
            while True:
                next(reading)
        except StopIteration as done:
            features: Features = done.value
            return features

    @staticmethod
    def reading(
        source: Source,
        n_mels: int,
        *,
        load_audio: Load = _load_audio,
        log_mel_spectrogram: Load | None = None,
        audio_track: int | str | None = None,
        container_time: bool = False,
        plain: bool = False,
    ) -> Generator[float, None, Features]:
        """Read a recording like `of`, in steps of a few milliseconds, so that others can work in between.

        Yields how many seconds of it have been read, every few seconds of sound; returns the features. Three hours
        take some ten seconds. May be closed at any step.
        """
        if isinstance(source, (np.ndarray, Tensor)):
            audio.refuse_for_arrays(audio_track, container_time)
        if getattr(source, "ndim", 1) != 1:
            source = load_audio(source)  # channels are mixed; a spectrogram would take them for a batch
        make_spectrogram = log_mel_spectrogram or _log_mel_spectrogram
        if log_mel_spectrogram is not None or compat.replaced("audio.load_audio"):
            chosen: dict[str, Any] = {} if audio_track is None else {"audio_track": audio_track}
            chosen |= {"container_time": True} if container_time else {}
            if chosen or is_standard_input(source):  # of which a spectrogram's function knows nothing; read but once
                source = audio.load_audio(source, **chosen)
            return HeldFeatures(make_spectrogram(source, n_mels, padding=N_SAMPLES), source)
        samples: Array | _Samples
        if isinstance(source, (np.ndarray, Tensor)):
            samples = _ArraySamples(source) if len(source) > HELD else _finite(source)
        else:
            samples = yield from _decoding(source, audio_track, container_time, plain)
            if plain and isinstance(samples, np.ndarray):
                return HeldFeatures(log_mel.log_mel_spectrogram(samples, n_mels, N_SAMPLES), samples)
            if isinstance(samples, _FileSamples) and plain:
                return (yield from PlainStreamedFeatures.surveying(samples, n_mels))
        if isinstance(samples, (np.ndarray, Tensor)):
            return HeldFeatures(make_spectrogram(samples, n_mels, padding=N_SAMPLES), samples)
        return (yield from StreamedFeatures.surveying(samples, n_mels))

    def window(self, seek: int, size: int) -> Any:
        """Frames `seek` to ``seek + size``, float32 ``(n_mels, size)``, where the samples are (files: on the CPU).

        Fewer where not even the silence behind the recording reaches so far. Not to be written into. A tensor, or, of
        features that were made `plain`, an array.
        """
        raise NotImplementedError

    def opening(self) -> Any:
        """The first 30 seconds, ``(n_mels, 3000)``; of a shorter recording with what silence follows it."""
        return self.window(0, N_FRAMES)

    def loudness(self) -> Loudness:
        """Mean over the bands of each frame's power in decibels, shape ``(n_frames,)``, for `pauses`."""
        raise NotImplementedError

    @property
    def n_samples(self) -> int:
        """Samples at 16 kHz that the recording has."""
        return self._sound.n_samples

    def samples(self, begin: int, end: int) -> audio.Samples:
        """Samples `begin` to `end` of the recording, at 16 kHz, float32 ``(n,)``; fewer where it ends before."""
        with self._lock:
            read = self._sound.read(begin, max(begin, end))[0]
            samples: audio.Samples = read.cpu().numpy() if isinstance(read, Tensor) else read
        return samples


class HeldFeatures(Features):
    """A spectrogram in memory, ``(n_mels, n_frames + N_FRAMES)``, and what it was made of."""

    def __init__(self, mel: Any, source: Source) -> None:
        super().__init__()
        self._source = source
        self.mel = mel
        self.n_mels = mel.shape[0]
        self.n_frames = mel.shape[1] - N_FRAMES

    def window(self, seek: int, size: int) -> Any:
        """See `Features.window`."""
        return self.mel[:, seek : seek + size]

    def loudness(self) -> Loudness:
        """See `Features.loudness`."""
        return _decibels(self.mel[:, : self.n_frames] * 4.0 - 4.0)

    @cached_property
    def _sound(self) -> _Samples:  # type: ignore[override]
        # only when asked for: a function that a program has put in may have read what `load_audio` does not
        source = self._source
        return _ArraySamples(source if isinstance(source, (np.ndarray, Tensor)) else audio.load_audio(source))


class StreamedFeatures(Features):
    """A spectrogram computed in blocks where it is asked for, after a first pass has found its level."""

    def __init__(self, samples: _Samples, n_mels: int) -> None:
        super().__init__()
        self.n_mels = n_mels
        self._sound = samples
        self._loudness: list[Loudness] = []  # of each block
        self._blocks: OrderedDict[int, Any] = OrderedDict()  # the last ones used, the latest at the end
        self._begin()

    def _begin(self) -> None:
        self._filters: Any = audio.mel_filters(self._sound.device, self.n_mels)
        self._loudest: Any = torch.full((), -torch.inf, dtype=torch.float32, device=self._sound.device)

    @classmethod
    def surveying(cls, samples: _Samples, n_mels: int) -> Generator[float, None, StreamedFeatures]:
        """Make the first pass over samples as they arrive; yields the seconds that have, returns the features."""
        self = cls(samples, n_mels)
        n = audio.BLOCK_FRAMES
        for n_ready in samples.arrivals():
            yield n_ready / SAMPLE_RATE
            while n_ready >= ((len(self._loudness) + 1) * n - 1) * HOP_LENGTH + N_FFT // 2:
                self._look_at_next_block()
        while len(self._loudness) * n < (samples.n_samples + N_SAMPLES) // HOP_LENGTH:
            self._look_at_next_block()  # also of the silence behind the end
        self.n_frames = samples.n_samples // HOP_LENGTH
        return self

    def window(self, seek: int, size: int) -> Any:
        """See `Features.window`."""
        stop = min(seek + size, self.n_frames + N_FRAMES)
        n = audio.BLOCK_FRAMES
        with self._lock:
            pieces = [
                self._block(i)[:, max(seek - i * n, 0) : stop - i * n] for i in range(seek // n, (stop - 1) // n + 1)
            ]
        return self._joined(pieces) if pieces else self._block(0)[:, :0]

    def loudness(self) -> Loudness:
        """See `Features.loudness`."""
        return np.concatenate(self._loudness)[: self.n_frames]

    def _look_at_next_block(self) -> None:
        power = self._log_power(len(self._loudness))
        self._loudness.append(_decibels(power))
        self._loudest = max(self._loudest, power.max())

    def _log_power(self, block: int) -> Any:
        """One block, ``(n_mels, n)``, cut as `log_mel_spectrogram` cuts it, as other cuts could round otherwise."""
        total = self._sound.n_samples + N_SAMPLES
        start = block * audio.BLOCK_FRAMES
        stop = min(start + audio.BLOCK_FRAMES, total // HOP_LENGTH)
        with clean_state():
            return self._log_power_of(total, start, stop)

    def _block(self, i: int) -> Any:
        """Block `i` at its level, computed anew unless it was used lately."""
        if i not in self._blocks:
            self._blocks[i] = self._leveled(self._log_power(i))
            if len(self._blocks) > KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(i)
        return self._blocks[i]

    def _joined(self, pieces: list[Any]) -> Any:
        return torch.cat(pieces, dim=-1)

    def _log_power_of(self, total: int, start: int, stop: int) -> Any:
        return audio.log_power(self._sound.read, total, start, stop, self._filters)[0]

    def _leveled(self, mel: Any) -> Any:
        return torch.maximum(mel, self._loudest - 8.0, out=mel).add_(4.0).div_(4.0)


class PlainStreamedFeatures(StreamedFeatures):
    """The same by NumPy."""

    def _begin(self) -> None:
        self._filters = log_mel.filters(self.n_mels)
        self._loudest = np.float32(-np.inf)

    def _joined(self, pieces: list[Any]) -> Any:
        return np.concatenate(pieces, axis=-1)

    def _log_power_of(self, total: int, start: int, stop: int) -> Any:
        return log_mel.log_power(lambda begin, end: self._sound.read(begin, end)[0], total, start, stop, self._filters)

    def _leveled(self, mel: Any) -> Any:
        return log_mel.leveled(mel, self._loudest)


class _Samples(Protocol):
    """Samples that may still be arriving, and can be read anywhere."""

    @property
    def device(self) -> torch.device: ...

    n_samples: int  # so far

    def arrivals(self) -> Iterator[int]:
        """Let all samples come; yields how many there are whenever there are more."""
        ...

    def read(self, begin: int, end: int) -> Any:
        """Samples `begin` to `end`, float32 ``(1, n)``, fewer where there are not so many: a tensor or an array."""
        ...


class _FileSamples:
    """The samples of a file, as they are decoded."""

    def __init__(self, pieces: Iterator[reader.Samples], plain: bool) -> None:
        self.n_samples = 0
        self._plain = plain
        self._pieces = pieces
        self._spool = Spool()

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def arrivals(self) -> Iterator[int]:
        for piece in self._pieces:
            self._spool.append(piece)
            self.n_samples += len(piece)
            yield self.n_samples
        self._pieces = iter(())

    def read(self, begin: int, end: int) -> Any:
        scaled = _scaled(np.frombuffer(self._spool.read(2 * begin, 2 * (end - begin)), np.int16))[None]
        return scaled if self._plain else torch.from_numpy(scaled)


class _ArraySamples:
    """The samples of an array, turned into float32 where they are read."""

    def __init__(self, array: Array) -> None:
        self._array = array.detach() if isinstance(array, Tensor) else array
        self.device = audio.float32_samples(self._array[:0]).device
        self.n_samples = len(array)

    def arrivals(self) -> Iterator[int]:
        mending = Mending(rate=SAMPLE_RATE)  # counts what `read` leaves out
        for begin in range(0, self.n_samples, N_SAMPLES):
            end = min(begin + N_SAMPLES, self.n_samples)
            mending(audio.float32_samples(self._array[begin:end]))
            yield end
        mending.close()

    def read(self, begin: int, end: int) -> Tensor:
        samples: Tensor = zeroed(audio.float32_samples(self._array[begin:end]))
        return samples[None]


def _finite(array: Array) -> Array:
    """The samples, told and with zeros where there are some that are no sound."""
    samples = audio.float32_samples(array)
    finite: Tensor = audio.mended(samples)
    return array if finite is samples else finite


def _decoding(
    source: reader.Source, audio_track: int | str | None, container_time: bool, plain: bool
) -> Generator[float, None, Array | _FileSamples]:
    """Decode a file: to all of its samples where they are few, else to a reader of them."""
    pieces = reader.stream(source, SAMPLE_RATE, audio_track=audio_track, container_time=container_time)
    first: list[reader.Samples] = []
    n_samples = 0
    for piece in pieces:
        first.append(piece)
        n_samples += len(piece)
        if n_samples > HELD:
            return _FileSamples(chain(first, pieces), plain)
        yield n_samples / SAMPLE_RATE
    scaled = _scaled(np.concatenate([np.zeros(0, np.int16), *first]))
    return scaled if plain else torch.from_numpy(scaled)


def _scaled(samples: reader.Samples) -> audio.Samples:
    """16-bit samples as `load_audio` gives them, ``(n_samples,)``."""
    scaled = samples.astype(np.float32)
    scaled /= 32768.0
    return scaled


def _decibels(log_power: Any) -> Loudness:
    """Mean over the bands, ``(n_mels, n)`` -> ``(n,)``: a hum in one of them does not hide a pause."""
    if not isinstance(log_power, Tensor):
        decibels: Loudness = (log_power.mean(axis=0) * 10.0).astype(np.float32)
        return decibels
    loudness: Loudness = (log_power.detach().mean(dim=0) * 10.0).cpu().numpy().astype(np.float32)
    return loudness
