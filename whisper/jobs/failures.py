"""Kinds of failures: what each means, whether trying again can help, and what a person can do about it."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from ..errors import AudioError, CancelledError, OptionError

FIRST_WAIT_S = 5.0  # before a second try; each further one waits twice as long


class Kind(NamedTuple):
    """What is known of a kind of failure."""

    words: str
    passes: bool  # it may be gone at the next try
    mends: str  # what a person can do


KINDS: dict[str, Kind] = {
    "audio": Kind("no sound can be read from it", False, "look at the file; then {retry}"),
    "missing": Kind("the file is not there", False, "put it back; then {retry}"),
    "permission": Kind("it may not be read", False, "chmod u+r FILE; then {retry}"),
    "options": Kind("an option does not fit it", False, "change the option, such as --audio_track, and run again"),
    "output": Kind(
        "its files cannot be written", False, "see to the folder; then {retry}: nothing is transcribed again"
    ),
    "changing": Kind("it changed while it was read", True, "wait until it is whole; then {retry}"),
    "reading": Kind("reading it failed", True, "look at the disk or the network; then {retry}"),
    "memory": Kind("there was not enough memory", True, "{retry}; then run with a smaller --side_by_side"),
    "crash": Kind("a worker died while it ran, alone", True, "{retry}; please report the file if it happens again"),
    "error": Kind("the program failed", True, "{retry}; please report it if it happens again"),
}


def mending(kind: str, out: str) -> str:
    """Return what a person can do about a kind of failure, with the command."""
    return KINDS[kind].mends.format(retry=f"whisper jobs retry {shlex.quote(out)} --kind {kind}")


class Next(NamedTuple):
    """What becomes of a recording after a failure."""

    state: str  # "waiting" or "failed"
    wait_s: float = 0.0
    alone: bool = False


def kind_of(error: BaseException) -> tuple[str, str]:
    """Return the kind of an error, or "cancelled", and its message."""
    if isinstance(error, CancelledError):
        return "cancelled", str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "memory", str(error) or "out of memory"
    for kind, types in (
        ("missing", (FileNotFoundError, NotADirectoryError)),
        ("permission", (PermissionError,)),
        ("audio", (AudioError, IsADirectoryError)),
        ("options", (OptionError,)),
        ("reading", (OSError,)),
    ):
        if isinstance(error, types):
            return kind, _in_words(error)
    return "error", f"{type(error).__name__}: {error}"


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def after(kind: str, n_tries: int, n_alone: int, retries: int) -> Next:
    """Decide what becomes of a recording.

    Parameters
    ----------
    kind
        Of its failure.
    n_tries
        How often it was tried, this time included.
    n_alone
        How often it was tried with nothing beside it.
    retries
        Further tries that are allowed.
    """
    if kind in ("crash", "memory"):  # whoever was beside it may be the cause: once more, alone
        return Next("failed") if n_alone else Next("waiting", 0.0, True)
    if not KINDS[kind].passes or n_tries > retries:
        return Next("failed")
    return Next("waiting", FIRST_WAIT_S * 2 ** (n_tries - 1))
