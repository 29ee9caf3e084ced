"""`fit`: from a manifest of recordings to a model that loads here and in openai-whisper."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

import whisper
from whisper.errors import OptionError, TrainingError
from whisper.training import FitOptions
from whisper.training.dev_evaluation import DevEvaluator
from whisper.training.feature_store import open_store
from whisper.training.fit import _has_short_merges, fit

from ..models import random_model, save_model

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
    """Twelve tones as words, a noise, and four entries that cannot be used."""
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


@pytest.mark.slow
def test_from_scratch_to_a_model_that_loads(manifest, tmp_path):
    lines: list[str] = []
    fitted = fit(
        manifest, tmp_path, steps=30, dev=str(manifest), dev_clips=2, evaluate_every=15, say=lines.append, **MICRO
    )
    assert [reason.split(":")[0] for _, reason in fitted.skipped] == [
        "missing file", "unknown language", "empty text", "cannot be read",
    ]  # fmt: skip
    listed = (tmp_path / "skipped.tsv").read_text().splitlines()
    assert len([line for line in listed if line.startswith("dev: ")]) >= 4  # with the non-speech entry
    assert listed[1] == "line 15\tmissing file: missing.wav"
    history = np.array(fitted.run.history)
    assert history[-1][1] < history[0][1]
    assert [step for step, _ in fitted.run.evaluations] == [15, 30]
    assert any("step 25 of 30" in line and "dev" in line and "left" in line for line in lines)
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


def test_the_same_call_resumes_and_another_is_refused(manifest, tmp_path):
    fit(manifest, tmp_path, steps=3, **MICRO)
    lines: list[str] = []
    whole = fit(manifest, tmp_path, steps=6, say=lines.append, **MICRO)
    assert whole.run.step == 6
    assert any("resuming from" in line for line in lines)
    with pytest.raises(TrainingError, match="seed=1"):
        fit(manifest, tmp_path, steps=8, seed=2, **MICRO)


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_rank": 2, "optimiser": "muon"},
        pytest.param({"freeze_encoder": True, "average": 0.9}, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_fine_tuning_resumes_to_the_same_model(manifest, tmp_path, changes):
    base = save_model(random_model(3, n_state=64, n_audio_layer=1, n_text_layer=1), tmp_path / "base.pt")
    options = {"model": base, "window_seconds": 2, "batch_seconds": 4, "steps": 4, "threads": 1, **changes}
    asked = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        fit(manifest, tmp_path / "stopped", stopped=lambda: next(asked), **options)
    again, whole = (fit(manifest, tmp_path / name, **options) for name in ("stopped", "whole"))
    assert (again.run.first_step, again.run.step) == (2, 4)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


def test_nothing_to_train_on_is_an_error(tmp_path):
    (tmp_path / "manifest.tsv").write_text("file\tlanguage\ttext\nnone.wav\ten\tla")
    with pytest.raises(TrainingError, match="nothing to train on"):
        fit(tmp_path / "manifest.tsv", tmp_path / "out", steps=2, **MICRO)


@pytest.mark.slow
def test_options_of_the_data_change_the_training_data(manifest, tmp_path):
    """`test_fit_options` holds the list of all options; these act on recordings, not on settings."""
    folder = manifest.parent
    (tmp_path / "m.tsv").write_text(f"file\ttext\n{folder / '0.wav'}\tLa!\n{folder / '1.wav'}\tMi!\n")
    (tmp_path / "dev.tsv").write_text(
        "file\tlanguage\ttext\n" + "".join(f"{folder}/{i}.wav\ten\tla\n" for i in range(9))
    )

    def trained(**values):
        lines: list[str] = []
        name = "-".join(map(str, values.values()))
        options = {"language": "en", **values}
        run = fit(tmp_path / "m.tsv", tmp_path / name, steps=1, p_silent=0.0, say=lines.append, **options, **MICRO).run
        store = open_store(tmp_path / name / "features")
        return [c.text for c in store.clips], {c.language for c in store.clips}, run.network.vocabulary, lines

    texts, languages, vocabulary, _ = trained(text="plain")
    assert (texts, languages) == (["la", "mi"], {"en"})
    assert trained(text="as_given")[0] == ["La!", "Mi!"]
    assert trained(language="french")[1] == {"fr"}
    t = vocabulary.tokenizer
    assert [vocabulary.token_ids[row] for row in vocabulary.start_sequence("en")] == [t.sot, t.sot + 1, t.transcribe]
    translating = trained(task="translate")[2]
    assert translating.token_ids[translating.start_sequence("en")[-1]] == t.translate
    lines = trained(dev=str(tmp_path / "dev.tsv"), dev_clips=5)[3]
    assert any(line.endswith("dev.tsv: 5 recordings to evaluate on") for line in lines)


def test_unusable_entries_are_listed(tmp_path, manifest):
    """An English-only checkpoint; entries of other languages, without a language, and with too long texts."""
    base = save_model(random_model(3, n_vocab=51864, n_state=64, n_audio_layer=1, n_text_layer=1), tmp_path / "en.pt")
    texts = [("en", "la"), ("", "mi"), ("fr", "so"), ("yue", "so"), ("en", "la " * 300), ("en", "la mi so " * 9)]
    for i, (_, text) in enumerate(texts):
        write_tone(tmp_path / f"{i}.wav", 440.0, 0.5 if len(text) < 20 else 5.0)
    rows = [f"{i}.wav\t{language}\t{text}\n" for i, (language, text) in enumerate(texts)]
    (tmp_path / "m.tsv").write_text("file\tlanguage\ttext\n" + "".join(rows))
    fitted = fit(
        tmp_path / "m.tsv", tmp_path / "out", model=base, steps=1, window_seconds=2, batch_seconds=4, threads=1
    )
    assert [reason for _, reason in fitted.skipped] == [
        "language fr: the model is English-only",
        "language yue: the model is English-only",
        "too long: a text of 300 tokens, a window has 220",
        "longer than the windows: 5.5 s of speech, a window of 2 s takes 1.8",
    ]
    assert not fitted.model.is_multilingual
    (tmp_path / "m.tsv").write_text("file\ttext\n5.wav\tla mi so\n")
    with pytest.raises(TrainingError, match=r"no recording fits into windows of 2 s, the shortest has 5\.5 s"):
        fit(tmp_path / "m.tsv", tmp_path / "none", model=base, steps=1, window_seconds=2)
    with pytest.raises(OptionError, match="is English-only"):
        fit(manifest, tmp_path / "none", model=base, task="translate")


def test_large_models_can_be_trained(tmp_path, manifest):
    """128 bands and a hundred languages."""
    model = random_model(3, n_mels=128, n_vocab=51866, n_state=64, n_audio_layer=1, n_text_layer=1)
    base = save_model(model, tmp_path / "turbo.pt")
    (tmp_path / "m.tsv").write_text(f"file\tlanguage\ttext\n{manifest.parent / '0.wav'}\tyue\t啦\n")
    fitted = fit(tmp_path / "m.tsv", tmp_path / "out", model=base, steps=1, window_seconds=2, batch_seconds=4)
    assert fitted.skipped == []
    assert (fitted.model.dims.n_mels, fitted.model.dims.n_vocab) == (128, 51866)


def test_another_training_is_refused_and_nothing_is_changed(manifest, tmp_path):
    base = save_model(random_model(3, n_state=64, n_audio_layer=1, n_text_layer=1), tmp_path / "base.pt")
    (tmp_path / "m.tsv").write_text(f"file\tlanguage\ttext\n{manifest.parent / '0.wav'}\ten\tla\n")
    out, common = tmp_path / "out", {"steps": 1, "window_seconds": 2, "batch_seconds": 4, "lora_rank": 1}
    fit(tmp_path / "m.tsv", out, model=base, **common)

    def refused(match, **values):
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(TrainingError, match=match):
            fit(tmp_path / "m.tsv", out, **{"model": base, **common, **values})
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    refused("augment='mild', and now it is 'none'", augment="none")
    refused("another model to fine-tune", model="nano")
    refused("would be overwritten", model=out / "model.pt")
    (tmp_path / "m.tsv").write_text(f"file\tlanguage\ttext\n{manifest.parent / '0.wav'}\ten\tmi\n")
    refused("other recordings")
    with FileLock(out / "training.lock"):
        refused("another process is training")


def test_early_stopping_keeps_the_best(manifest, tmp_path, monkeypatch):
    errors = iter([0.9, 0.4, 0.5, 0.6])
    monkeypatch.setattr(DevEvaluator, "__call__", lambda self, model: next(errors))
    lines: list[str] = []
    fitted = fit(manifest, tmp_path, steps=9, dev=str(manifest), dev_clips=2, evaluate_every=1, patience=2,
                 say=lines.append, **MICRO)  # fmt: skip
    assert fitted.error == 0.4
    assert "stopped at step 4: 2 evaluations without improvement" in lines
    assert "best at step 2: word error rate on dev 40.0 %" in lines


def test_a_model_with_a_reduced_vocabulary_is_recognized(manifest):
    nano = whisper.load_model("nano", device="cpu")
    assert _has_short_merges(nano)
    plain = whisper.model.Whisper(FitOptions(shape="width=64,encoder=1").dimensions())
    assert not _has_short_merges(plain)


@pytest.mark.slow
def test_nano_learns_a_new_word(tmp_path):
    """A sentence that nano does not know is written right after a short fine-tuning on it."""
    sample = Path(__file__).resolve().parent.parent.parent / "examples" / "sample.flac"
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
    found = original(code, tmp_path, path=str(fitted.path))
    mel = torch.linspace(-1, 1, 80 * 3000).reshape(1, 80, 3000)
    assert found[0] == pytest.approx(fitted.model.encoder(mel).double().sum().item(), rel=1e-4, abs=0.1)
    assert found[1] is True
