"""Manifests: all formats agree, skipped entries have a line and a reason, and unusable files are refused."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper.errors import DataError, LanguageError
from whisper.manifests.read import ManifestEntry, read_manifest, resolve_language

Rows = list[dict[str, Any]]

plain = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30).map(str.strip)
seconds = st.floats(0.01, 1e4).map(lambda x: round(x, 3))


@st.composite
def rows_of_any_kind(draw: st.DrawFn) -> dict[str, Any]:
    start = draw(seconds)
    spans = draw(st.lists(seconds, max_size=3).map(sorted))
    return {
        "file": f"{draw(st.sampled_from(['set a', 'b']))}/é {draw(st.integers(0, 3))}.wav",
        "text": draw(plain), "language": draw(st.sampled_from(["en", "fr", "yue", ""])), "speaker": draw(plain),
        "set": draw(plain), "start": start, "end": start + draw(seconds),
        "words": [{"word": "w\"o,r;d", "start": t, "end": t + 0.5} for t in spans], "licence": draw(plain),
    }  # fmt: skip


def write(path: Path, rows: Rows, *, bom: bool = False, newline: str = "\n") -> None:
    """Write entries as a manifest of the kind that `path` ends in."""
    flat = [{k: json.dumps(v) if isinstance(v, list) else str(v) for k, v in row.items()} for row in rows]
    with open(path, "w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
        if path.suffix == ".tsv":
            for cells in [list(flat[0]), *(list(row.values()) for row in flat)]:
                file.write("\t".join(cells) + newline)
        elif path.suffix == ".csv":
            writer = csv.DictWriter(file, list(flat[0]), lineterminator=newline)
            writer.writeheader()
            writer.writerows(flat)
        else:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + newline)


def audio(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def reasons(folder: Path, **options: Any) -> list[tuple[int, str]]:
    return [(bad.line, bad.reason.split(":")[0]) for bad in read_manifest(folder, **options).skipped]


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(rows_of_any_kind(), min_size=1, max_size=4), bom=st.booleans(), crlf=st.booleans())
def test_what_is_written_in_any_format_is_read_back(rows: Rows, bom: bool, crlf: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio(folder, *(row["file"] for row in rows))
        expected = [
            ManifestEntry(
                str(folder / row["file"]), row["text"], row["language"] or None, row["speaker"],
                row["set"] or row["file"].split("/")[0], row["start"], row["end"],
                tuple((w["word"], w["start"], w["end"]) for w in row["words"]), None, {"licence": row["licence"]},
            )
            for row in rows
        ]  # fmt: skip
        for file in ("m.tsv", "m.csv", "m.jsonl", "m.json"):
            write(folder / file, rows, bom=bom, newline="\r\n" if crlf else "\n")
            manifest = read_manifest(folder / file)
            assert manifest.skipped == []
            assert manifest.recordings == expected
        (folder / "list.json").write_text(json.dumps(rows))
        assert read_manifest(folder / "list.json").recordings == expected


def test_csv_keeps_line_breaks_and_counts_them(tmp_path: Path) -> None:
    audio(tmp_path, "a.wav")
    (tmp_path / "m.csv").write_text('file,text\na.wav,"one\ntwo, ""three"""\nb.wav,x\n')
    manifest = read_manifest(tmp_path / "m.csv")
    assert [r.text for r in manifest.recordings] == ['one\ntwo, "three"']
    assert [bad.line for bad in manifest.skipped] == [4]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "train/metadata.csv", "manifest.tsv"])
def test_folders_of_the_hugging_face_kind(tmp_path: Path, name: str) -> None:
    audio(tmp_path / Path(name).parent, "clips/a.wav")
    write(tmp_path / name, [{"file_name": "clips/a.wav", "transcription": "yes"}])
    [recording] = read_manifest(tmp_path).recordings
    assert (recording.text, recording.group, recording.language) == ("yes", "clips", None)
    assert Path(recording.path).is_file()


def test_a_bare_folder_has_its_texts_beside_the_recordings(tmp_path: Path) -> None:
    audio(tmp_path, "x/a.FLAC", "b.mp3", "notes.pdf")
    (tmp_path / "x" / "a.txt").write_text("\ufeffgood day\r\n", encoding="utf-8")
    found = [(r.text, r.group) for r in read_manifest(tmp_path).recordings]
    assert found == [("", ""), ("good day", "x")]
    assert reasons(tmp_path, require_text=True) == [(0, "empty text")]


def test_nemo_tells_a_part_by_offset_and_duration(tmp_path: Path) -> None:
    audio(tmp_path, "a.wav")
    row = {"audio_filepath": str(tmp_path / "a.wav"), "duration": 2.5, "offset": 4, "text": "a", "lang": "German"}
    write(tmp_path / "m.json", [row, {**row, "offset": -1}])
    manifest = read_manifest(tmp_path / "m.json")
    [recording] = manifest.recordings
    assert (recording.start, recording.end, recording.seconds, recording.language) == (4, 6.5, 2.5, "de")
    assert manifest.skipped[0].reason == "times out of order: starts at -1 s"


