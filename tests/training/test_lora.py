"""LoRA: no change before the first step, only adapters are trained, and they merge into an ordinary model."""

from __future__ import annotations

import pytest
import torch

from whisper.errors import OptionError
from whisper.model import ModelDimensions, Whisper
from whisper.training import lora

DIMS = ModelDimensions(80, 1500, 64, 2, 1, 51865, 448, 64, 2, 1)


def test_adapters_start_at_zero_and_only_they_are_trained():
    torch.manual_seed(0)
    model = Whisper(DIMS)
    mel, tokens = torch.randn(1, 80, 3000), torch.tensor([[50258, 50259, 50359]])
    before = model(mel, tokens)
    names = set(model.state_dict())
    assert lora.add_adapters(model, 4, 16.0, ("query", "value")) == 6  # self, self and cross attention
    torch.testing.assert_close(model(mel, tokens), before)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trainable) == 12
    assert all(name.endswith(("down", "up")) for name in trainable)
    assert set(lora.merged_state_dict(model)) == names


def test_adapters_are_in_the_merged_weights():
    torch.manual_seed(0)
    model = Whisper(DIMS)
    mel, tokens = torch.randn(1, 80, 3000), torch.tensor([[50258, 50259, 50359]])
    lora.add_adapters(model, 2, 8.0, ("out", "mlp"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("up"):
                parameter.normal_(std=0.1)
    plain = Whisper(DIMS)
    unchanged = plain(mel, tokens)
    plain.load_state_dict(lora.merged_state_dict(model))
    torch.testing.assert_close(plain(mel, tokens), model(mel, tokens))
    assert not torch.allclose(plain(mel, tokens), unchanged)


@pytest.mark.parametrize(("rank", "targets", "says"), [(0, ("query",), "at least 1"), (2, ("quary",), "quary")])
def test_wrong_options_are_named(rank, targets, says):
    with pytest.raises(OptionError, match=says):
        lora.add_adapters(Whisper(DIMS), rank, 1.0, targets)
