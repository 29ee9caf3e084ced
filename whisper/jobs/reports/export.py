"""All that a job knows as one table: recordings, segments or words, as Parquet, CSV, TSV or lines of JSON.

Rows are written as they are read, so that the size of a job does not matter; the file appears whole. Parquet needs the
extra ``parquet``.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import IO, Any

from ...errors import DataError, MissingDependencyError, OptionError
from ...files import atomic_write
from ..outputs import read_result
from ..store import JobStore, Recording

# by kind of row: names of columns with their types
_WHERE = {"source": str, "name": str}
COLUMNS: dict[str, dict[str, type]] = {
    "recordings": {
        **_WHERE, "state": str, "kind": str, "error": str, "tries": int, "size": int, "content": str, "seconds": float,
        "wall": float, "language": str, "words": int, "segments": int, "logprob": float, "speech": float,
        "at_stake": float, "warnings": str, "started": str, "finished": str, "text": str,
    },
    "segments": {
        **_WHERE, "segment": int, "start": float, "end": float, "text": str, "language": str, "channel": int,
        "speaker": str, "avg_logprob": float, "compression_ratio": float, "no_speech_prob": float, "temperature": float,
    },
    "words": {
        **_WHERE, "segment": int, "start": float, "end": float, "word": str, "probability": float, "confidence": float,
        "language": str, "channel": int, "speaker": str,
    },
}  # fmt: skip
FORMATS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
_BATCH = 10_000  # rows that are written at once


def export(stores: Iterable[JobStore], path: str | os.PathLike[str], rows: str = "segments") -> int:
    """Write a table.

    Parameters
    ----------
    stores
        The parts of the job.
    path
        The file; its suffix is one of `FORMATS`.
    rows
        One of `COLUMNS`: what a row is.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    OptionError
        There is no such kind of row or of file.
    MissingDependencyError
        pyarrow is not installed.
    DataError
        No recording has words, where words are asked for.
    """
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if rows not in COLUMNS:
        raise OptionError(f"rows are {', '.join(COLUMNS)}, not {rows!r}")
    if suffix not in FORMATS:
        raise OptionError(f"{os.fspath(path)!r} must end in {', '.join(FORMATS)}")
    write = _parquet if suffix == ".parquet" else _json_lines if suffix in (".jsonl", ".ndjson") else _separated(suffix)
    counted = _Counted(_rows(stores, rows))
    with atomic_write(path) as file:
        write(file, counted, COLUMNS[rows])
        if rows == "words" and not counted.n:
            raise DataError("no recording of the job has words: run it with --word_timestamps True")
    return counted.n


class _Counted:
    """Counts what it gives on."""

    def __init__(self, rows: Iterator[dict[str, Any]]) -> None:
        self.rows, self.n = rows, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            self.n += 1
            yield row


# ---------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------


def _rows(stores: Iterable[JobStore], rows: str) -> Iterator[dict[str, Any]]:
    make = {"segments": _segments, "words": _words}.get(rows)
    for store in stores:
        if make is None:
            yield from _recordings(store)
            continue
        for one, result in results(store):
            yield from make(one, result)


def results(store: JobStore) -> Iterator[tuple[Recording, dict[str, Any]]]:
    """Give the recordings that are done, each with its kept result; one whose result is lost is passed over."""
    last = 0
    while found := store.finished(last):
        for one, file in found:
            if (result := read_result(store.out, file)) is not None:
                yield one, result
        last = found[-1][0].id


def _recordings(store: JobStore) -> Iterator[dict[str, Any]]:
    texts = {}
    for one, result in results(store):
        texts[one.id] = result["transcript"]["text"].strip()
        yield _recording(one, texts.pop(one.id))
    for one in store.recordings(["waiting", "running", "failed", "skipped"]):
        yield _recording(one, None)


def _recording(one: Recording, text: str | None) -> dict[str, Any]:
    own = {name: getattr(one, name) for name in COLUMNS["recordings"] if hasattr(one, name)}
    figures = {name: one.figures.get(name) for name in ("words", "segments", "logprob", "speech", "at_stake")}
    times = {name: _time(getattr(one, name)) for name in ("started", "finished")}
    return {**own, **figures, **times, "warnings": "\n".join(one.figures.get("warnings", ())), "text": text}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _segments(one: Recording, result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for segment in result["transcript"]["segments"]:
        row = {name: segment.get(name) for name in COLUMNS["segments"]}
        yield {**row, "source": one.source, "name": one.name, "segment": segment["id"],
               "language": segment.get("language") or one.language, "text": segment["text"].strip()}  # fmt: skip


def _words(one: Recording, result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for segment in result["transcript"]["segments"]:
        for word in segment.get("words", ()):
            row = {name: word.get(name, segment.get(name)) for name in COLUMNS["words"]}
            yield {**row, "source": one.source, "name": one.name, "segment": segment["id"],
                   "language": segment.get("language") or one.language, "word": word["word"].strip()}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """Replace half characters, as of names that are not UTF-8, which no table holds."""
    return {
        name: value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
        for name, value in row.items()
    }


def _json_lines(file: IO[bytes], rows: Iterable[dict[str, Any]], _: Mapping[str, type]) -> None:
    for row in rows:
        known = {name: value for name, value in _clean(row).items() if value is not None}
        file.write(json.dumps(known, ensure_ascii=False).encode() + b"\n")


def _separated(suffix: str) -> Callable[[IO[bytes], Iterable[dict[str, Any]], Mapping[str, type]], None]:
    def write(file: IO[bytes], rows: Iterable[dict[str, Any]], columns: Mapping[str, type]) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.DictWriter(text, list(columns), delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
        table.writeheader()
        table.writerows(map(_clean, rows))
        text.flush()
        text.detach()

    return write


def _parquet(file: IO[bytes], rows: Iterable[dict[str, Any]], columns: Mapping[str, type]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError("Parquet needs the package pyarrow", "parquet") from error
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(_clean(row))
            if len(batch) == _BATCH:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                batch.clear()
        writer.write_table(pyarrow.Table.from_pylist(batch, schema))
