"""Errors: what they held is let go."""

import gc
import weakref

import numpy as np
import pytest

from whisper.server.errors import release_frames


class Recording:
    """Something large."""

    def __init__(self) -> None:
        self.samples = np.zeros(10)


def test_what_the_functions_held_that_an_error_left_is_freed_at_once() -> None:
    held: list[weakref.ref[Recording]] = []

    def work() -> None:
        recording = Recording()
        held.append(weakref.ref(recording))
        try:
            raise KeyError
        except KeyError as error:
            kept = error  # a cycle: the error, its traceback, this frame
            raise ValueError from kept

    gc.disable()
    try:
        with pytest.raises(ValueError, match=r"^$") as raised:
            work()
        assert held[0]() is not None
        release_frames(raised.value)
        assert held[0]() is None
        assert len(raised.traceback) > 1  # the text of the traceback stays for the log
    finally:
        gc.enable()
