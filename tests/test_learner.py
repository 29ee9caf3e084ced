"""The network while it learns says what the model says, and its losses reward what they are meant to."""

from __future__ import annotations

import pytest
import torch

from whisper import datasets, targets
from whisper.learner import FINE_TUNING, Batch, Learner, Objective
from whisper.model import ModelDimensions, Whisper
from whisper.targets import IGNORED

from .torch_states import STATES

DIMS = ModelDimensions(80, 1500, 64, 2, 2, 51865, 448, 64, 2, 2)


@pytest.fixture(scope="module")
def whole() -> targets.Vocabulary:
    return targets.whole_vocabulary(True)


@pytest.fixture(scope="module")
def used() -> targets.Vocabulary:
    return targets.used_vocabulary(["la mi so do", "un deux"], ["en", "fr"])


def make_batch(vocabulary: targets.Vocabulary, n_frames: int = 100) -> Batch:
    store = datasets.toy_store(1)
    from whisper import composing, loop

    stage = loop.Stage(1, composing.Recipe((n_frames / 100,), p_plain=0.0, p_silent=0.0), 4.0)
    return loop.make_batch(0, loop.Settings((stage,), DIMS), store, vocabulary)


def test_it_computes_what_the_model_computes(whole):
    torch.manual_seed(0)
    model = Whisper(DIMS).eval()
    learner = Learner(model, whole, FINE_TUNING, torch.float32)
    mel, tokens = torch.randn(2, 80, 3000), torch.randint(0, 51865, (2, 7))
    with torch.no_grad():
        features = learner.encode(mel)
        torch.testing.assert_close(features, model.encoder(mel), atol=1e-5, rtol=1e-4)
        logits, _ = learner.decode(tokens, features)
        torch.testing.assert_close(logits, model.decoder(tokens, features), atol=1e-4, rtol=1e-4)


def test_bfloat16_is_near(whole):
    torch.manual_seed(0)
    model = Whisper(DIMS).eval()
    mel, tokens = torch.randn(1, 80, 200), torch.randint(0, 51865, (1, 5))
    with torch.no_grad():
        exact, near = (
            Learner(model, whole, FINE_TUNING, dtype).decode(
                tokens, Learner(model, whole, FINE_TUNING, dtype).encode(mel)
            )[0]
            for dtype in (torch.float32, torch.bfloat16)
        )
    assert (exact - near).abs().max() < 0.05 * exact.abs().max()
    assert not torch.equal(exact, near)


def test_a_shared_row_counts_for_all_it_stands_for(used):
    learner = Learner.scratch(DIMS, used, dtype=torch.float32)
    tokens = torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad():
        learner.network.decoder.token_embedding.weight.zero_()
        learner.timestamps.weight.zero_()
        logits, _ = learner.decode(tokens, torch.zeros(1, 4, 64))
        share = logits[0, 0].softmax(-1)[used.fill]
    assert share == pytest.approx(used.n_unused / 51865, rel=1e-3)


def test_heads_are_rewarded_for_looking_at_the_word(used):
    batch = make_batch(used)
    learner = Learner.scratch(DIMS, used, dtype=torch.float32)
    assert (batch.looks[..., 0] >= 0).any()
    parameters = [p for name, p in learner.named_parameters() if ".cross_attn." in name]
    optimiser = torch.optim.Adam(parameters, 0.02)
    seen = []
    for _ in range(30):
        losses = learner(batch)
        optimiser.zero_grad()
        losses.looks.backward()
        optimiser.step()
        seen.append(losses.looks.item())
    assert seen[-1] < 0.7 * seen[0]


def test_only_what_is_expected_is_scored(used):
    batch = make_batch(used)
    learner = Learner.scratch(DIMS, used, Objective(), torch.float32)
    before = learner(batch).text
    expected = batch.expected.clone()
    expected[:, 1:] = IGNORED
    changed = Batch(batch.mel, batch.tokens, expected, batch.looks, batch.letters, batch.letter_lengths)
    assert learner(changed).text != before
    rows = batch.expected[:, 0]
    logits, _ = learner.decode(batch.tokens, learner.encode(batch.mel))
    # the first token after the start is the language; here it weighs as much as any other
    by_hand = torch.nn.functional.cross_entropy(logits[:, 0], rows)
    torch.testing.assert_close(learner(changed).text, by_hand)


def test_a_timestamp_beside_the_right_one_is_nearly_right(used):
    learner = Learner.scratch(DIMS, used, Objective(timestamp_spread=1.0), torch.float32)
    target = torch.tensor([used.timestamp_begin + 50])

    def loss(step: int) -> float:
        logp = torch.full((1, used.n_rows), -20.0)
        logp[0, used.timestamp_begin + 50 + step] = 0.0
        return learner._time_loss(logp, target).item()

    assert loss(0) < loss(1) < loss(2) < loss(5) == loss(40)


def test_no_letters_no_ctc(whole):
    learner = Learner(Whisper(DIMS), whole, FINE_TUNING)
    assert not hasattr(learner, "letters")
    assert learner(make_batch(whole)).letters.item() == 0.0


@pytest.mark.parametrize("state", ["float16", "float64", "on meta"])
def test_a_network_from_scratch_does_not_follow_what_torch_makes_by_default(
    used: targets.Vocabulary, state: str
) -> None:
    def drawn() -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return Learner.scratch(DIMS, used).state_dict()

    expected = drawn()
    with STATES[state]():
        found = drawn()
    assert {tensor.dtype for tensor in found.values()} <= {torch.float32, torch.bool}
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
