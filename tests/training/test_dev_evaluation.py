"""Evaluation during a training: what is scored, what is skipped and why, and the error rate."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from whisper.errors import TrainingError
from whisper.training import dev_evaluation
from whisper.training.dev_evaluation import DevEvaluator, DevSetOptions

from ..models import random_model


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [
        ("a", "en", "hello world", 1.0), ("b", "fr", "un deux trois", 2.0), ("c", "none", "", 1.0),
        ("d", "en", "", 1.0),
        ("e", "", "three", 1.0), ("f", "yue", "x", 1.0), ("g", "en", "long", 31.0), ("h", "en", "brief", 0.05),
        ("i", "en", "four", None),
    ]  # fmt: skip
    for name, _, _, seconds in rows:
        if seconds is None:
            (tmp_path / f"{name}.wav").write_bytes(b"RIFF nothing")
            continue
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(np.random.default_rng(0).integers(-999, 999, int(16000 * seconds), "<i2").tobytes())
    lines = [f"{name}.wav\t{language}\t{text}" for name, language, text, _ in rows]
    (tmp_path / "dev.tsv").write_text("\n".join(["file\tlanguage\ttext", *lines, "none.wav\ten\tx"]))
    return tmp_path / "dev.tsv"


def test_skipped_recordings_are_listed(manifest):
    found = DevEvaluator(DevSetOptions(manifest, 80, ("en", "fr")))
    assert [(text, language) for text, language, _ in found.content] == [("hello world", "en"), ("un deux trois", "fr")]
    reasons = {Path(what).stem: reason for what, reason in found.skipped}
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        "line 11": "missing file",
        "c": "no speech",
        "d": "empty text",
        "e": "language not given; set one for all such entries",
        "f": "language yue",
        "g": "too long for a window of 30 s",
        "h": "too short",
        "i": "cannot be read",
    }
    assert len(DevEvaluator(DevSetOptions(manifest, 80, ("en", "fr"), language="en"))) == 3
    with pytest.raises(TrainingError, match=r"dev.tsv has no recording to evaluate on \(line 11: missing file"):
        DevEvaluator(DevSetOptions(manifest, 80, ("de",)))


def test_errors_are_counted_over_all_languages(manifest, monkeypatch):
    texts = {"en": ["Hello, world!"], "fr": ["un dix quatre cinq"]}
    monkeypatch.setattr(DevEvaluator, "_transcribe", lambda self, model, clips: texts[clips[0].language])
    threads = torch.get_num_threads()
    assert DevEvaluator(DevSetOptions(manifest, 80, ("en", "fr"), threads=2))(random_model(1)) == pytest.approx(3 / 5)
    assert torch.get_num_threads() == threads


def test_the_language_is_that_of_the_recording(manifest, monkeypatch):
    asked = []

    def decode(model, mel, options):
        asked.append((tuple(mel.shape), options.language, options.task))
        return [type("Result", (), {"text": ""}) for _ in mel]

    monkeypatch.setattr(dev_evaluation, "decode", decode)
    assert DevEvaluator(DevSetOptions(manifest, 80, ("en", "fr")))(random_model(1)) == 1.0
    assert asked == [((1, 80, 3000), "en", "transcribe"), ((1, 80, 3000), "fr", "transcribe")]
