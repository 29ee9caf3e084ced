"""The progress of a training: a line of text, a plot of the curves, and a log for TensorBoard.

Reads the history of a `Run` and changes nothing. matplotlib and tensorboard come with
``sotto[train]``; without one of them its output is missing, with one warning.
"""

from __future__ import annotations

import logging
import math
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingDependencyError
from ..files import atomic_write

if TYPE_CHECKING:
    from .trainer import Run, Settings

log = logging.getLogger(__name__)

PLOT = "curves.png"
_LOSSES = (("text", 1), ("ctc", 2), ("attention", 3))  # names and columns of `Run.history`
_LABELS = {"text": "text, per token", "ctc": "CTC, per letter", "attention": "guided attention, per token"}
_COLOURS = {"text": "#1f6feb", "ctc": "#d29922", "attention": "#8250df", "error": "#cf222e", "rate": "#57606a"}


def progress_line(run: Run, settings: Settings, pace: float, seconds_left: float | None = None) -> str:
    """One line on the progress of a run; `pace` is seconds of audio trained on per second."""
    text, ctc, attention = np.mean([losses for _, *losses in run.history[-25:]], axis=0)
    objective = settings.objective
    loss = text + objective.ctc_weight * ctc + objective.attention_weight * attention
    parts = [f"step {run.step} of {settings.n_steps}", f"loss {loss:.3f}"]
    if objective.ctc_weight or objective.attention_weight:
        parts[-1] += f" (text {text:.3f}, CTC {ctc:.3f}, attention {attention:.3f})"
    if run.evaluations:
        step, error = run.evaluations[-1]
        parts.append(f"dev {100 * error:.1f} % (step {step})")
    parts.append(f"{pace / 3600:.2g} h of audio per second")
    if seconds_left is not None:
        parts.append(f"{duration(seconds_left)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Format a length of time."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Curves:
    """Writes the curves of a run into `folder`."""

    def __init__(self, folder: str | os.PathLike[str], first_step: int = 0) -> None:
        self._folder, self._written = Path(folder), first_step
        self._writer = _tensorboard(self._folder, first_step)
        self._draws = find_spec("matplotlib") is not None
        if not self._draws:
            log.warning("%s", MissingDependencyError("a plot of the curves needs matplotlib", extra="train"))

    def write(self, run: Run, settings: Settings, pace: float) -> None:
        """Append the new steps to TensorBoard's log, and plot the curves again."""
        if self._writer is not None:
            for step, *losses in run.history[self._written :]:
                for name, column in _LOSSES:
                    self._writer.add_scalar(f"loss/{name}", losses[column - 1], step)
                self._writer.add_scalar("rate", settings.learning_rate_at(step), step)
            for step, error in run.evaluations:
                if step > self._written:
                    self._writer.add_scalar("dev/word_error", error, step)
            self._writer.add_scalar("pace/hours_per_second", pace / 3600, run.step)
            self._writer.flush()
        self._written = len(run.history)
        if self._draws:
            draw(run, settings, self._folder / PLOT)

    def close(self) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("%s", MissingDependencyError("a log for TensorBoard needs tensorboard", extra="train"))
        return None
    # after a kill, the steps since the last checkpoint are run again: purge what was logged of them
    continues = next(folder.glob("events.out.tfevents.*"), None) is not None
    return SummaryWriter(str(folder), purge_step=first_step if continues else None)


def draw(run: Run, settings: Settings, path: Path) -> None:
    """Plot losses, error rate on the dev set and learning rate over the steps; needs matplotlib."""
    if not run.history:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_plots = 3 if run.evaluations else 2
    figure = Figure(figsize=(8, 2.4 + 1.6 * n_plots), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    losses, *middle, rates = figure.subplots(n_plots, 1, sharex=True, height_ratios=[3, 2, 1][-n_plots:])
    _draw_losses(losses, run, settings)
    if middle:
        _draw_errors(middle[0], run)
    steps = np.arange(len(run.history))
    rates.plot(steps, [settings.learning_rate_at(int(step)) for step in steps], color=_COLOURS["rate"], linewidth=1.4)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    rates.set(ylabel="learning rate", xlabel="step", xlim=(0, max(run.step, 1)))
    for axes in (*middle, rates):
        axes.set_ylim(bottom=0)
    for axes in (losses, *middle, rates):
        axes.grid(color="#d0d7de", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    with atomic_write(path, fsync=False) as file:
        figure.savefig(file, dpi=120, format=path.suffix[1:])


def _draw_losses(axes: Any, run: Run, settings: Settings) -> None:
    history = np.array(run.history)
    for name, column in _LOSSES:
        if not history[:, column].any():
            continue
        if len(history) > 60:  # single steps in light colour behind their mean
            axes.plot(history[:, 0], history[:, column], color=_COLOURS[name], alpha=0.18, linewidth=0.7)
        steps, values = smoothed(history[:, 0], history[:, column], 60)
        axes.plot(steps, values, color=_COLOURS[name], label=_LABELS[name], linewidth=1.8)
    if history[:, 2].any():  # the CTC loss starts at a hundred times the others
        axes.set_yscale("log")
        axes.set_yticks([digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5)])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        shown = history[:, 1:][history[:, 1:] > 0]  # percentiles: a single outlier must not set the scale
        axes.set_ylim(0.6 * np.percentile(shown, 1), 1.6 * np.percentile(shown, 99.8))
    else:
        axes.set_ylim(0, 1.25 * history[:, 1:].max())
    axes.set(ylabel="loss (nats)", title=f"step {run.step} of {settings.n_steps}")
    axes.title.set(fontsize=11, fontweight="bold", ha="left", x=0.0)
    axes.legend(loc="upper right", frameon=False)


def _draw_errors(axes: Any, run: Run) -> None:
    steps, errors = np.array(run.evaluations).T
    best = int(np.argmin(errors))
    axes.plot(steps, 100 * errors, "o-", color=_COLOURS["error"], markersize=4, linewidth=1.8)
    axes.plot(steps[best], 100 * errors[best], "o", color=_COLOURS["error"], markersize=9, clip_on=False, zorder=5)
    axes.annotate(
        f"best {100 * errors[best]:.1f} %",
        (steps[best], 100 * errors[best]),
        xytext=(0, 9),
        textcoords="offset points",
        ha="right" if best else "left",
        va="bottom",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.8},
    )
    axes.set(ylabel="word error\non dev (%)")
    axes.set_ylim(top=max(115 * errors.max(), 1.0))


def smoothed(steps: np.ndarray, values: np.ndarray, n_points: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Means over at most `n_points` bins of equal width; the last bin takes the rest."""
    width = max(math.ceil(len(values) / n_points), 1)
    starts = np.arange(0, max(len(values) - width + 1, 1), width)
    counts = np.diff(np.append(starts, len(values)))
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts
