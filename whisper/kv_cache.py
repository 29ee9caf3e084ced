"""Keys and values of earlier positions, as a value that belongs to one request.

openai-whisper keeps its cache in forward hooks on the shared model, so that two threads on one model write
into each other's state. Here the cache is handed down as an argument and the model holds nothing. It is a
dictionary from projection module to tensor, the very shape that programs written for the original expect.
Knows nothing of Whisper: only modules, tensors and positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class KVCache(dict[nn.Module, Tensor]):
    """Cached projections, each ``(n_batch, n_positions, n_state)``, under the module that made them.

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
