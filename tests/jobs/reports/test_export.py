"""Export: the same rows in every kind of file."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from whisper.cli import cli
from whisper.errors import DataError, MissingDependencyError, OptionError
from whisper.jobs.job import stores
from whisper.jobs.reports.export import COLUMNS, export

from .. import fakes
from ..fakes import Scene


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    real = fakes.transcript_of

    def with_words(content: str, n: int = 3) -> dict[str, Any]:
        found = real(content, n)
        for segment in found["segments"]:
            segment["words"] = [
                {"word": " a,\tb", "start": 0.0, "end": 0.5, "probability": 0.9},
                {"word": ' "c"', "start": 0.5, "end": 1.0, "probability": 0.8, "confidence": 0.7},
            ]
        return found

    monkeypatch.setattr(fakes, "transcript_of", with_words)
    made = Scene(tmp_path, 4)
    made.add("bad.wav", "bad")
    made.run(of_worker={"fails": fails})
    return made


def fails(source: str) -> None:
    if "bad" in source:
        raise FileNotFoundError(2, "No such file", source)


def exported(scene: Scene, name: str, rows: str) -> tuple[int, Path]:
    opened = stores(scene.out)
    try:
        return export(opened, scene.out / name, rows), scene.out / name
    finally:
        for store in opened:
            store.close()


@pytest.mark.parametrize(("rows", "n"), [("recordings", 5), ("segments", 12), ("words", 24)])
def test_all_kinds_of_files_have_the_same_rows(scene: Scene, rows: str, n: int) -> None:
    count, path = exported(scene, "t.jsonl", rows)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert count == len(lines) == n
    _, path = exported(scene, "t.csv", rows)
    with open(path, newline="") as file:
        table = list(csv.DictReader(file))
    _, path = exported(scene, "t.tsv", rows)
    with open(path, newline="") as file:
        assert list(csv.DictReader(file, delimiter="\t")) == table
    assert list(table[0]) == list(COLUMNS[rows])
    texts = [{name: "" if row.get(name) is None else str(row[name]) for name in COLUMNS[rows]} for row in lines]
    assert table == texts


@pytest.mark.parametrize("rows", sorted(COLUMNS))
def test_parquet_has_them_with_types(scene: Scene, rows: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    _, path = exported(scene, "t.jsonl", rows)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    _, path = exported(scene, "t.parquet", rows)
    found = parquet.read_table(path).to_pylist()
    assert [{name: value for name, value in row.items() if value is not None} for row in found] == lines


def test_what_is_in_a_row(scene: Scene) -> None:
    _, path = exported(scene, "t.jsonl", "recordings")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (failed,) = (row for row in lines if row["state"] == "failed")
    assert (failed["kind"], failed["error"]) == ("missing", f"No such file: {scene.inputs / 'bad.wav'}")
    done = lines[0]
    assert (done["words"], done["segments"], done["seconds"], done["language"]) == (6, 3, 3.0, "en")
    assert done["text"].endswith("said")
    assert done["finished"].endswith("+00:00")


def test_what_cannot_be_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="must end in"):
        exported(scene, "t.xlsx", "segments")
    with pytest.raises(OptionError, match="rows are"):
        exported(scene, "t.csv", "letters")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"sotto\[parquet\]"):
        exported(scene, "t.parquet", "segments")
    assert not (scene.out / "t.parquet").exists()


def test_words_that_were_not_asked_for_are_missed(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "other", 1)
    scene.run()
    with pytest.raises(DataError, match="--word_timestamps"):
        exported(scene, "t.csv", "words")
    assert not (scene.out / "t.csv").exists()


def test_the_command(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["jobs", "export", str(scene.out), str(scene.out / "all.csv"), "--rows", "words"]) == 0
    assert "24 words" in capsys.readouterr().err
