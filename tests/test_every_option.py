"""Every option does something, in every way to transcribe: changing it changes what comes out.

A small random model hears bursts of noise; what it writes makes no sense, and depends on everything. Whether an option
does the right thing is for the tests of its room.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pytest

import whisper
from whisper.audio import SAMPLE_RATE, log_mel_spectrogram, pad_or_trim
from whisper.device.precision import available_types
from whisper.errors import WhisperError
from whisper.model import Whisper
from whisper.options.transcription import DecodingOptions, TranscribeOptions
from whisper.speakers.diarization import Diarization, Hints, Sound, Turn
from whisper.transcription import backends, recording

from .containers import Track, container
from .models import random_model

N_VOCAB, EOT, HASH = 51865, 50257, 2  # HASH is the token of "#"

TOLD: list[tuple[float, float]] = []  # by `progress`


def only(*tokens: int) -> list[int]:
    """What to suppress so that these tokens alone are written."""
    return sorted({*range(N_VOCAB)} - {*tokens})


def tell(done: float, total: float) -> None:
    TOLD.append((done, total))


def stopped() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def each_second(sound: Sound, hints: Hints) -> Diarization:
    """Another speaker each second, as many as there may be."""
    names = [*(hints.known or ()), *(f"SPEAKER_{i:02}" for i in range(hints.most or hints.fewest))]
    turns = [Turn(float(i), i + 1.0, names[i % len(names)]) for i in range(len(sound) // SAMPLE_RATE)]
    return Diarization(tuple(turns), tuple(turns), tuple(names))


@dataclass(frozen=True)
class Case:
    """An option, two values of it, and what the second one changes."""

    option: str
    value: Any
    base: dict[str, Any] = field(default_factory=dict)  # what both runs are given beside it; also its first value
    changes: str = "result"  # which part of `Outcome`
    modes: tuple[str, ...] = ()  # of `MODES`; all that have the option where none are named
    sound: str = "bursts"


@dataclass
class Outcome:
    """What a run gave, and what it asked of the model."""

    result: str
    error: str
    printed: str
    told: str  # to `progress`
    detected: int  # windows asked for their language
    decoded: int  # windows asked for their text
    options: str  # ... how


# "watched" has a hook on a submodule, for which the model's own forward runs; "audited" drops most of what a random
# model writes, and there it is enough that an option reaches the decoder
MODES: dict[str, dict[str, Any]] = {
    "sequential": {}, "batched": {"batch_size": 2}, "list": {}, "streamed": {}, "watched": {},
    "audited": {"audit": True}, "decode": {},
}  # fmt: skip
TRANSCRIBING = tuple(mode for mode in MODES if mode != "decode")
CALM = {
    "language": "en", "temperature": 0, "sample_len": 8, "fp16": False, "seed": 1, "clip_timestamps": "0,3,10,13",
    "audit": False, "vad_parameters": "method=energy",
}  # fmt: skip
HOT = {"temperature": 1.0}
LADDER = {"temperature": (0, 1.0), "compression_ratio_threshold": None, "logprob_threshold": None}
PAIRS = {"clip_timestamps": "0,2,2,4,10,12,12,14", "condition_on_previous_text": False}  # two windows in each half
PLAIN = {"without_timestamps": True}
FEW = {**PLAIN, "hotwords": ["a", "the"], "hotword_boost": 100.0}  # the only words that are written
LONG = {**PLAIN, "hotwords": ["international", "government"], "hotword_boost": 100.0, "sample_len": 30}
WORDS = {**FEW, "word_timestamps": True}
UNHEARD = {"language": None}

CASES = [
    Case("task", "translate"),
    Case("language", "de"),
    Case("sample_len", 3, FEW),
    Case("best_of", 3, HOT),
    Case("beam_size", 4),
    Case("patience", 0.5, {"beam_size": 2, "sample_len": 20}),
    Case("length_penalty", 0.0, {"beam_size": 4, "sample_len": 20}),
    Case("prompt", "said before", changes="error", modes=TRANSCRIBING),
    Case("prompt", "said before", modes=("decode",)),
    Case("prefix", "it begins"),
    Case("suppress_tokens", [257, 264], FEW),  # " a" and " the"
    Case("suppress_blank", False, {**PLAIN, "suppress_tokens": only(EOT, HASH)}),
    Case("without_timestamps", True),
    Case("max_initial_timestamp", 0.0),
    Case("fp16", True, modes=("sequential", "batched", "list", "streamed", "audited", "decode")),
    Case("seed", 2, HOT),
    Case("no_repeat_ngram_size", 1, FEW),
    Case("repetition_penalty", 20.0, FEW),
    Case("hotwords", ["a"], FEW),
    Case("hotword_boost", 100.0, {**PLAIN, "hotwords": ["computer"]}),
    Case("stop_loops", True, {**LONG, "sample_len": 60}, modes=tuple(mode for mode in MODES if mode != "audited")),
    Case("verbose", True, changes="printed"),
    Case("verbose", False, changes="printed"),
    Case("temperature", 1.0),
    Case("compression_ratio_threshold", 0.0, {**LADDER, **LONG}, changes="decoded"),
    Case("logprob_threshold", 0.0, LADDER, changes="decoded"),
    Case("no_speech_threshold", 0.0, {**LADDER, "no_speech_threshold": None, "logprob_threshold": 0.0}, "decoded"),
    Case("condition_on_previous_text", True, PAIRS),
    Case("initial_prompt", "said before"),
    Case("carry_initial_prompt", True, {**PAIRS, "initial_prompt": "said before"}),
    Case("word_timestamps", True),
    Case("token_logprobs", True, modes=tuple(mode for mode in TRANSCRIBING if mode != "watched")),
    Case("token_logprobs", True, changes="error", modes=("watched",)),
    Case("prepend_punctuations", "the", WORDS),
    Case("append_punctuations", " A", WORDS),
    Case("clip_timestamps", [1, 3, 11, 15]),
    Case("hallucination_silence_threshold", 0.1, {"word_timestamps": True}),
    Case("word_confidence", True, WORDS, modes=tuple(m for m in TRANSCRIBING if m != "audited")),  # which drops all
    Case("batch_size", 2, {"clip_timestamps": "0"}, modes=("sequential", "streamed", "watched", "audited")),
    Case("batch_size", 1, modes=("batched",)),
    Case("batch_size", 1, {"progress": tell}, "told", modes=("list",)),
    Case("audio_context", "short", {**FEW, **LADDER}, modes=tuple(mode for mode in TRANSCRIBING if mode != "watched")),
    Case("audio_context", "short", changes="error", modes=("watched",)),
    Case("audit", True, {"audit": False}),
    Case("vad_filter", True, {"vad_filter": False, "clip_timestamps": "0"}),
    Case("vad_parameters", "method=energy,min_speech_duration_ms=9000", {"vad_filter": True}),
    Case("languages", "de,ja", UNHEARD),
    Case("language_detection_segments", 2, {**UNHEARD, "clip_timestamps": "0,2,55,57"}, "detected", sound="long"),
    Case("multilingual", True, UNHEARD),
    Case("verify_language", True, {**UNHEARD, "verify_language": False}, "decoded"),
    Case("channels", "separate", sound="stereo"),
    Case("speakers", 2, {"speakers": True, "speaker_backend": each_second}),
    Case("num_speakers", 3, {"speaker_backend": each_second, "num_speakers": 2}),
    Case("min_speakers", 3, {"speaker_backend": each_second, "min_speakers": 2}),
    Case("max_speakers", 1, {"speaker_backend": each_second, "min_speakers": 1, "max_speakers": 2}),
    Case("known_speakers", {"Ana": ""}, {"speakers": True, "speaker_backend": each_second}),
    Case("speaker_backend", each_second, {"speakers": 2}),
    Case("audio_track", 1, {"audio_track": 0}, sound="film"),
    Case("container_time", True, {"audio_track": 0}, sound="film"),
    Case("progress", tell, changes="told"),
    Case("cancel", stopped(), changes="error"),
]


def modes_of(case: Case) -> tuple[str, ...]:
    decodes = case.option in {f.name for f in fields(DecodingOptions)}
    return case.modes or (tuple(MODES) if decodes else TRANSCRIBING)


def test_every_option_has_a_case_in_every_mode() -> None:
    found = {(case.option, mode) for case in CASES for mode in modes_of(case)}
    wanted = {(f.name, mode) for f in (*fields(TranscribeOptions), *fields(DecodingOptions)) for mode in TRANSCRIBING}
    wanted |= {(f.name, "decode") for f in fields(DecodingOptions)}
    # on a CPU, the model's own forward runs in float32; an audit stops loops in any case, and leaves no word here
    missing = {("fp16", "watched"), ("stop_loops", "audited"), ("word_confidence", "audited")}
    assert found == wanted - missing


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1, end=4.5)


@pytest.fixture(scope="module")
def sounds() -> dict[str, Any]:
    """Bursts of noise with pauses of three seconds between them: 20 s, 70 s, and different ones on two channels.

    In a film each is a track, and the sound begins a second and a half after the picture.
    """
    rng = np.random.default_rng(1)
    burst, pause = rng.normal(size=(14, 2 * SAMPLE_RATE)) * 0.1, np.zeros((14, 3 * SAMPLE_RATE))
    long = np.concatenate([burst, pause], axis=1).astype(np.float32).ravel()
    bursts, others = np.split(long[: 40 * SAMPLE_RATE], 2)
    tracks = [Track([(1.5, (x[None] * 32767).clip(-32768, 32767).astype(np.int16))]) for x in (bursts, others)]
    film = container("matroska", *tracks, picture=22.0)
    return {"bursts": bursts, "long": long, "stereo": np.stack([bursts, others]), "film": film}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the model is asked: windows for their language, and windows for their text, with which options."""
    asked: dict[str, list[Any]] = {"detect": [], "decode": []}
    for way, name in itertools.product((backends.EngineBackend, backends.ReferenceBackend), asked):
        real = getattr(way, name)

        def ask(self: Any, window: Any, *options: Any, name: str = name, real: Any = real) -> Any:
            asked[name].append(options)
            return real(self, window, *options)

        monkeypatch.setattr(way, name, ask)
    return asked


