"""The trainer: the loss falls, a resumed run ends with the same weights, early stopping, and export of a full model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from whisper.errors import TrainingError
from whisper.model import ModelDimensions, Whisper
from whisper.training import feature_store, mixing, targets, trainer
from whisper.training.network import FINE_TUNING

DIMS = ModelDimensions(80, 1500, 64, 2, 1, 51865, 448, 64, 2, 1)
RECIPE = mixing.Recipe(lengths=(1.5, 2.0), p_prompt=0.2, p_excerpt=0.3)


@pytest.fixture(scope="module")
def store() -> feature_store.FeatureStore:
    return feature_store.toy_store(seed=3)


@pytest.fixture(scope="module")
def vocabulary(store: feature_store.FeatureStore) -> targets.Vocabulary:
    return targets.reduced_vocabulary([clip.text for clip in store.clips])


def micro(steps: int = 12, **changes: object) -> trainer.Settings:
    stage = trainer.Stage(steps, RECIPE, seconds_per_step=12, ema_decay=0.8)
    values: dict[str, object] = {"warmup": 4, "save_every": 5, **changes}
    return trainer.Settings((stage,), DIMS, **values)  # type: ignore[arg-type]


def weights(run: trainer.Run) -> dict[str, torch.Tensor]:
    return {**run.ema, **{f"now.{name}": p.detach() for name, p in run.trainable().items()}}


def assert_same(a: trainer.Run, b: trainer.Run) -> None:
    assert a.step == b.step
    assert a.history == b.history
    assert a.evaluations == b.evaluations
    for name, tensor in weights(a).items():
        assert torch.equal(weights(b)[name], tensor), name


def test_loss_falls_and_the_export_is_a_full_model(store, vocabulary, tmp_path):
    run = trainer.train(micro(30), store, vocabulary, tmp_path)
    losses = np.array(run.history)[:, 1:3].sum(axis=1)
    assert losses[-5:].mean() < 0.7 * losses[:5].mean()

    model, network = trainer.export(run), run.network
    with torch.no_grad():
        for name, parameter in run.trainable().items():
            parameter.copy_(run.ema[name])
        batch = trainer.make_batch(0, micro(), store, vocabulary)
        tokens, features = batch.tokens[:2, :6], torch.randn(2, 50, 64)
        compact = network.decode(tokens, features)[0].log_softmax(-1)[..., : vocabulary.unused_index]
        ids = torch.tensor([*vocabulary.token_ids, *range(vocabulary.tokenizer.timestamp_begin, 51865)])
        indices = torch.tensor([*range(vocabulary.unused_index), *range(vocabulary.timestamp_begin, vocabulary.size)])
        id_of_index = torch.zeros(vocabulary.size, dtype=torch.long)
        id_of_index[indices] = ids
        full = model.decoder(id_of_index[tokens], features).log_softmax(-1)
        torch.testing.assert_close(full[..., list(vocabulary.token_ids)], compact, atol=0.05, rtol=0.02)

        mel = torch.randn(1, 80, 3000)
        torch.testing.assert_close(model.encoder(mel), network.encode(mel), atol=0.15, rtol=0.1)
    unused = sorted(set(range(51865)) - set(targets.used_token_ids(vocabulary)))
    table = model.decoder.token_embedding.weight
    assert len(unused) == vocabulary.n_unused
    assert (table[unused] == table[unused[0]]).all()
    assert model.alignment_heads.to_dense().nonzero().tolist() == [[0, 0]]  # the guided heads that there are


def test_a_resumed_run_ends_with_the_same_weights(store, vocabulary, tmp_path):
    errors = iter([0.5, 0.4, 0.6])
    settings = micro(evaluate_every=4)
    whole = trainer.train(settings, store, vocabulary, tmp_path / "whole", evaluate=lambda _: next(errors))
    errors = iter([0.5])
    trainer.train(settings, store, vocabulary, tmp_path / "killed", until=5, evaluate=lambda _: next(errors))
    errors = iter([0.4, 0.6])
    (tmp_path / "killed" / "last.ckpt.1.tmp").write_bytes(b"half a checkpoint")  # from a kill during a write
    again = trainer.train(settings, store, vocabulary, tmp_path / "killed", evaluate=lambda _: next(errors))
    assert whole.step == 12
    assert_same(again, whole)


def test_a_stopped_run_loses_no_step(store, vocabulary, tmp_path):
    settings, asked = micro(5, save_every=1000), iter([False, False, True])
    stopped = trainer.train(settings, store, vocabulary, tmp_path / "stopped", stopped=lambda: next(asked))
    assert stopped.step == 3
    again = trainer.train(settings, store, vocabulary, tmp_path / "stopped")
    assert again.first_step == 3
    assert_same(again, trainer.train(settings, store, vocabulary, tmp_path / "whole"))


def test_long_steps_are_saved_by_time(store, vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    asked = iter([False, False])
    with pytest.raises(StopIteration):  # at step 3, as an error of the step would
        trainer.train(micro(12, save_every=1000), store, vocabulary, tmp_path, stopped=lambda: next(asked))
    assert torch.load(tmp_path / trainer.LAST)["step"] == 2


def test_a_damaged_checkpoint_is_reported(store, vocabulary, tmp_path):
    trainer.train(micro(1), store, vocabulary, tmp_path)
    content = (tmp_path / trainer.LAST).read_bytes()
    for broken in (content[: len(content) // 2], b"", b"no checkpoint"):
        (tmp_path / trainer.LAST).write_bytes(broken)
        with pytest.raises(TrainingError, match=r"last\.ckpt is damaged .*: delete it to start anew"):
            trainer.train(micro(2), store, vocabulary, tmp_path)
    torch.save({"dims": {}}, tmp_path / trainer.LAST)
    with pytest.raises(TrainingError, match="not a checkpoint of a training"):
        trainer.train(micro(2), store, vocabulary, tmp_path)


def test_gradients_of_shares_add_up(store, vocabulary, tmp_path):
    whole, parts = (
        trainer.train(micro(2, threads=1, precision="float32", seconds_at_once=s), store, vocabulary, tmp_path / str(s))
        for s in (1e9, 4.0)
    )
    assert whole.history[0] == pytest.approx(parts.history[0], rel=1e-4)
    for name, tensor in whole.trainable().items():
        assert torch.nn.functional.cosine_similarity(tensor.flatten(), parts.trainable()[name].flatten(), dim=0) > 0.999


def test_other_settings_or_another_model_do_not_continue(store, vocabulary, tmp_path):
    trainer.train(micro(2), store, vocabulary, tmp_path)
    with pytest.raises(TrainingError, match=r"learning_rate=0\.002, and now it is 0.1"):
        trainer.train(micro(4, learning_rate=0.1), store, vocabulary, tmp_path)
    wider = dataclasses.replace(DIMS, n_audio_state=128, n_text_state=128)
    with pytest.raises(TrainingError, match="dims="):
        trainer.train(dataclasses.replace(micro(4), dims=wider), store, vocabulary, tmp_path)
    longer = trainer.train(micro(4), store, vocabulary, tmp_path)  # more steps are allowed
    assert longer.step == 4


def test_early_stopping_keeps_the_best(store, vocabulary, tmp_path):
    errors = iter([0.9, 0.4, 0.5, 0.6, 0.1])
    settings = micro(12, evaluate_every=1, patience=2)
    run = trainer.train(settings, store, vocabulary, tmp_path, evaluate=lambda _: next(errors))
    assert [error for _, error in run.evaluations] == [0.9, 0.4, 0.5, 0.6]
    assert run.step == 4
    best = trainer.load_best(run, settings, tmp_path)
    assert best.step == 2
    again = trainer.train(settings, store, vocabulary, tmp_path, evaluate=lambda _: next(errors))
    assert again.step == 4  # a stopped run does not resume


def test_rates_follow_the_stages():
    stages = (trainer.Stage(10, RECIPE), trainer.Stage(10, RECIPE, lr_factors=(1.0, 0.0)))
    settings = trainer.Settings(stages, learning_rate=2.0, warmup=5)
    assert [settings.learning_rate_at(step) for step in (0, 4, 9, 10, 15)] == [0.4, 2.0, 2.0, 2.0, 1.0]
    with pytest.raises(TrainingError, match="20 steps"):
        settings.learning_rate_at(20)


def test_a_step_is_a_function_of_its_number(store, vocabulary):
    first, again, other = (trainer.make_batch(step, micro(), store, vocabulary) for step in (3, 3, 4))
    assert torch.equal(first.mel, again.mel)
    assert torch.equal(first.tokens, again.tokens)
    assert first.mel.shape != other.mel.shape or not torch.equal(first.mel, other.mel)


def test_nonfinite_gradients_skip_the_step_and_then_end_the_run(store, vocabulary):
    run = trainer.start(micro(40), vocabulary)
    before = {name: tensor.clone() for name, tensor in weights(run).items()}
    batch = trainer.make_batch(0, micro(40), store, vocabulary)
    batch.mel[:] = float("nan")
    workers = trainer.single_thread_workers(2)
    trainer.train_step(run, batch, micro(40), workers)
    assert run.step == 1
    assert all(torch.equal(weights(run)[name], tensor) for name, tensor in before.items())
    for _ in range(trainer.MAX_NONFINITE_STEPS - 2):
        trainer.train_step(run, batch, micro(40), workers)
    with pytest.raises(TrainingError, match="smaller learning rate"):
        trainer.train_step(run, batch, micro(40), workers)


def test_texts_are_truncated_to_the_context(store, vocabulary):
    short = dataclasses.replace(DIMS, n_text_ctx=5)
    stage = trainer.Stage(1, mixing.Recipe((8.0,), p_silent=0.0), 16.0)
    batch = trainer.make_batch(0, trainer.Settings((stage,), short), store, vocabulary)
    assert batch.tokens.shape[1] == batch.labels.shape[1] == batch.attention_targets.shape[1] == 5


def test_a_checkpoint_is_trained_and_frozen_parts_stay(store, tmp_path):
    torch.manual_seed(0)
    model, vocabulary = Whisper(DIMS), targets.full_vocabulary(True)
    encoder = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    settings = micro(4, objective=FINE_TUNING, optimiser="adamw", learning_rate=1e-3, freeze=("encoder",))
    run = trainer.train(settings, store, vocabulary, tmp_path, model=model)
    tuned = trainer.export(run)
    assert all(torch.equal(tuned.encoder.state_dict()[name], tensor) for name, tensor in encoder.items())
    assert run.history[-1][1] < run.history[0][1]
    with pytest.raises(TrainingError, match="all weights are frozen"):
        trainer.start(dataclasses.replace(settings, freeze=("encoder", "decoder")), vocabulary, Whisper(DIMS))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float32"])
def test_training_on_a_gpu(store, vocabulary, tmp_path, precision):
    run = trainer.train(micro(12, device="cuda", precision=precision), store, vocabulary, tmp_path)
    losses = np.array(run.history)[:, 1:3].sum(axis=1)
    assert losses[-3:].mean() < losses[:3].mean()
    assert trainer.export(run).device.type == "cpu"


def test_a_stage_may_have_other_loss_weights(store, vocabulary, tmp_path):
    sharper = dataclasses.replace(trainer.FROM_SCRATCH, label_smoothing=0.0, timestamp_sigma=0.0)
    stages = (micro().stages[0], dataclasses.replace(micro().stages[0], objective=sharper))
    settings, workers = trainer.Settings(stages, DIMS, warmup=4), trainer.single_thread_workers(1)
    run = trainer.start(settings, vocabulary)
    batch = trainer.make_batch(0, settings, store, vocabulary)
    trainer.train_step(run, batch, settings, workers)
    assert run.network.objective == trainer.FROM_SCRATCH
    run.step = 12
    trainer.train_step(run, batch, settings, workers)
    assert run.network.objective == sharper
