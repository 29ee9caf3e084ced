"""Forced alignment: every word of the text is returned, in order, with its time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import whisper
from whisper.audio import load_audio
from whisper.errors import AudioError, LanguageError, OptionError, WhisperError
from whisper.model import Whisper

from ..conftest import read_rows
from ..models import random_model

SAMPLE = str(Path(__file__).resolve().parent.parent.parent / "examples" / "sample.flac")
SAID = ["computer", "one two three", "smart mirror"]


@pytest.fixture(scope="module")
def nano() -> Whisper:
    return whisper.load_model("nano", device="cpu")


@pytest.fixture(scope="module")
def sample() -> Any:
    return load_audio(SAMPLE)


def words_of(transcript: Any) -> list[Any]:
    return [word for segment in transcript["segments"] for word in segment["words"]]


def check(transcript: Any, text: list[str], duration: float) -> None:
    """What holds for any text and any recording."""
    segments, words = transcript["segments"], words_of(transcript)
    assert [segment["text"].strip() for segment in segments] == [line.strip() for line in text]
    for i, segment in enumerate(segments):
        assert segment["id"] == i
        assert "".join(word["word"] for word in segment["words"]) == segment["text"]
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert all(0 <= time <= duration for time in times)
    assert all(word["start"] < word["end"] for word in words if word["probability"] > 0)
    borders = [time for segment in segments for time in (segment["start"], segment["end"])]
    assert borders == sorted(borders)
    assert transcript["text"] == "".join(segment["text"] for segment in segments)


def test_the_sample_word_by_word(nano: Whisper) -> None:
    result = whisper.align(nano, SAMPLE, SAID, fp16=False)
    check(result, SAID, 8)
    assert result["language"] == "en"
    decoded = nano.transcribe(SAMPLE, fp16=False)["segments"]
    for segment, other in zip(result["segments"], decoded, strict=True):  # each in its part of the recording
        assert abs(segment["start"] - other["start"]) < 0.7
        assert abs(segment["end"] - other["end"]) < 0.7
    assert min(word["probability"] for word in words_of(result)) > 0.01


def test_text_in_one_piece_and_lines(nano: Whisper, sample: Any) -> None:
    whole = whisper.align(nano, sample, " ".join(SAID), language="English", fp16=False)
    lines = whisper.align(nano, sample, "\n\n".join(SAID) + "\n", language="en", fp16=False)
    assert len(whole["segments"]) == 1
    assert [segment["text"] for segment in lines["segments"]] == [f" {line}" for line in SAID]
    assert words_of(whole) == words_of(lines)


def test_the_text_of_a_transcription_gets_its_word_times(nano: Whisper, sample: Any) -> None:
    options = {"language": "en", "fp16": False}
    known = nano.transcribe(sample, word_timestamps=True, vad_filter=True, **options)
    found = whisper.align(nano, sample, [segment["text"] for segment in known["segments"]], **options)
    assert found["text"] == known["text"]
    for a, b in zip(words_of(found), words_of(known), strict=True):
        assert abs(a["start"] - b["start"]) <= 0.2, (a, b)


def test_both_ways_to_run_a_model_agree(nano: Whisper, sample: Any) -> None:
    fast = whisper.align(nano, sample, SAID, language="en", fp16=False)
    with_hook = nano.encoder.conv1.register_forward_hook(lambda *_: None)
    try:
        watched = whisper.align(nano, sample, SAID, language="en", fp16=False)
    finally:
        with_hook.remove()
    for a, b in zip(words_of(fast), words_of(watched), strict=True):
        assert abs(a["start"] - b["start"]) <= 0.04
        assert a["probability"] == pytest.approx(b["probability"], abs=0.01)


def test_a_long_recording_whose_text_lacks_parts_and_has_others(nano: Whisper, sample: Any) -> None:
    """Ten times the sample; its third is not in the text, and a long story is not in the recording."""
    n = len(sample) / 16000
    audio, story = np.tile(sample, 10), "no speaker has ever said these words in this place " * 20
    text = [*SAID * 2, *SAID * 3, story, *SAID * 4]
    result = whisper.align(nano, audio, text, language="en", fp16=False)
    check(result, text, 10 * n)
    inserted = [segment for segment in result["segments"] if segment["text"].strip() == story.strip()]
    assert np.mean([word["probability"] == 0 for word in inserted[0]["words"]]) > 0.9
    starts = [segment["start"] for segment in result["segments"] if segment is not inserted[0]]
    first = whisper.align(nano, sample, SAID, language="en", fp16=False)["segments"]
    for i, start in enumerate(starts[:3] + starts[-12:]):
        place = i // 3 if i < 3 else i // 3 + 5
        assert abs(start - (place * n + first[i % 3]["start"])) < 0.7, (i, start)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("zh", "我们在1984年见面。真的吗?"),
        ("ja", "それは、3つです!"),
        ("th", "สวัสดีครับ"),
        ("de", "„Über 30 %“, sagte er – für 5 € & mehr…"),
        ("ar", "مرحبا بالعالم"),
        ("en", "It's <|endoftext|> 24/7: $3.50 🙂🙂 (really?)"),
    ],
)
def test_languages_digits_and_symbols(nano: Whisper, sample: Any, language: str, text: str) -> None:
    result = whisper.align(nano, sample, [text, "", text], language=language, fp16=False)
    check(result, [text, "", text], len(sample) / 16000)
    assert (" " not in words_of(result)[0]["word"]) == (language in {"zh", "ja", "th"})
    whole = result["segments"][1]
    assert (whole["words"], whole["start"]) == ([], whole["end"])


audios = st.lists(
    st.tuples(st.sampled_from(["noise", "silence", "sample"]), st.integers(1, 200)), min_size=1, max_size=4
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(audios, st.lists(st.text(max_size=60), min_size=1, max_size=6))
@example([("silence", 1)], ["a"])
@example([("sample", 200), ("silence", 200), ("sample", 200), ("noise", 200)], ["computer " * 300, "?", "one two"])
def test_all_words_come_back_in_order(sample: Any, kinds: list[tuple[str, int]], text: list[str]) -> None:
    text = [" ".join(line.encode("utf-8", "ignore").decode().split()) for line in text]
    noise = np.random.default_rng(0).normal(0, 0.1, 320000).astype(np.float32)
    sounds = {"noise": noise, "silence": 0 * noise, "sample": np.tile(sample, 5)}
    audio = np.concatenate([sounds[kind][: 1600 * tenths] for kind, tenths in kinds])
    if any(text):
        check(whisper.align(MODEL, audio, text, language="en", fp16=False), text, len(audio) / 16000)


MODEL = random_model(5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"text": ""}, OptionError, "text is empty"),
        ({"text": [" ", "\n"]}, OptionError, "text is empty"),
        ({"text": []}, OptionError, "text is empty"),
        ({"text": None}, OptionError, "not NoneType"),
        ({"text": b"computer"}, OptionError, "not bytes"),
        ({"text": ["computer", 3]}, OptionError, r"text\[1\] must be text, not int"),
        ({"language": "englich"}, LanguageError, "english"),
        ({"language": 7}, LanguageError, "7"),
        ({"vad_parameters": {"treshold": 1}}, OptionError, "threshold"),
        ({"prepend_punctuations": 5}, OptionError, "prepend_punctuations"),
        ({"fp16": "yes"}, OptionError, "fp16"),
        ({"audio": np.zeros(0, np.float32)}, AudioError, "empty"),
        ({"audio": [SAMPLE]}, AudioError, "one recording"),
        ({"audio": "nowhere.wav"}, AudioError, "nowhere"),
    ],
)
def test_what_is_wrong_is_told(changes: dict[str, Any], error: type[WhisperError], message: str) -> None:
    arguments: dict[str, Any] = {"audio": np.zeros(16000, np.float32), "text": "computer", "language": "en"} | changes
    with pytest.raises(error, match=message):
        whisper.align(MODEL, arguments.pop("audio"), arguments.pop("text"), **arguments)


def test_an_english_only_model() -> None:
    model = random_model(6, n_vocab=51864)
    assert whisper.align(model, np.zeros(16000, np.float32), "computer", fp16=False)["language"] == "en"
    with pytest.raises(LanguageError, match="English-only"):
        whisper.align(model, np.zeros(16000, np.float32), "ordinateur", language="fr")


@pytest.mark.shared
@pytest.mark.timeout(300)
def test_clips_with_known_borders(nano: Whisper, shared_data: Path) -> None:
    """Wake phrases that the model was not trained on, 2 to 40 s apart: each within its clip."""
    rows = [row for row in read_rows(shared_data / "dev") if row["file"].startswith("wakeword/")][:24]
    pauses = np.geomspace(2, 40, len(rows))
    clips = [load_audio(row["path"]) for row in rows]
    audio = np.concatenate(
        [np.append(c, np.zeros(int(p * 16000), np.float32)) for c, p in zip(clips, pauses, strict=True)]
    )
    ends = np.cumsum([len(clip) / 16000 + int(p * 16000) / 16000 for clip, p in zip(clips, pauses, strict=True)])
    result = whisper.align(nano, audio, [row["transcript"] for row in rows], language="en")
    inside = [
        begin <= segment["start"] < segment["end"] <= begin + len(clip) / 16000 + 0.1
        for segment, begin, clip in zip(result["segments"], [0.0, *ends], clips, strict=False)
    ]
    assert np.mean(inside) >= 0.9
    assert all(a["end"] <= b["start"] for a, b in pairwise(words_of(result)))
