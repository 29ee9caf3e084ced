"""A live session: its events and their order, what interrupts what, and errors of everybody."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import whisper
from whisper.device import processes
from whisper.errors import CapacityError, ItemError, SessionError, ShapeError
from whisper.live import (
    Committed,
    Failed,
    Final,
    Interim,
    LiveOptions,
    LiveSession,
    SpeechStarted,
    SpeechStopped,
    Stable,
)
from whisper.live.pace import Pace
from whisper.model import Whisper

from ..conftest import ROOT
from ..models import random_model
from ..real_models import load_installed, needs
from .fakes import RATE, FakeHear, listener, loud, silent


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(0)


@pytest.fixture(autouse=True)
def transcribed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What `transcribe` was called with; its text is ``One two.`` except in tests with a real model."""
    calls: list[dict[str, Any]] = []

    def fake(model: Whisper, samples: np.ndarray, **options: Any) -> Any:
        calls.append({"samples": samples, **options})
        return {"text": " One two.", "segments": [], "language": "en"}

    if "real" not in request.node.name:
        monkeypatch.setattr(sys.modules["whisper.transcribe"], "transcribe", fake)
    return calls


class Session:
    """A session with doubles, and the events that it sent."""

    def __init__(self, model: Whisper, hear: FakeHear | None = None, pace: Pace | None = None, **options: Any) -> None:
        self.events: list[Any] = []
        self.threads: set[threading.Thread] = set()
        self.hear = hear or FakeHear()
        self.live = LiveSession(
            model,
            LiveOptions(**options),
            self._on_event,
            hear=self.hear,
            listener=listener(**options),
            pace=pace or Pace(),
        )

    def _on_event(self, event: Any) -> None:
        self.events.append(event)
        self.threads.add(threading.current_thread())

    def of(self, *kinds: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    def play(self, *sounds: np.ndarray) -> None:
        """Append sound, and wait until it was looked at."""
        for sound in sounds:
            self.live.append(sound)
        self.wait_for(lambda: self.live.backlog == 0)

    def wait_for(self, condition: Callable[[], Any], seconds: float = 5) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, self.events
            time.sleep(0.002)


@pytest.fixture
def sessions(model: Whisper) -> Iterator[Callable[..., Session]]:
    """Makes sessions, and closes them."""
    made = []

    def make(*given: Any, **options: Any) -> Session:
        made.append(Session(model, *given, **options))
        return made[-1]

    yield make
    for session in made:
        session.live.close(finish=False)


def test_the_events_of_an_item_come_in_order_on_one_thread(
    sessions: Callable[..., Session], transcribed: list[dict[str, Any]]
) -> None:
    session = sessions(language="en")
    session.play(silent(1), loud(1.5))
    session.wait_for(lambda: session.of(Interim))
    session.play(silent(1))
    session.live.close()
    kinds = [type(event) for event in session.events if not isinstance(event, (Interim, Stable))]
    assert kinds == [SpeechStarted, SpeechStopped, Committed, Final]
    started, stopped, committed, final = (e for e in session.events if not isinstance(e, (Interim, Stable)))
    assert {event.item for event in session.events} == {0}
    assert started.at == committed.start == final.start
    assert stopped.at < committed.end == final.end
    assert len(session.threads) == 1
    assert threading.current_thread() not in session.threads
    (call,) = transcribed
    assert len(call["samples"]) == round((final.end - final.start) * RATE)
    assert call["language"] == "en"


def test_stable_text_grows_and_the_last_delta_completes_it(sessions: Callable[..., Session]) -> None:
    session = sessions(delay="minimal")
    session.play(loud(1.6))
    session.wait_for(lambda: session.of(Stable))
    session.play(silent(1))
    session.live.close()
    assert session.of(Interim)[0].text
    # the model heard "one two ..." at first; the transcript says otherwise, and what is sent stays
    assert "".join(event.text for event in session.of(Stable)).startswith("one two")
    assert session.events.index(session.of(Final)[0]) > session.events.index(session.of(Stable)[-1])


def test_the_next_refresh_begins_with_the_stable_tokens(sessions: Callable[..., Session]) -> None:
    session = sessions(delay="minimal")
    session.play(loud(1.6))
    session.wait_for(lambda: session.of(Stable))
    session.play(loud(1))
    session.wait_for(lambda: len(session.hear.calls) > 1)
    assert session.hear.calls[0][1] == ()
    assert len(session.hear.calls[1][1]) >= 2


def test_without_interim_only_stable_text_is_sent(sessions: Callable[..., Session]) -> None:
    session = sessions(delay="minimal", interim=False)
    session.play(loud(2))
    session.wait_for(lambda: session.of(Stable))
    session.live.close()
    assert not session.of(Interim)


def test_silence_costs_no_refresh_and_no_transcription(
    sessions: Callable[..., Session], transcribed: list[dict[str, Any]]
) -> None:
    session = sessions()
    session.play(silent(20))
    session.live.close()
    assert session.events == session.hear.calls == transcribed == []


def test_a_refresh_is_not_repeated_without_new_speech(sessions: Callable[..., Session]) -> None:
    session = sessions(delay="minimal", silence_s=5)
    session.play(loud(1.5))
    session.wait_for(lambda: session.hear.calls)
    session.play(silent(2))
    time.sleep(0.4)
    assert len(session.hear.calls) <= 2


def test_the_end_of_an_item_breaks_a_refresh_off(sessions: Callable[..., Session]) -> None:
    hear = FakeHear(gate=threading.Event())  # a refresh that never ends by itself
    session = sessions(hear)
    session.play(loud(1.5))
    session.wait_for(lambda: hear.calls)
    session.live.append(silent(1))
    session.wait_for(lambda: session.of(Final))
    assert not session.of(Interim, Stable)[:-1]


def test_clearing_breaks_a_refresh_off_too_and_sends_nothing(
    sessions: Callable[..., Session], transcribed: list[dict[str, Any]]
) -> None:
    hear = FakeHear(gate=threading.Event())
    session = sessions(hear)
    session.play(loud(1.5))
    session.wait_for(lambda: hear.calls)
    session.live.clear()
    session.play(silent(2))
    session.live.close()
    assert [type(event) for event in session.events] == [SpeechStarted]
    assert transcribed == []


def test_clearing_forgets_the_text_where_no_speech_is_looked_for(sessions: Callable[..., Session]) -> None:
    session = sessions(delay="minimal", turn_detection="none")
    session.play(loud(2))
    session.wait_for(lambda: session.of(Stable))
    session.live.clear()
    n_calls = len(session.hear.calls)
    session.play(loud(2))
    session.wait_for(lambda: len(session.hear.calls) > n_calls)
    assert session.hear.calls[-1][1] == ()


def test_who_waits_for_its_time_holds_up_no_other_session(sessions: Callable[..., Session]) -> None:
    pace = Pace()
    first, second = sessions(None, pace, delay="xhigh"), sessions(None, pace, delay="minimal")
    for _ in range(8):
        first.play(loud(0.5))
        second.play(loud(0.5))
        time.sleep(0.15)
    assert len(second.hear.calls) > len(first.hear.calls)


def test_waiting_for_a_turn_is_sleeping(sessions: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> None:
    pace, hear = Pace(), FakeHear(gate=threading.Event())
    first, second = sessions(hear, pace), sessions(None, pace)
    first.play(loud(1.5))
    first.wait_for(lambda: hear.calls)
    second.play(loud(1.5))
    time.sleep(0.1)
    asked = []
    take_turn = pace.take_turn
    monkeypatch.setattr(pace, "take_turn", lambda wake: (asked.append(wake), take_turn(wake))[1])
    time.sleep(0.3)
    assert asked == []
    assert hear.gate is not None
    hear.gate.set()
    second.wait_for(lambda: second.hear.calls)


def test_a_session_that_lags_skips_to_the_newest_sound(sessions: Callable[..., Session]) -> None:
    hear = FakeHear(gate=threading.Event())
    session = sessions(hear, delay="minimal")
    session.play(loud(1))
    session.wait_for(lambda: hear.calls)
    session.play(*[loud(0.5)] * 20)
    assert hear.gate is not None
    hear.gate.set()
    session.wait_for(lambda: len(hear.calls) > 1)
    assert hear.calls[1][0] >= 10.9


def test_a_program_ends_items_itself(sessions: Callable[..., Session]) -> None:
    session = sessions(turn_detection="none")
    session.play(silent(1), loud(1), silent(2))
    assert not session.of(Final)
    session.live.commit()
    session.wait_for(lambda: session.of(Final))
    (final,) = session.of(Final)
    assert (final.start, final.end) == (0.0, 4.0)
    assert not session.of(SpeechStarted, SpeechStopped)
    with pytest.raises(ItemError, match=r"0\.000 s"):
        session.live.commit()
    session.live.append(silent(0.05))
    with pytest.raises(ItemError):
        session.live.commit()


def test_a_commit_without_speech_fails_as_an_item(sessions: Callable[..., Session]) -> None:
    session = sessions()
    session.play(silent(2))
    session.live.commit()
    session.wait_for(lambda: session.of(Failed))
    assert isinstance(session.of(Failed)[0].error, ItemError)
    session.play(loud(1), silent(1))
    session.wait_for(lambda: session.of(Final))


def test_closing_finishes_the_open_item_or_drops_it(
    sessions: Callable[..., Session], transcribed: list[dict[str, Any]]
) -> None:
    kept, dropped = sessions(), sessions()
    for session in (kept, dropped):
        session.play(loud(1))
    kept.live.close()
    dropped.live.close(finish=False)
    assert len(kept.of(Final)) == len(transcribed) == 1
    assert not dropped.of(Final)
    n_events = len(kept.events)
    with pytest.raises(SessionError, match="closed"):
        kept.live.append(loud(1))
    kept.live.close()
    assert len(kept.events) == n_events


def test_a_context_that_fails_drops_what_is_open(model: Whisper, transcribed: list[dict[str, Any]]) -> None:
    session = LiveSession(model, listener=listener(), pace=Pace(), hear=FakeHear())
    session.append(loud(1))
    session.__exit__(KeyError, KeyError(), None)
    assert transcribed == []
    with pytest.raises(SessionError, match="closed"):
        session.append(loud(1))


def test_an_item_that_fails_ends_no_session(sessions: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError("full")

    session = sessions()
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["whisper.transcribe"], "transcribe", fails)
        session.play(loud(1), silent(1))
        session.wait_for(lambda: session.of(Failed))
    assert isinstance(session.of(Failed)[0].error, MemoryError)
    session.play(loud(1), silent(1))
    session.wait_for(lambda: session.of(Final))
    assert session.of(Final)[0].item == 1


def test_a_refresh_that_fails_is_tried_no_more_in_this_item(sessions: Callable[..., Session]) -> None:
    hear = FakeHear(error=MemoryError("full"))
    session = sessions(hear, delay="minimal")
    session.play(loud(1))
    session.wait_for(lambda: hear.calls)
    session.play(loud(1))
    time.sleep(0.3)
    assert len(hear.calls) == 1
    hear.error = None
    session.play(silent(1), loud(1.5))
    session.wait_for(lambda: session.of(Interim))
    assert session.of(Final)


def test_a_refresh_that_failed_is_tried_again_in_the_next_item_of_a_program(sessions: Callable[..., Session]) -> None:
    hear = FakeHear(error=MemoryError("full"))
    session = sessions(hear, delay="minimal", turn_detection="none")
    session.play(loud(1))
    session.wait_for(lambda: hear.calls)
    session.live.commit()
    hear.error = None
    session.play(loud(1.5))
    session.wait_for(lambda: session.of(Interim))


def test_a_session_that_waits_does_not_hold_up_the_exit_of_python(sessions: Callable[..., Session]) -> None:
    session = sessions()
    session.play(silent(1))
    session.wait_for(lambda: session.live._thread.ident not in processes._at_work)
    assert session.live._thread.daemon


def test_an_error_of_the_program_ends_the_session_and_is_told(model: Whisper) -> None:
    def fails(event: Any) -> None:
        raise ZeroDivisionError

    session = LiveSession(model, on_event=fails, listener=listener(), pace=Pace(), hear=FakeHear())
    session.append(loud(1))
    session._thread.join(5)
    assert not session._thread.is_alive()
    for call in (lambda: session.append(loud(1)), session.commit, session.close):
        with pytest.raises(SessionError, match="ZeroDivisionError"):
            call()


def test_so_does_a_fault_of_the_session_itself(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = listener()
    monkeypatch.setattr(broken, "feed", lambda samples: 1 / 0)
    session = LiveSession(model, listener=broken, pace=Pace(), hear=FakeHear())
    session.append(loud(1))
    session._thread.join(5)
    with pytest.raises(SessionError, match="ZeroDivisionError"):
        session.close()


def test_what_is_appended_is_checked_and_mended(
    sessions: Callable[..., Session], transcribed: list[dict[str, Any]]
) -> None:
    session = sessions(turn_detection="none")
    for wrong in (np.zeros(5), np.zeros((1, 5), np.float32), [0.0], np.zeros(5, np.int16)):
        with pytest.raises(ShapeError, match="float32"):
            session.live.append(wrong)  # type: ignore[arg-type]
    broken = loud(1)
    broken[5] = np.nan
    session.live.append(broken)
    assert np.isnan(broken[5])  # the caller's array stays
    broken[:] = 0.25
    session.live.close()
    assert transcribed[0]["samples"][5] == 0.0
    assert transcribed[0]["samples"][6] == 0.5  # and may be used again


def test_other_options_hold_from_the_next_item_on(
    sessions: Callable[..., Session], transcribed: list[dict[str, Any]]
) -> None:
    session = sessions(language="en")
    session.play(loud(1))
    session.live.update(LiveOptions(language="de"))
    session.play(silent(1), loud(1), silent(1))
    session.live.close()
    assert [call["language"] for call in transcribed] == ["en", "de"]


def test_beyond_capacity_a_session_is_refused(model: Whisper, sessions: Callable[..., Session]) -> None:
    pace = Pace()
    sessions(None, pace)
    pace._took.append(2.0)
    with pytest.raises(CapacityError):
        sessions(None, pace)


def test_hours_of_speech_keep_the_memory_of_one_item(sessions: Callable[..., Session]) -> None:
    session = sessions(max_item_s=5)
    for _ in range(30):
        session.play(loud(10))
    assert len(session.live._listener.samples) <= 5.1 * RATE
    session.live.close()
    finals = session.of(Final)
    assert len(finals) >= 60
    assert [final.start for final in finals[1:]] == [final.end for final in finals[:-1]]


@pytest.mark.slow
@needs("base")
@pytest.mark.parametrize("pieces", [1600, 7013])
def test_real_speech_ends_in_what_transcribe_gives(pieces: int) -> None:
    model = load_installed("base")
    sound = np.concatenate([whisper.load_audio(str(ROOT / "examples" / "reading.opus"))[: 14 * RATE], silent(1)])
    options, events = LiveOptions(language="en", word_timestamps=True), []
    with LiveSession(model, options, events.append) as session:
        for begin in range(0, len(sound), pieces):
            session.append(sound[begin : begin + pieces])
            time.sleep(pieces / RATE / 2)
    finals = [event for event in events if isinstance(event, Final)]
    assert finals
    assert any(isinstance(event, Interim) for event in events)
    for final in finals:
        samples = sound[round(final.start * RATE) : round(final.end * RATE)]
        assert final.result == model.transcribe(samples, **options.for_transcribe())
    assert "arts and crafts" in finals[0].result["text"]
    said = "".join(event.text for event in events if isinstance(event, Stable) and event.item == 0)
    assert "arts and crafts" in said
