"""Runners for tests: one that is the model's own forward, and one without any weights.

Both keep the tokens of each row where a runner keeps keys and values, and refuse what the contract forbids: rows that
nobody took, positions that nobody has run. So a mix-up of rows, positions or windows gives another text or an error.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whisper.model import ModelDimensions, Whisper
from whisper.runtime.interface import Batch, EncodedWindow, RowTable, TokenMask
from whisper.runtime.pytorch.token_selection import apply_rules, best_tokens


class TokenRunner:
    """What the runners here share: rows of tokens, and the choice of the next."""

    compute_type = "float32"
    row_bytes = 100
    window_bytes = 1000

    def __init__(self, dims: ModelDimensions) -> None:
        self.dims = dims
        self.rows = RowTable(dims.n_text_ctx)
        self.taken: set[int] = set()
        self.written: dict[tuple[int, int], int] = {}  # (physical row, position) -> token
        self.length: dict[int, int] = {}
        self.windows: weakref.WeakSet[EncodedWindow] = weakref.WeakSet()
        self.most_rows = self.most_windows = self.n_forward = 0
        self.busy = False

    def project(self, features: Tensor) -> EncodedWindow:
        window = EncodedWindow(features, None)
        self.windows.add(window)
        self.most_windows = max(self.most_windows, len(self.windows))
        return window

    def take_rows(self, n: int) -> list[int]:
        rows = self.rows.take(n)
        assert not self.taken & set(rows)
        self.taken |= set(rows)
        self.most_rows = max(self.most_rows, len(self.taken))
        for row in rows:
            self.length[row] = 0
        return rows

    def free_rows(self, rows: Sequence[int]) -> None:
        assert set(rows) <= self.taken, "a row was given back twice"
        self.taken -= set(rows)
        self.rows.free(rows)

    def reorder(self, rows: Sequence[int], sources: Sequence[int]) -> None:
        assert {*rows, *sources} <= self.taken
        self.rows.reorder(rows, sources)
        lengths = [self.length[source] for source in sources]
        self.length.update(zip(rows, lengths, strict=True))

    def forward(self, batch: Batch) -> Tensor:
        assert not self.busy, "two threads at once"
        self.busy = True
        try:
            self.n_forward += 1
            histories = [self._write(*item) for item in zip(batch.tokens, batch.rows, batch.positions, strict=True)]
            logits = []
            for i in batch.logit_indices:  # no comprehension: one that fails would keep the windows with its error
                logits.append(self.logits(batch.windows[i], histories[i]))  # noqa: PERF401
            return torch.stack(logits)
        finally:
            self.busy = False

    def _write(self, token: int, row: int, position: int) -> list[int]:
        assert row in self.taken
        assert position <= self.length[row], "a position was left out"
        self.rows.write([row], [position])
        self.written[row, position] = token
        self.length[row] = position + 1
        return [self.written[int(self.rows.table[row, p]), p] for p in range(position + 1)]

    def logits(self, window: EncodedWindow, tokens: list[int]) -> Tensor:
        """Logits after `tokens`, ``(n_vocab,)``, in memory of their own."""
        raise NotImplementedError

    def select_tokens(self, logits: Tensor, rules: TokenMask, n_best: int) -> Any:
        apply_rules(logits, rules)
        return best_tokens(logits, n_best)


class ModelRunner(TokenRunner):
    """The reference forward behind the contract, slowly: it reads every text from its beginning at every step."""

    def __init__(self, model: Whisper) -> None:
        super().__init__(model.dims)
        self.model = model

    @torch.no_grad()
    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        return [self.model.encoder(mel[None])[0] for mel in mels]

    @torch.no_grad()
    def logits(self, window: EncodedWindow, tokens: list[int]) -> Tensor:
        logits: Tensor = self.model.decoder(torch.tensor([tokens]), window.features[None])[0, -1]
        return logits.clone()


MOCK_DIMS = ModelDimensions(2, 8, 1, 1, 1, 60, 40, 1, 1, 1)
SOT, EOT, NO_SPEECH, TIMESTAMPS = 20, 19, 21, 30  # text below EOT; timestamps to 59


class MockRunner(TokenRunner):
    """No weights: logits follow from the sound and the tokens so far, and from nothing else."""

    def __init__(self) -> None:
        super().__init__(MOCK_DIMS)

    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        return [mel[:1, :1] for mel in mels]

    def logits(self, window: EncodedWindow, tokens: list[int]) -> Tensor:
        key = f"{window.features.item():.6f} {tokens}".encode()
        draw = np.random.Generator(np.random.SFC64(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())))
        logits = draw.normal(size=self.dims.n_vocab).astype(np.float32) * 3
        logits[EOT] += 1 + len(tokens) / 10
        return torch.from_numpy(logits)
