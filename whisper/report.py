"""An evaluation as one page of HTML: figures, plots, tables and the worst clips, in a single file.

The page asks for nothing from the network, runs no script, follows the reader's choice of light or dark, and fits
a phone. Works no figure out (`outcomes` does) and writes no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from .errors import OptionError
from .outcomes import Clip, Comparison, Evaluation, GroupScore
from .report_plots import plot_clips, plot_differences, plot_sets, plot_speed, plot_times
from .report_plots import require_matplotlib as require_matplotlib
from .scoring import NEAR, Difference, Score, Spread, Step
from .tables import amount, lateness, verdict, worst_clips

N_WORST = 12
N_STEPS = 80  # words of each that are shown
N_LISTED = 100  # of invented texts and unreadable recordings
N_SPEAKERS = 200
_TITLES = {"set": "Sets", "language": "Languages", "speaker": "Speakers"}

_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --card: #f4f5f7; --ink: #1b1f24; --quiet: #57606a;
  --line: #d5d9df; --one: #1f5fbf; --two: #b3480a; --wrong: #a40e26; --added: #7a3e00; --missing: #6a3fb5; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --card: #1e2329; --ink: #e8eaed; --quiet: #a3abb5;
  --line: #3a414a; --one: #7db2ff; --two: #ffa766; --wrong: #ff8f96; --added: #f2b45c; --missing: #c5a8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.quiet, figcaption, caption { color: var(--quiet); font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .7rem;
  margin: 1rem 0 0; }
.tiles > div { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.tiles dt { color: var(--quiet); font-size: .9rem; }
.tiles dd { margin: 0; }
.tiles .value { display: block; font-size: 1.6rem; font-weight: 600; line-height: 1.3; }
.tiles .more { display: block; color: var(--quiet); font-size: .85rem; }
.plots { columns: 2 26rem; column-gap: 1.5rem; }
.plots > * { break-inside: avoid; }
figure { margin: 0 0 1.6rem; max-width: 34rem; }
figure h3 { margin-top: 0; }
figure svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--one); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: right; padding: .3rem .5rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { color: var(--quiet); font-weight: 600; }
th[scope=row], .text, thead th:first-child { text-align: left; font-weight: inherit; }
td.text { white-space: normal; min-width: 10rem; }
tr > :first-child { padding-left: 0; }
.clip { border-left: 3px solid var(--line); padding-left: .8rem; margin: 1.2rem 0; }
.clip p { margin: 0 0 .3rem; }
.steps { display: flex; flex-wrap: wrap; gap: .35rem .45rem; }
.step { display: inline-grid; grid-template-rows: auto auto; line-height: 1.3; }
.hit { color: var(--quiet); }
.substitution .said { color: var(--wrong); font-weight: 600; text-decoration: underline wavy 1px; }
.deletion .expected { color: var(--missing); font-weight: 600; text-decoration: line-through; }
.insertion .said { color: var(--added); font-weight: 600; text-decoration: underline double 1px; }
.none { color: var(--quiet); }
summary { cursor: pointer; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 3rem; }
ul { padding-left: 1.2rem; }
"""


