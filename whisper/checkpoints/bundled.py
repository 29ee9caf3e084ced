"""The packed form of the model that comes with the package: one safetensors file of at most 25 MB.

Matrices are float16, or int8 with one scale per row; of the vocabulary only the rows in use are kept, and one row
stands for all the others. Packing loses precision once; what is unpacked is the same float32 numbers each time.
It trains nothing and chooses nothing: the caller of `pack` states which tokens are in use.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..files import atomic_write
from ..model import ModelDimensions, Whisper, sinusoids
from .formats.tensor_files import read_safetensors
from .lazy_tensors import KeptFile, StoredTensors, keep, left_in_files, views_of
from .published import BUNDLED as BUNDLED
from .weights import Weights, build, checked_dimensions, dimensions_of, dump_alignment_heads, parse_alignment_heads

MAX_BYTES = 25_000_000

_HEADER = "sotto"  # the one key of the file's metadata: several would come in a new order each time
_VERSION = 1
_EMBEDDING = "decoder.token_embedding.weight"
_SINUSOIDS = "encoder.positional_embedding"
_SCALE = ".scale"


def pack(
    model: Whisper,
    path: str | os.PathLike[str],
    used_token_ids: Iterable[int],
    card: Mapping[str, Any],
    *,
    int8: bool = False,
    fill_row: Tensor | None = None,
) -> int:
    """Write `model` to `path` and return the size of the file in bytes.

    Parameters
    ----------
    model
        The model, on any device and in any precision.
    path
        Where to write; replaced as a whole at the end.
    used_token_ids
        The tokens that keep their rows of the embedding.
    card
        What is to be known about the model (data, scores, licence), as JSON can hold it; see `read_card`.
    int8
        Store matrices and convolutions as int8 with a float16 scale per output row; a quarter of float32.
    fill_row
        The row ``(n_text_state,)`` of every other token. Without it, those of `model` must be all alike.

    Raises
    ------
    CheckpointError
        Where the file would be over `MAX_BYTES`, a number is too large for float16, or the fill row is unclear.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    used = sorted({int(token) for token in used_token_ids})
    state[_EMBEDDING] = _packed_rows(state[_EMBEDDING], used, fill_row)
    if torch.equal(state[_SINUSOIDS], sinusoids(model.dims.n_audio_ctx, model.dims.n_audio_state, device="cpu")):
        del state[_SINUSOIDS]

    tensors = {"used_token_ids": torch.tensor(used, dtype=torch.int32, device="cpu")}
    for name, tensor in state.items():
        is_matrix = tensor.ndim >= 2 and name.endswith(".weight")  # the position embedding stays float16
        tensors.update(_packed(name, tensor, int8=int8 and is_matrix))
    header = {
        "version": _VERSION,
        "dims": dimensions_of(model),
        "alignment_heads": dump_alignment_heads(model.alignment_heads),
        "card": dict(card),
    }
    content = save(tensors, metadata={_HEADER: json.dumps(header, sort_keys=True, ensure_ascii=False)})
    if len(content) > MAX_BYTES:
        raise CheckpointError(
            f"packed, the model has {len(content)} bytes, and {MAX_BYTES} are allowed; "
            "pack with int8=True, fewer used tokens or a smaller model"
        )
    with atomic_write(path) as file:
        file.write(content)
    return len(content)


def read(file: KeptFile) -> Weights:
    """Read what `pack` wrote, as float32 tensors and the whole vocabulary, each unpacked when it is asked for."""
    path = file.path
    tensors, metadata = read_safetensors(file)
    header = _header(metadata, path)
    dims = checked_dimensions(header.get("dims"), path)
    used = tensors.pop("used_token_ids", torch.empty(0, dtype=torch.int32, device="cpu")).long()
    for name, scale in tensors.items():
        if name.endswith(_SCALE) and tensors.get(name.removesuffix(_SCALE), scale).shape[:1] != scale.shape:
            raise CheckpointError(f"{path} has scales that do not fit its matrices; install sotto again")
    rows = tensors.get(_EMBEDDING)
    are_token_ids = not len(used) or 0 <= int(used.min()) <= int(used.max()) < dims.n_vocab
    if rows is None or len(rows) != len(used) + 1 or not are_token_ids:
        raise CheckpointError(f"{path} has no row for each of its {len(used)} tokens in use; install sotto again")
    heads = parse_alignment_heads(header.get("alignment_heads", ""), dims, path)
    return Weights(dims, _Unpacked(dims, left_in_files(tensors, [file]), used), heads, path)


