"""The command ``whisper jobs``: what is shown, exit codes, and runs that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from whisper.cli import cli
from whisper.cli.jobs import _signals
from whisper.jobs.store import JobStore

from ..jobs.fakes import Scene
from ..jobs.sounds import FLAGS, talking_model, write_wav

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Five recordings, of which two are equal, and one that is none."""
    for i in range(4):
        write_wav(tmp_path / "in" / ("sub" if i % 2 else "") / f"{i}.wav", 1 + i / 2, i)
    write_wav(tmp_path / "in" / "again.wav", 1, 0)
    (tmp_path / "in" / "bad.mp3").write_text("no sound")
    return tmp_path / "in"


def test_a_folder_becomes_a_folder_and_a_second_run_goes_on(recordings: Path, tmp_path: Path, capsys: Captured) -> None:
    out, model = tmp_path / "out", talking_model(tmp_path)
    command = ["jobs", "run", str(recordings), "--out", str(out), "--model", model, *FLAGS, "-f", "txt,json"]
    assert cli(command) == 1
    told = capsys.readouterr().err
    assert "6 new" in told
    assert "5 done, 1 failed" in told
    assert f"whisper jobs failures {out}" in told
    assert (out / "sub" / "1.txt").read_text()
    assert json.loads((out / "again.json").read_text()) == json.loads((out / "0.json").read_text())

    (recordings / "bad.mp3").unlink()
    write_wav(recordings / "bad.mp3", 1, 9)
    assert cli(["jobs", "run", "--out", str(out)]) == 0  # nothing is said of inputs and options: those of before
    assert "1 changed" in (told := capsys.readouterr().err)
    assert "other options" not in told
    assert cli([*command, "--dry_run"]) == 0


