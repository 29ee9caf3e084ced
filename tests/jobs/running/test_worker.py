"""A worker with a model: results are those of `transcribe`, and each failure is told as what it is."""

from __future__ import annotations

import os
import queue
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import whisper
from whisper.jobs.content import content_of
from whisper.jobs.running.messages import (
    Answer,
    Begun,
    Broken,
    Done,
    Failed,
    Give,
    Progress,
    Read,
    Ready,
    Stop,
    Task,
    WorkerSettings,
)  # fmt: skip
from whisper.jobs.running.worker import Worker, _Room

from ..sounds import OPTIONS, talking_model, write_wav

OF_TRANSCRIBE = {name: value for name, value in OPTIONS.items() if name != "compute_type"}


class Told:
    """A worker, and what it says."""

    def __init__(self, model: str, **options: Any) -> None:
        self.said: queue.Queue[Any] = queue.Queue()
        settings = WorkerSettings(model, {"compute_type": "float32", "device": "cpu"}, {**OF_TRANSCRIBE, **options}, 2)
        self.worker = Worker(settings, self.said.put)
        self.worker.start()

    def next(self) -> Any:
        while isinstance(message := self.said.get(timeout=60), (Begun, Progress)):
            pass
        return message

    def one(self, path: Path | str, run: bool = True, **overrides: Any) -> Any:
        self.worker.take(Give(Task(1, str(path), overrides)))
        message = self.next()
        if isinstance(message, Read):
            self.worker.take(Answer(1, run))
            message = self.next() if run else message
        return message


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return talking_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def told(model: str) -> Iterator[Told]:
    made = Told(model)
    assert isinstance(ready := made.next(), Ready)
    assert ready.capacity >= 4
    yield made
    made.worker.take(Stop())


def test_a_result_is_that_of_transcribe(told: Told, model: str, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", 3, 0)
    done = told.one(path)
    assert isinstance(done, Done)
    alone = whisper.load_model(model, "cpu", compute_type="float32")
    expected = alone.transcribe(str(path), **OF_TRANSCRIBE)
    assert expected["text"]
    assert done.result["transcript"] == expected
    assert done.seconds == 3
    assert done.memory > 1e6 or os.name != "posix"


def test_how_long_the_device_computed_is_told(told: Told, tmp_path: Path) -> None:
    first, second = (told.one(write_wav(tmp_path / "a.wav", 2.0, seed)) for seed in (21, 22))
    assert 0 < first.busy <= first.since_first
    assert first.busy < second.busy <= second.since_first


def test_options_of_one_recording(told: Told, model: str, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", 40, 0)
    done = told.one(path, clip_timestamps=[31.0, 33.0])
    assert done.result["transcript"]["segments"][0]["start"] >= 31
    stereo = write_wav(tmp_path / "b.wav", 2, 1, n_channels=2)
    segments = told.one(stereo, channels="separate").result["transcript"]["segments"]
    assert {s["channel"] for s in segments} == {0, 1}


def test_what_is_known_already_is_not_decoded(told: Told, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", 1, 0)
    read = told.one(path, run=False)
    assert (read.content, read.stamp.size) == (content_of(str(path)), path.stat().st_size)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [("empty.wav", b"", "audio"), ("text.mp3", b"no sound at all", "audio"), ("none.wav", None, "missing")],
)
def test_failures_have_kinds(told: Told, tmp_path: Path, name: str, content: bytes | None, kind: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    failed = told.one(tmp_path / name)
    assert isinstance(failed, Failed)
    assert failed.kind == kind
    assert name in failed.error


def test_a_folder_and_a_track_that_is_not_there(told: Told, tmp_path: Path) -> None:
    assert told.one(tmp_path).kind == "audio"
    assert told.one(write_wav(tmp_path / "a.wav", 1, 0), audio_track=3).kind == "options"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(told: Told, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", 1, 0)
    path.chmod(0)
    assert told.one(path).kind == "permission"


def test_a_file_that_grows_while_it_is_read(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_wav(tmp_path / "a.wav", 1, 0)
    real = told.worker._decode

    def decode(name: str, options: Any) -> Any:
        samples = real(name, options)
        with open(name, "ab") as file:
            file.write(bytes(100))
        return samples

    monkeypatch.setattr(told.worker, "_decode", decode)
    failed = told.one(path)
    assert failed.kind == "changing"
    assert "32044 bytes became 32144" in failed.error


def test_a_warning_stays_with_its_recording(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = told.worker._decode

    def decode(name: str, options: Any) -> Any:
        if "cut" in name:
            warnings.warn("the rest is missing", RuntimeWarning, stacklevel=1)
        return real(name, options)

    monkeypatch.setattr(told.worker, "_decode", decode)
    monkeypatch.setattr(warnings, "showwarning", told.worker._note_warning)  # pytest puts its own there
    warnings.simplefilter("always")
    assert told.one(write_wav(tmp_path / "cut.wav", 1, 0)).result["warnings"] == ["the rest is missing"]
    assert told.one(write_wav(tmp_path / "whole.wav", 1, 0)).result["warnings"] == []


def test_a_model_or_an_option_that_is_wrong_is_said_once(model: str) -> None:
    assert isinstance(broken := Told("./none.pt").next(), Broken)
    assert "none.pt" in str(broken.error)
    assert isinstance(Told(model, language="xx").next(), Broken)


def test_sound_that_waits_is_bounded() -> None:
    room, cancel, entered = _Room(100), threading.Event(), threading.Event()
    room.enter(1, cancel)
    room.grow(1, 150)
    thread = threading.Thread(target=lambda: (room.enter(2, cancel), entered.set()))
    thread.start()
    assert not entered.wait(0.3)
    room.leave(1)
    assert entered.wait(5)
    thread.join()
