"""Flags made of declarations: names, defaults, help texts and values."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import Any

import pytest

from whisper.cli.common import FallbackOptions, ModelOptions
from whisper.cli.evaluate import EvalOptions
from whisper.cli.jobs import FurtherOptions
from whisper.cli.live import LiveFileOptions
from whisper.cli.main import FileOptions, ServerOptions
from whisper.cli.subtitles.align import AlignedFiles
from whisper.cli.subtitles.burn import BurnOptions
from whisper.cli.subtitles.convert import ConvertOptions
from whisper.engine.scheduler import Limits
from whisper.errors import OptionError
from whisper.jobs.options import JobOptions
from whisper.live.options import LiveOptions
from whisper.live.sources import SourceOptions
from whisper.options.flags import add_flags, take
from whisper.options.types import (
    FLAG,
    PATH,
    TEXT,
    check_values,
    facts,
    number,
    numbers,
    one_of,
    option,
    some_of,
    takes_none,
    whole,
)
from whisper.output.writers import Layout
from whisper.server.cluster.settings import ClusterOptions
from whisper.speech.vad import VadOptions
from whisper.subtitles.formats.document import FormatOptions
from whisper.training.options import FitOptions

DECLARED = (
    ModelOptions,
    ClusterOptions,
    FallbackOptions,
    FileOptions,
    ServerOptions,
    Layout,
    AlignedFiles,
    BurnOptions,
    ConvertOptions,
    EvalOptions,
    FitOptions,
    FormatOptions,
    JobOptions,
    FurtherOptions,
    VadOptions,
    Limits,
    LiveOptions,
    LiveFileOptions,
    SourceOptions,
)


@dataclass(frozen=True)
class Sample:
    """Options of every kind."""

    count: int | None = option("numbers", 3, whole(1), "how many")
    share: float = option("numbers", 0.5, number(0, 1), "of 100 %", needs=("count",))
    lengths: tuple[float, ...] = option("numbers", (1.0, 2.0), numbers(1, 30), "in seconds")
    names: tuple[str, ...] = option("words", ("a",), some_of("a", "b"), "which")
    task: str = option("words", "x", one_of("x", "y"), "what to do")
    title: str | None = option("words", None, TEXT, "any text")
    file: str | None = option("files", None, PATH, "where", cli={"flags": ("--file", "-f"), "metavar": "FILE"})
    deep: bool = option("files", False, FLAG, "deeply", cli={"action": "store_true"})
    hidden: int = option("files", 1, whole(), "not of the command", cli=None)

    def __post_init__(self) -> None:
        check_values(self)


def parse(text: str, **settings: Any) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_flags(parser, Sample, **settings)
    return vars(parser.parse_args(text.split()))


def test_flags_have_the_defaults_and_read_values() -> None:
    assert take(Sample, parse("")) == Sample()
    given = parse("--count None --share 0 --lengths 2,4.5 --names a,b --task y --title None -f None --deep")
    expected = {"count": None, "share": 0.0, "lengths": (2.0, 4.5), "task": "y", "title": None, "file": None}
    assert given == {**expected, "names": ("a", "b"), "deep": True}
    assert take(Sample, given) == Sample(**expected, names=("a", "b"), deep=True)
    assert not given  # all was taken


def test_text_stays_text_as_in_openai_whisper() -> None:
    given = parse("--title None --count None --file None", as_openai=True)
    assert (given["title"], given["count"], given["file"]) == ("None", None, "None")


def test_a_command_may_leave_options_out_and_change_them() -> None:
    given = parse("--count 5 --count 6", without=("task",), changed={"count": {"action": "append", "default": None}})
    assert "task" not in given
    assert given["count"] == [5, 6]


def test_the_help_has_headings_and_needs() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, [f for f in fields(Sample) if f.name != "share"])
    text = parser.format_help()
    assert [text.count(f"\n{heading}:\n") for heading in ("numbers", "words", "files")] == [1, 1, 1]
    assert "--count N" in text
    assert "--file FILE, -f FILE" in text
    assert facts(fields(Sample)[1]).explained == "of 100 %; needs count"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--count x", "argument --count: must be a whole number of at least 1, or None, not 'x'"),
        ("--lengths 1,x", "argument --lengths: must be one or more numbers from 1 to 30, not '1,x'"),
        ("--task z", "argument --task: invalid choice: 'z'"),
    ],
)
def test_what_cannot_be_read_names_the_flag(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(text)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--count 0", "count must be a whole number of at least 1, or None, not 0"),
        ("--names a,c", r"names must be one or more of a, b, not \('a', 'c'\)"),
        ("--lengths 31", r"lengths must be one or more numbers from 1 to 30, not \(31.0,\)"),
    ],
)
def test_values_are_checked_by_the_dataclass(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        take(Sample, parse(text))


@pytest.mark.parametrize("declared", DECLARED)
def test_every_dataclass_of_options_declares_and_checks_all_its_fields(declared: type) -> None:
    others: dict[str, Any] = {"model": "nano"} if declared is FitOptions else {}
    for field in fields(declared):
        known = facts(field)
        assert known.help
        assert set(known.needs) <= {f.name for f in fields(declared)}
        if field.default is not None:
            assert known.kind.holds(known.kind.settle(field.default))
        if (declared, field.name) == (Layout, "highlight_words"):
            continue  # takes the truth of any value, as openai-whisper does
        for wrong in (object(), b"1", {1: 2}, *([] if takes_none(field) else [None])):
            with pytest.raises(OptionError, match=f"^{field.name} must be "):
                declared(**{**others, field.name: wrong})
