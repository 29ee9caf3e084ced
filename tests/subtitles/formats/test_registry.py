"""Every format: opened by an independent reader, read back by ours, and neither hurt by any text."""

from __future__ import annotations

import contextlib
import csv
import datetime
import html
import io
import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whisper import subtitles
from whisper.errors import DataError, OptionError
from whisper.subtitles.formats.names import EXTENSIONS
from whisper.subtitles.formats.registry import FORMATS, READABLE
from whisper.subtitles.transcript_files import written

from ..talks import PLAIN, TALK, TEXTS, TIMES, result

WITH_SPEAKERS = {"vtt", "tsv", "json", "ass", "ttml", "csv", "podcast", "textgrid", "eaf", "stm"}
WITH_WORDS = {"json", "textgrid", "eaf", "ctm"}
LIGHTS_WORDS_UP = {"vtt", "ass", "ttml", "lrc"}
NAMED = [f"Ann: {TEXTS[0]}", f"Bob B.: {TEXTS[1]}", TEXTS[2]]  # where a format has no place for speakers
ARROW = str.maketrans({"\u2060": None})


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a result in a format and returns the path."""

    def write(format: str, made: dict[str, Any] = TALK, **options: Any) -> Path:
        path = tmp_path / f"talk.{EXTENSIONS[format]}"
        subtitles.write(made, path, format=format, **options)
        return path

    return write


def test_every_format_has_an_ending_of_its_own() -> None:
    assert list(FORMATS) == list(EXTENSIONS)
    assert len({ending.lower() for ending in EXTENSIONS.values()}) == len(EXTENSIONS)


# ---------------------------------------------------------------------------------------------------------
# Independent readers
# ---------------------------------------------------------------------------------------------------------


def near(found: Iterable[tuple[float, float]], tolerance: float, expected: Any = TIMES) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(abs(a - c) <= tolerance and abs(b - d) <= tolerance for (a, b), (c, d) in pairs)


def test_srt_by_the_package_srt_and_by_pysubs2(file: Callable[..., Path]) -> None:
    srt, pysubs2 = pytest.importorskip("srt"), pytest.importorskip("pysubs2")
    path = file("srt")
    cues = list(srt.parse(path.read_text("utf-8"), ignore_errors=False))
    expected = [text.replace("-->", "->") for text in NAMED]
    assert [cue.content.translate(ARROW) for cue in cues] == expected
    assert near([(cue.start.total_seconds(), cue.end.total_seconds()) for cue in cues], 0.0005)
    events = pysubs2.load(str(path)).events
    assert [event.plaintext.translate(ARROW) for event in events] == expected


@pytest.mark.parametrize("karaoke", [False, True])
def test_vtt_by_webvtt_py_and_ttconv(file: Callable[..., Path], karaoke: bool) -> None:
    webvtt = pytest.importorskip("webvtt")
    path = file("vtt", karaoke=karaoke, cue_settings="line:85% align:center")
    cues = webvtt.read(str(path)).captions
    assert [html.unescape(cue.text) for cue in cues] == TEXTS
    assert [cue.voice for cue in cues] == ["Ann", "Bob B.", None]
    assert near([(cue.start_in_seconds, cue.end_in_seconds) for cue in cues], 1.0)  # webvtt-py has whole seconds
    if karaoke:
        assert "<00:00:00.700>said" in cues[0].raw_text
    assert path.read_text("utf-8").count(" line:85% align:center\n") == 3
    reader = pytest.importorskip("ttconv.vtt.reader")
    model = reader.to_model(io.StringIO(path.read_text("utf-8")))
    assert [paragraph_text(p) for p in paragraphs(model)] == TEXTS
    assert near([(float(p.get_begin()), float(p.get_end())) for p in paragraphs(model)], 0.0005)


def paragraphs(model: Any) -> list[Any]:
    from ttconv.model import P

    return [e for e in model.get_body().dfs_iterator() if isinstance(e, P)]


def paragraph_text(paragraph: Any) -> str:
    from ttconv.model import Br, Text

    parts = (
        e.get_text() if isinstance(e, Text) else " " for e in paragraph.dfs_iterator() if isinstance(e, (Text, Br))
    )
    return " ".join("".join(parts).split())


@pytest.mark.parametrize("karaoke", [False, True])
def test_ass_by_pysubs2(file: Callable[..., Path], karaoke: bool) -> None:
    pysubs2 = pytest.importorskip("pysubs2")
    events = pysubs2.load(str(file("ass", karaoke=karaoke))).events
    assert [event.plaintext for event in events] == TEXTS
    assert [event.name for event in events] == ["Ann", "Bob B.", ""]
    assert near([(event.start / 1000, event.end / 1000) for event in events], 0.005)
    if karaoke:
        for event in events:
            lit = sum(map(int, re.findall(r"\\k(\d+)", event.text)))
            assert lit * 10 == event.duration


@pytest.mark.parametrize("karaoke", [False, True])
def test_ttml_by_ttconv_and_pysubs2(file: Callable[..., Path], karaoke: bool) -> None:
    reader = pytest.importorskip("ttconv.imsc.reader")
    path = file("ttml", karaoke=karaoke)
    model = reader.to_model(ElementTree.parse(path))
    assert [paragraph_text(p) for p in paragraphs(model)] == TEXTS
    assert near([(float(p.get_begin()), float(p.get_end())) for p in paragraphs(model)], 0.0005)
    assert model.get_lang() == "en"
    if not karaoke:
        pysubs2 = pytest.importorskip("pysubs2")
        assert [event.plaintext for event in pysubs2.load(str(path)).events] == TEXTS


def test_ebu_tt_d_by_ttconv_and_pysubs2(file: Callable[..., Path]) -> None:
    reader, pysubs2 = pytest.importorskip("ttconv.imsc.reader"), pytest.importorskip("pysubs2")
    path = file("ebuttd")
    model = reader.to_model(ElementTree.parse(path))
    assert [paragraph_text(p) for p in paragraphs(model)] == NAMED
    assert near([(float(p.get_begin()), float(p.get_end())) for p in paragraphs(model)], 0.0005)
    assert [event.plaintext for event in pysubs2.load(str(path), format_="ttml").events] == NAMED


def test_sbv_by_webvtt_py(file: Callable[..., Path]) -> None:
    webvtt = pytest.importorskip("webvtt")
    cues = webvtt.from_sbv(str(file("sbv"))).captions
    assert [cue.raw_text.translate(ARROW) for cue in cues] == [text.replace("-->", "->") for text in NAMED]
    assert [cue.start for cue in cues] == ["00:00:00.500", "00:00:02.500", "01:02:05.240"]


def test_tables_by_csv(file: Callable[..., Path]) -> None:
    with open(file("csv"), newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["text"] for row in rows] == TEXTS
    assert [row["speaker"] for row in rows] == ["Ann", "Bob B.", ""]
    assert near([(float(row["start"]), float(row["end"])) for row in rows], 0.0005)
    with open(file("tsv"), newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row["text"] for row in rows] == TEXTS
    assert near([(int(row["start"]) / 1000, int(row["end"]) / 1000) for row in rows], 0.0005)
    with open(file("audacity"), newline="", encoding="utf-8") as table:
        labels = list(csv.reader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [label[2] for label in labels] == NAMED
    assert near([(float(label[0]), float(label[1])) for label in labels], 1e-6)


def test_podcasts_by_json(file: Callable[..., Path]) -> None:
    found = json.loads(file("podcast").read_text("utf-8"))
    assert found["version"] == "1.0.0"
    assert [s["body"] for s in found["segments"]] == TEXTS
    assert [s.get("speaker") for s in found["segments"]] == ["Ann", "Bob B.", None]
    assert near([(s["startTime"], s["endTime"]) for s in found["segments"]], 0.0005)


def test_textgrid_by_praatio_and_textgrid(file: Callable[..., Path]) -> None:
    praatio, textgrid = pytest.importorskip("praatio.textgrid"), pytest.importorskip("textgrid")
    path = file("textgrid")
    found = praatio.openTextgrid(str(path), includeEmptyIntervals=False)
    assert found.tierNames == ("Ann", "Ann words", "Bob B.", "Bob B. words", "segments", "words")
    own = [found.getTier(name).entries for name in found.tierNames]
    assert [entry.label for entries in own[::2] for entry in entries] == TEXTS
    assert near([(e.start, e.end) for entries in own[::2] for e in entries], 0.0005)
    assert [e.label for e in own[1]] == TEXTS[0].split()
    grid = textgrid.TextGrid.fromFile(str(path))
    assert [tier.name for tier in grid.tiers] == list(found.tierNames)
    assert all(a.maxTime == b.minTime for tier in grid.tiers for a, b in itertools.pairwise(tier))
    assert {tier.maxTime for tier in grid.tiers} == {grid.maxTime} == {3726.52}


def test_eaf_by_pympi(file: Callable[..., Path]) -> None:
    elan = pytest.importorskip("pympi.Elan")
    found = elan.Eaf(str(file("eaf")))
    assert list(found.get_tier_names()) == ["Ann", "Ann words", "Bob B.", "Bob B. words", "segments", "words"]
    tiers = [sorted(found.get_annotation_data_for_tier(name)) for name in ("Ann", "Bob B.", "segments")]
    assert [item[2] for tier in tiers for item in tier] == TEXTS
    assert near([(item[0] / 1000, item[1] / 1000) for tier in tiers for item in tier], 0.0005)
    assert [item[2] for item in sorted(found.get_annotation_data_for_tier("Ann words"))] == TEXTS[0].split()
    assert found.get_parameters_for_tier("Ann words")["PARENT_REF"] == "Ann"


def test_scoring_formats_by_meeteval_or_their_definition(file: Callable[..., Path]) -> None:
    ctm = [line.split(" ") for line in file("ctm").read_text("utf-8").splitlines()]
    words = [w for s in TALK["segments"] for w in s["words"]]
    assert [row[4] for row in ctm] == [w["word"].strip() for w in words]
    assert near(
        [(float(row[2]), float(row[2]) + float(row[3])) for row in ctm], 0.001, [(w["start"], w["end"]) for w in words]
    )
    assert {(row[0], row[1], row[5]) for row in ctm} == {("talk", "1", "0.9000")}
    stm = [line.split(" ", 5) for line in file("stm").read_text("utf-8").splitlines()]
    assert [row[5] for row in stm] == TEXTS
    assert [row[2] for row in stm] == ["Ann", "Bob_B.", "speaker"]
    rttm = [line.split() for line in file("rttm").read_text("utf-8").splitlines()]
    assert {len(row) for row in rttm} == {10}
    assert [row[7] for row in rttm] == ["Ann", "Bob_B.", "speaker"]
    try:
        import meeteval
    except ImportError:
        return
    assert [line.words for line in meeteval.io.STM.load(file("stm")).lines] == TEXTS
    assert [line.speaker for line in meeteval.io.RTTM.load(file("rttm")).lines] == ["Ann", "Bob_B.", "speaker"]
    assert [line.words for line in meeteval.io.CTM.load(file("ctm")).lines] == [row[4] for row in ctm]


def test_docx_by_its_xml_and_by_python_docx(file: Callable[..., Path]) -> None:
    docx = pytest.importorskip("docx")
    path = file("docx")
    with zipfile.ZipFile(path) as package:
        assert package.testzip() is None
        body = ElementTree.fromstring(package.read("word/document.xml"))
    name = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
    texts = ["".join(t.text or "" for t in p.iter(f"{name}t")) for p in body.iter(f"{name}p")]
    assert texts == ["talk", f"00:00:00 Ann{TEXTS[0]}", f"00:00:02 Bob B.{TEXTS[1]}", f"01:02:05{TEXTS[2]}"]
    assert docx.Document(path).paragraphs[1].text == f"00:00:00 Ann\t{TEXTS[0]}"


@pytest.mark.parametrize("rate", ["25", "23.976", "29.97"])
def test_fcpxml_by_opentimelineio(file: Callable[..., Path], rate: str) -> None:
    otio = pytest.importorskip("opentimelineio")
    if "fcpx_xml" not in otio.adapters.available_adapter_names():
        pytest.skip("opentimelineio has no adapter of Final Cut Pro's XML")
    root = ElementTree.parse(file("fcpxml", frame_rate=rate)).getroot()
    assert [marker.get("value") for marker in root.iter("marker")] == NAMED
    frame = fraction(root.find(".//format").get("frameDuration"))  # type: ignore[union-attr]
    gap = root.find(".//gap")
    assert gap is not None
    for marker, (start, _) in zip(root.iter("marker"), TIMES, strict=True):
        at = fraction(marker.get("start")) - fraction(gap.get("start"))
        assert (at / frame).denominator == 1
        assert 0 <= start - at < frame
    timeline = otio.adapters.read_from_file(str(file("fcpxml", frame_rate=rate)), adapter_name="fcpx_xml")
    assert timeline is not None


def fraction(text: Any) -> Fraction:
    return Fraction(text.removesuffix("s"))


def test_edl_by_pycmx(file: Callable[..., Path]) -> None:
    pycmx = pytest.importorskip("pycmx")
    with open(file("edl"), encoding="utf-8") as text:
        found = pycmx.parse_cmx3600(text)
    assert found.title == "talk"
    edits = [edit for event in found.events for edit in event.edits]
    assert [edit.record_in for edit in edits] == ["01:00:00:12", "01:00:02:12", "02:02:05:06"]
    assert [edit.record_out for edit in edits] == ["01:00:00:13", "01:00:02:13", "02:02:05:07"]


def test_lrc_by_its_definition(file: Callable[..., Path]) -> None:
    lines = file("lrc").read_text("utf-8").splitlines()
    assert lines[:4] == ["[ti:talk]", "[la:en]", f"[00:00.50]{NAMED[0]}", "[00:02.00]"]
    assert lines[-2:] == [f"[62:05.24]{TEXTS[2]}", "[62:06.52]"]
    enhanced = file("lrc", PLAIN, karaoke=True).read_text("utf-8").splitlines()
    assert enhanced[2] == "[00:00.00] <00:00.00> One <00:00.50> two. <00:01.00>"


# ---------------------------------------------------------------------------------------------------------
# Read back
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", READABLE)
def test_what_is_written_is_read_back(format: str, file: Callable[..., Path]) -> None:
    found = subtitles.read(file(format))
    has_speakers = format in WITH_SPEAKERS
    expected = TEXTS if has_speakers or format == "ctm" else NAMED
    if format in ("srt", "sbv"):
        expected = [text.replace("-->", "->") for text in expected]
    assert [s["text"] for s in found["segments"]] == [f" {text}" for text in expected]
    assert near([(s["start"], s["end"]) for s in found["segments"]], 0.0051 if format in ("ass", "lrc") else 0.0011)
    if has_speakers:
        blank = "_" if format == "stm" else " "
        assert [s.get("speaker") for s in found["segments"]] == ["Ann", f"Bob{blank}B.", None]
    if format in WITH_WORDS:
        assert [w["word"] for s in found["segments"] for w in s["words"]] == [
            w["word"] for s in TALK["segments"] for w in s["words"]
        ]


@pytest.mark.parametrize("format", sorted(LIGHTS_WORDS_UP))
def test_karaoke_is_read_back_as_words(format: str, file: Callable[..., Path]) -> None:
    found = subtitles.read(file(format, karaoke=True))
    words = [w for s in TALK["segments"] for w in s["words"]]
    read = [w for s in found["segments"] for w in s["words"]]
    assert [w["word"].strip() for w in read] == [w["word"].strip() for w in words]
    assert near([(w["start"], w["start"]) for w in read], 0.011, [(w["start"], w["start"]) for w in words])


@pytest.mark.parametrize("format", FORMATS)
def test_a_result_without_text_is_a_file_that_can_be_read(format: str, file: Callable[..., Path]) -> None:
    path = file(format, result())
    if format in READABLE and path.read_bytes():
        assert subtitles.read(path)["segments"] == []


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs", "Cf")), min_size=1)
HOSTILE = st.sampled_from(
    ["-->", "<v x>", "</v>", "&amp;", "{\\an8}", "{\\k50}", "\\N", '"', ";;", "[00:01.00]", "<00:00:01.000>", "1",
     "|M:", "\\", "<00:01.00>", "WEBVTT", "NOTE", "#", ",", "'", "00:00:01.000 --> 00:00:02.000", "]]>", "<!--",
     "\ufffe"]
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.lists(TEXT | HOSTILE, min_size=1, max_size=4), min_size=1, max_size=4))
def test_no_text_breaks_a_file(texts: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """As many texts come back as were written, each with its letters; but for those that a format replaces."""
    segments = [
        {"start": float(i), "end": i + 0.9, "text": " " + " ".join(words)} for i, words in enumerate(texts)
    ]  # without word times: one text each
    folder = tmp_path_factory.mktemp("texts")
    for format in READABLE:
        if format == "ctm":
            continue
        path = folder / f"x.{EXTENSIONS[format]}"
        subtitles.write(result(*segments), path, format=format)
        found = subtitles.read(path, format=format)["segments"]
        assert [same(s["text"]) for s in found if same(s["text"])] == [
            same(s["text"]) for s in segments if same(s["text"])
        ], format


def same(text: str) -> str:
    """What is left of a text where formats without escapes replace arrows, braces and what is no character."""
    text = text.replace("\ufffe", "").replace("\uffff", "").replace("\u2060", "")
    text = text.replace("\uff5b", "{").replace("\uff5d", "}")
    while "-->" in text:
        text = text.replace("-->", "->")
    return " ".join(text.split())


# ---------------------------------------------------------------------------------------------------------
# Names and damage
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", READABLE)
def test_a_format_is_told_by_content_or_ending(format: str, file: Callable[..., Path], tmp_path: Path) -> None:
    path = file(format, PLAIN)
    assert subtitles.read(path)["text"].strip()
    if format in ("vtt", "ass", "ttml", "ebuttd", "json", "podcast", "textgrid", "eaf"):
        other = tmp_path / "no ending"
        other.write_bytes(path.read_bytes())
        assert subtitles.read(other)["segments"] == subtitles.read(path)["segments"]


@pytest.mark.parametrize("format", READABLE)
def test_damage_is_an_error_or_less_text(format: str, file: Callable[..., Path]) -> None:
    """Cut off at any byte: the texts before remain, or the error says what is wrong."""
    path = file(format)
    data = path.read_bytes()
    for cut in range(0, len(data), max(len(data) // 40, 1)):
        path.write_bytes(data[:cut])
        try:
            found = subtitles.read(path, format=format)
        except DataError:
            continue
        assert len(found["segments"]) <= 13


@pytest.mark.parametrize("format", READABLE)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_bytes_are_an_error_or_a_result(format: str, data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x"
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        assert isinstance(subtitles.read(path, format=format)["segments"], list)


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(OptionError, match=r"'doc'.*srt.*edl"):
        written(PLAIN, "doc")
    with pytest.raises(OptionError, match=r"one of .*srt.*, not 'docx'"):
        subtitles.read(__file__, format="docx")
    with pytest.raises(DataError, match=r"none of the formats that are read"):
        subtitles.read(__file__)


def test_datetime_of_eaf_has_a_zone(file: Callable[..., Path]) -> None:
    date = ElementTree.parse(file("eaf")).getroot().get("DATE")
    assert date is not None
    assert datetime.datetime.fromisoformat(date).tzinfo is not None
