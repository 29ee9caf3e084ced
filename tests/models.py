"""Small models with random weights that talk: sharp distributions, timestamps now and then, an end at last.

With plainly random weights every token is about equally likely and no timestamp ever comes, so that decoders
which differ would agree by chance. Here the rows of timestamps and of the end are a little longer, so that they win
from time to time, and the layers are strong enough that each token depends on the sound and on those before it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from whisper.model import ModelDimensions, Whisper


def random_model(
    seed: int,
    *,
    n_mels: int = 80,
    n_state: int = 64,
    n_head: int = 2,
    n_audio_layer: int = 2,
    n_text_layer: int = 2,
    n_vocab: int = 51865,
    timestamps: float = 1.4,
    end: float = 2.5,
) -> Whisper:
    """Return a model in eval mode; equal seeds give equal weights."""
    dims = ModelDimensions(n_mels, 1500, n_state, n_head, n_audio_layer, n_vocab, 448, n_state, n_head, n_text_layer)
    model = Whisper(dims)
    generator = torch.Generator().manual_seed(seed)
    eot = 50256 if n_vocab < 51865 else 50257
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "embedding" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.6)
            elif p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=generator) * (1.5 / p[0].numel() ** 0.5))
            elif name.endswith("bias"):
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
        rows = model.decoder.token_embedding.weight
        rows[-1501:] *= timestamps
        rows[eot] *= end
    return model.eval()


def save_model(model: Whisper, path: Path) -> Path:
    """Write a checkpoint as the original stores them."""
    torch.save({"dims": asdict(model.dims), "model_state_dict": model.state_dict()}, path)
    return path
