"""The command ``whisper check``: what breaks the rules in files of subtitles, and the files mended."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import OptionError
from ...files import atomic_write
from ...options.flags import add_flags, take
from ...options.types import LANGUAGE, check_values, facts, one_of, option
from ...output.console import show
from ...subtitles.checking.check import Finding, check_by
from ...subtitles.checking.cue_files import CueFile, cue_of, read_file, written
from ...subtitles.checking.mend import mended
from ...subtitles.rules import PRESETS, RuleOptions, Rules
from ..common import Parser, counted, explain, fail, say

CHECK = "check"  # heading of the help
MENDED = "mended"  # stands before the ending of a file's name


@dataclass(frozen=True)
class CheckOptions:
    """What ``whisper check`` does."""

    language: str | None = option(
        CHECK, None, LANGUAGE, "language of the text, for its phrases and the widths of its script: a code or a name"
    )
    mend: str = option(
        CHECK,
        "no",
        one_of("no", "beside", "in_place"),
        f"lay out anew what breaks the rules, and write NAME.{MENDED}.srt beside the file, or the file itself",
    )

    def __post_init__(self) -> None:
        check_values(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper check``, and return its exit code.

    0 where nothing breaks the rules (any more), 1 where something does, or a file cannot be read.
    """
    parser = build_parser()
    given = vars(parser.parse_args(argv))
    files, as_json = given.pop("file"), given.pop("json")
    try:
        options = take(CheckOptions, given)
        rules = take(RuleOptions, given).rules(options.language)
    except OptionError as error:
        parser.error(str(error))
    clean = True
    for path in files:
        clean &= check_one(path, options, rules, as_json)
    return 0 if clean else 1


def build_parser() -> Parser:
    """Return the parser of ``whisper check``."""
    parser = Parser(
        what="FILE [FILE ...]",
        prog="whisper check",
        description="List what breaks the rules of subtitles in SRT and VTT files, and mend it. The exit code is 1 "
        "where something does. See docs/subtitles.md.",
    )
    parser.add_argument("file", nargs="+", metavar="FILE", help="files of subtitles, srt or vtt")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file")
    add_flags(parser, CheckOptions)
    preset = {"flags": ("--preset", "--subtitle_preset"), "default": "netflix", "choices": list(PRESETS)}
    without = ("speaker_style", "sounds", "highlight_words")  # nothing is added to the text, or taken out
    add_flags(parser, RuleOptions, without=without, changed={"subtitle_preset": {**preset, "help": "the rules"}})
    for name in (
        "max_line_width",
        "max_line_count",
        "max_words_per_line",
    ):  # elsewhere openai-whisper's flags
        known = facts(RuleOptions.__dataclass_fields__[name])
        parser.add_argument(f"--{name}", type=int, metavar="N", help=known.help)
    return parser


def check_one(path: str, options: CheckOptions, rules: Rules, as_json: bool) -> bool:
    """Check a file, and return whether nothing is left; report a failure and return False."""
    try:
        return check_file(path, options, rules, as_json)
    except Exception as error:  # one bad file must not stop the others
        fail(path, explain(error))
        return False


def check_file(path: str, options: CheckOptions, rules: Rules, as_json: bool) -> bool:
    """Print what a file breaks, mend it where that is asked for, and return whether nothing is left."""
    file = read_file(path)
    findings = findings_of(file, rules)
    target = None
    if options.mend != "no" and findings:
        file = mended(file, rules)
        target = path if options.mend == "in_place" else _beside(path)
        with atomic_write(target) as out:
            out.write(written(file).encode("utf-8"))
    left = findings_of(file, rules) if target else findings
    if as_json:
        shown = {"file": path, "cues": len(file.cues), "findings": [f.to_dict() for f in findings]}
        show(
            json.dumps({**shown, "mended": target, "left": [f.to_dict() for f in left]} if target else shown),
            sys.stdout,
        )
    else:
        _print(path, findings, len(file.cues))
        if target:
            say(f"{target}: {_summary(left, len(file.cues))} left")
            for finding in left:
                show(_line(finding), sys.stdout)
    return not left


def findings_of(file: CueFile, rules: Rules) -> list[Finding]:
    """Return what breaks the rules in a file."""
    return check_by([cue_of(cue, rules.language) for cue in file.cues], rules, markup=True)


def _beside(path: str) -> str:
    stem, ending = os.path.splitext(path)
    return f"{stem}.{MENDED}{ending}"


def _print(path: str, findings: Sequence[Finding], n_cues: int) -> None:
    for finding in findings:
        show(_line(finding), sys.stdout)
    show(f"{path}: {_summary(findings, n_cues)}", sys.stdout)


def _line(finding: Finding) -> str:
    minutes, seconds = divmod(finding.start, 60)
    at = f"{int(minutes // 60):02d}:{int(minutes % 60):02d}:{seconds:06.3f}"
    return f"{finding.cue:5d}  {at}  {finding.rule}: {finding.message}"


def _summary(findings: Sequence[Finding], n_cues: int) -> str:
    if not findings:
        return f"nothing in {counted(n_cues, 'cue')}"
    counts = ", ".join(f"{rule} {n}" for rule, n in Counter(finding.rule for finding in findings).most_common())
    rate = 100 * len(findings) / max(n_cues, 1)
    return f"{counted(len(findings), 'finding')} in {counted(n_cues, 'cue')} ({rate:.1f} per 100): {counts}"
