"""`whisper.jobs.run`: results as they come, errors at once, and a job that is refused to others."""

from __future__ import annotations

from pathlib import Path

import pytest

import whisper.jobs
from whisper.errors import DataError, ModelNotFoundError, OptionError, WhisperError
from whisper.jobs.job import _part_of
from whisper.jobs.presence import Presence

from .sounds import OPTIONS, talking_model, write_wav


def test_results_come_as_they_end_and_not_again(tmp_path: Path) -> None:
    for i in range(3):
        write_wav(tmp_path / "in" / f"{i}.wav", 1 + i, i)
    (tmp_path / "in" / "bad.wav").write_text("no sound")
    options = {**OPTIONS, "threads": 1, "output_format": ("srt", "json"), "model": talking_model(tmp_path)}
    results = {Path(r.source).name: r for r in whisper.jobs.run(tmp_path / "in", tmp_path / "out", **options)}
    assert {name: r.state for name, r in results.items()} == {
        "0.wav": "done", "1.wav": "done", "2.wav": "done", "bad.wav": "failed",
    }  # fmt: skip
    one = results["2.wav"]
    assert one.files == (str(tmp_path / "out" / "2.srt"), str(tmp_path / "out" / "2.json"))
    assert (one.seconds, one.language, one.figures["segments"]) == (3.0, "en", len(one.transcript["segments"]))
    assert one.transcript["text"]
    assert results["bad.wav"].kind == "audio"
    with pytest.raises(DataError, match="there is no transcript"):
        _ = results["bad.wav"].transcript
    assert list(whisper.jobs.run(tmp_path / "in", tmp_path / "out", **options)) == []


def test_wrong_options_are_refused_at_once(tmp_path: Path) -> None:
    for wrong in ({"beam_sise": 3}, {"beam_size": 0}, {"order": "best"}, {"max_line_width": -1}, {"language": "xx"}):
        with pytest.raises(OptionError):
            whisper.jobs.run(tmp_path, tmp_path / "out", model="nano", **wrong)
    with pytest.raises(ModelNotFoundError):
        whisper.jobs.run(tmp_path, tmp_path / "out", model="./none.pt")


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "a.wav", 1, 0)
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 no model")
    with pytest.raises(WhisperError, match=r"broken\.pt"):
        list(whisper.jobs.run(tmp_path / "in", tmp_path / "out", model=str(tmp_path / "broken.pt"), device="cpu"))


def test_a_runner_with_other_options_is_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "a.wav", 1, 0)
    folder = tmp_path / "out" / ".sotto" / "runners"
    other = Presence(folder, '{"format": 1, "model": "m", "precision": "int8", "options": {"language": "de"}}')
    try:
        with pytest.raises(OptionError, match=r"with other options .*language de -> default"):
            list(whisper.jobs.run(tmp_path / "in", tmp_path / "out", model="nano"))
    finally:
        other.leave()


def test_shards_are_equal_everywhere_and_of_about_one_size() -> None:
    parts = [_part_of(f"/data/{i}.wav", 8) for i in range(4000)]
    assert parts[:4] == [_part_of(f"/data/{i}.wav", 8) for i in range(4)]
    assert set(parts) == set(range(1, 9))
    assert all(400 < parts.count(part) < 600 for part in range(1, 9))
