"""Progress of a transcription: a bar on a terminal, lines elsewhere, the caller's callback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import tqdm

from ..spans import FRAMES_PER_SECOND
from .console import is_terminal, show

_TQDM = tqdm.tqdm

ProgressCallback = Callable[[float, float], object]  # how much is done, and the total


class ProgressBar:
    """A progress bar on standard error; where that is no terminal, a line for every tenth.

    Parameters
    ----------
    total
        Units in total.
    shown
        False shows nothing.
    unit
        What is counted: "frames", which lines show as seconds, or anything else.
    """

    def __init__(self, total: int, shown: bool, unit: str = "frames") -> None:
        self.total, self.unit, self.n_done = total, unit, 0
        self._shown = shown
        self._bar = _bar(total, unit, shown)

    def advance(self, n: int) -> None:
        """Count `n` more as done."""
        before, self.n_done = self.n_done, self.n_done + n
        if self._bar is not None:
            self._bar.update(n)
        elif self._shown and n and 10 * self.n_done // self.total > 10 * before // self.total:
            scale, unit = (FRAMES_PER_SECOND, "s") if self.unit == "frames" else (1, self.unit)
            show(f"{self.n_done / scale:.0f} of {self.total / scale:.0f} {unit} transcribed", sys.stderr)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, at)


def _bar(total: int, unit: str, shown: bool) -> Any:
    """Return what tqdm has, on a terminal; anywhere and always, where a program has put a class of its own there.

    Graphical programs for openai-whisper do so to follow the progress (``whisper.transcribe`` has `tqdm` for them).
    """
    if tqdm.tqdm is not _TQDM:
        return tqdm.tqdm(total=total, unit=unit, disable=not shown).__enter__()
    return tqdm.tqdm(total=total, unit=unit).__enter__() if shown and is_terminal(sys.stderr) else None


def share_progress(progress: ProgressCallback, n: int) -> Sequence[ProgressCallback]:
    """Return a callback for each of `n` tasks; `progress` gets their sum, of `n`."""
    done = [0.0] * n

    def callback(i: int) -> ProgressCallback:
        def report(part: float, whole: float) -> None:
            done[i] = part / whole if whole else 1.0
            progress(sum(done), n)

        return report

    return [callback(i) for i in range(n)]
