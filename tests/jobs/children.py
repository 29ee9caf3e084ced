"""Runs of a job in a process that a test kills or limits.

A fork of pytest copies whatever locks its other threads hold at that moment, and may wait for one for ever. So the
children are forks of a process that has one thread, `multiprocessing`'s fork server, and their work is a function of a
module.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any

LONGEST_S = 90.0  # then a child says where it is, and ends


def start(work: Callable[..., int], *arguments: Any) -> ForkServerProcess:
    """Start a child; its exit status is what `work` returns."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    child = context.Process(target=_run, args=(work, arguments))
    child.start()
    return child


def in_a_child(work: Callable[..., int], *arguments: Any) -> int:
    """Run in a child to the end; returns its exit status, or the negative number of the signal that killed it."""
    child = start(work, *arguments)
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _run(work: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    faulthandler.dump_traceback_later(LONGEST_S, exit=True)
    os._exit(work(*arguments))  # threads of workers do not hold it up
