"""JSON as other programs write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from whisper.errors import DataError
from whisper.subtitles import read

WHISPERX = {
    "segments": [
        {
            "start": 0.1, "end": 1.5, "text": " In 1984 it began.", "speaker": "SPEAKER_00",
            "words": [
                {"word": "In", "start": 0.1, "end": 0.3, "score": 0.8, "speaker": "SPEAKER_00"},
                {"word": "1984"},  # its aligner has no times for numbers
                {"word": "it", "start": 0.9, "end": 1.0, "score": 0.7, "speaker": "SPEAKER_01"},
                {"word": "began.", "start": 1.0, "end": 1.5, "score": 0.9},
            ],
        }
    ],
    "word_segments": [], "language": "en",
}  # fmt: skip
WHISPER_CPP = {
    "systeminfo": "AVX = 1", "model": {"type": "base"}, "params": {"language": "auto"}, "result": {"language": "de"},
    "transcription": [
        {
            "timestamps": {"from": "00:00:00,000", "to": "00:00:01,200"}, "offsets": {"from": 0, "to": 1200},
            "text": " Guten Tag.",
            "tokens": [
                {"text": "[_BEG_]", "offsets": {"from": 0, "to": 0}, "id": 50364, "p": 0.9},
                {"text": " Gut", "offsets": {"from": 0, "to": 300}, "id": 1, "p": 0.8},
                {"text": "en", "offsets": {"from": 300, "to": 500}, "id": 2, "p": 0.6},
                {"text": " Tag", "offsets": {"from": 500, "to": 1100}, "id": 3, "p": 0.9},
                {"text": ".", "offsets": {"from": 1100, "to": 1200}, "id": 4, "p": 0.7},
                {"text": "[_TT_60]", "offsets": {"from": 1200, "to": 1200}, "id": 50424, "p": 0.3},
            ],
        }
    ],
}  # fmt: skip
OPENAI = {
    "task": "transcribe", "language": "german", "duration": 1.5, "text": "Guten Tag.",
    "segments": [{"id": 0, "seek": 0, "start": 0.0, "end": 1.2, "text": " Guten Tag.", "tokens": [1, 2],
                  "temperature": 0.0, "avg_logprob": -0.3, "compression_ratio": 0.9, "no_speech_prob": 0.1}],
    "words": [{"word": "Guten", "start": 0.0, "end": 0.5}, {"word": "Tag.", "start": 0.5, "end": 1.2}],
}  # fmt: skip
YOUTUBE = {
    "wireMagic": "pb3",
    "events": [
        {"tStartMs": 0, "dDurationMs": 9000, "id": 1, "wpWinPosId": 1},
        {"tStartMs": 500, "dDurationMs": 2300, "wWinId": 1,
         "segs": [{"utf8": "hello"}, {"utf8": " there", "tOffsetMs": 400}]},
        {"tStartMs": 2700, "dDurationMs": 100, "aAppend": 1, "segs": [{"utf8": "\n"}]},
    ],
}  # fmt: skip


def found(content: Any, tmp_path: Path) -> Any:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return read(path)


def words(segment: Any) -> list[tuple[Any, ...]]:
    return [(w["word"], w["start"], w["end"]) for w in segment["words"]]


def test_whisperx_with_words_that_have_no_times(tmp_path: Path) -> None:
    result = found(WHISPERX, tmp_path)
    (segment,) = result["segments"]
    assert result["language"] == "en"
    assert (segment["speaker"], segment["start"], segment["end"]) == ("SPEAKER_00", 0.1, 1.5)
    assert words(segment) == [(" In", 0.1, 0.3), (" 1984", 0.3, 0.9), (" it", 0.9, 1.0), (" began.", 1.0, 1.5)]
    assert segment["words"][2]["speaker"] == "SPEAKER_01"
    assert segment["words"][0]["probability"] == 0.8


def test_whisper_cpp_whose_tokens_become_words(tmp_path: Path) -> None:
    result = found(WHISPER_CPP, tmp_path)
    assert (result["language"], result["text"]) == ("de", " Guten Tag.")
    assert words(result["segments"][0]) == [(" Guten", 0.0, 0.5), (" Tag.", 0.5, 1.2)]
    assert result["segments"][0]["words"][0]["probability"] == pytest.approx(0.7)


def test_openais_api_with_words_beside_the_segments(tmp_path: Path) -> None:
    result = found(OPENAI, tmp_path)
    assert result["language"] == "de"
    (segment,) = result["segments"]
    assert words(segment) == [(" Guten", 0.0, 0.5), (" Tag.", 0.5, 1.2)]
    assert (segment["tokens"], segment["avg_logprob"], segment["no_speech_prob"]) == ([1, 2], -0.3, 0.1)


def test_youtube_and_a_list_of_segments(tmp_path: Path) -> None:
    (segment,) = found(YOUTUBE, tmp_path)["segments"]
    assert words(segment) == [(" hello", 0.5, 0.9), (" there", 0.9, 2.8)]
    plain = found([{"start": 0, "end": 1, "text": "a b"}], tmp_path)
    assert plain["segments"][0]["text"] == " a b"


def test_words_that_are_not_those_of_the_text_are_left_out(tmp_path: Path) -> None:
    other = {"start": 0, "end": 1, "text": "a b", "words": [{"word": "c", "start": 0, "end": 1}]}
    assert "words" not in found([other], tmp_path)["segments"][0]


@pytest.mark.parametrize(
    "content",
    ["{", "1", "{}", '{"segments": [1]}', '{"segments": [{"start": 0, "end": 1}]}',
     '{"segments": [{"start": "0", "end": 1, "text": "x"}]}', '{"segments": [{"start": true, "end": 1, "text": "x"}]}',
     '{"transcription": [{"text": "x"}]}', '{"transcription": [{"text": "x", "offsets": {"from": "a", "to": 1}}]}',
     '{"segments": [{"start": NaN, "end": 1, "text": "x"}]}', '{"segments": [{"start": -1, "end": 1, "text": "x"}]}',
     '{"segments": [{"start": 0, "end": 1, "text": "x", "words": 5}]}', '{"events": [{"segs": [{"utf8": 1}]}]}',
     "[" * 100_000],
)  # fmt: skip
def test_what_is_no_transcript_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json: "):
        read(tmp_path / "a.json")


def test_a_day_of_words_beside_its_segments_is_read_at_once(tmp_path: Path) -> None:
    """Words are found by their time: as many steps as words, not words times segments."""
    texts = [{"start": float(i), "end": i + 1.0, "text": " a b c"} for i in range(8000)]
    timed = [{"word": w, "start": i + k / 3, "end": i + (k + 1) / 3} for i in range(8000) for k, w in enumerate("abc")]
    result = found({"segments": texts, "words": timed}, tmp_path)
    assert all(len(segment["words"]) == 3 for segment in result["segments"])
