"""Evaluation of a list of recordings: calls of the model, the cache, and the scores. Needs no weights."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from whisper.errors import DataError, LanguageError, OptionError, UnknownOptionError
from whisper.evaluation.results import Hypothesis, ScoredClip, score_clips
from whisper.evaluation.run import Evaluation, choose, compare, evaluate
from whisper.manifests.read import ManifestEntry


class FakeModel:
    """Transcribes a recording of so many seconds as the entry of `texts`."""

    is_multilingual = True
    num_languages = 99
    device = torch.device("cpu")
    dims = "toy"

    def __init__(self, texts: dict[int, str]) -> None:
        self.texts = texts
        self.weight = torch.zeros(3)
        self.calls: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight}

    def transcribe(self, samples: Any, **options: Any) -> dict[str, Any]:
        seconds = round(len(samples) / 16000)
        self.calls.append({"seconds": seconds, **options})
        if seconds == 9:
            raise RuntimeError("out of memory")
        words = [
            {"word": f" {w}", "start": float(i), "end": i + 0.5} for i, w in enumerate(self.texts[seconds].split())
        ]
        return {
            "text": " " + self.texts[seconds],
            "language": options.get("language") or "cy",
            "segments": [{"words": words}] if options.get("word_timestamps") else [{}],
        }


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., ManifestEntry]:
    """Make a recording of so many seconds."""

    def make(seconds: int, text: str = "", language: str | None = "en", **fields: Any) -> ManifestEntry:
        path = tmp_path / f"{seconds}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(b"\1\0" * 16000 * seconds)
        return ManifestEntry(str(path), text, language, **fields)

    return make


Record = Callable[..., ManifestEntry]


def test_every_clip_is_transcribed_and_scored(record: Record) -> None:
    model = FakeModel({1: "Red, blue.", 2: "green gray", 3: "invented words", 4: ""})
    recordings = [
        record(1, "red blue", group="colours", speaker="ann"),
        record(2, "green black", group="colours", speaker="bob"),
        record(3, "", "none", group="noise"),
        record(4, "", "none", group="noise"),
        record(1, "", "en", group="unlabelled"),
    ]
    scores = evaluate(model, recordings, beam_size=3).scores
    assert scores.n_clips == {"speech": 2, "non_speech": 2, "unlabelled": 1, "failed": 0}
    assert scores.total is not None
    assert (scores.total.words.errors, scores.total.words.total) == (1, 4)
    assert [(g.name, g.words.errors) for g in scores.groups["speaker"]] == [("bob", 1), ("ann", 0)]
    assert [g.name for g in scores.groups["set"]] == ["colours"]
    assert scores.confusions == [("black", "gray", 1)]
    assert scores.non_speech is not None
    assert scores.non_speech.clips.rate == 0.5
    assert scores.non_speech.words_per_minute == pytest.approx(2 / (7 / 60))
    assert scores.languages is None  # nothing was detected
    assert [call["beam_size"] for call in model.calls] == [3] * 5
    assert [call["language"] for call in model.calls] == ["en", "en", None, None, "en"]


def test_language_of_a_recording(record: Record) -> None:
    model = FakeModel({1: "a", 2: "b", 3: "c"})
    recordings = [record(1, "a", "cy"), record(2, "b", "fr"), record(3, "c", None)]
    evaluate(model, recordings)
    evaluate(model, recordings, language="German")
    languages = evaluate(model, recordings, detect_language=True).scores.languages
    assert [call["language"] for call in model.calls] == ["cy", "fr", None, "de", "de", "de", None, None, None]
    assert languages is not None
    assert (languages.clips.errors, languages.clips.total) == (1, 2)
    assert languages.confusions == [("fr", "cy", 1)]
    evaluate(model, [record(1, "a", "yue")])
    assert model.calls[-1]["language"] is None  # a language that this model has no token for
    model.is_multilingual = False
    evaluate(model, recordings[1:2])
    assert model.calls[-1]["language"] == "en"


def test_failed_recordings_have_a_reason(record: Record, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    late = replace(record(1, "a"), start=3.0, end=4.0)
    recordings = [record(1, "a"), ManifestEntry(str(broken), "b", "en"), record(9, "c"), late]
    evaluation = evaluate(FakeModel({1: "a"}), recordings)
    assert [clip.kind for clip in evaluation.clips] == ["speech", "failed", "failed", "failed"]
    assert [bool(clip.error) for clip in evaluation.clips] == [False, True, True, True]
    assert "broken.wav" in evaluation.clips[1].error
    assert "out of memory" in evaluation.clips[2].error
    assert "1.00 s long" in evaluation.clips[3].error
    assert evaluation.scores.total is not None
    assert evaluation.scores.total.words.clips == 1


def test_wrong_options_raise_at_once(record: Record) -> None:
    with pytest.raises(UnknownOptionError, match="beam_size"):
        evaluate(FakeModel({}), [], beam_sise=3)
    with pytest.raises(OptionError, match="detect_language"):
        evaluate(FakeModel({}), [], language="en", detect_language=True)
    with pytest.raises(LanguageError):
        evaluate(FakeModel({}), [], language="Klingonian")


def test_parts_of_a_file_and_times_of_words(record: Record) -> None:
    """Times of the manifest are those of the file, those of the model begin at the part."""
    part = record(5, "one two", start=2.0, end=4.0, words=(("one", 2.1, 2.5), ("two", 3.0, 3.4)))
    model = FakeModel({2: "one two"})
    (clip,) = evaluate(model, [part]).clips
    assert model.calls[0]["word_timestamps"] is True
    assert clip.time_errors == [pytest.approx((-0.1, 0.0)), pytest.approx((0.0, 0.1))]
    assert evaluate(model, [part], word_timestamps=False).scores.times is None


def test_a_second_run_transcribes_only_new_recordings(record: Record, tmp_path: Path) -> None:
    cache = tmp_path / "kept.jsonl"
    model = FakeModel({1: "one", 2: "two", 3: "three"})
    clips, new = [record(1, "one", words=(("one", 0.0, 0.5),)), record(2, "two")], record(3, "three")
    first = evaluate(model, clips, cache=cache)
    with open(cache, "a") as file:
        file.write('{"key": "cut sho')  # as a killed run leaves it
    again = evaluate(model, [*clips, new], cache=cache)
    assert [call["seconds"] for call in model.calls] == [1, 2, 3]
    assert again.clips[:2] == first.clips
    evaluate(model, [*clips, new], cache=cache)
    assert len(model.calls) == 3
    evaluate(model, clips, cache=cache, beam_size=2)  # other options
    model.weight = torch.ones(3)  # another step of training
    evaluate(model, clips, cache=cache)
    assert len(model.calls) == 7


def test_progress_is_reported(record: Record) -> None:
    values: list[tuple[int, int]] = []
    evaluate(FakeModel({1: "a"}), [record(1, "a")] * 2, progress=lambda done, total: values.append((done, total)))
    assert values == [(1, 2), (2, 2)]


def some_clip(text: str, said: str, path: str = "a.wav", **fields: Any) -> ScoredClip:
    hypothesis = Hypothesis(said, "en", detected=False, duration=2.0, seconds=0.5)
    return ScoredClip(ManifestEntry(path, text, "en", **fields), hypothesis)


def test_an_evaluation_survives_json() -> None:
    timed = some_clip("red blue", "red blew", words=(("red", 0.0, 0.4), ("blue", 0.5, 0.9)))
    timed = replace(timed, hypothesis=replace(timed.hypothesis, words=(("red", 0.1, 0.4), ("blew", 0.5, 0.9))))
    failed = ScoredClip(ManifestEntry("b.wav", "x", "en"), None, "no sound")
    evaluation = Evaluation("toy", (timed, failed), {"temperature": [0.0]}, skipped=({"line": 3, "reason": "odd"},))
    values = json.loads(json.dumps(evaluation.to_dict()))
    again = Evaluation.from_dict(values)
    assert again == evaluation
    assert again.scores == evaluation.scores
    assert values["scores"]["total"]["words"]["rate"] == 0.5
    assert values["scores"]["times"]["matched"] == 1
    assert values["clips"][0]["edits"]["substitutions"] == 1
    with pytest.raises(OptionError, match="not an evaluation"):
        Evaluation.from_dict({"model": "toy"})


def test_comparing_pairs_the_clips() -> None:
    first = Evaluation("one", tuple(some_clip("a b", said, p, group=p[0]) for p, said in (("x1", "a"), ("x2", "a b"))))
    second = Evaluation("two", tuple(some_clip("a b", "a b", p, group=p[0]) for p in ("x1", "x2", "y1")))
    found = compare(first, second)
    assert (found.better, found.worse, found.same, found.unpaired) == (1, 0, 1, 1)
    assert found.words.value == -0.25
    assert list(found.sets) == ["x"]
    with pytest.raises(DataError, match="no clip in common"):
        compare(first, Evaluation("two", ()))


def test_a_translation_is_compared_as_english() -> None:
    clip = ScoredClip(ManifestEntry("a", "colour", "fr"), Hypothesis("color", "fr", False, 1.0, 0.1), task="translate")
    assert clip.edits.errors == 0


def test_nothing_to_score_is_said_by_none() -> None:
    scores = score_clips([])
    assert (scores.total, scores.non_speech, scores.languages, scores.times, scores.speed) == (None,) * 5


def test_choosing_from_each_group() -> None:
    rows = [ManifestEntry(f"{group}{i}", group=group) for i in range(20) for group in ("a", "b")]
    some = choose(rows, limit=5, seed=1)
    assert [sum(r.group == g for r in some) for g in "ab"] == [5, 5]
    assert [r for r in rows if r in some] == some  # the manifest's order
    assert choose(rows, ["a"], 5, 1) == [r for r in some if r.group == "a"]  # whatever else is there
    assert choose(rows, limit=5, seed=2) != some
    assert choose(rows) == rows
    with pytest.raises(OptionError, match="did you mean 'digits'"):
        choose([ManifestEntry("x", group="digits")], ["digit"])


@pytest.mark.shared
def test_nano_on_real_recordings(shared_data: Path) -> None:
    import whisper
    from whisper.manifests.read import read_manifest

    recordings = choose(read_manifest(shared_data / "dev").recordings, ["wakeword", "noise"], limit=3)
    scores = evaluate(whisper.load_model("nano", device="cpu"), recordings).scores
    assert scores.n_clips == {"speech": 3, "non_speech": 3, "unlabelled": 0, "failed": 0}
    assert scores.total is not None
    assert scores.total.words.rate < 0.5
    assert scores.speed is not None
    assert scores.speed.audio_seconds > 5