def is_packed(file: KeptFile) -> bool:
    """Whether a file is one that `pack` wrote, as the metadata at its beginning tell."""
    return file.bytes_at(8, 64).startswith(f'{{"__metadata__":{{"{_HEADER}":'.encode("ascii"))


class _Unpacked(StoredTensors):
    """Tensors that are unpacked, to float32, whenever they are asked for."""

    def __init__(self, dims: ModelDimensions, packed: Mapping[str, Tensor], used: Tensor) -> None:
        self._dims, self._packed, self._used = dims, packed, used
        views = {name: view.float() for name, view in views_of(packed).items() if not name.endswith(_SCALE)}
        views[_EMBEDDING] = _outline(dims.n_vocab, *views[_EMBEDDING].shape[1:])
        views.setdefault(_SINUSOIDS, _outline(dims.n_audio_ctx, dims.n_audio_state))
        self.views = views

    def __getitem__(self, name: str) -> Tensor:
        if name == _SINUSOIDS and name not in self._packed:
            return sinusoids(self._dims.n_audio_ctx, self._dims.n_audio_state, device="cpu")
        tensor = self._packed[name].float()
        if name + _SCALE in self._packed:
            tensor *= self._packed[name + _SCALE].float().reshape(-1, *[1] * (tensor.ndim - 1))
        if name == _EMBEDDING:
            table = tensor[-1].expand(self._dims.n_vocab, -1).clone()  # (n_vocab, n_text_state)
            table[self._used] = tensor[:-1]
            return table
        return tensor


def _outline(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="meta")


def unpack(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Whisper:
    """Return the model that `pack` has written.

    Parameters
    ----------
    path
        The file.
    device
        Where the model is to be, in float32.

    Raises
    ------
    CheckpointError
        The file is damaged, or of another kind.
    """
    return build(read(keep([os.fspath(path)])[0]), device)


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the description of the model that `pack` stored.

    Parameters
    ----------
    path
        A file that `pack` has written.

    Raises
    ------
    CheckpointError
        The file is damaged, or of another kind.
    """
    path = os.fspath(path)
    card = _header(read_safetensors(keep([path])[0])[1], path).get("card")
    return dict(card) if isinstance(card, dict) else {}


def _header(metadata: Mapping[str, str], path: str) -> dict[str, Any]:
    try:
        header = json.loads(metadata[_HEADER])
        version = header["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is a safetensors file that was not packed by this package; "
            "give the folder that holds it and its config.json"
        ) from error
    if version != _VERSION:
        raise CheckpointError(f"{path} has packed form {version}, and {_VERSION} is known here; update sotto")
    return dict(header)


def _packed_rows(embedding: Tensor, used: list[int], fill_row: Tensor | None) -> Tensor:
    """Return the rows in use and behind them the one for the others, ``(n_used + 1, n_text_state)``."""
    n_vocab, n_state = embedding.shape
    if used and not 0 <= used[0] <= used[-1] < n_vocab:
        raise CheckpointError(f"token ids {used[0]} to {used[-1]} do not fit a vocabulary of {n_vocab}")
    unused = torch.ones(n_vocab, dtype=torch.bool, device="cpu")
    unused[used] = False
    others = embedding[unused]
    if fill_row is None:
        if len(others) and not (others == others[0]).all():
            raise CheckpointError(
                f"the {len(others)} tokens not in use have different rows, and one is to stand for all: "
                "make them alike, or give it as fill_row"
            )
        fill_row = others[0] if len(others) else embedding.new_zeros(n_state)
    return torch.cat([embedding[used], fill_row.detach().float().cpu().reshape(1, n_state)])


def _packed(name: str, tensor: Tensor, *, int8: bool) -> dict[str, Tensor]:
    if not int8:
        half = tensor.half()
        if not half.isfinite().all():
            raise CheckpointError(f"{name} has numbers that float16 cannot hold; train it to smaller ones")
        return {name: half.contiguous()}
    rows = tensor.flatten(start_dim=1)  # (n_out, ...)
    scale = (rows.abs().amax(dim=1, keepdim=True) / 127).half()
    if not scale.isfinite().all():
        raise CheckpointError(f"{name} has numbers that float16 scales cannot hold; train it to smaller ones")
    # a row so small that its scale is 0 in float16 becomes 0
    levels = torch.where(scale > 0, rows / scale.float(), 0).round().clamp(-127, 127).to(torch.int8)
    return {name: levels.reshape(tensor.shape).contiguous(), name + _SCALE: scale.flatten()}
