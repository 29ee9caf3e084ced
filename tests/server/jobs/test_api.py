"""Jobs over HTTP: results equal those of a request that waits; events, pages, keys, limits and what a restart keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from whisper.server.app import Server, build_app
from whisper.server.jobs import runner

from ..serving import HOST, TRANSCRIPTIONS, error_of, post, server, sound, wait_for

JOBS = "/v1/jobs"


@pytest.fixture
def keeping(tmp_path: Path) -> Server:
    return server(data_dir=str(tmp_path / "data"))


def client(of: Server) -> TestClient:
    """With its context, jobs run."""
    return TestClient(build_app(of), base_url=HOST)


def make(to: TestClient, audio: bytes | None = None, headers: Any = None, **fields: Any) -> Any:
    to.headers.update(headers or {})
    answer = post(to, audio, JOBS, **fields)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"{JOBS}/{answer.json()['id']}"
    return answer.json()


def events_of(to: TestClient, job: Any, last: int | None = None) -> list[tuple[int, Any]]:
    """Follow a job to its end."""
    headers = {} if last is None else {"last-event-id": str(last)}
    with to.stream("GET", f"{JOBS}/{job['id']}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    events = []
    for block in text.split("\n\n"):
        if block.startswith("id: "):
            number, data = block.split("\n")
            events.append((int(number[4:]), json.loads(data.removeprefix("data: "))))
    return events


def test_results_are_those_of_a_request_that_waits(keeping: Server) -> None:
    words = {"word_timestamps": "true"}
    formats = ["json", "text", "srt", "verbose_json", "vtt", "tsv", "transcript"]
    with client(keeping) as one:
        job = make(one, **words)
        assert (job["status"], job["position"], job["object"]) == ("queued", 0, "transcription.job")
        events_of(one, job)
        for name in formats:
            answer = one.get(f"{JOBS}/{job['id']}/result", params={"format": name})
            waited = post(one, response_format=name, **words)
            assert (answer.content, answer.headers["content-type"]) == (waited.content, waited.headers["content-type"])
        spoken = make(one, include="logprobs")
        events_of(one, spoken)
        assert one.get(f"{JOBS}/{spoken['id']}/result").json() == post(one, include="logprobs").json()
        assert "logprobs" not in one.get(f"{JOBS}/{spoken['id']}/result?format=verbose_json").json()
        assert error_of(one.get(f"{JOBS}/{job['id']}/result?format=doc"))["param"] == "format"
        assert error_of(one.get(f"{JOBS}/{job['id']}/result?format=diarized_json"))["param"] == "response_format"
        shown = one.get(f"{JOBS}/{job['id']}").json()
        assert shown["status"] == "succeeded"
        assert shown["expires_at"] == pytest.approx(shown["finished_at"] + 24 * 3600)
        assert shown["created_at"] <= shown["started_at"] <= shown["finished_at"]
    assert not os.listdir(keeping.jobs.store.folder / "uploads")  # type: ignore[union-attr]


def test_events_can_be_followed_from_anywhere(keeping: Server) -> None:
    with client(keeping) as one:
        job = make(one, sound(40))
        events = events_of(one, job)
        kinds = [event["type"] for _, event in events]
        assert [kinds[0], kinds[1], kinds[-1]] == ["job.queued", "job.running", "job.succeeded"]
        assert [number for number, _ in events] == list(range(1, len(events) + 1))
        for last in (0, 1, 3, len(events) - 1, len(events), 99):
            assert events_of(one, job, last) == events[last:]
        transcript = one.get(f"{JOBS}/{job['id']}/result?format=transcript").json()
        told = [event["segment"] for _, event in events if event["type"] == "job.segment"]
        assert told == [{name: s[name] for name in ("id", "start", "end", "text")} for s in transcript["segments"]]
        progress = [event for _, event in events if event["type"] == "job.progress"]
        assert progress[-1] == {"type": "job.progress", "seconds": 40.0, "total": 40.0}
        bad = one.get(f"{JOBS}/{job['id']}/events", headers={"last-event-id": "x"})
        assert error_of(bad)["code"] == "invalid_value"


def test_a_job_that_fails_says_why(keeping: Server) -> None:
    with client(keeping) as one:
        job = make(one, b"no sound at all")
        assert events_of(one, job)[-1][1]["error"]["code"] == "audio_unreadable"
        answer = one.get(f"{JOBS}/{job['id']}/result")
        assert (answer.status_code, error_of(answer)["code"]) == (400, "audio_unreadable")
        assert error_of(answer)["message"].startswith("the recording cannot be read")
        shown = one.get(f"{JOBS}/{job['id']}").json()
        assert (shown["status"], shown["error"]["code"]) == ("failed", "audio_unreadable")


def test_a_fault_of_ours_tells_nothing_of_itself(keeping: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a secret of the server")

    monkeypatch.setattr(runner.Work, "segments", fails)
    with client(keeping) as one:
        job = make(one)
        assert "secret" not in json.dumps(events_of(one, job))
        assert one.get(f"{JOBS}/{job['id']}/result").status_code == 500


def test_what_cannot_be_run_is_refused_at_once(keeping: Server) -> None:
    one = client(keeping)
    for fields, code in (
        ({"model": "gpt-9"}, "model_not_found"),
        ({"bem_size": "3"}, "unknown_parameter"),
        ({"stream": "true"}, "invalid_value"),
    ):
        assert error_of(post(one, None, JOBS, **fields))["code"] == code
    assert error_of(post(one, b"", JOBS))["code"] == "audio_unreadable"
    assert not os.listdir(keeping.jobs.store.folder / "uploads")  # type: ignore[union-attr]
    for address in (f"{JOBS}/job_1", f"{JOBS}/job_{'0' * 32}/result", f"{JOBS}/x/events", f"{JOBS}?after=x"):
        assert error_of(one.get(address))["code"] == "not_found"
    assert error_of(one.get(f"{JOBS}?limit=0"))["param"] == "limit"
    job = make(one)
    answer = one.get(f"{JOBS}/{job['id']}/result")
    assert (answer.status_code, error_of(answer)["code"]) == (409, "job_not_finished")


def test_without_a_folder_there_are_no_jobs() -> None:
    assert error_of(post(client(server()), None, JOBS))["code"] == "jobs_not_kept"


def test_owners_take_turns_and_see_their_own(tmp_path: Path) -> None:
    keeping = server(keys=("a", "b"), data_dir=str(tmp_path / "data"))
    one = client(keeping)  # without its context: nothing runs
    a, b = {"authorization": "Bearer a"}, {"authorization": "Bearer b"}
    ids = [make(one, headers=a)["id"] for _ in range(3)] + [make(one, headers=b)["id"]]
    position = {i: one.get(f"{JOBS}/{i}", headers=a if i != ids[3] else b).json()["position"] for i in ids}
    assert [position[i] for i in ids] == [0, 2, 3, 1]
    assert one.get(f"{JOBS}/{ids[3]}", headers=a).status_code == 404
    assert one.delete(f"{JOBS}/{ids[3]}", headers=a).status_code == 404
    page = one.get(f"{JOBS}?limit=2", headers=a).json()
    assert [job["id"] for job in page["data"]] == [ids[2], ids[1]]
    assert page["has_more"]
    rest = one.get(f"{JOBS}?after={page['last_id']}", headers=a).json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"]) == ([ids[0]], False)


def test_a_request_that_is_sent_again_makes_no_second_job(keeping: Server) -> None:
    one, headers = client(keeping), {"idempotency-key": "k"}
    assert make(one, headers=headers)["id"] == make(one, headers=headers)["id"]
    assert len(one.get(JOBS).json()["data"]) == 1
    assert len(os.listdir(keeping.jobs.store.folder / "uploads")) == 1  # type: ignore[union-attr]


def test_limits(tmp_path: Path) -> None:
    one = client(server(data_dir=str(tmp_path / "number"), max_jobs=1))
    make(one)
    answer = post(one, None, JOBS)
    assert (answer.status_code, error_of(answer)["code"]) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    one = client(server(data_dir=str(tmp_path / "bytes"), max_jobs_mb=0.05))
    assert post(one, None, JOBS).status_code == 429


def test_deleting_ends_what_runs(keeping: Server) -> None:
    with client(keeping) as one:
        job = make(one, sound(600))
        jobs = keeping.jobs
        assert jobs is not None
        wait_for(lambda: jobs.running and next(iter(jobs.running.values())).duration)
        (work,) = jobs.running.values()
        answer = one.delete(f"{JOBS}/{job['id']}")
        assert answer.json() == {"id": job["id"], "object": "transcription.job", "deleted": True}
        wait_for(lambda: not jobs.running)
        assert work.cancel.is_set()
        assert one.get(f"{JOBS}/{job['id']}").status_code == 404


@pytest.mark.parametrize("most", [1, 2])
def test_so_many_run_at_once(most: int, tmp_path: Path) -> None:
    keeping = server(data_dir=str(tmp_path / "data"), max_running_jobs=most)
    with client(keeping) as one:
        made = [make(one, sound(300)) for _ in range(2)]
        jobs = keeping.jobs
        assert jobs is not None
        wait_for(lambda: len(jobs.running) == most)
        statuses = [one.get(f"{JOBS}/{job['id']}").json()["status"] for job in made]
        assert statuses == ["running", "running" if most == 2 else "queued"]
        for job in made:
            one.delete(f"{JOBS}/{job['id']}")
        wait_for(lambda: not jobs.running)


def test_what_has_ended_is_forgotten_after_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RETENTION_CHECK", 0.05)
    with client(server(data_dir=str(tmp_path / "data"), job_retention_hours=0)) as one:
        job = make(one)
        wait_for(lambda: one.get(f"{JOBS}/{job['id']}").status_code == 404)
    with client(server(data_dir=str(tmp_path / "kept"), job_retention_hours=2)) as one:
        job = make(one)
        events_of(one, job)
        described = one.get(f"{JOBS}/{job['id']}").json()
        assert described["expires_at"] == pytest.approx(described["finished_at"] + 7200)


def test_a_job_outlives_the_server(tmp_path: Path) -> None:
    options = {"data_dir": str(tmp_path / "data")}
    first = server(**options)
    with client(first) as one:
        done, running = make(one), make(one, sound(300))
        events_of(one, done)
        assert first.jobs is not None
        wait_for(lambda: first.jobs.running)  # type: ignore[union-attr]
    with client(server(**options)) as one:
        before = one.get(f"{JOBS}/{done['id']}/result?format=transcript").json()
        assert before["text"] == post(one, response_format="transcript").json()["text"]
        one.delete(f"{JOBS}/{running['id']}")
        again = make(one, sound(3))
        kinds = [event["type"] for _, event in events_of(one, again)]
        assert kinds[-1] == "job.succeeded"


def test_a_job_is_run_again_after_a_restart(tmp_path: Path) -> None:
    options = {"data_dir": str(tmp_path / "data")}
    first = server(**options)
    job = make(client(first))  # nothing runs
    store = first.jobs.store  # type: ignore[union-attr]
    store.start(store.waiting()[0])
    store.close()  # as when the process is killed: the job counts as running
    with client(server(**options)) as one:
        kinds = [event["type"] for _, event in events_of(one, job)]
        assert kinds[:4] == ["job.queued", "job.running", "job.queued", "job.running"]
        assert one.get(f"{JOBS}/{job['id']}/result").content == post(one, path=TRANSCRIPTIONS).content
