"""The training network computes what the model computes, and its losses reward the right output."""

from __future__ import annotations

import pytest
import torch

from whisper.model import ModelDimensions, Whisper
from whisper.training import feature_store, targets
from whisper.training.network import FINE_TUNING, Objective, TrainingBatch, TrainingNetwork
from whisper.training.targets import IGNORE_INDEX

from ..torch_states import STATES

DIMS = ModelDimensions(80, 1500, 64, 2, 2, 51865, 448, 64, 2, 2)


@pytest.fixture(scope="module")
def whole() -> targets.Vocabulary:
    return targets.full_vocabulary(True)


@pytest.fixture(scope="module")
def used() -> targets.Vocabulary:
    return targets.reduced_vocabulary(["la mi so do", "un deux"], ["en", "fr"])


def make_batch(vocabulary: targets.Vocabulary, n_frames: int = 100) -> TrainingBatch:
    store = feature_store.toy_store(1)
    from whisper.training import mixing, trainer

    stage = trainer.Stage(1, mixing.Recipe((n_frames / 100,), p_plain=0.0, p_silent=0.0), 4.0)
    return trainer.make_batch(0, trainer.Settings((stage,), DIMS), store, vocabulary)


def test_it_computes_what_the_model_computes(whole):
    torch.manual_seed(0)
    model = Whisper(DIMS).eval()
    network = TrainingNetwork(model, whole, FINE_TUNING, torch.float32)
    mel, tokens = torch.randn(2, 80, 3000), torch.randint(0, 51865, (2, 7))
    with torch.no_grad():
        features = network.encode(mel)
        torch.testing.assert_close(features, model.encoder(mel), atol=1e-5, rtol=1e-4)
        logits, _ = network.decode(tokens, features)
        torch.testing.assert_close(logits, model.decoder(tokens, features), atol=1e-4, rtol=1e-4)


def test_bfloat16_is_near(whole):
    torch.manual_seed(0)
    model = Whisper(DIMS).eval()
    mel, tokens = torch.randn(1, 80, 200), torch.randint(0, 51865, (1, 5))
    with torch.no_grad():
        exact, near = (
            TrainingNetwork(model, whole, FINE_TUNING, dtype).decode(
                tokens, TrainingNetwork(model, whole, FINE_TUNING, dtype).encode(mel)
            )[0]
            for dtype in (torch.float32, torch.bfloat16)
        )
    assert (exact - near).abs().max() < 0.05 * exact.abs().max()
    assert not torch.equal(exact, near)


def test_a_shared_index_counts_for_all_tokens_that_share_it(used):
    network = TrainingNetwork.from_scratch(DIMS, used, dtype=torch.float32)
    tokens = torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad():
        network.model.decoder.token_embedding.weight.zero_()
        network.timestamp_map.weight.zero_()
        logits, _ = network.decode(tokens, torch.zeros(1, 4, 64))
        share = logits[0, 0].softmax(-1)[used.unused_index]
    assert share == pytest.approx(used.n_unused / 51865, rel=1e-3)


def test_guided_heads_learn_to_attend_to_the_word(used):
    batch = make_batch(used)
    network = TrainingNetwork.from_scratch(DIMS, used, dtype=torch.float32)
    assert (batch.attention_targets[..., 0] >= 0).any()
    parameters = [p for name, p in network.named_parameters() if ".cross_attn." in name]
    optimiser = torch.optim.Adam(parameters, 0.02)
    seen = []
    for _ in range(30):
        losses = network(batch)
        optimiser.zero_grad()
        losses.attention.backward()
        optimiser.step()
        seen.append(losses.attention.item())
    assert seen[-1] < 0.7 * seen[0]


def test_only_labelled_positions_have_a_loss(used):
    batch = make_batch(used)
    network = TrainingNetwork.from_scratch(DIMS, used, Objective(), torch.float32)
    before = network(batch).text
    labels = batch.labels.clone()
    labels[:, 1:] = IGNORE_INDEX
    changed = TrainingBatch(
        batch.mel, batch.tokens, labels, batch.attention_targets, batch.ctc_targets, batch.ctc_lengths
    )
    assert network(changed).text != before
    first = batch.labels[:, 0]
    logits, _ = network.decode(batch.tokens, network.encode(batch.mel))
    # the first token after the start is the language; here it has the weight of any other
    by_hand = torch.nn.functional.cross_entropy(logits[:, 0], first)
    torch.testing.assert_close(network(changed).text, by_hand)


def test_a_timestamp_near_the_right_one_is_a_small_error(used):
    network = TrainingNetwork.from_scratch(DIMS, used, Objective(timestamp_sigma=1.0), torch.float32)
    target = torch.tensor([used.timestamp_begin + 50])

    def loss(step: int) -> float:
        logp = torch.full((1, used.size), -20.0)
        logp[0, used.timestamp_begin + 50 + step] = 0.0
        return network._timestamp_loss(logp, target).item()

    assert loss(0) < loss(1) < loss(2) < loss(5) == loss(40)


def test_without_an_alphabet_there_is_no_ctc_loss(whole):
    network = TrainingNetwork(Whisper(DIMS), whole, FINE_TUNING)
    assert not hasattr(network, "ctc_head")
    assert network(make_batch(whole)).ctc.item() == 0.0


@pytest.mark.parametrize("state", ["float16", "float64", "on meta"])
def test_a_network_from_scratch_does_not_follow_what_torch_makes_by_default(
    used: targets.Vocabulary, state: str
) -> None:
    def random_weights() -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return TrainingNetwork.from_scratch(DIMS, used).state_dict()

    expected = random_weights()
    with STATES[state]():
        found = random_weights()
    assert {tensor.dtype for tensor in found.values()} <= {torch.float32, torch.bool}
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
