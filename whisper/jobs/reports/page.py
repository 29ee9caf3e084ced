"""The summary of a job as one self-contained HTML page: figures, languages, doubtful places, failures, speed by hour.

The page loads nothing from the network, runs no script, follows the reader's light or dark theme, and fits a phone.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from html import escape
from urllib.parse import quote

from ...files import atomic_write
from ...utils import format_timestamp
from ..failures import KINDS, mending
from ..remote import is_address
from ..store import STATES, JobStore, Recording
from .live import in_words

MOST_PLACES = 100
MOST_FAILURES = 50  # of a kind
MOST_HOURS = 168
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --card: #f4f5f7; --ink: #1b1f24; --quiet: #57606a; --line: #d5d9df;
  --one: #1f5fbf; --wrong: #a40e26; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --card: #1e2329; --ink: #e8eaed; --quiet: #a3abb5;
  --line: #3a414a; --one: #7db2ff; --wrong: #ff8f96; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; } .quiet { color: var(--quiet); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.tiles > div { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; } .tiles dd { margin: 0; }
.tiles dt { color: var(--quiet); font-size: .9rem; } .tiles dd { font-size: 1.4rem; font-weight: 600; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
caption { text-align: left; color: var(--quiet); padding-bottom: .3rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; white-space: nowrap; } thead th { color: var(--quiet); font-weight: 600; }
a { color: var(--one); } code { background: var(--card); padding: .1rem .3rem; border-radius: .25rem; }
svg { width: 100%; height: 10rem; display: block; } rect { fill: var(--one); } svg text { fill: var(--quiet);
  font: 10px system-ui, sans-serif; }
"""


def write_page(stores: Sequence[JobStore], path: str | os.PathLike[str]) -> None:
    """Write the page of a job, in one or more parts."""
    recordings = [one for store in stores for one in store.recordings()]
    text = "\n".join(page(recordings, str(stores[0].out)))
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "replace"))


def page(recordings: Sequence[Recording], out: str) -> Iterator[str]:
    """Give the lines of the page."""
    done = [one for one in recordings if one.state == "done"]
    failed = [one for one in recordings if one.state == "failed"]
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(os.path.basename(os.path.abspath(out)))}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(os.path.abspath(out))}</h1>"
    yield f'<p class="quiet">{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}</p>'
    yield from _tiles(recordings, done)
    yield from _failures(failed, out)
    yield from _places(done)
    yield from _languages(done)
    yield from _durations(done)
    yield from _hours(done)
    yield from _warnings(done)
    yield "</body></html>"


def _tiles(recordings: Sequence[Recording], done: Sequence[Recording]) -> Iterator[str]:
    counts = Counter(one.state for one in recordings)
    seconds = sum(one.seconds or 0 for one in done)
    stake = sum(one.figures.get("at_stake") or 0 for one in done)
    words = sum(one.figures.get("words") or 0 for one in done)
    tiles = {state: f"{counts[state]:,}" for state in STATES if counts[state]}
    tiles |= {"of sound": in_words(seconds), "words": f"{words:,}", "words in doubt": f"{stake:,.0f}"}
    if words:
        tiles["in doubt"] = f"{100 * min(stake / words, 1):.1f} %"
    yield '<dl class="tiles">'
    yield from (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles.items())
    yield "</dl>"


def _failures(failed: Sequence[Recording], out: str) -> Iterator[str]:
    for kind in KINDS:
        if not (those := [one for one in failed if one.kind == kind]):
            continue
        yield f"<h2>Failed: {len(those):,} x {escape(KINDS[kind].words)}</h2>"
        yield f"<p>{_with_command(mending(kind, out))}</p>"
        prefix = _prefix(one.source for one in those[:MOST_FAILURES])
        rows = [(_Link(one.source, prefix), one.error or "") for one in those[:MOST_FAILURES]]
        yield from _table(f"{len(rows)} of {len(those):,}{_inside(prefix)}", ("recording", "reason"), rows)


def _with_command(told: str) -> str:
    """Show the command in a sentence as one."""
    before, found, after = told.partition("whisper jobs")
    if not found:
        return escape(told)
    command, mark, rest = after.partition(";")
    command, colon, more = command.partition(":") if not mark else (command, mark, rest)
    return f"{escape(before)}<code>whisper jobs{escape(command)}</code>{escape(colon + more)}"


@dataclass(frozen=True)
class _Link:
    """A recording in a table; a browser opens it, at a moment."""

    source: str
    prefix: str
    seconds: float = 0.0

    def html(self) -> str:
        """Return it without what all recordings of the table begin with."""
        shown = escape(self.source.removeprefix(self.prefix))
        if is_address(self.source):
            return shown
        at = f"#t={self.seconds:.1f}" if self.seconds else ""
        return f'<a href="file://{quote(os.fsencode(self.source))}{at}">{shown}</a>'


def _prefix(sources: Iterable[str]) -> str:
    """Return the folder that all files lie in, with a separator at its end; empty where there is none."""
    with suppress(ValueError):  # addresses alone, or several disks
        return os.path.join(os.path.commonpath([os.path.dirname(s) for s in sources if not is_address(s)]), "")
    return ""


def _inside(prefix: str) -> str:
    return f", in {prefix}" if prefix else ""