def test_looking_and_changing(tmp_path: Path, capsys: Captured) -> None:
    scene = Scene(tmp_path, 2)
    scene.run()
    scene.add("002.wav", "sound 2")
    with scene.runner():
        pass  # planned, and not run
    out = str(scene.out)
    assert cli(["jobs", "cancel", out, "*002.wav"]) == 0
    assert scene.states()["002.wav"] == "skipped"
    assert cli(["jobs", "cancel", out, "*none*"]) == 1
    assert cli(["jobs", "retry", out, "*002.wav"]) == 0
    assert scene.states()["002.wav"] == "waiting"
    (scene.inputs / "002.wav").unlink()
    scene.run()
    capsys.readouterr()
    assert cli(["jobs", "status", out]) == 0
    assert "0 waiting, 0 running, 2 done, 1 failed, 0 skipped" in capsys.readouterr().out
    assert cli(["jobs", "status", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recordings"]["done"] == 2
    assert cli(["jobs", "list", out, "--state", "failed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "missing"
    assert cli(["jobs", "list", out]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert cli(["jobs", "failures", out]) == 0
    assert f"whisper jobs retry {out} --kind missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    ["run --out x", "run gone --out x", "run gone.wav --out x", "run *.ogg --out x", "run in gone --out x",
     "run in --out x --beam_size 0", "run in --out x --shard 3/2", "run in --out x --max_failures many",
     "run in --out x --output_format doc", "list out --state gone", "run in --out x --max_line_width 3"],
)  # fmt: skip
def test_wrong_arguments(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    Scene(tmp_path, 1).run()
    with pytest.raises(SystemExit) as ended:
        cli(["jobs", *arguments.split(), *(["--model", "nano"] if "run" in arguments else [])])
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "arguments", ["run in --out x --beam_sze 3", "list out --sate=failed", "retry out --knd audio"]
)
def test_an_unknown_flag_of_a_subcommand_names_the_nearest(arguments: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli(["jobs", *arguments.split()])
    assert "did you mean --" in capsys.readouterr().err


def test_where_there_is_no_job(tmp_path: Path, capsys: Captured) -> None:
    assert cli(["jobs", "status", str(tmp_path)]) == 1
    assert f"whisper jobs run INPUT ... --out {tmp_path} makes one" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_rehearsal_says_what_would_be_done_and_leaves_nothing(
    recordings: Path, tmp_path: Path, capsys: Captured
) -> None:
    command = ["jobs", "run", str(recordings), "--out", str(tmp_path / "out"), "--model", "nano", "--dry_run"]
    assert cli(command) == 0
    told = capsys.readouterr().out
    assert "6 inputs; 6 new" in told
    assert "of sound" in told
    assert not (tmp_path / "out").exists()


def test_sharded_runs_do_the_parts_of_a_list(recordings: Path, tmp_path: Path, capsys: Captured) -> None:
    out, model = tmp_path / "out", talking_model(tmp_path)
    (recordings / "bad.mp3").unlink()
    for i in (1, 2):
        shard = ["--shard", f"{i}/2", "--model", model, *FLAGS, "-f", "txt"]
        assert cli(["jobs", "run", str(recordings), "--out", str(out), *shard]) == 0
    assert cli(["jobs", "status", str(out)]) == 0
    assert "5 done" in capsys.readouterr().out
    assert len(list(out.rglob("*.txt"))) == 5


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_signals_pause_a_run_and_end_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 40)
    with scene.runner(of_worker={"seconds": 0.02}) as runner, _signals(runner) as signalled:
        run, moments = runner.run(), list[float]()
        next(run)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert runner.is_paused
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR2)).start()
        begun = time.monotonic()
        for n, _ in enumerate(run):
            moments.append(time.monotonic() - begun)
            if n == 10:
                os.kill(os.getpid(), signal.SIGTERM)
    assert max(moments) > 0.5
    assert signalled == [signal.SIGTERM]
    assert runner.stopped == "by SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert "waiting" in scene.states().values()
    scene.run()
    assert set(scene.states().values()) == {"done"}
    assert len(set(scene.transcribed)) == 40


def test_a_network_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr("whisper.storage.database.file_system_of", lambda folder: "nfs4")
    write_wav(tmp_path / "in" / "a.wav", 1, 1)
    command = ["jobs", "run", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--model", talking_model(tmp_path)]
    assert cli([*command, *FLAGS, "--min_free_space", "1e9"]) == 3  # planned, and ended before anything runs
    told = capsys.readouterr().err
    assert "is no local disk: the job file has the slower journal" in told
    assert "free" in told


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_killed_and_begun_again_it_ends_as_an_undisturbed_run(tmp_path: Path) -> None:
    """The whole command, with processes as workers: runner or workers are killed at random moments."""
    for i in range(24):
        write_wav(tmp_path / "in" / f"{i:02}.wav", 1 + i % 5, i)
    model, chance, n_kills = talking_model(tmp_path), random.Random(1), 0
    out = tmp_path / "out"
    command = [sys.executable, "-m", "whisper", "jobs", "run", str(tmp_path / "in"), "--out", str(out), "--model",
               model, *FLAGS, "--side_by_side", "2", "--threads", "1"]  # fmt: skip
    for turn in range(40):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        enough, until = len(list(out.glob("*.txt"))) + chance.randint(1, 8), time.monotonic() + chance.uniform(3, 9)
        while process.poll() is None and len(list(out.glob("*.txt"))) < enough and time.monotonic() < until:
            time.sleep(0.02)
        if process.poll() is not None:
            break
        n_kills += 1
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        # once: what has killed a worker twice is reported
        if turn == 0 and children.exists() and (pids := children.read_text().split()):
            os.kill(int(pids[0]), signal.SIGKILL)
            time.sleep(1)
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert n_kills >= 1
    store = JobStore(out)
    assert {one.state for one in store.recordings()} == {"done"}
    assert len(store.results_after(0, 100)) == 24
    store.close()
    undisturbed = tmp_path / "undisturbed"
    whole = [str(undisturbed) if word == str(out) else word for word in command]
    assert subprocess.run(whole, capture_output=True, check=False).returncode == 0
    assert len(list(undisturbed.glob("*.txt"))) == 24
    for path in undisturbed.rglob("*.*"):
        if ".sotto" not in path.parts and path.suffix != ".html":
            assert (out / path.relative_to(undisturbed)).read_bytes() == path.read_bytes()
