"""The command ``whisper live``: its arguments, its files, its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from whisper.cli import cli, live
from whisper.live import session as session_module
from whisper.live.options import LiveOptions

from ..conftest import ROOT
from ..live.fakes import FakeHear, listener, loud, silent

READING = str(ROOT / "examples" / "reading.opus")


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Doubles of the model, the detector and the source; ``pieces`` is what is heard."""
    given: dict[str, Any] = {"pieces": [loud(1), silent(1), loud(2)], "options": [], "texts": [" One.", " Two."]}

    def transcribe(model: Any, samples: np.ndarray, **options: Any) -> Any:
        given["options"].append(options)
        text = given["texts"].pop(0)
        if isinstance(text, Exception):
            raise text
        segment = {"id": 0, "seek": 0, "start": 0.1, "end": 0.6, "text": text, "tokens": [], "temperature": 0.0,
                   "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0}  # fmt: skip
        return {"text": text, "segments": [segment], "language": "en"}

    def pieces(*_: Any) -> Iterator[np.ndarray]:
        for piece in given["pieces"]:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    monkeypatch.setattr(sys.modules["whisper.transcribe"], "transcribe", transcribe)
    monkeypatch.setattr(live, "pieces_of", pieces)
    monkeypatch.setattr(live, "load", lambda *_: SimpleNamespace(transcribe=lambda *_, **__: None))
    monkeypatch.setattr(session_module, "pace_of", lambda model: session_module.Pace())
    monkeypatch.setattr(session_module, "Refresher", lambda *_: SimpleNamespace(refresh=FakeHear()))
    monkeypatch.setattr(session_module, "Listener", lambda options: listener(**vars(options)))
    return given


def test_captions_are_lines_and_files_hold_the_whole(
    spoken: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["live", "--model", "nano", "--language", "en", "-o", str(tmp_path), "--word_timestamps", "True"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "One.\nTwo.\n"
    assert "Ctrl-C ends" in captured.err
    assert (tmp_path / "live.txt").read_text() == "One.\nTwo.\n"
    second = json.loads((tmp_path / "live.json").read_text())["segments"][1]
    assert second["id"] == 1
    assert 1.5 < second["start"] < 2.1
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".srt", ".tsv", ".txt", ".vtt"]
    assert spoken["options"][0]["word_timestamps"] is True
    assert spoken["options"][0]["language"] == "en"


def test_without_a_folder_no_file_is_written(
    spoken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert live.main(["--model", "nano"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_with_the_last_text(
    spoken: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken["pieces"].append(KeyboardInterrupt())
    assert cli(["live", "--model", "nano", "-o", str(tmp_path), "-f", "txt"]) == 0
    assert capsys.readouterr().out == "One.\nTwo.\n"
    assert (tmp_path / "live.txt").read_text() == "One.\nTwo.\n"


def test_a_second_ctrl_c_ends_at_once_and_keeps_what_is_final(
    spoken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closes = []
    close = live.LiveSession.close

    def interrupted(self: Any, *, finish: bool = True) -> None:
        closes.append(finish)
        if finish:
            raise KeyboardInterrupt
        close(self, finish=False)

    monkeypatch.setattr(live.LiveSession, "close", interrupted)
    assert cli(["live", "--model", "nano", "-o", str(tmp_path), "-f", "txt"]) == 130
    assert closes == [True, False]
    assert (tmp_path / "live.txt").exists()


def test_an_item_that_fails_makes_the_exit_code_one(spoken: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    spoken["texts"][0] = MemoryError("full")
    assert live.main(["--model", "nano"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "Two.\n"
    assert "item 0" in captured.err


def test_the_files_are_kept_up_to_date(spoken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WRITE_EVERY", 0.0)
    written = []
    write = live.Files.write
    monkeypatch.setattr(live.Files, "write", lambda self: (written.append(len(self._finals)), write(self)))
    assert live.main(["--model", "nano", "-o", str(tmp_path), "-f", "txt"]) == 0
    assert written == [1, 2, 2]


def test_sound_that_comes_too_fast_has_to_wait() -> None:
    backlog = iter([0, 11, 11, 3, 0])
    appended, slept = [], []

    class Session:
        append = appended.append

        @property
        def backlog(self) -> float:
            return next(backlog)

    live.feed(Session(), ["a", "b", "c"], slept.append)  # type: ignore[arg-type, list-item]
    assert appended == ["a", "b", "c"]
    assert slept == [live.LOOK] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--delay", "soon"], "--delay"),
        (["--language", "klingon"], "klingon"),
        (["--silence_s", "0"], "silence_s"),
        (["--max_line_width", "20"], "--word_timestamps"),
        (["--format", "s16le"], "standard input"),
        (["--modell", "base"], "--model"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli(["live", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["live", "nothing.wav", "--model", "nano"]) == 1
    assert "nothing.wav: there is no such file" in capsys.readouterr().err


def test_files_are_called_as_the_recording() -> None:
    assert [live.stem_of(name) for name in (None, "-", "a/talk.mp3", ".mp3")] == ["live", "live", "talk", ".mp3"]


def test_the_help_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli(["live", "--help"])
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in vars(LiveOptions()))


def test_a_file_is_played_and_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from whisper.live import sources

    monkeypatch.setattr(sources, "in_real_time", lambda pieces: pieces)
    assert cli(["live", READING, "--model", "nano", "--language", "en", "--temperature", "0"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out) > 50
    assert "whisper: playing; Ctrl-C ends" in printed.err


def test_files_of_a_session_can_be_laid_out_by_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whisper.live import sources

    monkeypatch.setattr(sources, "in_real_time", lambda pieces: pieces)
    command = ["live", READING, "--model", "nano", "--language", "en", "--temperature", "0", "-o", str(tmp_path)]
    assert cli([*command, "-f", "srt", "--subtitle_preset", "social"]) == 0
    text = (tmp_path / "reading.srt").read_text()
    lines = [line for line in text.splitlines() if line and not line.isdigit() and "-->" not in line]
    assert lines
    assert max(map(len, lines)) <= 20
