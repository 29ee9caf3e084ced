"""The command ``whisper burn``: a video with its subtitles as a track, and perhaps a translation beside them.

Transcribes, or takes files of subtitles; `media.text_tracks` writes the video. Picture and sound are copied.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import AudioError, DataError, OptionError
from ...media.text_tracks import TextTrack, embed, formats_of, has_container
from ...options.flags import add_flags, take
from ...options.language_names import LANGUAGES, three_letters
from ...options.types import FLAG, PATHS, TEXT, check_values, one_of, option
from ...output.layout import Layout
from ...output.writable_paths import check_file, make_folder
from ...subtitles.formats.document import FormatOptions
from ...subtitles.rules import RuleOptions
from ..common import (
    FallbackOptions,
    ModelOptions,
    Parser,
    add_options,
    check_options,
    explain,
    fail,
    load,
    rules_of,
    say,
    warn,
)

if TYPE_CHECKING:
    from ...model import Whisper

VIDEO = "video"  # heading of the help
INFIX = "subtitled"  # in the name of the new video


@dataclass(frozen=True)
class BurnOptions:
    """Which tracks a video gets, and where it is written."""

    output_dir: str = option(
        VIDEO,
        ".",
        TEXT,
        f"folder for the new video, NAME.{INFIX}.mkv or .mp4, made where it is missing",
        cli={"flags": ("--output_dir", "-o")},
    )
    container: str = option(
        VIDEO,
        "auto",
        one_of("auto", "mkv", "mp4", "mov", "webm"),
        "container of the new video; auto is that of the video, and mkv where that has no tracks of text",
    )
    track: str = option(
        VIDEO,
        "auto",
        one_of("auto", "srt", "ass"),
        "kind of the track in mkv: srt for all players, ass with --karaoke True; in mp4 and mov the text is mov_text",
    )
    translate: bool = option(
        VIDEO,
        False,
        FLAG,
        "with True, a second track in English beside that of the spoken language; the model must be able to translate",
    )
    subtitles: list[str] | None = option(
        VIDEO,
        None,
        PATHS,
        "instead of a transcription: files of subtitles or transcripts, each a track; --language is theirs where they "
        "do not say it",
        cli={"nargs": "+", "metavar": "FILE", "type": str},
    )

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class Shown:
    """A result as it will be a track."""

    result: Mapping[str, Any]
    title: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper burn``, and return its exit code: 0 when every video was written, 1 when one was not."""
    parser = build_parser()
    given = vars(parser.parse_args(argv)).copy()
    videos = given.pop("videos")
    try:
        burn, model = take(BurnOptions, given), take(ModelOptions, given)
        rules = rules_of(given)
        shown = {**asdict(rules), **asdict(take(Layout, given)), **asdict(take(FormatOptions, given))}
        given["temperature"] = take(FallbackOptions, given).temperatures(given["temperature"])
        if any(shown[name] for name in ("karaoke", "max_line_width", "max_words_per_line")):
            given["word_timestamps"] = True
        check_options(given)
        make_folder(burn.output_dir)
        targets = [target_of(video, burn) for video in videos]
        check_together(videos, targets, burn)
    except (OptionError, AudioError) as error:
        parser.error(str(error))
    try:
        work = _Work(burn, model, given, shown)
    except Exception as error:  # reported in one line; the traceback only with SOTTO_DEBUG
        fail(f"model {model.model}", explain(error))
        return 1
    written = sum(work.burn(video, target) for video, target in zip(videos, targets, strict=True))
    return 0 if written == len(videos) else 1


