"""Runners that live and runners that do not: by their lock here, by their beat elsewhere."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from whisper.jobs import presence
from whisper.jobs.presence import Presence, runners


def test_a_runner_lives_until_it_leaves(tmp_path: Path) -> None:
    one, other = Presence(tmp_path, "{}"), Presence(tmp_path, "{}")
    assert one.is_alive(other.id)
    assert [told["pid"] for told in one.others()] == [os.getpid()]
    assert len(runners(tmp_path)) == 2
    other.leave()
    assert not one.is_alive(other.id)
    assert not one.is_alive("nobody")
    one.leave()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_one_that_was_killed_is_dead_at_once(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, Presence(tmp_path, "{}").id.encode())
        time.sleep(60)
        os._exit(0)
    runner = os.read(reader, 100).decode()
    one = Presence(tmp_path, "{}")
    assert one.is_alive(runner)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not one.is_alive(runner)
    assert not (tmp_path / f"{runner}.json").exists()
    one.leave()


def elsewhere(folder: Path, beat: int) -> None:
    told = {"host": "another", "boot": "b", "pid": 1, "beat": beat, "recipe": "{}"}
    (folder / "r.json").write_text(json.dumps(told))


def test_one_elsewhere_lives_while_its_beat_changes_by_our_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(presence.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(presence.time, "time", lambda: 0.0)  # no clock of the wall counts
    one = Presence(tmp_path, "{}")
    elsewhere(tmp_path, 7)
    for beat, step, alive in ((7, 0, True), (7, 50, True), (8, 50, True), (8, 59, True), (8, 2, False)):
        now[0] += step
        elsewhere(tmp_path, beat)
        assert one.is_alive("r") is alive
    one.leave()


def test_one_of_this_machine_before_it_was_started_again_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Presence(tmp_path, "{}")
    monkeypatch.setattr(presence, "_boot", lambda: "another boot")
    one = Presence(tmp_path, "{}")
    assert not one.is_alive(before.id)
    one.leave()
    before.leave()
