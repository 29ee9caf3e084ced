"""The network: shapes, cache, beams, hooks, and attention with and without the fused kernel."""

import threading

import pytest
import torch
from torch import nn

import whisper
from whisper.errors import ShapeError
from whisper.model import (
    KVCache,
    Linear,
    ModelDimensions,
    MultiHeadAttention,
    Whisper,
    causal_mask,
    disable_sdpa,
    sinusoids,
)

from .models import random_model


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(1, n_text_layer=3)


@pytest.fixture(scope="module")
def features(model: Whisper) -> torch.Tensor:
    with torch.no_grad():
        return model.embed_audio(torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(0)))


TOKENS = torch.tensor([[50258, 50259, 50359, 440, 1001], [50258, 50265, 50359, 7, 8]])


def test_sinusoids_are_the_published_ones() -> None:
    table = sinusoids(1500, 384)
    assert table.shape == (1500, 384)
    assert table[0, :192].abs().max() == 0
    assert table[0, 192:].min() == 1
    assert table[1, 0] == pytest.approx(0.8414710)  # sin 1: the shortest wavelength is 2 pi
    assert table[1000, 191] == pytest.approx(0.0998334, abs=1e-4)  # sin(1000 / 10000): the longest
    with pytest.raises(ShapeError, match="even"):
        sinusoids(10, 5)


def test_causal_mask() -> None:
    assert causal_mask(3).tolist() == [[0, -torch.inf, -torch.inf], [0, 0, -torch.inf], [0, 0, 0]]


@torch.no_grad()
def test_a_cache_changes_nothing(model: Whisper, features: torch.Tensor) -> None:
    whole = model.logits(TOKENS, features)
    cache = KVCache()
    steps = [model.decoder(TOKENS[:, :2], features, kv_cache=cache)]
    steps += [model.decoder(TOKENS[:, i : i + 1], features, kv_cache=cache) for i in range(2, 5)]
    assert torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-4)


@torch.no_grad()
def test_the_cache_of_hooks_gives_the_same(model: Whisper, features: torch.Tensor) -> None:
    whole = model.logits(TOKENS, features)
    cache, hooks = model.install_kv_cache_hooks()
    try:
        steps = [model.decoder(TOKENS[:, :2], features, kv_cache=cache)]
        steps += [model.decoder(TOKENS[:, i : i + 1], features, kv_cache=cache) for i in range(2, 5)]
    finally:
        for hook in hooks:
            hook.remove()
    assert torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-4)
    assert len(hooks) == 2 * 2 * 3  # key and value, of self- and cross-attention, in three layers
    assert not any(m._forward_hooks for m in model.modules())


def test_a_cache_grows_along_the_positions() -> None:
    cache, module = KVCache(), nn.Linear(1, 1)
    first, second = torch.zeros(2, 3, 4), torch.ones(2, 1, 4)
    assert cache.extend(module, first) is first
    assert torch.equal(cache.extend(module, second), torch.cat([first, second], dim=1))
    assert cache[module].shape == (2, 4, 4)
    assert KVCache() == {}


def test_cached_rows_in_place_are_not_copied() -> None:
    cache, module = KVCache(), nn.Linear(1, 1)
    held = cache.extend(module, torch.randn(3, 2, 4))
    cache.reorder([module], [0, 1, 2])
    assert cache[module] is held
    cache.reorder([module], [2, 2, 0])
    assert torch.equal(cache[module], held[[2, 2, 0]])


def test_attention_is_recorded_only_on_request() -> None:
    assert KVCache().cross_qk is None
    assert KVCache(record_attention=True).cross_qk == []


