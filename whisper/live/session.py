"""A live session: samples go in on any thread, and its own thread sends what is known of their text.

One thread listens, refreshes and transcribes. While the model works on a refresh, the thread goes on listening between
two steps of it, and breaks it off when an item ends, so that the final text comes as soon as it can. That is what
`transcribe` gives for the samples of the item, because `transcribe` gives it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..device import processes
from ..engine.priorities import Priority, claiming
from ..errors import CancelledError, ItemError, SessionError, ShapeError
from ..media.bad_samples import zeroed
from ..spans import SAMPLE_RATE
from .events import Committed, Event, Failed, Final, Interim, SpeechStopped, Stable
from .listener import EndedItem, Listener
from .options import DELAYS, LiveOptions
from .pace import Pace, pace_of
from .refresh import Refresher, seconds_of
from .stability import ItemText

if TYPE_CHECKING:
    from ..model import Whisper
    from ..results import Transcript
    from .refresh import Hypothesis

Samples = np.ndarray[Any, np.dtype[np.float32]]

LEAST_SOUND = 0.7  # seconds of an item before its first refresh: of less, models invent
LEAST_COMMITTED = 0.1  # seconds of sound that can be committed


class Hearing(Protocol):
    """What turns the samples of an item into a hypothesis; `refresh.Refresher.refresh`."""

    def __call__(
        self,
        samples: Samples,
        options: LiveOptions,
        known: tuple[int, ...],
        language: str | None,
        stop: Callable[[], bool] | None,
    ) -> Hypothesis | None: ...


class LiveSession:
    """Live captions of one stream of sound.

    Parameters
    ----------
    model
        A Whisper model; any number of sessions and other transcriptions share it.
    options
        Of the session.
    on_event
        Called with each event, in their order, on the session's own thread, which waits meanwhile. If it raises, the
        session ends, and what is called next raises `SessionError`.
    key
        For whom it is: sessions of one key share what they get of the model, beside those of other keys.
    hear, text, listener, pace
        What refreshes, what decides which words are stable, what finds items, and who shares the model: for tests, and
        to compare policies.

    Raises
    ------
    CapacityError
        With one more session, this machine would not keep up.
    """

    def __init__(
        self,
        model: Whisper,
        options: LiveOptions | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
        *,
        key: str = "",
        hear: Hearing | None = None,
        text: Callable[[LiveOptions], ItemText] | None = None,
        listener: Listener | None = None,
        pace: Pace | None = None,
    ) -> None:
        options = options or LiveOptions()
        self._model, self._on_event, self._key = model, on_event, key
        self._hear = hear or Refresher(model, key).refresh
        self._make_text = text or text_of
        self._listener = listener or Listener(options)
        self._changed = threading.Condition(processes.lock())  # of what follows
        self._inbox: deque[Samples | Callable[[], EndedItem | None]] = deque()
        self._n_waiting = 0  # samples in it
        self._n_uncommitted = 0  # samples since the last commit
        self._is_closing = self._is_woken = False
        self._aborted = threading.Event()
        self._error: BaseException | None = None
        # of the worker alone
        self._ended: EndedItem | None = None  # found while a refresh ran
        self._text: ItemText | None = None  # of the open item
        self._language: str | None = None  # of the open item, once a part of its text is stable
        self._n_refreshed = 0  # samples of the session that were refreshed
        self._last_refresh = -math.inf  # when it began
        self._due_in: float | None = None  # seconds; None where nothing is to be heard, or where a turn is waited for
        self._shown = ""  # the interim text that was sent
        self._has_failed = False  # a refresh of the open item has failed
        self._pace = pace or pace_of(model)
        self._pace.join(self._wake)
        self._thread = threading.Thread(target=self._run, name="live session", daemon=True)
        self._thread.start()

    # -- called by the program -----------------------------------------------------------------------------

    @property
    def backlog(self) -> float:
        """Seconds of sound that were appended and not looked at yet; grows where it comes faster than it is spoken."""
        return self._n_waiting / SAMPLE_RATE

    def append(self, samples: Samples) -> None:
        """Take in the next sound, and return at once.

        Parameters
        ----------
        samples
            Float32 ``(n,)`` at 16 kHz, one channel; not changed. Invalid ones are replaced by zeros.

        Raises
        ------
        ShapeError
            They are not of this type or shape.
        SessionError
            The session is closed.
        """
        if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype != np.float32:
            found = f"{samples.dtype} {samples.shape}" if isinstance(samples, np.ndarray) else type(samples).__name__
            raise ShapeError(f"append() takes a numpy array of float32 (n,) at 16 kHz, not {found}")
        samples = zeroed(samples.copy())
        with self._changed:
            self._check_open()
            if len(samples):
                self._inbox.append(samples)
                self._n_waiting += len(samples)
                self._n_uncommitted += len(samples)
                self._changed.notify_all()

    def commit(self) -> None:
        """End the open item here.

        Where speech is looked for and the sound has none, `Failed` tells so.

        Raises
        ------
        ItemError
            Less than 0.1 s of sound came since the last commit.
        SessionError
            The session is closed.
        """
        with self._changed:
            self._check_open()
            if self._n_uncommitted < LEAST_COMMITTED * SAMPLE_RATE:
                seconds = self._n_uncommitted / SAMPLE_RATE
                raise ItemError(
                    f"there are {seconds:.3f} s of sound to commit, and at least {LEAST_COMMITTED} are needed"
                )
            self._n_uncommitted = 0
            self._send(self._listener.commit)

    def clear(self) -> None:
        """Drop all sound that is not committed.

        Raises
        ------
        SessionError
            The session is closed.
        """
        with self._changed:
            self._check_open()
            self._n_uncommitted = 0
            self._send(self._forget)

    def update(self, options: LiveOptions) -> None:
        """Use other options, from the next item on.

        Raises
        ------
        SessionError
            The session is closed.
        """
        with self._changed:
            self._check_open()
            self._send(lambda: self._listener.update(options))

    def close(self, *, finish: bool = True) -> None:
        """End the session; when this returns, no more events come.

        Parameters
        ----------
        finish
            Whether what has come is looked at, and the open item gets its final text first. Else all is dropped.

        Raises
        ------
        SessionError
            `on_event` has raised an error.
        """
        with self._changed:
            self._is_closing = True
            if not finish:
                self._aborted.set()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._error is not None:
            raise SessionError(f"the session ended by an error: {self._error!r}") from self._error

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(finish=error is None)

    def _send(self, command: Callable[[], EndedItem | None]) -> None:
        self._inbox.append(command)
        self._changed.notify_all()

    def _check_open(self) -> None:
        if self._error is not None:
            raise SessionError(f"the session ended by an error: {self._error!r}") from self._error
        if self._is_closing:
            raise SessionError("the session is closed")

    def _wake(self) -> None:
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    # -- the session's thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._aborted.is_set():
                with processes.piece():
                    is_idle = not self._work()
                if is_idle and self._is_at_end():
                    break
                if is_idle:
                    self._wait()
        except BaseException as error:  # a fault of ours, which the program is told at its next call
            self._error = error
        finally:
            with self._changed:
                self._is_closing = True
                self._inbox.clear()
                self._n_waiting = 0
            self._pace.leave(self._wake)

    def _work(self) -> bool:
        """Do what is next; False where that is to wait."""
        ended, self._ended = self._ended or self._listen(), None
        if ended is None and self._is_at_end() and self._listener.item is not None:
            ended = self._listener.commit()
        if ended is None:
            return self._refresh()
        self._finish(ended)
        return True

    def _is_at_end(self) -> bool:
        with self._changed:
            return self._is_closing and not self._inbox

    def _wait(self) -> None:
        """Wait for sound, for a turn, or until a refresh is due."""
        with self._changed:
            if not (self._inbox or self._is_closing or self._is_woken or self._aborted.is_set()):
                self._changed.wait(self._due_in)
            self._is_woken = False

    def _listen(self) -> EndedItem | None:
        """Look at what has come, up to the end of an item."""
        while not self._aborted.is_set():
            change = self._listener.advance()
            if isinstance(change, EndedItem):
                return change
            if change is not None:
                self._begin()
                self._emit(change)
                continue
            with self._changed:
                if not self._inbox:
                    return None
                entry = self._inbox.popleft()
                if not callable(entry):
                    self._n_waiting -= len(entry)
            if not callable(entry):
                self._listener.feed(entry)
            elif (ended := entry()) is not None:
                return ended
        return None

    def _begin(self) -> None:
        """Prepare for the text of another item."""
        self._text = self._make_text(self._listener.options)
        self._language, self._shown, self._has_failed = None, "", False

    def _forget(self) -> None:
        """Drop the open item, and all sound that has come."""
        self._listener.clear()
        self._text, self._has_failed = None, False

    def _emit(self, event: Event) -> None:
        if self._aborted.is_set():
            return
        try:
            self._on_event(event)
        except BaseException as error:  # the program's own, which it is told at its next call
            self._error = error
            self._aborted.set()

    # -- refreshes -----------------------------------------------------------------------------------------

    def _due(self) -> float | None:
        """Return when the open item may be refreshed; None where there is nothing new to hear."""
        listener = self._listener
        long_enough = listener.item is not None and listener.n_heard - listener.start >= LEAST_SOUND * SAMPLE_RATE
        if not long_enough or self._has_failed or listener.last_speech <= max(self._n_refreshed, listener.start):
            return None
        interval = self._pace.interval(DELAYS[listener.options.delay].interval)
        return self._last_refresh + interval

    def _refresh(self) -> bool:
        """Refresh the open item, if it is time and our turn; False where it is not."""
        due, now = self._due(), self._pace.clock()
        self._due_in = due - now if due is not None and due > now else None
        if due is None or due > now:
            self._pace.give_up_turn(self._wake)  # who is not ready holds up nobody
            return False
        if not self._pace.take_turn(self._wake):
            return False
        self._last_refresh, is_whole = now, False
        try:
            is_whole = self._refresh_item()
        except CancelledError:  # by ourselves: an item has ended
            pass
        except Exception:  # whatever it is, the transcription of the item will meet it, too, and tells it
            self._has_failed = True
        finally:
            self._pace.end_turn(self._wake, is_whole=is_whole)
        return True

    def _refresh_item(self) -> bool:
        """Send what is new in the open item; False where it ended meanwhile."""
        listener = self._listener
        number, options, samples = listener.item, listener.options, listener.samples
        if self._text is None:  # where no speech is looked for
            self._begin()
        text = self._text
        assert text is not None
        assert number is not None
        self._n_refreshed = listener.n_heard

        def is_over() -> bool:
            if self._ended is None and self._listener.item == number:
                self._ended = self._listen()
            return self._ended is not None or self._listener.item != number or self._aborted.is_set()

        hypothesis = self._hear(samples, options, text.tokens, self._language, is_over)
        if is_over():
            return False
        if hypothesis is not None:
            delta = text.take(hypothesis.words, seconds_of(samples))
            if text.tokens:
                self._language = hypothesis.language
            if delta:
                self._emit(Stable(number, delta))
            if options.interim and (text.interim != self._shown or delta):
                self._emit(Interim(number, text.interim))
                self._shown = text.interim
        return True

    # -- final texts ---------------------------------------------------------------------------------------

    def _finish(self, ended: EndedItem) -> None:
        """Send the final text of an item."""
        text, self._text, self._has_failed = self._text, None, False
        options, self._n_refreshed = ended.options, max(self._n_refreshed, ended.end)
        self._pace.give_up_turn(self._wake)
        if not ended.has_speech:
            self._emit(Failed(ended.number, ItemError("there is no speech in the sound that was committed")))
            return
        start, end = ended.start / SAMPLE_RATE, ended.end / SAMPLE_RATE
        if ended.speech_end is not None:
            self._emit(SpeechStopped(ended.number, ended.speech_end))
        self._emit(Committed(ended.number, start, end))
        try:
            result = self._transcribe(ended.samples, options)
        except Exception as error:  # whatever it is, it belongs to the item, and the session goes on
            self._emit(Failed(ended.number, error))
            return
        if delta := (text or text_of(options)).complete(result["text"]):
            self._emit(Stable(ended.number, delta))
        self._emit(Final(ended.number, start, end, result))

    def _transcribe(self, samples: Samples, options: LiveOptions) -> Transcript:
        from ..transcribe import transcribe

        with self._pace.final_text(), claiming(Priority.LIVE, self._key):
            return transcribe(self._model, samples, cancel=self._aborted, **options.for_transcribe())


def text_of(options: LiveOptions) -> ItemText:
    """Return the text of an item that begins, with the delay of the options."""
    delay = DELAYS[options.delay]
    return ItemText(delay.guard, delay.agreement, delay.doubtful_guard)
