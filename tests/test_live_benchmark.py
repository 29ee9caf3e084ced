"""The measures of ``benchmarks/live.py``, on events whose times are known."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from whisper.live import Committed, Final, Interim, SpeechStarted, Stable
from whisper.live.refresh import HeardWord

from .live.fakes import words
from .test_rivals import imported


@pytest.fixture(scope="module")
def live() -> Iterator[ModuleType]:
    yield from imported("live")


def final(text: str) -> Final:
    result: Any = {"text": text, "segments": [], "language": "en"}
    return Final(0, 0.0, 3.0, result)


EVENTS = [
    (0.5, SpeechStarted(0, 0.0)),
    (1.0, Interim(0, "the hat")),
    (1.5, Stable(0, "The")),
    (1.5, Interim(0, " cat")),
    (2.5, Stable(0, " cat")),
    (2.5, Interim(0, " sad")),
    (3.0, Committed(0, 0.0, 3.0)),
    (3.3, Stable(0, " sat.")),
    (3.4, final(" The cat sat.")),
]


def stream(live: ModuleType) -> Any:
    return live.Stream(np.zeros(0, np.float32), "The cat sat", "the cat sits", ["the", "cat", "sat"], [0.6, 1.2, 2.0])


def test_latencies_count_from_the_end_of_each_word(live: ModuleType) -> None:
    measures = live.Measures()
    measures.add(stream(live), EVENTS)
    assert measures.interim == pytest.approx([0.4, 0.3, 1.3])
    assert measures.stable == pytest.approx([0.9, 1.3, 1.3])
    assert measures.final == pytest.approx([0.4])


def test_erasure_counts_words_that_were_replaced(live: ModuleType) -> None:
    measures = live.Measures()
    measures.add(stream(live), EVENTS)
    row = measures.row()
    # "hat" for "cat", which was gone while "The" became stable, and "sad" for "sat"
    assert (measures.n_erased, measures.n_words) == (2, 3)
    assert row["erasure"] == pytest.approx(0.667)
    assert row["wer"] == {"stable": 0.0, "final": 0.0, "offline": pytest.approx(33.33)}
    assert "medium" in live.line_of({"policy": "medium", "streams": 1, **row})


def test_what_shows_nothing_has_no_latency(live: ModuleType) -> None:
    row = live.Measures().row()
    assert row["interim"] == {}
    assert "nan" in live.line_of(
        {"policy": "x", "streams": 1, **row, "wer": dict.fromkeys(("stable", "final", "offline"), 0)}
    )


def test_local_agreement_counts_its_words_anew_in_each_hypothesis(live: ModuleType) -> None:
    text = live.AnewText(0.0, True)
    assert text.take(words("one too"), 5) == ""
    assert text.take(words("one two three"), 5) == "one"
    assert text.take(words("won two three four"), 5) == " two three"
    marks = [*words("won two three"), HeardWord(",", (1,), 2.0), *words("four")]
    assert text.take(marks, 5) == " four"
    assert text.take(marks, 5) == ""


def test_every_policy_makes_a_text(live: ModuleType) -> None:
    from whisper.live.options import DELAYS, LiveOptions

    assert set(DELAYS) < set(live.POLICIES)
    for policy in live.POLICIES.values():
        assert policy.delay in DELAYS
        if policy.text is not None:
            assert policy.text(LiveOptions()).text == ""


def test_a_run_in_parts_keeps_the_rows_of_the_same_streams(live: ModuleType, tmp_path: Path) -> None:
    output = tmp_path / "live.json"
    given = Namespace(model="base", seconds=60.0, seed=0, only=["ljspeech"], simulate=None, output=str(output))
    assert live.earlier(given) == []
    rows = [{"policy": "medium", "streams": 1}]
    output.write_text(json.dumps({**live.settings_of(given), "rows": rows}))
    assert live.earlier(given) == rows
    with pytest.raises(SystemExit, match="other streams"):
        live.earlier(Namespace(**{**vars(given), "seconds": 30.0}))


@pytest.mark.slow
def test_a_simulation_tells_what_a_session_would(live: ModuleType) -> None:
    import whisper

    from .conftest import ROOT

    model = whisper.load_model("nano", device="cpu")
    sound = whisper.load_audio(str(ROOT / "examples" / "reading.opus"))[: 13 * 16000]
    events = live.Simulation(model, live.POLICIES["low"], 2, 1).run(sound)
    times = [at for at, _ in events]
    assert times == sorted(times)
    finals = [event for _, event in events if isinstance(event, Final)]
    assert finals
    assert any(isinstance(event, Interim) for _, event in events)
    stable = "".join(event.text for _, event in events if isinstance(event, Stable) and event.item == 0)
    assert stable
    late = [at - event.end for at, event in events if isinstance(event, Final)]
    assert all(seconds > 0 for seconds in late)


# ---------------------------------------------------------------------------------------------------------
# Other programs
# ---------------------------------------------------------------------------------------------------------

PROGRAM = """#!/bin/sh
echo a library says something
echo '{"ready": true}'
cat > "$3/heard"
echo '{"stable": " The", "interim": " hat"}'
echo '{"stable": " cat sat.", "interim": ""}'
"""


@pytest.fixture(scope="module")
def rivals() -> Iterator[ModuleType]:
    yield from imported("live_rivals")


@pytest.mark.skipif(os.name != "posix", reason="the program is a shell's")
def test_a_program_hears_what_is_played(
    live: ModuleType, rivals: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "whisper-streaming" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PROGRAM)
    python.chmod(0o755)
    monkeypatch.setattr(rivals, "PEERS", tmp_path)
    samples = np.linspace(-1.5, 1.0, 3300, dtype=np.float32)
    told = rivals.play("whisper_streaming", tmp_path, samples)
    assert [line for _, line in told] == [
        {"stable": " The", "interim": " hat"}, {"stable": " cat sat.", "interim": ""},
    ]  # fmt: skip
    heard = np.frombuffer((tmp_path / "heard").read_bytes(), "<i2")
    assert (len(heard), heard[0], heard[-1]) == (3300, -32767, 32767)
    assert told[0][0] >= 3200 / 16000  # not before all was played
    measures = live.Measures()
    stream = live.Stream(samples, "the cat sat", "the cat sat", ["the", "cat", "sat"], [0.05, 0.1, 0.2])
    measures.add(stream, live.as_events(told, len(samples) / 16000))
    row = measures.row()
    assert row["wer"] == {"stable": 0.0, "final": 0.0, "offline": 0.0}
    assert (row["n_words"], row["n_items"], row["erasure"]) == (3, 1, round(1 / 3, 3))
    with pytest.raises(SystemExit, match="scripts/peers whisperlivekit"):
        rivals.play("whisperlivekit", tmp_path, samples)
    python.write_text("#!/bin/sh\necho it broke >&2\n")
    with pytest.raises(SystemExit, match="it broke"):
        rivals.play("whisper_streaming", tmp_path, samples)


def test_text_that_a_program_takes_back_stays_and_counts(rivals: ModuleType) -> None:
    stable = ""
    for told, new, interim in [
        ({"text": "", "interim": "x"}, "", " x"),
        ({"text": "The", "interim": "cat"}, "The", " cat"),
        ({"text": "The cat", "interim": ""}, " cat", ""),
        ({"text": "The cat, sitt", "interim": ""}, ", sitt", ""),
        ({"text": "The cat, sitting", "interim": ""}, "ing", ""),
        ({"text": "A cat, sitting", "interim": "x"}, "", " x"),
        ({"text": "A cat, sitting down.", "interim": ""}, " down.", ""),
    ]:
        assert rivals.stable_and_interim(told, stable) == (new, interim)
        stable += new
    assert stable == "The cat, sitting down."
