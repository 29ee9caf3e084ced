"""The ways to tell speakers apart, by name: those of the package, installed ones, and functions of a program."""

from __future__ import annotations

from collections.abc import Generator
from importlib.metadata import entry_points
from typing import Any

from ..errors import OptionError
from ..options.types import did_you_mean
from ..spans import SAMPLE_RATE
from .diarization import Diarization, Hints, Sound, Turn

GROUP = "sotto.diarizers"  # entry points: a name, and a function like `diarization.Backend`
OWN = ("light", "channels", "pyannote")


def find_backend(backend: Any) -> Any:
    """Return a backend by its name; a function is one itself.

    Raises
    ------
    OptionError
        There is none of this name.
    MissingDependencyError
        It is pyannote's, whose package is not installed.
    """
    if backend == "pyannote":
        from .pyannote_pipeline import check_installed

        check_installed()
    if callable(backend) or backend in OWN:
        return backend
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if backend in installed:
        return installed[backend].load()
    names = (*OWN, *sorted(installed))
    hint = did_you_mean(str(backend), names)
    raise OptionError(f"speaker_backend {backend!r} is not installed; there are {', '.join(names)}{hint}")


def running(backend: Any, sound: Sound, hints: Hints) -> Generator[float, None, Diarization]:
    """Run a backend on one recording, in steps where it has them; yields the seconds that are done.

    Raises
    ------
    OptionError
        A function returns something else than a `Diarization`.
    """
    if backend == "light":
        from .light import diarizing  # here, as its networks are for those who ask for them

        return (yield from diarizing(sound, hints))
    if backend == "channels":
        return (yield from one_speaker(sound, hints))
    if backend == "pyannote":
        from .pyannote_pipeline import diarized as backend
    found = backend(sound, hints)
    yield len(sound) / SAMPLE_RATE
    if not isinstance(found, Diarization):
        raise OptionError(f"speaker_backend returned {type(found).__name__}, and not a Diarization")
    return found


def one_speaker(sound: Sound, hints: Hints) -> Generator[float, None, Diarization]:
    """Take all speech of a recording, which is one channel, for that of one speaker."""
    from ..speech.vad import detecting_speech

    if hints.known:
        raise OptionError("speaker_backend='channels' hears no voices: leave known_speakers out")
    finding = detecting_speech(lambda begin, end: sound[begin:end], len(sound))
    while True:
        try:
            next(finding)
        except StopIteration as end:
            spans = end.value.spans
            break
        yield 0.0
    turns = tuple(Turn(start, stop, "SPEAKER_00") for start, stop in spans)
    return Diarization(turns, turns, ("SPEAKER_00",) if turns else ())
