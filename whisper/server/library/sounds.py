"""The sound of the library's recordings: the upload as it came, a 16 kHz copy of it, and peaks for the waveform.

The copy is a WAV file: what a browser cannot play it plays from there, and any stretch is read without decoding.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...files import atomic_write
from ...spans import SAMPLE_RATE
from ..errors import RequestError, translating_full_disk

PEAK_SAMPLES = SAMPLE_RATE // 50  # 20 ms
MOST_PEAKS = 8192  # in one answer
HEADER_BYTES = 44
_PIECE = 1 << 22  # samples that are handled at once

Samples = np.ndarray[Any, np.dtype[np.int16]]


class Sounds:
    """The files of a folder.

    Parameters
    ----------
    folder
        Is made where it is missing; only its owner may read it.
    decode
        Returns the samples of a file, of recordings that lie elsewhere.
    """

    def __init__(self, folder: Path, decode: Callable[[Path], Samples] | None = None) -> None:
        self.folder, self._decode = folder, decode
        self._decoding = threading.Lock()
        folder.mkdir(0o700, parents=True, exist_ok=True)

    def original(self, recording_id: str) -> Path:
        """Return where the upload lies."""
        return self.folder / recording_id

    def copy(self, recording_id: str) -> Path:
        """Return where the 16 kHz copy lies."""
        return self.folder / f"{recording_id}.wav"

    def _peaks(self, recording_id: str) -> Path:
        return self.folder / f"{recording_id}.peaks"

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; a copy where the file system has no links."""
        with translating_full_disk():
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
                target.chmod(0o600)

    def refer(self, recording_id: str, source: str | None) -> None:
        """Let the upload be a recording that stays where it is; None where there is no sound to hear."""
        self.delete(recording_id)
        if source is not None:
            with contextlib.suppress(OSError):  # not all may make them on Windows: there it is read and not heard
                self.original(recording_id).symlink_to(os.path.abspath(source))

    def prepare(self, recording_id: str) -> None:
        """Make the copy and the peaks of a recording that lies elsewhere, when they are first asked for."""
        original = self.original(recording_id)
        if self._decode is None or not original.is_symlink():
            return
        with self._decoding:  # a page asks for several parts at once
            if not self._peaks(recording_id).exists():
                self.keep(recording_id, self._decode(original))

    def keep(self, recording_id: str, samples: Samples) -> None:
        """Write the copy and the peaks of ``(n,)`` or ``(n_channels, n)`` samples at 16 kHz."""
        channels = samples[None] if samples.ndim == 1 else samples
        with translating_full_disk():
            with atomic_write(self.copy(recording_id), fsync=False) as file:
                file.write(wav_header(channels.shape[1], len(channels)))
                for begin in range(0, channels.shape[1], _PIECE):
                    file.write(np.ascontiguousarray(channels[:, begin : begin + _PIECE].T, dtype="<i2").tobytes())
            with atomic_write(self._peaks(recording_id), fsync=False) as file:
                file.write(peaks_of(channels).tobytes())

    def peaks(self, recording_id: str, start: float, end: float, n: int) -> bytes:
        """Return `n` pairs of int8, the least and the greatest sample of each part of a stretch.

        Parameters
        ----------
        recording_id
            Of a recording that is decoded.
        start, end
            The stretch, in seconds.
        n
            Parts, at most `MOST_PEAKS`.

        Raises
        ------
        RequestError
            It is not decoded yet.
        """
        self.prepare(recording_id)
        try:
            stored = np.fromfile(self._peaks(recording_id), np.int8).reshape(-1, 2)
        except FileNotFoundError:
            raise not_decoded() from None
        edges = np.linspace(start, end, n + 1) * SAMPLE_RATE / PEAK_SAMPLES
        begins = np.clip(edges[:-1].astype(int), 0, max(len(stored) - 1, 0))
        ends = np.clip(np.ceil(edges[1:]).astype(int), begins + 1, max(len(stored), 1))
        out = np.zeros((n, 2), np.int8)
        inside = edges[:-1] < len(stored)
        for i in np.flatnonzero(inside):
            part = stored[begins[i] : ends[i]]
            out[i] = part[:, 0].min(), part[:, 1].max()
        return out.tobytes()

    def samples(self, recording_id: str, start: float, end: float) -> Samples:
        """Return a stretch of the copy, as ``(n,)`` samples, the mean of its channels.

        Raises
        ------
        RequestError
            It is not decoded yet.
        """
        self.prepare(recording_id)
        try:
            with open(self.copy(recording_id), "rb") as file:
                header = file.read(HEADER_BYTES)
                n_channels = struct.unpack_from("<H", header, 22)[0]
                begin = max(int(start * SAMPLE_RATE), 0)
                file.seek(HEADER_BYTES + begin * 2 * n_channels)
                data = file.read(max(int(end * SAMPLE_RATE) - begin, 0) * 2 * n_channels)
        except FileNotFoundError:
            raise not_decoded() from None
        channels = np.frombuffer(data[: len(data) // (2 * n_channels) * 2 * n_channels], "<i2").reshape(-1, n_channels)
        return channels.mean(axis=1).astype(np.int16) if n_channels > 1 else channels[:, 0].astype(np.int16)

    def delete(self, recording_id: str) -> None:
        """Remove all files of a recording."""
        for path in (self.original(recording_id), self.copy(recording_id), self._peaks(recording_id)):
            with contextlib.suppress(OSError):  # what cannot be removed now is removed by the next process
                path.unlink()

    def delete_others(self, ids: set[str]) -> None:
        """Remove what belongs to no recording: the remains of a process that was killed."""
        for path in self.folder.iterdir():
            if path.name.partition(".")[0] not in ids:
                path.unlink()


def not_decoded() -> RequestError:
    """Return the error of a recording whose sound is not decoded yet."""
    return RequestError(409, "the recording is not decoded yet", code="not_decoded", retry_after=1)


def peaks_of(channels: Samples) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Return ``(n, 2)`` values: the least and the greatest of all channels within each 20 ms, to 8 bits."""
    n = channels.shape[1]
    starts = np.arange(0, n, PEAK_SAMPLES)
    if not n:
        return np.zeros((0, 2), np.int8)
    low = np.minimum.reduceat(channels.min(axis=0), starts)
    high = np.maximum.reduceat(channels.max(axis=0), starts)
    return (np.stack([low, high], axis=1) >> 8).astype(np.int8)


def wav_header(n_samples: int, n_channels: int) -> bytes:
    """Return the header of a WAV file of 16-bit samples at 16 kHz."""
    n_bytes = min(n_samples * n_channels * 2, 0xFFFFFFFF - 36)  # its fields have 32 bits
    layout = struct.pack("<IHHIIHH", 16, 1, n_channels, SAMPLE_RATE, SAMPLE_RATE * n_channels * 2, n_channels * 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + n_bytes) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", n_bytes)
