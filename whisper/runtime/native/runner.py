"""The runner on compiled kernels: encoder, decoder and token selection in one library.

Python makes one call for each step; the computation is in ``src/*.h``. The kernels add up in a fixed order, so that
a result depends neither on the rest of the batch nor on the number of threads, in any precision.
`pytorch.runner` is the equivalent that needs no compiler.
"""

from __future__ import annotations

import copy
import ctypes
import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...checkpoints.weights import expected_shapes
from ...errors import OptionError, ShapeError
from ...model import ModelDimensions
from ..interface import (
    Batch,
    EncodedWindow,
    Ints,
    RowTable,
    TokenMask,
    check_features,
    check_heads,
    n_positions_of,
)
from . import kernels
from .pointers import address

TYPES = {"float32": 0, "bfloat16": 1, "int8": 2}
LANES = 16  # numbers in the widest vector; head dimension and state must be multiples
MAX_ROWS_KEPT = 64  # rows whose memory is kept for reuse
MAX_SPARE = 2  # windows of 30 s whose cross-attention memory is kept for reuse
PACK_ROWS = 256  # rows of a matrix that are packed at once: bounds the float32 copy


# dimensions, packed matrices and float32 arrays, in the order in which kernels.cpp takes them
Parts = tuple[ctypes.Structure, list[int], list[int]]


