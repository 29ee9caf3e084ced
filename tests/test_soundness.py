"""The promise "sound", on recordings that were put together: small versions of benchmarks/soundness.py.

The first half checks the benchmark's own arithmetic, for a measure that cannot fail would prove nothing; the second,
on real recordings, holds the modes that promise soundness to their thresholds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import whisper

ROOT = Path(__file__).resolve().parent.parent
RATE = 16000
AUDITED = ("audit", "audit, batched")  # names of modes


@pytest.fixture(scope="module")
def constructed() -> Iterator[ModuleType]:
    yield from imported("constructed")


@pytest.fixture(scope="module")
def soundness() -> Iterator[ModuleType]:
    yield from imported("soundness")


def imported(name: str) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module(name)


# ---------------------------------------------------------------------------------------------------------
# The recordings, and the arithmetic
# ---------------------------------------------------------------------------------------------------------


def spoken(constructed: ModuleType, *texts: str) -> list[Any]:
    """Clips of half a second that are all different."""
    rng = np.random.default_rng(0)
    return [constructed.Clip(text, rng.normal(0, 0.1, RATE // 2).astype(np.float32), text) for text in texts]


def known(soundness: ModuleType, recording: Any, row: str = "pauses", **more: Any) -> Any:
    return soundness.Known(row, recording, recording.seconds, tuple(recording.pauses), recording.name, **more)


def told(text: str, *segments: dict[str, Any], cpu: float = 1.0) -> dict[str, Any]:
    return {"text": text, "segments": list(segments), "cpu": [cpu]}


def test_a_joined_recording_knows_its_pauses_and_gives_its_parts_back(constructed):
    clips = spoken(constructed, "one", "two")
    recording = constructed.joined("it", clips, [2, 5, 0.25])
    assert recording.pauses == [(0, 2), (2.5, 7.5), (8, 8.25)]
    assert [part.text for part in recording.parts] == ["one", "two"]
    for clip, alone in zip(clips, recording.alone(), strict=True):
        assert np.array_equal(alone.samples, constructed.stored(clip.samples))
    silence = recording.samples[round(2.5 * RATE) : round(7.5 * RATE)]
    assert not silence.any()
    room = constructed.joined("it", clips, [2, 5, 0.25], room=-55).samples[: 2 * RATE] / constructed.FULL_SCALE
    assert 20 * np.log10(np.sqrt(np.mean(room**2))) == pytest.approx(-55, abs=2)


def test_lost_doubled_and_other_words_are_counted_against_the_clips_alone(constructed, soundness):
    recording = constructed.joined("it", spoken(constructed, "one", "two", "three"), [1] * 4)
    one = known(soundness, recording, alone=("a", "b", "c"))
    alone = {"a": told("one"), "b": told("TWO."), "c": told("tree")}

    def counted(text: str) -> tuple[int, int, int]:
        figures = soundness.measure_pauses([one], {**alone, "it": told(text)}).figures
        return figures["lost"], figures["doubled"], figures["other"]

    assert counted("One, two tree") == (0, 0, 0)  # what the clip alone gets wrong is no fault of the pause
    assert counted("one two three") == (0, 0, 1)
    assert counted("one tree") == (1, 0, 0)
    assert counted("one two two tree you") == (0, 2, 0)
    assert not soundness.measure_pauses([one], {**alone, "it": told("one two")}).met


def test_crashes_loops_and_long_times_are_found(constructed, soundness):
    clean = constructed.joined("clean", spoken(constructed, "view glass"), [0, 0])
    same = constructed.joined("same", spoken(constructed, *["view glass"] * 6), [0] * 7)
    noisy, both = replace(clean, name="noisy", clean="clean"), replace(same, clean="clean")
    rows = [known(soundness, recording, "nasty") for recording in (clean, noisy, both)]
    fine = {"clean": told("view glass"), "noisy": told("view"), "same": told("view glass " * 6, cpu=1.9)}
    assert soundness.measure_nasty(rows, fine).met

    def failed(**change: Any) -> dict[str, str]:
        return dict(soundness.measure_nasty(rows, {**fine, **change}).failed)

    assert "died" in failed(noisy={"error": "died"})["noisy"]
    assert "4 times 'view glass'" in failed(noisy=told("a view glass view glass view glass view glass"))["noisy"]
    assert "same" in failed(same=told("view glass " * 10))
    assert not failed(same=told("view glass " * 7, cpu=1.9))
    assert "2.1 times as long" in failed(noisy=told("", cpu=2.1))["noisy"]
    window = {"seek": 0, "tokens": 120}
    assert "240 tokens" in failed(noisy=told("x", window, window))["noisy"]
    assert not failed(noisy=told("x", window, {**window, "seek": 3000}))


@pytest.mark.parametrize(
    ("text", "run"), [("", 0), ("a b", 1), ("a b b b c", 3), ("a b a b a", 2), ("x a b c a b c a b c", 3)]
)
def test_longest_run(soundness, text, run):
    assert soundness.longest_run(text.split())[0] == run


def test_errors_of_a_joined_recording_belong_to_its_parts(soundness):
    said = [["one"], ["two", "three"], ["four"]]
    assert soundness.errors_by_part(said, ["one", "two", "three", "four"]) == [0, 0, 0]
    assert soundness.errors_by_part(said, ["one", "too", "four", "four"]) == [0, 2, 0]
    assert soundness.errors_by_part(said, ["one", "um", "two", "three"]) == [1, 0, 1]


def test_words_in_pauses(constructed, soundness):
    one = known(soundness, constructed.joined("it", spoken(constructed, "one", "two"), [2, 5, 2]), "words")

    def measured(start: float, end: float) -> tuple[int, int]:
        word = {"word": " one", "start": start, "end": end}
        figures = soundness.measure_words([one], {"it": told("one", {"words": [word]})}).figures
        return figures["inside"], figures["over"]

    assert measured(2.1, 2.4) == (0, 0)
    assert measured(1.95, 2.4) == (0, 0)  # near the edge
    assert measured(1.5, 2.4) == (1, 0)
    assert measured(2.1, 3.6) == (0, 1)
    assert measured(4.0, 7.7) == (1, 1)


# ---------------------------------------------------------------------------------------------------------
# What is promised
# ---------------------------------------------------------------------------------------------------------

Measuring = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def measuring(
    shared_data: Path, soundness: ModuleType, constructed: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Measuring:
    """Call ``measuring(row, mode)``: the measure of a row of the benchmark, on few recordings, in this process."""
    size = constructed.Size(
        pauses=(2, 10, 40), n_clips=4, every=2, silent_seconds=90, joined_seconds=90,
        sets=(constructed.DIGITS, constructed.PHRASES),
    )  # fmt: skip
    rows = ["silent", "pauses", "joined", "words"]
    prepared = soundness.prepare(shared_data / "dev", tmp_path_factory.mktemp("soundness"), size, rows)
    model = whisper.load_model("nano", device="cpu")
    given: dict[tuple[str, str], Any] = {}  # by mode and key: rows share clips

    def measure(row: str, mode: str) -> Any:
        of_row = [one for one in prepared.known if one.row == row]
        for key in [key for one in of_row for key in (one.key, *one.alone)]:
            if (mode, key) not in given:
                given[mode, key] = soundness.transcribe(model, prepared.jobs[key], soundness.MODES[mode])
                assert "error" not in given[mode, key], given[mode, key]["error"]
        return soundness.ROWS[row].measure(of_row, {key: one for (of, key), one in given.items() if of == mode})

    return measure


@pytest.mark.shared
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", AUDITED)
@pytest.mark.parametrize(
    "row", ["silent", "joined", *(pytest.param(row, marks=pytest.mark.exhaustive) for row in ("pauses", "words"))]
)
def test_the_audited_modes_are_sound(measuring: Measuring, row: str, mode: str) -> None:
    measured = measuring(row, mode)
    assert measured.met, f"{measured.text}: {measured.failed}"


@pytest.mark.shared
@pytest.mark.timeout(600)
@pytest.mark.exhaustive
@pytest.mark.parametrize("row", ["pauses", "words"])
def test_the_recordings_are_no_easy_ones(measuring: Measuring, row: str) -> None:
    """With the original's defaults, words are lost and begin in pauses: the tests above have something to find."""
    assert not measuring(row, "default").met