def build_parser() -> Parser:
    """Return the parser: options of the track, and those of `transcribe`, with times that are those of the video."""
    parser = Parser(
        what="VIDEO [VIDEO ...]",
        prog="whisper burn",
        description="Write a video again with its subtitles as a track, which players can show or hide. Picture and "
        "sound are copied, and the tracks that there are stay.",
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a video, or a recording of another kind")
    for declared in (BurnOptions, ModelOptions, Layout, RuleOptions, FormatOptions):
        add_flags(parser, declared, as_openai=True)
    add_options(parser, without=("task",), container_time={"default": True})
    return parser


def target_of(video: str, burn: BurnOptions) -> str:
    """Return where the new video is written."""
    stem, ending = os.path.splitext(os.path.basename(video))
    if burn.container != "auto":
        ending = f".{burn.container}"
    elif not has_container(video):
        ending = ".mkv"
    return os.path.join(burn.output_dir, f"{stem}.{INFIX}{ending.lower()}")


def check_together(videos: Sequence[str], targets: Sequence[str], burn: BurnOptions) -> None:
    """Raise `OptionError` for what cannot be meant, before a model is loaded."""
    if burn.subtitles and len(videos) > 1:
        raise OptionError("--subtitles takes one video")
    if burn.subtitles and burn.translate:
        raise OptionError("--translate needs a transcription, and --subtitles replaces it")
    if len(set(map(os.path.normcase, targets))) < len(targets):
        raise OptionError("two videos have one name: give each an --output_dir of its own")
    for path in [*videos, *(burn.subtitles or ())]:
        if not os.path.isfile(path):
            raise OptionError(f"{path}: there is no such file")
    for target in targets:
        check_file(target)
        track_format(target, burn)


def track_format(target: str, burn: BurnOptions, karaoke: bool = False) -> str:
    """Return the format of the tracks of a video."""
    formats = formats_of(target)
    if burn.track == "auto":
        return "ass" if karaoke and "ass" in formats else formats[0]
    if burn.track not in formats:
        raise OptionError(f"--track {burn.track} is for mkv; {target} has text as {', '.join(formats)}")
    return burn.track


class _Work:
    """The model, where one is needed, and what it is told."""

    def __init__(self, burn: BurnOptions, model: ModelOptions, options: dict[str, Any], shown: dict[str, Any]) -> None:
        self.options, self.shown, self.files = options, shown, burn
        self.model: Whisper | None = None if burn.subtitles else load(model, model.model)
        if burn.translate:
            from ...transcription.languages import can_translate

            if self.model is None or not (self.model.is_multilingual and can_translate(self.model)):
                raise OptionError(f"the model {model.model} does not translate; base, small, medium and large do")

    def burn(self, video: str, target: str) -> bool:
        """Write one video; report a failure and return False."""
        say(f"{video}: {'reading subtitles' if self.files.subtitles else 'transcribing'}")
        try:
            write_video(video, target, list(self._results(video)), self.files, self.shown)
        except BrokenPipeError:
            raise
        except Exception as error:  # one bad video must not stop the others
            fail(video, explain(error))
            return False
        return True

    def _results(self, video: str) -> list[Shown]:
        if self.model is None:
            from ...subtitles import read

            language = self.options["language"]
            return [Shown(_with_language(read(path), language)) for path in self.files.subtitles or ()]
        from ...transcribe import transcribe

        result: Mapping[str, Any] = transcribe(self.model, video, **self.options)
        results = [Shown(result)]
        if self.files.translate and result["language"] == "en":
            say(f"{video}: English is spoken, so there is nothing to translate")
        elif self.files.translate:
            options = {**self.options, "task": "translate", "language": result["language"]}
            english: Mapping[str, Any] = transcribe(self.model, video, **options)
            results.append(Shown({**english, "language": "en"}, "English (translated)"))
        return results


def _with_language(result: Mapping[str, Any], language: str | None) -> Mapping[str, Any]:
    return result if result["language"] else {**result, "language": language or ""}


def write_video(video: str, target: str, results: Sequence[Shown], burn: BurnOptions, shown: Mapping[str, Any]) -> None:
    """Write a video with a track for each result that has text.

    Raises
    ------
    DataError
        None has text.
    AudioError
        The video cannot be read or copied.
    """
    from ...output.further_formats import text_of

    format = track_format(target, burn, bool(shown.get("karaoke")))
    tracks = []
    for each in results:
        language = str(each.result.get("language") or "")
        text = text_of(each.result, "vtt" if format == "webvtt" else format, shown)
        title = each.title or LANGUAGES.get(language, "").title()
        if any(segment["text"].strip() for segment in each.result["segments"]):
            tracks.append(TextTrack(text, format, three_letters(language), title))
        else:
            warn(f"{video}: a track without text is left out")
    if not tracks:
        raise DataError(f"{video}: there is no text, so no video is written")
    embed(video, target, tracks)
    say(f"{target} written: {', '.join(track.title or 'a track of no known language' for track in tracks)}")


def embed_result(result: Mapping[str, Any], video: str, output_dir: str, shown: Mapping[str, Any]) -> None:
    """Write a recording again with its transcript as a track, as ``whisper --embed True`` does."""
    burn = replace(BurnOptions(), output_dir=output_dir)
    write_video(video, target_of(video, burn), [Shown(result)], burn, shown)
