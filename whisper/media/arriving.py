"""Sound that is still arriving: the codecs of telephones, and another sampling rate, piece by piece as if in one."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

Samples: TypeAlias = "np.ndarray[Any, np.dtype[np.int16]]"

PCM, ULAW, ALAW = "pcm", "ulaw", "alaw"
_CODECS = {ULAW: "pcm_mulaw", ALAW: "pcm_alaw"}  # FFmpeg's names of G.711


class Resampler:
    """Brings one channel from `rate` to `new_rate` hertz; where its pieces are cut changes nothing.

    The filter looks ahead by about a millisecond, so that the newest sound stays inside until more comes, or `finish`.
    """

    def __init__(self, rate: int, new_rate: int) -> None:
        self.rate, self.new_rate = rate, new_rate
        self._filter: Any = None

    def push(self, samples: Samples) -> Samples:
        """Take in the next samples, and return what is ready."""
        import av

        if self.rate == self.new_rate or not len(samples):
            return samples
        if self._filter is None:
            self._filter = av.AudioResampler(format="s16", layout="mono", rate=self.new_rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
        frame.sample_rate = self.rate
        return _joined(self._filter.resample(frame))

    def finish(self) -> Samples:
        """Return the rest; what comes next is other sound."""
        rest = _joined(self._filter.resample(None)) if self._filter is not None else _joined([])
        self._filter = None
        return rest


class Decoder:
    """Bytes of raw sound, cut anywhere, as samples at one rate.

    Parameters
    ----------
    encoding
        ``pcm`` for 16-bit little-endian numbers, ``ulaw`` or ``alaw`` for G.711; one channel.
    rate
        Of the bytes, in hertz.
    new_rate
        Of the samples.
    """

    def __init__(self, encoding: str, rate: int, new_rate: int) -> None:
        self._table = None if encoding == PCM else _table(encoding)
        self._resampler = Resampler(rate, new_rate)
        self._half = b""  # of a number of two bytes

    def push(self, data: bytes) -> Samples:
        """Take in the next bytes, and return the samples that are ready."""
        if self._table is not None:
            return self._resampler.push(self._table[np.frombuffer(data, np.uint8)])
        data = self._half + data
        whole = len(data) // 2 * 2
        self._half = data[whole:]
        return self._resampler.push(np.frombuffer(data, "<i2", whole // 2).astype(np.int16))

    def finish(self) -> Samples:
        """Return the rest; what comes next is other sound."""
        self._half = b""
        return self._resampler.finish()


def _joined(frames: list[AudioFrame]) -> Samples:
    return np.concatenate([np.zeros(0, np.int16), *(frame.to_ndarray()[0] for frame in frames)])


@functools.cache
def _table(encoding: str) -> Samples:
    """Return the sample that each of the 256 bytes stands for."""
    import av

    codec: Any = av.CodecContext.create(_CODECS[encoding], "r")
    codec.sample_rate, codec.layout = 8000, "mono"
    return _joined(codec.decode(av.Packet(bytes(range(256)))))