def call(mode: str, model: Whisper, sound: Any, options: dict[str, Any]) -> Any:
    """Transcribe in one of the modes."""
    is_file = isinstance(sound, bytes)
    if mode == "decode":
        mel = log_mel_spectrogram(pad_or_trim(sound))
        decoded = whisper.decode(model, mel, **options)
        return decoded.tokens, decoded.avg_logprob
    if mode == "streamed":
        return list(whisper.iter_segments(model, sound, **options))
    if mode == "list":
        return model.transcribe([sound, sound if is_file else sound[..., : 8 * SAMPLE_RATE]], **options)
    if mode == "watched":
        with model.decoder.ln.register_forward_hook(lambda *_: None):
            return model.transcribe(sound, **options)
    return model.transcribe(sound, **options)


def run(mode: str, model: Whisper, sound: Any, options: dict[str, Any], capsys: Any, asked: Any) -> Outcome:
    """Transcribe, and watch."""
    given = {**CALM, **MODES[mode], **options}
    if mode == "decode":
        given = {f.name: given[f.name] for f in fields(DecodingOptions) if f.name in given}
    for before in (TOLD, *asked.values()):
        before.clear()
    capsys.readouterr()
    result = error = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an option may have no effect in the first of two runs
        warnings.simplefilter("ignore", RuntimeWarning)  # a film's times may not be kept
        try:
            result = repr(call(mode, model, sound, given))
        except WhisperError as raised:
            error = type(raised).__name__
    printed, decoded = str(capsys.readouterr()), repr(asked["decode"])
    return Outcome(result, error, printed, str(TOLD), len(asked["detect"]), len(asked["decode"]), decoded)


FIRST: dict[tuple[str, str], Outcome] = {}  # what runs gave that several cases begin with


@pytest.mark.parametrize(
    ("case", "mode"),
    [pytest.param(case, mode, id=f"{case.option}-{mode}-{case.changes}") for case in CASES for mode in modes_of(case)],
)
def test_changing_an_option_changes_what_comes_out(
    case: Case, mode: str, model: Whisper, sounds: dict[str, Any], capsys: Any,
    asked: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if case.option == "fp16" and available_types("cpu")[0] == "float32":
        pytest.skip("this processor computes in no half precision")
    monkeypatch.setattr(recording, "MIN_CHUNK_FRAMES", 300)  # 3 s
    sound, key = sounds[case.sound], (mode, repr((case.sound, case.base)))
    if key not in FIRST:
        FIRST[key] = run(mode, model, sound, case.base, capsys, asked)
    first = FIRST[key]
    second = run(mode, model, sound, {**case.base, case.option: case.value}, capsys, asked)
    assert not first.error
    assert second.error == "" or case.changes == "error"
    parts = [case.changes, "options"] if mode == "audited" else [case.changes]
    assert any(getattr(second, part) != getattr(first, part) for part in parts)
