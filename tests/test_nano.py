"""The bundled model: what it must recognize, and that it is silent on non-speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import whisper
from whisper.checkpoints import bundled
from whisper.evaluation import run

from .conftest import read_rows

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "sample.flac"
SAID = "computer one two three smart mirror"


@pytest.fixture(scope="module")
def nano():
    return whisper.load_model("nano", device="cpu")


def test_it_fits_the_wheel_and_has_the_ordinary_shape(nano):
    assert Path(bundled.BUNDLED).stat().st_size <= bundled.MAX_BYTES
    dims = nano.dims
    assert (dims.n_mels, dims.n_audio_ctx, dims.n_vocab, dims.n_text_ctx) == (80, 1500, 51865, 448)
    assert nano.is_multilingual


def test_it_reads_the_sample_and_says_when(nano):
    result = nano.transcribe(str(SAMPLE), fp16=False)
    assert result["language"] == "en"
    assert result["text"].split() == SAID.split()
    times = [time for segment in result["segments"] for time in (segment["start"], segment["end"])]
    assert times == sorted(times)
    assert len(result["segments"]) == 3
    assert 0 <= times[0] < times[-1] <= 8


@pytest.mark.parametrize("level", [0.0, 1e-3, 0.1])
def test_no_text_on_non_speech(nano, level):
    samples = np.random.default_rng(0).normal(0, 1, 30 * 16000).astype(np.float32) * level
    assert nano.transcribe(samples, fp16=False)["text"].strip() == ""


def test_it_ends_by_itself(nano):
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(whisper.load_audio(str(SAMPLE))))
    for plain in (False, True):
        options = whisper.DecodingOptions(language="en", fp16=False, without_timestamps=plain)
        assert 6 <= len(whisper.decode(nano, mel, options).tokens) < 60


@pytest.mark.shared
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", ["digits", "wakeword"])
def test_it_reads_digits_and_wake_phrases_of_recordings_that_it_was_not_trained_on(nano, shared_data, part):
    score = run.measure(nano, shared_data / "dev", [part])[part]
    assert score.rate <= 0.03, str(score)


@pytest.mark.shared
@pytest.mark.exhaustive
@pytest.mark.timeout(300)
def test_it_gets_the_gist_of_short_sentences(nano, shared_data):
    score = run.measure(nano, shared_data / "dev", ["speechocean762"], limit=60)["speechocean762"]
    assert score.rate < 0.75, str(score)


@pytest.mark.shared
@pytest.mark.exhaustive
@pytest.mark.timeout(300)
def test_it_is_silent_at_noise_and_music(nano, shared_data):
    rows = [row for row in read_rows(shared_data / "dev") if row["language"] == "none"]
    texts = {row["file"]: nano.transcribe(row["path"], fp16=False, temperature=0.0)["text"] for row in rows}
    given = {name: text for name, text in texts.items() if text.strip()}
    assert len(given) <= 0.05 * len(rows), given


@pytest.mark.shared
@pytest.mark.exhaustive
def test_it_hears_which_language_is_spoken(nano, shared_data):
    rows = [row for row in read_rows(shared_data / "dev") if row["file"].startswith(("commonvoice_en", "multilingual"))]
    rows = [row for row in rows if row["language"] == "fr"] + [row for row in rows if row["language"] == "en"][:40]
    right = 0
    for row in rows:
        mel = whisper.log_mel_spectrogram(whisper.load_audio(row["path"]), padding=480000)[:, :3000]
        _, probabilities = nano.detect_language(mel)
        right += max(probabilities, key=lambda code: probabilities[code]) == row["language"]
    assert right >= 0.9 * len(rows)