def supports(dims: ModelDimensions, compute_type: str) -> bool:
    """Whether the kernels support these dimensions: heads of whole vectors, as in all published models."""
    heads = (dims.n_audio_state, dims.n_audio_head), (dims.n_text_state, dims.n_text_head)
    return (
        compute_type in TYPES
        and dims.n_mels % LANES == 0
        and dims.n_audio_state == dims.n_text_state
        and all(state % head == 0 and (state // head) % LANES == 0 for state, head in heads)
    )


class NativeRunner:
    """See `Runner`.

    Parameters
    ----------
    dims
        Of the network; see `supports`.
    tensors
        Weights under the names of `Whisper.state_dict`, in any floating-point precision; each is read once and packed.
    compute_type
        "float32", "bfloat16" or "int8": how matrices are held and multiplied. With int8 the attention and the
        convolutions are in bfloat16, or in float32 on a processor that does not multiply bfloat16; where it has tiles
        (AMX), so are the layers that int8 hurts most (`sensitive_dtype` in gemm.h). Activations of the decoder have 15
        bits, the rows of the token embedding 16 where they matter. Sums, residuals and normalisation are float32 in
        all three.
    device
        The CPU.
    """

    def __init__(
        self, dims: ModelDimensions, tensors: Mapping[str, Tensor], compute_type: str, device: Any = "cpu"
    ) -> None:
        library = kernels.load()
        if library is None:
            raise OptionError(f"the compiled kernels are not here: {kernels.why_not()}")
        if not supports(dims, compute_type):
            raise OptionError(f"the compiled kernels have no {compute_type} for a network of {dims}")
        self.dims, self.compute_type, self._library = dims, compute_type, library
        packer = _Packer(library, dims, tensors, TYPES[compute_type], _arena(self, library))
        # the token embedding is the largest matrix: packed first, while nothing else is held
        self._parts = {"decoder": packer.decoder(dims), "encoder": packer.encoder(dims)}
        self._kept = packer.kept  # arrays that the parts point to
        self._weights_of: NativeRunner | None = None  # the runner of which this is a twin
        self._begin()
        self.row_bytes: int = library.sotto_kv_row_bytes(self._decoder)
        self.window_bytes = self._cross_kv_bytes(dims.n_audio_ctx)

    def _begin(self) -> None:
        """Make all that calls change."""
        self._decoder = _new(self, self._library, "decoder", self._parts["decoder"])
        self._encoder = _new(self, self._library, "encoder", self._parts["encoder"])
        dims = self.dims
        self._table = RowTable(dims.n_text_ctx)
        self._kv_rows: list[Tensor] = []  # by physical row; pages that are not written yet take no memory
        self._kv_row_pointers = np.zeros(0, dtype=np.uintp)
        self._logits = _floats(0, dims.n_vocab)  # kept from call to call, as fresh pages cost time
        self._scores = _floats(0)
        self._spare: list[Tensor] = []  # keys and values of windows that were freed

    def twin(self) -> NativeRunner:
        """See `Runner.twin`."""
        twin = copy.copy(self)
        twin._weights_of = self  # keeps the memory of the weights
        twin._begin()
        return twin

    # -- encoder -----------------------------------------------------------------------------------------

    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """See `Runner.encode`."""
        return [self._encode(mel) for mel in mels]

    def _encode(self, mel: Tensor) -> Tensor:
        n = n_positions_of(mel, self.dims)
        mel = mel.detach().to("cpu", torch.float32).contiguous()
        features = _floats(n, self.dims.n_audio_state)
        at_mel, at_features = _pointer(mel, "mel"), _pointer(features, "features")
        self._call("sotto_encode", self._encoder, at_mel, at_features, n, torch.get_num_threads())
        return features

    def project(self, features: Tensor) -> EncodedWindow:
        """See `Runner.project`."""
        check_features(features, self.dims)
        features = features.detach().to("cpu", torch.float32).contiguous()
        n, is_full = len(features), len(features) == self.dims.n_audio_ctx
        # what lies behind the last position must be zero; the kernels never write there
        memory = self._spare.pop() if is_full and self._spare else _memory(self._cross_kv_bytes(n))
        window = EncodedWindow(features, memory)
        at_features, at_memory = _pointer(features, "features"), ctypes.c_void_p(self._address_of(window))
        self._call("sotto_project_cross_kv", self._decoder, at_features, n, at_memory, torch.get_num_threads())
        if is_full:
            weakref.finalize(window, _give_back, self._spare, memory)
        return window

    def _cross_kv_bytes(self, n_positions: int) -> int:
        n_bytes: int = self._library.sotto_cross_kv_bytes(self._decoder, n_positions)
        return n_bytes

    # -- KV cache ----------------------------------------------------------------------------------------

    def take_rows(self, n: int) -> list[int]:
        """See `Runner.take_rows`."""
        rows = self._table.take(n)
        while len(self._kv_rows) < self._table.n_rows:
            kv_row = torch.empty(self.row_bytes, dtype=torch.uint8, device="cpu")
            pointer = address(kv_row, torch.uint8, self.row_bytes, "a row's keys and values")
            self._kv_rows.append(kv_row)
            self._kv_row_pointers = np.append(self._kv_row_pointers, np.uintp(pointer))
        return rows

    def free_rows(self, rows: Sequence[int]) -> None:
        """See `Runner.free_rows`; the memory of many goes with the last."""
        self._table.free(rows)
        if self._table.n_taken == 0 and self._table.n_rows > MAX_ROWS_KEPT:
            self._table = RowTable(self.dims.n_text_ctx)
            self._kv_rows, self._kv_row_pointers = [], self._kv_row_pointers[:0]
            self._logits = self._logits[:0].clone()

    def reorder(self, rows: Sequence[int], sources: Sequence[int]) -> None:
        """See `Runner.reorder`."""
        self._table.reorder(rows, sources)

    # -- decoder -----------------------------------------------------------------------------------------

    def forward(self, batch: Batch, heads: Sequence[tuple[int, int]] = (), qk: Tensor | None = None) -> Tensor:
        """See `Runner.forward`; the scores of the cross-attention `heads` are written into `qk`."""
        batch.validate(self.dims)
        check_heads(self.dims, heads)
        self._table.write(batch.rows, batch.positions)
        logits = self._room_for_logits(len(batch.logit_indices))
        n, n_logits, n_rows, dims = len(batch), len(batch.logit_indices), self._table.n_rows, self.dims
        columns = (batch.tokens, batch.rows, batch.positions)
        items = [np.asarray(numbers, dtype=np.int32) for numbers in columns]
        at_items = [address(array, np.int32, n, "a batch") for array in items]
        logit_indices = np.asarray(batch.logit_indices, dtype=np.int32)
        windows = {id(window): window for window in batch.windows}
        pointers = {key: self._address_of(window) for key, window in windows.items()}
        cross_kv = np.array([pointers[id(window)] for window in batch.windows], dtype=np.uintp)
        n_positions = np.array([len(window.features) for window in batch.windows], dtype=np.int32)
        recorded = np.array([layer * dims.n_text_head + head for layer, head in heads], dtype=np.int32)
        qk_stride = int(n_positions.max())
        arguments = kernels.Batch(
            n_items=n,
            n_logits=n_logits,
            n_threads=torch.get_num_threads(),
            n_heads=len(heads),
            qk_stride=qk_stride,
            tokens=at_items[0],
            rows=at_items[1],
            positions=at_items[2],
            row_table=address(self._table.table, np.int32, n_rows * dims.n_text_ctx, "the table of rows"),
            kv_rows=address(self._kv_row_pointers, np.uintp, n_rows, "the rows of the KV cache"),
            cross_kv=address(cross_kv, np.uintp, n, "encoded windows"),
            n_positions=address(n_positions, np.int32, n, "encoded windows"),
            logit_indices=address(logit_indices, np.int32, n_logits, "a batch"),
            logits=address(logits, torch.float32, n_logits * dims.n_vocab, "logits"),
            heads=address(recorded, np.int32, len(heads), "heads"),
            qk=None if qk is None else address(qk, torch.float32, len(heads) * n * qk_stride, "scores"),
        )
        self._call("sotto_forward", self._decoder, ctypes.byref(arguments))
        return logits

    def _room_for_logits(self, n: int) -> Tensor:
        if n > len(self._logits):
            self._logits = _floats(n, self.dims.n_vocab)
        return self._logits[:n]

    def attention_scores(
        self,
        window: EncodedWindow,
        tokens: Sequence[int],
        heads: Sequence[tuple[int, int]],
        n_skipped: int,
        n_text: int,
    ) -> tuple[Tensor, Tensor]:
        """See `Runner.attention_scores`."""
        shape = (len(heads), len(tokens), len(window.features))
        n_scores = math.prod(shape)
        if n_scores > len(self._scores):
            self._scores = _floats(n_scores)
        qk = self._scores[:n_scores].view(shape)
        rows = self.take_rows(1)
        try:
            batch = Batch.of_row(tokens, rows[0], window, range(n_skipped, n_skipped + n_text))
            logits = self.forward(batch, heads, qk)
        finally:
            self.free_rows(rows)
        return qk, logits

    def _address_of(self, window: EncodedWindow) -> int:
        """Return where a window's keys and values lie; raises `ShapeError` for those of another runner."""
        n_bytes = self._cross_kv_bytes(len(window.features))
        return address(window.cross_kv, torch.uint8, n_bytes, "a window's keys and values")

    def select_tokens(self, logits: Tensor, rules: TokenMask, n_best: int) -> tuple[Ints, npt.NDArray[np.float32]]:
        """See `Runner.select_tokens`."""
        n_rows, n_vocab = _checked_choice(logits, rules, n_best)
        ids, logprobs = np.empty((n_rows, n_best), np.int32), np.empty((n_rows, n_best), np.float32)
        sets = np.array([address(s, np.int32, len(s), "suppressed") for s in rules.suppressed], dtype=np.uintp)
        sizes = np.array([len(s) for s in rules.suppressed], dtype=np.int32)
        selection = kernels.TokenSelection(
            n_rows=n_rows,
            n_vocab=n_vocab,
            n_best=n_best,
            n_threads=torch.get_num_threads(),
            timestamp_begin=rules.timestamp_begin,
            logits=address(logits, torch.float32, n_rows * n_vocab, "logits"),
            suppressed=address(sets, np.uintp, len(sets), "suppressed"),
            n_suppressed=address(sizes, np.int32, len(sets), "suppressed"),
            suppressed_by=address(rules.suppressed_by, np.int32, n_rows, "suppressed_by"),
            text_from=address(rules.text_from, np.int32, n_rows, "text_from"),
            timestamps_from=address(rules.timestamps_from, np.int32, n_rows, "timestamps_from"),
            timestamps_to=address(rules.timestamps_to, np.int32, n_rows, "timestamps_to"),
            timestamp_mass=address(rules.timestamp_mass, np.bool_, n_rows, "timestamp_mass"),
            ids=address(ids, np.int32, n_rows * n_best, "ids"),
            logprobs=address(logprobs, np.float32, n_rows * n_best, "logprobs"),
        )
        self._library.sotto_select_tokens(ctypes.byref(selection))
        return ids, logprobs

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, name)(*arguments):
            raise MemoryError(f"out of memory in {name}; lower the number of windows that run side by side")


def _give_back(spare: list[Tensor], memory: Tensor) -> None:
    if len(spare) < MAX_SPARE:
        spare.append(memory)


def _checked_choice(logits: Tensor, rules: TokenMask, n_best: int) -> tuple[int, int]:
    """Return the shape of `logits`; raises `ShapeError` where `rules` do not fit them."""
    if logits.ndim != 2 or not logits.numel():
        raise ShapeError(f"logits of shape {tuple(logits.shape)}; they must be (n_rows, n_vocab), of at least one row")
    n_rows, n_vocab = logits.shape
    if not 1 <= n_best <= n_vocab or not 0 <= rules.timestamp_begin <= n_vocab:
        raise ShapeError(f"the {n_best} best, and timestamps from {rules.timestamp_begin} on, of {n_vocab} tokens")
    for ids in rules.suppressed:  # sorted
        if len(ids) and not 0 <= ids[0] <= ids[-1] < n_vocab:
            raise ShapeError(f"tokens from {ids[0]} to {ids[-1]} are suppressed, of a vocabulary of {n_vocab}")
    chosen = rules.suppressed_by.tolist()
    if chosen and not 0 <= min(chosen) <= max(chosen) < len(rules.suppressed):
        raise ShapeError(f"suppressed_by names set {max(chosen)}, and there are {len(rules.suppressed)}, from 0 on")
    return n_rows, n_vocab


def _floats(*shape: int) -> Tensor:
    """Return memory of any contents that a kernel fills."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _memory(n_bytes: int) -> Tensor:
    return torch.zeros(n_bytes, dtype=torch.uint8, device="cpu")


def _pointer(tensor: Tensor, what: str) -> ctypes.c_void_p:
    return ctypes.c_void_p(address(tensor, torch.float32, tensor.numel(), what))


def _arena(owner: object, library: ctypes.CDLL) -> ctypes.c_void_p:
    """Make the allocator of the packed matrices, which is freed with `owner`."""
    pointer = library.sotto_arena_new()
    if not pointer:
        raise MemoryError("not enough memory for the weights")
    _free_with(owner, library.sotto_arena_free, pointer)
    return ctypes.c_void_p(pointer)


def _new(owner: object, library: ctypes.CDLL, kind: str, parts: Parts) -> Any:
    """Make an encoder or a decoder of its parts, which is freed with `owner`."""
    dims, linears, arrays = parts
    make, free = getattr(library, f"sotto_{kind}_new"), getattr(library, f"sotto_{kind}_free")
    pointer = make(
        ctypes.byref(dims),
        (ctypes.c_void_p * len(linears))(*linears),
        (ctypes.c_void_p * len(arrays))(*arrays),
    )
    if not pointer:
        raise MemoryError(f"not enough memory for the {kind}")
    _free_with(owner, free, pointer)
    return ctypes.c_void_p(pointer)


def _free_with(owner: object, free: Callable[[int], None], pointer: int) -> None:
    """Give memory back when `owner` goes.

    Not when Python ends, since a daemon thread may be using it, and not in a child that was forked, since a thread of
    the parent may have been changing it.
    """
    weakref.finalize(owner, _free_here, os.getpid(), free, pointer).atexit = False


def _free_here(pid: int, free: Callable[[int], None], pointer: int) -> None:
    if os.getpid() == pid:
        free(pointer)


class _Packer:
    """Packs tensors one by one, and lists the parts in the order in which kernels.cpp takes them."""

    def __init__(
        self,
        library: ctypes.CDLL,
        dims: ModelDimensions,
        tensors: Mapping[str, Tensor],
        dtype: int,
        arena: ctypes.c_void_p,
    ) -> None:
        self.library, self.tensors, self.dtype, self.arena = library, tensors, dtype, arena
        self.shapes = expected_shapes(dims)
        self.sensitive_dtype: int = library.sotto_sensitive_dtype(dtype)
        self.unquantized_dtype: int = library.sotto_unquantized_dtype(dtype)  # of convolutions and attention
        self.kept: list[Tensor] = []
        self.staging = _floats(0)

    def encoder(self, dims: ModelDimensions) -> Parts:
        linears = [self._convolution("encoder.conv1"), self._convolution("encoder.conv2")]
        arrays = [self._array("encoder.positional_embedding"), *self._layer_norm("encoder.ln_post")]
        for i in range(dims.n_audio_layer):
            block = f"encoder.blocks.{i}"
            arrays += [*self._layer_norm(f"{block}.attn_ln"), *self._layer_norm(f"{block}.mlp_ln")]
            linears += [*self._attention(f"{block}.attn", self.sensitive_dtype)]
            linears += [self._linear(f"{block}.mlp.{i}", dtype=self.sensitive_dtype) for i in (0, 2)]
        encoder_dims = kernels.EncoderDims(
            n_mels=dims.n_mels,
            n_ctx=dims.n_audio_ctx,
            n_state=dims.n_audio_state,
            n_head=dims.n_audio_head,
            n_layer=dims.n_audio_layer,
            dtype=self.sensitive_dtype,
        )
        return encoder_dims, linears, arrays

    def decoder(self, dims: ModelDimensions) -> Parts:
        linears = [self._matrix(["decoder.token_embedding.weight"], keep_remainder=True)]
        arrays = [self._array("decoder.positional_embedding"), *self._layer_norm("decoder.ln")]
        for i in range(dims.n_text_layer):
            block = f"decoder.blocks.{i}"
            for norm in ("attn_ln", "cross_attn_ln", "mlp_ln"):
                arrays += self._layer_norm(f"{block}.{norm}")
            cross = f"{block}.cross_attn"
            linears += [
                *self._attention(f"{block}.attn"),
                self._linear(f"{cross}.query"),
                self._linear(f"{cross}.out"),
                self._linear(f"{cross}.key", f"{cross}.value", dtype=self.sensitive_dtype),
                self._linear(f"{block}.mlp.0"),
                self._linear(f"{block}.mlp.2", dtype=self.sensitive_dtype),
            ]
        decoder_dims = kernels.DecoderDims(
            n_vocab=dims.n_vocab,
            n_ctx=dims.n_text_ctx,
            n_state=dims.n_text_state,
            n_head=dims.n_text_head,
            n_layer=dims.n_text_layer,
            n_audio_ctx=dims.n_audio_ctx,
            dtype=self.dtype,
        )
        return decoder_dims, linears, arrays

    def _attention(self, name: str, dtype: int | None = None) -> list[int]:
        qkv = self._linear(f"{name}.query", f"{name}.key", f"{name}.value", dtype=dtype)
        return [qkv, self._linear(f"{name}.out", dtype=dtype)]

    def _layer_norm(self, name: str) -> list[int]:
        return [self._array(f"{name}.weight"), self._array(f"{name}.bias")]

    def _array(self, name: str) -> int:
        # a copy, whose memory no other owner can change or release
        array = self._tensor(name).detach().to("cpu", torch.float32, copy=True).contiguous()
        self.kept.append(array)
        return address(array, torch.float32, array.numel(), name)

    def _tensor(self, name: str) -> Tensor:
        """Read a tensor of the shape that the dimensions ask for."""
        tensor = self.tensors[name]
        if tuple(tensor.shape) != self.shapes[name]:
            raise ShapeError(f"{name} must have the shape {self.shapes[name]}, not {tuple(tensor.shape)}")
        return tensor

    def _linear(self, *names: str, dtype: int | None = None) -> int:
        return self._matrix([f"{name}.weight" for name in names], [f"{name}.bias" for name in names], dtype)

    def _convolution(self, name: str) -> int:
        weight = self._tensor(f"{name}.weight").detach()  # (n_out, n_in, 3)
        n_out, n_in, n_frames = weight.shape
        matrix = self._new(self.unquantized_dtype, n_out, n_frames * n_in)
        flat = weight.permute(0, 2, 1).flatten(1)  # (n_out, 3 n_in): the three frames of the kernel side by side
        self._pack(matrix, 0, flat, self._tensor(f"{name}.bias"))
        return matrix

    def _matrix(
        self, weights: list[str], biases: Sequence[str] = (), dtype: int | None = None, keep_remainder: bool = False
    ) -> int:
        """Pack weights of equal shape, (n_out, n_in), as one with their rows below each other."""
        first = self._tensor(weights[0])
        n, k = first.shape
        matrix = self._new(self.dtype if dtype is None else dtype, n * len(weights), k, keep_remainder)
        for i, name in enumerate(weights):
            weight, first = first if i == 0 else self._tensor(name), _floats(0)  # one is held at a time
            bias = self._tensor(biases[i]) if biases and biases[i] in self.shapes else None
            self._pack(matrix, i * n, weight.detach(), bias)
        return matrix

    def _new(self, dtype: int, n: int, k: int, keep_remainder: bool = False) -> int:
        pointer = self.library.sotto_linear_new(self.arena, dtype, n, k, keep_remainder)
        if not pointer:
            raise MemoryError(f"not enough memory for a matrix of {n} x {k}")
        return int(pointer)

    def _pack(self, matrix: int, first: int, weight: Tensor, bias: Tensor | None) -> None:
        biases = None if bias is None else bias.detach().to("cpu", torch.float32).contiguous()
        for start in range(0, len(weight), PACK_ROWS):
            rows = self._float(weight[start : start + PACK_ROWS])
            own = None if biases is None else _pointer(biases[start : start + len(rows)], "a bias")
            self.library.sotto_linear_pack(
                matrix, first + start, len(rows), _pointer(rows, "weights"), own, torch.get_num_threads()
            )

    def _float(self, rows: Tensor) -> Tensor:
        """Return rows in float32 on the CPU, in memory that the next call overwrites."""
        if rows.numel() > len(self.staging):
            self.staging = _floats(rows.numel())
        return self.staging[: rows.numel()].view(rows.shape).copy_(rows)
