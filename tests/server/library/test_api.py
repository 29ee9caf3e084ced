"""The library over HTTP: uploads become documents, changes meet their version, and each key sees its own."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from whisper.server.jobs.runner import Jobs
from whisper.server.jobs.store import Job
from whisper.server.work import Work
from whisper.transcribe import transcribe_with_report

from ..serving import TRANSCRIPTIONS, error_of, nano, post, server, sound, spoken
from .keeping import LIBRARY, add, added, client, ended, keeping


def edited(recording: Any, text: str = " Something else") -> dict[str, Any]:
    """A change that gives the first segment another text."""
    first = recording["document"]["segments"][0]
    words = [{"word": f" {word}", "start": first["start"], "end": first["end"]} for word in text.split()]
    splice = {
        "after": None,
        "remove": [first["uid"]],
        "insert": [{**first, "text": text, "words": words, "edited": True}],
    }
    return {"version": recording["version"], "splices": [splice]}


def test_an_upload_becomes_a_document(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording = added(one, name="  A <b>talk</b>.wav ", tags=["x", "x"], audit="true")
        assert (recording["name"], recording["tags"], recording["version"]) == ("A <b>talk</b>.wav", ["x"], 1)
        assert recording["duration"] == pytest.approx(4.0)
        samples = spoken()[:64000].astype("float32") / 32768
        transcript, report = transcribe_with_report(
            nano(), samples, language="en", sample_len=12, word_timestamps=True, word_confidence=True
        )
        document = recording["document"]
        assert [segment["text"] for segment in document["segments"]] == [s["text"] for s in transcript["segments"]]
        assert [segment["words"] for segment in document["segments"]] == [s["words"] for s in transcript["segments"]]
        assert len(document["findings"]) == len(report.findings)
        assert document["speech"] == [[round(a, 2), round(b, 2)] for a, b in report.speech or ()]
        listed = one.get(LIBRARY).json()
        assert [found["id"] for found in listed["data"]] == [recording["id"]]
        assert listed["tags"] == [{"tag": "x", "count": 1}]
        assert listed["is_lasting"]
        assert "document" not in listed["data"][0]


def test_its_events_tell_of_segments_with_words(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording = added(one)
        text = one.get(f"{LIBRARY}/{recording['id']}/events").text
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        assert events[-1]["type"] == "job.succeeded"
        told = [event["segment"] for event in events if event["type"] == "job.segment"]
        assert [segment["text"] for segment in told] == [s["text"] for s in recording["document"]["segments"]]
        assert all(segment["words"] for segment in told)


def test_changes_meet_their_version(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording = added(one)
        path = f"{LIBRARY}/{recording['id']}"
        change = {**edited(recording), "change_id": "one"}
        assert one.patch(path, json=change).json()["version"] == 2
        assert one.patch(path, json=change).json()["version"] == 2  # its answer was lost, and it came again
        late = one.patch(path, json={**change, "change_id": "two"})
        assert (late.status_code, error_of(late)["code"]) == (409, "version_conflict")
        now = one.get(path).json()
        assert now["document"]["segments"][0]["text"] == " Something else"
        assert one.get(LIBRARY + "/search", params={"q": "something el"}).json()["data"][0]["uid"] == "s0"
        original = one.get(path, params={"original": "true"}).json()
        assert original["document"] == recording["document"]
        renamed = one.patch(path, json={"name": " New  name ", "tags": ["a", " b "]}).json()
        assert (renamed["name"], renamed["tags"], renamed["version"]) == ("New name", ["a", "b"], 2)
        for wrong in ({"name": " "}, {"name": 3}, {"tags": "a"}, {"version": 2, "splices": 3}, []):
            assert one.patch(path, json=wrong).status_code == 400


def test_a_form_of_another_site_cannot_change_anything(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording = added(one)
        path = f"{LIBRARY}/{recording['id']}"
        plain = one.patch(path, content=json.dumps({"name": "x"}), headers={"content-type": "text/plain"})
        assert plain.status_code == 415
        foreign = {"origin": "https://evil.example"}
        for answer in (one.delete(path, headers=foreign), one.post(f"{path}/retry", headers=foreign),
                       one.post(LIBRARY, headers=foreign), one.post(LIBRARY, headers={"origin": "null"})):  # fmt: skip
            assert error_of(answer)["code"] == "origin_not_allowed"
        assert one.get(path).json()["name"] == "a.wav"


def test_each_key_sees_its_own(tmp_path: Path) -> None:
    with client(keeping(tmp_path, keys=("mine", "other"))) as one:
        mine, other = {"authorization": "Bearer mine"}, {"authorization": "Bearer other"}
        one.headers.update(mine)
        recording = added(one)
        path = f"{LIBRARY}/{recording['id']}"
        one.headers.clear()
        one.headers.update({"host": "localhost"})
        for method, address in (("GET", path), ("PATCH", path), ("DELETE", path), ("GET", f"{path}/sound"),
                                ("GET", f"{path}/peaks"), ("GET", f"{path}/export"), ("POST", f"{path}/align"),
                                ("POST", f"{path}/retry"), ("POST", f"{path}/cancel"), ("GET", f"{path}/events"),
                                ("GET", f"{LIBRARY}/manifest?ids={recording['id']}")):  # fmt: skip
            assert one.request(method, address).status_code == 401
            assert one.request(method, address, headers=other, json={} if method != "GET" else None).status_code == 404
        assert one.get(LIBRARY, headers=other).json()["data"] == []
        assert one.get(LIBRARY + "/search", params={"q": "a"}, headers=other).json()["data"] == []


def test_sound_is_heard_with_a_ticket_and_without_a_key(tmp_path: Path) -> None:
    with client(keeping(tmp_path, keys=("mine", "other"))) as one:
        key = {"authorization": "Bearer mine"}
        audio = sound(4)
        one.headers.update(key)
        recording = added(one, audio)
        del one.headers["authorization"]
        path = f"{LIBRARY}/{recording['id']}/sound"
        assert one.get(path).status_code == 401
        assert one.post(f"{LIBRARY}/ticket", headers=key).status_code == 200
        assert one.get(path).content == audio
        part = one.get(path, headers={"range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, audio[10:20])
        assert part.headers["content-type"] in ("audio/x-wav", "audio/wav", "audio/vnd.wave")
        assert part.headers["x-content-type-options"] == "nosniff"
        assert one.get(path, params={"copy": "true"}).content[:4] == b"RIFF"
        assert one.get(path.removesuffix("/sound")).status_code == 401
        one.cookies.clear()
        one.post(f"{LIBRARY}/ticket", headers={"authorization": "Bearer other"})
        assert one.get(path).status_code == 404


def test_a_file_is_never_shown_as_a_page(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        for name in ("evil.html", "evil.svg", "x"):
            recording = added(one, name=name)
            answer = one.get(f"{LIBRARY}/{recording['id']}/sound")
            assert answer.headers["content-type"] == "application/octet-stream"
            assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_peaks(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording = added(one)
        path = f"{LIBRARY}/{recording['id']}/peaks"
        data = one.get(path, params={"start": 0, "end": 4, "n": 300}).content
        assert len(data) == 600
        assert any(data)
        for wrong in ({"n": 0}, {"n": 99999}, {"start": "x"}, {"end": "nan"}, {"start": -1}):
            assert one.get(path, params=wrong).status_code == 400


def test_what_failed_says_why_and_can_be_tried_again(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording = ended(one, add(one, b"this is no sound at all"))
        assert (recording["status"], recording["error"]["code"]) == ("failed", "audio_unreadable")
        assert recording["error"]["message"].startswith("the recording cannot be read")
        path = f"{LIBRARY}/{recording['id']}"
        assert one.get(LIBRARY).json()["data"][0]["status"] == "failed"
        assert error_of(one.get(f"{path}/export"))["code"] == "not_finished"
        assert one.post(f"{path}/retry").json()["status"] in ("working", "failed")
        assert ended(one, recording)["status"] == "failed"
        assert error_of(one.post(f"{path}/cancel"))["code"] == "not_running"
        good = added(one)
        assert error_of(one.post(f"{LIBRARY}/{good['id']}/retry"))["code"] == "not_failed"


def test_a_cancelled_recording_stays_and_can_be_tried_again(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording = add(one, sound(600))
        path = f"{LIBRARY}/{recording['id']}"
        assert one.post(f"{path}/cancel").json()["status"] == "cancelled"
        assert one.get(path).json()["status"] == "cancelled"
        assert one.post(f"{path}/retry").json()["status"] == "working"
        one.post(f"{path}/cancel")


def test_deleted_means_gone(tmp_path: Path) -> None:
    of = keeping(tmp_path)
    with client(of) as one:
        recording = added(one)
        running = add(one, sound(600))
        assert of.library is not None
        for found in (recording, running):
            assert one.delete(f"{LIBRARY}/{found['id']}").json()["deleted"]
            assert one.get(f"{LIBRARY}/{found['id']}").status_code == 404
        folder = Path(of.options.library or "")
        assert not [name for name in os.listdir(folder / "sounds") if recording["id"] in name]


def test_wrong_uploads_leave_nothing(tmp_path: Path) -> None:
    of = keeping(tmp_path)
    with client(of) as one:
        for fields in ({"beam_sice": "3"}, {"stream": "true"}, {"response_format": "srt"}, {"tags": "no list"},
                       {"model": "other"}, {"name": "x" * 300}):  # fmt: skip
            data = {"model": "nano", **fields}
            answer = one.post(LIBRARY, data=data, files={"file": ("x", sound(1))})
            assert answer.status_code in (400, 404)
            error_of(answer)
        assert one.post(LIBRARY, json={}).status_code == 415
        assert one.get(LIBRARY).json()["data"] == []
        assert not os.listdir(Path(of.options.library or "") / "sounds")


def test_an_upload_without_room_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with client(keeping(tmp_path, max_jobs_mb=0.01)) as one:
        answer = one.post(LIBRARY, data={"model": "nano"}, files={"file": ("x", sound(4))})
        assert (answer.status_code, error_of(answer)["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0


def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        done = added(one, tags=["kept"])
        one.patch(f"{LIBRARY}/{done['id']}", json=edited(done))
        begun = add(one, sound(30))
    with client(keeping(tmp_path)) as one:
        assert one.get(f"{LIBRARY}/{done['id']}").json()["document"]["segments"][0]["text"] == " Something else"
        assert ended(one, begun)["status"] == "done"
        assert one.get(LIBRARY).json()["tags"] == [{"tag": "kept", "count": 1}]


def test_an_upload_is_closed_where_the_server_ends_before_its_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Work] = []
    is_made = threading.Event()
    make_work = Jobs.make_work

    def make_slowly(jobs: Jobs, job: Job) -> Work:
        made.append(make_work(jobs, job))
        is_made.set()
        time.sleep(0.5)
        return made[0]

    monkeypatch.setattr(Jobs, "make_work", make_slowly)
    with client(keeping(tmp_path)) as one:
        recording = add(one)
        assert is_made.wait(10)
    assert made[0].file.closed
    monkeypatch.setattr(Jobs, "make_work", make_work)
    with client(keeping(tmp_path)) as one:
        assert ended(one, recording)["status"] == "done"


def test_without_a_folder_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    of = server()
    with client(of) as one:
        added(one)
        assert not one.get(LIBRARY).json()["is_lasting"]
        assert list(tmp_path.glob("sotto-library-*/sounds/*"))
    assert not list(tmp_path.glob("sotto-library-*"))


def test_words_of_corrected_segments_get_times(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording = added(one, sound(8))
        first = recording["document"]["segments"][0]
        path = f"{LIBRARY}/{recording['id']}/align"
        asked = {"start": first["start"], "end": first["end"], "texts": [first["text"]], "language": "en"}
        answer = one.post(path, json=asked)
        assert answer.status_code == 200, answer.text
        (words,) = answer.json()["segments"]
        assert "".join(word["word"] for word in words).split() == first["text"].split()
        near = [(word["start"], known["start"]) for word, known in zip(words, first["words"], strict=False)]
        assert all(abs(a - b) < 1.0 for a, b in near)
        for wrong in ({**asked, "texts": []}, {**asked, "texts": [" "]}, {**asked, "end": 0}, {**asked, "end": 1e6},
                      {**asked, "language": "klingon"}, {}, {**asked, "start": 500, "end": 501}):  # fmt: skip
            assert one.post(path, json=wrong).status_code == 400
        assert error_of(one.post(path, json={**asked, "language": "klingon"}))["code"] == "not_aligned"


def test_other_addresses_are_what_they_were(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        assert error_of(one.get("/v1/jobs"))["code"] == "jobs_not_kept"
        assert post(one, path=TRANSCRIPTIONS).status_code == 200
        assert one.get(LIBRARY).json()["data"] == []
    without: TestClient = client(server(page=False))
    assert without.get(LIBRARY).status_code == 404
    assert without.get("/").status_code == 404
