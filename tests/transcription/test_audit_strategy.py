"""The audit, window by window, with a scripted model."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from whisper.audit.report import Report
from whisper.decoding import DecodingOptions, DecodingResult
from whisper.engine.operations import InlineRequest
from whisper.options.transcription import TranscribeOptions
from whisper.speech.vad import Speech
from whisper.tokenizer import get_tokenizer
from whisper.transcription.audit_strategy import PATIENCE, AuditStrategy
from whisper.transcription.call import Call
from whisper.transcription.settings import check_settings
from whisper.transcription.window_decoder import RecordingContext, WindowDecoder
from whisper.transcription.window_loop import WindowLoop
from whisper.transcription.windows import PromptHistory, Window

from ..models import random_model

TOKENIZER = get_tokenizer(True, language="en", task="transcribe")
Said = tuple[float, float, str]  # seconds from the start of the window


def tokens(*said: Said) -> list[int]:
    begin = TOKENIZER.timestamp_begin
    return [t for a, b, text in said for t in (begin + round(a * 50), *TOKENIZER.encode(text), begin + round(b * 50))]


def result(*said: Said, logprob: float = -0.2, no_speech: float = 0.0, temperature: float = 0.0, **more: Any) -> Any:
    return DecodingResult(
        torch.zeros(1), "en", tokens=tokens(*said), text="".join(text for *_, text in said), avg_logprob=logprob,
        no_speech_prob=no_speech, temperature=temperature, compression_ratio=1.0, **more,
    )  # fmt: skip


class ScriptedBackend:
    """What `WindowDecoder` needs of a `Backend`; returns what `say` returns, given the window and the options."""

    compute_type, takes_short_windows = "float32", False

    def __init__(self, say: Callable[[Window, DecodingOptions], DecodingResult]) -> None:
        self.say, self.asked = say, list[tuple[Window, DecodingOptions]]()

    async def encode(self, mel: Any) -> Window:
        seek, size = mel[0, :2].int().tolist()
        return Window(0, seek, size)

    async def decode(self, window: Window, options: DecodingOptions) -> DecodingResult:
        self.asked.append((window, options))
        return self.say(window, options)


def features_of(seek: int, size: int) -> torch.Tensor:
    """Features that tell the `ScriptedBackend` which window they are of."""
    mel = torch.zeros(80, 3000, dtype=torch.float32, device="cpu")
    mel[:, 0], mel[:, 1] = seek, size
    return mel


def audit(
    say: Callable[[Window, DecodingOptions], DecodingResult],
    spans: list[tuple[float, float]],
    seconds: float = 30.0,
    **options: Any,
) -> Any:
    model = random_model(0)
    settings = check_settings(
        model, TranscribeOptions(audit=True, **options), DecodingOptions(language="en", fp16=False)
    )
    backend: Any = ScriptedBackend(say)
    call = Call(settings, backend)
    probabilities = np.zeros(int(seconds / 0.032) + 1, np.float32)
    for a, b in spans:
        probabilities[int(a / 0.032) : int(b / 0.032)] = 0.95
    features: Any = SimpleNamespace(n_frames=int(seconds * 100), window=features_of)
    speech = Speech(tuple(spans), probabilities, seconds, "silero")
    recording = RecordingContext(features, "en", lambda **_: None, Report(), speech)
    segments: list[Any] = []
    clips = [(0, int(seconds * 100))]
    history = PromptHistory([], False, settings.max_prompt_tokens)
    strategy = AuditStrategy(WindowDecoder(call, recording), history, speech)
    loop = WindowLoop(call, recording, strategy, history, clips, lambda delivery: segments.extend(delivery.segments))
    InlineRequest(loop.steps()).result()
    texts = [(round(s["start"], 2), s["text"]) for s in segments]
    found = [(f.kind, f.text) for f in recording.report.findings]
    return SimpleNamespace(texts=texts, found=found, asked=backend.asked, findings=recording.report.findings)


def test_what_fits_is_left_alone() -> None:
    done = audit(lambda *_: result((0.0, 3.0, " here is the text")), [(0.0, 3.0)])
    assert done.texts == [(0.0, " here is the text")]
    assert done.found == []
    assert len(done.asked) == 1


def test_text_without_speech_is_dropped() -> None:
    said = result((0.0, 3.0, " here is the text"), (20.0, 22.0, " Thank you."))
    done = audit(lambda *_: said, [(0.0, 3.0)])
    assert done.texts == [(0.0, " here is the text")]
    assert done.found == [("dropped", "Thank you.")]


def test_speech_without_text_is_decoded_on_its_own() -> None:
    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        if window.seek == 0:
            return result((0.0, 3.0, " one two three four five"), (20.0, 23.0, " nine ten eleven twelve"))
        assert (window.start, window.end) == pytest.approx((9.8, 13.2))
        assert options.prompt == []
        assert options.beam_size == 5
        return result((0.2, 3.2, " six seven eight"))

    done = audit(say, [(0.0, 3.0), (10.0, 13.0), (20.0, 23.0)])
    assert [text for _, text in done.texts] == [
        " one two three four five",
        " six seven eight",
        " nine ten eleven twelve",
    ]
    assert done.texts[1][0] == 9.8
    assert done.found == [("recovered", "six seven eight")]


def test_what_cannot_be_recovered_is_a_finding() -> None:
    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        if window.seek == 0:
            return result((0.0, 3.0, " one two three four five six seven eight"))
        return result((0.0, 3.0, " mumble"), logprob=-2.0)

    done = audit(say, [(0.0, 3.0), (10.0, 13.0)])
    assert [text for _, text in done.texts] == [" one two three four five six seven eight"]
    assert done.found == [("uncovered", "mumble")]


def test_sparse_text_is_decoded_in_chunks_and_the_next_windows_are_shorter() -> None:
    spans = [(float(i), i + 0.5) for i in range(90)]

    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        if window.duration > 4:
            return result((0.0, window.duration, " one"))
        n = sum(window.start <= a < window.end for a, _ in spans)
        return result((0.0, window.duration - 0.1, " one" * n))

    done = audit(say, spans, seconds=90.0)
    assert "".join(text for _, text in done.texts).split() == ["one"] * 90
    # half as long each time that chunks have helped
    assert max(w.duration for w, _ in done.asked if 3000 <= w.seek < 4400) <= 15.0
    assert max(w.duration for w, _ in done.asked if w.seek > 6000) <= 4.0
    assert done.found == []


@pytest.mark.parametrize(("in_chunks", "dropped"), [(" three four five", "Goodbye."), ("", "Thank you.")])
def test_of_two_attempts_only_the_kept_one_leaves_findings(in_chunks: str, dropped: str) -> None:
    spans = [(float(i), i + 0.5) for i in range(20)]

    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        if window.duration > 20:
            return result((0.0, 15.0, " one"), (24.0, 26.0, " Thank you."))
        return result((0.0, 0.5, in_chunks), (29.0, 29.5, " Goodbye."))

    done = audit(say, spans)
    assert done.texts[0] == (0.0, in_chunks or " one")
    assert {text for kind, text in done.found if kind == "dropped"} == {dropped}


def test_improbable_text_of_chunks_replaces_no_sparse_text() -> None:
    spans = [(float(i), i + 0.5) for i in range(30)]

    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        if window.duration > 20:
            return result((0.0, 29.9, " few words, but probable"))
        return result((0.0, window.duration, " much more text than that, invented"), logprob=-1.3)

    assert audit(say, spans).texts == [(0.0, " few words, but probable")]


def test_silence_after_short_windows_is_no_error() -> None:
    spans = [(float(i), i + 0.5) for i in range(120)]

    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        n = sum(window.start <= a < window.end for a, _ in spans)
        if n == 0:
            return result(no_speech=0.9, logprob=-2.0)
        return result((0.0, window.duration - 0.1, " one" * (1 if window.duration > 4 else n)))

    done = audit(say, spans, seconds=700.0)
    assert "".join(text for _, text in done.texts).split() == ["one"] * 120
    assert done.found == []


def test_a_loop_is_decoded_in_halves_and_is_a_finding() -> None:
    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        assert options.stop_loops
        if window.duration > 16:
            return result((0.0, 2.0, " so"), is_loop=True)
        return result(
            (0.0, window.duration, " this is what was said in the half, and it goes on and on for quite a good while")
        )

    done = audit(say, [(0.0, 14.0), (16.0, 30.0)])
    assert [start for start, _ in done.texts] == [0.0, 15.0]
    assert done.found == [("loop", "so")]


def test_the_best_of_failed_attempts_is_kept_and_hopeless_ones_end() -> None:
    logprobs = {0.0: -1.4, 0.2: -1.2, 0.4: -1.9, 0.6: -1.8, 0.8: -0.1, 1.0: -3.0}

    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        t = options.temperature
        return result((0.0, 3.0, f" the whole text at {t}"), logprob=logprobs[t], temperature=t)

    done = audit(say, [(0.0, 3.0)])
    assert [o.temperature for _, o in done.asked] == [0.0, 0.2, 0.4, 0.6][: 2 + PATIENCE]
    assert done.texts == [(0.0, " the whole text at 0.2")]
    assert done.found == [("doubtful", "the whole text at 0.2")]


def test_a_failure_is_tried_again_without_the_prompt_before_higher_temperatures() -> None:
    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        if options.prompt and window.seek > 0:
            return result((0.0, 3.0, " words"), logprob=-1.4)
        return result((0.0, 29.0, f" the whole text of the window, at {window.seek}"))

    done = audit(say, [(i * 30.0, i * 30 + 5.0) for i in range(3)], seconds=90.0)
    assert [(w.seek, o.temperature, bool(o.prompt)) for w, o in done.asked] == [
        (0, 0.0, False), (3000, 0.0, True), (3000, 0.0, False), (6000, 0.0, True), (6000, 0.0, False),
    ]  # fmt: skip
    assert done.found == []


def test_the_same_text_window_after_window_is_tried_without_its_prompt() -> None:
    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        text = (
            " and so it goes on and on"
            if options.prompt or window.seek == 0
            else f" new text, as recognised at {window.seek}"
        )
        return result((0.0, 29.9, text))

    spans = [(i * 30.0, i * 30 + 4.0) for i in range(4)]
    done = audit(say, spans, seconds=120.0)
    assert [text for _, text in done.texts] == [
        " and so it goes on and on", " and so it goes on and on", " new text, as recognised at 6000",
        " and so it goes on and on",
    ]  # fmt: skip


@pytest.mark.parametrize(("alone", "kept"), [(-0.1, " what was really said there"), (-0.45, "the copy")])
def test_a_text_that_repeats_its_prompt_gives_way_to_a_likelier_one(alone: float, kept: str) -> None:
    copy = " a man who looks for something beyond his reach is said to look for gold"

    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        if window.seek == 0 or options.prompt:
            return result((0.0, 29.9, copy), logprob=-0.3)
        return result((0.0, 29.9, " what was really said there"), logprob=alone)

    done = audit(say, [(0.0, 4.0), (30.0, 34.0)], seconds=60.0)
    assert [text for _, text in done.texts] == [copy, copy if kept == "the copy" else kept]
    assert [(w.seek, bool(o.prompt)) for w, o in done.asked] == [(0, False), (3000, True), (3000, False)]
    assert done.found == []


@pytest.mark.parametrize(("alone", "is_kept"), [(-0.35, True), (-0.45, False)])
def test_a_start_that_the_prompt_gives_to_segment_after_segment_is_left_out(alone: float, is_kept: bool) -> None:
    def said(start: str) -> list[Said]:
        return [(0.0, 2.0, start + " nobody was at home"), (2.0, 4.0, start + " we went on to the sea")]

    def say(window: Window, options: DecodingOptions) -> DecodingResult:
        if window.seek == 0 or options.prompt:
            return result(*said(" Chapter one:"), logprob=-0.3)
        return result(*said(" And then"), (4.0, 4.1, " so"), logprob=alone)

    done = audit(say, [(0.0, 4.0), (30.0, 34.0)], seconds=60.0)
    assert [(w.seek, bool(o.prompt)) for w, o in done.asked] == [(0, False), (3000, True), (3000, False)]
    assert [text.startswith(" And then") for _, text in done.texts[2:4]] == [is_kept] * 2
