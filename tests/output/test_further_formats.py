"""Formats that openai-whisper lacks, by its interface: names, folders, layout."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from whisper import utils
from whisper.errors import OptionError, ResultError
from whisper.output.further_formats import laid_out, text_of
from whisper.output.writers import FURTHER, get_writer
from whisper.subtitles.formats.names import EXTENSIONS

from ..subtitles.talks import PLAIN, TALK
from ..transcripts import FOX, without_words


@pytest.mark.parametrize("format", [name for name in FURTHER if name != "docx"])
def test_a_file_is_named_after_the_recording(format: str, tmp_path: Path) -> None:
    utils.get_writer(format, tmp_path)(TALK, "somewhere/talk.part1.mp3")
    assert os.listdir(tmp_path) == [f"talk.part1.{EXTENSIONS[format]}"]


def test_the_layout_is_openai_whispers() -> None:
    """The same lines and cues as its SubRip has."""
    options = {"max_line_width": 20, "max_line_count": 2}
    expected = [text for _, _, text in get_writer("srt", "").iterate_result(FOX, options)]  # type: ignore[attr-defined]
    cues = list(laid_out(FOX, options))
    assert ["\n".join("".join(w.text for w in line) for line in cue.lines) for cue in cues] == expected
    assert len(cues) > len(FOX["segments"])


def test_speakers_do_not_share_a_cue_and_come_in_the_order_of_time() -> None:
    cues = list(laid_out(TALK, {"max_line_width": 60, "max_line_count": 3}))
    assert [cue.speaker for cue in cues] == ["Ann", "Bob B.", None]
    assert [cue.start for cue in cues] == sorted(cue.start for cue in cues)


def test_the_layout_without_word_times_is_segments() -> None:
    made = without_words(FOX)
    assert [cue.start for cue in laid_out(made, {"max_line_width": 20})] == [s["start"] for s in made["segments"]]


def test_vtt_is_openai_whispers_unless_it_shall_hold_more(tmp_path: Path) -> None:
    write = get_writer("vtt", tmp_path)
    write(PLAIN, "a.wav", {"karaoke": False, "cue_settings": None})
    assert (tmp_path / "a.vtt").read_text() == (
        "WEBVTT\n\n00:00.000 --> 00:01.000\nOne two.\n\n00:01.240 --> 00:02.000\nThree.\n\n"
    )
    write(PLAIN, "a.wav", {"cue_settings": "line:10%"}, karaoke=True)
    assert (tmp_path / "a.vtt").read_text() == (
        "WEBVTT\nLanguage: de\n\n00:00:00.000 --> 00:00:01.000 line:10%\nOne <00:00:00.500>two.\n\n"
        "00:00:01.240 --> 00:00:02.000 line:10%\nThree.\n\n"
    )


def test_wrong_results_and_options_leave_no_file(tmp_path: Path) -> None:
    for format, made, error in (
        ("ass", {"segments": [{"text": 1}]}, ResultError),
        ("ass", {"segments": [{"text": "x", "start": -1, "end": 1}]}, ResultError),
        ("ctm", without_words(FOX), ResultError),
        ("ttml", {}, ResultError),
    ):
        with pytest.raises(error):
            get_writer(format, tmp_path)(made, "a.wav")  # type: ignore[arg-type]
    for options in ({"karaoke": "yes"}, {"frame_rate": 26}, {"max_line_width": -1}):
        with pytest.raises(OptionError):
            get_writer("ass", tmp_path)(FOX, "a.wav", options)
    with pytest.raises(OptionError, match="audio_path"):
        get_writer("ass", tmp_path)(FOX, 1)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_a_preset_lays_out_every_format_of_cues(tmp_path: Path) -> None:
    for name in ("ass", "sbv", "vtt"):
        get_writer(name, tmp_path)(FOX, "fox.wav", {"subtitle_preset": "netflix"}, max_line_width=30)
    cues = list(laid_out(FOX, {"subtitle_preset": "netflix", "max_line_width": 30}))
    assert max(len("".join(w.text for w in line)) for cue in cues for line in cue.lines) <= 30
    assert (tmp_path / "fox.sbv").read_text(encoding="utf-8").count("\n\n") == len(cues)
    assert (tmp_path / "fox.ass").read_text(encoding="utf-8").count("Dialogue:") == len(cues)
    assert (tmp_path / "fox.vtt").read_text(encoding="utf-8").count("-->") == len(cues)


def test_a_translation_is_laid_out_as_english(tmp_path: Path) -> None:
    """Its result names the language that was spoken; Japanese has lines of 13 characters."""
    formats, options = ["srt", "vtt", "json", "ttml", "lrc"], {"subtitle_preset": "netflix"}
    for name, language, is_translation in (("ja", "ja", False), ("en", "en", False), ("translated", "ja", True)):
        (tmp_path / name).mkdir()
        write = get_writer(formats, tmp_path / name, is_translation=is_translation)
        write({**FOX, "language": language}, "fox.wav", options)
        get_writer("sbv", tmp_path / name, is_translation=is_translation)(
            {**FOX, "language": language}, "fox.wav", options
        )
    for ending in ("srt", "vtt", "ttml", "lrc", "sbv"):
        texts = {name: (tmp_path / name / f"fox.{ending}").read_text() for name in ("ja", "en", "translated")}
        assert texts["translated"] == texts["en"] != texts["ja"]
    assert json.loads((tmp_path / "translated" / "fox.json").read_text())["language"] == "ja"  # as openai-whisper


@pytest.mark.parametrize(
    ("style", "srt", "vtt"),
    [("none", False, False), ("name", True, False), ("dash", False, True), ("colour", False, True)],
)
def test_speakers_by_rules_stand_where_the_rules_say(style: str, srt: bool, vtt: bool) -> None:
    """In the text by name, or in a format's own place; never twice."""
    options = {"subtitle_preset": "netflix", "speaker_style": style}
    assert ("Ann" in text_of(TALK, "sbv", options)) == srt
    assert ("<v Ann>" in text_of(TALK, "vtt", options)) == vtt
    assert (",Ann,0,0,0,," in text_of(TALK, "ass", options)) == vtt
