"""A plot of spans along the time of a recording: speech, text and findings.

Needs matplotlib; draws into a file and opens no window. Knows no report: lanes and colours come by
name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from os.path import splitext
from typing import Any

from ..errors import MissingDependencyError, OptionError
from ..files import atomic_write
from ..spans import Span
from ..utils import format_timestamp

ROW_SECONDS = 300.0  # a longer recording continues in the next row
MAX_ROWS = 24  # after these, rows grow longer
COLOURS = {  # Wong 2011 (doi:10.1038/nmeth.1618): distinct for colour-blind readers, too
    "speech": "#9aa5b1",
    "text": "#0072b2",
    "language": "#56b4e9",
    "recovered": "#009e73",
    "dropped": "#d55e00",
    "loop": "#cc79a7",
    "doubtful": "#e69f00",
    "uncovered": "#000000",
}


def plot(path: str | PathLike[str], title: str, duration: float, lanes: Mapping[str, Sequence[Span]]) -> None:
    """Draw a timeline.

    Parameters
    ----------
    path
        Of the plot; its extension chooses the format (png, svg, pdf).
    title
        A line above it.
    duration
        Of the recording, seconds.
    lanes
        Spans by name, those of `COLOURS`; "speech" and "text" have lanes of their own, all others
        share one.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    OptionError
        matplotlib does not know the format.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        raise MissingDependencyError("the plot of a report needs matplotlib", extra="eval") from error

    n_rows = int(min(max(1, -(-duration // ROW_SECONDS)), MAX_ROWS))
    length = max(duration / n_rows, 1.0) if n_rows > 1 else max(duration, 1.0)
    figure = Figure(figsize=(12, 0.9 + 1.1 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(n_rows, 1, squeeze=False)[:, 0]
    for i, axes in enumerate(rows):
        _draw_row(axes, lanes, i * length, (i + 1) * length)
    rows[-1].set_xlabel("time")
    handles = [Patch(color=COLOURS[name], label=name) for name in lanes]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    path = fspath(path)
    file_format = splitext(path)[1][1:]
    if not file_format:
        path, file_format = f"{path.rstrip('.')}.png", "png"
    try:
        with atomic_write(path, fsync=False) as file:
            figure.savefig(file, dpi=120, format=file_format)
    except ValueError as error:  # an unknown format
        raise OptionError(f"{path}: {error}") from error


def _draw_row(axes: Any, lanes: Mapping[str, Sequence[Span]], start: float, end: float) -> None:
    """Draw the part of the lanes between two times."""
    min_width = (end - start) / 600  # so that short spans stay visible
    for name, spans in lanes.items():
        height = {"speech": 2.0, "text": 1.0}.get(name, 0.0)
        bars = [(a, max(b - a, min_width)) for a, b in spans if b > start and a < end]
        axes.broken_barh(bars, (height - 0.4, 0.8), facecolors=COLOURS[name], linewidth=0)
    axes.set_xlim(start, end)
    axes.set_ylim(-0.6, 2.6)
    axes.set_yticks([2, 1, 0], ["speech", "text", "found"], fontsize=9)
    axes.xaxis.set_major_formatter(lambda seconds, _: format_timestamp(max(seconds, 0)).split(".")[0])
    axes.tick_params(length=0, labelsize=9)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
