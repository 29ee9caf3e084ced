"""`diarize`: who speaks when in a recording, without a word of what is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..audio import load_audio
from ..errors import OptionError
from ..spans import SAMPLE_RATE
from .backends import find_backend, running
from .diarization import Diarization, Hints

if TYPE_CHECKING:
    from ..audio import Source


def diarize(
    audio: Source,
    *,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
    known_speakers: Mapping[str, Any] | None = None,
    backend: Any = "light",
    audio_track: int | str | None = None,
    container_time: bool = False,
    progress: Callable[[float, float], object] | None = None,
) -> Diarization:
    """Find out who speaks when in a recording.

    Needs no Whisper model; the networks for it come with the package.

    Parameters
    ----------
    audio
        One recording of any length: path, bytes, open file, or samples at 16 kHz; see `load_audio`.
    num_speakers
        How many people speak, where that is known.
    min_speakers, max_speakers
        At least and at most so many.
    known_speakers
        Names, each with a recording of its speaker or a `Voice` of `enrol`: who sounds like one gets the name.
    backend
        "light"; "pyannote", with its package and a token; the name of an installed backend; or a function
        (`diarization.Backend`).
    audio_track, container_time
        Of a file; see `load_audio`.
    progress
        Called now and then with the seconds that are done and the total.

    Returns
    -------
    Diarization
        The turns of the speakers, also with one speaker at a time, and the speakers' names.

    Raises
    ------
    AudioError
        The recording cannot be read.
    OptionError
        A number of speakers is not positive, they contradict each other, or there is no such backend.
    """
    hints, run = Hints.of(num_speakers, min_speakers, max_speakers, known_speakers), find_backend(backend)
    if run == "channels":
        raise OptionError("backend='channels' is for transcribe(), which reads channels apart")
    samples = load_audio(audio, audio_track=audio_track, container_time=container_time)
    finding, total = running(run, samples, hints), len(samples) / SAMPLE_RATE
    while True:
        try:
            done = next(finding)
        except StopIteration as end:
            found: Diarization = end.value
            return found
        if progress is not None:
            progress(done, total)
