"""The weights of a Whisper packed for PyTorch, and the encoder that runs them.

Kept beside the module tree, which has the names of the checkpoint. Layers with the same input are one
product; convolutions are products over neighbouring frames. Holds no cache and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...device.hardware import has_bfloat16, has_bfloat16_tiles
from ...errors import OptionError
from ...model import ModelDimensions
from ..interface import PADDING_STRIDE
from .quantization import COMPUTE_TYPES, Buffers, Packed, Together, pack, pack_together

Weights = Mapping[str, Tensor]

PADDING_SCORE = math.log(PADDING_STRIDE)  # what is added to the scores of padding: to be there so often


class Precision:
    """What is computed in which precision, on which device.

    On a CPU activations, caches and attention over a cache are float32 throughout: for a few rows nothing is gained
    by less (measured: 8 heads over 1500 positions, one row, 77 us in float32 and 148 in bfloat16). The encoder's
    attention is 2.2 times as fast in bfloat16, one head at a time, where the processor has its products.
    """

    def __init__(self, compute_type: str, device: torch.device) -> None:
        if compute_type not in COMPUTE_TYPES:
            raise OptionError(f"compute_type must be one of {', '.join(COMPUTE_TYPES)}, not {compute_type!r}")
        self.compute_type = compute_type
        self.device = device
        half = torch.bfloat16 if compute_type == "bfloat16" else torch.float16
        self.activations = torch.float32 if device.type == "cpu" or compute_type == "float32" else half
        self.bfloat16_heads = device.type == "cpu" and compute_type in ("int8", "bfloat16") and has_bfloat16()
        self.buffers = Buffers()

    def finer(self) -> Precision:
        """Return the precision of convolutions, where a frame has little to share a scale with: no int8."""
        if self.compute_type != "int8":
            return self
        if self.device.type == "cpu":
            return Precision("bfloat16" if self.bfloat16_heads else "float32", self.device)
        return Precision("float16", self.device)

    def sensitive(self) -> Precision:
        """Return the precision of the layers that int8 hurts most: bfloat16, where the processor has tiles for it."""
        if self.compute_type == "int8" and self.device.type == "cpu" and has_bfloat16_tiles():
            return Precision("bfloat16", self.device)
        return self

    def pack(
        self, weight: Tensor, bias: Tensor | None = None, rows_vary: bool = True, keep_remainder: bool = False
    ) -> Packed:
        """Pack a layer; see `quantization.pack`."""
        return pack(weight, bias, self.compute_type, keep_remainder=keep_remainder, **self._options(rows_vary))

    def pack_together(self, *layers: tuple[Tensor, Tensor | None], rows_vary: bool = True) -> Together:
        """Pack layers with the same input; see `quantization.pack_together`."""
        return pack_together(layers, self.compute_type, **self._options(rows_vary))

    def _options(self, rows_vary: bool) -> dict[str, Any]:
        # a few channels of the decoder's rows are 20 times as large as the others, which one digit cannot hold
        n_digits = 2 if rows_vary else 1
        return {"device": self.device, "buffers": self.buffers, "rows_vary": rows_vary, "n_digits": n_digits}

    def plain(self, tensor: Tensor) -> Tensor:
        """Return a tensor that is added or multiplied, in the precision of activations."""
        return tensor.detach().to(self.device, self.activations)


@dataclass
class Norm:
    """Layer normalisation."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)


class Block:
    """One transformer layer: the projections of each attention, and the MLP."""

    def __init__(self, tensors: Weights, name: str, precision: Precision, cross_attention: bool) -> None:
        def linear(part: str) -> tuple[Tensor, Tensor | None]:
            return tensors[f"{name}.{part}.weight"], tensors.get(f"{name}.{part}.bias")

        def norm(part: str) -> Norm:
            return Norm(*(precision.plain(tensors[f"{name}.{part}.{kind}"]) for kind in ("weight", "bias")))

        self.take = precision.buffers.take
        self.attn_ln, self.mlp_ln = norm("attn_ln"), norm("mlp_ln")
        vary = cross_attention  # the decoder's rows; the encoder always has those of one window
        qkv = (linear(f"attn.{part}") for part in ("query", "key", "value"))
        self.qkv = precision.pack_together(*qkv, rows_vary=vary)
        self.out = precision.pack(*linear("attn.out"), rows_vary=vary)
        self.widen = precision.pack(*linear("mlp.0"), rows_vary=vary)
        self.narrow = precision.sensitive().pack(*linear("mlp.2"), rows_vary=vary)
        if cross_attention:
            self.cross_ln = norm("cross_attn_ln")
            self.cross_query = precision.pack(*linear("cross_attn.query"))
            kv = (linear(f"cross_attn.{part}") for part in ("key", "value"))
            self.cross_kv = precision.sensitive().pack_together(*kv, rows_vary=False)
            self.cross_out = precision.pack(*linear("cross_attn.out"))

    def mlp(self, x: Tensor) -> Tensor:
        """Add the output of the MLP to the residual stream `x`, ``(n_items, n_state)``, in place."""
        wide = self.take("wide", (len(x), self.widen.n_out), x.dtype, x.device)
        narrow = self.take("narrow", x.shape, x.dtype, x.device)
        return x.add_(self.narrow.linear(self.widen.linear(self.mlp_ln(x), wide, gelu=True), narrow))


