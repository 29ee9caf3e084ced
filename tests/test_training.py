"""`fit`: from a manifest of recordings to a model that loads here and in openai-whisper."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

import whisper
from whisper import training
from whisper.errors import OptionError, TrainingError
from whisper.training import FitOptions, fit

TONES = {"la": 440.0, "mi": 660.0, "so": 990.0}
MICRO = {"shape": "width=64,encoder=1,decoder=1", "window_seconds": (2.0,), "batch_seconds": 12.0, "threads": 1}


def write_tone(path: Path, hertz: float, seconds: float = 0.5) -> None:
    n = int(16000 * seconds)
    samples = np.zeros(n + 8000, dtype=np.float32)
    samples[4000 : 4000 + n] = 0.4 * np.sin(2 * np.pi * hertz * np.arange(n) / 16000)
    samples += np.random.default_rng(int(hertz)).normal(0, 1e-3, len(samples)).astype(np.float32)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tones that stand for words, a noise, and five rows that cannot be used."""
    folder = tmp_path_factory.mktemp("tones")
    rows = ["file\tlanguage\ttext"]
    for i in range(12):
        word = list(TONES)[i % 3]
        write_tone(folder / f"{i}.wav", TONES[word] * (1 + 0.01 * i))
        rows.append(f"{i}.wav\ten\t{word}")
    write_tone(folder / "hum.wav", 60.0, 2.0)
    (folder / "broken.wav").write_bytes(b"RIFF nothing")
    rows += ["hum.wav\tnone\t", "missing.wav\ten\tla", "1.wav\tklingon\tla", "2.wav\ten\t", "broken.wav\ten\tso"]
    (folder / "manifest.tsv").write_text("\n".join(rows))
    return folder / "manifest.tsv"


def test_from_scratch_to_a_model_that_loads(manifest, tmp_path):
    lines: list[str] = []
    fitted = fit(manifest, tmp_path, steps=30, dev=str(manifest), evaluate_every=15, say=lines.append, **MICRO)
    assert [reason.split(":")[0] for _, reason in fitted.skipped] == [
        "missing file", "unknown language", "empty text", "cannot be read",
    ]  # fmt: skip
    assert (tmp_path / "skipped.tsv").read_text().count("\n") == 5
    history = np.array(fitted.run.history)
    assert history[-1][1] < history[0][1]
    assert [step for step, _ in fitted.run.evaluations] == [15, 30]
    assert any("step 25 of 30" in line and "dev" in line for line in lines)
    assert json.loads((tmp_path / "options.json").read_text())["steps"] == 30

    model = whisper.load_model(str(tmp_path / "model.pt"), device="cpu")
    mel = torch.randn(1, 80, 3000)
    torch.testing.assert_close(model.encoder(mel), fitted.model.encoder(mel))
    assert "text" in model.transcribe(np.zeros(16000, np.float32), fp16=False, language="en")
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("events")}
    assert {"model.pt", "last.ckpt", "best.ckpt", "skipped.tsv", "options.json", "features"} <= names
    assert not [name for name in names if name.endswith((".tmp", ".part"))]


@pytest.mark.parametrize("changes", [{"lora_rank": 2}, {"freeze_encoder": True}, {}])
def test_a_checkpoint_is_tuned_in_whole_or_in_part(manifest, tmp_path, changes):
    first = fit(manifest, tmp_path / "first", steps=2, **MICRO)
    options = {"model": str(first.path), "window_seconds": (2.0,), "batch_seconds": 12.0, "threads": 1}
    tuned = fit(manifest, tmp_path / "second", steps=12, learning_rate=3e-3, p_silent=0.0, **options, **changes)
    before, after = first.model.state_dict(), tuned.model.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if changes:
        assert changed
        assert not any(name.startswith("encoder.conv") for name in changed)
    else:
        assert {name.split(".")[0] for name in changed} == {"encoder", "decoder"}
    assert tuned.run.history[-1][1] < tuned.run.history[0][1]


def test_the_same_call_again_goes_on_and_another_is_refused(manifest, tmp_path):
    fit(manifest, tmp_path, steps=3, **MICRO)
    lines: list[str] = []
    whole = fit(manifest, tmp_path, steps=6, say=lines.append, **MICRO)
    assert whole.run.step == 6
    assert any("continuing from" in line for line in lines)
    with pytest.raises(TrainingError, match="seed=1"):
        fit(manifest, tmp_path, steps=8, seed=2, **MICRO)


