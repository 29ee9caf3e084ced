"""The rules of subtitles: their numbers, the presets in which guidelines have published them, and options for each."""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import OptionError
from ..options.language_names import code_of
from ..options.types import TRUTH, Kind, check_names, check_values, is_number, number, one_of, option, whole

RULES = "layout of subtitles by rules"  # heading of the help
FULL_WIDTH = ("zh", "ja", "ko", "yue")  # languages whose lines are counted in full-width characters
RIGHT_TO_LEFT = ("ar", "fa", "he", "iw", "ur", "ps", "sd", "yi")


@dataclass(frozen=True)
class Rules:
    """The numbers that cues keep to, each by its unit; see `RuleOptions` for what they mean."""

    max_line_width: int = 42
    max_line_count: int = 2
    max_words_per_line: int | None = None
    max_cps: float = 17.0  # infinite where reading speed does not count
    min_duration: float = 5 / 6
    max_duration: float = 7.0
    min_gap: int = 2
    fps: float = 24.0
    close_gaps: float = 0.5
    max_lead_out: float = 1.5
    max_pause: float = 2.0
    line_shape: str = "bottom-heavy"
    speaker_style: str = "dash"
    dash: str = "-"
    first_dash: bool = True  # whether the line of the first speaker has one
    sounds: str = "keep"
    highlight_words: bool = False
    cuts: tuple[float, ...] = ()
    language: str | None = None

    @property
    def full_width(self) -> bool:
        """Whether widths are counted in full-width characters."""
        return self.language in FULL_WIDTH

    @property
    def gap_ms(self) -> int:
        """The smallest gap between two cues, in whole milliseconds, rounded up."""
        return math.ceil(1000 * self.min_gap / self.fps - 1e-6)


# Netflix: Timed Text Style Guide, General Requirements and the guides of languages; 17 characters a second, also for
# English. BBC: Subtitle Guidelines 1.2. EBU: Tech 3264 (40 places in a row, three of which are control codes) and the
# Code of Good Subtitling Practice (Ivarsson and Carroll 1998). Social: what short vertical films have.
PRESETS: dict[str, Rules] = {
    "netflix": Rules(),
    "bbc": Rules(
        max_line_width=37, max_cps=15.0, min_duration=1.0, min_gap=0, fps=25.0, close_gaps=1.0, speaker_style="colour"
    ),
    "ebu": Rules(max_line_width=37, max_cps=15.0, min_duration=1.0, min_gap=4, fps=25.0),
    "social": Rules(
        max_line_width=20, max_line_count=1, max_words_per_line=3, max_cps=math.inf, min_duration=0.2, max_duration=3.0,
        min_gap=0, speaker_style="none", max_lead_out=0.5,
    ),
    "karaoke": Rules(max_cps=math.inf, min_gap=0, highlight_words=True, max_duration=10.0),
}  # fmt: skip
PRESET_NAMES = (*PRESETS, "whisper")

# Of Netflix's guides: full-width characters in a line, characters a second, how two speakers are marked.
_CJK: dict[str, dict[str, Any]] = {
    "ja": {"max_line_width": 13, "max_cps": 7.0},
    "ko": {"max_line_width": 16, "max_cps": 12.0, "dash": "- "},
    "zh": {"max_line_width": 16, "max_cps": 9.0},
    "yue": {"max_line_width": 16, "max_cps": 9.0},
}
_SPACED_DASH = ("ar", "cs", "es", "fr", "hu", "id", "it", "ms", "pl", "pt", "ro", "ru", "sk", "vi")
_BY_LANGUAGE: dict[str, dict[str, Any]] = {
    **_CJK,
    "th": {"max_line_width": 35, "dash": "- "},
    **{code: {"dash": "- "} for code in _SPACED_DASH},
    **{code: {"first_dash": False} for code in ("nl", "fi", "he", "sr")},
    "bg": {"dash": "- ", "first_dash": False},
}


