"""The backend `pyannote`, on a stand-in with the public interface of pyannote.audio 3 and 4."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import whisper
from whisper.errors import DownloadError, MissingDependencyError, OptionError
from whisper.speakers import pyannote_pipeline
from whisper.speakers.diarization import Turn
from whisper.speakers.pyannote_pipeline import VARIABLE, one_at_a_time


class Annotation:
    def __init__(self, *turns: tuple[float, float, str]) -> None:
        self.turns = turns

    def itertracks(self, yield_label: bool = False) -> Iterator[Any]:
        assert yield_label
        return ((SimpleNamespace(start=a, end=b), i, name) for i, (a, b, name) in enumerate(self.turns))


FOUND = Annotation((2.0, 5.0, "A"), (0.5, 3.0, "B"), (4.0, 4.5, "B"))
ALONE = Annotation((0.5, 2.5, "B"), (2.5, 5.0, "A"))


class Pipeline:
    """What pyannote's class gives; what is asked of it is written down."""

    asked: list[dict[str, Any]]
    answer: Any = FOUND
    given: Any = ()

    def __call__(self, file: dict[str, Any], **numbers: Any) -> Any:
        assert file["waveform"].shape == (1, 80000)
        assert file["waveform"].dtype == torch.float32
        self.asked.append({"rate": file["sample_rate"], **numbers})
        return self.answer


class Pipeline3(Pipeline):
    @classmethod
    def from_pretrained(cls, name: str, hparams_file: Any = None, use_auth_token: Any = None) -> Any:
        cls.asked.append({"name": name, "token": use_auth_token})
        return cls() if cls.given == () else cls.given


class Pipeline4(Pipeline):
    answer = SimpleNamespace(speaker_diarization=FOUND, exclusive_speaker_diarization=ALONE)

    @classmethod
    def from_pretrained(cls, name: str, token: Any = None) -> Any:
        cls.asked.append({"name": name, "token": token})
        if isinstance(cls.given, Exception):
            raise cls.given
        return cls()


@pytest.fixture(params=[Pipeline3, Pipeline4])
def pipeline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Pipeline]]:
    """Put a stand-in where the package would be, and a token into the environment."""
    made: type[Pipeline] = type("Made", (request.param,), {"asked": []})
    modules = {"pyannote": ModuleType("pyannote"), "pyannote.audio": ModuleType("pyannote.audio")}
    hub = ModuleType("huggingface_hub")
    vars(modules["pyannote.audio"])["Pipeline"] = made
    vars(hub)["get_token"] = lambda: "secret"
    for name, module in {**modules, "huggingface_hub": hub}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(pyannote_pipeline, "find_spec", lambda name: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(VARIABLE, raising=False)
    pyannote_pipeline.pipeline.cache_clear()
    yield made
    pyannote_pipeline.pipeline.cache_clear()


SOUND = np.zeros(80000, np.float32)


def test_turns_names_and_numbers(pipeline: type[Pipeline]) -> None:
    found = whisper.diarize(SOUND, backend="pyannote", num_speakers=2)
    whisper.diarize(SOUND, backend="pyannote", min_speakers=2, max_speakers=4)
    whisper.diarize(SOUND, backend="pyannote")
    assert found.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert found.turns == (
        Turn(0.5, 3.0, "SPEAKER_00"), Turn(2.0, 5.0, "SPEAKER_01"), Turn(4.0, 4.5, "SPEAKER_00"),
    )  # fmt: skip
    ours = issubclass(pipeline, Pipeline3)  # version 4 says itself who is heard best
    end = 3.0 if ours else 2.5
    assert found.exclusive == (Turn(0.5, end, "SPEAKER_00"), Turn(end, 5.0, "SPEAKER_01"))
    loaded, *calls = pipeline.asked
    assert loaded["token"] == "secret"
    assert loaded["name"].startswith("pyannote/speaker-diarization-")
    assert calls == [
        {"rate": 16000, "num_speakers": 2}, {"rate": 16000, "min_speakers": 2, "max_speakers": 4},
        {"rate": 16000, "min_speakers": 1},
    ]  # fmt: skip


def test_a_pipeline_of_this_machine_needs_no_token(
    pipeline: type[Pipeline], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    config = tmp_path / "config.yaml"
    config.touch()
    monkeypatch.setenv(VARIABLE, str(config))
    vars(sys.modules["huggingface_hub"])["get_token"] = lambda: None
    whisper.diarize(SOUND, backend="pyannote")
    assert pipeline.asked[0] == {"name": str(config), "token": None}


def test_what_is_wrong_is_told(pipeline: type[Pipeline]) -> None:
    with pytest.raises(OptionError, match="knows no voices"):
        whisper.diarize(SOUND, backend="pyannote", known_speakers={"Ana": SOUND})
    pipeline.given = None if issubclass(pipeline, Pipeline3) else RuntimeError("gated")
    with pytest.raises(DownloadError, match=r"terms are accepted at https://huggingface\.co/pyannote/"):
        whisper.diarize(SOUND, backend="pyannote")
    vars(sys.modules["huggingface_hub"])["get_token"] = lambda: None
    with pytest.raises(DownloadError, match="set HF_TOKEN"):
        whisper.diarize(SOUND, backend="pyannote")


def test_nothing_is_loaded_for_nothing(pipeline: type[Pipeline]) -> None:
    assert whisper.diarize(np.zeros(0, np.float32), backend="pyannote").turns == ()
    assert pipeline.asked == []


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyannote_pipeline, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"sotto\[pyannote\]"):
        whisper.diarize(SOUND, backend="pyannote")


def test_who_has_begun_keeps_the_time() -> None:
    turns = (Turn(0, 4, "a"), Turn(1, 2, "b"), Turn(3, 6, "b"), Turn(7, 8, "a"))
    assert one_at_a_time(turns) == (Turn(0, 4, "a"), Turn(4, 6, "b"), Turn(7, 8, "a"))
