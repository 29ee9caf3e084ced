"""The network while it learns: the modules of `model.py` on short windows in bfloat16, and its losses.

Three things differ from the reference forward, and all are gone at export: windows may be shorter than 30 s, the
vocabulary has only the rows that the training text uses, and the encoder spells letters beside (a CTC loss, which
teaches attention where to look; Graves et al. 2006, Watanabe et al. 2017). Reads no files, draws no samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .composing import CTC_CLASSES, IGNORED, N_TIMESTAMPS, Vocabulary
from .model import ModelDimensions, MultiHeadAttention, ResidualAttentionBlock, Whisper, sinusoids

FUSED_FROM = 600  # positions from which the fused attention kernel is the faster one on a CPU
TIMESTAMP_SPREAD = 1.0  # standard deviation of a timestamp's target in steps of 20 ms
SMOOTHING = 0.05  # part of a text target that is spread over all pieces of text
LANGUAGE_WEIGHT = 3.0  # of the one language token of a window, which else would be drowned by its text
GUIDED_HEADS = ((0, 0), (1, 0))  # decoder layer and head of those that are taught where to look
GUIDANCE = 0.3  # weight of that


@dataclass(frozen=True)
class Losses:
    """What a step is graded by: mean nats a token, a letter, and a look of a guided head."""

    text: Tensor
    letters: Tensor
    looks: Tensor

    @property
    def total(self) -> Tensor:
        return self.text + self.letters + GUIDANCE * self.looks


class Learner(nn.Module):
    """A small Whisper with the parts that only training needs."""

    def __init__(self, dims: ModelDimensions, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.dims = dims
        self.network = Whisper(replace(dims, n_vocab=vocabulary.fill + 1))
        self.timestamps = nn.Linear(dims.n_text_state, dims.n_text_state, bias=False)
        self.letters = nn.Linear(dims.n_audio_state, CTC_CLASSES)
        rows = [*vocabulary.languages.values(), vocabulary.special("no_speech")]
        self._language_rows = torch.tensor(rows)
        self.register_buffer("times", sinusoids(N_TIMESTAMPS, dims.n_text_state), persistent=False)
        with torch.no_grad():
            self.network.decoder.token_embedding.weight.normal_(std=0.05)
            self.network.encoder.conv2.weight.mul_(2.0)
            self.timestamps.weight.copy_(torch.eye(dims.n_text_state) * 0.07)
            for i, block in enumerate(self.network.encoder.blocks):
                look_around(cast(MultiHeadAttention, block.attn), dims.n_audio_state, reach=2 + 2 * i)

    def embedding(self) -> Tensor:
        """All rows of the vocabulary; timestamps are a linear map of the encoder's own position embedding.

        So a time to be written and a place to be looked at are near each other from the start.
        """
        return torch.cat([self.network.decoder.token_embedding.weight, self.timestamps(self.times)])

    def encode(self, mel: Tensor) -> Tensor:
        """Features of `mel`, ``(n_batch, 80, n_frames)`` of any even length, in float32."""
        encoder = self.network.encoder
        x = mel.to(torch.bfloat16)
        for conv in (encoder.conv1, encoder.conv2):
            weight, bias = conv.weight.to(x.dtype), None if conv.bias is None else conv.bias.to(x.dtype)
            x = F.gelu(F.conv1d(x, weight, bias, conv.stride, conv.padding))
        x = x.permute(0, 2, 1).float()
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x, _ = _block(cast(ResidualAttentionBlock, block), x, None)
        return _norm(encoder.ln_post, x)

    def decode(self, tokens: Tensor, features: Tensor, looks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits after each of `tokens`, ``(n_batch, n_tokens, n_rows)``, the shared row counted for all it is.

        Also the mean surprise of the guided heads at where they should look, given `looks` as in `Batch`.
        """
        decoder, embedding = self.network.decoder, self.embedding()
        x = F.embedding(tokens, embedding) + decoder.positional_embedding[: tokens.shape[1]]
        surprise = list[Tensor]()
        for i, block in enumerate(decoder.blocks):
            heads = [head for layer, head in GUIDED_HEADS if layer == i] if looks is not None else []
            x, seen = _block(cast(ResidualAttentionBlock, block), x, features, heads)
            surprise += [_surprise(weights, looks) for weights in seen if looks is not None]
        x = _norm(decoder.ln, x).to(torch.bfloat16)
        logits = (x @ embedding.to(x.dtype).T).float()
        crowd = torch.zeros(logits.shape[-1])
        crowd[self.vocabulary.fill] = math.log(self.vocabulary.n_unused)
        return logits + crowd, torch.stack(surprise).mean() if surprise else torch.zeros(())

    def forward(self, batch: Batch) -> Losses:
        features = self.encode(batch.mel)
        logits, looks = self.decode(batch.tokens, features, batch.looks)
        text = self._text_loss(logits, batch.expected)
        spelled = _linear(self.letters, features).float().log_softmax(-1)  # (n_batch, n_ctx, classes)
        keep = batch.letter_lengths >= 0
        lengths = torch.full((int(keep.sum()),), spelled.shape[1])
        letters = F.ctc_loss(
            spelled[keep].transpose(0, 1), batch.letters[keep], lengths, batch.letter_lengths[keep],
            reduction="sum", zero_infinity=True,
        )  # fmt: skip
        return Losses(text, letters / batch.letter_lengths[keep].sum().clamp(min=1), looks)

    def _text_loss(self, logits: Tensor, expected: Tensor) -> Tensor:
        scored = expected != IGNORED
        logp, target = logits[scored].log_softmax(-1), expected[scored]  # (n, n_rows), (n,)
        v = self.vocabulary
        nll = -logp.gather(1, target[:, None])[:, 0]
        is_text = target < len(v.text_ids)
        smooth = -logp[:, : len(v.text_ids)].mean(-1)
        nll = torch.where(is_text, (1 - SMOOTHING) * nll + SMOOTHING * smooth, nll)
        is_time = target >= v.timestamp_begin
        if bool(is_time.any()):
            nll = nll.masked_scatter(is_time, self._time_loss(logp[is_time], target[is_time]))
        names_language = torch.isin(target, self._language_rows)
        weight = torch.where(names_language, LANGUAGE_WEIGHT, 1.0)
        return (nll * weight).sum() / weight.sum()

    def _time_loss(self, logp: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with a bell around the right timestamp: 20 ms beside is nearly right."""
        steps = torch.arange(-4, 5)
        at = target[:, None] + steps
        inside = (at >= self.vocabulary.timestamp_begin) & (at < self.vocabulary.n_rows)
        weight = torch.exp(-0.5 * (steps / TIMESTAMP_SPREAD) ** 2) * inside
        weight = weight / weight.sum(1, keepdim=True)
        return -(weight * logp.gather(1, at.clamp(0, logp.shape[1] - 1))).sum(1)


@dataclass(frozen=True)
class Batch:
    """One step's windows as tensors."""

    mel: Tensor  # (n_batch, 80, n_frames)
    tokens: Tensor  # (n_batch, n_tokens) rows of the vocabulary
    expected: Tensor  # (n_batch, n_tokens) rows, or IGNORED
    looks: Tensor  # (n_batch, n_tokens, 2) first and one past the last encoder position of a token; -1: unknown
    letters: Tensor  # (n_batch, n_letters) CTC classes
    letter_lengths: Tensor  # (n_batch,); -1: not to be scored


def look_around(attention: MultiHeadAttention, n_state: int, reach: int) -> None:
    """Let the heads begin by looking a little before and after, each at another distance up to `reach`.

    A query that rotates the sines and cosines of a position by ``w * offset`` meets the key of the position
    `offset` away. Learning this from ten hours of speech costs many epochs; here it is where training starts.
    """
    half, width = n_state // 2, n_state // attention.n_head
    step = math.log(10000) / (half - 1)
    with torch.no_grad():
        for head in range(attention.n_head):
            offset = (-1) ** head * reach * (1 + head // 2)
            stride = 2 if head >= 2 and width <= half else 1
            for i in range(width // 2):
                f = min(i * stride, half - 1)
                angle = math.exp(-step * f) * offset
                sine, cosine = head * width + i, head * width + width // 2 + i
                for matrix, turn in ((attention.query.weight, angle), (attention.key.weight, 0.0)):
                    matrix[[sine, cosine]] *= 0.2
                    matrix[sine, f] += 1.3 * math.cos(turn)
                    matrix[sine, half + f] += 1.3 * math.sin(turn)
                    matrix[cosine, half + f] += 1.3 * math.cos(turn)
                    matrix[cosine, f] -= 1.3 * math.sin(turn)


# ---------------------------------------------------------------------------------------------------------
# The blocks of the model in bfloat16, with one product for query, key and value
# ---------------------------------------------------------------------------------------------------------


def _norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.to(torch.bfloat16)
    return F.linear(x.to(torch.bfloat16), layer.weight.to(torch.bfloat16), bias)


def _block(
    block: ResidualAttentionBlock, x: Tensor, features: Tensor | None, guided: Sequence[int] = ()
) -> tuple[Tensor, list[Tensor]]:
    """The block's output, and the cross-attention of the heads `guided`."""
    seen = list[Tensor]()
    x = x + _self_attention(block.attn, _norm(block.attn_ln, x), causal=features is not None)
    if features is not None and block.cross_attn is not None and block.cross_attn_ln is not None:
        mixed, seen = _cross_attention(block.cross_attn, _norm(block.cross_attn_ln, x), features, guided)
        x = x + mixed
    wide, narrow = cast(nn.Linear, block.mlp[0]), cast(nn.Linear, block.mlp[2])
    return x + _linear(narrow, F.gelu(_linear(wide, _norm(block.mlp_ln, x)))), seen


def _self_attention(attention: MultiHeadAttention, x: Tensor, causal: bool) -> Tensor:
    q, k, v = attention.query, attention.key, attention.value
    weight = torch.cat([q.weight, k.weight, v.weight]).to(torch.bfloat16)
    bias = torch.cat([q.bias, torch.zeros_like(q.bias), v.bias]).to(torch.bfloat16)
    queries, keys, values = F.linear(x.to(torch.bfloat16), weight, bias).chunk(3, dim=-1)
    return _linear(attention.out, _attend(queries, keys, values, attention.n_head, causal))


def _cross_attention(
    attention: MultiHeadAttention, x: Tensor, features: Tensor, guided: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    weight = torch.cat([attention.key.weight, attention.value.weight]).to(torch.bfloat16)
    bias = torch.cat([torch.zeros_like(attention.value.bias), attention.value.bias]).to(torch.bfloat16)
    k, v = F.linear(features.to(torch.bfloat16), weight, bias).chunk(2, dim=-1)
    q, n_head = _linear(attention.query, x), attention.n_head
    width = q.shape[-1] // n_head
    seen = []
    for head in guided:
        of_head = slice(head * width, (head + 1) * width)
        products = (q[..., of_head] * width**-0.5) @ k[..., of_head].transpose(1, 2)
        seen.append(products.float().softmax(-1))
    return _linear(attention.out, _attend(q, k, v, n_head, False)), seen


def _surprise(weights: Tensor, looks: Tensor) -> Tensor:
    """Mean nats by which attention, ``(n_batch, n_tokens, n_ctx)``, misses the positions it should be at."""
    upto = F.pad(weights.cumsum(-1), (1, 0))
    known = looks[..., 0] >= 0
    start, end = looks.clamp(0, weights.shape[-1]).unbind(-1)
    there = upto.gather(-1, end[..., None]) - upto.gather(-1, start[..., None])
    missed = -(there[..., 0].clamp(min=0) + 1e-3).log()
    return (missed * known).sum() / known.sum().clamp(min=1)


def _attend(q: Tensor, k: Tensor, v: Tensor, n_head: int, causal: bool) -> Tensor:
    q, k, v = (t.view(*t.shape[:2], n_head, -1).transpose(1, 2) for t in (q, k, v))
    if causal or k.shape[2] >= FUSED_FROM:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    else:
        scale = q.shape[-1] ** -0.5
        mixed = ((q * scale) @ k.transpose(-1, -2)).softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(start_dim=2)
