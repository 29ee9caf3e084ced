"""The report of an audit: where speech and text disagree, as values, a table and a plot.

Measures and corrects nothing itself: `AuditStrategy` does, and the window loop adds its findings here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from ..errors import OptionError
from ..spans import Span, merge_spans
from ..utils import format_timestamp
from .confidence import Calibration, RatedWord, least_confident, rate_words
from .coverage import text_spans

if TYPE_CHECKING:
    from ..results import Segment
    from ..speech.vad import Speech

Kind = Literal["language", "recovered", "dropped", "loop", "doubtful", "uncovered"]

KINDS: Mapping[str, str] = {
    "language": "another language than the most probable one: its text is likelier, or the rest of the list is in it",
    "recovered": "speech that was without text, decoded on its own",
    "dropped": "hallucination, removed",
    "loop": "repetition loop, stopped",
    "doubtful": "text of which no attempt passed the thresholds; the best one is kept",
    "uncovered": "speech that remains without text",
}
REMAINING = ("doubtful", "uncovered")  # what a person should check
MERGED_GAP = 0.2  # seconds: spans of speech or text that lie closer together are one


@dataclass(frozen=True)
class Finding:
    """One place where speech and text disagree, and what was done about it."""

    kind: Kind
    start: float  # seconds of the recording
    end: float
    text: str  # what was recovered, dropped, stopped or kept
    reason: str
    channel: int | None = None  # with channels="separate"


def finding(kind: Kind, span: Span, text: str, reason: str) -> Finding:
    """Return a finding with times to the millisecond and stripped text."""
    return Finding(kind, round(span[0], 3), round(span[1], 3), text.strip(), reason)


@dataclass
class Report:
    """The report on one transcription.

    Attributes
    ----------
    duration
        Of the recording, seconds.
    speech
        Speech segments, seconds; None where speech was not detected.
    method
        How it was detected: "silero", or "energy" where Silero VAD is not installed.
    text
        Spans of the transcript's text, seconds.
    findings
        In the order of the recording.
    words
        The words of the transcript with their confidence; empty without `word_timestamps`.
    language, language_probs
        The language, and the probability of each candidate; empty where the language was given.
    language_scores
        Where the detection was in doubt, the score of each language that was tried: see `language_choice`.
    """

    duration: float = 0.0
    speech: tuple[Span, ...] | None = None
    method: str | None = None
    text: tuple[Span, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    words: list[RatedWord] = field(default_factory=list)
    language: str = ""
    language_probs: dict[str, float] = field(default_factory=dict)
    language_scores: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of_channels(cls, reports: Sequence[Report], language: str) -> Report:
        """Merge the reports of a recording's channels."""
        findings = [replace(f, channel=i) for i, report in enumerate(reports) for f in report.findings]
        words = [replace(word, channel=i) for i, report in enumerate(reports) for word in report.words]
        speech = [span for report in reports for span in report.speech or ()]
        text = [span for report in reports for span in report.text]
        return cls(
            duration=max(report.duration for report in reports),
            speech=None if reports[0].speech is None else tuple(merge_spans(speech, MERGED_GAP)),
            method=reports[0].method,
            text=tuple(merge_spans(text, MERGED_GAP)),
            findings=sorted(findings, key=lambda finding: (finding.start, finding.end)),
            words=sorted(words, key=lambda word: word.start),
            language=language,
            language_probs=next((r.language_probs for r in reports if r.language == language), {}),
        )

    def close(self, segments: Sequence[Segment], speech: Speech | None, calibration: Calibration) -> None:
        """Complete the report with the transcript and the speech of the whole recording.

        `calibration` is the model's, for the confidence of words.
        """
        self.words = rate_words(segments, calibration)
        self.findings.sort(key=lambda finding: (finding.start, finding.end))
        self.text = tuple(merge_spans(text_spans(segments), MERGED_GAP))
        if speech is not None:
            self.speech, self.method = speech.spans, speech.method

    def keep_language_of(self, first: Report, reason: str) -> None:
        """Note why a recording was transcribed again in this language, and what was detected at `first`."""
        self.language_probs, self.language_scores = first.language_probs, first.language_scores
        self.findings.insert(0, finding("language", (0.0, self.duration), self.language, reason))

    @property
    def speech_seconds(self) -> float:
        """Seconds of speech."""
        return sum(end - start for start, end in self.speech or ())

    @property
    def remaining(self) -> list[Finding]:
        """Findings that a person should check."""
        return [finding for finding in self.findings if finding.kind in REMAINING]

    def doubtful_words(self, share: float = 0.2) -> list[RatedWord]:
        """Return the words that are likeliest to be wrong, in the order of the recording.

        Parameters
        ----------
        share
            Of all words. A fifth of them held more than four fifths of the errors of ``tiny.en`` and
            ``base`` on read English (`benchmarks/confidence.py`).

        Raises
        ------
        OptionError
            `share` is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise OptionError(f"share is a part of all words, from 0 to 1, not {share!r}")
        return least_confident(self.words, share)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for ``json.dumps``."""
        return {
            "duration": self.duration,
            "speech": None if self.speech is None else [list(span) for span in self.speech],
            "speech_seconds": round(self.speech_seconds, 3),
            "method": self.method,
            "text": [list(span) for span in self.text],
            "findings": [asdict(finding) for finding in self.findings],
            "words": [asdict(word) for word in self.words],
            "language": self.language,
            "language_probs": self.language_probs,
            "language_scores": self.language_scores,
        }

    def table(self) -> str:
        """Return the report as text: a summary, then one line for each finding."""
        lines = [self._summary()]
        if self.findings:
            times = [f"{format_timestamp(f.start)} - {format_timestamp(f.end)}" for f in self.findings]
            width = max(map(len, times))
            lines.append("")
            for time, f in zip(times, self.findings, strict=True):
                channel = "" if f.channel is None else f"channel {f.channel}  "
                text = f": {f.text!r}" if f.text else ""
                lines.append(f"{time:{width}}  {channel}{f.kind:9}  {f.reason}{text}")
        return "\n".join(lines)

    def _summary(self) -> str:
        length = f"{self.duration:.1f} s"
        if self.speech is None:
            return f"{length}; speech and text were not compared (audit=True does)"
        counts = {kind: sum(f.kind == kind for f in self.findings) for kind in KINDS}
        found = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n) or "no findings"
        return f"{length}, {self.speech_seconds:.1f} s of speech ({self.method}): {found}"

    def plot(self, path: str | PathLike[str]) -> None:
        """Draw a timeline of speech, text and findings into a file (png, svg, pdf).

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        OptionError
            matplotlib does not know the format.
        """
        from .timeline_plot import plot  # here, as only a plot needs it

        found = {kind: [(f.start, f.end) for f in self.findings if f.kind == kind] for kind in KINDS}
        lanes = {
            "speech": self.speech or (),
            "text": self.text,
            **{kind: spans for kind, spans in found.items() if spans},
        }
        plot(path, self._summary(), self.duration, lanes)
