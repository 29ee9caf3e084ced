"""The network while it learns: the modules of `model.py` in a precision for training, and its losses.

What differs from the reference forward is gone at export: windows may be shorter than 30 s, a vocabulary may have
only the rows in use, and the encoder may spell letters beside (a CTC loss, which teaches attention where to look;
Graves et al. 2006, Watanabe et al. 2017). Reads no files, draws no samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import ModelDimensions, MultiHeadAttention, ResidualAttentionBlock, Whisper, sinusoids
from .targets import IGNORED, N_TIMESTAMPS, Vocabulary
from .torch_state import InFloat32

FUSED_FROM = 600  # positions from which the fused attention kernel is the faster one on a CPU


@dataclass(frozen=True)
class Objective:
    """What is learnt, and how much each part weighs."""

    letters: float = 0.0  # weight of the CTC loss of the encoder
    guidance: float = 0.0  # weight of the loss that tells some heads where to look
    guided_heads: tuple[tuple[int, int], ...] = ()  # decoder layer and head of those; they become the alignment heads
    smoothing: float = 0.0  # part of a text target that is spread over all pieces of text
    timestamp_spread: float = 0.0  # standard deviation of a timestamp's target, in steps of 20 ms
    language: float = 1.0  # weight of the one language token of a window, which else is drowned by its text


FROM_SCRATCH = Objective(1.0, 0.3, ((0, 0), (1, 0)), 0.05, 1.0, 3.0)
FINE_TUNING = Objective()


@dataclass(frozen=True)
class Counts:
    """Tokens, letters and looks, over which losses are means."""

    tokens: float
    letters: float
    looks: float


@dataclass(frozen=True)
class Batch:
    """One step's windows as tensors."""

    mel: Tensor  # (n_batch, n_mels, n_frames)
    tokens: Tensor  # (n_batch, n_tokens) rows of the vocabulary
    expected: Tensor  # (n_batch, n_tokens) rows, or IGNORED
    looks: Tensor  # (n_batch, n_tokens, 2) first and one past the last encoder position of a token; -1: unknown
    letters: Tensor  # (n_batch, n_letters) CTC classes
    letter_lengths: Tensor  # (n_batch,); -1: not to be scored

    @property
    def counts(self) -> Counts:
        """How much there is to be graded."""
        letters = self.letter_lengths.clamp(min=0).sum().item()
        return Counts(
            (self.expected != IGNORED).sum().item(), int(letters), int((self.looks[..., 0] >= 0).sum().item())
        )

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return Batch(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True)
class Losses:
    """What a step is graded by: mean nats a token, a letter, and a look of a guided head."""

    text: Tensor
    letters: Tensor
    looks: Tensor


