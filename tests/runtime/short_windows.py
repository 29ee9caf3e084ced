"""Windows of less than 30 s as the model's own modules compute them: the reference for all runners."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from whisper.model import Whisper
from whisper.runtime.interface import PADDING_STRIDE

N_CTX = 1500


def repeats(n_own: int) -> Tensor:
    """How often each position of a window counts that has `n_own` itself."""
    padding = [PADDING_STRIDE] * ((N_CTX - n_own) // PADDING_STRIDE)
    return torch.tensor([1] * n_own + padding, dtype=torch.long)


def in_full(features: Tensor, n_own: int) -> Tensor:
    """The features of a window, with those of the padding as often as they count."""
    return features.cpu().repeat_interleave(repeats(n_own), dim=0)


@torch.no_grad()
def encode_by_modules(model: Whisper, mel: Tensor) -> Tensor:
    """What the encoder's modules make of a window of any length; its own `forward` takes only full ones."""
    encoder = model.encoder
    x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel[None])))).transpose(1, 2)
    n_own = x.shape[1]
    each = repeats(n_own)
    x = torch.cat([x, x[:, -1:].expand(-1, len(each) - n_own, -1)], dim=1)
    embedding = encoder.positional_embedding
    of_padding = [embedding[i : i + PADDING_STRIDE].mean(0) for i in range(n_own, N_CTX, PADDING_STRIDE)]
    x = x + torch.stack([*embedding[:n_own], *of_padding])
    for block in encoder.blocks:
        heard = block.attn_ln(x)
        x = x + block.attn(heard, xa=heard.repeat_interleave(each, dim=1))[0]
        x = x + block.mlp(block.mlp_ln(x))
    encoded: Tensor = encoder.ln_post(x)[0]
    return encoded
