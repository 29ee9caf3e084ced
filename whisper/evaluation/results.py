"""Results of an evaluation: hypotheses and all scores, by set, language and speaker.

Takes transcripts as they are and gives texts to `scoring`. Calls no model, opens no file and prints
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import OptionError
from ..manifests.read import NON_SPEECH, ManifestEntry, TimedWord
from .scoring import (
    Difference,
    Edits,
    Score,
    Step,
    TimeScore,
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
    """The transcript that a model gave for a recording."""

    text: str
    language: str  # that it was transcribed in
    detected: bool  # the model detected the language
    duration: float  # seconds of audio
    seconds: float  # processing time, decoding of the file included
    words: tuple[TimedWord, ...] | None = None  # seconds from the start of the entry's part of the file


@dataclass(frozen=True)
class ScoredClip:
    """A recording with its hypothesis, or with the reason why there is none."""

    recording: ManifestEntry
    hypothesis: Hypothesis | None
    error: str = ""
    task: str = "transcribe"

    @property
    def key(self) -> tuple[str, float | None, float | None]:
        return self.recording.path, self.recording.start, self.recording.end

    @property
    def kind(self) -> str:
        """``failed``, ``non_speech``, ``unlabelled`` (no reference text) or ``speech``."""
        if self.hypothesis is None:
            return "failed"
        if self.recording.language == NON_SPEECH:
            return "non_speech"
        return "speech" if self.recording.text.strip() else "unlabelled"

    @property
    def text(self) -> str:
        return self.hypothesis.text if self.hypothesis else ""

    @property
    def language(self) -> str | None:
        """The language by whose rules the texts are compared."""
        if self.task == "translate":
            return "en"
        if self.recording.language in (None, NON_SPEECH):
            return self.hypothesis.language if self.hypothesis else None
        return self.recording.language

    @cached_property
    def steps(self) -> list[Step]:
        """The aligned words of reference and hypothesis."""
        return align(words_of(self.recording.text, self.language), words_of(self.text, self.language))

    @cached_property
    def edits(self) -> Edits:
        """Word edits by kind."""
        return count_edits(self.steps)

    @cached_property
    def character_edits(self) -> Edits:
        """Character edits by kind."""
        expected = characters_of(self.recording.text, self.language)
        return count_edits(align(expected, characters_of(self.text, self.language)))

    @cached_property
    def time_errors(self) -> list[tuple[float, float]] | None:
        """Signed errors of start and end of each matched word, in seconds; None if unknown."""
        if self.hypothesis is None or self.hypothesis.words is None or self.recording.words is None:
            return None
        offset = self.recording.start or 0.0
        return match_times([(w, a - offset, b - offset) for w, a, b in self.recording.words], self.hypothesis.words)


# --------------------------------------------------------------------------------------------------
# EvaluationScores
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupScore:
    """Error rates over a group of clips."""

    name: str
    words: Score
    edits: Edits
    characters: Score
    wrong_clips: Score  # clips with any error

    @classmethod
    def of(cls, name: str, clips: Sequence[ScoredClip]) -> GroupScore:
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
class NonSpeechScore:
    """Hallucinated text in clips without speech."""

    clips: Score  # clips that were given any text
    words_per_minute: float
    sets: dict[str, Score]


@dataclass(frozen=True)
class LanguageScore:
    """Language detection against the labels of the manifest."""

    clips: Score  # misdetected
    languages: dict[str, Score]  # by labelled language
    confusions: list[tuple[str, str, int]]  # labelled, detected, number of clips; the most frequent first


@dataclass(frozen=True)
class Speed:
    """Processing time."""

    audio_seconds: float
    seconds: float
    median: float  # of the clips' real-time factors: processing time over duration
    p90: float

    @property
    def factor(self) -> float:
        """The real-time factor over all clips."""
        return self.seconds / max(self.audio_seconds, 1e-9)


@dataclass(frozen=True)
class EvaluationScores:
    """All scores of an evaluation; what could not be measured is None."""

    total: GroupScore | None
    groups: dict[str, list[GroupScore]]  # by each of `GROUPINGS` that is labelled, the worst group first
    confusions: list[tuple[str | None, str | None, int]]  # reference, hypothesis, count; None: inserted or deleted
    non_speech: NonSpeechScore | None
    languages: LanguageScore | None
    times: TimeScore | None
    speed: Speed | None
    n_clips: dict[str, int]  # by `ScoredClip.kind`


def score_clips(clips: Sequence[ScoredClip]) -> EvaluationScores:
    """Compute all scores of `clips`."""
    kinds = {kind: [c for c in clips if c.kind == kind] for kind in ("speech", "non_speech", "unlabelled", "failed")}
    speech = kinds["speech"]
    timed = [clip for clip in clips if clip.time_errors is not None]
    grouped = {by: _grouped(speech, by) for by in GROUPINGS}
    return EvaluationScores(
        total=GroupScore.of("all", speech) if speech else None,
        groups={by: groups for by, groups in grouped.items() if groups},
        confusions=_confusions(speech),
        non_speech=_score_non_speech(kinds["non_speech"]),
        languages=_score_languages([*speech, *kinds["unlabelled"]]),
        times=score_times([c.time_errors or [] for c in timed], sum(len(c.recording.words or ()) for c in timed)),
        speed=_speed([clip.hypothesis for clip in clips if clip.hypothesis]),
        n_clips={kind: len(some) for kind, some in kinds.items()},
    )


def _confusions(clips: Sequence[ScoredClip]) -> list[tuple[str | None, str | None, int]]:
    steps = Counter(step for clip in clips for step in clip.steps)
    found: list[tuple[str | None, str | None, int]] = []
    for kind in ("substitution", "deletion", "insertion"):
        found += [(*step, n) for step, n in steps.most_common() if step.kind == kind][:N_CONFUSIONS]
    return found


def _by(clips: Iterable[ScoredClip], name: Callable[[ScoredClip], str]) -> dict[str, list[ScoredClip]]:
    groups: dict[str, list[ScoredClip]] = {}
    for clip in clips:
        groups.setdefault(name(clip), []).append(clip)
    return groups


def _grouped(clips: Sequence[ScoredClip], by: str) -> list[GroupScore]:
    names: dict[str, Callable[[ScoredClip], str]] = {
        "set": lambda clip: clip.recording.group,
        "language": lambda clip: clip.recording.language or "",
        "speaker": lambda clip: clip.recording.speaker,
    }
    groups = _by(clips, names[by])
    if set(groups) <= {""}:
        return []
    scores = [GroupScore.of(name or "unlabelled", some) for name, some in groups.items()]
    return sorted(scores, key=lambda group: -group.words.rate)


def _score_non_speech(clips: Sequence[ScoredClip]) -> NonSpeechScore | None:
    if not clips:
        return None

    def score(some: Sequence[ScoredClip]) -> Score:
        return make_score([int(bool(clip.text.strip())) for clip in some], [1] * len(some))

    minutes = sum(clip.hypothesis.duration for clip in clips if clip.hypothesis) / 60
    n_words = sum(len(clip.text.split()) for clip in clips)
    sets = {name: score(some) for name, some in _by(clips, lambda clip: clip.recording.group).items()}
    return NonSpeechScore(score(clips), n_words / max(minutes, 1e-9), sets)


def _score_languages(clips: Sequence[ScoredClip]) -> LanguageScore | None:
    pairs = [
        (clip.recording.language, clip.hypothesis.language)
        for clip in clips
        if clip.recording.language and clip.hypothesis and clip.hypothesis.detected
    ]
    if not pairs:
        return None

    def score(some: Sequence[tuple[str, str]]) -> Score:
        return make_score([int(labelled != detected) for labelled, detected in some], [1] * len(some))

    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    names = sorted({labelled for labelled, _ in pairs})
    languages = {name: score([pair for pair in pairs if pair[0] == name]) for name in names}
    return LanguageScore(score(pairs), languages, [(*pair, n) for pair, n in wrong.most_common(N_CONFUSIONS)])


def _speed(hypotheses: Sequence[Hypothesis]) -> Speed | None:
    if not hypotheses:
        return None
    factors = [h.seconds / max(h.duration, 1e-9) for h in hypotheses]
    return Speed(
        audio_seconds=sum(h.duration for h in hypotheses),
        seconds=sum(h.seconds for h in hypotheses),
        median=float(np.median(factors)),
        p90=float(np.percentile(factors, 90)),
    )


# --------------------------------------------------------------------------------------------------
# An evaluation
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """One model on one list of recordings."""

    model: str
    clips: tuple[ScoredClip, ...]
    options: dict[str, Any] = field(default_factory=dict)  # of `transcribe`
    date: str = ""
    machine: dict[str, str] = field(default_factory=dict)  # device and versions
    load_seconds: float | None = None
    peak_memory: dict[str, int] = field(default_factory=dict)  # bytes, of the process and of the device
    skipped: tuple[dict[str, Any], ...] = ()  # skipped entries of the manifest: line and reason

    @cached_property
    def scores(self) -> EvaluationScores:
        """All scores, computed once."""
        return score_clips(self.clips)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for ``json.dumps``; `from_dict` reads it back."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "clips"}
        clips = [_clip_to_dict(clip) for clip in self.clips]
        return {**to_plain(values), "scores": to_plain(self.scores), "clips": clips}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Make an evaluation from the result of `to_dict`; scores are computed anew.

        Raises
        ------
        OptionError
            `values` is something else.
        """
        try:
            known = {f.name: values[f.name] for f in fields(cls)}
            clips = tuple(_clip_from_dict(row) for row in known.pop("clips"))
            return cls(**{**known, "clips": clips, "skipped": tuple(known["skipped"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise OptionError(f"this is not an evaluation written by `whisper eval --json`: {error!r}") from error


def to_plain(value: Any) -> Any:
    """Turn dataclasses into dictionaries, with derived rates, and all else into JSON types."""
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
        derived = {name: getattr(value, name) for name in ("rate", "factor") if hasattr(value, name)}
        return {**derived, **own}
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _clip_to_dict(clip: ScoredClip) -> dict[str, Any]:
    values = {**asdict(clip), "kind": clip.kind}
    if clip.kind == "speech":
        values["edits"] = asdict(clip.edits)
        values["character_edits"] = asdict(clip.character_edits)
    return values


def _clip_from_dict(values: Mapping[str, Any]) -> ScoredClip:
    recording, hypothesis = (dict(values[name] or {}) for name in ("recording", "hypothesis"))
    for part in (recording, hypothesis):
        if part.get("words") is not None:
            part["words"] = tuple((str(word), float(start), float(end)) for word, start, end in part["words"])
    return ScoredClip(
        ManifestEntry(**recording),
        Hypothesis(**hypothesis) if hypothesis else None,
        values["error"],
        values["task"],
    )


# --------------------------------------------------------------------------------------------------
# Two evaluations
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A second model against a first, on the clips that both have transcribed."""

    first: str
    second: str
    words: Difference  # of word error rates
    characters: Difference
    sets: dict[str, Difference]  # of word error rates
    better: int  # clips in which the second has fewer errors
    worse: int
    same: int
    unpaired: int  # clips with speech that only one of them has, or with another reference
    pairs: list[tuple[ScoredClip, ScoredClip]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the clips as plain values."""
        return {f.name: to_plain(getattr(self, f.name)) for f in fields(self) if f.name != "pairs"}


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two evaluations clip by clip.

    A paired difference needs far fewer clips than two rates with separate intervals.

    Parameters
    ----------
    first, second
        Evaluations of two models; clips that both have, with the same text, are compared.

    Returns
    -------
    Comparison
        The differences, `second` minus `first`.

    Raises
    ------
    DataError
        They have no clip in common.
    """
    ones, others = ({clip.key: clip for clip in e.clips if clip.kind == "speech"} for e in (first, second))
    pairs = [
        (clip, others[key])
        for key, clip in ones.items()
        if key in others and others[key].recording.text == clip.recording.text
    ]
    extra = [b.edits.errors - a.edits.errors for a, b in pairs]
    groups: dict[str, list[tuple[ScoredClip, ScoredClip]]] = {}
    for pair in pairs:
        groups.setdefault(pair[0].recording.group, []).append(pair)
    return Comparison(
        first=first.model,
        second=second.model,
        words=_difference([(a.edits, b.edits) for a, b in pairs]),
        characters=_difference([(a.character_edits, b.character_edits) for a, b in pairs]),
        sets={name: _difference([(a.edits, b.edits) for a, b in some]) for name, some in groups.items()},
        better=sum(n < 0 for n in extra),
        worse=sum(n > 0 for n in extra),
        same=extra.count(0),
        unpaired=len(ones) + len(others) - 2 * len(pairs),
        pairs=pairs,
    )


def _difference(pairs: Sequence[tuple[Edits, Edits]]) -> Difference:
    return make_difference([a.errors for a, _ in pairs], [b.errors for _, b in pairs], [a.total for a, _ in pairs])