def _places(done: Sequence[Recording]) -> Iterator[str]:
    found = [(place, one) for one in done for place in one.figures.get("places", ())]
    if not found:
        return
    found = sorted(found, key=lambda pair: -pair[0][2])[:MOST_PLACES]
    prefix = _prefix(one.source for _, one in found)
    rows = [
        (_Link(one.source, prefix, start), _clock(start), f"{stake:.1f}", reason, text[:300])
        for (start, _, stake, reason, text), one in found
    ]
    yield "<h2>What to listen to first</h2>"
    yield from _table(
        f"the {len(rows)} places with most words at stake{_inside(prefix)}",
        ("recording", "at", "words at stake", "why", "text"),
        rows,
        {1, 2},
    )


def _clock(seconds: float) -> str:
    return format_timestamp(int(seconds)).partition(".")[0]


def _languages(done: Sequence[Recording]) -> Iterator[str]:
    groups: dict[str, list[Recording]] = {}
    for one in done:
        groups.setdefault(one.language or "unknown", []).append(one)
    rows = []
    for language, those in sorted(groups.items(), key=lambda item: -len(item[1])):
        seconds = sum(one.seconds or 0 for one in those)
        means = [one.figures["logprob"] for one in those if one.figures.get("logprob") is not None]
        mean = f"{math.exp(sum(means) / len(means)):.2f}" if means else ""
        rows.append((language, f"{len(those):,}", in_words(seconds), mean))
    if rows:
        yield "<h2>Languages</h2>"
        yield from _table("", ("language", "recordings", "of sound", "mean probability of tokens"), rows, {1, 2, 3})


def _durations(done: Sequence[Recording]) -> Iterator[str]:
    edges = (5, 15, 30, 60, 300, 900, 1800, 3600, 7200, math.inf)
    counts = [0] * len(edges)
    for one in done:
        counts[next(i for i, edge in enumerate(edges) if (one.seconds or 0) <= edge)] += 1
    names = [f"up to {in_words(edge)}" if edge < math.inf else "longer" for edge in edges]
    if done:
        yield "<h2>Lengths</h2>"
        yield _bars(list(zip(names, counts, strict=True)), "recordings")


def _hours(done: Sequence[Recording]) -> Iterator[str]:
    """Show how much sound was done in each hour of the clock."""
    hours: Counter[int] = Counter()
    for one in done:
        if one.finished is not None:
            hours[int(one.finished // 3600)] += round(one.seconds or 0)
    if not hours:
        return
    last = max(hours)
    first = max(min(hours), last - MOST_HOURS + 1)
    bars = [
        (f"{datetime.fromtimestamp(3600 * hour):%d %b %H h}", hours[hour] / 3600) for hour in range(first, last + 1)
    ]
    yield "<h2>Speed: hours of sound in each hour</h2>"
    yield _bars(bars, "hours of sound")


def _warnings(done: Sequence[Recording]) -> Iterator[str]:
    found = [(one.source, text) for one in done for text in one.figures.get("warnings", ())]
    if found:
        prefix = _prefix(source for source, _ in found[:MOST_FAILURES])
        rows = [(_Link(source, prefix), text) for source, text in found[:MOST_FAILURES]]
        yield f"<h2>Warnings: {len(found):,}</h2>"
        yield from _table(f"{len(rows)} of {len(found):,}{_inside(prefix)}", ("recording", "warning"), rows)


def _bars(bars: Sequence[tuple[str, float]], unit: str) -> str:
    """Return bars as SVG, with the largest and the ends named."""
    highest = max(value for _, value in bars) or 1
    width = 720 / len(bars)
    parts = []
    for i, (name, value) in enumerate(bars):
        height = 110 * value / highest
        shown = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
        place = f'x="{i * width + 1:.1f}" y="{125 - height:.1f}" width="{max(width - 2, 1):.1f}" height="{height:.1f}"'
        parts.append(f"<rect {place}><title>{escape(name)}: {shown} {escape(unit)}</title></rect>")
        if len(bars) <= 12 or i in (0, len(bars) - 1):
            anchor = "end" if i == len(bars) - 1 and len(bars) > 12 else "start"
            at = (i + 1) * width if anchor == "end" else i * width + 1
            parts.append(f'<text x="{at:.1f}" y="140" text-anchor="{anchor}">{escape(name)}</text>')
            if value and len(bars) <= 12:
                parts.append(f'<text x="{i * width + 1:.1f}" y="{121 - height:.1f}">{shown}</text>')
    return f'<svg viewBox="0 0 720 145" role="img" aria-label="{escape(unit)}">{"".join(parts)}</svg>'


def _table(
    caption: str, names: Sequence[str], rows: Iterable[Sequence[str | _Link]], numbers: Iterable[int] = ()
) -> Iterator[str]:
    kinds = [' class="number"' if i in set(numbers) else "" for i in range(len(names))]
    yield '<div class="scroll"><table>'
    if caption:
        yield f"<caption>{escape(caption)}</caption>"
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(names, kinds, strict=True))
    yield f"<thead><tr>{head}</tr></thead><tbody>"
    for row in rows:
        shown = [cell.html() if isinstance(cell, _Link) else escape(cell) for cell in row]
        cells = (f'<td{kind} dir="auto">{cell}</td>' for cell, kind in zip(shown, kinds, strict=True))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"
