"""The files of results: their exact bytes, their layout, and that no file is ever half written."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Original
from whisper.errors import OptionError
from whisper.output import writers
from whisper.output.writers import WriteSRT, formats_of, get_writer

from ..transcripts import FOX, Result, result, segment, spoken, without_words


def written(made: Result, extension: str, options: dict[str, Any] | None = None, **kwargs: Any) -> str:
    file = io.StringIO()
    writers.WRITERS[extension](".").write_result(made, file=file, options=options, **kwargs)
    return file.getvalue()


# ---------------------------------------------------------------------------------------------------------
# Contents
# ---------------------------------------------------------------------------------------------------------


def test_formats_without_word_times() -> None:
    made = result(
        {"start": 0.0, "end": 2.5, "text": " Hello\tthere."},
        {"start": 3601.2345, "end": 3602.0, "text": " A --> B "},
    )
    assert written(made, "txt") == "Hello\tthere.\nA --> B\n"
    assert written(made, "tsv") == "start\tend\ttext\n0\t2500\tHello there.\n3601234\t3602000\tA --> B\n"
    assert written(made, "vtt") == (
        "WEBVTT\n\n00:00.000 --> 00:02.500\nHello\tthere.\n\n01:00:01.234 --> 01:00:02.000\nA -> B\n\n"
    )
    assert written(made, "srt") == (
        "1\n00:00:00,000 --> 00:00:02,500\nHello\tthere.\n\n2\n01:00:01,234 --> 01:00:02,000\nA -> B\n\n"
    )
    assert json.loads(written(made, "json")) == made


def test_the_result_is_not_changed() -> None:
    before = json.dumps(FOX)
    for extension in writers.WRITERS:
        written(FOX, extension, max_line_width=10, max_line_count=1, highlight_words=True)
    assert json.dumps(FOX) == before


# ---------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------


def test_all_writes_one_file_of_each_format(tmp_path: Path) -> None:
    get_writer("all", tmp_path)(FOX, Path("somewhere/talk.part1.mp3"), {"max_line_width": 20})
    assert sorted(os.listdir(tmp_path)) == [f"talk.part1.{e}" for e in ("json", "srt", "tsv", "txt", "vtt")]
    for extension in writers.WRITERS:
        expected = written(FOX, extension, {"max_line_width": 20})
        assert (tmp_path / f"talk.part1.{extension}").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("asked", ["srt,ass", "ass, srt,srt", ["ass", "srt"], ("srt", "ass")])
def test_several_formats(asked: Any, tmp_path: Path) -> None:
    get_writer(asked, tmp_path)(FOX, "talk.mp3")
    assert sorted(os.listdir(tmp_path)) == ["talk.ass", "talk.srt"]
    assert (tmp_path / "talk.srt").read_text(encoding="utf-8") == written(FOX, "srt")
    assert formats_of(["all", "ass", "txt"]) == ("txt", "vtt", "srt", "tsv", "json", "ass")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_write_that_breaks_off_leaves_what_was_there(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_writer("srt", tmp_path)(FOX, "a.wav")
    before = (tmp_path / "a.srt").read_bytes()

    def breaks(*_: Any, **__: Any) -> Iterator[tuple[str, str, str]]:
        yield "00:00", "00:01", "half"
        raise error

    monkeypatch.setattr(WriteSRT, "iterate_result", breaks)
    with pytest.raises(error):
        get_writer("srt", tmp_path)(FOX, "a.wav")
    assert (tmp_path / "a.srt").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.srt"]


@pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")
def test_files_have_the_usual_permissions_and_links_stay_links(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "target").mkdir()
    (tmp_path / "a.txt").symlink_to(tmp_path / "target" / "b.txt")
    get_writer("txt", tmp_path)(FOX, "a.wav")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "target" / "b.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        get_writer("txt", tmp_path / "nowhere")(FOX, "a.wav")


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"'doc'.*txt, vtt, srt, tsv, json, .*ass, .*all"):
        get_writer("doc", ".")
    for wrong in ("", "srt,", [], ["srt", 1], 1):
        with pytest.raises(OptionError, match="there are txt"):
            get_writer(wrong, ".")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------
# Against the original
# ---------------------------------------------------------------------------------------------------------

RESULTS: dict[str, Result] = {
    "nothing": result(),
    "fox": FOX,
    "fox, no words": without_words(FOX),
    "empty text": result(segment([]), spoken(" after", start=1.0), segment([], text="")),
    "only empty": result(segment([], text="")),
    "no words, empty text": without_words(result(segment([], text=""), spoken(" x"))),
    "many lines": result(segment([(" one\n", 0, 1), ("two", 1, 2), (" th\nree", 2, 3), ("\n", 3, 4)])),
    "many lines, no words": without_words(result(segment([(" one\n\n", 0, 1), ("two", 1, 2)]))),
    "right to left": result(spoken(" شكرا جزيلا، שלום עולם")),
    "no spaces": result(segment([(c, i / 5, i / 5 + 0.2) for i, c in enumerate("你好，世界。" * 12)])),
    "zero length": result(segment([(" a", 1, 1), (" b", 1, 1), (" c", 2, 2)], end=1), spoken(" d", start=2)),
    "hours": result(spoken(" late in the day", start=3599.5), spoken(" very late", start=360000.0005)),
    "long pauses": result(*(spoken(f" so {i} it goes", start=4.01 * i, gap=i) for i in range(5))),
    "arrows": result(spoken(" A --> B said: --> C\tnow")),
    "arrows, no words": without_words(result(spoken(" A --> B said: --> C\tnow"))),
    "blank words": result(segment([(" ", 0, 1), ("", 1, 2), (" a", 2, 3), ("  ", 3, 4), ("  b ", 4, 5)])),
    "a giant": result(spoken(" " + "w" * 1200 + " and " + "v" * 60)),
    "markup": result(spoken(" <i>not</i> & <b>escaped \\1 \\g<word>")),
    "first without": result(without_words(FOX)["segments"][0], *FOX["segments"][1:]),
}  # fmt: skip


def random_result(seed: int) -> Result:
    """A few segments of random words at random times, sometimes silent, blank or out of order."""
    rng = random.Random(seed)
    clock, segments = 0.0, []
    for _ in range(rng.randrange(1, 6)):
        words = []
        for _ in range(rng.choice([0, 1, 3, 12])):
            clock += rng.choice([0, 0, 0, 0.123, 2.9996, 3.0, 3.0001])
            end = clock + rng.choice([0, 0.2, 0.2, 1.7])
            words.append((rng.choice([" ", "", "-"]) + rng.choice("ab你.\n ") * rng.randrange(9), clock, end))
            clock = end
        segments.append(segment(words))
    return result(*segments)


GRID = [
    dict(zip(("max_line_width", "max_line_count", "max_words_per_line", "highlight_words"), row, strict=True))
    for row in itertools.product((None, 10, 42, 1000), (None, 1, 2), (None, 1, 3), (False, True))
]

THEIRS = """
import io, os, tempfile
from whisper import utils

