"""Known voices: what somebody sounds like, kept to name them in other recordings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..audio import load_audio
from ..errors import AudioError, DataError
from ..files import atomic_write
from . import local_speakers
from .clustering import MIN_SECONDS, THRESHOLD, Vectors, centroids, cut, lengthened, linkage, normalized
from .networks.voice_encoder import SIZE

if TYPE_CHECKING:
    import os

    from ..audio import Source
    from .local_speakers import LocalSpeakers

BACKEND, VERSION = "light", 2  # of the vectors; those of another cannot be compared
ALIKE = 0.5  # cosine similarity from which on a speaker is taken for a known one; docs/speakers.md has what it errs
SHORTEST, LONGEST = 1.0, 60.0  # seconds of speech that are needed, and of sound that are read


@dataclass(frozen=True)
class Voice:
    """What a voice sounds like, by which it is known again; personal data, to be kept like that.

    Attributes
    ----------
    vector
        192 numbers of length 1.
    seconds
        Of speech that it was made of.
    """

    vector: tuple[float, ...]
    seconds: float

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, as JSON."""
        content = {"backend": BACKEND, "version": VERSION, "seconds": self.seconds, "vector": self.vector}
        with atomic_write(Path(path), encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Voice:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            The file is no voice, or one of another backend.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            kind, vector = (content["backend"], content["version"]), tuple(map(float, content["vector"]))
            seconds = float(content["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no voice that enrol() made ({type(error).__name__})") from error
        if kind != (BACKEND, VERSION) or len(vector) != SIZE or not np.isfinite(vector).all():
            raise DataError(f"{path} is a voice of backend {kind}, not of {(BACKEND, VERSION)}: enrol it again")
        return Voice(vector, seconds)


def enrol(audio: Source) -> Voice:
    """Learn what somebody sounds like.

    Parameters
    ----------
    audio
        A recording in which one person speaks, 2 to 60 s; see `load_audio`. What follows is not read. Where several
        speak, it is the one who speaks most.

    Returns
    -------
    Voice
        For ``known_speakers`` of `transcribe` and `diarize`.

    Raises
    ------
    AudioError
        The recording cannot be read, or has less than a second of speech.
    """
    samples = load_audio(audio)[: int(LONGEST * 16000)]
    finding = local_speakers.find(samples)
    try:
        while True:
            next(finding)
    except StopIteration as end:
        found: LocalSpeakers = end.value
    if found.seconds.sum() < SHORTEST:
        raise AudioError(f"there is less than {SHORTEST:g} s of speech in the recording of a known speaker")
    chosen = np.flatnonzero(found.seconds >= min(MIN_SECONDS, found.seconds.max()))
    vectors, seconds = found.vectors[chosen], found.seconds[chosen]
    labels = cut(linkage(lengthened(vectors, seconds), seconds), len(vectors), THRESHOLD)
    most = int(np.argmax(np.bincount(labels, seconds)))
    vector = centroids(vectors, seconds, labels)[most]
    return Voice(tuple(round(float(x), 6) for x in vector), round(float(seconds[labels == most].sum()), 2))


def voices_of(known: Mapping[str, Any]) -> dict[str, Voice]:
    """Return the voice of each known speaker: a `Voice`, a file with one (``.json``), or a recording."""
    found = {}
    for name, given in known.items():
        if isinstance(given, Voice):
            found[name] = given
        elif str(given).lower().endswith(".json"):
            found[name] = Voice.load(given)
        else:
            found[name] = enrol(given)
    return found


def recognised(speakers: Vectors, voices: Mapping[str, Voice]) -> dict[int, str]:
    """Return which speakers are known ones: each is the one that sounds most like it, the surest pair first.

    Parameters
    ----------
    speakers
        What each speaker sounds like, ``(n, 192)``.
    voices
        By name.
    """
    names = list(voices)
    known = normalized(np.array([voices[name].vector for name in names], np.float32))
    similarity = speakers @ known.T
    found: dict[int, str] = {}
    for flat in np.argsort(-similarity, axis=None, kind="stable"):
        k, i = divmod(int(flat), len(names))
        if similarity[k, i] < ALIKE:
            break
        if k not in found and names[i] not in found.values():
            found[k] = names[i]
    return found
