"""The work on one request, on a thread of its own: its upload is decoded in a process of its own, then transcribed.

The thread joins the engine's batch through `transcribe`, like any program's; an event cancels it within one scheduler
step. Knows no HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..engine.priorities import Priority, claiming
from ..errors import AudioError
from ..media.isolated.decoders import Decoders
from ..media.sources import NAME_IN_MESSAGES
from ..media.spool import Spool
from ..spans import SAMPLE_RATE
from ..tokenizer import Tokenizer, get_tokenizer
from .errors import RequestError, invalid
from .models import Models
from .requests import TranscriptionRequest

if TYPE_CHECKING:
    from ..audit.report import Report
    from ..model import Whisper
    from ..results import Segment, Transcript

SHORT_SECONDS = 60.0  # somebody waits for a recording up to this; a longer one lets those go first
MAX_CHANNELS = 8  # with channels=separate
MAX_VOICE_SECONDS = 60.0  # of the recording of a known speaker
VOICES = "known_speaker_references"
OF_FILE = ("audio_track", "container_time")  # options that the decoding of the file takes, and arrays do not


@dataclass(eq=False)
class Work:
    """One request on its way from an upload to a transcript.

    Attributes
    ----------
    key
        For whom it is; requests of one key share what they get of the engine.
    is_job
        Whether nobody waits for it.
    before_long
        Called on its thread when the recording is decoded and is long; may wait.
    duration
        Seconds of sound, once it is decoded.
    last_progress
        When it last came a step further, by the monotonic clock.
    is_answered
        Whether all of its answer is on the way, so that the end of the connection loses nothing.
    done
        Seconds of it that are transcribed, and the total.
    on_progress
        Called with these after each window.
    tokenizer, vocabulary
        Of its model, once it runs; what makes the tokenizer anew.
    report
        What the audit found, once the segments are there.
    """

    request: TranscriptionRequest
    file: BinaryIO
    models: Models
    model_name: str
    max_audio_s: float
    decoders: Decoders
    key: str = ""
    is_job: bool = False
    before_long: Callable[[], None] = lambda: None
    cancel: threading.Event = field(default_factory=threading.Event)
    duration: float = 0.0
    last_progress: float = field(default_factory=time.monotonic)
    is_answered: bool = False
    done: tuple[float, float] = (0.0, 0.0)
    on_progress: Callable[[float, float], None] = lambda seconds, total: None
    vocabulary: tuple[bool, int] = (True, 99)
    tokenizer: Tokenizer | None = None
    report: Report | None = None

    def transcribe(self) -> Transcript:
        """Return the transcript."""
        from ..transcribe import transcribe

        with self.models.use(self.model_name) as model:
            self._prepare(model)
            samples = self._decoded()
            with claiming(self.priority, self.key):
                return transcribe(model, samples, **self._options())

    def segments(self) -> Generator[Segment, None, Transcript]:
        """Give the segments as soon as they are final, and return the transcript; closing it ends the work."""
        from ..transcribe import iter_segments_with_report

        with self.models.use(self.model_name) as model:
            self._prepare(model)
            samples = self._decoded()
            with claiming(self.priority, self.key):
                segments = iter_segments_with_report(model, samples, **self._options())
            transcript, self.report = yield from segments
            return transcript

    @property
    def priority(self) -> Priority:
        """Return its class, once it is decoded."""
        return Priority.BATCH if self.is_job or self.duration > SHORT_SECONDS else Priority.SHORT

    def _prepare(self, model: Whisper) -> None:
        """Check what depends on the model."""
        from ..transcription.languages import can_translate

        if self.request.is_translation and not (model.is_multilingual and can_translate(model)):
            raise invalid(
                f"the model {self.model_name} does not translate: it writes the language that is spoken; serve "
                "another, such as base or medium",
                "model",
            )
        self.vocabulary = model.is_multilingual, model.num_languages
        self.tokenizer = get_tokenizer(self.vocabulary[0], num_languages=self.vocabulary[1])

    def _options(self) -> dict[str, Any]:
        options = {name: value for name, value in self.request.options.items() if name not in OF_FILE}
        voices = {"known_speakers": self._voices()} if self.request.voices else {}
        return {**options, **voices, "cancel": self.cancel, "progress": self._on_progress}

    def _voices(self) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        """Return samples of the known speakers, decoded like the recording: they come from outside, too."""
        found: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
        for name, data in self.request.voices.items():
            pieces, n = [np.zeros(0, np.float32)], 0
            try:
                for piece in self.decoders.stream(data, SAMPLE_RATE, cancel=self.cancel):
                    pieces.append(piece.astype(np.float32) / np.float32(32768))
                    n += len(piece)
                    if n > MAX_VOICE_SECONDS * SAMPLE_RATE:
                        raise invalid(f"the voice of {name} has more than {MAX_VOICE_SECONDS:g} s", VOICES)
            except AudioError as error:
                raise invalid(f"the voice of {name} cannot be read: {error}", VOICES) from error
            found[name] = np.concatenate(pieces)
        return found

    def _on_progress(self, seconds: float, total: float) -> None:
        self.last_progress = time.monotonic()
        self.done = seconds, total
        self.on_progress(seconds, total)

    def _decoded(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        """Return the samples at 16 kHz: ``(n,)``, or ``(n_channels, n)`` where channels are kept apart.

        Limits hold while the file is decoded: a small file can hold days of sound.
        """
        options = self.request.options
        apart = options.get("channels") == "separate"
        of_file = {name: options[name] for name in OF_FILE if name in options}
        setattr(self.file, NAME_IN_MESSAGES, "the recording")  # not the path that it has on the server
        spool, n_samples, n_channels = Spool(), 0, 1
        for piece in self.decoders.stream(self.file, SAMPLE_RATE, apart=apart, cancel=self.cancel, **of_file):
            self.last_progress = time.monotonic()
            n_samples += piece.shape[-1]
            if n_samples > self.max_audio_s * SAMPLE_RATE:
                raise RequestError(
                    413,
                    f"the recording is longer than the {self.max_audio_s:g} s that this server takes; cut it",
                    code="audio_too_long",
                    param="file",
                )
            if apart:
                n_channels = len(piece)
                if n_channels > MAX_CHANNELS:
                    raise invalid(
                        f"the recording has {n_channels} channels; at most {MAX_CHANNELS} are kept apart", "file"
                    )
            spool.append(np.ascontiguousarray(piece.T))
        self.duration = n_samples / SAMPLE_RATE
        if self.priority is Priority.BATCH:
            self.before_long()
        samples = spool.array(np.int16)
        return np.ascontiguousarray(samples.reshape(-1, n_channels).T) if apart else samples