class Learner(nn.Module):
    """A Whisper with the parts that only training needs.

    Parameters
    ----------
    network
        Its embedding has as many rows as `vocabulary`, or, for a vocabulary of used rows, those before the timestamps.
    vocabulary
        The rows, see `targets.py`.
    objective
        The losses.
    dtype
        Of the matrix products; weights and sums stay float32.
    """

    def __init__(
        self,
        network: Whisper,
        vocabulary: Vocabulary,
        objective: Objective = FINE_TUNING,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__()
        self.network, self.vocabulary, self.objective, self.dtype = network, vocabulary, objective, dtype
        self.dims, width = network.dims, network.dims.n_text_state
        if vocabulary.fill is not None:
            self.timestamps = nn.Linear(width, width, bias=False, dtype=torch.float32, device="cpu")
            self.register_buffer("times", sinusoids(N_TIMESTAMPS, width, device="cpu"), persistent=False)
        if objective.letters:
            n_classes = len(vocabulary.letters) + 2
            self.letters = nn.Linear(self.dims.n_audio_state, n_classes, dtype=torch.float32, device="cpu")

    @classmethod
    def scratch(
        cls, dims: ModelDimensions, vocabulary: Vocabulary, objective: Objective = FROM_SCRATCH,
        dtype: torch.dtype = torch.bfloat16,
    ) -> Learner:  # fmt: skip
        """A network that knows nothing, drawn from torch's generator."""
        rows = vocabulary.n_rows if vocabulary.fill is None else vocabulary.fill + 1
        with torch.device("cpu"), InFloat32():
            network = Whisper(replace(dims, n_vocab=rows))
        learner = cls(network, vocabulary, objective, dtype)
        with torch.no_grad():
            learner.network.decoder.token_embedding.weight.normal_(std=0.05)
            learner.network.encoder.conv2.weight.mul_(2.0)
            if vocabulary.fill is not None:
                learner.timestamps.weight.copy_(torch.eye(dims.n_text_state, dtype=torch.float32, device="cpu") * 0.07)
            for i, block in enumerate(learner.network.encoder.blocks):
                look_around(cast(MultiHeadAttention, block.attn), dims.n_audio_state, reach=2 + 2 * i)
        return learner

    def embedding(self) -> Tensor:
        """All rows of the vocabulary.

        In a vocabulary of used rows, timestamps are a linear map of the encoder's own position embedding, so that a
        time to be written and a place to be looked at are near each other from the start.
        """
        rows = self.network.decoder.token_embedding.weight
        if self.vocabulary.fill is None:
            return rows
        return torch.cat([rows, self.timestamps(self.times)])

    def encode(self, mel: Tensor) -> Tensor:
        """Features of `mel`, ``(n_batch, n_mels, n_frames)`` of any even length, in float32."""
        encoder = self.network.encoder
        x = mel.to(self.dtype)
        for conv in (encoder.conv1, encoder.conv2):
            weight, bias = conv.weight.to(x.dtype), None if conv.bias is None else conv.bias.to(x.dtype)
            x = F.gelu(F.conv1d(x, weight, bias, conv.stride, conv.padding))
        x = x.permute(0, 2, 1).float()
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x, _ = self._block(cast(ResidualAttentionBlock, block), x, None)
        return _norm(encoder.ln_post, x)

    def decode(self, tokens: Tensor, features: Tensor, looks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits after each of `tokens`, ``(n_batch, n_tokens, n_rows)``, a shared row counted for all it is.

        Also the summed surprise of the guided heads (a mean over them) at where they should look, given `looks`.
        """
        decoder, embedding = self.network.decoder, self.embedding()
        x = F.embedding(tokens, embedding) + decoder.positional_embedding[: tokens.shape[1]]
        surprise = list[Tensor]()
        for i, block in enumerate(decoder.blocks):
            heads = [head for layer, head in self.objective.guided_heads if layer == i] if looks is not None else []
            x, seen = self._block(cast(ResidualAttentionBlock, block), x, features, heads)
            surprise += [_surprise(weights, looks) for weights in seen if looks is not None]
        x = _norm(decoder.ln, x).to(self.dtype)
        logits = (x @ embedding.to(x.dtype).T).float()
        fill = self.vocabulary.fill
        if fill is not None:
            crowd = logits.new_zeros(logits.shape[-1])
            crowd[fill] = math.log(self.vocabulary.n_unused)
            logits = logits + crowd
        return logits, torch.stack(surprise).mean() if surprise else logits.new_zeros(())

    def forward(self, batch: Batch, counts: Counts | None = None) -> Losses:
        """Grade `batch`; where it is a share of a larger one, `counts` are those of the whole, and shares add up."""
        counts = counts or batch.counts
        features = self.encode(batch.mel)
        guided = batch.looks if self.objective.guidance else None
        logits, looks = self.decode(batch.tokens, features, guided)
        text = self._text_loss(logits, batch.expected) / max(counts.tokens, 1)
        letters = self._letter_loss(features, batch) / max(counts.letters, 1)
        return Losses(text, letters, looks / max(counts.looks, 1))

    def total(self, losses: Losses) -> Tensor:
        """The one number that is made small."""
        return losses.text + self.objective.letters * losses.letters + self.objective.guidance * losses.looks

    def _letter_loss(self, features: Tensor, batch: Batch) -> Tensor:
        keep = batch.letter_lengths >= 0
        if not self.objective.letters or not bool(keep.any()):
            return features.new_zeros(())
        spelled = self._linear(self.letters, features[keep]).float().log_softmax(-1)  # (n_batch, n_ctx, classes)
        lengths = torch.full((len(spelled),), spelled.shape[1], dtype=torch.long, device="cpu")
        letters: Tensor = F.ctc_loss(
            spelled.transpose(0, 1), batch.letters[keep], lengths, batch.letter_lengths[keep],
            reduction="sum", zero_infinity=True,
        )  # fmt: skip
        return letters

    def _text_loss(self, logits: Tensor, expected: Tensor) -> Tensor:
        scored = expected != IGNORED
        logp, target = logits[scored].log_softmax(-1), expected[scored]  # (n, n_rows), (n,)
        v, objective = self.vocabulary, self.objective
        nll = -logp.gather(1, target[:, None])[:, 0]
        if objective.smoothing:
            smooth = -logp[:, : v.n_text].mean(-1)
            smoothed = (1 - objective.smoothing) * nll + objective.smoothing * smooth
            nll = torch.where(target < v.n_text, smoothed, nll)
        is_time = target >= v.timestamp_begin
        if objective.timestamp_spread and bool(is_time.any()):
            nll = nll.masked_scatter(is_time, self._time_loss(logp[is_time], target[is_time]))
        rows = torch.tensor([*v.languages.values(), v.special("no_speech")], dtype=torch.long, device=target.device)
        weight = torch.ones_like(nll).masked_fill(torch.isin(target, rows), objective.language)
        return (nll * weight).sum()

    def _time_loss(self, logp: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with a bell around the right timestamp: 20 ms beside is nearly right."""
        steps = torch.arange(-4, 5, dtype=torch.long, device=target.device)
        at = target[:, None] + steps
        inside = (at >= self.vocabulary.timestamp_begin) & (at < self.vocabulary.n_rows)
        weight = torch.exp(-0.5 * (steps.float() / self.objective.timestamp_spread) ** 2) * inside
        weight = weight / weight.sum(1, keepdim=True)
        return -(weight * logp.gather(1, at.clamp(0, logp.shape[1] - 1))).sum(1)

    # -- the blocks of the model, with one product for query, key and value ---------------------------------

    def _linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        bias = None if layer.bias is None else layer.bias.to(self.dtype)
        return F.linear(x.to(self.dtype), layer.weight.to(self.dtype), bias)

    def _block(
        self, block: ResidualAttentionBlock, x: Tensor, features: Tensor | None, guided: Sequence[int] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """The block's output, and the cross-attention of the heads `guided`."""
        seen = list[Tensor]()
        x = x + self._self_attention(block.attn, _norm(block.attn_ln, x), causal=features is not None)
        if features is not None and block.cross_attn is not None and block.cross_attn_ln is not None:
            mixed, seen = self._cross_attention(block.cross_attn, _norm(block.cross_attn_ln, x), features, guided)
            x = x + mixed
        wide, narrow = cast(nn.Linear, block.mlp[0]), cast(nn.Linear, block.mlp[2])
        return x + self._linear(narrow, F.gelu(self._linear(wide, _norm(block.mlp_ln, x)))), seen

    def _self_attention(self, attention: MultiHeadAttention, x: Tensor, causal: bool) -> Tensor:
        q, k, v = attention.query, attention.key, attention.value
        weight = torch.cat([q.weight, k.weight, v.weight]).to(self.dtype)
        bias = torch.cat([q.bias, torch.zeros_like(q.bias), v.bias]).to(self.dtype)
        queries, keys, values = F.linear(x.to(self.dtype), weight, bias).chunk(3, dim=-1)
        return self._linear(attention.out, _attend(queries, keys, values, attention.n_head, causal))

    def _cross_attention(
        self, attention: MultiHeadAttention, x: Tensor, features: Tensor, guided: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        weight = torch.cat([attention.key.weight, attention.value.weight]).to(self.dtype)
        bias = torch.cat([torch.zeros_like(attention.value.bias), attention.value.bias]).to(self.dtype)
        k, v = F.linear(features.to(self.dtype), weight, bias).chunk(2, dim=-1)
        q, n_head = self._linear(attention.query, x), attention.n_head
        width = q.shape[-1] // n_head
        seen = []
        for head in guided:
            of_head = slice(head * width, (head + 1) * width)
            products = (q[..., of_head] * width**-0.5) @ k[..., of_head].transpose(1, 2)
            seen.append(products.float().softmax(-1))
        return self._linear(attention.out, _attend(q, k, v, n_head, False)), seen


def _surprise(weights: Tensor, looks: Tensor) -> Tensor:
    """Nats by which attention, ``(n_batch, n_tokens, n_ctx)``, misses the positions it should be at."""
    upto = F.pad(weights.cumsum(-1), (1, 0))
    known = looks[..., 0] >= 0
    start, end = looks.clamp(0, weights.shape[-1]).unbind(-1)
    there = upto.gather(-1, end[..., None]) - upto.gather(-1, start[..., None])
    missed = -(there[..., 0].clamp(min=0) + 1e-3).log()
    return (missed * known).sum()


def _norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias)


def _attend(q: Tensor, k: Tensor, v: Tensor, n_head: int, causal: bool) -> Tensor:
    q, k, v = (t.view(*t.shape[:2], n_head, -1).transpose(1, 2) for t in (q, k, v))
    if causal or k.shape[2] >= FUSED_FROM or q.is_cuda:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    else:
        scale = q.shape[-1] ** -0.5
        mixed = ((q * scale) @ k.transpose(-1, -2)).softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(start_dim=2)


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
