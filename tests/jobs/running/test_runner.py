"""The runner: every recording once, whatever dies, fills up or goes away, with workers that are threads."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from whisper.errors import AudioError
from whisper.jobs.failures import FIRST_WAIT_S
from whisper.jobs.outputs import Outputs, PlaceLostError
from whisper.jobs.store import JobStore

from ..children import in_a_child, start
from ..fakes import Scene

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, 12)


def expected_files(tmp_path: Path, n: int, **options: Any) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    other = Scene(tmp_path / "undisturbed", n)
    other.run(**options)
    return other.files()


def test_every_recording_is_done_once_and_reported_once(scene: Scene) -> None:
    ended = scene.run()
    assert Counter(e.state for e in ended) == {"done": 12}
    assert sorted(scene.transcribed) == sorted(str(p) for p in scene.inputs.iterdir())
    assert set(scene.files()) == {f"{i:03}.{ext}" for i in range(12) for ext in ("txt", "json")}


def test_how_long_devices_waited_is_counted_over_all_workers(scene: Scene) -> None:
    with scene.runner(n_workers=2, of_worker={"dies_of": lambda source: source.endswith("003.wav")}) as runner:
        assert runner.idle is None
        list(runner.run())
    assert len(scene.workers) > 2
    assert runner.idle == pytest.approx(0.25)


def test_a_message_that_is_late_is_waited_for_only_a_moment(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine time passes between any two lines, also between a deadline and the wait for it."""
    monkeypatch.setattr("whisper.jobs.running.runner.TICK_S", 1e-6)
    assert Counter(e.state for e in scene.run(of_worker={"seconds": 0.01})) == {"done": 12}


def test_a_second_run_does_nothing_and_starts_no_worker(scene: Scene) -> None:
    scene.run()
    scene.workers.clear()
    assert scene.run() == []
    assert scene.workers == []
    assert len(scene.transcribed) == 12


def test_what_is_new_or_changed_is_done_and_nothing_else(scene: Scene) -> None:
    scene.run()
    scene.transcribed.clear()
    new, changed = scene.add("new.wav", "a new sound"), scene.add("003.wav", "another sound")
    ended = scene.run()
    assert sorted(scene.transcribed) == sorted([str(new), str(changed)])
    assert {e.recording.source for e in ended} == {str(new), str(changed)}


def test_a_file_that_was_only_touched_is_read_and_not_transcribed_again(scene: Scene) -> None:
    scene.run()
    scene.transcribed.clear()
    os.utime(scene.inputs / "004.wav", (1, 1))
    assert [e.transcribed for e in scene.run()] == [False]
    assert scene.transcribed == []


def test_a_change_that_keeps_size_and_time_is_found_by_content(scene: Scene) -> None:
    scene.run()
    path = scene.inputs / "005.wav"
    before = path.stat()
    path.write_text("Sound 5")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    scene.transcribed.clear()
    assert scene.run() == []
    scene.run(check_content=True)
    assert scene.transcribed == [str(path)]


def test_other_options_do_all_again_and_the_first_ones_are_kept(scene: Scene) -> None:
    scene.run()
    first = scene.recipe
    scene.recipe = type(first)({"language": "de"}, first.model, first.precision)
    scene.run()
    assert scene.planned.n_other_options == 12
    assert len(scene.transcribed) == 24
    scene.recipe = first
    assert len(scene.run()) == 12
    assert len(scene.transcribed) == 24


def test_a_further_format_is_written_without_transcribing(scene: Scene) -> None:
    scene.run(formats=("txt",))
    scene.run(formats=("txt", "srt"))
    assert len(scene.transcribed) == 12
    assert (scene.out / "000.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:01,000\n")


def test_an_output_that_was_deleted_or_damaged_is_written_again(scene: Scene) -> None:
    scene.run()
    before = scene.files()
    (scene.out / "001.txt").unlink()
    (scene.out / "002.json").write_text("{")
    scene.run()
    assert scene.files() == before
    assert len(scene.transcribed) == 12


def test_a_kept_result_that_is_damaged_is_made_again(scene: Scene) -> None:
    scene.run()
    for path in (scene.out / ".sotto" / "results").rglob("*.gz"):
        path.write_bytes(path.read_bytes()[:30])
    (scene.out / "001.txt").unlink()
    scene.run()
    assert len(scene.transcribed) == 13
    assert (scene.out / "001.txt").exists()


def test_a_foreign_file_of_the_right_name_does_not_mean_done(scene: Scene) -> None:
    for extension in ("txt", "json"):
        (scene.out / f"000.{extension}").write_text("somebody else's")
    scene.run()
    assert len(scene.transcribed) == 12
    assert "somebody" not in (scene.out / "000.txt").read_text()


