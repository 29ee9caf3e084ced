"""``whisper burn`` and ``whisper --embed``: tracks with their languages, beside those that were there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from whisper import subtitles
from whisper.cli.main import cli
from whisper.errors import AudioError

from ...containers import container
from ...media.test_text_tracks import TONE, Track, contents, texts
from ...subtitles.talks import PLAIN, TALK, result, segment, word

ENGLISH = result(segment([word(" One", 0.0, 0.5), word(" two.", 0.5, 1.0)]), language="de")


class Fakes:
    """Stands for the model and for `transcribe`."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.loaded: list[str] = []
        self.said: dict[str, Any] = {"transcribe": PLAIN, "translate": ENGLISH}
        self.error: Exception | None = None
        self.translates = True

    def load_model(self, name: str, **_: Any) -> Any:
        self.loaded.append(name)
        return SimpleNamespace(is_multilingual=True)

    def transcribe(self, model: Any, audio: str, **options: Any) -> Any:
        self.calls.append({"audio": audio, **options})
        if self.error is not None:
            raise self.error
        return self.said[options.get("task") or "transcribe"]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fakes:
    """Fakes, in a folder with two films."""
    fakes = Fakes()
    monkeypatch.setattr(sys.modules["whisper.transcribe"], "transcribe", fakes.transcribe)
    monkeypatch.setattr(sys.modules["whisper.checkpoints"], "load_model", fakes.load_model)
    monkeypatch.setattr("whisper.transcription.languages.can_translate", lambda model: fakes.translates)
    monkeypatch.chdir(tmp_path)
    for name, format, codec in (
        ("film.mkv", "matroska", "flac"),
        ("film.mp4", "mp4", "aac"),
        ("film.avi", "avi", "mp3"),
    ):
        Path(name).write_bytes(container(format, Track([(0.0, TONE)], codec=codec), picture=6.0))
    return fakes


def tracks(path: str) -> list[tuple[str, str, str]]:
    with av.open(path) as opened:
        return [
            (
                s.codec_context.name,
                s.metadata.get("language", ""),
                s.metadata.get("title") or s.metadata.get("name", ""),
            )
            for s in opened.streams.subtitles
        ]


def test_a_track_in_its_language(fakes: Fakes) -> None:
    assert cli(["burn", "film.mkv", "film.mp4", "--model", "base", "-o", "out"]) == 0
    assert sorted(os.listdir("out")) == ["film.subtitled.mkv", "film.subtitled.mp4"]
    assert tracks("out/film.subtitled.mkv") == [("srt", "deu", "German")]
    assert tracks("out/film.subtitled.mp4") == [("mov_text", "deu", "German")]
    for ending in ("mkv", "mp4"):
        assert contents(Path(f"out/film.subtitled.{ending}")) == contents(Path(f"film.{ending}"))
        assert texts(Path(f"out/film.subtitled.{ending}")) == [(0.0, 1.0, "One two."), (1.24, 2.0, "Three.")]
    assert fakes.loaded == ["base"]
    assert [(call["audio"], call["container_time"]) for call in fakes.calls] == [("film.mkv", True), ("film.mp4", True)]


def test_a_translation_beside_the_original(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["burn", "film.mkv", "--translate", "True", "--model", "base"]) == 0
    assert tracks("film.subtitled.mkv") == [("srt", "deu", "German"), ("srt", "eng", "English (translated)")]
    assert texts(Path("film.subtitled.mkv"), 1) == [(0.0, 1.0, "One two.")]
    assert [(call.get("task"), call["language"]) for call in fakes.calls] == [(None, None), ("translate", "de")]
    fakes.said["transcribe"] = TALK
    assert cli(["burn", "film.mkv", "--translate", "True", "--model", "base"]) == 0
    assert len(tracks("film.subtitled.mkv")) == 1
    assert "nothing to translate" in capsys.readouterr().err
    fakes.translates = False
    assert cli(["burn", "film.mkv", "--translate", "True", "--model", "turbo"]) == 1
    assert "the model turbo does not translate" in capsys.readouterr().err


def test_karaoke_is_ass_in_mkv(fakes: Fakes) -> None:
    assert cli(["burn", "film.mkv", "film.mp4", "--karaoke", "True"]) == 0
    assert tracks("film.subtitled.mkv") == [("ssa", "deu", "German")]
    assert "{\\k50}One{\\k50} two." in texts(Path("film.subtitled.mkv"))[0][2]
    assert fakes.calls[0]["word_timestamps"] is True


def test_files_of_subtitles_need_no_model(fakes: Fakes) -> None:
    subtitles.write(PLAIN, "german.vtt")
    subtitles.write(TALK, "english.srt")
    arguments = ["--subtitles", "german.vtt", "english.srt", "--language", "en", "--container", "mkv"]
    assert cli(["burn", "film.avi", *arguments]) == 0
    assert tracks("film.subtitled.mkv") == [("srt", "deu", "German"), ("srt", "eng", "English")]
    assert (fakes.loaded, fakes.calls) == ([], [])


def test_embed_does_it_beside_the_files(fakes: Fakes) -> None:
    assert cli(["film.mkv", "--embed", "True", "-f", "srt", "-o", "out"]) == 0
    assert sorted(os.listdir("out")) == ["film.srt", "film.subtitled.mkv"]
    assert fakes.calls[0]["container_time"] is True
    assert tracks("out/film.subtitled.mkv") == [("srt", "deu", "German")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["film.mkv", "--subtitles", "none.srt"], "none.srt: there is no such file"),
        (["none.mkv"], "none.mkv: there is no such file"),
        (["film.mp4", "--track", "ass"], "--track ass is for mkv"),
        (["film.mkv", "film.avi"], "two videos have one name"),
        (["film.mkv", "film.mp4", "--subtitles", "a.srt"], "--subtitles takes one video"),
        (["film.mkv", "--translate", "True", "--subtitles", "a.srt"], "--translate needs a transcription"),
        (["film.mkv", "--task", "translate"], "unrecognized arguments"),
        (["film.mkv", "--container", "avi"], "invalid choice: 'avi'"),
    ],
)
def test_usage_errors_come_before_the_model(
    arguments: list[str], message: str, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli(["burn", *arguments])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err
    assert fakes.loaded == []


def test_one_bad_film_does_not_cost_the_others(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.mkv").write_bytes(b"no film")
    assert cli(["burn", "bad.mkv", "film.mkv"]) == 1
    assert "bad.mkv cannot be read" in capsys.readouterr().err
    assert Path("film.subtitled.mkv").exists()
    fakes.said["transcribe"] = result()
    assert cli(["burn", "film.mp4"]) == 1
    assert "there is no text, so no video is written" in capsys.readouterr().err
    fakes.error = AudioError("no sound")
    assert cli(["burn", "film.mp4"]) == 1
    assert "no sound" in capsys.readouterr().err
    assert not [name for name in os.listdir() if ".subtitled.mp4" in name or name.endswith(".tmp")]


@pytest.mark.slow
def test_a_film_that_is_really_transcribed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ...alignment.test_align import SAMPLE

    monkeypatch.chdir(tmp_path)
    with av.open(SAMPLE) as opened, av.open("film.mka", "w") as out:
        stream = out.add_stream_from_template(opened.streams.audio[0])
        for packet in opened.demux():
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    assert cli(["burn", "film.mka", "--model", "nano", "--fp16", "False", "--language", "en"]) == 0
    assert [text for *_, text in texts(tmp_path / "film.subtitled.mka")]
