"""The state of a job: what is given out, to whom, and what comes back."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from whisper.errors import DataError
from whisper.jobs.content import Stamp
from whisper.jobs.failures import Next
from whisper.jobs.inputs import Input
from whisper.jobs.store import JobStore, Planned, job_files

STAMP = Stamp(10, "1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore(tmp_path)
    yield opened
    opened.close()


def named(name: str, folder: str = "/in", **changed: object) -> Input:
    stem, _ = os.path.splitext(name)
    values = {"key": f"{folder}/{name}", "source": f"{folder}/{name}", "name": stem, "spare_name": name, "stamp": STAMP}
    return Input(**{**values, **changed})  # type: ignore[arg-type]


def planned(store: JobStore, *inputs: Input, recipe: str = "r", **options: object) -> Planned:
    return store.plan(inputs, lambda overrides: recipe + overrides, **options)  # type: ignore[arg-type]


def test_names_of_files_are_never_shared(store: JobStore) -> None:
    five = [named("a.mp3"), named("a.wav"), named("A.flac"), named("a.mp3", "/other"), named("a.mp3", "/third")]
    planned(store, *(replace(one, stamp=Stamp(i, "1")) for i, one in enumerate(five)))
    names = [one.name for one in store.recordings()]
    assert sorted(names) == ["A.flac", "a", "a.mp3", "a.mp3.2", "a.wav"]
    planned(store, named("a.mp3", "/third"), named("a.wav"))
    assert sorted(one.name for one in store.recordings()) == sorted(names)


def test_names_need_not_be_utf_8(store: JobStore) -> None:
    name = os.fsdecode(b"caf\xe9 \n'\".wav")
    planned(store, named(name))
    (one,) = store.recordings()
    assert one.source == f"/in/{name}"


def test_no_recording_is_given_out_twice(tmp_path: Path) -> None:
    stores = [JobStore(tmp_path) for _ in range(4)]
    planned(stores[0], *(named(f"{i}.wav") for i in range(300)))
    taken: list[int] = []

    def take(store: JobStore, runner: str) -> None:
        while found := store.claim(runner, 3):
            taken.extend(one.id for one in found)

    threads = [threading.Thread(target=take, args=(s, f"r{i}")) for i, s in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for opened in stores:
        opened.close()
    assert len(taken) == 300
    assert Counter(taken).most_common(1)[0][1] == 1


def test_higher_priorities_come_first_and_then_the_order(store: JobStore) -> None:
    planned(
        store,
        named("a.wav", stamp=Stamp(5, "1")),
        named("b.wav", stamp=Stamp(1, "1")),
        named("c.wav", stamp=Stamp(9, "1"), priority=1),
        order="shortest",
    )
    assert [one.name for one in store.claim("r", 9)] == ["c", "b", "a"]


def test_what_a_dead_runner_had_is_given_out_again_and_suspected_at_last(store: JobStore) -> None:
    planned(store, named("a.wav"))
    for i in range(3):
        assert len(store.claim(f"r{i}", 1)) == 1
        assert store.recover(lambda runner, i=i: runner != f"r{i}") == 1  # type: ignore[misc]
    assert store.claim("r", 1) == []
    (one,) = store.claim("r", 1, alone=True)
    assert one.tries == 0


def test_what_another_runner_took_over_is_not_marked_by_the_first(store: JobStore) -> None:
    planned(store, named("a.wav"))
    (one,) = store.claim("slow", 1)
    store.recover(lambda runner: False)
    (again,) = store.claim("quick", 1)
    kept = store.keep_result("c", one.recipe, "f", 1.0, 2.0, "en", {})
    assert not store.finish(one, "slow", kept, {}, "")
    assert store.recognise(one, "c", STAMP, "slow") == "lost"
    assert store.finish(again, "quick", kept, {}, "")


def test_an_equal_content_waits_and_is_then_known(store: JobStore) -> None:
    planned(store, named("a.wav"), named("b.wav"))
    a, b = store.claim("r", 2)
    assert store.recognise(a, "c", STAMP, "r") == "run"
    assert store.recognise(b, "c", STAMP, "r") == "wait"
    assert store.claim("r", 2) == []  # while the other runs
    kept = store.keep_result("c", a.recipe, "f", 1.0, 2.0, "en", {"words": 3})
    store.finish(a, "r", kept, {"txt": 1}, "")
    (again,) = store.claim("r", 2)
    assert again.tries == 0
    assert store.result_of(again) == kept


def test_an_equal_content_whose_first_one_fails_is_tried_itself(store: JobStore) -> None:
    planned(store, named("a.wav"), named("b.wav"))
    a, b = store.claim("r", 2)
    store.recognise(a, "c", STAMP, "r")
    store.recognise(b, "c", STAMP, "r")
    store.fail(a, "r", "audio", "no sound", Next("failed"))
    (again,) = store.claim("r", 2)
    assert store.recognise(again, "c", STAMP, "r") == "run"


def test_a_folder_that_was_moved_keeps_its_files(store: JobStore, tmp_path: Path) -> None:
    planned(store, named("a.wav", "/gone"))
    plan = planned(store, named("a.wav", str(tmp_path)))
    (one,) = store.recordings()
    assert (one.name, one.source) == ("a", f"{tmp_path}/a.wav")
    assert plan.n_new == 1


def test_cancelled_recordings_are_skipped_also_while_they_run(store: JobStore) -> None:
    planned(store, named("a.wav"), named("b.wav"))
    (a,) = store.claim("r", 1)
    assert store.change([1, 2], "skipped") == 2
    kept = store.keep_result("c", a.recipe, "f", 1.0, 2.0, "en", {})
    assert not store.finish(a, "r", kept, {}, "")
    assert {one.state for one in store.recordings()} == {"skipped"}
    planned(store, named("a.wav"), named("b.wav"), recipe="other")
    assert store.claim("r", 2) == []
    assert store.change([1], "waiting") == 1
    assert [one.name for one in store.claim("r", 2)] == ["a"]


def test_options_of_a_recording_are_part_of_its_recipe(store: JobStore) -> None:
    planned(store, named("a.wav", overrides='{"language": "de"}'), named("b.wav"))
    assert sorted(one.recipe for one in store.recordings()) == ['r{"language": "de"}', "r{}"]
    (a, b) = store.claim("r", 2)
    assert store.recognise(a, "c", STAMP, "r") == store.recognise(b, "c", STAMP, "r") == "run"


def test_a_rehearsal_changes_nothing(store: JobStore, tmp_path: Path) -> None:
    planned(store, named("a.wav"))
    rehearsal = JobStore(tmp_path, rehearsal=True)
    assert planned(rehearsal, named("b.wav")).n_new == 1
    assert len(rehearsal.recordings()) == 2
    rehearsal.close()
    assert len(store.recordings()) == 1


def test_totals_and_waiting_times(store: JobStore) -> None:
    assert store.next_wait() is None
    planned(store, named("a.wav"), named("b.wav", seconds=7.0))
    (a,) = store.claim("r", 1)
    store.fail(a, "r", "reading", "I/O error", Next("waiting", 30.0))
    store.claim("r", 1)
    wait = store.next_wait()
    assert wait is not None
    assert 28 < wait <= 30
    assert store.totals()["running"] == {"n": 1, "seconds": 7.0, "bytes": 10.0, "unknown": 0.0}


def test_a_job_of_another_release_or_no_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no job"):
        job_files(tmp_path)
    JobStore(tmp_path).close()
    JobStore(tmp_path, (2, 5)).close()
    assert job_files(tmp_path) == [(2, 5), None]
    db = sqlite3.connect(tmp_path / ".sotto" / "job.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DataError, match="another release"):
        JobStore(tmp_path)