def test_equal_contents_are_transcribed_once_and_written_each(scene: Scene) -> None:
    for i in range(20):
        scene.add(f"twins/{i}.wav", "the same sound")
    ended = scene.run(n_workers=3)
    assert sum("twins" in source for source in scene.transcribed) == 1
    assert len(ended) == 32
    assert len({scene.files()[f"twins/{i}.txt"] for i in range(20)}) == 1


def test_a_bad_recording_is_reported_and_the_others_go_on(scene: Scene) -> None:
    def fails(source: str) -> None:
        if "004" in source:
            raise AudioError("no sound")

    ended = scene.run(of_worker={"fails": fails})
    assert [(Path(e.recording.source).name, e.kind, e.error) for e in ended if e.state == "failed"] == [
        ("004.wav", "audio", "no sound")
    ]
    assert Counter(scene.states().values()) == {"done": 11, "failed": 1}
    assert scene.run() == []
    assert [e.state for e in scene.run(retry=True)] == ["done"]


def test_a_permission_that_goes_away_fails_that_recording_alone(scene: Scene) -> None:
    def fails(source: str) -> None:
        if "006" in source:
            raise PermissionError(errno.EACCES, "Permission denied", source)

    (failed,) = (e for e in scene.run(of_worker={"fails": fails}) if e.state == "failed")
    assert (failed.kind, failed.error) == ("permission", f"Permission denied: {scene.inputs / '006.wav'}")


def test_a_file_that_is_deleted_meanwhile_is_missing(scene: Scene) -> None:
    with scene.runner() as runner:
        (scene.inputs / "007.wav").unlink()
        (failed,) = (e for e in runner.run() if e.state == "failed")
    assert failed.kind == "missing"


def test_a_failure_that_may_pass_is_tried_again_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper.jobs.failures.FIRST_WAIT_S", 0.05)
    tries: Counter[str] = Counter()

    def fails(source: str) -> None:
        tries[Path(source).name] += 1
        if source.endswith("003.wav") and tries["003.wav"] < 3:
            raise OSError(errno.EIO, "Input/output error", source)
        if source.endswith("005.wav"):
            raise OSError(errno.EIO, "Input/output error", source)

    ended = scene.run(of_worker={"fails": fails}, retries=2)
    assert FIRST_WAIT_S > 1
    assert tries["003.wav"] == tries["005.wav"] == 3
    assert [Path(e.recording.source).name for e in ended if e.state == "failed"] == ["005.wav"]
    assert len(ended) == 12


def test_what_kills_a_worker_runs_once_more_alone_and_is_reported(scene: Scene) -> None:
    ended = scene.run(of_worker={"dies_of": lambda source: "004" in source}, n_workers=2)
    (failed,) = (e for e in ended if e.state == "failed")
    assert Path(failed.recording.source).name == "004.wav"
    assert failed.kind == "crash"
    assert "SIGKILL" in failed.error
    assert len(ended) == 12
    assert sorted(scene.states().values()) == ["done"] * 11 + ["failed"]
    assert len(set(scene.transcribed)) == 11


