"""An evaluation as a self-contained HTML page: scores, plots, tables and the worst clips.

The page loads nothing from the network, runs no script, follows the reader's light or dark theme,
and fits a phone. Computes no scores (`results` does) and writes no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ..errors import OptionError
from .plots import plot_clips, plot_differences, plot_sets, plot_speed, plot_times
from .plots import require_matplotlib as require_matplotlib
from .results import Comparison, Evaluation, GroupScore, ScoredClip
from .scoring import TIME_TOLERANCES, Difference, Score, Spread, Step
from .tables import GROUP_TITLES, amount, lateness, verdict, worst_clips

N_WORST_CLIPS = 12
MAX_WORDS_OF_CLIP = 80
MAX_LISTED = 100  # hallucinated texts, failed recordings and skipped entries
MAX_GROUPS_OF_TABLE = 200

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
.substitution .hypothesis { color: var(--wrong); font-weight: 600; text-decoration: underline wavy 1px; }
.deletion .reference { color: var(--missing); font-weight: 600; text-decoration: line-through; }
.insertion .hypothesis { color: var(--added); font-weight: 600; text-decoration: underline double 1px; }
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
        The comparison of the first two.

    Raises
    ------
    OptionError
        There is no evaluation.
    MissingDependencyError
        matplotlib is not installed.
    """
    require_matplotlib()
    if not evaluations:
        raise OptionError("there is nothing to report: no evaluation was given")
    title = "Evaluation of " + " and ".join(e.model or "the model" for e in evaluations)
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
<p>Texts are compared after Whisper's normalizers: without case, punctuation and annotations, English numbers and
spellings in one form; Chinese, Japanese, Thai, Lao, Burmese and Cantonese character by character. The word error rate
is the number of substitutions, deletions and insertions, divided by the number of words of the reference; it can
exceed 100 %.</p>
<p>Brackets are 95 % confidence intervals from 1000 bootstrap samples of the clips. Clips of one speaker resemble each
other: for other speakers the true rate may lie outside. Where no clip has an error, the interval ends at the share of
wrong clips that would go unseen with a probability of 2.5 %.</p>
"""


# --------------------------------------------------------------------------------------------------
# The summary
# --------------------------------------------------------------------------------------------------


def _summary(evaluation: Evaluation, named: bool) -> Iterator[str]:
    scores = evaluation.scores
    if named:
        yield f"<h2>{escape(evaluation.model)}</h2>"
    duration = f", {_time(scores.speed.audio_seconds)} of audio" if scores.speed else ""
    n_recordings = f"{amount(sum(scores.n_clips.values()), 'recording')}{duration}"
    facts = [n_recordings, *evaluation.machine.values(), evaluation.date]
    yield f'<p class="quiet">{escape(" · ".join(fact for fact in facts if fact))}</p>'
    missing = []
    if n := scores.n_clips["failed"]:
        missing.append(f"{amount(n, 'recording')} failed")
    if n := len(evaluation.skipped):
        missing.append(f"{amount(n, 'manifest line')} skipped")
    if n := scores.n_clips["unlabelled"]:
        missing.append(f"{amount(n, 'recording')} without transcript")
    if missing:
        yield f"<p><strong>Not scored:</strong> {'; '.join(missing)}.</p>"
    tiles = "".join(
        f'<div><dt>{escape(name)}</dt><dd><span class="value">{escape(value)}</span>'
        f'<span class="more">{escape(more)}</span></dd></div>'
        for name, value, more in _tiles(evaluation)
    )
    yield f'<dl class="tiles">{tiles}</dl>'
    options = [(name, str(value)) for name, value in sorted(evaluation.options.items())]
    table = _table("Options of transcribe", ("option", "value"), options)
    yield f"<details><summary>Options</summary>{table}</details>"


def _tiles(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    """Name, value and details of each score that there is."""
    scores = evaluation.scores
    if scores.total:
        for name, score in (("Word errors", scores.total.words), ("Character errors", scores.total.characters)):
            yield name, _percent(score.rate), _sample(score)
        yield "Clips with an error", _percent(scores.total.wrong_clips.rate), _sample(scores.total.wrong_clips)
    if scores.non_speech:
        score = scores.non_speech.clips
        more = f"{_sample(score)}; {scores.non_speech.words_per_minute:.1f} words per minute"
        yield "Hallucinations on non-speech", _percent(score.rate), more
    if scores.languages:
        yield "Wrong language", _percent(scores.languages.clips.rate), _sample(scores.languages.clips)
    if scores.times:
        both = scores.times.both
        more = f"[{1000 * both.low:.0f}, {1000 * both.high:.0f}]; 90 % below {1000 * both.p90:.0f} ms"
        yield "Word timestamps, median error", f"{1000 * both.median:.0f} ms", more
    if scores.speed:
        factor = scores.speed.factor
        yield "Speed", f"{1 / max(factor, 1e-9):.3g}×", f"real time; real-time factor {factor:.3g}"
    if evaluation.load_seconds is not None:
        yield "Loading the model", f"{evaluation.load_seconds:.1f} s", ""
    for where, size in evaluation.peak_memory.items():
        yield f"Peak {where} memory", f"{size / 1e6:,.0f} MB", ""


# --------------------------------------------------------------------------------------------------
# Plots and comparison
# --------------------------------------------------------------------------------------------------


def _plots(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    drawn = [
        (plot_sets, "Word error rate by set", "Word error rate of each set with its 95 % confidence interval."),
        (plot_clips, "Clips by error rate", "Share of the clips with at most this word error rate."),
        (plot_times, "Word timestamps", "Share of word starts and ends with at most this error."),
        (plot_speed, "Time by duration", "Processing time of each clip over its duration; both scales logarithmic."),
    ]
    figures = [_figure(plot(evaluations, name), name, caption) for plot, name, caption in drawn]
    if any(figures):
        yield f'<h2>Plots</h2><div class="plots">{"".join(figures)}</div>'


def _figure(svg: str, name: str, caption: str) -> str:
    return f"<figure><h3>{escape(name)}</h3>{svg}<figcaption>{escape(caption)}</figcaption></figure>" if svg else ""


def _comparison(comparison: Comparison) -> Iterator[str]:
    yield f"<h2>{escape(comparison.second)} against {escape(comparison.first)}</h2>"
    counts = f"{comparison.better} clips are better, {comparison.worse} worse, {comparison.same} equal"
    unpaired = f"; {comparison.unpaired} are not in both" if comparison.unpaired else ""
    words = comparison.words
    points = f"{100 * words.value:+.1f} [{100 * words.low:+.1f}, {100 * words.high:+.1f}]"
    yield (
        f"<p><strong>{escape(verdict(comparison).capitalize())}</strong>: word error rate "
        f"{points} points, negative is better. {counts}{unpaired}.</p>"
    )
    by_value = sorted(comparison.sets.items(), key=lambda row: row[1].value)
    rows = [(name or "unlabelled", *_cells(d)) for name, d in by_value]
    rows.append(("all, words", *_cells(comparison.words)))
    rows.append(("all, characters", *_cells(comparison.characters)))
    table = _table("Differences in points, on the same clips", ("set", "difference", "95 %", "clips"), rows)
    name = "Difference by set"
    figure = _figure(
        plot_differences(comparison, name), name, "Where the interval excludes zero, the difference is significant."
    )
    yield f'<div class="plots">{figure}{table}</div>'


def _cells(difference: Difference) -> tuple[str, str, str]:
    interval = f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]" if difference.clips > 1 else ""
    return f"{100 * difference.value:+.1f}", interval, str(difference.clips)


# --------------------------------------------------------------------------------------------------
# Details of one evaluation
# --------------------------------------------------------------------------------------------------


def _details(evaluation: Evaluation, named: bool) -> Iterator[str]:
    scores = evaluation.scores
    of = f" of {escape(evaluation.model)}" if named else ""
    for by, groups in scores.groups.items():
        if len(groups) < 2:  # the same as the summary
            continue
        yield f"<h2>{GROUP_TITLES[by]}{of}</h2>"
        table = _group_table(groups[:MAX_GROUPS_OF_TABLE], by)
        more = (
            f'<p class="quiet">{len(groups) - MAX_GROUPS_OF_TABLE} more have lower rates.</p>'
            if len(groups) > MAX_GROUPS_OF_TABLE
            else ""
        )
        folded = len(groups) > 25
        yield f"<details><summary>All {len(groups)}</summary>{table}{more}</details>" if folded else table
    if scores.times:
        rows = [("starts", *_spread(scores.times.starts)), ("ends", *_spread(scores.times.ends))]
        near = [f"within {1000 * n:.0f} ms" for n in TIME_TOLERANCES]
        found = f"{scores.times.matched} of {scores.times.words} words were transcribed correctly"
        yield f"<h2>Word timestamps{of}</h2>"
        yield _table(found, ("", "median", "95 %", "90 % below", *near, "bias"), rows)
    yield from _confusions(evaluation, of)
    yield from _worst(evaluation, of)
    yield from _hallucinations(evaluation, of)
    yield from _languages(evaluation, of)
    yield from _failures(evaluation, of)


def _confusions(evaluation: Evaluation, of: str) -> Iterator[str]:
    kinds: dict[str, list[tuple[str, ...]]] = {"substitution": [], "deletion": [], "insertion": []}
    for reference, hypothesis, n in evaluation.scores.confusions:
        words = [word for word in (reference, hypothesis) if word is not None]
        kinds[Step(reference, hypothesis).kind].append((*words, str(n)))
    headings = {
        "substitution": ("Substitutions", ("reference", "hypothesis", "count")),
        "deletion": ("Deletions", ("reference", "count")),
        "insertion": ("Insertions", ("hypothesis", "count")),
    }
    tables = [
        _table(*headings[kind], rows, texts=(1,) if kind == "substitution" else ())
        for kind, rows in kinds.items()
        if rows
    ]
    if tables:
        yield f'<h2>Most frequent errors{of}</h2><div class="beside">{"".join(tables)}</div>'


def _group_table(groups: Sequence[GroupScore], by: str) -> str:
    columns = (by, "clips", "words", "word errors", "95 %", "substitutions", "deletions", "insertions")
    names = (*columns, "character errors", "clips wrong")
    rows = [
        (
            g.name,
            f"{g.words.clips:,}",
            f"{g.words.total:,}",
            _percent(g.words.rate),
            _interval(g.words),
            f"{g.edits.substitutions:,}",
            f"{g.edits.deletions:,}",
            f"{g.edits.insertions:,}",
            _percent(g.characters.rate),
            _percent(g.wrong_clips.rate),
        )
        for g in groups
    ]
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
    clips = worst_clips(evaluation, N_WORST_CLIPS)
    if not clips:
        return
    yield f"<h2>The worst clips{of}</h2>"
    yield (
        '<p class="quiet">Reference above, hypothesis below: '
        '<span class="substitution"><span class="hypothesis">substituted</span></span>, '
        '<span class="deletion"><span class="reference">deleted</span></span>, '
        '<span class="insertion"><span class="hypothesis">inserted</span></span>.</p>'
    )
    for clip in clips:
        steps = "".join(map(_step, clip.steps[:MAX_WORDS_OF_CLIP]))
        more = len(clip.steps) - MAX_WORDS_OF_CLIP
        rest = f'<p class="quiet">and {more} more words</p>' if more > 0 else ""
        parts = (_location(clip), clip.recording.language, clip.recording.speaker)
        where = escape(" · ".join(part for part in parts if part))
        heading = f"{where} · {amount(clip.edits.errors, 'error')} in {amount(clip.edits.total, 'word')}"
        yield f'<div class="clip"><p class="quiet">{heading}</p><div class="steps" dir="auto">{steps}</div>{rest}</div>'


def _step(step: Step) -> str:
    label = {
        "hit": f"{step.hypothesis}",
        "substitution": f"{step.hypothesis} instead of {step.reference}",
        "deletion": f"{step.reference} is deleted",
        "insertion": f"{step.hypothesis} is inserted",
    }[step.kind]
    above, below = (escape(word) if word is not None else "·" for word in step)
    return (
        f'<span class="step {step.kind}" role="img" aria-label="{escape(label)}">'
        f'<span class="reference">{above}</span><span class="hypothesis">{below}</span></span>'
    )


def _hallucinations(evaluation: Evaluation, of: str) -> Iterator[str]:
    non_speech = evaluation.scores.non_speech
    if non_speech is None:
        return
    yield f"<h2>Hallucinations on non-speech{of}</h2>"
    rows = [(name or "unlabelled", *_shares(score)) for name, score in non_speech.sets.items()]
    yield _table("Non-speech clips with text", ("set", "with text", "95 %", "clips", "of"), rows)
    clips = [clip for clip in evaluation.clips if clip.kind == "non_speech" and clip.text]
    if clips:
        texts = [(_location(clip), clip.text[:300]) for clip in clips[:MAX_LISTED]]
        table = _table("Texts", ("recording", "text"), texts, texts=(1,))
        yield f"<details><summary>{len(clips)} hallucinated texts</summary>{table}</details>"


def _languages(evaluation: Evaluation, of: str) -> Iterator[str]:
    languages = evaluation.scores.languages
    if languages is None:
        return
    yield f"<h2>Detected languages{of}</h2>"
    rows = [(name, *_shares(score)) for name, score in languages.languages.items()]
    tables = [_table("Misdetected clips", ("language", "wrong", "95 %", "clips", "of"), rows)]
    if languages.confusions:
        wrong = [(labelled, detected, str(n)) for labelled, detected, n in languages.confusions]
        tables.append(_table("Confusions", ("labelled", "detected", "clips"), wrong, texts=(1,)))
    yield f'<div class="beside">{"".join(tables)}</div>'


def _failures(evaluation: Evaluation, of: str) -> Iterator[str]:
    failed = [(_location(clip), clip.error) for clip in evaluation.clips if clip.kind == "failed"]
    if failed:
        yield f"<h2>Recordings that failed{of}</h2>"
        yield _table(amount(len(failed), "recording"), ("recording", "reason"), failed[:MAX_LISTED], texts=(1,))
    if evaluation.skipped:
        yield f"<h2>Skipped entries of the manifest{of}</h2>"
        rows = [(str(entry["line"]), str(entry["reason"])) for entry in evaluation.skipped[:MAX_LISTED]]
        yield _table(amount(len(evaluation.skipped), "line"), ("line", "reason"), rows, texts=(1,))


# --------------------------------------------------------------------------------------------------
# Elements
# --------------------------------------------------------------------------------------------------


def _table(caption: str, names: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int] = ()) -> str:
    """A table with its own scroll bar on narrow screens; the columns `texts` hold running text."""
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


def _location(clip: ScoredClip) -> str:
    """The end of the path, and the start of the part; not escaped."""
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
