"""What a call of `transcribe` asks for: how many speakers, known ones, and the backend; and what its results get.

Knows the options and the backends by name; the networks are loaded by the backend that needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError
from ..utils import cached_property
from .backends import find_backend, running
from .diarization import Diarization, Hints, Samples
from .words import Speakers

if TYPE_CHECKING:
    from ..options.transcription import TranscribeOptions
    from ..results import Transcript
    from ..tokenizer import Tokenizer

NUMBERS = ("num_speakers", "min_speakers", "max_speakers")


@dataclass(frozen=True, eq=False)
class Requested:
    """How the speakers of each recording are told apart; `of` makes it."""

    hints: Hints
    backend: Any

    @staticmethod
    def of(options: TranscribeOptions) -> Requested | None:
        """Return what options ask for; None where speakers are not told apart.

        Raises
        ------
        OptionError
            Options contradict each other, or there is no such backend.
        """
        given = {name: getattr(options, name) for name in NUMBERS}
        others = [name for name in (*NUMBERS, "known_speakers") if getattr(options, name) is not None]
        speakers, known = options.speakers, options.known_speakers
        assert not isinstance(known, str)  # text has been taken apart where it was checked
        if speakers is None and not others:
            return None
        if speakers is False:
            if others:
                raise OptionError(f"{others[0]} has no effect with speakers=False: leave one of them out")
            return None
        if speakers is not None and speakers is not True:
            if any(given.values()):
                raise OptionError(f"speakers={speakers!r} is the number of speakers: leave {others[0]} out")
            fewest, most = speakers if isinstance(speakers, tuple) else (speakers, speakers)
            hints = Hints(int(fewest), int(most), known)
        else:
            hints = Hints.of(**given, known=known)
        return Requested(hints, find_backend(options.speaker_backend))

    def finding(self, read: Callable[[int, int], Samples], n_samples: int) -> Generator[float, None, Diarization]:
        """Find out who speaks when in one recording; ``read(begin, end)`` returns its samples."""
        return running(self.backend, ReadSound(read, n_samples), self._heard_hints)

    @cached_property
    def _heard_hints(self) -> Hints:
        """The hints with known speakers as voices, heard once for all recordings."""
        if not self.hints.known or self.backend != "light":
            return self.hints
        from .voices import voices_of

        return replace(self.hints, known=voices_of(self.hints.known))


class ReadSound:
    """A recording that is read piece by piece, like an array of samples."""

    def __init__(self, read: Callable[[int, int], Samples], n_samples: int) -> None:
        self._read, self._n = read, n_samples

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, piece: slice) -> Samples:
        start, stop, step = piece.indices(self._n)
        return np.asarray(self._read(start, stop), np.float32)[::step]

    def __iter__(self) -> Iterator[Any]:
        return iter(self[:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self[:], dtype)


def speakers_of(found: Diarization, tokenizer: Tokenizer) -> Speakers:
    """Return the speakers of a recording, for its segments with the tokens of a tokenizer."""

    def text_bytes(tokens: Any) -> list[int]:
        eot, encoding = tokenizer.eot, tokenizer.encoding
        return [len(encoding.decode_single_token_bytes(token)) if token < eot else 0 for token in tokens]

    return Speakers(found, text_bytes)


def add_to(transcript: Transcript, speakers: Speakers) -> None:
    """Add the speakers and their turns to a result."""
    transcript["speakers"] = speakers.names
    transcript["turns"] = [{"start": start, "end": end, "speaker": name} for start, end, name in speakers.found.turns]