def test_skipped_entries_have_line_and_reason(tmp_path: Path) -> None:
    audio(tmp_path, "a.wav")
    good = {"audio": {"path": "a.wav"}, "text": "a", "language": "en"}
    lines = [
        good, {**good, "audio": "b.wav"}, {**good, "text": " "}, {**good, "text": 7}, {**good, "duration": 31},
        {**good, "language": "Klingon"}, {**good, "start": 3, "end": 2}, {**good, "duration": "1,5"},
        {**good, "end": 9, "duration": 8}, {**good, "language": "de"}, {**good, "language": "none"},
        {**good, "words": [["a", 1, 2], ["b", 0, 1]]}, {**good, "words": "a b"}, {"text": "a"},
        {**good, "words": [{"word": "a", "start": 1}]}, {**good, "duration": float("nan")}, [1],
    ]  # fmt: skip
    texts = [json.dumps(line) for line in lines]
    texts += ['{"audio": "a.wav", "text"', '{"audio": "a.wav", "text": "a", "text": "b"}', ""]
    raw = "\n".join(texts).encode() + b'{"audio": "a.wav", "text": "\xff"}\n' + json.dumps(good).encode()
    (tmp_path / "m.jsonl").write_bytes(raw)
    options = {"languages": ["English"], "max_seconds": 30, "require_text": True}
    manifest = read_manifest(tmp_path / "m.jsonl", **options)
    assert len(manifest.recordings) == 2
    assert reasons(tmp_path / "m.jsonl", **options) == [
        (2, "missing file"), (3, "empty text"), (4, "text is not a string"), (5, "too long"), (6, "unknown language"),
        (7, "times out of order"), (8, "duration is not a number of seconds"), (9, "times out of order"),
        (10, "language not asked for"), (11, "language is none but there is a text"), (12, "times out of order"),
        (13, "words are not JSON"), (14, "no audio file given"), (15, "words lack a word, a start or an end"),
        (16, "duration is not a number of seconds"), (17, "not a JSON object"), (18, "invalid JSON"),
        (19, "duplicate column"), (20, "not UTF-8"),
    ]  # fmt: skip
    text = manifest.describe(n_examples=1)
    assert text.splitlines()[:3] == [
        f"{tmp_path / 'm.jsonl'}: 2 recordings",
        "  en: 2 recordings",
        "19 entries skipped",
    ]
    assert "    line 2: missing file: b.wav" in text
    assert "  times out of order: 3\n" in text
    assert "    and 2 more" in text
    text.encode()  # can be printed, whatever the file held


def test_skipped_entries_of_tables(tmp_path: Path) -> None:
    audio(tmp_path, "a.wav")
    table = 'file\ttext\tText\na.wav\t"a\t"a\na.wav\ta\tb\na.wav\ta\n\na.wav\ta\ta\tb\n'
    (tmp_path / "m.tsv").write_text(table)
    assert [r.text for r in read_manifest(tmp_path / "m.tsv").recordings] == ['"a']
    bad = [(3, "duplicate column"), (4, "wrong number of cells"), (6, "wrong number of cells")]
    assert reasons(tmp_path / "m.tsv") == bad


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    files = {
        "empty.tsv": "\n", "heading.csv": "file,text\n", "none.csv": "fiel_name,text\na,b\n", "x.jsonl": '{"fil": 1}',
        "broken.jsonl": "{", "list.json": "[{", "notes.doc": "file\ttext\n",
    }  # fmt: skip
    messages = {
        "empty.tsv": "is empty", "heading.csv": "no entries", "none.csv": "is 'fiel_name' meant to be 'file_name'?",
        "x.jsonl": "is 'fil' meant to be 'file'?", "broken.jsonl": "line 1: invalid JSON", "list.json": "JSON list",
        "notes.doc": "must end in .tsv", "nowhere.tsv": "does not exist",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for name, message in messages.items():
        with pytest.raises(DataError) as caught:
            read_manifest(tmp_path / name)
        assert message in str(caught.value)
        assert name in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no recordings"):
        read_manifest(tmp_path / "folder")
    with pytest.raises(LanguageError, match="did you mean 'english'"):
        read_manifest(tmp_path / "none.csv", languages=["englich"])


@pytest.mark.parametrize(
    ("name", "code"),
    [("EN", "en"), ("English", "en"), ("sv-SE", "sv"), ("zh_Hans-CN", "zh"), ("nb-NO", "no"), ("Castilian", "es"),
     ("haitian creole", "ht"), ("yue", "yue"), (" none ", "none"), ("", None)],
)  # fmt: skip
def test_languages_are_resolved(name: str, code: str | None) -> None:
    assert resolve_language(name) == code


@pytest.mark.shared
def test_the_real_manifests(shared_data: Path) -> None:
    train = read_manifest(shared_data / "train")
    assert train.skipped == []
    count = {language: sum(r.language == language for r in train.recordings) for language in ("en", "fr")}
    assert count == {"en": 10718, "fr": 1267}
    assert len({r.group for r in train.recordings}) == 6
    dev = read_manifest(shared_data / "dev", require_text=True)
    # 851 rows: 21 with speech have no text, of which one is in two languages at once
    assert sum(r.language == "none" for r in dev.recordings) == 27
    assert len(dev.recordings) + len(dev.skipped) == 851
    assert {bad.reason.split(":")[0] for bad in dev.skipped} == {"empty text", "unknown language"}
