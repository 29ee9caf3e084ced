"""The network, as `nn.Module`s whose names are the keys of the published checkpoints.

This is the reference path: plain forwards in which every hook fires and every class can be subclassed or
replaced. It loads no files, samples nothing and keeps no state between calls; a request that wants cached
keys and values brings a `KVCache` along. Architecture: Radford et al. 2022, arXiv:2212.04356, 2.2.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.hooks import RemovableHandle

from . import compat
from .decoding import decode as decode_function
from .decoding import detect_language as detect_language_function
from .errors import ShapeError
from .lazy_modules import deferred
from .network.dimensions import ModelDimensions as ModelDimensions
from .network.dimensions import is_multilingual, n_languages
from .transcribe import transcribe as transcribe_function

SDPA_AVAILABLE = True  # every torch that we support has it; programs for the original look at this name

HAS_ONEDNN_LINEAR: bool = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)
ONEDNN_ROWS, ONEDNN_WEIGHTS = 32, 1 << 22  # smaller products than both wait for memory, and MKL starts sooner


# ---------------------------------------------------------------------------------------------------------
# Layers that compute in the precision of their input, whatever precision their weights are stored in
# ---------------------------------------------------------------------------------------------------------


class LayerNorm(nn.LayerNorm):
    """Layer normalisation computed in float32 and returned in the input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.weight.dtype == torch.float32:
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        y = F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return y.to(x.dtype)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias``, computed in the precision of `x`.

    Large products of float32 on a CPU go through oneDNN: torch asks MKL, which on some processors takes twice as
    long for many rows, and multiplies a single row by the vocabulary on one core only (2.5 times as long).
    """
    if (
        HAS_ONEDNN_LINEAR
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and (x.shape[:-1].numel() >= ONEDNN_ROWS or weight.numel() >= ONEDNN_WEIGHTS)
        and not torch.is_grad_enabled()  # it has no gradient
        and not torch.is_autocast_enabled("cpu")  # which asks F.linear for another precision
    ):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


class Linear(nn.Linear):
    """A linear layer that casts its weights to the precision of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return matmul(x, self.weight, self.bias)


