"""Packs the weights of a model for the compiled kernels, and lists them in the order of kernels.cpp."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ...device.lazy_torch import Tensor, n_threads, torch
from ...errors import ShapeError
from ...network.dimensions import ModelDimensions, expected_shapes
from ..interface import PADDING_STRIDE
from . import kernels, packed_files
from .pointers import address

PACK_ROWS = 256  # rows of a matrix that are packed at once: bounds the float32 copy

Floats: TypeAlias = npt.NDArray[np.float32]
Numbers: TypeAlias = "Tensor | npt.NDArray[Any]"
# dimensions, packed matrices and float32 arrays, in the order in which kernels.cpp takes them
Parts = tuple[ctypes.Structure, list[int], list[int]]


class Layout:
    """The matrices and arrays of a model, made without their numbers, tensor by tensor in a fixed order.

    Parameters
    ----------
    library
        The kernels.
    dims
        Of the network.
    dtype
        What matrices are held in; see `runner.TYPES`.
    arena
        The allocator of the matrices, ``sotto_arena_new``.
    """

    def __init__(self, library: ctypes.CDLL, dims: ModelDimensions, dtype: int, arena: object) -> None:
        self.library, self.dtype, self.arena = library, dtype, arena
        self.shapes = expected_shapes(dims)
        self.sensitive_dtype: int = library.sotto_sensitive_dtype(dtype)
        self.unquantized_dtype: int = library.sotto_unquantized_dtype(dtype)  # of convolutions and attention
        self.kept: list[Any] = []  # arrays that the parts point to
        # the token embedding is the largest matrix: packed first, while nothing else is held
        self.parts = {"decoder": self._decoder(dims), "encoder": self._encoder(dims)}

    def blocks(self) -> list[packed_files.Block]:
        """Return where all numbers lie, the arena's regions first."""
        return [*self._regions(), *((array.ctypes.data, array.nbytes) for array in self.kept)]

    def _regions(self) -> Iterator[packed_files.Block]:
        size = ctypes.c_size_t(0)
        i = 0
        while place := self.library.sotto_arena_region(self.arena, i, ctypes.byref(size)):
            yield place, size.value
            i += 1

    def _encoder(self, dims: ModelDimensions) -> Parts:
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
            padding_stride=PADDING_STRIDE,
        )
        return encoder_dims, linears, arrays

    def _decoder(self, dims: ModelDimensions) -> Parts:
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
            padding_stride=PADDING_STRIDE,
        )
        return decoder_dims, linears, arrays

    def _attention(self, name: str, dtype: int | None = None) -> list[int]:
        qkv = self._linear(f"{name}.query", f"{name}.key", f"{name}.value", dtype=dtype)
        return [qkv, self._linear(f"{name}.out", dtype=dtype)]

    def _layer_norm(self, name: str) -> list[int]:
        return [self._array(f"{name}.weight"), self._array(f"{name}.bias")]

    def _array(self, name: str) -> int:
        shape = self.shapes[name]
        array = np.empty(shape, np.float32)
        self.kept.append(array)
        return address(array, np.float32, array.size, name)

    def _linear(self, *names: str, dtype: int | None = None) -> int:
        return self._matrix([f"{name}.weight" for name in names], [f"{name}.bias" for name in names], dtype)

    def _convolution(self, name: str) -> int:
        n_out, n_in, n_frames = self.shapes[f"{name}.weight"]
        return self._new(self.unquantized_dtype, n_out, n_frames * n_in)

    def _matrix(
        self, weights: list[str], biases: Sequence[str] = (), dtype: int | None = None, keep_remainder: bool = False
    ) -> int:
        """Make one matrix of weights of equal shape, (n_out, n_in), with their rows below each other."""
        n, k = self.shapes[weights[0]]
        return self._new(self.dtype if dtype is None else dtype, n * len(weights), k, keep_remainder)

    def _new(self, dtype: int, n: int, k: int, keep_remainder: bool = False) -> int:
        pointer = self.library.sotto_linear_new(self.arena, dtype, n, k, keep_remainder)
        if not pointer:
            raise MemoryError(f"not enough memory for a matrix of {n} x {k}")
        return int(pointer)


class Packer(Layout):
    """Packs tensors one by one.

    Parameters
    ----------
    library, dims, dtype, arena
        See `Layout`.
    tensors
        Weights under the names of `Whisper.state_dict`, in any floating-point precision, of torch or of NumPy; each is
        read once.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        dims: ModelDimensions,
        dtype: int,
        arena: object,
        tensors: Mapping[str, Numbers],
    ) -> None:
        self.tensors = tensors
        self.staging = np.empty(0, np.float32)
        super().__init__(library, dims, dtype, arena)

    def _array(self, name: str) -> int:
        place = super()._array(name)  # a copy, whose memory no other owner can change or release
        _fill(self.kept[-1], self._tensor(name))
        return place

    def _tensor(self, name: str) -> Any:
        """Read a tensor of the shape that the dimensions ask for."""
        tensor = self.tensors[name]
        if tuple(tensor.shape) != self.shapes[name]:
            raise ShapeError(f"{name} must have the shape {self.shapes[name]}, not {tuple(tensor.shape)}")
        return tensor.detach() if isinstance(tensor, Tensor) else tensor

    def _convolution(self, name: str) -> int:
        weight = self._tensor(f"{name}.weight")  # (n_out, n_in, 3)
        matrix = super()._convolution(name)
        flat = weight.swapaxes(1, 2).reshape(len(weight), -1)  # (n_out, 3 n_in): the frames of the kernel side by side
        self._pack(matrix, 0, flat, self._tensor(f"{name}.bias"))
        return matrix

    def _matrix(
        self, weights: list[str], biases: Sequence[str] = (), dtype: int | None = None, keep_remainder: bool = False
    ) -> int:
        matrix = super()._matrix(weights, biases, dtype, keep_remainder)
        for i, name in enumerate(weights):  # one is held at a time
            bias = self._tensor(biases[i]) if biases and biases[i] in self.shapes else None
            self._pack(matrix, i * self.shapes[name][0], self._tensor(name), bias)
        return matrix

    def _pack(self, matrix: int, first: int, weight: Any, bias: Any) -> None:
        biases = None if bias is None else _fill(np.empty(len(bias), np.float32), bias)
        for start in range(0, len(weight), PACK_ROWS):
            rows = self._float(weight[start : start + PACK_ROWS])
            own = None if biases is None else _pointer(biases[start : start + len(rows)], "a bias")
            self.library.sotto_linear_pack(
                matrix, first + start, len(rows), _pointer(rows, "weights"), own, n_threads()
            )

    def _float(self, rows: Any) -> Floats:
        """Return rows in float32, in memory that the next call overwrites."""
        size = math.prod(rows.shape)
        if size > len(self.staging):
            self.staging = np.empty(size, np.float32)
        return _fill(self.staging[:size].reshape(rows.shape), rows)


def _fill(array: Floats, numbers: Any) -> Floats:
    """Fill an array with numbers of torch or of NumPy, in any precision and on any device."""
    if isinstance(numbers, Tensor):
        torch.from_numpy(array).copy_(numbers)
    else:
        np.copyto(array, numbers)
    return array


def _pointer(array: Floats, what: str) -> ctypes.c_void_p:
    return ctypes.c_void_p(address(array, np.float32, array.size, what))
