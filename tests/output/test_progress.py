"""Progress: what programs for openai-whisper put in the place of tqdm is what is told."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import tqdm

import whisper
from tests.models import random_model
from whisper.output.progress import ProgressBar


class Followed(tqdm.tqdm):  # type: ignore[type-arg,unused-ignore]
    """As graphical programs write it: counts by itself, shows nothing."""

    made: list[Followed]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.named, self.seen = named, 0
        self.made.append(self)

    def update(self, n: float | None = 1) -> None:
        super().update(n)
        self.seen += n or 0


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Followed]:
    """The bars that were made."""
    module: Any = sys.modules["whisper.transcribe"]
    monkeypatch.setattr(module.tqdm, "tqdm", Followed)
    Followed.made = []
    return Followed.made


@pytest.mark.parametrize("verbose", [None, False])
@pytest.mark.parametrize("options", [{}, {"batch_size": 2}])
def test_a_program_follows_by_a_bar_of_its_own(made: list[Followed], verbose: bool | None, options: Any) -> None:
    sound = np.random.default_rng(1).standard_normal(40 * 16000).astype(np.float32) * 0.1
    whisper.transcribe(random_model(3), sound, verbose=verbose, temperature=0.0, sample_len=6, fp16=False, **options)
    (bar,) = made
    assert (bar.named, bar.seen) == ({"total": 4000, "unit": "frames", "disable": verbose is None}, 4000)


def test_it_is_closed_whatever_happens(made: list[Followed]) -> None:
    def fail() -> None:
        with ProgressBar(10, True) as bar:
            bar.advance(3)
            raise ValueError("it ends")

    with pytest.raises(ValueError, match="ends"):
        fail()
    assert made[0].seen == 3
    assert made[0].disable  # which tqdm's `close` sets