class Conv1d(nn.Conv1d):
    """A convolution that casts its weights to the precision of the input."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        bias = None if bias is None else bias.to(x.dtype)
        return F.conv1d(x, weight.to(x.dtype), bias, self.stride, self.padding, self.dilation, self.groups)


def sinusoids(
    length: int, channels: int, max_timescale: float = 10000, *, device: torch.device | str | None = None
) -> Tensor:
    """Return the encoder's fixed position embedding, shape ``(length, channels)``: sines, then cosines.

    In float32, on `device`, else where torch puts what is new.

    The wavelengths form a geometric series up to ``2 pi max_timescale`` (Vaswani et al. 2017, section 3.5).
    """
    if channels % 2 or channels < 4:
        raise ShapeError(f"channels must be an even number of at least 4, not {channels}")
    step = np.log(max_timescale) / (channels // 2 - 1)
    frequencies = torch.exp(-step * torch.arange(channels // 2, dtype=torch.float32, device="cpu"))
    angles = (
        torch.arange(length, dtype=torch.float32, device="cpu")[:, None] * frequencies[None, :]
    )  # (length, channels / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(device or torch.get_default_device())


# ---------------------------------------------------------------------------------------------------------
# Attention
# ---------------------------------------------------------------------------------------------------------

Cache = MutableMapping[nn.Module, Tensor]


class KVCache(dict[nn.Module, Tensor]):
    """Keys and values of earlier positions, as a value that belongs to one request.

    openai-whisper keeps its cache in forward hooks on the shared model, so that two threads on one
    model write into each other's state. Here the cache is handed down as an argument and the model
    holds nothing. It is a dictionary from projection module to tensor, ``(n_batch, n_positions,
    n_state)``, the very shape that programs written for the original expect.

    Parameters
    ----------
    record_attention
        Keep the cross-attention scores of every layer, in order, in `cross_qk`: word times are read off them.
    """

    def __init__(self, record_attention: bool = False) -> None:
        super().__init__()
        self.cross_qk: list[Tensor] | None = [] if record_attention else None

    def extend(self, module: nn.Module, new: Tensor) -> Tensor:
        """Append `new` along the positions and return all of them, shape ``(n_batch, n_total, n_state)``."""
        if module in self:
            new = torch.cat([self[module], new], dim=1)
        self[module] = new
        return new

    def reorder(self, modules: Sequence[nn.Module], rows: Sequence[int]) -> None:
        """Let row ``i`` of the given modules continue what row ``rows[i]`` was (beams that changed place)."""
        if list(rows) == list(range(len(rows))):
            return
        index = torch.tensor(rows, dtype=torch.long, device=self[modules[0]].device)
        for module in modules:
            self[module] = self[module].index_select(0, index)


_sdpa_disabled: ContextVar[bool] = ContextVar("sdpa_disabled", default=False)


class _UseSdpa:
    """Reads as False inside `disable_sdpa`; assigning to the class attribute replaces it for everybody."""

    def __get__(self, instance: object, owner: type | None = None) -> bool:
        return not _sdpa_disabled.get()


@contextmanager
def disable_sdpa() -> Iterator[None]:
    """Compute attention step by step inside this context, so that its scores ``qk`` can be seen.

    Holds for the thread (or task) that entered it and for no other.
    """
    token = _sdpa_disabled.set(True)
    try:
        yield
    finally:
        _sdpa_disabled.reset(token)


class MultiHeadAttention(nn.Module):
    """Attention of `x` over itself, or over `xa` where that is given."""

    use_sdpa: ClassVar[Any] = _UseSdpa()

    def __init__(self, n_state: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.query = Linear(n_state, n_state)
        self.key = Linear(n_state, n_state, bias=False)
        self.value = Linear(n_state, n_state)
        self.out = Linear(n_state, n_state)

    def forward(
        self, x: Tensor, xa: Tensor | None = None, mask: Tensor | None = None, kv_cache: Cache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended `x`, ``(n_batch, n_ctx, n_state)``, and the scores where they were computed."""
        q = self.query(x)
        k, v = self._keys_and_values(x, xa, kv_cache)
        wv, qk = self.qkv_attention(q, k, v, mask)
        if xa is not None and isinstance(kv_cache, KVCache) and kv_cache.cross_qk is not None and qk is not None:
            kv_cache.cross_qk.append(qk)
        return self.out(wv), qk

    def _keys_and_values(self, x: Tensor, xa: Tensor | None, kv_cache: Cache | None) -> tuple[Tensor, Tensor]:
        if kv_cache is not None and xa is not None and self.key in kv_cache:
            return kv_cache[self.key], kv_cache[self.value]  # the audio does not change while text grows
        source = x if xa is None else xa
        k, v = self.key(source), self.value(source)
        if isinstance(kv_cache, KVCache):  # a plain dict is filled by install_kv_cache_hooks instead
            k, v = kv_cache.extend(self.key, k), kv_cache.extend(self.value, v)
        return k, v

    def qkv_attention(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, with `q` ``(n_batch, n_ctx, n_state)`` and `k`, `v` ``(n_batch, n_kv, n_state)``.

        `k` and `v` may have fewer rows than `q`, each for equally many neighbouring rows: the beams of an audio.

        Returns the mixed values, and the scores before the softmax, ``(n_batch, n_head, n_ctx, n_kv)`` in
        float32, or None where the fused kernel ran (see `disable_sdpa`).
        """
        n_batch, n_ctx, n_state = q.shape
        if (n_group := n_batch // max(k.shape[0], 1)) > 1:
            # several rows of text over one audio: they line up as queries, and keys and values are not copied
            folded, qk = self.qkv_attention(q.reshape(k.shape[0], n_group * n_ctx, n_state), k, v)
            if qk is not None:
                qk = qk.view(k.shape[0], self.n_head, n_group, n_ctx, -1).transpose(1, 2).flatten(0, 1)
            return folded.reshape(n_batch, n_ctx, n_state), qk
        q, k, v = (t.view(*t.shape[:2], self.n_head, -1).transpose(1, 2) for t in (q, k, v))

        if SDPA_AVAILABLE and MultiHeadAttention.use_sdpa and not _sdpa_disabled.get():
            fused = scaled_dot_product_attention(q, k, v, is_causal=mask is not None and n_ctx > 1)
            return fused.transpose(1, 2).flatten(start_dim=2), None

        scale = (n_state // self.n_head) ** -0.25  # on both factors: keeps float16 products in range
        qk = (q * scale) @ (k * scale).transpose(-1, -2)  # (n_batch, n_head, n_ctx, n_kv)
        if mask is not None:
            qk = qk + mask[:n_ctx, :n_ctx]
        qk = qk.float()
        weights = F.softmax(qk, dim=-1).to(v.dtype)
        return (weights @ v).transpose(1, 2).flatten(start_dim=2), qk.detach()


class ResidualAttentionBlock(nn.Module):
    """Self-attention, cross-attention in a decoder, and a two-layer perceptron, each pre-normalised."""

    def __init__(self, n_state: int, n_head: int, cross_attention: bool = False) -> None:
        super().__init__()
        self.attn = MultiHeadAttention(n_state, n_head)
        self.attn_ln = LayerNorm(n_state)
        self.cross_attn = MultiHeadAttention(n_state, n_head) if cross_attention else None
        self.cross_attn_ln = LayerNorm(n_state) if cross_attention else None
        self.mlp = nn.Sequential(Linear(n_state, n_state * 4), nn.GELU(), Linear(n_state * 4, n_state))
        self.mlp_ln = LayerNorm(n_state)

    def forward(
        self, x: Tensor, xa: Tensor | None = None, mask: Tensor | None = None, kv_cache: Cache | None = None
    ) -> Tensor:
        x = x + self.attn(self.attn_ln(x), mask=mask, kv_cache=kv_cache)[0]
        if self.cross_attn is not None and self.cross_attn_ln is not None:
            x = x + self.cross_attn(self.cross_attn_ln(x), xa, kv_cache=kv_cache)[0]
        x = x + self.mlp(self.mlp_ln(x))
        return x


# ---------------------------------------------------------------------------------------------------------
# Encoder, decoder, Whisper
# ---------------------------------------------------------------------------------------------------------


def _blocks(n_layer: int, n_state: int, n_head: int, cross_attention: bool) -> nn.ModuleList:
    return nn.ModuleList([ResidualAttentionBlock(n_state, n_head, cross_attention) for _ in range(n_layer)])


class AudioEncoder(nn.Module):
    """Log-mel frames to audio features, at half the frame rate."""

    positional_embedding: Tensor

    def __init__(self, n_mels: int, n_ctx: int, n_state: int, n_head: int, n_layer: int) -> None:
        super().__init__()
        self.conv1 = Conv1d(n_mels, n_state, kernel_size=3, padding=1)
        self.conv2 = Conv1d(n_state, n_state, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positional_embedding", sinusoids(n_ctx, n_state))
        self.blocks = _blocks(n_layer, n_state, n_head, cross_attention=False)
        self.ln_post = LayerNorm(n_state)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `x`, ``(n_batch, n_mels, 2 * n_ctx)``, into ``(n_batch, n_ctx, n_state)``."""
        n_mels = self.conv1.in_channels
        n_frames = 2 * self.positional_embedding.shape[0]
        if x.ndim != 3 or x.shape[1:] != (n_mels, n_frames):
            raise ShapeError(
                f"incorrect audio shape: the encoder takes (n_batch, {n_mels}, {n_frames}), "
                f"got {tuple(x.shape)}; cut or pad the mel spectrogram with pad_or_trim(mel, {n_frames})"
            )
        x = F.gelu(self.conv1(x))
        x = F.gelu(self.conv2(x))
        x = x.permute(0, 2, 1)  # (n_batch, n_ctx, n_state)
        x = (x + self.positional_embedding).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.ln_post(x)
        return out


def causal_mask(n_ctx: int, *, device: torch.device | str | None = None) -> Tensor:
    """Return ``(n_ctx, n_ctx)`` with 0 where position i may see position j <= i, and -inf elsewhere, as `sinusoids`."""
    mask = torch.full((n_ctx, n_ctx), -torch.inf, dtype=torch.float32, device="cpu").triu_(1)
    return mask.to(device or torch.get_default_device())


class TextDecoder(nn.Module):
    """Text tokens and audio features to the logits of the next token."""

    mask: Tensor

    def __init__(self, n_vocab: int, n_ctx: int, n_state: int, n_head: int, n_layer: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(n_vocab, n_state)
        self.positional_embedding = nn.Parameter(nn.init.normal_(torch.empty(n_ctx, n_state), std=0.01))
        self.blocks = _blocks(n_layer, n_state, n_head, cross_attention=True)
        self.ln = LayerNorm(n_state)
        self.register_buffer("mask", causal_mask(n_ctx), persistent=False)

    def forward(self, x: Tensor, xa: Tensor, kv_cache: Cache | None = None) -> Tensor:
        """Return float32 logits, ``(n_batch, n_tokens, n_vocab)``.

        Parameters
        ----------
        x
            Token ids, ``(n_batch, n_tokens)``; with a filled cache, only those it has not seen.
        xa
            Audio features, ``(n_batch, n_audio_ctx, n_audio_state)``.
        kv_cache
            A `KVCache`, or the dictionary of `Whisper.install_kv_cache_hooks`; extended by this call.
        """
        offset = next(iter(kv_cache.values())).shape[1] if kv_cache else 0
        n_ctx = self.positional_embedding.shape[0]
        if offset + x.shape[-1] > n_ctx:
            raise ShapeError(f"{offset + x.shape[-1]} tokens do not fit the decoder's context of {n_ctx}")
        h = self.token_embedding(x) + self.positional_embedding[offset : offset + x.shape[-1]]
        h = h.to(xa.dtype)  # (n_batch, n_tokens, n_state)
        for block in self.blocks:
            h = block(h, xa, mask=self.mask, kv_cache=kv_cache)
        h = self.ln(h)
        return matmul(h, self.token_embedding.weight).float()


class Whisper(nn.Module):
    """A Whisper model; `load_model` gives one with trained weights.

    The modules of a loaded one are created on first access, see `lazy_modules.deferred`.
    """

    alignment_heads: Tensor
    compute_type: str = "auto"  # of the fast path with ``fp16=True``; see `load_model`
    quantised: str = ""  # how, in the file that it was loaded from: "q5_1"

    def __init__(self, dims: ModelDimensions) -> None:
        super().__init__()
        self.dims = dims
        self.encoder = AudioEncoder(
            dims.n_mels, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer
        )
        self.decoder = TextDecoder(
            dims.n_vocab, dims.n_text_ctx, dims.n_text_state, dims.n_text_head, dims.n_text_layer
        )
        self.set_alignment_mask(default_alignment_mask(dims))

    def set_alignment_mask(self, mask: Tensor) -> None:
        """Read word times off the heads that are True in `mask`, ``(n_text_layer, n_text_head)``."""
        shape = (self.dims.n_text_layer, self.dims.n_text_head)
        if tuple(mask.shape) != shape:
            raise ShapeError(f"alignment heads need shape {shape} (layers, heads), got {tuple(mask.shape)}")
        self.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)

    def set_alignment_heads(self, dump: bytes) -> None:
        """Set the alignment heads from the original's form: gzipped booleans in base 85."""
        flags = np.frombuffer(gzip.decompress(base64.b85decode(dump)), dtype=bool).copy()
        mask = torch.from_numpy(flags).reshape(self.dims.n_text_layer, self.dims.n_text_head)
        self.set_alignment_mask(mask)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Encode `mel`, ``(n_batch, n_mels, n_frames)``, into audio features."""
        features: Tensor = self.encoder(mel)
        return features

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """Return the logits after each of `tokens`, ``(n_batch, n_tokens, n_vocab)``."""
        logits: Tensor = self.decoder(tokens, audio_features)
        return logits

    def forward(self, mel: Tensor, tokens: Tensor) -> Tensor:
        logits: Tensor = self.decoder(tokens, self.encoder(mel))
        return logits

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        if (modules := deferred(self)) is not None:
            return modules.device
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> Whisper:
        """Set training mode; modules that do not exist yet will begin in it."""
        if deferred(self) is None:
            return super().train(mode)
        self.training = mode
        return self

    def to(self, *args: Any, **kwargs: Any) -> Whisper:
        """Move or convert the model; asked for what it is already, it does nothing."""
        if (modules := deferred(self)) is not None:
            device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
            if device in (None, modules.device) and dtype in (None, torch.float32) and memory_format is None:
                return self
        return super().to(*args, **kwargs)

    def share_memory(self) -> Whisper:
        """Move the weights to memory that processes share: one that is handed the model then needs none of its own.

        See `torch.Tensor.share_memory_`. What the fast path packs is each process's own.
        """
        for tensor in (*self.parameters(), *self.buffers()):
            if not tensor.is_sparse:  # the alignment heads, which torch cannot share
                tensor.share_memory_()  # type: ignore[no-untyped-call]
        return self

    @property
    def is_multilingual(self) -> bool:
        """Whether the vocabulary has language tokens."""
        return is_multilingual(self.dims)

    @property
    def num_languages(self) -> int:
        """How many language tokens the vocabulary has: 99, or 100 since large-v3."""
        return n_languages(self.dims)

    def install_kv_cache_hooks(
        self, cache: dict[nn.Module, Tensor] | None = None
    ) -> tuple[dict[nn.Module, Tensor], list[RemovableHandle]]:
        """Fill a dictionary with keys and values by forward hooks, for programs written so.

        Our own decoding passes a `KVCache` instead and installs nothing.

        Returns
        -------
        cache
            From each key and value projection to what it has given so far; pass it as ``kv_cache``.
        hooks
            Call ``remove()`` on each when done.
        """
        held = {} if cache is None else dict(cache)
        hooks: list[RemovableHandle] = []

        def keep(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            # longer than any text: the projection of the audio, which is kept as it is
            if module in held and output.shape[1] <= self.dims.n_text_ctx:
                output = torch.cat([held[module], output], dim=1).detach()
            held[module] = output
            return output

        for module in self.decoder.modules():
            if isinstance(module, MultiHeadAttention):
                hooks.append(module.key.register_forward_hook(keep))
                hooks.append(module.value.register_forward_hook(keep))
        return held, hooks

    # the functions of other modules, under the names that openai-whisper gives them here, too
    decode = decode_function
    detect_language = detect_language_function
    transcribe = transcribe_function

    def refresh(self) -> None:
        """Forget what was packed from the weights: the next call packs them as they are then.

        Changes of weights are noticed without it. Transcriptions that are running go on with the weights that they
        began with.
        """
        from .runtime import select  # which imports this module

        select.refresh(self)


def default_alignment_mask(dims: ModelDimensions) -> Tensor:
    """Return all heads of the upper half of the decoder: what a model without measured heads uses."""
    # on the CPU also inside `with torch.device("meta")`, which has no sparse tensors
    mask = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool, device="cpu")
    mask[dims.n_text_layer // 2 :] = True
    return mask


# ---------------------------------------------------------------------------------------------------------
# What a program may replace, for all models
# ---------------------------------------------------------------------------------------------------------

_CLASSES = (
    Whisper, AudioEncoder, TextDecoder, ResidualAttentionBlock, MultiHeadAttention, Linear, LayerNorm, Conv1d,
    nn.Embedding, nn.Sequential, nn.GELU, nn.Module,
)  # fmt: skip
_METHODS = (
    "__call__", "forward", "_call_impl", "embed_audio", "logits", "_conv_forward", "qkv_attention",
    "_keys_and_values", "use_sdpa",
)  # fmt: skip
compat.remember(
    "model",
    (globals(), ("matmul", "scaled_dot_product_attention", "SDPA_AVAILABLE", "F")),
    *((vars(c), [name for name in _METHODS if name in vars(c)]) for c in _CLASSES),
)
compat.remember("Whisper.decode", (vars(Whisper), ["decode", "detect_language"]))
