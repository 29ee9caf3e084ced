"""What is shown while a job runs: counts, rate, time left, and the file for Prometheus."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from whisper.jobs.content import Stamp
from whisper.jobs.inputs import Input
from whisper.jobs.reports.live import BYTES_PER_SECOND, Live, in_words, prometheus, sight

from ..fakes import Scene


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (3720, "1 h 2 min"), (90000, "1 d 1 h")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_run_is_followed(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 40)
    lines, metrics = [], tmp_path / "sotto.prom"
    with scene.runner(of_worker={"seconds": 0.04}) as runner:
        live = Live(runner.store, runner, str(metrics))
        runner.on_tick = live.tick
        for _ in runner.run():
            live._until = 0
            lines.append(live.line())
        live.write_metrics()
    assert "1 of 40 done" in lines[0]
    assert re.fullmatch(r"3\d of 40 done, [\d.]+ x real time, .* left for .* of sound", lines[34])
    text = metrics.read_text()
    assert re.search(r'^sotto_job_recordings\{job=".*out",state="done"\} \d+$', text, re.MULTILINE)
    assert re.search(r'^sotto_job_device_idle_ratio\{job=".*out"\} 0\.250$', text, re.MULTILINE)
    names = set(re.findall(r"^(sotto_job_\w+)", text, re.MULTILINE))
    assert names == set(re.findall(r"^# TYPE (\w+) gauge", text, re.MULTILINE))


def test_time_left_goes_by_seconds_of_sound_where_they_are_known(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with scene.runner() as runner:
        store = runner.store
        inputs = [Input(f"/{i}.wav", f"/{i}.wav", str(i), str(i), Stamp(16_000, "1"), seconds=s)
                  for i, s in enumerate((7.0, None))]  # fmt: skip
        store.plan(inputs, lambda _: "r")
        assert sight(store).seconds_left == 7 + 16_000 / BYTES_PER_SECOND
        (one,) = store.claim("r", 1)
        kept = store.keep_result("c", "r", "f", 1.0, 8.0, "en", {})
        store.finish(one, "r", kept, {}, "")
        assert sight(store).seconds_left == 8  # of as many bytes as what is done


def test_labels_are_escaped(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1)
    scene.run()
    with scene.runner() as runner:
        text = prometheus(sight(runner.store), 'a"b\\c\nd', 0)
    assert 'a\\"b\\\\c\\nd' in text


def test_metrics_that_cannot_be_written_end_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 2)
    with scene.runner() as runner:
        live = Live(runner.store, runner, str(tmp_path / "none" / "x.prom"))
        runner.on_tick = live.tick
        assert len(list(runner.run())) == 2
