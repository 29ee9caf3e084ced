"""The runner on compiled kernels: encoder, decoder and token selection in one library.

Python makes one call for each step; the computation is in ``src/*.h``. The kernels add up in a fixed order, so that
a result depends neither on the rest of the batch nor on the number of threads, in any precision.
`pytorch.runner` is the equivalent that needs no compiler.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...checkpoints.identity import origin_of
from ...device.lazy_torch import Tensor, n_threads, torch
from ...errors import OptionError, ShapeError
from ...network.dimensions import ModelDimensions
from ..interface import (
    Batch,
    EncodedWindow,
    Ints,
    RowTable,
    TokenMask,
    check_features,
    check_heads,
    n_own_positions,
    n_positions_with_padding,
)
from . import kernels, packed_files
from .packed_files import PackedFileError
from .packing import Layout, Numbers, Packer, Parts
from .pointers import address

TYPES = {"float32": 0, "bfloat16": 1, "int8": 2}
LANES = 16  # numbers in the widest vector; head dimension and state must be multiples
CACHE_LINE = 64  # bytes
MAX_ROWS_KEPT = 64  # rows whose memory is kept for reuse
MAX_SPARE = 2  # windows of 30 s whose cross-attention memory is kept for reuse

Bytes = npt.NDArray[np.uint8]


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
        Weights under the names of `Whisper.state_dict`, in any floating-point precision, of torch or of NumPy; each is
        read once and packed. Or the path of a file of packed weights; see `packed_files`.
    compute_type
        "float32", "bfloat16" or "int8": how matrices are held and multiplied. With int8 the attention and the
        convolutions are in bfloat16, or in float32 on a processor that does not multiply bfloat16; where it has tiles
        (AMX), so are the layers that int8 hurts most (`sensitive_dtype` in gemm.h). Activations of the decoder have 15
        bits, the rows of the token embedding 16 where they matter. Sums, residuals and normalisation are float32 in
        all three.
    device
        The CPU.
    plain
        What it returns is arrays of NumPy in the place of tensors, and it needs no torch.

    Raises
    ------
    PackedFileError
        There is a file of packed weights in the place of `tensors`, and it is damaged or does not fit.
    """

    def __init__(
        self,
        dims: ModelDimensions,
        tensors: Mapping[str, Numbers] | str,
        compute_type: str,
        device: Any = "cpu",
        *,
        plain: bool = False,
    ) -> None:
        library = kernels.load()
        if library is None:
            raise OptionError(f"the compiled kernels are not here: {kernels.why_not()}")
        if not supports(dims, compute_type):
            raise OptionError(f"the compiled kernels have no {compute_type} for a network of {dims}")
        self.dims, self.compute_type, self._library, self._plain = dims, compute_type, library, plain
        packed = self._read(tensors) if isinstance(tensors, str) else self._packed(tensors)
        self._parts, self._kept = packed.parts, (packed.arena, packed.kept)  # what the parts point to
        self._weights_of: NativeRunner | None = None  # the runner of which this is a twin
        self._begin()
        self.row_bytes: int = library.sotto_kv_row_bytes(self._decoder)
        self.window_bytes = self._cross_kv_bytes(dims.n_audio_ctx)

    def _packed(self, tensors: Mapping[str, Numbers]) -> Layout:
        """Read what was packed of these tensors before, or pack them, and keep that for later processes."""
        known, dtype, n = origin_of(tensors), TYPES[self.compute_type], n_threads()
        path = packed_files.path_for(known.identity, self.compute_type)
        if path is not None and os.path.exists(path):
            with contextlib.suppress(PackedFileError):
                return self._read(path)
        packer = Packer(self._library, self.dims, dtype, _Arena(self._library), tensors)
        if path is not None and origin_of(tensors) == known:  # no file of it was changed meanwhile
            packed_files.write(path, packer.blocks(), known.about, n)
        return packer

    def _read(self, path: str) -> Layout:
        """Read a file of packed weights."""
        layout = Layout(self._library, self.dims, TYPES[self.compute_type], _Arena(self._library))
        packed_files.read_into(path, layout.blocks(), n_threads())
        return layout

    def _floats(self, *shape: int) -> Any:
        """Return memory of any contents that a kernel fills."""
        floats = _bytes(4 * math.prod(shape)).view(np.float32).reshape(shape)
        return floats if self._plain else torch.from_numpy(floats)

    def _begin(self) -> None:
        """Make all that calls change."""
        self._decoder = _new(self, self._library, "decoder", self._parts["decoder"])
        self._encoder = _new(self, self._library, "encoder", self._parts["encoder"])
        dims = self.dims
        self._table = RowTable(dims.n_text_ctx)
        self._kv_rows: list[Bytes] = []  # by physical row; pages that are not written yet take no memory
        self._kv_row_pointers = np.zeros(0, dtype=np.uintp)
        self._logits = self._floats(0, dims.n_vocab)  # kept from call to call, as fresh pages cost time
        self._scores = self._floats(0)
        self._spare: list[Bytes] = []  # keys and values of windows that were freed

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
        n = n_own_positions(mel, self.dims)
        mel = _on_cpu(mel)
        features: Tensor = self._floats(n_positions_with_padding(n, self.dims), self.dims.n_audio_state)
        at_mel, at_features = _pointer(mel, "mel"), _pointer(features, "features")
        self._call("sotto_encode", self._encoder, at_mel, at_features, n, n_threads())
        return features

    def project(self, features: Tensor) -> EncodedWindow:
        """See `Runner.project`."""
        check_features(features, self.dims)
        features = _on_cpu(features)
        n, is_full = len(features), len(features) == self.dims.n_audio_ctx
        # what lies behind the last position must be zero; the kernels never write there
        memory = self._spare.pop() if is_full and self._spare else _bytes(self._cross_kv_bytes(n), np.zeros)
        window = EncodedWindow(features, memory)
        at_features, at_memory = _pointer(features, "features"), ctypes.c_void_p(self._address_of(window))
        self._call("sotto_project_cross_kv", self._decoder, at_features, n, at_memory, n_threads())
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
            kv_row = _bytes(self.row_bytes)
            pointer = address(kv_row, np.uint8, self.row_bytes, "a row's keys and values")
            self._kv_rows.append(kv_row)
            self._kv_row_pointers = np.append(self._kv_row_pointers, np.uintp(pointer))
        return rows

    def free_rows(self, rows: Sequence[int]) -> None:
        """See `Runner.free_rows`; the memory of many goes with the last."""
        self._table.free(rows)
        if self._table.n_taken == 0 and self._table.n_rows > MAX_ROWS_KEPT:
            self._table = RowTable(self.dims.n_text_ctx)
            self._kv_rows, self._kv_row_pointers = [], self._kv_row_pointers[:0]
            self._logits = self._floats(0, self.dims.n_vocab)

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
            n_threads=n_threads(),
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
            logits=address(logits, np.float32, n_logits * dims.n_vocab, "logits"),
            heads=address(recorded, np.int32, len(heads), "heads"),
            qk=None if qk is None else address(qk, np.float32, len(heads) * n * qk_stride, "scores"),
        )
        self._call("sotto_forward", self._decoder, ctypes.byref(arguments))
        return logits

    def _room_for_logits(self, n: int) -> Tensor:
        if n > len(self._logits):
            self._logits = self._floats(n, self.dims.n_vocab)
        room: Tensor = self._logits[:n]
        return room

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
            self._scores = self._floats(n_scores)
        qk = self._scores[:n_scores].reshape(shape)
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
        return address(window.cross_kv, np.uint8, n_bytes, "a window's keys and values")

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
            n_threads=n_threads(),
            timestamp_begin=rules.timestamp_begin,
            logits=address(logits, np.float32, n_rows * n_vocab, "logits"),
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


