"""The window loop: every window in its turn, nothing lost, nothing left behind. Models are random or scripted."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whisper
from whisper.decoding import DecodingResult
from whisper.errors import AudioError, CancelledError, OptionError, UnknownOptionError, WhisperError
from whisper.model import Whisper

from .conftest import is_same
from .models import random_model

T = 50364  # <|0.00|>
RATE = 16000


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(2)


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(1).normal(size=round(seconds * RATE)).astype(np.float32) * 0.1


class Script:
    """Answers each decoding with the next of the given tokens, and remembers what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any, **scores: float) -> None:
        self.asked: list[Any] = []
        self.answers = list(answers)
        self.scores = {"avg_logprob": -0.2, "compression_ratio": 1.0, "no_speech_prob": 0.0, **scores}
        script = self

        def decode(model: Whisper, mel: Any, options: Any) -> DecodingResult:
            script.asked.append(options)
            answer = script.answers[min(len(script.asked), len(script.answers)) - 1]
            tokens, scores = answer if isinstance(answer, tuple) else (answer, {})
            return DecodingResult(
                audio_features=mel, language="en", tokens=tokens, temperature=options.temperature,
                **{**script.scores, **scores},
            )  # fmt: skip

        monkeypatch.setattr(Whisper, "decode", decode)

    @property
    def prompts(self) -> list[list[int]]:
        return [options.prompt for options in self.asked]


def piece(start: float, *text: int, end: float) -> list[int]:
    return [T + round(start * 50), *text, T + round(end * 50)]


HELLO = [2425]  # " Hello"


