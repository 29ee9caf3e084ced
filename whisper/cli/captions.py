"""Captions as a stream shows them: rewritten in place on a terminal, one line for each item elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TextIO

from ..live.events import Event, Failed, Final, Interim, SpeechStarted, Stable
from ..output.console import is_terminal, show
from ..subtitles.text_width import graphemes
from ..subtitles.text_width import width as width_of
from .common import explain, fail

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
Size = Callable[[], tuple[int, int]]


class LineCaptions:
    """A line for each item, once its text is final."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Final) and (text := event.result["text"].strip()):
            show(text, self._stream)
        elif isinstance(event, Failed):
            fail(f"item {event.item}", explain(event.error))


class TerminalCaptions:
    """The text of each item while it grows: stable text plain, the rest dim, and at the end the final text.

    What no longer fits on the screen is not rewritten.

    Parameters
    ----------
    stream
        A terminal.
    size
        Returns its columns and lines.
    """

    def __init__(self, stream: TextIO, size: Size = shutil.get_terminal_size) -> None:
        self._stream, self._size = stream, size
        self._start()

    def _start(self) -> None:
        self._stable = self._interim = ""
        self._n_shown = self._n_left = 0  # lines that can be rewritten, and lines that have left the screen

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, SpeechStarted):
            self._start()
        elif isinstance(event, Stable):
            self._stable, self._interim = self._stable + event.text, ""
        elif isinstance(event, Interim):
            self._interim = event.text
            self._draw()
        elif isinstance(event, Final):
            self._stable, self._interim = event.result["text"].strip(), ""
            self._end()
        elif isinstance(event, Failed):
            self._end()
            fail(f"item {event.item}", explain(event.error))

    def _end(self) -> None:
        self._draw()
        if self._n_shown or self._n_left:
            self._write("\r\n" if self._n_shown else "")
        self._start()

    def _draw(self) -> None:
        columns, rows = self._size()
        lines = wrapped(self._stable + self._interim, max(columns - 1, 10))
        erase = (f"\x1b[{self._n_shown - 1}A" if self._n_shown > 1 else "") + ("\r\x1b[J" if self._n_shown else "")
        n_chars = sum(map(len, lines[: self._n_left]))
        styled = []
        for line in lines[self._n_left :]:
            n_plain = min(max(len(self._stable) - n_chars, 0), len(line))
            n_chars += len(line)
            rest = line[n_plain:]
            styled.append(line[:n_plain] + (f"{DIM}{rest}{PLAIN}" if rest else ""))
        self._write(erase + "\r\n".join(styled))
        n_fit = max(rows - 1, 1)
        self._n_left += max(len(styled) - n_fit, 0)
        self._n_shown = min(len(styled), n_fit)

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()


def wrapped(text: str, width: int) -> list[str]:
    """Break a text at spaces into lines of at most so many columns; the lines together are the text."""
    lines, line, n_columns = [], "", 0
    for char in graphemes(text):
        n = int(width_of(char))
        if n_columns + n > width:
            at = line.rfind(" ") + 1
            if not at or char == " ":
                at = len(line)
            lines.append(line[:at])
            line = line[at:]
            n_columns = int(width_of(line))
        line += char
        n_columns += n
    return [*lines, line] if line else lines


def captions_for(stream: TextIO) -> LineCaptions | TerminalCaptions:
    """Return the captions that fit a stream."""
    return TerminalCaptions(stream) if is_terminal(stream) else LineCaptions(stream)
