"""Training: what it is fed, that it learns, that it continues where it was killed, and what it exports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from whisper import augment, composing, datasets, evaluation, training
from whisper.errors import TrainingError
from whisper.model import ModelDimensions

ROOT = Path(__file__).resolve().parent.parent
RECIPE = composing.Recipe(lengths=(1.5, 2.0), weights={"toy": 1.0}, p_prompt=0.2)


@pytest.fixture(scope="module")
def store() -> datasets.Store:
    return datasets.toy_store(seed=3)


@pytest.fixture(scope="module")
def vocabulary(store: datasets.Store) -> composing.Vocabulary:
    return composing.Vocabulary([clip.text for clip in store.clips])


def micro(steps: int = 12, **changes: object) -> training.Settings:
    dims = ModelDimensions(80, 1500, 64, 2, 1, 51865, 448, 64, 2, 1)
    stage = training.Stage(steps, RECIPE, seconds_per_step=12, average=0.8)
    values: dict[str, object] = {"warmup": 4, "save_every": 5, **changes}
    return training.Settings((stage,), dims, **values)  # type: ignore[arg-type]


# -- learning ----------------------------------------------------------------------------------------------


def test_loss_falls_and_the_export_is_a_whole_model(store, vocabulary, tmp_path):
    run = training.train(micro(30), store, vocabulary, tmp_path)
    losses = np.array(run.history)[:, 1:].sum(axis=1)
    assert losses[-5:].mean() < 0.7 * losses[:5].mean()

    model = training.export(run)
    learner = run.learner
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            parameter.copy_(run.average[name])
        batch = training.make_batch(0, micro(), store, vocabulary)
        tokens, features = batch.tokens[:2, :6], torch.randn(2, 50, 64)
        compact = learner.decode(tokens, features).log_softmax(-1)[..., : vocabulary.fill]
        ids = torch.tensor(vocabulary.ids + list(range(vocabulary.tokenizer.timestamp_begin, 51865)))
        rows = torch.tensor([*range(vocabulary.fill), *range(vocabulary.timestamp_begin, vocabulary.n_rows)])
        full_of_row = torch.zeros(vocabulary.n_rows, dtype=torch.long)
        full_of_row[rows] = ids
        full = model.decoder(full_of_row[tokens], features).log_softmax(-1)
        torch.testing.assert_close(full[..., vocabulary.ids], compact, atol=0.05, rtol=0.02)

        mel = torch.randn(1, 80, 3000)
        torch.testing.assert_close(model.encoder(mel), learner.encode(mel), atol=0.15, rtol=0.1)
    unused = sorted(set(range(51865)) - set(ids.tolist()))
    table = model.decoder.token_embedding.weight
    assert len(unused) == vocabulary.n_unused
    assert (table[unused] == table[unused[0]]).all()


def test_a_killed_run_continues_to_the_same_weights(store, vocabulary, tmp_path):
    whole = training.train(micro(), store, vocabulary, tmp_path / "whole")
    training.train(micro(), store, vocabulary, tmp_path / "killed", until=7)  # the last checkpoint is of step 7
    resumed = training.train(micro(), store, vocabulary, tmp_path / "killed")
    assert resumed.step == whole.step == 12
    assert resumed.history == whole.history
    for name, average in whole.average.items():
        assert torch.equal(resumed.average[name], average), name


def test_orthogonalise_brings_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((2, 64, 64), (2, 32, 128), (2, 128, 32)):
        values = torch.linalg.svdvals(training.orthogonalise(torch.randn(shape)))
        assert values.max() < 1.35
        assert values.median() > 0.6


def test_rates_follow_the_stages():
    stages = (training.Stage(10, RECIPE), training.Stage(10, RECIPE, rate=(1.0, 0.0)))
    settings = training.Settings(stages, learning_rate=2.0, warmup=5)
    assert [settings.rate_at(step) for step in (0, 4, 9, 10, 15)] == [0.4, 2.0, 2.0, 2.0, 1.0]
    with pytest.raises(TrainingError, match="20 steps"):
        settings.rate_at(20)


def test_the_script_trains_a_toy_in_seconds(tmp_path):
    script = [sys.executable, str(ROOT / "scripts" / "train-nano"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "nano.safetensors").stat().st_size < 25_000_000


# -- windows and targets -----------------------------------------------------------------------------------


def test_windows_and_targets_tell_the_same_story(store, vocabulary):
    v, seen = vocabulary, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        window = composing.compose(rng, store, RECIPE, 4.0)
        target = composing.make_target(rng, window, v, RECIPE, ["la la"])
        assert window.mel.shape == (400, 80)
        assert np.isfinite(window.mel).all()
        assert len(target.tokens) == len(target.expected)
        assert target.expected[-1] == v.special("eot")
        said = [row for row in target.expected if row >= v.timestamp_begin]
        assert said == sorted(said)
        for segment in window.segments:
            assert 0 <= segment.start < segment.end <= 400
        spelled = "".join(" " if c == 1 else datasets.LETTERS[c - 2] for c in target.letters)
        assert spelled == " ".join(segment.text for segment in window.segments)
        if window.segments:
            text = [v.ids[row] for row in target.expected if 0 <= row < len(v.text_ids)]
            assert v.tokenizer.decode(text).strip() == spelled
            seen += 1
    assert seen > 30


def test_silence_says_that_nobody_speaks_and_ends(store, vocabulary):
    v = vocabulary
    silent = composing.Recipe(weights={"toy": 1.0}, p_silent=1.0, p_prompt=0.0, p_plain=0.0)
    rng = np.random.default_rng(1)
    target = composing.make_target(rng, composing.compose(rng, store, silent, 2.0), v, silent, [])
    assert target.expected == [
        v.special("no_speech"), v.special("transcribe"), v.timestamp_begin, v.special("eot"),
    ]  # fmt: skip


def test_a_step_is_a_function_of_its_number(store, vocabulary):
    first, again, other = (training.make_batch(step, micro(), store, vocabulary) for step in (3, 3, 4))
    assert torch.equal(first.mel, again.mel)
    assert torch.equal(first.tokens, again.tokens)
    assert first.mel.shape != other.mel.shape or not torch.equal(first.mel, other.mel)


# -- data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reduced"),
    [
        ("WE'RE BUT YOUNG", "we're but young"),
        ("'Tis a “most” curious—business.", "tis a most curious business"),
        ("L’œuvre d'été, ça Škoda", "l'oeuvre d'été ça skoda"),
    ],
)
def test_reduce_text(text, reduced):
    assert datasets.reduce_text(text) == reduced


def test_speech_bounds_find_the_loud_part():
    power = np.random.default_rng(0).normal(-6, 0.1, (300, 80)).astype(np.float32)
    power[100:180] += 3
    start, end = datasets.speech_bounds(power)
    assert abs(start - 100) <= 8
    assert abs(end - 180) <= 8


def test_manifests_are_read_and_refused(tmp_path):
    with pytest.raises(TrainingError, match="does not exist"):
        datasets.read_manifest(tmp_path)
    rows = ["file\tlanguage\ttranscript\tspeaker", "commonvoice_en/a.mp3\ten\tOne.\tx"]
    rows += ["commonvoice_en/b.mp3\ten\tTwo.\tx", "noise/c.mp3\tnone\t\t", "digits/d.flac\ten\t\ty"]
    (tmp_path / "manifest.tsv").write_text("\n".join(rows))
    read = datasets.read_manifest(tmp_path, max_per_speaker=1)
    assert [(r.source, r.text) for r in read] == [("commonvoice_en", "one")]


def test_features_agree_with_the_spectrogram_and_are_kept(tmp_path):
    from whisper.audio import log_mel_spectrogram

    samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    power = datasets.log_power(samples).T
    normalised = (np.maximum(power, power.max() - 8) + 4) / 4
    np.testing.assert_allclose(normalised, log_mel_spectrogram(samples).numpy(), atol=1e-4)
    with pytest.raises(TrainingError, match="nothing to train on"):
        datasets.build_store([datasets.Recording("missing.wav", "x", "en", "a", "")], tmp_path)


# -- augmentation ------------------------------------------------------------------------------------------


def test_augmentations_do_what_their_names_say():
    power = np.full((100, 80), -5.0, dtype=np.float32)
    power[:, 20] = 0.0
    assert augment.resample_time(power, 2.0).shape == (50, 80)
    assert augment.warp_frequency(power, 1.3)[0].argmax() > 22
    limited = augment.limit_band(power, 4000)
    assert limited[:, 20].max() == 0.0
    assert limited[:, 75:].max() <= -9.0
    np.testing.assert_allclose(augment.add_powers(power, power), power + np.log10(2), rtol=1e-5)
    power[50:] = -8.0
    assert augment.reverberate(power, 0.5, 0.0)[52, 20] > -3.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert np.isfinite(augment.background(rng, 200)).all()


# -- evaluation --------------------------------------------------------------------------------------------


def test_word_errors_count_edits():
    assert evaluation.word_errors(["a", "b", "c"], ["a", "c", "d"]) == 2
    assert evaluation.word_errors([], ["x"]) == 1
    score = evaluation.score_words(["Big trees.", "grow"], ["big trees", "row"])
    assert (score.errors, score.total, score.clips) == (1, 3, 2)
    assert score.low <= score.rate <= score.high