def test_segments_follow_the_timestamps_and_the_next_window_begins_where_text_was_cut(
    model: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = [*piece(0, *HELLO, end=4), *piece(5, *HELLO, end=20), T + 1000, 440]
    script = Script(monkeypatch, unfinished, piece(1, *HELLO, end=9))
    result = model.transcribe(noise(40), language="en", temperature=0)
    assert [(s["id"], s["seek"], s["start"], s["end"]) for s in result["segments"]] == [
        (0, 0, 0.0, 4.0), (1, 0, 5.0, 20.0), (2, 2000, 20.0, 29.0),
    ]  # fmt: skip
    assert result["text"] == " Hello Hello Hello"
    assert script.prompts == [[], unfinished[:6]]


def test_prompts(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    text = piece(0, *HELLO, end=30)
    plain = Script(monkeypatch, text)
    model.transcribe(noise(70), language="en", temperature=0, initial_prompt=" Sotto ")
    start = whisper.tokenizer.get_tokenizer(True).encode(" Sotto")
    assert plain.prompts == [start, start + text, start + text + text]

    forgetful = Script(monkeypatch, text)
    model.transcribe(noise(70), language="en", temperature=0, initial_prompt="Sotto", condition_on_previous_text=False)
    assert forgetful.prompts == [start, [], []]

    carried = Script(monkeypatch, text)
    model.transcribe(
        noise(70), language="en", temperature=0, initial_prompt="Sotto", carry_initial_prompt=True,
        condition_on_previous_text=False,
    )  # fmt: skip
    assert carried.prompts == [start] * 3


def test_the_ladder_is_climbed_until_a_text_passes(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = piece(0, 440, end=30), piece(0, *HELLO, end=30)
    script = Script(monkeypatch, (bad, {"avg_logprob": -2.0}), (bad, {"compression_ratio": 3.0}), good)
    result = model.transcribe(
        noise(60), language="en", temperature=(0, 0.3, 0.6, 0.9), beam_size=5, patience=2, best_of=4
    )
    assert [o.temperature for o in script.asked] == [0, 0.3, 0.6, 0]
    assert [(o.beam_size, o.patience, o.best_of) for o in script.asked[:2]] == [(5, 2, None), (None, None, 4)]
    assert result["segments"][0]["temperature"] == 0.6
    assert script.prompts[-1] == []  # what was sampled at 0.6 prompts nothing


def test_when_none_passes_the_last_is_kept(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, piece(0, *HELLO, end=30), avg_logprob=-5.0)
    result = model.transcribe(noise(30), language="en", temperature=(0, 0.5))
    assert len(script.asked) == 2
    assert [s["temperature"] for s in result["segments"]] == [0.5]


def test_silence_is_skipped_and_says_nothing(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = (piece(0, *HELLO, end=2), {"avg_logprob": -1.5, "no_speech_prob": 0.9})
    script = Script(monkeypatch, silent, piece(0, *HELLO, end=2))
    result = model.transcribe(noise(60), language="en")
    assert len(script.asked) == 2  # no fallback on silence
    assert [s["seek"] for s in result["segments"]] == [3000]


def test_clips(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, piece(0, *HELLO, end=1))
    result = model.transcribe(noise(50), language="en", temperature=0, clip_timestamps="2,4,10,45,49,900")
    assert [(s["seek"], s["start"]) for s in result["segments"]] == [
        (200, 2.0), (1000, 10.0), (4000, 40.0), (4900, 49.0),
    ]  # fmt: skip
    assert len(script.asked) == 4
    assert model.transcribe(noise(5), language="en", clip_timestamps="7,8")["segments"] == []


def test_empty_and_instantaneous_segments_are_cleared(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(monkeypatch, [*piece(0, 220, end=2), *piece(3, *HELLO, end=3), *piece(4, *HELLO, end=5)])
    result = model.transcribe(noise(30), language="en", temperature=0)
    assert [(s["text"], len(s["tokens"])) for s in result["segments"]] == [("", 0), ("", 0), (" Hello", 3)]
    assert result["text"] == " Hello"


def test_times_that_lead_nowhere_do_not_hang(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(monkeypatch, [T, T, T, T])  # a pair at 0.00 sends the next window to where this one began
    result = model.transcribe(noise(0.05), language="en", temperature=0)
    assert all(not s["text"] for s in result["segments"])


@pytest.mark.parametrize("threshold", [None, 0.1, 2.0])
def test_word_times_rise_and_stay_in_the_recording(model: Whisper, threshold: float | None) -> None:
    result = model.transcribe(
        noise(33), language="en", temperature=0, word_timestamps=True, logprob_threshold=None, sample_len=30,
        compression_ratio_threshold=None, hallucination_silence_threshold=threshold,
    )  # fmt: skip
    words = [w for s in result["segments"] for w in s["words"]]
    assert words or threshold
    assert all(0 <= w["start"] <= w["end"] <= 33.02 for w in words)
    for segment in result["segments"]:
        if segment["words"]:
            assert segment["start"] <= segment["words"][0]["start"] + 0.51


@pytest.mark.parametrize("audio", [np.zeros(0, np.float32), np.zeros(1, np.float32), np.zeros(RATE, np.float32)])
def test_very_short_and_silent_recordings_have_a_transcript(model: Whisper, audio: np.ndarray) -> None:
    result = model.transcribe(audio, temperature=0, sample_len=5)
    assert set(result) == {"text", "segments", "language"}
    if not len(audio):
        assert (result["text"], result["segments"]) == ("", [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_timestamps": "3,1"}, "ends before it starts"),
        ({"language": "Elvish"}, "(?i)elvish"),
        ({"temperature": -1}, "temperature"),
        ({"beam_size": 5, "best_of": 0}, "best_of"),
        ({"task": "lang_id"}, "'lang_id'"),
        ({"prompt": "so"}, "initial_prompt"),
        ({"patience": 2.0}, "patience requires beam_size"),
        ({"suppress_tokens": "x"}, "suppress_tokens.*'x'"),
    ],
)
def test_wrong_options_are_told_before_the_work_begins(
    model: Whisper, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    script = Script(monkeypatch, [])
    monkeypatch.setattr(whisper.audio, "load_audio", lambda *_: pytest.fail("the recording was read"))
    with pytest.raises(OptionError, match=message):
        model.transcribe("recording.wav", **options)
    assert script.asked == []


def test_unknown_options(model: Whisper) -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'beam_size'"):
        model.transcribe(noise(1), beamsize=3)
    with pytest.raises(UnknownOptionError, match="did you mean 'word_timestamps'"):
        model.transcribe(noise(1), words_timestamps=True)


def test_options_that_have_no_effect_are_told(model: Whisper) -> None:
    with pytest.warns(UserWarning, match="hallucination_silence_threshold has no effect"):
        model.transcribe(np.zeros(0, np.float32), language="en", hallucination_silence_threshold=1.0)
    with pytest.warns(UserWarning, match="translations"):
        model.transcribe(np.zeros(0, np.float32), language="en", word_timestamps=True, task="translate")
    with pytest.warns(UserWarning, match="carry_initial_prompt has no effect"):
        model.transcribe(np.zeros(0, np.float32), language="en", carry_initial_prompt=True)
    with pytest.warns(UserWarning, match="the last 223 of its .* tokens"):
        model.transcribe(np.zeros(0, np.float32), language="en", initial_prompt="sotto voce " * 200)


def test_an_english_model_says_what_it_ignores() -> None:
    english = random_model(4, n_vocab=51864)
    with pytest.warns(UserWarning, match="language='fr' has no effect"):
        english.transcribe(np.zeros(0, np.float32), language="fr")
    with pytest.warns(UserWarning, match="translate.* has no effect"):
        english.transcribe(np.zeros(0, np.float32), task="translate")
    english.transcribe(np.zeros(0, np.float32), language="English")


def test_unreadable_recordings(model: Whisper, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"missing\.wav"):
        model.transcribe(str(tmp_path / "missing.wav"))
    broken = noise(1)
    broken[: len(broken) // 2] = math.nan
    with pytest.raises(AudioError, match=r"(?i)nan"):
        model.transcribe(broken)


def test_channels_are_mixed(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, piece(0, *HELLO, end=2))
    left, right = noise(3), noise(3)[::-1]
    for sound in (np.stack([left, right]), np.stack([left, right], axis=1)):
        assert model.transcribe(sound, language="en", temperature=0)["segments"][0]["end"] == 2.0
    assert len(script.asked) == 2
    with pytest.raises(WhisperError, match="which axis"):
        model.transcribe(np.zeros((20, 20), np.float32))


def test_arguments_are_not_changed(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(monkeypatch, piece(0, *HELLO, end=30))
    suppress, temperatures, clips, audio = [-1, 13], [0.0, 0.2], [1.0, 30.0], noise(40)
    copies = suppress.copy(), temperatures.copy(), clips.copy(), audio.copy()
    model.transcribe(audio, language="en", suppress_tokens=suppress, temperature=temperatures, clip_timestamps=clips)
    assert (suppress, temperatures, clips) == copies[:3]
    assert np.array_equal(audio, copies[3])


def test_options_that_can_be_read_once_serve_every_window(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(wrap: Any) -> dict[str, Any]:
        return {"suppress_tokens": wrap([-1, 440]), "temperature": wrap([0.0, 0.4]), "clip_timestamps": wrap([1, 35])}

    def seen(wrap: Any) -> list[Any]:
        script = Script(monkeypatch, piece(0, *HELLO, end=30))
        model.transcribe(noise(50), language="en", **given(wrap))
        assert len(script.asked) == 2  # from 1 to 31 and to 35 s
        return [(sorted(o.suppress_tokens), o.temperature) for o in script.asked]

    expected = [([-1, 440], 0.0)] * 2
    assert seen(list) == seen(tuple) == seen(iter) == seen(np.array) == expected


def test_what_is_printed(model: Whisper, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Script(monkeypatch, piece(0, *HELLO, end=2))
    model.transcribe(noise(3), temperature=0, verbose=True)
    out, err = capsys.readouterr()
    assert "Detected language: " in out
    assert "[00:00.000 --> 00:02.000]  Hello" in out
    model.transcribe(noise(3), temperature=0, verbose=False)
    out, err = capsys.readouterr()
    assert out.startswith("Detected language: ")
    assert err == "3 of 3 s transcribed\n"  # no terminal: no bar
    model.transcribe(noise(3), temperature=0)
    assert capsys.readouterr() == ("", "")


def test_the_bar_counts_silence_and_clips_in_full(
    model: Whisper, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Script(monkeypatch, [], no_speech_prob=0.9, avg_logprob=-2.0)
    model.transcribe(noise(40), language="en", temperature=0, verbose=False)
    assert capsys.readouterr().err == "30 of 40 s transcribed\n40 of 40 s transcribed\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    model.transcribe(noise(40), language="en", temperature=0, verbose=False)
    assert "4000/4000" in capsys.readouterr().err


def test_an_error_in_the_middle_leaves_the_model_as_it_was(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    audio, options = noise(35), {"language": "en", "temperature": 0, "sample_len": 10, "word_timestamps": True}
    before = model.transcribe(audio, **options)
    with monkeypatch.context() as m:
        m.setattr(whisper.timing, "dtw", lambda x: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            model.transcribe(audio, **options)
    assert not any(module._forward_hooks for module in model.modules())
    assert whisper.model.MultiHeadAttention.use_sdpa is True
    assert model.transcribe(audio, **options) == before


def test_a_model_in_a_thread_of_its_own_gives_the_same(model: Whisper) -> None:
    options: dict[str, Any] = {"language": "en", "temperature": 0, "sample_len": 10}
    expected = model.transcribe(noise(3), **options)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(model.transcribe(noise(3), **options)))
    thread.start()
    thread.join()
    assert found == [expected]


# -- several at once ----------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "language": "en", "fp16": False, "temperature": 0, "sample_len": 12,
    "logprob_threshold": None, "compression_ratio_threshold": None, "no_speech_threshold": None,
}  # fmt: skip
HOT: dict[str, Any] = {
    **PLAIN,
    "language": None,
    "temperature": (0, 0.6, 1.0),
    "logprob_threshold": -0.1,
    "seed": 5,
    "best_of": 2,
}


@pytest.fixture(params=["engine", "own forward"])
def way(request: pytest.FixtureRequest, model: Whisper) -> Iterator[str]:
    """Both ways to run a model: a hook on a submodule makes it run its own forward."""
    hook = model.decoder.ln.register_forward_hook(lambda *_: None) if request.param == "own forward" else None
    yield request.param
    if hook is not None:
        hook.remove()


@pytest.mark.parametrize(
    "options", [PLAIN, HOT, {**PLAIN, "word_timestamps": True, "beam_size": 2}], ids=["plain", "hot", "words"]
)
def test_each_of_a_list_gives_what_it_gives_alone(model: Whisper, way: str, options: dict[str, Any]) -> None:
    sounds = [noise(3), noise(35)[::-1].copy(), noise(8) * 0.2, noise(0)]
    told: list[tuple[float, float]] = []
    alone = [model.transcribe(sound, **options) for sound in sounds]
    together = model.transcribe(sounds, progress=lambda *done: told.append(done), **options)
    assert is_same(together, alone)
    assert len({r["text"] for r in alone}) > 2
    assert is_same(model.transcribe(tuple(sounds), batch_size=2, audit=False, **options), alone)
    assert told[-1] == (4.0, 4)
    assert model.transcribe([], **options) == []
    iterated = [list(whisper.iter_segments(model, sound, **options)) for sound in sounds]
    assert is_same(iterated, [r["segments"] for r in alone])


def test_the_engine_and_the_model_s_own_forward_agree(model: Whisper) -> None:
    sounds = [noise(3), noise(35)]
    options = {**HOT, "word_timestamps": True}
    fast = model.transcribe(sounds, **options)
    with whisper.model.disable_sdpa():
        slow = [model.transcribe(sound, **options) for sound in sounds]
    for a, b in zip(fast, slow, strict=True):
        assert (a["text"], a["language"]) == (b["text"], b["language"])
        assert [s["tokens"] for s in a["segments"]] == [s["tokens"] for s in b["segments"]]
        for p, q in zip(a["segments"], b["segments"], strict=True):
            for key in ("start", "end", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob"):
                assert p[key] == pytest.approx(q[key], abs=1e-4)  # type: ignore[literal-required]
            for v, w in zip(p["words"], q["words"], strict=True):
                assert v["word"] == w["word"]
                assert v["start"] == pytest.approx(w["start"], abs=0.021)


def test_one_bad_recording_of_a_list_is_told(model: Whisper, way: str) -> None:
    with pytest.raises(AudioError, match=r"missing\.wav"):
        model.transcribe([noise(3), "missing.wav", noise(3)], **PLAIN)
    with pytest.raises(AudioError, match="a list means several recordings"):
        model.transcribe([0.1, 0.2])
    with pytest.raises(OptionError, match="takes one recording"):
        whisper.iter_segments(model, [noise(3)])  # type: ignore[arg-type]
    with pytest.raises(UnknownOptionError, match=r"iter_segments\(\) has no option 'beamsize'"):
        whisper.iter_segments(model, noise(3), beamsize=3)


def test_chunks_of_a_long_recording_run_side_by_side(model: Whisper, way: str) -> None:
    """Cut in pauses, each chunk as it would be alone, and merged into one transcript."""
    sound = noise(300)
    for start in (70, 140, 220):
        sound[start * RATE : (start + 1) * RATE] *= 0.001
    told: list[tuple[float, float]] = []
    whole = model.transcribe(sound, batch_size=3, audit=False, progress=lambda *done: told.append(done), **PLAIN)
    segments = whole["segments"]
    assert [s["id"] for s in segments] == list(range(len(segments)))
    assert [s["seek"] for s in segments] == sorted(s["seek"] for s in segments)
    assert whole["text"] == whisper.tokenizer.get_tokenizer(True).decode([t for s in segments for t in s["tokens"]])
    assert told[0] == (0, 300)
    assert told[-1] == (300, 300)
    assert told == sorted(told)
    seams = [
        0,
        *sorted({s["seek"] for s in segments if any(abs(s["seek"] - at * 100 - 50) < 60 for at in (70, 140, 220))}),
    ]
    assert len(seams) >= 3  # a chunk begins in a pause
    for start, end in zip(seams, [*seams[1:], 30000], strict=True):
        alone = model.transcribe(sound, clip_timestamps=[start / 100, end / 100], **PLAIN)
        assert [s["tokens"] for s in alone["segments"]] == [s["tokens"] for s in segments if start <= s["seek"] < end]
    assert model.transcribe(sound, batch_size=1, **PLAIN) == model.transcribe(sound, **PLAIN)


def test_cancelling(model: Whisper, way: str) -> None:
    event = threading.Event()
    with pytest.raises(CancelledError, match="cancelled"):
        model.transcribe(noise(100), cancel=event, progress=lambda done, _: done > 40 and event.set(), **PLAIN)
    with pytest.raises(CancelledError):
        model.transcribe([noise(3)] * 3, cancel=event, **PLAIN)
    segments = whisper.iter_segments(model, noise(100), cancel=event, **PLAIN)
    with pytest.raises(CancelledError):
        next(segments)
    event.clear()
    segments = whisper.iter_segments(model, noise(100), cancel=event, **PLAIN)
    assert next(segments)["id"] == 0
    segments.close()  # type: ignore[attr-defined]


def test_an_error_in_the_caller_s_function_is_the_caller_s(model: Whisper, way: str) -> None:
    with pytest.raises(ZeroDivisionError):
        model.transcribe(noise(3), progress=lambda done, total: 1 / 0, **PLAIN)
    assert model.transcribe(noise(3), **PLAIN)["segments"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, or None, not 0"),
        ({"batch_size": 2.0}, "batch_size.*2.0"),
        ({"progress": 5}, "progress must be a function"),
        ({"cancel": True}, "cancel must be something like a threading.Event"),
        ({"seed": -1}, "seed must be a whole number from 0"),
    ],
)
def test_wrong_options_of_ours(model: Whisper, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model.transcribe("recording.wav", **options)


def test_what_is_printed_of_several(
    model: Whisper, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Script(monkeypatch, piece(0, *HELLO, end=2))
    model.transcribe([noise(3), noise(3)], temperature=0, language="en", verbose=True)
    assert capsys.readouterr().out.splitlines() == [f"[{i} of 2] [00:00.000 --> 00:02.000]  Hello" for i in (1, 2)]
    model.transcribe([noise(3), noise(3)], temperature=0, language="en", verbose=False)
    assert capsys.readouterr().err == "1 of 2 recordings transcribed\n2 of 2 recordings transcribed\n"


def test_threads_share_the_engine_and_each_gets_its_own(model: Whisper) -> None:
    sounds = [noise(3 + i)[:: 1 - 2 * (i % 2)].copy() for i in range(5)]
    expected = [model.transcribe(sound, **HOT) for sound in sounds]
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: model.transcribe(sounds[i], **HOT)})) for i in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert is_same([found[i] for i in range(5)], expected)