def test_a_worker_without_a_sign_of_life_is_ended(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper.jobs.running.runner.LOOK_S", 0.1)
    hangs = threading.Event()
    times: list[str] = []

    def fails(source: str) -> None:
        if "002" in source and not times:
            times.append(source)
            hangs.wait(20)

    ended = scene.run(of_worker={"fails": fails}, stall=1)
    hangs.set()
    assert Counter(e.state for e in ended) == {"done": 12}
    assert len(scene.workers) == 2


def test_too_many_failures_end_the_run(scene: Scene) -> None:
    def fails(source: str) -> None:
        raise AudioError("no sound")

    with scene.runner(of_worker={"fails": fails}, max_failures="3") as runner:
        ended = list(runner.run())
    assert len(ended) == 4
    assert "--max_failures 3" in runner.stopped
    assert set(scene.states().values()) == {"failed", "waiting"}


def test_a_run_that_is_stopped_leaves_the_rest_as_not_tried(scene: Scene) -> None:
    with scene.runner(of_worker={"seconds": 0.05}) as runner:
        for n, _ in enumerate(runner.run(), 1):
            if n == 3:
                runner.stop("the test")
    assert set(scene.states().values()) == {"done", "waiting"}
    store = JobStore(scene.out)
    assert {one.tries for one in store.recordings(["waiting"])} == {0}
    store.close()
    scene.run()
    assert set(scene.states().values()) == {"done"}
    assert len(set(scene.transcribed)) == 12


def test_a_paused_run_begins_nothing_new(scene: Scene) -> None:
    with scene.runner(of_worker={"seconds": 0.02}) as runner:
        found, run = [], runner.run()
        found.append(next(run))
        runner.pause()
        threading.Timer(1.0, runner.resume).start()
        begun = time.monotonic()
        moments = [time.monotonic() - begun for _ in run]
    assert len(moments) == 11
    assert moments[-1] > 1.0
    assert sum(0.6 < m < 1.0 for m in moments) == 0


def test_a_time_limit_ends_the_run(scene: Scene) -> None:
    with scene.runner(of_worker={"seconds": 0.2}, time_limit=0.5 / 3600) as runner:
        list(runner.run())
    assert "--time_limit" in runner.stopped
    assert "waiting" in scene.states().values()


def test_a_worker_that_has_too_much_memory_is_begun_anew_when_it_has_nothing(scene: Scene) -> None:
    ended = scene.run(of_worker={"memory": 2 * 10**8}, memory_limit=0.1)
    assert Counter(e.state for e in ended) == {"done": 12}
    assert len(scene.workers) > 2
    assert len(scene.transcribed) == 12
    scene.run(of_worker={"memory": 10**8}, memory_limit=0.1, retry=True)
    assert len(scene.transcribed) == 12


@pytest.mark.parametrize(("order", "names"), [("shortest", "bca"), ("longest", "acb"), ("name", "abc")])
def test_orders(tmp_path: Path, order: str, names: str) -> None:
    scene = Scene(tmp_path)
    for name, size in (("a", 3), ("b", 1), ("c", 2)):
        scene.add(f"{name}.wav", "x" * size)
    scene.run(order=order)
    assert "".join(Path(s).stem for s in scene.transcribed) == names


def test_marks_that_a_power_failure_took_back_are_found_by_the_results(scene: Scene) -> None:
    scene.run()
    before = scene.files()
    for path in (scene.out / ".sotto").glob("job.sqlite*"):
        path.unlink()
    scene.transcribed.clear()
    assert Counter(e.state for e in scene.run()) == {"done": 12}
    assert scene.transcribed == []
    assert scene.files() == before


def test_a_disk_that_is_full_ends_the_run_and_the_same_command_goes_on(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, n = Outputs.write, [0]

    def write(self: Outputs, name: str, transcript: Any) -> dict[str, int]:
        n[0] += 1
        if n[0] > 5:
            raise PlaceLostError(errno.ENOSPC, "No space left on device")
        return real(self, name, transcript)

    monkeypatch.setattr(Outputs, "write", write)
    with scene.runner() as runner:
        list(runner.run())
    assert "No space" in runner.stopped
    assert set(scene.states().values()) == {"done", "waiting"}
    monkeypatch.undo()
    scene.run()
    assert scene.files() == expected_files(tmp_path, 12)
    assert len(scene.transcribed) <= 12 + 8


def run_with_a_limit(scene: Scene) -> int:
    """Run where no file may have more than two megabytes; returns how many recordings failed by that."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, 1 << 21))
    ended = scene.run(of_worker={"n_segments": lambda source: 12_000 if "long" in source else 3})
    return sum(e.state == "failed" and e.kind == "output" and "too large" in e.error for e in ended)


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@forks
def test_files_that_cannot_grow_are_whole_or_absent(scene: Scene) -> None:
    """A limit on the size of files ends a write in its middle, as a full disk does."""
    for i in range(3):
        scene.add(f"long/{i}.wav", f"a long sound {i}")

    assert in_a_child(run_with_a_limit, scene) == 3
    files = scene.files()
    assert len(files) == 2 * 12 + 3
    assert {name for name in files if "long" in name} == {f"long/{i}.txt" for i in range(3)}
    scene.run(retry=True)
    assert set(scene.states().values()) == {"done"}
    assert len(json.loads((scene.out / "long" / "1.json").read_text())["segments"]) == 12_000
    assert scene.transcribed == []  # here: all of it was done in the child


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)  # a quarter of a million segments are read and written, on a machine with much other work
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk")
def test_a_disk_that_fills_up_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    of_worker = {"n_segments": lambda source: 20_000}
    whole = Scene(tmp_path / "undisturbed", 12)
    whole.run(of_worker=of_worker)
    scene = Scene(tmp_path, 12)
    scene.out = small_disk
    ballast = small_disk / "ballast"
    for size in (1_200_000, 800_000, 400_000, 0):
        ballast.write_bytes(bytes(size))
        with scene.runner(of_worker=of_worker, formats=("txt",)) as runner:
            list(runner.run())
        assert "No space left" in runner.stopped or "full" in runner.stopped
        expected = whole.files()
        assert all(p.read_bytes() == expected[p.name] for p in small_disk.glob("*.txt"))
    ballast.unlink()
    shutil.copytree(small_disk, tmp_path / "moved")  # the user makes room
    scene.out = tmp_path / "moved"
    scene.run(of_worker=of_worker, formats=("txt",))
    assert scene.files() == {n: c for n, c in whole.files().items() if n.endswith("txt")}
    assert set(scene.states().values()) == {"done"}


def test_one_output_that_cannot_be_written_fails_its_recording_and_is_not_transcribed_again(scene: Scene) -> None:
    (scene.out / "003.txt").mkdir()
    (failed,) = (e for e in scene.run() if e.state == "failed")
    assert failed.kind == "output"
    (scene.out / "003.txt").rmdir()
    scene.run(retry=True)
    assert set(scene.states().values()) == {"done"}
    assert len(scene.transcribed) == 12


def test_two_runners_share_a_job(scene: Scene) -> None:
    for i in range(40):
        scene.add(f"more/{i}.wav", f"more {i}")
    others: list[Any] = []
    with scene.runner(of_worker={"seconds": 0.01}) as one, scene.runner(of_worker={"seconds": 0.01}) as other:
        thread = threading.Thread(target=lambda: others.extend(other.run()))
        thread.start()
        found = list(one.run())
        thread.join()
    assert len(found) + len(others) == 52
    assert min(len(found), len(others)) > 0
    assert Counter(scene.transcribed).most_common(1)[0][1] == 1


# ---------------------------------------------------------------------------------------------------------
# Killed
# ---------------------------------------------------------------------------------------------------------


def kill_at(place: str, n: int) -> None:
    """Let this process kill itself at the n-th time that it comes to a place."""
    count = [0]

    def maybe() -> None:
        count[0] += 1
        if count[0] == n:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(owner: Any, name: str, *, before: bool) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if before:
                maybe()
            value = real(*arguments, **named)
            if not before:
                maybe()
            return value

        setattr(owner, name, call)

    when, _, what = place.partition(" ")
    owner = {"replace": os, "fsync": os}.get(what, JobStore)
    wrapped(owner, what, before=when == "before")


PLACES = ["before replace", "after replace", "after fsync", "before finish", "after finish", "before keep_result",
          "after keep_result", "after claim", "after recognise"]  # fmt: skip


def run_by_two(scene: Scene, place: str = "", nth: int = 0) -> int:
    """Run, perhaps up to a place where it is killed; returns 1 where a recording failed."""
    if place:
        kill_at(place, nth)
    return int(any(e.state != "done" for e in scene.run(n_workers=2)))


@forks
def test_killed_anywhere_and_begun_again_every_result_is_there_once(tmp_path: Path) -> None:
    scene, chance, n_kills = Scene(tmp_path, 30), random.Random(7), 0
    scene.add("twin.wav", "sound 3")
    for turn in range(24):
        code = in_a_child(run_by_two, scene, PLACES[turn % len(PLACES)], chance.randint(1, 5))
        assert code in (0, -signal.SIGKILL)
        n_kills += code != 0
        for name, content in scene.files().items():  # whole at any moment
            assert content.endswith(b"}" if name.endswith("json") else b"said\n"), name
    assert n_kills >= 8
    assert in_a_child(run_by_two, scene) == 0
    assert set(scene.states().values()) == {"done"}
    other = expected_files(tmp_path, 30)
    files = scene.files()
    assert {n: c for n, c in files.items() if not n.startswith("twin")} == other
    assert files["twin.txt"] == files["003.txt"]
    store = JobStore(scene.out)
    assert len(store.results_after(0, 100)) == 30
    store.close()


def run_slowly(scene: Scene, begun: Path, seconds: float) -> int:
    begun.touch()
    scene.run(n_workers=2, of_worker={"seconds": seconds})
    return 0


@forks
@pytest.mark.parametrize(
    ("n", "seconds", "n_kills"),
    [(40, 0.01, 8), pytest.param(700, 0.04, 100, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_killed_at_random_moments(n: int, seconds: float, n_kills: int, tmp_path: Path) -> None:
    scene, chance, n_struck = Scene(tmp_path, n), random.Random(3), 0
    for turn in range(n_kills):
        begun = tmp_path / f"begun {turn}"
        child = start(run_slowly, scene, begun, seconds)
        while not begun.exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0.02, 0.25))
        child.kill()
        child.join()
        n_struck += child.exitcode == -signal.SIGKILL
    assert n_struck >= n_kills // 4  # the others came after the end of the job
    scene.run(n_workers=2)
    assert set(scene.states().values()) == {"done"}
    assert scene.files() == expected_files(tmp_path, n)
    with closing(JobStore(scene.out)) as store:
        assert len(store.results_after(0, 10 * n)) == n
