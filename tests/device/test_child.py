"""Work in a child process: its files stay, its memory goes, and its errors are raised in the parent."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from whisper.device import child
from whisper.errors import CheckpointError

from ..conftest import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks where it saves memory, on Linux")


class UnsendableError(Exception):
    def __reduce__(self) -> NoReturn:
        raise TypeError("stays where it is")


def test_the_work_is_done_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    assert child.run(lambda: path.write_text(str(os.getpid())))
    assert path.read_text() != str(os.getpid())


def test_what_is_printed_comes_once(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    assert child.run(lambda: print("in it"))
    print("after")
    assert capfd.readouterr().out.split("\n") == ["before", "in it", "after", ""]


def test_an_error_is_raised_here() -> None:
    def fail() -> None:
        raise CheckpointError("it is broken")

    with pytest.raises(CheckpointError, match="it is broken"):
        child.run(fail)


def test_a_child_that_dies_or_cannot_say_why_has_done_nothing() -> None:
    def unsendable() -> None:
        raise UnsendableError

    assert not child.run(unsendable)
    assert not child.run(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_an_interrupted_child_interrupts() -> None:
    def interrupted() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        child.run(interrupted)


def test_an_interrupt_of_the_parent_ends_the_child(tmp_path: Path) -> None:
    """The child is not left behind, and what it had begun is taken back."""
    begun, undone = tmp_path / "begun", tmp_path / "undone"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    here = os.getpid()

    def endless() -> None:
        try:
            begun.write_text(str(os.getpid()))
            os.kill(here, signal.SIGINT)
            threading.Event().wait(60)
        finally:
            undone.write_text("")

    with pytest.raises(KeyboardInterrupt):
        child.run(endless)
    assert undone.exists()
    with pytest.raises(ChildProcessError):  # this process may have other children, which other tests started
        os.waitpid(int(begun.read_text()), os.WNOHANG)


def test_it_is_for_processes_without_torch_and_threads() -> None:
    code = """
import threading
from whisper.device import child
found = [child.saves_memory()]
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
found.append(child.saves_memory())
stop.set()
thread.join()
import torch
found.append(child.saves_memory())
print(found)
"""
    package = "import sys, types; p = sys.modules['whisper'] = types.ModuleType('whisper'); p.__path__ = [{!r}]\n"
    assert (
        run_python(package.format(os.path.dirname(os.path.dirname(child.__file__))) + code) == "[True, False, False]\n"
    )