def make_report(evaluations: Sequence[Evaluation], comparison: Comparison | None = None) -> str:
    """Return the page.

    Parameters
    ----------
    evaluations
        One model, or several on the same recordings; the plots show the first two.
    comparison
        What sets the first two apart.

    Raises
    ------
    OptionError
        There is no evaluation, or matplotlib is not installed.
    """
    require_matplotlib()
    if not evaluations:
        raise OptionError("there is nothing to report: no evaluation was given")
    title = "How well " + " and ".join(e.model or "the model" for e in evaluations) + " reads"
    if len(evaluations) > 1:
        title = title.removesuffix("reads") + "read"
    parts = [f"<h1>{escape(title)}</h1>"]
    for evaluation in evaluations:
        parts += _summary(evaluation, named=len(evaluations) > 1)
    if comparison is not None:
        parts += _comparison(comparison)
    parts += _plots(evaluations)
    for evaluation in evaluations:
        parts += _details(evaluation, named=len(evaluations) > 1)
    parts.append(f"<h2>How to read this</h2>{_NOTES}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


_NOTES = """
<p>Texts are compared after Whisper's normalisers: without case, punctuation and annotations, English numbers and
spellings in one form; Chinese, Japanese, Thai, Lao, Burmese and Cantonese letter by letter. A word error rate is the
number of words substituted, missing and added, divided by the words that were said; it can exceed 100 %.</p>
<p>Brackets hold 95 % of 1000 bootstrap samples of the clips. Clips of one speaker resemble each other: for other
speakers the truth may lie further off. Where no clip is wrong, the bracket ends where so many clips without an
error would still happen by a chance of 2.5 %.</p>
"""


# ---------------------------------------------------------------------------------------------------------
# The summary
# ---------------------------------------------------------------------------------------------------------


def _summary(evaluation: Evaluation, named: bool) -> Iterator[str]:
    scores = evaluation.scores
    if named:
        yield f"<h2>{escape(evaluation.model)}</h2>"
    sound = f", {_time(scores.speed.audio_seconds)} of sound" if scores.speed else ""
    told = [
        f"{amount(sum(scores.n_clips.values()), 'recording')}{sound}",
        *evaluation.machine.values(),
        evaluation.date,
    ]
    yield f'<p class="quiet">{escape(" · ".join(t for t in told if t))}</p>'
    n_failed, n_untold = scores.n_clips["failed"], scores.n_clips["untold"]
    n_skipped = len(evaluation.skipped)
    if n_failed or n_skipped or n_untold:
        missing = [
            amount(n_failed, "recording") + " could not be read" if n_failed else "",
            amount(n_skipped, "row") + " of the manifest left out" if n_skipped else "",
            amount(n_untold, "recording") + " without transcript" if n_untold else "",
        ]
        yield f"<p><strong>Not scored:</strong> {'; '.join(m for m in missing if m)}.</p>"
    tiles = "".join(f'<div><dt>{escape(name)}</dt><dd><span class="value">{escape(value)}</span>'
                    f'<span class="more">{escape(more)}</span></dd></div>'
                    for name, value, more in _tiles(evaluation))  # fmt: skip
    yield f'<dl class="tiles">{tiles}</dl>'
    yield f"<details><summary>Options</summary>{_options(evaluation)}</details>"


def _tiles(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    """Name, figure and small print of each figure that there is."""
    scores = evaluation.scores
    if scores.total:
        for name, score in (("Word errors", scores.total.words), ("Character errors", scores.total.characters)):
            yield name, _percent(score.rate), _sample(score)
        yield "Clips with an error", _percent(scores.total.wrong_clips.rate), _sample(scores.total.wrong_clips)
    if scores.silence:
        score = scores.silence.clips
        more = f"{_sample(score)}; {scores.silence.words_per_minute:.1f} words a minute"
        yield "Text where nobody speaks", _percent(score.rate), more
    if scores.languages:
        yield "Wrong language", _percent(scores.languages.clips.rate), _sample(scores.languages.clips)
    if scores.times:
        both = scores.times.both
        more = f"[{1000 * both.low:.0f}, {1000 * both.high:.0f}]; 90 % below {1000 * both.p90:.0f} ms"
        yield "Word times, median error", f"{1000 * both.median:.0f} ms", more
    if scores.speed:
        factor = scores.speed.factor
        yield "Speed", f"{1 / max(factor, 1e-9):.3g}×", f"as fast as speech; real-time factor {factor:.3g}"
    if evaluation.load_seconds is not None:
        yield "Loading the model", f"{evaluation.load_seconds:.1f} s", ""
    for where, size in evaluation.peak_memory.items():
        yield f"Memory of the {where}", f"{size / 1e6:,.0f} MB", "at most"


def _options(evaluation: Evaluation) -> str:
    rows = [(name, str(value)) for name, value in sorted(evaluation.options.items())]
    return _table("Options of transcribe", ("option", "value"), rows)


# ---------------------------------------------------------------------------------------------------------
# Plots and comparison
# ---------------------------------------------------------------------------------------------------------


def _plots(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    drawn = [
        (plot_sets, "Word error rate by set", "Each set's word error rate; the bar holds 95 % of bootstrap samples."),
        (plot_clips, "Clips by error rate", "How many of the clips have at most this word error rate."),
        (plot_times, "Word times", "How many of the starts and ends of words are at most so far from the truth."),
        (plot_speed, "Time by length", "Time to read each clip over its length; both scales are logarithmic."),
    ]
    figures = [_figure(plot(evaluations, name), name, caption) for plot, name, caption in drawn]
    if any(figures):
        yield f'<h2>Plots</h2><div class="plots">{"".join(figures)}</div>'


def _figure(svg: str, name: str, caption: str) -> str:
    return f"<figure><h3>{escape(name)}</h3>{svg}<figcaption>{escape(caption)}</figcaption></figure>" if svg else ""


def _comparison(comparison: Comparison) -> Iterator[str]:
    yield f"<h2>{escape(comparison.second)} against {escape(comparison.first)}</h2>"
    counts = f"{comparison.better} clips are read better, {comparison.worse} worse, {comparison.same} alike"
    unpaired = f"; {comparison.unpaired} are not in both" if comparison.unpaired else ""
    yield (
        f"<p><strong>{escape(verdict(comparison).capitalize())}</strong>: word error rate "
        f"{_points(comparison.words)} points, below zero is better. {counts}{unpaired}.</p>"
    )
    by_value = sorted(comparison.sets.items(), key=lambda row: row[1].value)
    rows = [(name or "not told", *_cells(d)) for name, d in by_value]
    rows.append(("all, words", *_cells(comparison.words)))
    rows.append(("all, characters", *_cells(comparison.characters)))
    table = _table("Differences in points, on the same clips", ("set", "difference", "95 %", "clips"), rows)
    name = "Difference by set"
    figure = _figure(
        plot_differences(comparison, name), name, "Where the bar leaves zero out, the models differ clearly."
    )
    yield f'<div class="plots">{figure}{table}</div>'


def _cells(difference: Difference) -> tuple[str, str, str]:
    interval = f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]" if difference.clips > 1 else ""
    return f"{100 * difference.value:+.1f}", interval, str(difference.clips)


def _points(difference: Difference) -> str:
    return f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


# ---------------------------------------------------------------------------------------------------------
# Details of one evaluation
# ---------------------------------------------------------------------------------------------------------


def _details(evaluation: Evaluation, named: bool) -> Iterator[str]:
    scores = evaluation.scores
    of = f" of {escape(evaluation.model)}" if named else ""
    for by, groups in scores.groups.items():
        if len(groups) < 2:  # says what the summary says
            continue
        yield f"<h2>{_TITLES[by]}{of}</h2>"
        table = _group_table(groups[:N_SPEAKERS], by)
        more = (
            f'<p class="quiet">{len(groups) - N_SPEAKERS} more have lower rates.</p>'
            if len(groups) > N_SPEAKERS
            else ""
        )
        folded = len(groups) > 25
        yield f"<details><summary>All {len(groups)} of them</summary>{table}{more}</details>" if folded else table
    if scores.times:
        rows = [("starts", *_spread(scores.times.starts)), ("ends", *_spread(scores.times.ends))]
        near = [f"within {1000 * n:.0f} ms" for n in NEAR]
        found = f"{scores.times.matched} of {scores.times.words} words were written as they were said"
        yield f"<h2>Word times{of}</h2>"
        yield _table(found, ("", "median", "95 %", "90 % below", *near, "in the middle"), rows)
    yield from _confusions(evaluation, of)
    yield from _worst(evaluation, of)
    yield from _invented(evaluation, of)
    yield from _languages(evaluation, of)
    yield from _failures(evaluation, of)


def _confusions(evaluation: Evaluation, of: str) -> Iterator[str]:
    kinds: dict[str, list[tuple[str, ...]]] = {"substitution": [], "deletion": [], "insertion": []}
    for expected, said, n in evaluation.scores.confusions:
        kinds[Step(expected, said).kind].append((*(word for word in (expected, said) if word is not None), str(n)))
    headings = {
        "substitution": ("Substituted", ("said", "written", "times")),
        "deletion": ("Missing", ("said", "times")),
        "insertion": ("Added", ("written", "times")),
    }
    tables = [
        _table(*headings[kind], rows, texts=(1,) if kind == "substitution" else ())
        for kind, rows in kinds.items()
        if rows
    ]
    if tables:
        yield f'<h2>Most frequent errors{of}</h2><div class="beside">{"".join(tables)}</div>'


def _group_table(groups: Sequence[GroupScore], by: str) -> str:
    names = (
        by,
        "clips",
        "words",
        "word errors",
        "95 %",
        "substituted",
        "missing",
        "added",
        "characters",
        "clips wrong",
    )
    rows = [
        (g.name, f"{g.words.clips:,}", f"{g.words.total:,}", _percent(g.words.rate), _interval(g.words),
         f"{g.edits.substitutions:,}", f"{g.edits.deletions:,}", f"{g.edits.insertions:,}",
         _percent(g.characters.rate), _percent(g.wrong_clips.rate))
        for g in groups
    ]  # fmt: skip
    return _table(f"Errors by {by}, the highest rate first", names, rows)


def _spread(spread: Spread) -> list[str]:
    return [
        f"{1000 * spread.median:.0f} ms",
        f"[{1000 * spread.low:.0f}, {1000 * spread.high:.0f}]",
        f"{1000 * spread.p90:.0f} ms",
        *(_percent(share) for share in spread.within),
        lateness(spread),
    ]


def _worst(evaluation: Evaluation, of: str) -> Iterator[str]:
    clips = worst_clips(evaluation, N_WORST)
    if not clips:
        return
    yield f"<h2>The worst clips{of}</h2>"
    yield (
        '<p class="quiet">Above what was said, below what was written: '
        '<span class="substitution"><span class="said">substituted</span></span>, '
        '<span class="deletion"><span class="expected">missing</span></span>, '
        '<span class="insertion"><span class="said">added</span></span>.</p>'
    )
    for clip in clips:
        steps = "".join(map(_step, clip.steps[:N_STEPS]))
        more = len(clip.steps) - N_STEPS
        rest = f'<p class="quiet">and {more} more words</p>' if more > 0 else ""
        heading = f"{_where(clip)} · {amount(clip.edits.errors, 'error')} in {amount(clip.edits.total, 'word')}"
        yield f'<div class="clip"><p class="quiet">{heading}</p><div class="steps" dir="auto">{steps}</div>{rest}</div>'


def _where(clip: Clip) -> str:
    r = clip.recording
    start = "" if r.start is None else f" from {r.start:.2f} s"
    short = "/".join(r.path.replace("\\", "/").split("/")[-3:])
    return escape(" · ".join(part for part in (short + start, r.language or "", r.speaker) if part))


def _step(step: Step) -> str:
    spoken = {
        "hit": f"{step.said}",
        "substitution": f"{step.said} instead of {step.expected}",
        "deletion": f"{step.expected} is missing",
        "insertion": f"{step.said} is added",
    }[step.kind]
    above, below = (escape(word) if word is not None else "·" for word in step)
    return (
        f'<span class="step {step.kind}" role="img" aria-label="{escape(spoken)}">'
        f'<span class="expected">{above}</span><span class="said">{below}</span></span>'
    )


def _invented(evaluation: Evaluation, of: str) -> Iterator[str]:
    silence = evaluation.scores.silence
    if silence is None:
        return
    yield f"<h2>Where nobody speaks{of}</h2>"
    rows = [(name or "not told", *_shares(score)) for name, score in silence.sets.items()]
    yield _table("Clips that were given text", ("set", "with text", "95 %", "clips", "of"), rows)
    clips = [clip for clip in evaluation.clips if clip.kind == "silence" and clip.text]
    if clips:
        texts = [(_plain_where(clip), clip.text[:300]) for clip in clips[:N_LISTED]]
        table = _table("What was written", ("recording", "text"), texts, texts=(1,))
        yield f"<details><summary>{len(clips)} invented texts</summary>{table}</details>"


def _languages(evaluation: Evaluation, of: str) -> Iterator[str]:
    languages = evaluation.scores.languages
    if languages is None:
        return
    yield f"<h2>Languages heard{of}</h2>"
    rows = [(name, *_shares(score)) for name, score in languages.languages.items()]
    tables = [_table("Clips taken for another language", ("language", "wrong", "95 %", "clips", "of"), rows)]
    if languages.confusions:
        wrong = [(spoken, heard, str(n)) for spoken, heard, n in languages.confusions]
        tables.append(_table("Taken for which", ("spoken", "heard", "clips"), wrong, texts=(1,)))
    yield f'<div class="beside">{"".join(tables)}</div>'


def _failures(evaluation: Evaluation, of: str) -> Iterator[str]:
    failed = [(_plain_where(clip), clip.error) for clip in evaluation.clips if clip.kind == "failed"]
    if failed:
        yield f"<h2>Recordings that could not be read{of}</h2>"
        yield _table(amount(len(failed), "recording"), ("recording", "reason"), failed[:N_LISTED], texts=(1,))
    if evaluation.skipped:
        yield f"<h2>Rows of the manifest that were left out{of}</h2>"
        rows = [(str(row["line"]), str(row["reason"])) for row in evaluation.skipped[:N_LISTED]]
        yield _table(amount(len(evaluation.skipped), "row"), ("line", "reason"), rows, texts=(1,))


# ---------------------------------------------------------------------------------------------------------
# Pieces
# ---------------------------------------------------------------------------------------------------------


def _table(caption: str, names: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int] = ()) -> str:
    """A table that scrolls by itself where the screen is narrow; the columns `texts` are running text."""
    kinds = [' class="text"' if i in texts else "" for i in range(len(names))]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(names, kinds, strict=True))
    body = []
    for row in rows:
        cells = [f'<th scope="row" dir="auto">{escape(row[0])}</th>']
        cells += [f'<td{kind} dir="auto">{escape(cell)}</td>' for cell, kind in zip(row[1:], kinds[1:], strict=True)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _plain_where(clip: Clip) -> str:
    start = "" if clip.recording.start is None else f" from {clip.recording.start:.2f} s"
    return "/".join(clip.recording.path.replace("\\", "/").split("/")[-3:]) + start


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _interval(score: Score) -> str:
    return f"[{100 * score.low:.1f}, {100 * score.high:.1f}]" if score.clips > 1 else ""


def _sample(score: Score) -> str:
    return f"{_interval(score)} {score.errors:,} of {score.total:,}".strip().replace("] ", "]; ")


def _shares(score: Score) -> tuple[str, str, str, str]:
    return _percent(score.rate), _interval(score), str(score.errors), str(score.clips)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"
