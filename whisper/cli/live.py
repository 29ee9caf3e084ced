"""The command ``whisper live``: captions of a microphone, of standard input, or of a file that is played.

Parses arguments; the room `live` does the work. Captions go to standard output, everything else to standard error.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import OptionError
from ..live.events import Event, Failed, Final
from ..live.options import LiveOptions
from ..live.session import LiveSession
from ..live.sources import SourceOptions, pieces_of
from ..live.transcript import joined
from ..media.sources import is_standard_input, may_be_there
from ..options.flags import add_flags, take
from ..options.types import TEXT, check_values, option
from ..output.layout import Layout
from ..output.writable_paths import check_file, make_folder
from ..output.writers import formats_of, get_writer
from ..spans import SAMPLE_RATE
from ..subtitles.formats.document import FormatOptions
from ..subtitles.formats.names import EXTENSIONS
from ..subtitles.rules import RuleOptions
from .captions import captions_for
from .common import ModelOptions, Parser, explain, fail, formats_option, load, rules_of, say
from .main import FILES, contents_of, layout_of

DESCRIPTION = (
    "Write down what is said while it is said: from a microphone, from standard input, or from a file, which is played "
    "at its own speed. Ctrl-C ends it with the text of what was said until then. See docs/live.md."
)
MODEL = "base"
MOST_WAITING = 10.0  # seconds of sound, after which standard input has to wait
LOOK = 0.05  # seconds between two looks at that
WRITE_EVERY = 30.0  # seconds: what a crash can lose of the files


@dataclass(frozen=True)
class LiveFileOptions:
    """What is written of the captions, and where."""

    output_dir: str | None = option(
        FILES, None, TEXT, "folder for files with the whole text, made where it is missing; where not given, none is "
        "written", cli={"flags": ("--output_dir", "-o")},
    )  # fmt: skip
    output_format: tuple[str, ...] = formats_option(FILES, "all", needs=("output_dir",))

    def __post_init__(self) -> None:
        check_values(self)


class Files:
    """Writes the files of a session, now and then and at its end."""

    def __init__(
        self, options: LiveFileOptions, stem: str, rules: RuleOptions, layout: Layout, contents: FormatOptions,
        is_translation: bool = False,
    ) -> None:  # fmt: skip
        self._finals: list[Final] = []
        self._stem, self._contents = stem, asdict(contents)
        self._layout = {**asdict(rules), **asdict(layout), "escape_cues": True}
        self._write: Callable[..., None] | None = None
        self._last = time.monotonic()
        if options.output_dir is not None:
            make_folder(options.output_dir)
            for name in formats_of(options.output_format):
                check_file(os.path.join(options.output_dir, f"{stem}.{EXTENSIONS[name]}"))
            self._write = get_writer(options.output_format, options.output_dir, is_translation=is_translation)

    def __call__(self, event: Event) -> None:
        """Keep what is final."""
        if not isinstance(event, Final) or self._write is None:
            return
        self._finals.append(event)
        if time.monotonic() - self._last >= WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Write the files of all items so far."""
        if self._write is not None:
            self._write(dict(joined(self._finals)), self._stem + ".", self._contents, **self._layout)
            self._last = time.monotonic()


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper live``, and return its exit code.

    0 at the end of the sound and after Ctrl-C, 1 where something failed.
    """
    parser = build_parser()
    given = vars(parser.parse_args(argv))
    source = given.pop("source")
    try:
        rules = rules_of(given)
        layout, contents = layout_of(given, rules), contents_of(given)
        models, options, sound = take(ModelOptions, given), take(LiveOptions, given), take(SourceOptions, given)
        files = Files(take(LiveFileOptions, given), stem_of(source), rules, layout, contents,
                      options.task == "translate")  # fmt: skip
        pieces = pieces_of(source, sound)
    except OptionError as error:
        parser.error(str(error))
    except Exception as error:  # reported in one line; the traceback only with SOTTO_DEBUG
        fail("live", explain(error))
        return 1
    if source is not None and not is_standard_input(source) and not may_be_there(source):
        fail(source, "there is no such file")
        return 1
    try:
        model = load(models, models.model)
        model.transcribe(np.zeros(SAMPLE_RATE, np.float32), language="en")  # so that the first words do not wait
        return run(model, options, pieces, files, is_heard=source is None or is_standard_input(source))
    except Exception as error:  # likewise
        fail("live", explain(error))
        return 1


def run(
    model: Any, options: LiveOptions, pieces: Iterator[np.ndarray[Any, Any]], files: Files, is_heard: bool = True
) -> int:
    """Show captions until the sound ends, or Ctrl-C; return the exit code."""
    captions, failures = captions_for(sys.stdout), []

    def on_event(event: Event) -> None:
        captions(event)
        files(event)
        if isinstance(event, Failed):
            failures.append(event)

    session = LiveSession(model, options, on_event)
    try:
        try:
            with closing(pieces):  # type: ignore[type-var]
                say(f"{'listening' if is_heard else 'playing'}; Ctrl-C ends")
                feed(session, pieces)
        except KeyboardInterrupt:
            say("ending")
        session.close()
    except BaseException:  # a second Ctrl-C, too: what is final stays
        session.close(finish=False)
        raise
    finally:
        files.write()
    return 1 if failures else 0


def feed(
    session: LiveSession, pieces: Iterable[np.ndarray[Any, Any]], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Hand the sound to a session, no faster than it is looked at."""
    for piece in pieces:
        session.append(piece)
        while session.backlog > MOST_WAITING:
            sleep(LOOK)


def stem_of(source: str | None) -> str:
    """Return what the files are called."""
    if source is None or is_standard_input(source):
        return "live"
    return os.path.splitext(os.path.basename(source))[0] or "live"


def build_parser() -> Parser:
    """Return the parser of ``whisper live``."""
    parser = Parser(what="[RECORDING | -]", prog="whisper live", description=DESCRIPTION)
    parser.add_argument(
        "source", nargs="?", help="a recording, which is played at its own speed; - is standard input; a microphone "
        "where none is given",
    )  # fmt: skip
    add_flags(parser, ModelOptions, changed={"model": {"default": MODEL}})
    for declared in (SourceOptions, LiveOptions, LiveFileOptions, Layout, RuleOptions, FormatOptions):
        add_flags(parser, declared)
    return parser
