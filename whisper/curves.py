"""How a training goes, for people to see: a line of text, a picture, and a log that TensorBoard shows.

Reads what a `Run` remembers and changes nothing. matplotlib and tensorboard come with ``sotto[train]``; without one of
them its output is missing, and that is said once.
"""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from .loop import Run, Settings

log = logging.getLogger(__name__)

PICTURE = "curves.png"
_LOSSES = (("text", 1), ("letters", 2), ("looks", 3))  # names and columns of `Run.history`
_COLOURS = {"text": "#1f6feb", "letters": "#d29922", "looks": "#8250df", "error": "#cf222e"}


def progress_line(run: Run, settings: Settings, pace: float) -> str:
    """One line on where a run is; `pace` is seconds of sound learnt a second."""
    text, letters, looks = np.mean([row[1:] for row in run.history[-25:]], axis=0)
    objective = settings.objective
    loss = text + objective.letters * letters + objective.guidance * looks
    parts = [f"step {run.step} of {settings.n_steps}", f"loss {loss:.3f}"]
    if objective.letters or objective.guidance:
        parts[-1] += f" (text {text:.3f}, letters {letters:.3f}, looks {looks:.3f})"
    if run.evaluations:
        step, error = run.evaluations[-1]
        parts.append(f"dev {100 * error:.1f} % (step {step})")
    parts.append(f"{pace / 3600:.3f} h of sound a second")
    return ", ".join(parts)


class Curves:
    """Writes the curves of a run into `folder`."""

    def __init__(self, folder: str | os.PathLike[str], first_step: int = 0) -> None:
        self._folder, self._written = Path(folder), first_step
        self._evaluated = 0
        self._writer = _tensorboard(self._folder, first_step)

    def write(self, run: Run, settings: Settings, pace: float) -> None:
        """Add what is new to TensorBoard's log, and draw the picture anew."""
        if self._writer is not None:
            for step, *losses in run.history[self._written :]:
                for name, column in _LOSSES:
                    self._writer.add_scalar(f"loss/{name}", losses[column - 1], step)
                self._writer.add_scalar("rate", settings.rate_at(step), step)
            for step, error in run.evaluations[self._evaluated :]:
                self._writer.add_scalar("dev/word_error", error, step)
            self._writer.add_scalar("pace/hours_per_second", pace / 3600, run.step)
            self._writer.flush()
        self._written, self._evaluated = len(run.history), len(run.evaluations)
        draw(run, settings, self._folder / PICTURE)

    def close(self) -> None:
        """Finish the log."""
        if self._writer is not None:
            self._writer.close()


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("tensorboard is not installed: no log for it (pip install 'sotto[train]')")
        return None
    # after a kill, steps past the last checkpoint are learnt again: what was logged of them does not count
    return SummaryWriter(str(folder), purge_step=first_step or None)


def draw(run: Run, settings: Settings, path: Path) -> None:
    """Draw losses, errors and learning rate over the steps."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        log.warning("matplotlib is not installed: no picture of the curves (pip install 'sotto[train]')")
        return
    if not run.history:
        return
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    history = np.array(run.history)
    for name, column in _LOSSES:
        if history[:, column].any():
            steps, values = smoothed(history[:, 0], history[:, column])
            above.plot(steps, values, color=_COLOURS[name], label=f"loss of {name}", linewidth=1.6)
    above.set_ylabel("nats a token, letter or look")
    above.set_ylim(bottom=0, top=_top(history))
    above.grid(alpha=0.25)
    if run.evaluations:
        errors = above.twinx()
        steps, values = np.array(run.evaluations).T
        errors.plot(steps, 100 * values, "o-", color=_COLOURS["error"], markersize=3, label="word error on dev")
        errors.set_ylabel("word error on dev, %", color=_COLOURS["error"])
        errors.set_ylim(bottom=0)
    above.legend(loc="upper right", frameon=False)
    rates = np.array([settings.rate_at(int(step)) for step in history[:, 0]])
    below.plot(history[:, 0], rates, color="#57606a", linewidth=1.2)
    below.set_ylabel("learning rate")
    below.set_xlabel("step")
    below.set_ylim(bottom=0)
    below.grid(alpha=0.25)
    for axes in (above, below):
        axes.spines["top"].set_visible(False)
    neighbour = path.with_name(f"{path.stem}.part{path.suffix}")
    figure.savefig(neighbour, dpi=120)
    os.replace(neighbour, path)


def smoothed(steps: np.ndarray, values: np.ndarray, n_points: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal stretches, at most `n_points` of them."""
    width = max(math.ceil(len(values) / n_points), 1)
    n = len(values) // width * width
    return (steps[:n].reshape(-1, width).mean(1), values[:n].reshape(-1, width).mean(1))


def _top(history: np.ndarray) -> float:
    """Height of the picture: the first steps of a CTC loss, ten times all others, shall not flatten the rest."""
    return float(1.3 * np.percentile(history[:, 1:], 98)) or 1.0