def written(made, extension, options):
    file = io.StringIO()
    utils.get_writer(extension, '.').write_result(made, file=file, options=options)
    return file.getvalue()

answer = {'grid': [[written(made, e, options) for e in ('srt', 'vtt') for options in arguments['grid']]
                   for made in arguments['results']],
          'plain': [[written(made, e, None) for e in ('txt', 'tsv', 'json')]
                    for made in arguments['results']],
          'files': []}
for made in arguments['results']:
    with tempfile.TemporaryDirectory() as folder:
        utils.get_writer('all', folder)(made, 'x/talk.v2.mp3', max_line_width=42, max_line_count=2)
        answer['files'].append({name: open(os.path.join(folder, name), 'rb').read().hex()
                                for name in os.listdir(folder)})
"""


@pytest.mark.peers
def test_every_layout_of_every_result_is_the_originals(original: Original, tmp_path: Path) -> None:
    """19 constructed and 100 random results, 2 x 72 layouts and 3 plain formats each: all text equal."""
    results = [*RESULTS.values(), *map(random_result, range(100))]
    theirs = original(THEIRS, tmp_path, results=results, grid=GRID)
    for i, made in enumerate(results):
        ours = [written(made, e, options) for e in ("srt", "vtt") for options in GRID]
        assert ours == theirs["grid"][i], f"result {i}"
        assert [written(made, e) for e in ("txt", "tsv", "json")] == theirs["plain"][i], f"result {i}"
        folder = tmp_path / str(i)
        folder.mkdir()
        get_writer("all", folder)(made, "x/talk.v2.mp3", max_line_width=42, max_line_count=2)
        assert {f.name: f.read_bytes().hex() for f in folder.iterdir()} == theirs["files"][i], f"result {i}"


def said_by(speaker: str | None, start: float, end: float, text: str, **more: Any) -> dict[str, Any]:
    """A segment of one word by somebody."""
    named = {} if speaker is None else {"speaker": speaker}
    words = [{"word": text, "start": start, "end": end, "probability": 0.9}]
    return {"start": start, "end": end, "text": text, "words": words, **named, **more}


def test_speakers_are_named_where_segments_have_them(tmp_path):
    segments = [said_by("Ann", 0, 1, " Hello <b>."), said_by("O'B & Co", 0.9, 2, " Hi."), said_by(None, 2, 3, " So.")]
    result = {"text": "", "segments": segments, "language": "en"}
    get_writer("all", tmp_path)(result, "a.wav")
    assert (tmp_path / "a.txt").read_text() == "Ann: Hello <b>.\nO'B & Co: Hi.\nSo.\n"
    assert "\nAnn: Hello <\u2060b>.\n" in (tmp_path / "a.srt").read_text()
    assert (tmp_path / "a.vtt").read_text().split("\n")[3::3] == [
        "<v Ann>Hello &lt;b&gt;.", "<v O'B &amp; Co>Hi.", "So.",
    ]  # fmt: skip
    table = (tmp_path / "a.tsv").read_text().splitlines()
    assert table[0] == "start\tend\ttext\tspeaker"
    assert [line.split("\t")[3] for line in table[1:]] == ["Ann", "O'B & Co", ""]


def test_a_speaker_stands_for_the_channel_and_beside_the_language(tmp_path):
    segments = [said_by("Ann", 0, 1, " Hallo.", channel=0, language="de"), said_by(None, 2, 3, " Hi.", channel=1)]
    get_writer("all", tmp_path)({"text": "", "segments": segments, "language": "de"}, "a.wav")
    assert (tmp_path / "a.txt").read_text() == "[de] Ann: Hallo.\n[channel 1] Hi.\n"
    assert "<v Ann><lang de>Hallo.</lang>" in (tmp_path / "a.vtt").read_text()


@pytest.mark.parametrize("name", ["srt", "vtt", "sbv", "ass"])
def test_cues_that_are_filled_up_end_with_a_turn(tmp_path, name):
    """A cue that went on behind the turn of another would show words long before they are said."""
    segments = [
        said_by("A", 0, 1, " one"),
        said_by("A", 1, 2, " two"),
        said_by("B", 2, 3, " three"),
        said_by("A", 3, 4, " four"),
    ]
    options = {"max_line_width": 40, "max_line_count": 2, "max_words_per_line": None}
    get_writer(name, tmp_path)({"text": "", "segments": segments, "language": "en"}, "a.wav", options)
    text = (tmp_path / f"a.{name}").read_text()
    assert [word for word in ("one two", "three", "four") if word in text] == ["one two", "three", "four"]
    assert "two four" not in text.replace("\n", " ")
