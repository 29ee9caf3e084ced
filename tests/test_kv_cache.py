"""The cache as a value: it grows, its rows change places, and nobody else sees it."""

import torch
from torch import nn

from whisper.kv_cache import KVCache

from .models import random_model

TOKENS = torch.tensor([[50258, 50259, 50359, 440, 1001], [50258, 50265, 50359, 7, 8]])


def test_it_grows_along_the_positions() -> None:
    cache, module = KVCache(), nn.Linear(1, 1)
    first, second = torch.zeros(2, 3, 4), torch.ones(2, 1, 4)
    assert cache.extend(module, first) is first
    assert torch.equal(cache.extend(module, second), torch.cat([first, second], dim=1))
    assert cache[module].shape == (2, 4, 4)
    assert KVCache() == {}


def test_rows_in_place_are_not_copied() -> None:
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
