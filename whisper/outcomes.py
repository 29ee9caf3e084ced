"""What a model made of recordings, and every score of that: by set, language and speaker, or against another.

Takes what was written as it is and hands texts to `scoring`. Calls no model, opens no file and prints nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .errors import OptionError
from .manifests import NOBODY, Recording
from .scoring import (
    Difference,
    Edits,
    Score,
    Step,
    TimeScore,
    Word,
    align,
    characters_of,
    count_edits,
    make_difference,
    make_score,
    match_times,
    score_times,
    words_of,
)

GROUPINGS = ("set", "language", "speaker")
N_CONFUSIONS = 15  # of each kind


@dataclass(frozen=True)
class Hypothesis:
    """What a model wrote for a recording."""

    text: str
    language: str  # in which it was read
    detected: bool  # the model chose the language
    duration: float  # seconds of sound
    seconds: float  # that reading it took, the decoding of the file included
    words: tuple[Word, ...] | None = None  # with times, seconds from the beginning of the part that was read


@dataclass(frozen=True)
class Clip:
    """A recording with what was written for it, or the reason why there is nothing."""

    recording: Recording
    hypothesis: Hypothesis | None
    error: str = ""
    task: str = "transcribe"

    @property
    def key(self) -> tuple[str, float | None, float | None]:
        return self.recording.path, self.recording.start, self.recording.end

    @property
    def kind(self) -> str:
        """``failed``, ``silence`` (nobody speaks), ``untold`` (no reference), or ``speech``."""
        if self.hypothesis is None:
            return "failed"
        if self.recording.language == NOBODY:
            return "silence"
        return "speech" if self.recording.text.strip() else "untold"

    @property
    def text(self) -> str:
        return self.hypothesis.text if self.hypothesis else ""

    @property
    def language(self) -> str | None:
        """The language by whose rules the texts are compared."""
        if self.task == "translate":
            return "en"
        if self.recording.language in (None, NOBODY):
            return self.hypothesis.language if self.hypothesis else None
        return self.recording.language

    @cached_property
    def steps(self) -> list[Step]:
        """The aligned words."""
        return align(words_of(self.recording.text, self.language), words_of(self.text, self.language))

    @cached_property
    def edits(self) -> Edits:
        """Words by what became of them."""
        return count_edits(self.steps)

    @cached_property
    def character_edits(self) -> Edits:
        """Characters by what became of them."""
        expected = characters_of(self.recording.text, self.language)
        return count_edits(align(expected, characters_of(self.text, self.language)))

    @cached_property
    def late(self) -> list[tuple[float, float]] | None:
        """How late each word that was found starts and ends, in seconds; None where times are not known."""
        if self.hypothesis is None or self.hypothesis.words is None or self.recording.words is None:
            return None
        offset = self.recording.start or 0.0
        return match_times([(w, a - offset, b - offset) for w, a, b in self.recording.words], self.hypothesis.words)


# ---------------------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupScore:
    """The rates of errors on clips that belong together."""

    name: str
    words: Score
    edits: Edits
    characters: Score
    wrong_clips: Score  # clips with any error

    @classmethod
    def of(cls, name: str, clips: Sequence[Clip]) -> GroupScore:
        """Score clips with speech."""
        return cls(
            name,
            words=_score_edits([clip.edits for clip in clips]),
            edits=sum((clip.edits for clip in clips), Edits()),
            characters=_score_edits([clip.character_edits for clip in clips]),
            wrong_clips=make_score([int(clip.edits.errors > 0) for clip in clips], [1] * len(clips)),
        )


def _score_edits(edits: Sequence[Edits]) -> Score:
    return make_score([e.errors for e in edits], [e.total for e in edits])


@dataclass(frozen=True)
class SilenceScore:
    """What was written where nobody speaks."""

    clips: Score  # with any text
    words_per_minute: float
    sets: dict[str, Score]


@dataclass(frozen=True)
class LanguageScore:
    """How often another language was heard than the manifest says."""

    clips: Score  # heard wrongly
    languages: dict[str, Score]  # by the language of the manifest
    confusions: list[tuple[str, str, int]]  # language, heard as, clips; the most frequent first


@dataclass(frozen=True)
class Speed:
    """How long reading took."""

    audio_seconds: float
    seconds: float
    median: float  # of the clips' real-time factors: seconds of work for a second of sound
    p90: float

    @property
    def factor(self) -> float:
        """The real-time factor of everything together."""
        return self.seconds / max(self.audio_seconds, 1e-9)


@dataclass(frozen=True)
class Scores:
    """Everything that is said about an evaluation; what could not be measured is None."""

    total: GroupScore | None
    groups: dict[str, list[GroupScore]]  # by each of `GROUPINGS` that tells clips apart, the worst first
    confusions: list[tuple[str | None, str | None, int]]  # expected, said, how often; None: deleted or inserted
    silence: SilenceScore | None
    languages: LanguageScore | None
    times: TimeScore | None
    speed: Speed | None
    n_clips: dict[str, int]  # by `Clip.kind`


def score_clips(clips: Sequence[Clip]) -> Scores:
    """Score what a model wrote."""
    kinds = {kind: [c for c in clips if c.kind == kind] for kind in ("speech", "silence", "untold", "failed")}
    speech = kinds["speech"]
    timed = [clip for clip in clips if clip.late is not None]
    return Scores(
        total=GroupScore.of("all", speech) if speech else None,
        groups={by: groups for by in GROUPINGS if (groups := _grouped(speech, by))},
        confusions=_confusions(speech),
        silence=_score_silence(kinds["silence"]),
        languages=_score_languages([*speech, *kinds["untold"]]),
        times=score_times([c.late or [] for c in timed], sum(len(c.recording.words or ()) for c in timed)),
        speed=_speed([clip.hypothesis for clip in clips if clip.hypothesis]),
        n_clips={kind: len(some) for kind, some in kinds.items()},
    )


def _confusions(clips: Sequence[Clip]) -> list[tuple[str | None, str | None, int]]:
    steps = Counter(step for clip in clips for step in clip.steps)
    found: list[tuple[str | None, str | None, int]] = []
    for kind in ("substitution", "deletion", "insertion"):
        found += [(*step, n) for step, n in steps.most_common() if step.kind == kind][:N_CONFUSIONS]
    return found


def _by(clips: Iterable[Clip], name: Callable[[Clip], str]) -> dict[str, list[Clip]]:
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(name(clip), []).append(clip)
    return groups


def _grouped(clips: Sequence[Clip], by: str) -> list[GroupScore]:
    names: dict[str, Callable[[Clip], str]] = {
        "set": lambda clip: clip.recording.group,
        "language": lambda clip: clip.recording.language or "",
        "speaker": lambda clip: clip.recording.speaker,
    }
    groups = _by(clips, names[by])
    if set(groups) <= {""}:
        return []
    scores = [GroupScore.of(name or "not told", some) for name, some in groups.items()]
    return sorted(scores, key=lambda group: -group.words.rate)


def _score_silence(clips: Sequence[Clip]) -> SilenceScore | None:
    if not clips:
        return None

    def score(some: Sequence[Clip]) -> Score:
        return make_score([int(bool(clip.text.strip())) for clip in some], [1] * len(some))

    minutes = sum(clip.hypothesis.duration for clip in clips if clip.hypothesis) / 60
    n_words = sum(len(clip.text.split()) for clip in clips)
    sets = {name: score(some) for name, some in _by(clips, lambda clip: clip.recording.group).items()}
    return SilenceScore(score(clips), n_words / max(minutes, 1e-9), sets)


def _score_languages(clips: Sequence[Clip]) -> LanguageScore | None:
    heard = [
        (clip.recording.language, clip.hypothesis.language)
        for clip in clips
        if clip.recording.language and clip.hypothesis and clip.hypothesis.detected
    ]
    if not heard:
        return None

    def score(pairs: Sequence[tuple[str, str]]) -> Score:
        return make_score([int(spoken != found) for spoken, found in pairs], [1] * len(pairs))

    wrong = Counter(pair for pair in heard if pair[0] != pair[1])
    languages = {name: score([p for p in heard if p[0] == name]) for name in sorted({spoken for spoken, _ in heard})}
    return LanguageScore(score(heard), languages, [(*pair, n) for pair, n in wrong.most_common(N_CONFUSIONS)])


def _speed(heard: Sequence[Hypothesis]) -> Speed | None:
    if not heard:
        return None
    factors = [h.seconds / max(h.duration, 1e-9) for h in heard]
    return Speed(
        audio_seconds=sum(h.duration for h in heard),
        seconds=sum(h.seconds for h in heard),
        median=float(np.median(factors)),
        p90=float(np.percentile(factors, 90)),
    )


# ---------------------------------------------------------------------------------------------------------
# An evaluation
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """One model on one list of recordings."""

    model: str
    clips: tuple[Clip, ...]
    options: dict[str, Any] = field(default_factory=dict)  # for `transcribe`
    date: str = ""
    machine: dict[str, str] = field(default_factory=dict)  # what it ran on
    load_seconds: float | None = None
    peak_memory: dict[str, int] = field(default_factory=dict)  # bytes, of the process and of the device
    skipped: tuple[dict[str, Any], ...] = ()  # rows that the manifest could not give: line and reason

    @cached_property
    def scores(self) -> Scores:
        """All scores."""
        return score_clips(self.clips)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, fit for ``json.dumps``; `from_dict` reads it back."""
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "clips"}
        return {**plain(told), "scores": plain(self.scores), "clips": [_clip_to_dict(clip) for clip in self.clips]}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Evaluation:
        """Make an evaluation of what `to_dict` gave; scores are worked out anew.

        Raises
        ------
        OptionError
            This is something else.
        """
        try:
            known = {f.name: told[f.name] for f in fields(cls)}
            clips = tuple(_clip_from_dict(row) for row in known.pop("clips"))
            return cls(**{**known, "clips": clips, "skipped": tuple(known["skipped"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise OptionError(f"this is no evaluation that `whisper eval --json` wrote: {error!r}") from error


def plain(value: Any) -> Any:
    """Turn dataclasses into dictionaries, with the rates that they work out, and the rest into what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        told = {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        derived = {name: getattr(value, name) for name in ("rate", "factor") if hasattr(value, name)}
        return {**derived, **told}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _clip_to_dict(clip: Clip) -> dict[str, Any]:
    told = {**asdict(clip), "kind": clip.kind}
    if clip.kind == "speech":
        told["edits"] = asdict(clip.edits)
        told["character_edits"] = asdict(clip.character_edits)
    return told


def _clip_from_dict(told: Mapping[str, Any]) -> Clip:
    recording, hypothesis = ({**(told[part] or {})} for part in ("recording", "hypothesis"))
    for part in (recording, hypothesis):
        if part.get("words") is not None:
            part["words"] = tuple((str(word), float(start), float(end)) for word, start, end in part["words"])
    heard = Hypothesis(**hypothesis) if hypothesis else None
    return Clip(Recording(**recording), heard, told["error"], told["task"])


# ---------------------------------------------------------------------------------------------------------
# Two evaluations
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A second model against a first, on the clips that both have read."""

    first: str
    second: str
    words: Difference  # of word error rates
    characters: Difference
    sets: dict[str, Difference]  # of word error rates
    better: int  # clips in which the second has fewer errors
    worse: int
    same: int
    unpaired: int  # clips with speech that only one of them has, or with another reference
    pairs: list[tuple[Clip, Clip]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the clips as plain values."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "pairs"}


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two evaluations clip by clip; a difference needs far fewer clips than two rates with intervals.

    Raises
    ------
    TrainingError
        They have no clip in common.
    """
    ones, others = ({clip.key: clip for clip in e.clips if clip.kind == "speech"} for e in (first, second))
    pairs = [
        (clip, others[key])
        for key, clip in ones.items()
        if key in others and others[key].recording.text == clip.recording.text
    ]
    more = [b.edits.errors - a.edits.errors for a, b in pairs]
    groups: dict[str, list[tuple[Clip, Clip]]] = {}
    for pair in pairs:
        groups.setdefault(pair[0].recording.group, []).append(pair)
    return Comparison(
        first=first.model,
        second=second.model,
        words=_difference([(a.edits, b.edits) for a, b in pairs]),
        characters=_difference([(a.character_edits, b.character_edits) for a, b in pairs]),
        sets={name: _difference([(a.edits, b.edits) for a, b in some]) for name, some in groups.items()},
        better=sum(n < 0 for n in more),
        worse=sum(n > 0 for n in more),
        same=more.count(0),
        unpaired=len(ones) + len(others) - 2 * len(pairs),
        pairs=pairs,
    )


def _difference(pairs: Sequence[tuple[Edits, Edits]]) -> Difference:
    return make_difference([a.errors for a, _ in pairs], [b.errors for _, b in pairs], [a.total for a, _ in pairs])
