"""What a job will take: from headers, and from sizes where these do not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from whisper.jobs.inputs import find
from whisper.jobs.reports.estimate import estimate, seconds_of
from whisper.jobs.store import JobStore

from ..sounds import write_wav


def test_seconds_come_from_the_header(tmp_path: Path) -> None:
    assert seconds_of(str(write_wav(tmp_path / "a.wav", 2.5, 0))) == pytest.approx(2.5, abs=0.01)
    (tmp_path / "b.wav").write_text("no sound")
    assert seconds_of(str(tmp_path / "b.wav")) is None


def test_a_job_is_estimated(tmp_path: Path) -> None:
    for i in range(3):
        write_wav(tmp_path / "in" / f"{i}.wav", 2 + i, i)
    (tmp_path / "in" / "odd.wav").write_bytes(bytes(32_000))  # a second, by the others
    store = JobStore(tmp_path, rehearsal=True)
    store.plan(find([tmp_path / "in"], str(tmp_path / "out")), lambda _: "r")
    found = estimate(store)
    store.close()
    assert (found.n, found.n_opened) == (4, 3)
    assert found.seconds == pytest.approx(10, abs=0.05)
    assert found.disk == pytest.approx(found.seconds / 3600 * 1_500_000)
