"""The plots of the evaluation report, as inline SVG in the colours of the page.

Colours are CSS variables of the page, so one plot serves the light and the dark theme. Each
function takes evaluations and returns SVG text, or an empty string if there is nothing to plot.
matplotlib is imported when the first plot is made.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingDependencyError
from .results import Comparison, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Placeholders: matplotlib knows no CSS variables, so these colours are replaced in its SVG.
INK, FAINT, SERIES = "#010203", "#010204", ("#010205", "#010206")
_VARIABLES = {INK: "--ink", FAINT: "--line", SERIES[0]: "--one", SERIES[1]: "--two"}
_MARKERS = ("o", "D")  # shapes, so that the models differ without colour, too
_LINES = ("-", "--")
_WIDTH = 4.6  # inches; text of 10 points stays readable on a phone
_MAX_SETS = 40


def require_matplotlib() -> Any:
    """Return matplotlib; MissingDependencyError where it is not installed."""
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError:
        raise MissingDependencyError("a report needs matplotlib", extra="eval") from None
    return matplotlib


def _draw(draw: Callable[[Axes], object], height: float, label: str) -> str:
    matplotlib = require_matplotlib()
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": label,
        "font.size": 10,
        "font.family": ["DejaVu Sans"],
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": FAINT,
        "grid.color": FAINT,
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
    }
    with matplotlib.rc_context(style):
        figure = matplotlib.figure.Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(file.getvalue(), label)


def _inline(svg: str, label: str) -> str:
    """Turn an SVG file into an element of a page."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"(font(?:-family)?: ?(?:[\d.]+px )?)'DejaVu Sans'[^;\"]*", r"\1system-ui, sans-serif", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None, "matplotlib writes a viewBox"
    head = f'<svg {box[0]} role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">'
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1).strip()


