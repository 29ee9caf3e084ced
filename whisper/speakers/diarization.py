"""Who speaks when: turns of speakers, as a diarization finds them, and what a backend of diarization is.

Knows no network and no text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from ..options.types import is_whole

Samples = npt.NDArray[np.float32]  # (n_samples,) at 16 kHz


def numbered_name(number: int) -> str:
    """Return the name of a speaker of whom nothing but a number is known."""
    return f"SPEAKER_{number:02}"


def is_number(name: str) -> bool:
    """Whether a name is one of `numbered_name`."""
    return name.startswith("SPEAKER_") and name.removeprefix("SPEAKER_").isdecimal()


class Turn(NamedTuple):
    """A stretch of time in which one speaker speaks."""

    start: float  # seconds
    end: float
    speaker: str


@dataclass(frozen=True)
class Diarization:
    """Who speaks when in a recording.

    Attributes
    ----------
    turns
        In the order of their starts; turns of different speakers may overlap.
    exclusive
        The same with one speaker at a time: the one who is heard best.
    speakers
        Their names, in the order in which they are first heard: ``SPEAKER_00``, ``SPEAKER_01``, ... or
        those of known speakers.
    """

    turns: tuple[Turn, ...]
    exclusive: tuple[Turn, ...]
    speakers: tuple[str, ...]

    def renamed(self, names: dict[str, str]) -> Diarization:
        """Return the same with other names of speakers."""

        def rename(turns: Iterable[Turn]) -> tuple[Turn, ...]:
            return tuple(turn._replace(speaker=names.get(turn.speaker, turn.speaker)) for turn in turns)

        speakers = tuple(names.get(name, name) for name in self.speakers)
        return replace(self, turns=rename(self.turns), exclusive=rename(self.exclusive), speakers=speakers)


class Sound(Protocol):
    """Samples at 16 kHz, float32, which are read piece by piece; an array is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, piece: slice, /) -> Any: ...


@dataclass(frozen=True)
class Hints:
    """What is known of the speakers before.

    Attributes
    ----------
    fewest, most
        Number of speakers; equal where it is known. `most` is None where there is no limit.
    known
        Known speakers by name, each with a recording or a `Voice`.
    """

    fewest: int = 1
    most: int | None = None
    known: Mapping[str, Any] | None = None

    @property
    def number(self) -> int | None:
        """The number of speakers, where it is known."""
        return self.fewest if self.fewest == self.most else None

    @staticmethod
    def of(
        num_speakers: Any = None,
        min_speakers: Any = None,
        max_speakers: Any = None,
        known: Mapping[str, Any] | None = None,
    ) -> Hints:
        """Check numbers of speakers.

        Raises
        ------
        OptionError
            One is no positive whole number, or they contradict each other.
        """
        named = {"num_speakers": num_speakers, "min_speakers": min_speakers, "max_speakers": max_speakers}
        for name, value in named.items():
            if value is not None and not (is_whole(value) and value >= 1):
                raise OptionError(f"{name} must be a whole number of at least 1, or None, not {value!r}")
        if num_speakers is not None:
            if min_speakers is not None or max_speakers is not None:
                raise OptionError("num_speakers is the number itself: leave min_speakers and max_speakers out")
            return Hints(int(num_speakers), int(num_speakers), known)
        fewest = 1 if min_speakers is None else int(min_speakers)
        if max_speakers is not None and max_speakers < fewest:
            raise OptionError(f"max_speakers is {max_speakers}, and less than min_speakers, {fewest}")
        return Hints(fewest, None if max_speakers is None else int(max_speakers), known)


class Backend(Protocol):
    """A way to find out who speaks when: a function of a recording and of what is known before."""

    def __call__(self, sound: Sound, hints: Hints, /) -> Diarization:
        """Diarize one recording; ``numpy.asarray(sound)`` is all of its samples."""
        ...
