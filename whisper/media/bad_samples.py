"""Invalid samples (NaN, infinite, or too large for their power to be finite in float32), replaced by zeros.

One such sample would make a whole spectrogram invalid. It is replaced by zero and counted, and the
rest is processed as if zero had been recorded there. Arrays of the caller are never changed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import AudioError
from ..utils import warn_caller

LIMIT = 1e16  # the power of 400 samples of this size is still finite in float32; full range is 1


class Mending:
    """Replaces invalid samples by zeros, piece by piece, and reports their number at the end.

    Parameters
    ----------
    name
        Of the recording, in messages.
    rate
        Samples per second.
    rows
        What the axis before the samples counts.
    """

    def __init__(self, name: str = "the samples", rate: float = 0.0, rows: str = "row") -> None:
        self.name, self.rate, self.rows = name, rate, rows
        self.n_bad = self.n_samples = self.n_rows = 0
        self._begin = 0  # of the next piece, in samples of one row
        self._first = (0, 0)  # the first bad one: its place in time, and its row

    def __call__(self, samples: Any) -> Any:
        """Return the next piece, an array or tensor ``(n,)`` or ``(n_rows, n)``; the same object if all is valid."""
        n = samples.shape[-1]
        self.n_rows = 1 if samples.ndim == 1 else len(samples)
        self.n_samples += n * self.n_rows
        if not is_sound(samples):
            bad = ~(abs(samples) < LIMIT)
            self._count(np.asarray(bad.cpu() if hasattr(bad, "cpu") else bad).reshape(-1, n))
            samples = zeroed(samples)
        self._begin += n
        return samples

    def close(self) -> None:
        """Warn with the number of bad samples; raise `AudioError` if at least half of all are bad."""
        if self.n_bad == 0:
            return
        at, row = self._first
        where = f"sample {at}" + (f" of {self.rows} {row}" if self.n_rows > 1 else "")
        where += f" ({at / self.rate:.2f} s)" if self.rate else ""
        message = (
            f"{self.name}: {self.n_bad} of {self.n_samples} samples are NaN or infinite, or too large to have a power "
            f"in float32, the first of them {where}"
        )
        if 2 * self.n_bad >= self.n_samples:
            raise AudioError(f"{message}; too few others are left to be a recording")
        warn_caller(f"{message}; zeros stand in their place")

    def _count(self, bad: Any) -> None:
        """Count the true values of ``(n_rows, n)``."""
        if self.n_bad == 0:
            at = int(bad.any(axis=0).argmax())
            self._first = self._begin + at, int(bad[:, at].argmax())
        self.n_bad += int(np.count_nonzero(bad))


def is_sound(samples: Any) -> bool:
    """Whether an array or tensor of floats, of any shape, has only valid samples.

    The sum of squares needs a single pass and no mask; samples are tested one by one only if it is too large.
    """
    flat = samples.detach().reshape(-1) if hasattr(samples, "detach") else samples.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        power = float(flat @ flat)
    return power < LIMIT**2 or bool((abs(flat) < LIMIT).all())


def zeroed(samples: Any) -> Any:
    """Return an array or tensor with zeros in place of invalid samples; the same object if all are valid."""
    if is_sound(samples):
        return samples
    bad = ~(abs(samples) < LIMIT)
    return (
        samples.masked_fill(bad, 0.0)
        if hasattr(samples, "masked_fill")
        else np.where(bad, 0.0, samples).astype(samples.dtype)
    )