def _give_back(spare: list[Bytes], memory: Bytes) -> None:
    if len(spare) < MAX_SPARE:
        spare.append(memory)


def _checked_choice(logits: Tensor, rules: TokenMask, n_best: int) -> tuple[int, int]:
    """Return the shape of `logits`; raises `ShapeError` where `rules` do not fit them."""
    if logits.ndim != 2 or 0 in logits.shape:
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


def _bytes(n: int, make: Callable[..., Bytes] = np.empty) -> Bytes:
    """Return memory of any contents, or of zeros, that begins with a line of the cache."""
    memory = make(n + CACHE_LINE, np.uint8)
    first = -memory.ctypes.data % CACHE_LINE
    return memory[first : first + n]


def _on_cpu(numbers: Any) -> Any:
    """Return numbers, a tensor or an array, as the kernels read them."""
    if isinstance(numbers, Tensor):
        return numbers.detach().to("cpu", torch.float32).contiguous()
    return np.ascontiguousarray(numbers, np.float32)


def _pointer(numbers: Any, what: str) -> ctypes.c_void_p:
    return ctypes.c_void_p(address(numbers, np.float32, math.prod(numbers.shape), what))


class _Arena:
    """The allocator of the packed matrices, which are freed with it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer = library.sotto_arena_new()
        if not pointer:
            raise MemoryError("not enough memory for the weights")
        _free_with(self, library.sotto_arena_free, pointer)
        self._as_parameter_ = ctypes.c_void_p(pointer)  # what ctypes passes for it


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
