"""Output formats: transcripts as plain text, WebVTT, SubRip, tab-separated values, JSON, and further ones.

Subtitles with word times are laid out by `layout`, or with ``subtitle_preset`` by the rules of the room
`subtitles`. The bytes are then others; else they are openai-whisper's, unless segments
have a ``speaker``, a ``channel`` or a ``language``, which each format then shows, or escaping is requested: only
then arrows, tags and blank lines in a text are escaped, so that players do not interpret them. Files
are written atomically. Knows no model, and does not change a result.
"""

from __future__ import annotations

import html
import json
import os
import re
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple, Protocol, TextIO

from .. import utils
from ..errors import OptionError, ResultError, WhisperError
from ..files import atomic_write
from ..options.types import check_names
from ..results import in_its_language
from ..subtitles.formats.document import FormatOptions
from ..subtitles.formats.names import EXTENSIONS
from ..subtitles.plain_text import WORD_JOINER, one_line
from ..subtitles.rules import RuleOptions
from .layout import Cue, Layout, break_lines, chunk_words, stack_cues, underline
from .writable_paths import stem_of

# ---------------------------------------------------------------------------------------------------------
# What openai-whisper's segments do not have, and what its files do not escape
# ---------------------------------------------------------------------------------------------------------

Segments = Sequence[Mapping[str, Any]]

_ARROW = re.compile(r"-{2,}>")
_OPENS_TAG = re.compile(r"<(?=[A-Za-z/!?]|$)|\{(?=\\|$)")  # also at the end of a word, since the next may complete it


class Label(NamedTuple):
    """Channel, language and speaker of a segment, if it has them."""

    channel: Any = None
    language: Any = None
    speaker: Any = None

    @classmethod
    def of(cls, segment: Mapping[str, Any]) -> Label:
        """Read it off a segment."""
        return cls(segment.get("channel"), segment.get("language"), segment.get("speaker"))

    @property
    def voice(self) -> str | None:
        """Who says it: the speaker, or else the channel; None where it has neither."""
        if self.speaker is not None:
            return one_line(str(self.speaker))
        return None if self.channel is None else f"channel {one_line(str(self.channel))}"

    @property
    def prefix(self) -> str:
        """The label where a format has no place of its own for it: ``[channel 0] [de] ``, ``[de] Ann: ``."""
        language = "" if self.language is None else f"[{one_line(str(self.language))}] "
        if self.speaker is not None:
            return f"{language}{self.voice}: "
        return language if self.voice is None else f"[{self.voice}] {language}"


def escapes(segments: Segments, options: Mapping[str, Any] | None, given: bool | None) -> bool:
    """Whether text is escaped: as it is `given`, or in `options`; else where a segment has a label."""
    asked = (options or {}).get("escape_cues") if given is None else given
    if asked is None:
        return any(Label.of(segment) != Label() for segment in segments)
    if not isinstance(asked, int):
        raise OptionError(f"escape_cues must be True, False or None, not {reprlib.repr(asked)}")
    return bool(asked)


def on_one_line(segment: Mapping[str, Any]) -> dict[str, Any]:
    """Return a segment whose text and words have no line breaks; text without words counts as one."""
    cleaned = {**segment, "text": one_line(segment["text"])}
    words = [{**word, "word": one_line(word["word"])} for word in segment.get("words", ())]
    words = [word for word in words if word["word"].strip()]
    cleaned.pop("words", None)
    return {**cleaned, "words": words} if words else cleaned


def voices(segments: Segments) -> Iterator[tuple[Label, Segments]]:
    """Give the segments that may share a cue: those of a channel, as long as language and speaker stay the same."""
    channels: dict[Any, list[Mapping[str, Any]]] = {}
    for segment in segments:
        channels.setdefault(Label.of(segment).channel, []).append(segment)
    for own in channels.values():
        yield from ((label, list(run)) for label, run in groupby(own, Label.of))


# ---------------------------------------------------------------------------------------------------------
# Writers
# ---------------------------------------------------------------------------------------------------------