@torch.no_grad()
def test_a_decoding_goes_on_from_the_row_that_it_was_moved_to() -> None:
    model = random_model(1, n_text_layer=3)
    one = model.embed_audio(torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0)))
    attentions = [block.attn for block in model.decoder.blocks]
    modules = [a.key for a in attentions] + [a.value for a in attentions]
    cache = KVCache()
    model.decoder(TOKENS[:, :4], one, kv_cache=cache)
    cache.reorder(modules, [1, 1])
    after = model.decoder(TOKENS[:1, 4:].expand(2, 1), one, kv_cache=cache)
    expected = model.logits(torch.cat([TOKENS[1:, :4], TOKENS[:1, 4:]], dim=1), one)[:, -1:]
    assert torch.allclose(after, expected.expand(2, -1, -1), atol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
@torch.no_grad()
def test_beams_share_the_keys_of_their_audio(model: Whisper, features: torch.Tensor, fused: bool) -> None:
    attention = model.decoder.blocks[0].cross_attn
    x = torch.randn(6, 2, 64, generator=torch.Generator().manual_seed(2))
    if fused:
        shared, copied = attention(x, features), attention(x, features.repeat_interleave(3, dim=0))
        assert shared[1] is copied[1] is None
    else:
        with disable_sdpa():
            shared, copied = attention(x, features), attention(x, features.repeat_interleave(3, dim=0))
        assert shared[1].shape == (6, 2, 2, 1500)
        assert torch.allclose(shared[1], copied[1], atol=1e-4)
    assert torch.allclose(shared[0], copied[0], atol=1e-5)


@torch.no_grad()
def test_fused_and_plain_attention_agree(model: Whisper, features: torch.Tensor) -> None:
    fused = model.logits(TOKENS, features)
    with disable_sdpa():
        assert MultiHeadAttention.use_sdpa is False
        plain = model.logits(TOKENS, features)
    assert MultiHeadAttention.use_sdpa is True
    assert torch.allclose(fused, plain, atol=1e-4)


def test_disabling_holds_for_one_thread_and_survives_errors() -> None:
    seen: list[bool] = []

    def fail_inside() -> None:
        with disable_sdpa():
            thread = threading.Thread(target=lambda: seen.append(MultiHeadAttention.use_sdpa))
            thread.start()
            thread.join()
            raise RuntimeError("out")

    with pytest.raises(RuntimeError, match="out"):
        fail_inside()
    assert seen == [True]
    assert MultiHeadAttention.use_sdpa is True


@torch.no_grad()
def test_the_switch_may_be_assigned(model: Whisper, features: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultiHeadAttention, "use_sdpa", False)
    assert model.decoder.blocks[0].cross_attn(torch.randn(2, 1, 64), features)[1] is not None


@torch.no_grad()
def test_half_precision_runs_with_weights_in_float32(model: Whisper) -> None:
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(1))
    exact, half = model.embed_audio(mel), model.embed_audio(mel.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(exact.flatten(), half.float().flatten(), dim=0) > 0.99
    assert model.logits(TOKENS[:1], half).dtype == torch.float32


@pytest.mark.parametrize("bias", [True, False])
def test_linear_gives_the_same_by_onednn_and_by_default(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Linear(64, 96, bias=bias)
    x = torch.randn(3, 50, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        quick = layer(x)
        autocast = torch.autocast("cpu", dtype=torch.bfloat16)
        with autocast:
            assert layer(x).dtype == torch.bfloat16
        monkeypatch.setattr(whisper.model, "HAS_ONEDNN_LINEAR", False)
        plain = layer(x)
    assert quick.shape == (3, 50, 96)
    assert torch.allclose(quick, plain, atol=1e-5)
    layer(x).sum().backward()  # where gradients are wanted they come
    assert layer.weight.grad is not None


def test_wrong_shapes_are_told(model: Whisper, features: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"takes \(n_batch, 80, 3000\), got \(1, 80, 100\)"):
        model.embed_audio(torch.zeros(1, 80, 100))
    with pytest.raises(ShapeError, match=r"449 tokens do not fit.* 448"):
        model.logits(torch.zeros(1, 449, dtype=torch.long), features[:1])
    with pytest.raises(ShapeError, match=r"\(3, 2\).*\(2, 2\)"):
        model.set_alignment_mask(torch.ones(2, 2, dtype=torch.bool))


def test_languages_by_vocabulary() -> None:
    def shape(n_vocab: int) -> Whisper:
        with torch.device("meta"):
            return Whisper(ModelDimensions(80, 1500, 64, 1, 1, n_vocab, 448, 64, 1, 1))

    assert [(shape(n).is_multilingual, shape(n).num_languages) for n in (51864, 51865, 51866)] == [
        (False, 99), (True, 99), (True, 100),
    ]  # fmt: skip


def test_alignment_heads(model: Whisper) -> None:
    upper_half = [[layer, head] for layer in (1, 2) for head in (0, 1)]
    assert model.alignment_heads.indices().T.tolist() == upper_half
    tiny = Whisper(ModelDimensions(80, 1500, 64, 1, 1, 51865, 448, 24, 6, 4))
    tiny.set_alignment_heads(b"ABzY8bu8Lr0{>%RKn9Fp%m@SkK7Kt=7ytkO")  # those of the published tiny
    assert tiny.alignment_heads.indices().T.tolist() == [[2, 2], [3, 0], [3, 2], [3, 3], [3, 4], [3, 5]]
    assert "alignment_heads" not in tiny.state_dict()
    del tiny.alignment_heads
    tiny.alignment_heads = torch.ones(4, 6).to_sparse()
