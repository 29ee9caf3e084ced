"""The network of a training: the modules of `model.py` in mixed precision, with the losses.

What only training needs is dropped at export: windows may be shorter than 30 s, the vocabulary may
be reduced to the tokens in use, and the encoder may have a CTC loss beside the decoder's (it helps
the attention to align; Graves et al. 2006, Watanabe et al. 2017). Reads no files, draws no samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.weights import InFloat32
from ..model import ModelDimensions, MultiHeadAttention, ResidualAttentionBlock, Whisper, sinusoids
from .targets import IGNORE_INDEX, N_TIMESTAMPS, Vocabulary

MIN_POSITIONS_FOR_SDPA = 600  # from which the fused attention kernel is faster on a CPU


@dataclass(frozen=True)
class Objective:
    """The losses and their weights."""

    ctc_weight: float = 0.0  # of the CTC loss of the encoder
    attention_weight: float = 0.0  # of the guided attention loss
    guided_heads: tuple[tuple[int, int], ...] = ()  # (layer, head) of the decoder; they become the alignment heads
    label_smoothing: float = 0.0  # of text tokens, over all text tokens
    timestamp_sigma: float = 0.0  # standard deviation of timestamp labels, in steps of 20 ms
    language_weight: float = 1.0  # of the language token, which is one token among many


FROM_SCRATCH = Objective(
    ctc_weight=1.0,
    attention_weight=0.3,
    guided_heads=((0, 0), (1, 0)),
    label_smoothing=0.05,
    timestamp_sigma=1.0,
    language_weight=3.0,
)
FINE_TUNING = Objective()


@dataclass(frozen=True)
class Counts:
    """Numbers of targets, over which the losses are means."""

    tokens: float
    ctc: float
    attention: float


@dataclass(frozen=True)
class TrainingBatch:
    """The windows of one step as tensors."""

    mel: Tensor  # (n_batch, n_mels, n_frames)
    tokens: Tensor  # (n_batch, n_tokens) vocabulary indices
    labels: Tensor  # (n_batch, n_tokens) vocabulary indices, or IGNORE_INDEX
    attention_targets: Tensor  # (n_batch, n_tokens, 2) first and one past the last encoder position; -1: unknown
    ctc_targets: Tensor  # (n_batch, n_letters) CTC classes
    ctc_lengths: Tensor  # (n_batch,); -1: no CTC loss

    @property
    def counts(self) -> Counts:
        """Numbers of targets in the batch."""
        return Counts(
            tokens=(self.labels != IGNORE_INDEX).sum().item(),
            ctc=int(self.ctc_lengths.clamp(min=0).sum().item()),
            attention=int((self.attention_targets[..., 0] >= 0).sum().item()),
        )

    def to(self, device: torch.device) -> TrainingBatch:
        """The batch on another device."""
        return TrainingBatch(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True)
class Losses:
    """Mean losses in nats: per token, per CTC target, and per attention target of a guided head."""

    text: Tensor
    ctc: Tensor
    attention: Tensor


class TrainingNetwork(nn.Module):
    """A Whisper model with the parts that only training needs.

    Parameters
    ----------
    model
        Its embedding has as many vectors as `vocabulary` has indices or, for a reduced vocabulary,
        as there are before the timestamps.
    vocabulary
        See `targets.py`.
    objective
        The losses.
    dtype
        Of the matrix products; weights and sums stay float32.
    """

    def __init__(
        self,
        model: Whisper,
        vocabulary: Vocabulary,
        objective: Objective = FINE_TUNING,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__()
        self.model, self.vocabulary, self.objective, self.dtype = model, vocabulary, objective, dtype
        self.dims, width = model.dims, model.dims.n_text_state
        if vocabulary.unused_index is not None:
            self.timestamp_map = nn.Linear(width, width, bias=False, dtype=torch.float32, device="cpu")
            positions = sinusoids(N_TIMESTAMPS, width, device="cpu")
            self.register_buffer("timestamp_positions", positions, persistent=False)
        if objective.ctc_weight:
            n_classes = len(vocabulary.alphabet) + 2
            self.ctc_head = nn.Linear(self.dims.n_audio_state, n_classes, dtype=torch.float32, device="cpu")

    @classmethod
    def from_scratch(
        cls,
        dims: ModelDimensions,
        vocabulary: Vocabulary,
        objective: Objective = FROM_SCRATCH,
        dtype: torch.dtype = torch.bfloat16,
    ) -> TrainingNetwork:
        """A network with random weights, drawn from torch's generator."""
        n_vocab = vocabulary.size if vocabulary.unused_index is None else vocabulary.unused_index + 1
        with torch.device("cpu"), InFloat32():
            model = Whisper(replace(dims, n_vocab=n_vocab))
        network = cls(model, vocabulary, objective, dtype)
        with torch.no_grad():
            network.model.decoder.token_embedding.weight.normal_(std=0.05)
            network.model.encoder.conv2.weight.mul_(2.0)
            if vocabulary.unused_index is not None:
                identity = torch.eye(dims.n_text_state, dtype=torch.float32, device="cpu")
                network.timestamp_map.weight.copy_(identity * 0.07)
            for i, block in enumerate(network.model.encoder.blocks):
                init_local_attention(cast(MultiHeadAttention, block.attn), dims.n_audio_state, reach=2 + 2 * i)
        return network

    def embedding(self) -> Tensor:
        """The vectors of all vocabulary indices.

        In a reduced vocabulary, timestamps are a linear map of the encoder's position embedding, so
        that a timestamp and the encoder position of its time are similar from the start.
        """
        vectors = self.model.decoder.token_embedding.weight
        if self.vocabulary.unused_index is None:
            return vectors
        return torch.cat([vectors, self.timestamp_map(self.timestamp_positions)])

    def encode(self, mel: Tensor) -> Tensor:
        """Audio features of `mel`, ``(n_batch, n_mels, n_frames)`` with any even `n_frames`."""
        encoder = self.model.encoder
        x = mel.to(self.dtype)
        for conv in (encoder.conv1, encoder.conv2):
            weight, bias = conv.weight.to(x.dtype), None if conv.bias is None else conv.bias.to(x.dtype)
            x = F.gelu(F.conv1d(x, weight, bias, conv.stride, conv.padding))
        x = x.permute(0, 2, 1).float()
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x, _ = self._block(cast(ResidualAttentionBlock, block), x, None)
        return _norm(encoder.ln_post, x)

    def decode(
        self, tokens: Tensor, features: Tensor, attention_targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits after each token, ``(n_batch, n_tokens, vocabulary.size)``, and attention loss.

        The logit of a shared index counts for all tokens that share it. The attention loss is
        summed over `attention_targets` and a mean over the guided heads; zero without targets.
        """
        decoder, embedding = self.model.decoder, self.embedding()
        x = F.embedding(tokens, embedding) + decoder.positional_embedding[: tokens.shape[1]]
        losses = list[Tensor]()
        for i, block in enumerate(decoder.blocks):
            heads: list[int] = []
            if attention_targets is not None:
                heads = [head for layer, head in self.objective.guided_heads if layer == i]
            x, attention = self._block(cast(ResidualAttentionBlock, block), x, features, heads)
            if attention_targets is not None:
                losses += [_attention_loss(weights, attention_targets) for weights in attention]
        x = _norm(decoder.ln, x).to(self.dtype)
        logits = (x @ embedding.to(x.dtype).T).float()
        unused = self.vocabulary.unused_index
        if unused is not None:
            multiplicity = logits.new_zeros(logits.shape[-1])
            multiplicity[unused] = math.log(self.vocabulary.n_unused)
            logits = logits + multiplicity
        return logits, torch.stack(losses).mean() if losses else logits.new_zeros(())

    def forward(self, batch: TrainingBatch, counts: Counts | None = None) -> Losses:
        """The losses of `batch`.

        For a share of a larger batch, `counts` are those of the whole batch; the losses of all
        shares then add up to those of the whole.
        """
        counts = counts or batch.counts
        features = self.encode(batch.mel)
        targets = batch.attention_targets if self.objective.attention_weight else None
        logits, attention = self.decode(batch.tokens, features, targets)
        text = self._text_loss(logits, batch.labels) / max(counts.tokens, 1)
        ctc = self._ctc_loss(features, batch) / max(counts.ctc, 1)
        return Losses(text, ctc, attention / max(counts.attention, 1))

    def total(self, losses: Losses) -> Tensor:
        """The weighted sum of the losses."""
        return losses.text + self.objective.ctc_weight * losses.ctc + self.objective.attention_weight * losses.attention

    def _ctc_loss(self, features: Tensor, batch: TrainingBatch) -> Tensor:
        keep = batch.ctc_lengths >= 0
        if not self.objective.ctc_weight or not bool(keep.any()):
            return features.new_zeros(())
        logp = self._linear(self.ctc_head, features[keep]).float().log_softmax(-1)  # (n_batch, n_ctx, classes)
        loss: Tensor = F.ctc_loss(
            logp.transpose(0, 1),
            batch.ctc_targets[keep],
            torch.full((len(logp),), logp.shape[1], dtype=torch.long, device="cpu"),
            batch.ctc_lengths[keep],
            reduction="sum",
            zero_infinity=True,
        )
        return loss

    def _text_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        scored = labels != IGNORE_INDEX
        logp, target = logits[scored].log_softmax(-1), labels[scored]  # (n, vocabulary.size), (n,)
        v, objective = self.vocabulary, self.objective
        nll = -logp.gather(1, target[:, None])[:, 0]
        if objective.label_smoothing:
            smooth = -logp[:, : v.n_text].mean(-1)
            smoothed = (1 - objective.label_smoothing) * nll + objective.label_smoothing * smooth
            nll = torch.where(target < v.n_text, smoothed, nll)
        is_timestamp = target >= v.timestamp_begin
        if objective.timestamp_sigma and bool(is_timestamp.any()):
            nll = nll.masked_scatter(is_timestamp, self._timestamp_loss(logp[is_timestamp], target[is_timestamp]))
        indices = [*v.languages.values(), v.special("no_speech")]
        language_indices = torch.tensor(indices, dtype=torch.long, device=target.device)
        weight = torch.ones_like(nll).masked_fill(torch.isin(target, language_indices), objective.language_weight)
        return (nll * weight).sum()

    def _timestamp_loss(self, logp: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with Gaussian labels: a timestamp 20 ms off is a small error."""
        steps = torch.arange(-4, 5, dtype=torch.long, device=target.device)
        at = target[:, None] + steps
        inside = (at >= self.vocabulary.timestamp_begin) & (at < self.vocabulary.size)
        weight = torch.exp(-0.5 * (steps.float() / self.objective.timestamp_sigma) ** 2) * inside
        weight = weight / weight.sum(1, keepdim=True)
        return -(weight * logp.gather(1, at.clamp(0, logp.shape[1] - 1))).sum(1)

    # -- the blocks of the model, with one matrix product for query, key and value -----------------

    def _linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        bias = None if layer.bias is None else layer.bias.to(self.dtype)
        return F.linear(x.to(self.dtype), layer.weight.to(self.dtype), bias)

    def _block(
        self, block: ResidualAttentionBlock, x: Tensor, features: Tensor | None, guided: Sequence[int] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """The block's output, and the cross-attention weights of the heads `guided`."""
        weights = list[Tensor]()
        x = x + self._self_attention(block.attn, _norm(block.attn_ln, x), causal=features is not None)
        if features is not None and block.cross_attn is not None and block.cross_attn_ln is not None:
            out, weights = self._cross_attention(block.cross_attn, _norm(block.cross_attn_ln, x), features, guided)
            x = x + out
        up, down = cast(nn.Linear, block.mlp[0]), cast(nn.Linear, block.mlp[2])
        return x + self._linear(down, F.gelu(self._linear(up, _norm(block.mlp_ln, x)))), weights

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
        weights = []
        for head in guided:
            of_head = slice(head * width, (head + 1) * width)
            qk = (q[..., of_head] * width**-0.5) @ k[..., of_head].transpose(1, 2)
            weights.append(qk.float().softmax(-1))
        return self._linear(attention.out, _attend(q, k, v, n_head, False)), weights


def _attention_loss(weights: Tensor, targets: Tensor) -> Tensor:
    """Sum of the negative log attention mass in each target span.

    `weights` is ``(n_batch, n_tokens, n_ctx)``, `targets` ``(n_batch, n_tokens, 2)``.
    """
    cumulative = F.pad(weights.cumsum(-1), (1, 0))
    known = targets[..., 0] >= 0
    start, end = targets.clamp(0, weights.shape[-1]).unbind(-1)
    mass = cumulative.gather(-1, end[..., None]) - cumulative.gather(-1, start[..., None])
    nll = -(mass[..., 0].clamp(min=0) + 1e-3).log()
    return (nll * known).sum()


def _norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias)


def _attend(q: Tensor, k: Tensor, v: Tensor, n_head: int, causal: bool) -> Tensor:
    q, k, v = (t.view(*t.shape[:2], n_head, -1).transpose(1, 2) for t in (q, k, v))
    if causal or k.shape[2] >= MIN_POSITIONS_FOR_SDPA or q.is_cuda:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    else:
        scale = q.shape[-1] ** -0.5
        out = ((q * scale) @ k.transpose(-1, -2)).softmax(-1) @ v
    return out.transpose(1, 2).flatten(start_dim=2)


def init_local_attention(attention: MultiHeadAttention, n_state: int, reach: int) -> None:
    """Initialise the heads to attend to nearby positions, each at another multiple of `reach`.

    A query that rotates the sines and cosines of its position embedding by ``w * offset`` matches
    the key of the position `offset` away. Learning this from ten hours of speech takes many epochs.
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
                for matrix, rotation in ((attention.query.weight, angle), (attention.key.weight, 0.0)):
                    matrix[[sine, cosine]] *= 0.2
                    matrix[sine, f] += 1.3 * math.cos(rotation)
                    matrix[sine, half + f] += 1.3 * math.sin(rotation)
                    matrix[cosine, half + f] += 1.3 * math.cos(rotation)
                    matrix[cosine, f] -= 1.3 * math.sin(rotation)