def preset(name: str, language: str | None = None) -> Rules:
    """Return the rules of a preset, with the numbers that its language has."""
    if name == "whisper" or name not in PRESETS:
        raise OptionError(f"there are no rules {name!r}: give one of {', '.join(PRESETS)}")
    rules, own = PRESETS[name], dict(_BY_LANGUAGE.get(language or "", {}))
    if "max_line_width" in own:
        own["max_line_width"] = min(own["max_line_width"], rules.max_line_width // (2 if language in FULL_WIDTH else 1))
    if math.isinf(rules.max_cps):
        own.pop("max_cps", None)
    return replace(rules, language=language, **own)


# ---------------------------------------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"[0-9]+(?::[0-9]{1,2}){0,2}(?:[.,][0-9]+)?")


def read_cuts(source: str | os.PathLike[str]) -> tuple[float, ...]:
    """Read a list of cuts: a time a line, in seconds or ``h:mm:ss.sss``; what follows it is not read, nor is #.

    Raises
    ------
    OptionError
        The file cannot be read, or a line does not begin with a time.
    """
    try:
        with open(source, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeError, ValueError) as error:
        raise OptionError(f"the list of cuts {os.fspath(source)} cannot be read: {error}") from None
    cuts = []
    for number_of_line, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        if not (found := _NUMBER.match(line)):
            raise OptionError(f"{os.fspath(source)}, line {number_of_line}: {reprlib.repr(line)} is no time")
        seconds = 0.0
        for part in found[0].replace(",", ".").split(":"):
            seconds = 60 * seconds + float(part)
        cuts.append(seconds)
    return tuple(sorted(set(cuts)))


def _are_cuts(value: Any) -> bool:
    listed = isinstance(value, (list, tuple)) and all(is_number(v) and 0 <= v < math.inf for v in value)
    return listed or isinstance(value, (str, os.PathLike))


CUTS = Kind("a file of times, one a line, or the times in a list", _are_cuts, settle=lambda given: given)
_OF_PRESET = "; where not given, the preset's"


@dataclass(frozen=True)
class RuleOptions:
    """How words become cues by rules. What is None is the preset's."""

    subtitle_preset: str | None = option(
        RULES,
        None,
        one_of(*PRESET_NAMES),
        "lay subtitles out by these rules (turns word_timestamps on): line breaks at phrases, reading speed, gaps; "
        "whisper, and no preset, is openai-whisper's layout",
        ours=True,
    )
    max_line_width: int | None = option(RULES, None, whole(0), "characters in a line", cli=None, ours=True)
    max_line_count: int | None = option(RULES, None, whole(0), "lines in a cue", cli=None, ours=True)
    max_words_per_line: int | None = option(RULES, None, whole(0), "words in a cue", cli=None, ours=True)
    highlight_words: bool | None = option(
        RULES, None, TRUTH, "underline each word while it is spoken", cli=None, ours=True
    )
    max_cps: float | None = option(
        RULES, None, number(0), "characters a second that can be read; 0 is no limit" + _OF_PRESET, ours=True
    )
    min_duration: float | None = option(
        RULES, None, number(0, 60), "seconds that a cue is shown at least" + _OF_PRESET, ours=True
    )
    max_duration: float | None = option(
        RULES, None, number(0.1, 3600), "seconds that a cue is shown at most" + _OF_PRESET, ours=True
    )
    min_gap: int | None = option(
        RULES, None, whole(0, 1000), "frames between two cues at least" + _OF_PRESET, ours=True
    )
    fps: float | None = option(
        RULES, None, number(1, 1000), "frames a second of the picture, for min_gap" + _OF_PRESET, ours=True
    )
    close_gaps: float | None = option(
        RULES,
        None,
        number(0, 60),
        "gaps shorter than this (seconds) are closed to the smallest one" + _OF_PRESET,
        ours=True,
    )
    max_lead_out: float | None = option(
        RULES,
        None,
        number(0, 60),
        "seconds that a cue stays after its last word where reading needs it" + _OF_PRESET,
        ours=True,
    )
    max_pause: float | None = option(
        RULES,
        None,
        number(0.1, 3600),
        "no cue goes over a longer pause of the speech (seconds)" + _OF_PRESET,
        ours=True,
    )
    line_shape: str | None = option(
        RULES,
        None,
        one_of("balanced", "bottom-heavy"),
        "lines of one length, or the lower one longer" + _OF_PRESET,
        ours=True,
    )
    speaker_style: str | None = option(
        RULES,
        None,
        one_of("none", "dash", "name", "colour"),
        "how a change of speaker is shown: two in one cue with dashes, their names, a colour for each, or nothing"
        + _OF_PRESET,
        ours=True,
    )
    sounds: str | None = option(
        RULES,
        None,
        one_of("keep", "drop", "brackets"),
        "what is no speech, as (laughs): as it is, left out, or [laughs]",
        ours=True,
    )
    cuts: Any = option(
        RULES,
        None,
        CUTS,
        "file with the times of the picture's cuts, one a line: no cue is shown over one of them",
        ours=True,
    )

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def by_rules(self) -> bool:
        """Whether cues are laid out by rules; else they are openai-whisper's."""
        return self.subtitle_preset not in (None, "whisper")

    @classmethod
    def within(cls, options: Mapping[str, Any] | None, **given: Any) -> RuleOptions:
        """Take what is in `options`, among others; what is `given` and not None wins."""
        both = {**(options or {}), **{name: value for name, value in given.items() if value is not None}}
        return cls(**{f.name: both[f.name] for f in fields(cls) if f.name in both})

    def rules(self, language: str | None) -> Rules:
        """Return the rules of the preset, for a language, with what is given here in place of its numbers.

        Raises
        ------
        OptionError
            Numbers exclude each other, a rule is given without a preset, or the list of cuts cannot be read.
        """
        if not self.by_rules:
            raise OptionError(f"rules need subtitle_preset, one of {', '.join(PRESETS)}")
        base = preset(self.subtitle_preset or "", code_of(language))
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "subtitle_preset"}
        given = {name: value for name, value in given.items() if value is not None}
        for name in ("max_line_width", "max_line_count"):  # of which 0 is openai-whisper's "not given"
            if not given.get(name, 1):
                del given[name]
        if given.get("max_cps") == 0:
            given["max_cps"] = math.inf
        if "max_words_per_line" in given:
            given["max_words_per_line"] = given["max_words_per_line"] or None
        if not given.get("highlight_words", True):  # False is openai-whisper's "not given"
            del given["highlight_words"]
        if isinstance(self.cuts, (str, os.PathLike)):
            given["cuts"] = read_cuts(self.cuts)
        elif self.cuts is not None:
            given["cuts"] = tuple(sorted({float(cut) for cut in self.cuts}))
        return _consistent(replace(base, **given))

    def without_effect(self) -> list[str]:
        """Return the rules that are given where nothing is laid out by rules."""
        names = [f.name for f in fields(self) if f.metadata["facts"].cli is not None and f.name != "subtitle_preset"]
        return [] if self.by_rules else [name for name in names if getattr(self, name) is not None]


def rules_of(name: str, language: str | None, given: Mapping[str, Any], function: str) -> Rules:
    """Return the rules of a preset with some of them changed; an unknown name is an `UnknownOptionError`."""
    check_names(given, function, RuleOptions)
    return RuleOptions(**{**given, "subtitle_preset": name}).rules(language)


def _consistent(rules: Rules) -> Rules:
    least = 4 if rules.full_width else 8
    if rules.max_line_width < least:
        raise OptionError(f"max_line_width must be at least {least} with a preset, not {rules.max_line_width}")
    if rules.max_duration < rules.min_duration + 0.1:
        raise OptionError(
            f"max_duration must be more than min_duration, not {rules.max_duration} and {rules.min_duration} seconds"
        )
    if rules.gap_ms / 1000 > max(rules.close_gaps, 0.5):
        raise OptionError(f"min_gap must be less than half a second or close_gaps, not {rules.gap_ms / 1000:g} s")
    return rules
