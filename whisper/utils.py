"""The small helpers of the public interface: numbers in words, times in words, how repetitive a text is.

Loads nothing beyond the standard library. The writers live in `writers`, which needs the times from here;
programs look for them under this module's name, so it hands them out when they are asked for.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import NumberError, OptionError

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property
else:

    class cached_property:  # noqa: N801
        """That of `functools` from Python 3.12 on; before, it has a lock, which a fork may leave locked in a child."""

        def __init__(self, function):
            self.function, self.__doc__ = function, function.__doc__

        def __set_name__(self, owner, name):
            self.name = name

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            return vars(instance).setdefault(self.name, self.function(instance))


if TYPE_CHECKING:
    from .output.writers import ResultWriter as ResultWriter
    from .output.writers import SubtitlesWriter as SubtitlesWriter
    from .output.writers import WriteJSON as WriteJSON
    from .output.writers import WriteSRT as WriteSRT
    from .output.writers import WriteTSV as WriteTSV
    from .output.writers import WriteTXT as WriteTXT
    from .output.writers import WriteVTT as WriteVTT
    from .output.writers import get_writer as get_writer

system_encoding = sys.getdefaultencoding()

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep

_WRITERS = (
    "ResultWriter", "SubtitlesWriter", "WriteJSON", "WriteSRT", "WriteTSV", "WriteTXT", "WriteVTT",
    "get_writer",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WRITERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .output import writers

    return getattr(writers, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WRITERS})


# ---------------------------------------------------------------------------------------------------------
# Numbers
# ---------------------------------------------------------------------------------------------------------


def exact_div(x: int, y: int) -> int:
    """Return ``x / y`` as a whole number; NumberError where a remainder would be left."""
    quotient, remainder = divmod(x, y)
    if remainder != 0:
        raise NumberError(f"{x} is not a multiple of {y}: {remainder} would be left over")
    return quotient


def str2bool(string: str) -> bool:
    """Read ``True`` or ``False``, spelled exactly so; OptionError (a ValueError) for anything else."""
    if string not in ("True", "False"):
        raise OptionError(f"{string!r} is neither 'True' nor 'False'")
    return string == "True"


def optional_bool(string: str) -> bool | None:
    """Read ``True``, ``False`` or ``None``."""
    return None if string == "None" else str2bool(string)


def optional_int(string: str) -> int | None:
    """Read a whole number, or ``None``."""
    return None if string == "None" else int(string)


def optional_float(string: str) -> float | None:
    """Read a number, or ``None``."""
    return None if string == "None" else float(string)


# ---------------------------------------------------------------------------------------------------------
# Warnings
# ---------------------------------------------------------------------------------------------------------


def warn_caller(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """Warn with the place in the caller's program from which this package was called, however deep we are in it."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


# ---------------------------------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------------------------------


def make_safe(string: str) -> str:
    """Put ``?`` for every character that `system_encoding` cannot write; UTF-8 writes them all."""
    if system_encoding == "utf-8":
        return string
    return string.encode(system_encoding, errors="replace").decode(system_encoding)


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes the UTF-8 bytes of `text`; above 2.4 it is likely a loop.

    Source: Radford et al. 2022, arXiv:2212.04356, 4.5.
    """
    plain = text.encode("utf-8")
    return len(plain) / len(zlib.compress(plain))


# ---------------------------------------------------------------------------------------------------------
# Times
# ---------------------------------------------------------------------------------------------------------


def format_timestamp(seconds: float, always_include_hours: bool = False, decimal_marker: str = ".") -> str:
    """Write a time as ``[hh:]mm:ss.mmm``.

    Parameters
    ----------
    seconds
        Not negative; rounded to the nearest millisecond.
    always_include_hours
        Write ``00:`` where there are no hours, as SubRip wants it.
    decimal_marker
        Stands before the milliseconds: a comma in SubRip.

    Raises
    ------
    NumberError
        The time is negative, infinite or not a number.
    """
    if not 0 <= seconds < math.inf:
        raise NumberError(f"a time must be a number, and not negative: {seconds} s")
    whole_seconds, milliseconds = divmod(round(seconds * 1000.0), 1000)
    whole_minutes, second = divmod(whole_seconds, 60)
    hour, minute = divmod(whole_minutes, 60)
    hours = f"{hour:02d}:" if always_include_hours or hour > 0 else ""
    return f"{hours}{minute:02d}:{second:02d}{decimal_marker}{milliseconds:03d}"


def _first(items: Iterable[Any]) -> Any:
    return next(iter(items), None)


def get_start(segments: Sequence[Mapping[str, Any]]) -> float | None:
    """Return when the first word starts, in seconds; without words the first segment; None without either."""
    word = _first(word for segment in segments for word in segment.get("words", ()))
    earliest = word or _first(segments)
    return earliest["start"] if earliest else None


def get_end(segments: Sequence[Mapping[str, Any]]) -> float | None:
    """Return when the last word ends, in seconds; without words the last segment; None without either."""
    word = _first(word for segment in reversed(segments) for word in reversed(segment.get("words", ())))
    latest = word or _first(reversed(segments))
    return latest["end"] if latest else None