def test_nothing_to_learn_from_is_an_error(tmp_path):
    (tmp_path / "manifest.tsv").write_text("file\tlanguage\ttext\nnone.wav\ten\tla")
    with pytest.raises(TrainingError, match="nothing to train on"):
        fit(tmp_path / "manifest.tsv", tmp_path / "out", steps=2, **MICRO)


def test_what_is_left_open_is_chosen():
    scratch = FitOptions(shape="nano", epochs=2.0, device="cpu").settings(1.0, training.SHAPES["nano"])
    assert scratch.n_steps == 90  # two hours in steps of 80 s
    assert (scratch.optimiser, scratch.learning_rate, scratch.objective.letters) == ("muon", 2e-3, 1.0)
    tuned = FitOptions(model="tiny", lora_rank=8, device="cpu").settings(1.0, training.SHAPES["tiny"])
    assert (tuned.optimiser, tuned.learning_rate, tuned.objective.letters) == ("adamw", 3e-4, 0.0)
    assert tuned.stages[0].rate == (1.0, 0.0)


@pytest.mark.parametrize("name", ["tiny", "base", "small", "medium", "large", "turbo"])
def test_shapes_are_those_of_the_published_models(name):
    dims = training.SHAPES[name]
    widths = {"tiny": 384, "base": 512, "small": 768, "medium": 1024, "large": 1280, "turbo": 1280}
    assert dims.n_audio_state == dims.n_text_state == widths[name]
    assert dims.n_audio_head == widths[name] // 64
    assert (dims.n_mels, dims.n_vocab) == ((128, 51866) if name == "turbo" else (80, 51865))


@pytest.mark.parametrize(
    ("shape", "right"),
    [("width=128,encoder=2", True), ("width=100,encoder=2", False), ("wide", False), ("width=64", False)],
)  # fmt: skip
def test_shapes_by_hand(shape, right):
    options = FitOptions(shape=shape)
    if right:
        dims = options.dimensions()
        assert (dims.n_audio_state, dims.n_audio_layer, dims.n_text_layer) == (128, 2, 2)
    else:
        with pytest.raises(OptionError, match="width=256,encoder=4,decoder=2"):
            options.dimensions()


def test_nano_is_tuned_in_its_own_pieces_and_english_models_skip_the_rest(manifest):
    nano = whisper.load_model("nano", device="cpu")
    assert training._has_short_pieces(nano)
    plain = whisper.model.Whisper(training.FitOptions(shape="width=64,encoder=1").dimensions())
    assert not training._has_short_pieces(plain)


@pytest.mark.slow
def test_nano_learns_a_new_word(tmp_path):
    """A sentence that nano does not know is written right after a short fine-tuning on it."""
    sample = Path(__file__).resolve().parent.parent / "examples" / "sample.flac"
    (tmp_path / "manifest.tsv").write_text(f"file\tlanguage\ttext\n{sample}\ten\tla la mi so do\n")
    fitted = fit(tmp_path / "manifest.tsv", tmp_path / "out", model="nano", steps=25, batch_seconds=60.0,
                 learning_rate=3e-4, augment="none", p_silent=0.0, p_prompt=0.0, threads=2)  # fmt: skip
    result = fitted.model.transcribe(str(sample), fp16=False, temperature=0.0, language="en")
    assert result["text"].split() == ["la", "la", "mi", "so", "do"]


@pytest.mark.peers
def test_the_original_loads_what_was_trained(manifest, tmp_path, original):
    fitted = fit(manifest, tmp_path, steps=2, **MICRO)
    code = """
import torch, whisper
model = whisper.load_model(arguments["path"], device="cpu")
mel = torch.linspace(-1, 1, 80 * 3000).reshape(1, 80, 3000)
answer = [model.encoder(mel).double().sum().item(), model.is_multilingual]
"""
    told = original(code, tmp_path, path=str(fitted.path))
    mel = torch.linspace(-1, 1, 80 * 3000).reshape(1, 80, 3000)
    assert told[0] == pytest.approx(fitted.model.encoder(mel).double().sum().item(), rel=1e-4, abs=0.1)
    assert told[1] is True
