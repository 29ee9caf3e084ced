"""Plots and logs of a training."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from whisper.model import ModelDimensions
from whisper.training import curves, mixing, targets, trainer

DIMS = ModelDimensions(80, 1500, 64, 2, 1, 51865, 448, 64, 2, 1)


@pytest.fixture(scope="module")
def run() -> tuple[trainer.Run, trainer.Settings]:
    settings = trainer.Settings((trainer.Stage(100, mixing.Recipe((2.0,)), 4.0),), DIMS)
    run = trainer.start(settings, targets.reduced_vocabulary(["la mi so do"]))
    rng = np.random.default_rng(0)
    run.history = [(step, *(rng.random(3) + 5 / (step + 1))) for step in range(60)]
    run.evaluations = [(20, 0.9), (40, 0.55)]
    run.step = 60
    return run, settings


def test_the_progress_line(run):
    line = curves.progress_line(*run, pace=180.0)
    assert re.fullmatch(
        r"step 60 of 100, loss \d\.\d{3} \(text .*, CTC .*, attention .*\), dev 55\.0 % \(step 40\), "
        r"0\.05 h of audio per second", line
    )  # fmt: skip
    assert curves.progress_line(*run, pace=1.0, seconds_left=600).endswith(", 10 min left")


def test_fine_tuning_has_one_loss(run):
    settings = dataclasses.replace(run[1], objective=trainer.Objective())
    assert "CTC" not in curves.progress_line(run[0], settings, pace=1.0)


def test_curves_are_plotted(run, tmp_path):
    pytest.importorskip("matplotlib")
    curves.draw(*run, tmp_path / "curves.png")
    content = (tmp_path / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_tensorboard_shows_each_step_once_also_after_a_kill(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    whole, settings = run
    first = curves.Curves(tmp_path)
    first.write(whole, settings, 1.0)
    first.close()
    (log,) = tmp_path.glob("events*")
    log.rename(log.with_name(log.name.replace(log.name.split(".")[3], "1000000000")))  # it was a second ago, at least
    again = curves.Curves(tmp_path, first_step=50)  # the last checkpoint before the kill was of step 50
    again.write(whole, settings, 1.0)
    again.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = events.Scalars("loss/text")
    assert [event.step for event in scalars] == list(range(60))
    assert scalars[7].value == pytest.approx(whole.history[7][1])
    assert [event.step for event in events.Scalars("dev/word_error")] == [20, 40]


def test_a_missing_dependency_is_one_warning(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(curves, "find_spec", lambda name: None)
    monkeypatch.setattr(curves, "_tensorboard", lambda *_: None)
    shown = curves.Curves(tmp_path)
    for _ in range(2):
        shown.write(*run, 1.0)
    assert [record.message for record in caplog.records] == [
        "a plot of the curves needs matplotlib: pip install 'sotto[train]'"
    ]
    assert not list(tmp_path.iterdir())


def test_smoothing_keeps_means_and_bounds_points():
    steps, values = curves.smoothed(np.arange(1000), np.arange(1000.0), 100)
    assert len(steps) == len(values) == 100
    assert values[0] == pytest.approx(4.5)
    steps, values = curves.smoothed(np.arange(7), np.arange(7.0), 3)
    assert values.tolist() == [1.0, 4.5]  # the newest counts, too