class Writer(Protocol):
    """Writes the file, or files, of one result: what `get_writer` returns."""

    def __call__(
        self,
        result: dict[str, Any],
        audio_path: str | os.PathLike[str],
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None: ...


class ResultWriter:
    """Writes results into a folder, each under the recording's name with the writer's `extension`.

    Parameters
    ----------
    output_dir
        A folder that exists.
    """

    extension: str

    def __init__(self, output_dir: str | os.PathLike[str]) -> None:
        self.output_dir = output_dir

    def __call__(
        self,
        result: dict[str, Any],
        audio_path: str | os.PathLike[str],
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write `result` to ``output_dir/<name of the recording>.<extension>``, whole or not at all.

        Parameters
        ----------
        result
            What `transcribe` returned.
        audio_path
            The recording; only the name counts, without folder and extension.
        options, **kwargs
            The layout of subtitles (see `SubtitlesWriter.iterate_result`); keywords win.

        Raises
        ------
        OSError
            The folder is missing or cannot be written to.
        OptionError
            The layout, or `audio_path`, is of a wrong kind. (A ValueError.)
        ResultError
            The result has not the form of a transcript. (A ValueError, and a TypeError.)
        """
        path = os.path.join(self.output_dir, f"{stem_of(audio_path)}.{self.extension}")
        try:
            with atomic_write(path, fsync=False, encoding="utf-8") as file:
                self.write_result(result, file=file, options=options, **kwargs)
        except (WhisperError, OSError):
            raise
        except (AttributeError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ResultError(f"{path} cannot be written ({what}); the result must be one of transcribe()") from error

    def write_result(
        self, result: dict[str, Any], file: TextIO, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Write `result` to an open text file; each format has its own."""
        raise NotImplementedError


class WriteTXT(ResultWriter):
    """The text alone, one segment a line."""

    extension = "txt"

    def write_result(
        self, result: dict[str, Any], file: TextIO, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        escaped = escapes(result["segments"], options, kwargs.get("escape_cues"))
        for segment in result["segments"]:
            text, label = segment["text"].strip(), Label.of(segment)
            if escaped:
                text = one_line(text)
            if text or label == Label():
                print(label.prefix + text, file=file, flush=True)


class SubtitlesWriter(ResultWriter):
    """What WebVTT and SubRip have in common: cues, each with two times and some lines."""

    always_include_hours: bool
    decimal_marker: str
    labels_are_tags = False  # and take up no room on a line

    def iterate_result(
        self,
        result: dict[str, Any],
        options: dict[str, Any] | None = None,
        *,
        max_line_width: int | None = None,
        max_line_count: int | None = None,
        highlight_words: bool = False,
        max_words_per_line: int | None = None,
        escape_cues: bool | None = None,
        **rules: Any,
    ) -> Iterator[tuple[str, str, str]]:
        """Give the cues of a result: start, end and text. Without word times a cue is a segment.

        Parameters
        ----------
        result
            What `transcribe` returned; whether it has word times is read off its first segment.
        options
            The settings below as a dictionary; a keyword given beside it wins.
        max_line_width, max_line_count
            Characters in a line and lines in a cue. Where both are set, cues are filled up regardless of
            segments and a pause of more than 3 s starts a new one; else each segment has its own.
        highlight_words
            Give each word a cue of its own in which it is underlined.
        max_words_per_line
            Words in a cue, unless cues are filled up regardless of segments.
        escape_cues
            True leaves nothing in the text that the format reads as its own: arrows, tags, entities, blank lines.
            False writes the text as openai-whisper does, with its arrows where there are word times. None is True
            where segments have a ``speaker``, ``channel`` or ``language``, which are written in any case and do not
            share cues, and with a preset.
        **rules
            ``subtitle_preset`` lays cues out by rules; the others are numbers in place of the preset's (`RuleOptions`).

        Raises
        ------
        OptionError
            A number is not whole and at least 0, or None; `escape_cues` is no flag; or a rule is not what it must be.
        """
        check_names(rules, "iterate_result", RuleOptions)
        own = RuleOptions.within(
            options,
            max_line_width=max_line_width,
            max_line_count=max_line_count,
            highlight_words=highlight_words or None,
            max_words_per_line=max_words_per_line,
            **rules,
        )
        segments = result["segments"]
        if own.by_rules:
            asked = (options or {}).get("escape_cues") if escape_cues is None else escape_cues
            yield from self._by_rules(result, own, escapes(segments, None, True if asked is None else asked))
            return
        if unused := own.without_effect():
            raise OptionError(f"{' and '.join(unused)} need subtitle_preset")
        layout = Layout.merged(
            options,
            max_line_width=max_line_width,
            max_line_count=max_line_count,
            highlight_words=highlight_words,
            max_words_per_line=max_words_per_line,
        )
        escaped = escapes(segments, options, escape_cues)
        if escaped or any(Label.of(segment) != Label() for segment in segments):
            yield from self._own_cues(segments, layout, escaped)
            return
        if not segments or "words" not in segments[0]:
            yield from map(self._segment_cue, segments)
            return
        lines = break_lines(chunk_words(segments, layout.max_words_per_line), layout)
        for cue in stack_cues(lines, layout.max_line_count):
            yield from self._highlighted(cue) if layout.highlight_words else [self._plain(cue)]

    def format_timestamp(self, seconds: float) -> str:
        """Write a time the way this format wants it."""
        return utils.format_timestamp(
            seconds=seconds,
            always_include_hours=self.always_include_hours,
            decimal_marker=self.decimal_marker,
        )

    def _segment_cue(self, segment: Mapping[str, Any]) -> tuple[str, str, str]:
        text = segment["text"].strip().replace("-->", "->")  # an arrow inside a cue reads as its times
        return self.format_timestamp(segment["start"]), self.format_timestamp(segment["end"]), text

    # -- by rules ----------------------------------------------------------------------------------------

    def spoken_by(self, text: str, speaker: str, style: str, colour: str) -> str:
        """Return the text of a cue with who speaks it, where the format has a place for that; `text` is escaped."""
        return text

    def _by_rules(self, result: dict[str, Any], own: RuleOptions, escaped: bool) -> Iterator[tuple[str, str, str]]:
        """Give the cues as `subtitles` lays them out."""
        from ..subtitles.layout import lay_out_by  # here, as it needs more than `import whisper` should load
        from ..subtitles.shown import colours, cue_words, word_by_word

        rules = own.rules(result.get("language"))
        cues = lay_out_by(result, rules)
        palette = colours(cues)
        for cue in cues:
            words = cue_words(cue, rules.language)
            whole = [(cue.start, cue.end, None)]
            for start, end, word in word_by_word(cue) if rules.highlight_words else whole:
                text = self._written(words, Label(), escaped, underlined=word)
                if cue.speaker is not None:
                    text = self.spoken_by(text, cue.speaker, rules.speaker_style, palette[cue.speaker])
                yield self.format_timestamp(start), self.format_timestamp(end), text

    # -- with labels, or escaped -------------------------------------------------------------------------

    def escape(self, text: str) -> str:
        """Return text that this format does not read as markup."""
        return text

    def labelled(self, text: str, label: Label) -> str:
        """Return the text of a cue with who says it in which language; `text` is escaped."""
        return label.prefix + text

    def _own_cues(self, segments: Segments, layout: Layout, escaped: bool) -> Iterator[tuple[str, str, str]]:
        """Give the cues of all channels in the order of time, none empty and none without length."""
        if escaped:
            segments = [on_one_line(segment) for segment in segments]
        has_words = any(segment.get("words") for segment in segments)
        cues: list[tuple[float, float, str]] = []
        for label, own in voices(segments):
            if has_words:
                cues += self._laid_out(own, layout, label, escaped)
            else:
                cues += ((s["start"], s["end"], self._written([s["text"].strip()], label, escaped)) for s in own)
        for start, end, text in sorted((cue for cue in cues if cue[2]), key=lambda cue: cue[:2]):
            yield self.format_timestamp(start), self.format_timestamp(max(end, start + 0.001)), text

    def _laid_out(
        self, segments: Segments, layout: Layout, label: Label, escaped: bool
    ) -> Iterator[tuple[float, float, str]]:
        """Give the cues of segments with one label; text is empty where there is none."""
        if layout.max_line_width and not self.labels_are_tags:  # of a narrow line, half is for the text
            room = max(layout.max_line_width - len(label.prefix), layout.max_line_width // 2, 1)
            layout = replace(layout, max_line_width=room)
        lines = break_lines(chunk_words(segments, layout.max_words_per_line), layout)
        for cue in stack_cues(lines, layout.max_line_count):
            words = [word.text for word in cue]
            if not layout.highlight_words:
                yield cue[0].start, cue[-1].end, self._written(words, label, escaped)
                continue
            shown_until = cue[0].start
            for i, word in enumerate(cue):
                if word.start > shown_until:
                    yield shown_until, word.start, self._written(words, label, escaped)
                yield word.start, word.end, self._written(words, label, escaped, underlined=i)
                shown_until = word.end

    def _written(self, words: list[str], label: Label, escaped: bool, underlined: int | None = None) -> str:
        """Return the text of a cue; empty without words."""
        if escaped:
            words = [self.escape(word) for word in words]
        text = "".join(underline(word) if i == underlined else word for i, word in enumerate(words))
        if escaped:
            text = _ARROW.sub("->", text)
        return self.labelled(text, label) if text.strip() else ""

    # -- as openai-whisper writes them -------------------------------------------------------------------

    def _plain(self, cue: Cue) -> tuple[str, str, str]:
        text = "".join(word.text for word in cue)
        return self.format_timestamp(cue[0].start), self.format_timestamp(cue[-1].end), text

    def _highlighted(self, cue: Cue) -> Iterator[tuple[str, str, str]]:
        """Give the cue once per word, that word underlined, and as it is for the silences between them."""
        shown_until, _, plain = self._plain(cue)
        for i, word in enumerate(cue):
            start, end = self.format_timestamp(word.start), self.format_timestamp(word.end)
            if start != shown_until:
                yield shown_until, start, plain
            yield start, end, "".join(underline(w.text) if j == i else w.text for j, w in enumerate(cue))
            shown_until = end


class WriteVTT(SubtitlesWriter):
    """WebVTT, the subtitles of the web."""

    extension = "vtt"
    always_include_hours = False
    decimal_marker = "."
    labels_are_tags = True

    def escape(self, text: str) -> str:
        """See `SubtitlesWriter.escape`; entities are WebVTT's own way."""
        return html.escape(text, quote=False)

    def labelled(self, text: str, label: Label) -> str:
        """See `SubtitlesWriter.labelled`; a speaker is a voice, ``<v Ann>``, and so is a channel, ``<v channel 0>``."""
        if label.language is not None:
            text = f"<lang {html.escape(one_line(str(label.language)), quote=False)}>{text}</lang>"
        return text if label.voice is None else f"<v {html.escape(label.voice, quote=False)}>{text}"

    def spoken_by(self, text: str, speaker: str, style: str, colour: str) -> str:
        """See `SubtitlesWriter.spoken_by`; a speaker is a voice, ``<v Ann>``, and a colour one of WebVTT's classes."""
        if style not in ("dash", "colour"):
            return text
        text = f"<c.{colour}>{text}</c>" if style == "colour" else text
        return f"<v {html.escape(one_line(speaker), quote=False)}>{text}"

    def write_result(
        self, result: dict[str, Any], file: TextIO, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if FormatOptions.within(options).changes_vtt:
            from .further_formats import changed_vtt

            file.write(changed_vtt(result, options, kwargs))
            return
        print("WEBVTT\n", file=file)
        for start, end, text in self.iterate_result(result, options, **kwargs):
            print(f"{start} --> {end}\n{text}\n", file=file, flush=True)


class WriteSRT(SubtitlesWriter):
    """SubRip, the subtitles of most players: numbered cues, hours always, a decimal comma."""

    extension = "srt"
    always_include_hours = True
    decimal_marker = ","

    def escape(self, text: str) -> str:
        """See `SubtitlesWriter.escape`; the format has no escapes, so a `WORD_JOINER` parts what opens a tag."""
        return _OPENS_TAG.sub(lambda opening: opening[0] + WORD_JOINER, text)

    def spoken_by(self, text: str, speaker: str, style: str, colour: str) -> str:
        """See `SubtitlesWriter.spoken_by`; players know colours as ``<font color="yellow">``."""
        return f'<font color="{colour}">{text}</font>' if style == "colour" else text

    def write_result(
        self, result: dict[str, Any], file: TextIO, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        for number, (start, end, text) in enumerate(self.iterate_result(result, options, **kwargs), start=1):
            print(f"{number}\n{start} --> {end}\n{text}\n", file=file, flush=True)


class WriteTSV(ResultWriter):
    """Start, end and text of each segment between tabs.

    Times are whole milliseconds, so that no country's decimal sign comes into it. A tab in the text becomes a
    space. Where segments have a ``channel``, ``language`` or ``speaker``, these are further columns behind the text.
    """

    extension = "tsv"

    def write_result(
        self, result: dict[str, Any], file: TextIO, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        segments = result["segments"]
        escaped = escapes(segments, options, kwargs.get("escape_cues"))
        further = [name for name in Label._fields if any(segment.get(name) is not None for segment in segments)]
        print("start", "end", "text", *further, sep="\t", file=file)
        for segment in segments:
            start, end = (round(1000 * segment[key]) for key in ("start", "end"))
            text = one_line(segment["text"]) if escaped else segment["text"]
            values = ("" if segment.get(name) is None else one_line(str(segment[name])) for name in further)
            cells = (text.strip().replace("\t", " "), *(value.replace("\t", " ") for value in values))
            print(start, end, *cells, sep="\t", file=file, flush=True)


class WriteJSON(ResultWriter):
    """The whole result, as it is."""

    extension = "json"

    def write_result(
        self, result: dict[str, Any], file: TextIO, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        json.dump(result, file)


WRITERS: dict[str, type[ResultWriter]] = {
    writer.extension: writer for writer in (WriteTXT, WriteVTT, WriteSRT, WriteTSV, WriteJSON)
}
FURTHER = tuple(name for name in EXTENSIONS if name not in WRITERS)
OUTPUT_FORMATS = (*WRITERS, *FURTHER, "all")  # all is each of openai-whisper's five


def formats_of(asked: Collection[str]) -> tuple[str, ...]:
    """Return the formats that these names mean, each once, in the order of `OUTPUT_FORMATS`."""
    meant = {*asked, *(WRITERS if "all" in asked else ())} - {"all"}
    return tuple(name for name in OUTPUT_FORMATS if name in meant)


def get_writer(
    output_format: str | Sequence[str], output_dir: str | os.PathLike[str], *, is_translation: bool = False
) -> Writer:
    """Return what writes one result to a file of this format, or of several to one file of each.

    Parameters
    ----------
    output_format
        ``txt``, ``vtt``, ``srt``, ``tsv``, ``json``, ``all`` for these five, or one of `FURTHER`; several in a list,
        or with commas between.
    output_dir
        The folder for the files; it must exist when they are written.
    is_translation
        Results name the language that was spoken, and their text is English: every format but ``json`` is written and
        laid out as English.

    Raises
    ------
    OptionError
        There is no such format, or the folder is neither text nor a path.
    """
    if not isinstance(output_dir, (str, os.PathLike)):
        raise OptionError(f"output_dir must be text or a path, not {reprlib.repr(output_dir)}")
    asked = output_format.split(",") if isinstance(output_format, str) else output_format
    names = [name.strip() for name in asked] if _is_list(asked) else []
    if not names or any(name not in OUTPUT_FORMATS for name in names):
        raise OptionError(f"no writer for {reprlib.repr(output_format)}; there are {', '.join(OUTPUT_FORMATS)}")
    writers = [_writer(name, output_dir) for name in formats_of(names)]
    if len(writers) == 1 and not is_translation:
        return writers[0]

    def write_all(
        result: dict[str, Any],
        audio_path: str | os.PathLike[str],
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        shown = in_its_language(result, is_translation)
        for writer in writers:
            writer(result if isinstance(writer, WriteJSON) else shown, audio_path, options, **kwargs)

    return write_all


def _is_list(asked: object) -> bool:
    return isinstance(asked, Sequence) and all(isinstance(name, str) for name in asked)


def _writer(name: str, output_dir: str | os.PathLike[str]) -> Writer:
    if name in WRITERS:
        return WRITERS[name](output_dir)
    from .further_formats import FurtherWriter  # few programs want one

    return FurtherWriter(name, output_dir)
