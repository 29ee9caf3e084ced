"""A model of packed weights alone: what the command transcribes with, without modules and without torch.

It has what a transcription asks of a model, under the same names. Whatever else somebody asks it for is that of the
whole model, which is then loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..device.lazy_torch import is_here, torch
from ..network.dimensions import ModelDimensions, is_multilingual, n_languages

if TYPE_CHECKING:
    from ..model import Whisper
    from .interface import Runner


class _Processor:
    """The device of the CPU, where there is no torch to have one."""

    type, index = "cpu", None

    def __str__(self) -> str:
        return self.type

    def __eq__(self, other: object) -> bool:
        return str(other) == self.type

    def __hash__(self) -> int:
        return hash(self.type)


class AlignmentHeads:
    """The heads that word times are read off, as `Whisper.alignment_heads` gives them."""

    def __init__(self, heads: Sequence[Sequence[int]]) -> None:
        self._heads: npt.NDArray[np.int64] = np.array(heads, dtype=np.int64).reshape(-1, 2)

    def indices(self) -> npt.NDArray[np.int64]:
        """Return layers and heads, ``(2, n_heads)``."""
        indices: npt.NDArray[np.int64] = self._heads.T
        return indices


class PackedModel:
    """A model whose weights were packed before.

    Parameters
    ----------
    runner
        On its packed weights.
    dims
        Of the network.
    alignment_heads
        Layer and head of each.
    compute_type
        As it was asked for; see `load_model`.
    quantised
        How the weights were, in the file that they were packed from; see `Whisper`.
    whole
        Loads the model with its modules.
    """

    def __init__(
        self,
        runner: Runner,
        dims: ModelDimensions,
        alignment_heads: Sequence[Sequence[int]],
        compute_type: str,
        quantised: str,
        whole: Callable[[], Whisper],
    ) -> None:
        self.runner, self.dims, self.compute_type, self.quantised = runner, dims, compute_type, quantised
        self.alignment_heads = AlignmentHeads(alignment_heads)
        self._load, self._lock = whole, threading.Lock()
        self._whole: Whisper | None = None

    @property
    def device(self) -> Any:
        """Where the weights are: the CPU."""
        return torch.device("cpu") if is_here() else _Processor()

    @property
    def is_multilingual(self) -> bool:
        """Whether the vocabulary has language tokens."""
        return is_multilingual(self.dims)

    @property
    def num_languages(self) -> int:
        """How many language tokens the vocabulary has."""
        return n_languages(self.dims)

    def whole(self) -> Whisper:
        """Return the model with its modules, loaded once."""
        with self._lock:
            if self._whole is None:
                self._whole = self._load()
            return self._whole

    def exact_runner(self) -> Runner:
        """Return the runner in float32, of the whole model."""
        from . import select

        return select.runner_for(self.whole(), fp16=False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.whole(), name)
