"""The channels of a recording apart: a speaker on each, and one transcript of all of them.

Reads each channel as a recording of its own, silences in it what is only the sound of another channel, and puts the
transcripts on one clock. Knows no model, and does not tell speakers apart that share a channel.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from .audio import Array, Source
from .languages import most_spoken
from .results import Segment, Transcript


def reading(source: Source) -> Generator[float, None, list[Array]]:
    """Read a recording's channels, each as 16 kHz mono samples ``(n_samples,)`` with the others' sound silenced.

    Yields how many seconds have been read, every few; returns the channels. May be closed at any step.
    """
    raise NotImplementedError


def read_channels(source: Source) -> list[Array]:
    """Read a recording's channels at once; see `reading`."""
    raise NotImplementedError


def merge(transcripts: Sequence[Transcript]) -> Transcript:
    """Make one transcript of those of a recording's channels, in the order of time.

    Each segment has its ``channel``, and its ``language`` where the channels differ in theirs; the language of the
    whole is the one with most seconds of text.
    """
    mixed = len({transcript["language"] for transcript in transcripts}) > 1
    segments: list[Segment] = []
    for channel, transcript in enumerate(transcripts):
        for segment in transcript["segments"]:
            of_channel: Segment = {**segment, "channel": channel}
            if mixed:
                of_channel.setdefault("language", transcript["language"])
            segments.append(of_channel)
    segments.sort(key=lambda segment: segment["start"])
    for i, segment in enumerate(segments):
        segment["id"] = i
    return {
        "text": "".join(segment["text"] for segment in segments),
        "segments": segments,
        "language": most_spoken([(t["language"], t["segments"]) for t in transcripts]),
    }
