"""What was found when speech and text were held against each other, as an object, a table and plain values.

Measures and mends nothing itself: `audited` does, and notes here what it found. The picture is drawn in `timeline`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from typing import Any, Literal

from .coverage import Span, covered_by
from .results import Segment
from .timeline import plot
from .utils import format_timestamp
from .vad import Speech

Kind = Literal["recovered", "dropped", "loop", "doubtful", "uncovered"]

KINDS: Mapping[str, str] = {
    "recovered": "speech that had no text at first, and has one now",
    "dropped": "text that nobody said, taken out",
    "loop": "text that went round in circles, stopped",
    "doubtful": "text of which no attempt passed the thresholds; the best one is kept",
    "uncovered": "speech that remains without text",
}
REMAINING = ("doubtful", "uncovered")  # what somebody should listen to


@dataclass(frozen=True)
class Finding:
    """One place where speech and text did not fit, and what became of it."""

    kind: Kind
    start: float  # seconds of the recording
    end: float
    text: str  # what was recovered, dropped, stopped or kept
    reason: str
    channel: int | None = None  # with channels="separate"


def finding(kind: Kind, span: Span, text: str, reason: str) -> Finding:
    """Return a finding with times to the millisecond and bare text."""
    return Finding(kind, round(span[0], 3), round(span[1], 3), text.strip(), reason)


@dataclass
class Report:
    """An account of one transcription.

    Attributes
    ----------
    duration
        Of the recording, seconds.
    speech
        Where somebody speaks, seconds; None where that was not looked at.
    method
        Who said so: "silero", or "energy" where the detector is not installed.
    text
        Where text stands in the transcript, seconds.
    findings
        In the order of the recording.
    language, language_probs
        What is spoken, and how probable that is among the languages that could be; empty where it was told.
    """

    duration: float = 0.0
    speech: tuple[Span, ...] | None = None
    method: str | None = None
    text: tuple[Span, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    language: str = ""
    language_probs: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of_channels(cls, reports: Sequence[Report], language: str) -> Report:
        """Join the reports of a recording's channels; somebody speaks where one of them has speech."""
        found = [replace(finding, channel=i) for i, report in enumerate(reports) for finding in report.findings]
        speech = [span for report in reports for span in report.speech or ()]
        return cls(
            duration=max(report.duration for report in reports),
            speech=None if reports[0].speech is None else tuple(joined(speech)),
            method=reports[0].method,
            text=tuple(joined([span for report in reports for span in report.text])),
            findings=sorted(found, key=lambda finding: (finding.start, finding.end)),
            language=language,
            language_probs=next((r.language_probs for r in reports if r.language == language), {}),
        )

    def close(self, segments: Sequence[Segment], speech: Speech | None) -> None:
        """Take in what is known at the end."""
        self.findings.sort(key=lambda finding: (finding.start, finding.end))
        self.text = tuple(joined(covered_by(segments)))
        if speech is not None:
            self.speech, self.method = speech.spans, speech.method

    @property
    def speech_seconds(self) -> float:
        """How long somebody speaks."""
        return sum(end - start for start, end in self.speech or ())

    @property
    def remaining(self) -> list[Finding]:
        """What should be listened to."""
        return [finding for finding in self.findings if finding.kind in REMAINING]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, fit for ``json.dumps``."""
        return {
            "duration": self.duration,
            "speech": None if self.speech is None else [list(span) for span in self.speech],
            "speech_seconds": round(self.speech_seconds, 3),
            "method": self.method,
            "text": [list(span) for span in self.text],
            "findings": [asdict(finding) for finding in self.findings],
            "language": self.language,
            "language_probs": self.language_probs,
        }

    def table(self) -> str:
        """Return it for people: a line on the whole, and one for each finding."""
        lines = [self._summary()]
        if self.findings:
            times = [f"{format_timestamp(f.start)} - {format_timestamp(f.end)}" for f in self.findings]
            width = max(map(len, times))
            lines += [""] + [
                f"{time:{width}}  {_channel(f)}{f.kind:9}  {f.reason}{f': {f.text!r}' if f.text else ''}"
                for time, f in zip(times, self.findings, strict=True)
            ]
        return "\n".join(lines)

    def _summary(self) -> str:
        length = f"{self.duration:.1f} s"
        if self.speech is None:
            return f"{length}; speech and text were not held against each other (audit=True does)"
        counts = {kind: sum(f.kind == kind for f in self.findings) for kind in KINDS}
        found = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n) or "nothing to mend"
        return f"{length}, {self.speech_seconds:.1f} s of speech ({self.method}): {found}"

    def plot(self, path: str | PathLike[str]) -> None:
        """Draw a timeline of speech, text and findings into a file (png, svg, pdf); needs matplotlib.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        OptionError
            matplotlib does not know the format.
        """
        found = {kind: [(f.start, f.end) for f in self.findings if f.kind == kind] for kind in KINDS}
        shown = {kind: spans for kind, spans in found.items() if spans}
        plot(path, self._summary(), self.duration, {"speech": self.speech or (), "text": self.text, **shown})


def joined(spans: Sequence[Span], pause: float = 0.2) -> list[Span]:
    """Join spans that overlap or lie closer than `pause` seconds."""
    together: list[Span] = []
    for start, end in sorted(spans):
        if together and start - together[-1][1] < pause:
            together[-1] = (together[-1][0], max(together[-1][1], end))
        else:
            together.append((start, end))
    return together


def _channel(finding: Finding) -> str:
    return "" if finding.channel is None else f"channel {finding.channel}  "
