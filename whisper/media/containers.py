"""Decodes one audio track of a container to frames, through PyAV, and reports what could not be decoded.

Damaged parts are skipped as the ``ffmpeg`` program skips them, reading goes on behind them, and a
warning at the end says how much was lost. Does not mix or resample.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import AudioError
from ..utils import warn_caller
from .bad_samples import Mending
from .container_clock import GAP, ContainerClock
from .sources import Opened, Spans, contents_of
from .tracks import choose
from .unread_data import LEAST, rest_of, resumption, unseen_rest

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

# Containers that state their length, where others estimate it from the bit rate or say nothing.
_EXACT = {"mov,mp4,m4a,3gp,3g2,mj2", "flac", "aiff", "caf", "au"}
_ESTIMATED = ("caf", "pcm")  # from the size of the file, including what follows the sound
_UNSTAMPED = {"mp3", "aac", "loas", "ac3", "eac3", "dts", "amr"}  # their time stamps only count what was read
_FLOATS = ("pcm_f", "wavpack", "mp4als")  # codecs that can hold NaN, which would become a loud click as an integer
_DTYPES: dict[str, Any] = {"flt": np.float32, "fltp": np.float32, "dbl": np.float64, "dblp": np.float64}
_MOST_ERRORS = 100  # consecutive errors of the demuxer before reading stops
_FRUITLESS = 5  # consecutive attempts to resume behind damage without a packet, before reading stops


class Recording:
    """The audio track of an open container that is to be read.

    Parameters
    ----------
    opened
        What the container was opened from.
    container
        PyAV's.
    audio_track
        See `tracks.choose`.
    container_time
        Insert silence where there is no sound according to the time stamps.
    """

    def __init__(
        self, opened: Opened, container: Any, audio_track: int | str | None = None, container_time: bool = False
    ) -> None:
        self.opened, self.name, self.container = opened, opened.name, container
        streams = container.streams.audio
        self.stream = choose(streams, audio_track, self.name)
        self.stream.thread_type = "AUTO"
        self._number = list(streams).index(self.stream)
        self._format, self._size = container.format.name, container.size
        self.clock = ContainerClock((container.start_time or 0) / 1e6, container_time)
        codec, rate = self.stream.codec_context.name, self.stream.codec_context.sample_rate
        is_exact = self._format in _EXACT and (self._format, codec[:3]) != _ESTIMATED
        self._promised = self._seconds(self.stream.duration) if is_exact else 0.0
        is_float = codec.startswith(_FLOATS)
        self._mending = Mending(self.name, rate, "channel") if is_float else None
        self._first: int | None = None  # place in the file of the first packet
        self._last = self._end = 0  # places in the file of the last packet, and behind it
        self._bytes = self._bytes_broken = self._n_broken = 0  # of packets
        self._stopped = ""  # why reading ended early

    def frames(self) -> Iterator[AudioFrame]:
        """Every frame that can be decoded; losses are reported at the end."""
        import av

        for packet in self._packets():
            self._bytes += packet.size
            try:
                frames = self.stream.decode(packet)
            except av.FFmpegError:
                self._n_broken += 1
                self._bytes_broken += packet.size
                continue
            for frame in frames:
                if self._mending is not None and frame.format.name in _DTYPES:
                    self._mend(frame, self._mending)
                stamp = None if self._format in _UNSTAMPED else frame.time
                silence = self.clock.follow(stamp, frame.samples / (frame.sample_rate or 1))
                if silence > 0:
                    yield from _silence(frame, silence)
                yield frame
        self._account()

    # -- packets -----------------------------------------------------------------------------------------

    def _packets(self) -> Iterator[Any]:
        """Every packet of the track, also behind damage that ends FFmpeg's own reading."""
        yield from self._packets_of(self.container)
        place, fruitless = self._last + 1, 0  # a damaged packet may overlap the start of the next part
        with ExitStack() as files:
            file = files.enter_context(contents_of(self.opened))
            while file is not None and fruitless < _FRUITLESS:
                spans = resumption(file, self._size, self._format, place)
                if spans is None:
                    return
                stopped, self._stopped = self._stopped, ""
                n = self._bytes
                yield from self._resumed(file, spans)
                fruitless = 0 if self._bytes > n else fruitless + 1
                if fruitless:
                    self._stopped = self._stopped or stopped
                place = max(self._last + 1, spans[-1][0] + 8)

    def _resumed(self, file: Any, spans: list[tuple[int, int]]) -> Iterator[Any]:
        """The packets of a container made of the data behind damage; it has the same tracks."""
        import av

        offset = spans[-1][0] - sum(end - begin for begin, end in spans[:-1])
        try:
            container = av.open(Spans(file, spans), metadata_errors="ignore", options=self.opened.options)
        except av.FFmpegError as error:
            self._stopped = error.strerror or str(error)
            return
        with container:
            streams = container.streams.audio
            if self._number < len(streams):
                self.stream = streams[self._number]
                yield from self._packets_of(container, offset)

    def _packets_of(self, container: Any, offset: int = 0) -> Iterator[Any]:
        """The packets of a container, as far as its demuxer gets; `offset` brings its places to those of the file."""
        import av

        packets, n_errors = container.demux(self.stream), 0
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.InvalidDataError as error:  # damage, behind which there may be more
                n_errors += 1
                if n_errors < _MOST_ERRORS:
                    packets = container.demux(self.stream)
                    continue
                yield from self._stop(error)
                return
            except av.FFmpegError as error:  # the program, too, keeps what it has read until here
                yield from self._stop(error)
                return
            n_errors = 0
            if packet.size and packet.pos is not None:
                self._last = packet.pos + offset
                self._first = self._last if self._first is None else self._first
                self._end = max(self._end, self._last + packet.size)
            yield packet

    def _stop(self, error: Any) -> Iterator[Any]:
        self._stopped = error.strerror or str(error)
        yield self._flush()

    def _flush(self) -> Any:
        """An empty packet, which flushes the decoder."""
        import av

        packet = av.Packet()
        packet.stream, packet.time_base = self.stream, self.stream.time_base
        return packet

    # -- samples -----------------------------------------------------------------------------------------

    @staticmethod
    def _mend(frame: AudioFrame, mending: Mending) -> None:
        """Replace invalid samples by zeros, in the frame itself, which is not shared."""
        is_planar, dtype = frame.format.is_planar, _DTYPES[frame.format.name]
        n = frame.samples * (1 if is_planar else frame.layout.nb_channels)  # numbers in a plane, which may be padded
        planes = [np.frombuffer(memoryview(plane), dtype)[:n] for plane in frame.planes]
        channels = np.stack(planes) if is_planar else planes[0].reshape(frame.samples, -1).T  # (n_channels, n)
        mended = mending(channels)
        if mended is channels:
            return
        rows = mended if is_planar else mended.T.reshape(1, -1)
        for plane, row in zip(frame.planes, rows, strict=True):
            plane.update(row.tobytes().ljust(plane.buffer_size, b"\0"))

    def _seconds(self, duration: int | None) -> float:
        return float((duration or 0) * (self.stream.time_base or 0))

    # -- account -----------------------------------------------------------------------------------------

    def _account(self) -> None:
        """Report what was lost: an error where nothing is left, a warning where something is."""
        decoded = self.clock.decoded
        if decoded == 0 and (self._n_broken or self._stopped or self._promised > 0.1):
            raise AudioError(f"{self.name} is truncated or broken: none of its sound can be decoded")
        if self._mending is not None:
            self._mending.close()
        losses = [*self._broken(), *self.clock.losses()]
        if self._stopped:
            losses.append(f"reading stopped after {decoded:.2f} s ({self._stopped})")
        elif self._promised - decoded - self.clock.missing > max(0.5, 0.01 * self._promised):
            losses.append(f"it is truncated: {decoded:.2f} s of {self._promised:.2f} s are there")
        losses += self._unread()
        if losses:
            warn_caller(f"{self.name}: {'; '.join(losses)}")

    def _broken(self) -> list[str]:
        """Describe broken packets; estimates their length if there are no time stamps."""
        bad, good = self._bytes_broken, self._bytes - self._bytes_broken
        if self._format in _UNSTAMPED and self._first is not None:  # include bytes that the demuxer skipped
            bad += max(self._size - self._first - self._bytes, 0)
        seconds = self.clock.decoded * bad / good if good and self.clock.missing < GAP else 0.0
        about = f"about {seconds:.2f} s, by which times behind are early" if seconds >= GAP else ""
        if self._n_broken:
            return [f"{self._n_broken} broken packets were left out" + (f" ({about})" if about else "")]
        return [f"{bad} bytes that are no sound were skipped ({about})"] if seconds >= LEAST else []

    def _unread(self) -> list[str]:
        """Describe data behind the end of the sound that the header states."""
        if self._end == 0 or self._stopped or self.clock.decoded == 0:
            return []
        seconds, rest = 0.0, None
        # if a file object cannot be read again, keep what was read of it
        with suppress(AudioError, OSError), contents_of(self.opened) as file:
            rest = unseen_rest(self._size, self._format, self._end)
            if file is not None:
                rest = rest_of(file, self._size, self._format, self._end)
            if rest is not None:
                seconds = self.clock.decoded * rest.n_bytes / max(self._bytes, 1)
            if file is not None and rest is not None and rest.is_recording:
                seconds = (
                    _seconds_of(Spans(file, [(rest.begin, self._size)]), rest.n_bytes, self.opened.options) or seconds
                )
        if rest is None or seconds < LEAST:
            return []
        what = "its header counts less data than there are, and those behind its end are"
        if rest.is_recording:
            what = "another recording that begins behind its end is"
        return [f"{what} not read ({rest.n_bytes} bytes, about {seconds:.2f} s, from byte {rest.begin} on)"]


def _seconds_of(file: Any, n_bytes: int, options: dict[str, str]) -> float:
    """Duration of a recording that was not read, in seconds; 0 if unknown."""
    import av

    try:
        with av.open(file, metadata_errors="ignore", options={**options, "protocol_whitelist": "none"}) as container:
            stream = container.streams.audio[0]
            if stream.codec_context.name.startswith("pcm") and stream.bit_rate:
                return n_bytes * 8 / float(stream.bit_rate)  # includes recordings that follow it
            return (container.duration or 0) / 1e6
    except (av.FFmpegError, IndexError):
        return 0.0


def _silence(frame: AudioFrame, seconds: float) -> Iterator[AudioFrame]:
    """Frames of silence in the format of `frame`, each at most one second long."""
    import av

    rate, left = frame.sample_rate, round(seconds * frame.sample_rate)
    zero = b"\x80" if frame.format.name in ("u8", "u8p") else b"\0"
    while left > 0:
        n = min(left, rate)
        silent = av.AudioFrame(format=frame.format.name, layout=frame.layout, samples=n)
        silent.sample_rate = rate
        for plane in silent.planes:
            plane.update(zero * plane.buffer_size)
        left -= n
        yield silent