class Convolution:
    """A convolution over 3 frames, with frames first, as a product; and GELU after it."""

    def __init__(self, tensors: Weights, name: str, precision: Precision, stride: int) -> None:
        weight = tensors[f"{name}.weight"]  # (n_out, n_in, 3)
        self.stride = stride
        self.packed = precision.pack(weight.transpose(1, 2).flatten(1), tensors[f"{name}.bias"], rows_vary=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``(n_batch, n_frames, n_in)`` to ``(n_batch, n_frames / stride, n_out)``."""
        x = F.pad(x, (0, 0, 1, 1))
        n_batch, n_padded, n_in = x.shape
        n_frames = (n_padded - 3) // self.stride + 1
        windows = x.as_strided((n_batch, n_frames, 3 * n_in), (n_padded * n_in, self.stride * n_in, 1))
        return self.packed.linear(windows.reshape(-1, 3 * n_in), gelu=True).view(n_batch, n_frames, -1)


class Encoder:
    """Log-mel frames to audio features."""

    def __init__(self, dims: ModelDimensions, tensors: Weights, precision: Precision) -> None:
        self.dims = dims
        self.precision = precision
        self.conv1 = Convolution(tensors, "encoder.conv1", precision.finer(), stride=1)
        self.conv2 = Convolution(tensors, "encoder.conv2", precision.finer(), stride=2)
        self.positions = precision.plain(tensors["encoder.positional_embedding"])
        inner = precision.sensitive()  # all of them
        self.blocks = [Block(tensors, f"encoder.blocks.{i}", inner, False) for i in range(dims.n_audio_layer)]
        self.ln_post = Norm(*(precision.plain(tensors[f"encoder.ln_post.{kind}"]) for kind in ("weight", "bias")))

    def __call__(self, mels: Tensor) -> Tensor:
        """Encode ``(n_batch, n_mels, 2 * n_own)`` into ``(n_batch, n_ctx, n_audio_state)``; see `Runner.encode`."""
        mels = mels.to(self.precision.device, self.precision.activations)
        x = self.conv2(self.conv1(mels.transpose(1, 2)))
        n_own = x.shape[1]
        padding = self.positions[n_own:].view(-1, PADDING_STRIDE, self.positions.shape[1]).mean(1)
        x = torch.cat([x + self.positions[:n_own], x[:, -1:] + padding], dim=1)
        n_batch, n_ctx, n_state = x.shape
        x = x.view(-1, n_state)  # (n_batch * n_ctx, n_audio_state)
        take = self.precision.buffers.take
        qkv, narrow = (
            take(name, (len(x), n), x.dtype, x.device) for name, n in (("qkv", 3 * n_state), ("narrow", n_state))
        )
        for block in self.blocks:
            q, k, v = (t.reshape(n_batch, n_ctx, -1) for t in block.qkv.linear(block.attn_ln(x), qkv))
            x.add_(block.out.linear(self._attend(q, k, v, n_own).view(-1, n_state), narrow))
            block.mlp(x)
        return self.ln_post(x).view(n_batch, n_ctx, n_state)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, n_own: int) -> Tensor:
        """Mix `v` by the likeness of `q` and `k`, ``(n_batch, n_ctx, n_state)`` each."""
        q, k, v = (t.view(*t.shape[:2], self.dims.n_audio_head, -1).transpose(1, 2) for t in (q, k, v))
        if not self.precision.bfloat16_heads:
            mask = None
            if n_own < q.shape[2]:
                mask = torch.zeros(q.shape[2], dtype=q.dtype, device=q.device)
                mask[n_own:] = PADDING_SCORE
                mask = mask.expand(q.shape[2], -1)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        n_batch, n_head, n_ctx, width = q.shape
        q, k, v = ((t * scale).bfloat16().contiguous() for t, scale in ((q, width**-0.5), (k, 1.0), (v, 1.0)))
        out = torch.empty(n_batch, n_ctx, n_head, width, dtype=torch.float32, device=q.device)
        take = self.precision.buffers.take
        scores, weights = (take(name, (n_ctx, n_ctx), q.dtype, q.device) for name in ("scores", "weights"))
        for b in range(n_batch):
            for h in range(n_head):  # the scores of one head fit the cache
                torch.mm(q[b, h], k[b, h].t(), out=scores)
                scores[:, n_own:] += PADDING_SCORE
                torch.softmax(scores, -1, out=weights)
                out[b, :, h] = weights @ v[b, h]
        return out.flatten(2)


class Decoder:
    """The weights of the decoder; who runs them keeps the caches."""

    def __init__(self, dims: ModelDimensions, tensors: Weights, precision: Precision) -> None:
        self.embedding = precision.pack(
            tensors["decoder.token_embedding.weight"], keep_remainder=True
        )  # also the last layer
        self.positions = precision.plain(tensors["decoder.positional_embedding"])
        self.blocks = [Block(tensors, f"decoder.blocks.{i}", precision, True) for i in range(dims.n_text_layer)]
        self.ln = Norm(*(precision.plain(tensors[f"decoder.ln.{kind}"]) for kind in ("weight", "bias")))
        self.activations = precision.activations

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return ``(n_items, n_state)``."""
        return self.embedding.rows(tokens).to(self.activations) + self.positions[positions]

    def logits(self, x: Tensor) -> Tensor:
        """Return float32 ``(n_items, n_vocab)``."""
        return self.embedding.linear(self.ln(x)).float()