def plot_sets(evaluations: Sequence[Evaluation], label: str) -> str:
    """Word error rate of each set with its interval, one row each."""
    tables = [{g.name: g.words for g in e.scores.groups.get("set", [])} for e in evaluations[:2]]
    names = list(dict.fromkeys(name for table in tables for name in table))[:_MAX_SETS]
    if len(names) < 2:
        return ""

    def draw(axes: Axes) -> None:
        for i, (evaluation, table) in enumerate(zip(evaluations, tables, strict=False)):
            shift = 0.0 if len(tables) == 1 else (i - 0.5) * 0.3
            rows = [(y, table[name]) for y, name in enumerate(names) if name in table]
            rates = [100 * score.rate for _, score in rows]
            error_bars = [
                [max(0.0, r - 100 * s.low) for r, (_, s) in zip(rates, rows, strict=True)],
                [max(0.0, 100 * s.high - r) for r, (_, s) in zip(rates, rows, strict=True)],
            ]
            axes.errorbar(
                rates,
                [y + shift for y, _ in rows],
                xerr=error_bars,
                fmt=_MARKERS[i],
                color=SERIES[i],
                markersize=6,
                elinewidth=2,
                label=evaluation.model,
            )
        axes.set_yticks(range(len(names)), [_short_name(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("word error rate, %")
        axes.grid(visible=False, axis="y")
        _legend(axes, len(tables))

    return _draw(draw, 0.9 + (0.3 if len(tables) == 1 else 0.42) * len(names) + 0.3 * (len(tables) - 1), label)


def plot_clips(evaluations: Sequence[Evaluation], label: str) -> str:
    """Share of the clips with at most a word error rate."""
    rates = [
        np.sort([100 * c.edits.errors / max(c.edits.total, 1) for c in e.clips if c.kind == "speech"])
        for e in evaluations[:2]
    ]
    return _plot_shares([r[np.isfinite(r)] for r in rates], evaluations, label, "word error rate of a clip, %", 150.0)


def plot_times(evaluations: Sequence[Evaluation], label: str) -> str:
    """Share of the word starts and ends with at most an error."""
    errors = [
        np.sort(np.abs([1000 * t for clip in e.clips for pair in clip.time_errors or () for t in pair]))
        for e in evaluations[:2]
    ]
    return _plot_shares(errors, evaluations, label, "error of word starts and ends, ms", 500.0)


def _plot_shares(values: list[np.ndarray], evaluations: Sequence[Evaluation], label: str, what: str, top: float) -> str:
    if not any(map(len, values)):
        return ""

    def draw(axes: Axes) -> None:
        for i, (evaluation, some) in enumerate(zip(evaluations, values, strict=False)):
            if len(some):
                shares = 100 * np.arange(len(some) + 1) / len(some)
                axes.step(
                    [0, *some],
                    shares,
                    where="post",
                    color=SERIES[i],
                    linestyle=_LINES[i],
                    linewidth=2,
                    label=evaluation.model,
                )
        largest = max(float(some[-1]) for some in values if len(some))
        axes.set_xlim(0, min(top, max(1.05 * largest, 1.0)))
        axes.set_ylim(0, 102)
        axes.set_xlabel(what)
        axes.set_ylabel("cumulative share, %")
        _legend(axes, len(values))

    return _draw(draw, 2.9, label)


def plot_speed(evaluations: Sequence[Evaluation], label: str) -> str:
    """Processing time of a clip over its duration."""
    ticker = require_matplotlib().ticker
    hypotheses = [[clip.hypothesis for clip in e.clips if clip.hypothesis] for e in evaluations[:2]]
    if not any(len(some) > 1 for some in hypotheses):
        return ""

    def draw(axes: Axes) -> None:
        for i, (evaluation, some) in enumerate(zip(evaluations, hypotheses, strict=False)):
            axes.plot(
                [h.duration for h in some],
                [h.seconds for h in some],
                _MARKERS[i],
                color=SERIES[i],
                markersize=4,
                alpha=0.6,
                markeredgewidth=0,
                label=evaluation.model,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        lengths, times = ([getattr(h, name) for some in hypotheses for h in some] for name in ("duration", "seconds"))
        for axis, values in ((axes.xaxis, lengths), (axes.yaxis, times)):
            ticks = _ticks(min(values), max(values))
            axis.set_minor_locator(ticker.NullLocator())
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_view_interval(ticks[0], ticks[-1], ignore=True)
        axes.set_xlabel("duration of the clip, s")
        axes.set_ylabel("processing time, s")
        _legend(axes, len(hypotheses))

    return _draw(draw, 2.9, label)


def _ticks(low: float, high: float) -> list[float]:
    """Axis ticks around an interval: 1, 2 and 5 times powers of ten, or only the powers."""
    low, high = max(low, 1e-6), max(high, 2e-6)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    numbers = [step * 10.0**power for power in powers for step in steps]
    first = max(i for i, number in enumerate(numbers) if number <= low * 1.0001)
    last = min(i for i, number in enumerate(numbers) if number >= high * 0.9999)
    return numbers[first : max(last, first + 1) + 1]


def plot_differences(comparison: Comparison, label: str) -> str:
    """Difference of the word error rates of each set with its interval."""
    rows = list(comparison.sets.items())[:_MAX_SETS]
    if len(rows) < 2:
        return ""
    rows = [("all sets", comparison.words), *sorted(rows, key=lambda row: row[1].value)]

    def draw(axes: Axes) -> None:
        values = [100 * d.value for _, d in rows]
        error_bars = [
            [max(0.0, v - 100 * d.low) for v, (_, d) in zip(values, rows, strict=True)],
            [max(0.0, 100 * d.high - v) for v, (_, d) in zip(values, rows, strict=True)],
        ]
        axes.axvline(0, color=INK, linewidth=1)
        axes.errorbar(
            values, range(len(rows)), xerr=error_bars, fmt=_MARKERS[1], color=SERIES[1], markersize=6, elinewidth=2
        )
        axes.set_yticks(range(len(rows)), [_short_name(name) for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("points of word error rate; left is better")
        axes.grid(visible=False, axis="y")

    return _draw(draw, 0.9 + 0.3 * len(rows), label)


def _legend(axes: Axes, n_models: int) -> None:
    if n_models > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _short_name(name: str) -> str:
    name = (name or "unlabelled").replace("$", r"\$")  # a dollar sign starts a formula
    return name if len(name) <= 22 else name[:21] + "…"
