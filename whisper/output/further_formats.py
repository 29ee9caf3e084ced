"""Formats that openai-whisper does not have, behind its interface of writers: laid out here, written by `subtitles`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..subtitles.cues import Cue, TimedWord
from ..subtitles.formats.document import FormatOptions, Segment, cue_of, segments_of, turns
from ..subtitles.formats.names import EXTENSIONS
from ..subtitles.rules import RuleOptions
from ..subtitles.transcript_files import write, written
from .layout import Layout, Word, break_lines, chunk_words, stack_cues
from .writable_paths import stem_of


class FurtherWriter:
    """Writes results into a folder, each under the recording's name with the extension of a format.

    Parameters
    ----------
    format
        One of `EXTENSIONS`.
    output_dir
        A folder that exists.
    """

    def __init__(self, format: str, output_dir: str | os.PathLike[str]) -> None:
        self.format, self.extension, self.output_dir = format, EXTENSIONS[format], output_dir

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
            The layout of subtitles, and the fields of `FormatOptions`; keywords win.

        Raises
        ------
        OSError
            The folder is missing or cannot be written to.
        OptionError
            The layout, or `audio_path`, is of a wrong kind. (A ValueError.)
        ResultError
            The result has not the form of a transcript, or lacks what the format needs. (A ValueError.)
        """
        stem = stem_of(audio_path)
        given = {**(options or {}), **kwargs}
        contents = FormatOptions.within(given)
        path = os.path.join(self.output_dir, f"{stem}.{self.extension}")
        write(
            result,
            path,
            format=self.format,
            cues=cues_of(result, given),
            name=stem,
            karaoke=contents.karaoke,
            cue_settings=contents.cue_settings,
            frame_rate=contents.frame_rate,
            names_speakers=not RuleOptions.within(given).by_rules,
        )


def changed_vtt(result: Mapping[str, Any], options: Mapping[str, Any] | None, more: Mapping[str, Any]) -> str:
    """Return WebVTT with what openai-whisper's lacks: voices, cue settings, the times of words."""
    given = {**(options or {}), **more}
    return text_of(result, "vtt", given)


def text_of(result: Mapping[str, Any], format: str, options: Mapping[str, Any], name: str = "") -> str:
    """Return a result in a format that is text, laid out as the options say; `name` is the recording's."""
    by_rules = RuleOptions.within(options).by_rules
    cues, contents = cues_of(result, options), FormatOptions.within(options)
    return str(written(result, format, name=name, cues=cues, options=contents, names_speakers=not by_rules))


def cues_of(result: Mapping[str, Any], options: Mapping[str, Any]) -> list[Cue] | None:
    """Return the cues of a result; None where each segment is one."""
    layout, by_rules = _layout(options), RuleOptions.within(options).by_rules
    is_plain = not (by_rules or layout.max_line_width or layout.max_line_count or layout.max_words_per_line)
    return None if is_plain else list(laid_out(result, options))


def laid_out(result: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Cue]:
    """Give the cues of a result by the rules of a preset, or in openai-whisper's layout.

    They are in the order of time. In openai-whisper's layout no two speakers share one; by rules a name stands in the
    text where these ask for it, and else cues have speakers for the formats with a place for them.
    """
    rules = RuleOptions.within(options)
    if rules.by_rules:
        from ..subtitles.layout import lay_out_by

        chosen = rules.rules(result.get("language"))
        has_speakers = chosen.speaker_style in ("dash", "colour")  # else they stand in the text, or nowhere
        yield from (cue if has_speakers else _anonymous(cue) for cue in lay_out_by(result, chosen))
        return
    layout = _layout(options)
    segments = list(segments_of(result))
    cues: list[Cue] = []
    for own in _voices(segments, any(segment.get("speaker") is not None for segment in result["segments"])):
        speaker = own[0].speaker
        if not any(segment.words for segment in own):
            cues += map(cue_of, own)
            continue
        lines = break_lines(chunk_words(map(_as_mapping, own), layout.max_words_per_line), layout)
        cues += (_cue(words, speaker) for words in stack_cues(lines, layout.max_line_count))
    yield from sorted(cues, key=lambda cue: (cue.start, cue.end))


def _voices(segments: Sequence[Segment], in_turns: bool) -> Iterator[list[Segment]]:
    """Give the segments that may share a cue: those of a turn, or with a speaker on each channel those of a channel."""
    if in_turns:
        yield from turns(segments)
        return
    for speaker in dict.fromkeys(segment.speaker for segment in segments):
        yield [segment for segment in segments if segment.speaker == speaker]


def _anonymous(cue: Cue) -> Cue:
    """Return a cue that does not say who speaks."""
    lines = tuple(tuple(replace(word, speaker=None) for word in line) for line in cue.lines)
    return replace(cue, lines=lines, speaker=None)


def _layout(options: Mapping[str, Any]) -> Layout:
    return Layout.merged(
        options, max_line_width=None, max_line_count=None, highlight_words=False, max_words_per_line=None
    )


def _as_mapping(segment: Segment) -> dict[str, Any]:
    if not segment.words:
        return {"text": segment.text, "start": segment.start, "end": segment.end}
    return {"words": [{"word": word.text, "start": word.start, "end": word.end} for word in segment.words]}


def _cue(words: list[Word], speaker: str | None) -> Cue:
    """Return a cue of words of which those that begin a line have a line break before them."""
    lines: list[list[TimedWord]] = []
    for word in words:
        if not lines or word.text.startswith("\n"):
            lines.append([])
        lines[-1].append(TimedWord(word.text.removeprefix("\n"), word.start, word.end, speaker))
    return Cue(words[0].start, words[-1].end, tuple(map(tuple, lines)), speaker)
