"""The fast path on compiled kernels: encoder, decoder and token selection in one library.

Python makes one call for each step; the computation is in ``native/*.h``. The kernels add up in a fixed order, so that
a result depends neither on the rest of the batch nor on the number of threads, in any precision. `torch_runner` is the
twin that needs no compiler.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import kernels
from .errors import OptionError, ShapeError
from .model import ModelDimensions
from .runner import Audio, Ints, RowTable, Rules

TYPES = {"float32": 0, "bfloat16": 1, "int8": 2}
LANES = 16  # numbers in the widest vector; head dimension and state must be multiples
MAX_ROWS_KEPT = 64  # rows whose memory is kept for reuse
MAX_SPARE = 2  # windows whose cross-attention memory is kept for reuse
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
        convolutions are in bfloat16, or in float32 on a processor that does not multiply bfloat16. Sums, residuals
        and normalisation are float32 in all three.
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
        packer = _Packer(library, tensors, TYPES[compute_type], _arena(self, library))
        # the token embedding is the largest matrix: packed first, while nothing else is held
        self._decoder = _new(self, library, "decoder", packer.decoder(dims))
        self._encoder = _new(self, library, "encoder", packer.encoder(dims))
        self._kept = packer.kept  # arrays that encoder and decoder point to
        self.row_bytes: int = library.sotto_kv_row_bytes(self._decoder)
        self.audio_bytes: int = library.sotto_cross_kv_bytes(self._decoder)
        self.weight_bytes: int = packer.n_bytes()
        self._table = RowTable(dims.n_text_ctx)
        self._kv_rows: list[Tensor] = []  # by physical row; pages that are not written yet take no memory
        self._kv_row_pointers = np.zeros(0, dtype=np.uintp)
        self._logits = torch.empty(0, dims.n_vocab)  # kept from call to call, as fresh pages cost time
        self._scores = torch.empty(0)
        self._spare: list[Tensor] = []  # keys and values of windows that were freed

    # -- encoder -----------------------------------------------------------------------------------------

    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """See `Runner.encode`."""
        return [self._encode(mel) for mel in mels]

    def _encode(self, mel: Tensor) -> Tensor:
        shape = (self.dims.n_mels, 2 * self.dims.n_audio_ctx)
        if tuple(mel.shape) != shape:
            raise ShapeError(
                f"incorrect audio shape: the encoder takes {shape}, got {tuple(mel.shape)}; cut or pad the mel "
                f"spectrogram with pad_or_trim(mel, {shape[1]})"
            )
        mel = mel.detach().to("cpu", torch.float32).contiguous()
        features = torch.empty(self.dims.n_audio_ctx, self.dims.n_audio_state)
        self._call("sotto_encode", self._encoder, _pointer(mel), _pointer(features), torch.get_num_threads())
        return features

    def listen(self, features: Tensor) -> Audio:
        """See `Runner.listen`."""
        shape = (self.dims.n_audio_ctx, self.dims.n_audio_state)
        if tuple(features.shape) != shape:
            raise ShapeError(f"audio features of this model have shape {shape}, not {tuple(features.shape)}")
        features = features.detach().to("cpu", torch.float32).contiguous()
        # what lies behind the last position must be zero; the kernels never write there
        memory = self._spare.pop() if self._spare else torch.zeros(self.audio_bytes, dtype=torch.uint8)
        self._call(
            "sotto_project_cross_kv", self._decoder, _pointer(features), _pointer(memory), torch.get_num_threads()
        )
        audio = Audio(features, memory)
        weakref.finalize(audio, _give_back, self._spare, memory)
        return audio

    # -- KV cache ----------------------------------------------------------------------------------------

    def take_rows(self, n: int) -> list[int]:
        """See `Runner.take_rows`."""
        rows = self._table.take(n)
        while len(self._kv_rows) < self._table.n_rows:
            self._kv_rows.append(torch.empty(self.row_bytes, dtype=torch.uint8))
            self._kv_row_pointers = np.append(self._kv_row_pointers, np.uintp(self._kv_rows[-1].data_ptr()))
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

    def forward(
        self,
        tokens: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        audios: Sequence[Audio],
        wanted: Sequence[int],
    ) -> Tensor:
        """See `Runner.forward`."""
        logits = self._room_for_logits(len(wanted))
        self._run(tokens, rows, positions, audios, wanted, logits)
        return logits

    def _room_for_logits(self, n: int) -> Tensor:
        if n > len(self._logits):
            self._logits = torch.empty(n, self.dims.n_vocab)
        return self._logits[:n]

    def attend(
        self, audio: Audio, tokens: Sequence[int], heads: Sequence[tuple[int, int]], n_skipped: int, n_text: int
    ) -> tuple[Tensor, Tensor]:
        """See `Runner.attend`."""
        n_scores = len(heads) * len(tokens) * self.dims.n_audio_ctx
        if n_scores > len(self._scores):
            self._scores = torch.empty(n_scores)
        qk = self._scores[:n_scores].view(len(heads), len(tokens), self.dims.n_audio_ctx)
        logits = self._room_for_logits(n_text)
        rows = self.take_rows(1)
        try:
            n = len(tokens)
            wanted = range(n_skipped, n_skipped + n_text)
            self._run(tokens, rows * n, range(n), [audio] * n, wanted, logits, heads, qk)
        finally:
            self.free_rows(rows)
        return qk, logits

    def _run(
        self,
        tokens: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        audios: Sequence[Audio],
        wanted: Sequence[int],
        logits: Tensor,
        heads: Sequence[tuple[int, int]] = (),
        qk: Tensor | None = None,
    ) -> None:
        if max(positions) >= self.dims.n_text_ctx:
            raise ShapeError(f"{max(positions) + 1} tokens do not fit the decoder's context of {self.dims.n_text_ctx}")
        if not 0 <= min(tokens) <= max(tokens) < self.dims.n_vocab:
            raise ShapeError(f"tokens from {min(tokens)} to {max(tokens)} for a vocabulary of {self.dims.n_vocab}")
        self._table.write(rows, positions)
        items = [np.asarray(numbers, dtype=np.int32) for numbers in (tokens, rows, positions)]
        logit_indices = np.asarray(wanted, dtype=np.int32)
        cross_kv = np.array([audio.keys_and_values.data_ptr() for audio in audios], dtype=np.uintp)
        recorded = np.array([layer * self.dims.n_text_head + head for layer, head in heads], dtype=np.int32)
        batch = kernels.Batch(
            n_items=len(tokens),
            n_logits=len(wanted),
            n_threads=torch.get_num_threads(),
            n_heads=len(heads),
            tokens=items[0].ctypes.data,
            rows=items[1].ctypes.data,
            positions=items[2].ctypes.data,
            row_table=self._table.table.ctypes.data,
            kv_rows=self._kv_row_pointers.ctypes.data,
            cross_kv=cross_kv.ctypes.data,
            logit_indices=logit_indices.ctypes.data,
            logits=logits.data_ptr(),
            heads=recorded.ctypes.data,
            qk=None if qk is None else qk.data_ptr(),
        )
        self._call("sotto_forward", self._decoder, ctypes.byref(batch))

    def choose(self, logits: Tensor, rules: Rules, n_best: int) -> tuple[Ints, npt.NDArray[np.float32]]:
        """See `Runner.choose`."""
        n_rows, n_vocab = logits.shape
        ids, logprobs = np.empty((n_rows, n_best), np.int32), np.empty((n_rows, n_best), np.float32)
        sets = np.array([ids.ctypes.data for ids in rules.suppressed], dtype=np.uintp)
        sizes = np.array([len(ids) for ids in rules.suppressed], dtype=np.int32)
        selection = kernels.TokenSelection(
            n_rows=n_rows,
            n_vocab=n_vocab,
            n_best=n_best,
            n_threads=torch.get_num_threads(),
            timestamp_begin=rules.timestamp_begin,
            logits=logits.data_ptr(),
            suppressed=sets.ctypes.data,
            n_suppressed=sizes.ctypes.data,
            suppressed_by=rules.suppressed_by.ctypes.data,
            text_from=rules.text_from.ctypes.data,
            timestamps_from=rules.timestamps_from.ctypes.data,
            timestamps_to=rules.timestamps_to.ctypes.data,
            timestamp_mass=rules.weighs.ctypes.data,
            ids=ids.ctypes.data,
            logprobs=logprobs.ctypes.data,
        )
        self._library.sotto_select_tokens(ctypes.byref(selection))
        return ids, logprobs

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, name)(*arguments):
            raise MemoryError(f"out of memory in {name}; lower the number of windows that run side by side")


def _give_back(spare: list[Tensor], memory: Tensor) -> None:
    if len(spare) < MAX_SPARE:
        spare.append(memory)


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _arena(owner: object, library: ctypes.CDLL) -> ctypes.c_void_p:
    """Make the allocator of the packed matrices, which is freed with `owner`."""
    pointer = library.sotto_arena_new()
    if not pointer:
        raise MemoryError("not enough memory for the weights")
    weakref.finalize(owner, library.sotto_arena_free, pointer)
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
    weakref.finalize(owner, free, pointer)
    return ctypes.c_void_p(pointer)


class _Packer:
    """Packs tensors one by one, and lists the parts in the order in which kernels.cpp takes them."""

    def __init__(self, library: ctypes.CDLL, tensors: Mapping[str, Tensor], dtype: int, arena: ctypes.c_void_p) -> None:
        self.library, self.tensors, self.dtype, self.arena = library, tensors, dtype, arena
        self.unquantized_dtype: int = library.sotto_unquantized_dtype(dtype)  # of convolutions and attention
        self.kept: list[Tensor] = []
        self.staging = torch.empty(0)

    def n_bytes(self) -> int:
        return int(self.library.sotto_arena_bytes(self.arena)) + sum(array.nbytes for array in self.kept)

    def encoder(self, dims: ModelDimensions) -> Parts:
        linears = [self._convolution("encoder.conv1"), self._convolution("encoder.conv2")]
        arrays = [self._array("encoder.positional_embedding"), *self._layer_norm("encoder.ln_post")]
        for i in range(dims.n_audio_layer):
            block = f"encoder.blocks.{i}"
            arrays += [*self._layer_norm(f"{block}.attn_ln"), *self._layer_norm(f"{block}.mlp_ln")]
            linears += [*self._attention(f"{block}.attn"), *self._mlp(block)]
        encoder_dims = kernels.EncoderDims(
            n_mels=dims.n_mels,
            n_ctx=dims.n_audio_ctx,
            n_state=dims.n_audio_state,
            n_head=dims.n_audio_head,
            n_layer=dims.n_audio_layer,
            dtype=self.dtype,
        )
        return encoder_dims, linears, arrays

    def decoder(self, dims: ModelDimensions) -> Parts:
        linears = [self._matrix(["decoder.token_embedding.weight"])]
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
                self._linear(f"{cross}.key", f"{cross}.value"),
                *self._mlp(block),
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

    def _attention(self, name: str) -> list[int]:
        return [self._linear(f"{name}.query", f"{name}.key", f"{name}.value"), self._linear(f"{name}.out")]

    def _mlp(self, block: str) -> list[int]:
        return [self._linear(f"{block}.mlp.0"), self._linear(f"{block}.mlp.2")]

    def _layer_norm(self, name: str) -> list[int]:
        return [self._array(f"{name}.weight"), self._array(f"{name}.bias")]

    def _array(self, name: str) -> int:
        array = self.tensors[name].detach().to("cpu", torch.float32).contiguous()
        self.kept.append(array)
        return array.data_ptr()

    def _linear(self, *names: str) -> int:
        return self._matrix([f"{name}.weight" for name in names], [f"{name}.bias" for name in names])

    def _convolution(self, name: str) -> int:
        weight = self.tensors[f"{name}.weight"].detach()  # (n_out, n_in, 3)
        n_out, n_in, n_frames = weight.shape
        matrix = self._new(self.unquantized_dtype, n_out, n_frames * n_in)
        flat = weight.permute(0, 2, 1).flatten(1)  # (n_out, 3 n_in): the three frames of the kernel side by side
        self._pack(matrix, 0, flat, self.tensors[f"{name}.bias"])
        return matrix

    def _matrix(self, weights: list[str], biases: Sequence[str] = ()) -> int:
        """Pack weights of equal shape, (n_out, n_in), as one with their rows below each other."""
        first = self.tensors[weights[0]]
        n, k = first.shape
        matrix = self._new(self.dtype, n * len(weights), k)
        for i, name in enumerate(weights):
            weight, first = first if i == 0 else self.tensors[name], torch.empty(0)  # one is held at a time
            self._pack(matrix, i * n, weight.detach(), self.tensors.get(biases[i]) if biases else None)
        return matrix

    def _new(self, dtype: int, n: int, k: int) -> int:
        pointer = self.library.sotto_linear_new(self.arena, dtype, n, k)
        if not pointer:
            raise MemoryError(f"not enough memory for a matrix of {n} x {k}")
        return int(pointer)

    def _pack(self, matrix: int, first: int, weight: Tensor, bias: Tensor | None) -> None:
        biases = None if bias is None else bias.detach().to("cpu", torch.float32).contiguous()
        for start in range(0, len(weight), PACK_ROWS):
            rows = self._float(weight[start : start + PACK_ROWS])
            own = None if biases is None else _pointer(biases[start:])
            self.library.sotto_linear_pack(
                matrix, first + start, len(rows), _pointer(rows), own, torch.get_num_threads()
            )

    def _float(self, rows: Tensor) -> Tensor:
        """Return rows in float32 on the CPU, in memory that the next call overwrites."""
        if rows.numel() > len(self.staging):
            self.staging = torch.empty(rows.numel())
        return self.staging[: rows.numel()].view(rows.shape).copy_(rows)
