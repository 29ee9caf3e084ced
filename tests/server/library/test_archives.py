"""Several documents in one zip file: files of a format, and clips with a manifest to train on."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import av
from starlette.testclient import TestClient

from whisper.manifests import read_manifest
from whisper.server.library.archives import _stretches

from ..serving import error_of, sound
from .keeping import LIBRARY, add, added, client, keeping

EXPORT = f"{LIBRARY}/export"


def given(to: TestClient, **asked: Any) -> zipfile.ZipFile:
    answer = to.post(EXPORT, json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    return zipfile.ZipFile(io.BytesIO(answer.content))


def mended(to: TestClient, recording: Any, text: str) -> Any:
    first = recording["document"]["segments"][0]
    segment = {**first, "text": text, "words": [], "edited": True}
    splice = {"after": None, "remove": [first["uid"]], "insert": [segment]}
    answer = to.patch(f"{LIBRARY}/{recording['id']}", json={"version": 1, "splices": [splice]})
    assert answer.status_code == 200, answer.text
    return segment


def test_several_documents_are_files_of_one_archive(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        first, second = added(one, name="talk.mp3", tags=["a"]), added(one, name="../Talk.wav")
        every = given(one, format="srt")
        assert every.namelist() == ["_Talk.srt", "talk.srt"]  # the newest first
        single = one.get(f"{LIBRARY}/{first['id']}/export", params={"format": "srt"}).content
        assert every.read("talk.srt") == single
        assert given(one, format="txt", tag="a").namelist() == ["talk.txt"]
        ids = [first["id"], second["id"], first["id"]]
        assert given(one, format="csv", ids=ids).namelist() == ["talk.csv", "_Talk.csv"]
        one.patch(f"{LIBRARY}/{second['id']}", json={"name": "TALK.ogg"})
        assert given(one, format="json").namelist() == ["TALK.json", "talk (2).json"]
        narrow = given(one, format="srt", ids=[first["id"]], max_line_width=10, max_line_count=1).read("talk.srt")
        assert all(len(line) <= 12 or "-->" in line for line in narrow.decode().splitlines())


def test_what_cannot_be_given_is_an_error(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        assert error_of(one.post(EXPORT, json={}))["code"] == "nothing_to_export"
        recording = added(one)
        for asked, code in (
            ({"format": "exe"}, "invalid_value"), ({"ids": "x"}, "invalid_value"), ({"ids": [1]}, "invalid_value"),
            ({"ids": [f"rec_{'0' * 32}"]}, "not_found"), ({"ids": []}, "nothing_to_export"),
            ({"tag": "none"}, "nothing_to_export"), ({"max_line_width": "x"}, "invalid_value"),
        ):  # fmt: skip
            assert error_of(one.post(EXPORT, json={"format": "txt", **asked}))["code"] == code, asked
        broken = add(one, b"no sound")
        answer = one.post(EXPORT, json={"ids": [recording["id"], broken["id"]]})
        assert error_of(answer)["code"] == "not_finished"
        assert given(one, format="txt").namelist() == ["a.txt"]  # the others are left out where nobody names them
        assert one.post(EXPORT, data={"format": "txt"}).status_code == 415  # what a form of another site can send


def test_a_document_that_a_format_cannot_hold_does_not_keep_the_others(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        added(one, name="good.wav")
        bad = added(one, name="bad.wav")
        mended(one, bad, " New.")  # without words: CTM is a list of words with times
        archive = given(one, format="ctm")
        assert archive.namelist() == ["good.ctm", "not exported.txt"]
        assert archive.read("not exported.txt").startswith(b"bad.wav: ctm is a list of words with times")
        assert error_of(one.post(EXPORT, json={"format": "ctm", "ids": [bad["id"]]}))["code"] == "not_exportable"
        answer = one.get(f"{LIBRARY}/{bad['id']}/export", params={"format": "ctm"})
        assert (answer.status_code, error_of(answer)["code"]) == (409, "not_exportable")


def test_corrected_segments_become_a_manifest(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording, other = added(one, sound(8)), added(one, sound(4, start=3))
        n = sum(
            bool(s["text"].strip()) and s["end"] - s["start"] >= 0.1
            for of in (recording, other)
            for s in of["document"]["segments"]
        )
        assert len(given(one, format="manifest").namelist()) == n + 1  # nothing is corrected: all is taken
        first = mended(one, recording, " The mended\ttext")
        given(one, format="manifest").extractall(tmp_path / "clips")
        manifest = read_manifest(tmp_path / "clips" / "manifest.tsv")
        assert [(entry.text, entry.language) for entry in manifest.recordings] == [("The mended text", "en")]
        with av.open(str(tmp_path / "clips" / manifest.recordings[0].path)) as container:
            assert container.duration is not None
            margins = container.duration / 1e6 - (first["end"] - first["start"])
            assert -0.01 < margins <= 0.41


def test_a_clip_has_a_margin_that_reaches_into_no_other_segment() -> None:
    def segment(start: float, end: float, text: str = "x") -> dict[str, Any]:
        return {"start": start, "end": end, "text": text}

    found = _stretches([segment(0.1, 2), segment(2.05, 4), segment(9, 9.5, " "), segment(5, 34.9), segment(34, 36)])
    assert [(round(start, 3), round(end, 3)) for _, start, end in found] == [
        (0.0, 2.05), (2.0, 4.2), (4.95, 34.9), (34, 36.2),
    ]  # fmt: skip
