"""Captions on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from whisper.cli.captions import LineCaptions, TerminalCaptions, captions_for, wrapped
from whisper.errors import AudioError
from whisper.live.events import Failed, Final, Interim, SpeechStarted, Stable
from whisper.subtitles.text_width import width


class Screen(io.StringIO):
    """A terminal of a few columns and lines, which follows the sequences that captions use."""

    encoding = "utf-8"

    def __init__(self, columns: int = 20, rows: int = 5) -> None:
        super().__init__()
        self.lines, self.row, self.column = [""], 0, 0
        self.columns, self.rows = columns, rows

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for part in re.findall(r"\x1b\[\d*[A-Za-z]|.|\n|\r", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif part.endswith("A") and part[0] == "\x1b":
                self.row -= int(part[2:-1])
                assert self.row >= len(self.lines) - self.rows
            elif part == "\x1b[J":
                self.lines = [*self.lines[: self.row], self.lines[self.row][: self.column]]
            elif part[0] != "\x1b":
                line = self.lines[self.row]
                self.lines[self.row] = line[: self.column] + part + line[self.column + 1 :]
                self.column += 1
                assert self.column < self.columns
        return super().write(text)


def final(text: str) -> Final:
    result: Any = {"text": text, "segments": [], "language": "en"}
    return Final(0, 0.0, 1.0, result)


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def captions(screen: Screen) -> TerminalCaptions:
    return TerminalCaptions(screen, lambda: (screen.columns, screen.rows))


def test_text_is_rewritten_in_place(captions: TerminalCaptions, screen: Screen) -> None:
    for event in (SpeechStarted(0, 0.0), Interim(0, "hello wold"), Stable(0, "hello"), Interim(0, " world again")):
        captions(event)
    assert screen.lines == ["hello world again"]
    assert "hello\x1b[2m world again\x1b[0m" in screen.getvalue()
    captions(Stable(0, " world."))
    captions(final(" Hello, world."))
    assert screen.lines == ["Hello, world.", ""]


def test_long_text_is_wrapped_and_rewritten_over_its_lines(captions: TerminalCaptions, screen: Screen) -> None:
    captions(Interim(0, "one two three four five six seven eight"))
    assert [line.rstrip() for line in screen.lines] == ["one two three four", "five six seven", "eight"]
    captions(Interim(0, "one"))
    assert screen.lines == ["one"]


def test_what_left_the_screen_stays_there(captions: TerminalCaptions, screen: Screen) -> None:
    words = [f"word{i:02}" for i in range(40)]
    for n in range(1, 41):
        captions(Interim(0, " ".join(words[:n])))
    captions(final(" ".join(words)))
    assert " ".join(" ".join(line.strip() for line in screen.lines).split()) == " ".join(words)


def test_each_item_begins_on_a_line_of_its_own(captions: TerminalCaptions, screen: Screen) -> None:
    for text in ("One.", "Two."):
        captions(SpeechStarted(0, 0.0))
        captions(Interim(0, "x"))
        captions(final(text))
    assert screen.lines == ["One.", "Two.", ""]


def test_an_item_that_fails_is_reported(
    captions: TerminalCaptions, screen: Screen, capsys: pytest.CaptureFixture[str]
) -> None:
    captions(Interim(0, "half"))
    captions(Failed(0, AudioError("broken")))
    LineCaptions(io.StringIO())(Failed(1, AudioError("again")))
    assert screen.lines == ["half", ""]
    assert "item 0: broken" in (errors := capsys.readouterr().err)
    assert "item 1: again" in errors


def test_elsewhere_a_line_is_written_when_it_is_final() -> None:
    stream = io.StringIO()
    captions = captions_for(stream)
    for event in (SpeechStarted(0, 0.0), Interim(0, "x"), Stable(0, "y"), final(" Yes. "), final("")):
        captions(event)
    assert stream.getvalue() == "Yes.\n"
    assert isinstance(captions_for(Screen()), TerminalCaptions)


@pytest.mark.parametrize(
    "text",
    ["", "a", "one two three four five", "unbreakablelongwordwithoutspaces", "東京は大きい町です。とても", "é́́́x" * 9],
)
def test_lines_fit_and_lose_nothing(text: str) -> None:
    lines = wrapped(text, 10)
    assert "".join(lines) == text
    assert all(width(line) <= 10 for line in lines)
