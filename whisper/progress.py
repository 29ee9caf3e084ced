"""How far a transcription is: a bar where somebody watches, lines in a log, and the caller's own function."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import TracebackType

from tqdm import tqdm

from .audio import FRAMES_PER_SECOND
from .console import is_terminal, show

Report = Callable[[float, float], object]  # how much is done, and how much there is


class Bar:
    """A bar on standard error; where that is no screen, a line with every tenth.

    Parameters
    ----------
    total
        How many there are.
    shown
        False shows nothing.
    unit
        What is counted: "frames", which a line tells as seconds, or anything else.
    """

    def __init__(self, total: int, shown: bool, unit: str = "frames") -> None:
        self.total, self.unit, self.n_done = total, unit, 0
        self._shown = shown
        self._bar = tqdm(total=total, unit=unit) if shown and is_terminal(sys.stderr) else None

    def advance(self, n: int) -> None:
        """Count `n` more as done."""
        before, self.n_done = self.n_done, self.n_done + n
        if self._bar is not None:
            self._bar.update(n)
        elif self._shown and 10 * self.n_done // self.total > 10 * before // self.total:
            scale, unit = (FRAMES_PER_SECOND, "s") if self.unit == "frames" else (1, self.unit)
            show(f"{self.n_done / scale:.0f} of {self.total / scale:.0f} {unit} transcribed", sys.stderr)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()


def shares(report: Report, n: int) -> Sequence[Report]:
    """Return a function for each of `n` works: what they report, in any unit, `report` is told as works done of `n`."""
    done = [0.0] * n

    def share(i: int) -> Report:
        def tell(part: float, whole: float) -> None:
            done[i] = part / whole if whole else 1.0
            report(sum(done), n)

        return tell

    return [share(i) for i in range(n)]
