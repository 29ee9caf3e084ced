"""Declaration of an option as a field of a dataclass: group, default, type and range, help, flag.

From a declaration come the checks of values in Python, the flags of the commands (`flags`) and the tables of
the documentation. Knows no option, no model and no combination of options.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, field, fields, is_dataclass
from itertools import islice
from numbers import Integral
from typing import Any, NamedTuple

from ..errors import OptionError, UnknownOptionError
from ..utils import str2bool
from . import language_names

FINITE = sys.float_info.max  # as an upper limit: any number but infinity
MOST_VALUES = 100_000  # in a list; an iterator may be infinite


# ---------------------------------------------------------------------------------------------------------
# Kinds of values
# ---------------------------------------------------------------------------------------------------------


def settled(value: Any) -> Any:
    """Convert numpy and torch values to Python's, and iterators to tuples.

    An iterator is empty the second time it is read, and every window reads the options; an array has no truth value.
    """
    if callable(getattr(value, "tolist", None)):
        try:
            value = value.tolist()
        except RuntimeError:  # a tensor that has no numbers
            return value
    plain = isinstance(value, (str, bytes, list, tuple, Mapping)) or not isinstance(value, Iterable)
    return value if plain else tuple(islice(value, MOST_VALUES + 1))


class Kind(NamedTuple):
    """The values that an option takes; its annotation says whether None is allowed."""

    words: str  # completes "beam_size must be ..."
    holds: Callable[[Any], bool]
    read: Callable[[str], Any] = str  # converts text from a command line to a value
    choices: tuple[str, ...] = ()
    settle: Callable[[Any], Any] = settled  # converts a value to the form that is kept
    metavar: str | None = None  # stands for a value in the help; None for the name of the option
    low: float = -math.inf  # of numbers
    high: float = math.inf


def is_number(value: object) -> bool:
    """Whether `value` is a number (not NaN, not text, not a bool)."""
    try:
        return not isinstance(value, (bool, str, bytes)) and not math.isnan(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # no number, or one with too many digits for a float
        return False


def is_whole(value: object) -> bool:
    """Whether `value` is a whole number, and not a bool."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> Kind:
    """Numbers from `low` to `high`, or from `above` it on."""
    words = f"a number{_range(low, high, above)}"
    return Kind(
        words,
        lambda v: is_number(v) and low <= v <= high and not (above and v == low),
        float,
        metavar="X",
        low=math.nextafter(low, math.inf) if above else low,
        high=high,
    )


def numbers(low: float, high: float) -> Kind:
    """One or more numbers from `low` to `high`; kept as a tuple."""
    one = number(low, high)
    return Kind(
        f"one or more numbers{_range(low, high)}",
        lambda v: bool(v) and _all(v, one.holds),
        lambda text: tuple(float(part) for part in text.split(",")),
        settle=_as_tuple,
        metavar="X,X",
    )


def whole(low: float = -math.inf, high: float = math.inf, *, floats: bool = False) -> Kind:
    """Whole numbers from `low` to `high`; with `floats` also such as 16000.0, which are kept as 16000."""
    return Kind(
        f"a whole number{_range(low, high)}",
        lambda v: is_whole(v) and low <= v <= high,
        int,
        settle=_as_whole if floats else settled,
        metavar="N",
        low=low,
        high=high,
    )


def one_of(*choices: str) -> Kind:
    """One of several words."""
    return Kind(f"one of {', '.join(choices)}", lambda v: isinstance(v, str) and v in choices, choices=choices)


def some_of(*choices: str) -> Kind:
    """One or more of several words, in a list or as text with commas; kept as a tuple."""
    return Kind(
        f"one or more of {', '.join(choices)}",
        lambda v: bool(v) and _all(v, lambda name: isinstance(name, str) and name in choices),
        _parts,
        settle=lambda given: _as_tuple(_parts(given)),
        metavar="NAMES",
    )


def _range(low: float, high: float, above: bool = False) -> str:
    if low == -math.inf:
        return ""
    return f" {'above' if above else 'of at least'} {low}" if high >= FINITE else f" from {low} to {high}"


def _all(values: Any, holds: Callable[[Any], Any]) -> bool:
    return isinstance(values, (list, tuple)) and len(values) <= MOST_VALUES and all(map(holds, values))


def _parts(given: Any) -> Any:
    """Take text apart at its commas."""
    return tuple(map(str.strip, given.split(","))) if isinstance(given, str) else settled(given)


def _as_tuple(given: Any) -> Any:
    """Put values in a tuple, and one value in a tuple of its own."""
    given = settled(given)
    return tuple(given) if isinstance(given, (list, tuple)) else (given,)


def _as_whole(given: Any) -> Any:
    """Convert a float without a fraction to an int."""
    given = settled(given)
    return int(given) if isinstance(given, float) and given.is_integer() else given


def _itself(given: Any) -> Any:
    return given


def _number_or_text(given: Any) -> Any:
    """Convert text of digits, as from a command line, and other whole numbers to an int."""
    if isinstance(given, str):
        return int(given) if given.strip().isdecimal() and len(given) < 10 else given
    return int(given) if is_whole(given) else settled(given)


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_whole, value)) and 1 <= value[0] <= value[1]
    )


def _read_speakers(text: str) -> Any:
    """Convert text as from a command line: true, 3, or 2,5."""
    parts = text.strip().strip("()[]").split(",")
    if len(parts) == 1 and not parts[0].strip().isdecimal():
        return str2bool(parts[0].strip().capitalize())
    numbers = tuple(int(part) for part in parts)
    return numbers[0] if len(numbers) == 1 else numbers


def _named(text: str) -> dict[str, str]:
    """Take ``name=value,name=value`` apart."""
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise ValueError(text)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _tried(read: Callable[[str], Any], given: Any) -> Any:
    """Convert text as from a command line, as far as it can be; keep what is no text."""
    if not isinstance(given, str):
        return tuple(given) if isinstance(given, list) else given
    try:
        return read(given)
    except ValueError:
        return given


def _is_track(value: Any) -> bool:
    if is_whole(value):
        return bool(value >= 0)
    return isinstance(value, str) and bool(value.strip()) and not re.fullmatch(r"[+-]?\d+", value.strip())


FLAG = Kind("True or False", lambda v: isinstance(v, int) and v in (0, 1), str2bool, metavar="BOOL")
TRUTH = FLAG._replace(settle=bool)  # of any value, as openai-whisper takes it
TEXT = Kind("text", lambda v: isinstance(v, str))
PATH = Kind(
    "text or a path",
    lambda v: isinstance(v, str),
    settle=lambda given: os.fspath(given) if isinstance(given, os.PathLike) else given,
)
PATHS = Kind("paths in a list", lambda v: _all(v, PATH.holds))
LANGUAGE = Kind(
    "the code or the name of a language", lambda v: v is None or isinstance(v, str), settle=language_names.settled
)
TEXT_OR_TOKENS = Kind("text, or a list of token ids", lambda v: isinstance(v, str) or _all(v, is_whole))
TOKENS = Kind("token ids in a list, or as text with commas", TEXT_OR_TOKENS.holds)
NAMES = Kind(
    "words in a list, or as text with commas",
    lambda v: bool(v) and _all(v, lambda name: isinstance(name, str) and name.strip()), settle=_parts,
)  # fmt: skip
TIMES = Kind(
    "seconds start,end,start,end,... in a list, or as text", lambda v: isinstance(v, str) or _all(v, is_number)
)
# what lies closer to 0, or higher, leaves no numbers when logits in float32 are divided by it
TEMPERATURE = Kind("0, or a number from 1e-6 to 1e6", lambda v: is_number(v) and (v == 0 or 1e-6 <= v <= 1e6), float)
TEMPERATURES = Kind(
    f"{TEMPERATURE.words}, or a list of such",
    lambda v: TEMPERATURE.holds(v) or (bool(v) and _all(v, TEMPERATURE.holds)), float,
)  # fmt: skip
FIELDS = Kind(
    "names with values in a dictionary, or as text name=value,name=value",
    lambda v: isinstance(v, (str, Mapping)) or is_dataclass(v), settle=_itself,
)  # fmt: skip
# of speakers: True, their number, or the fewest and the most
SPEAKERS = Kind(
    "True, False, a number of speakers, or the fewest and the most, such as 2,5",
    lambda v: isinstance(v, bool) or (is_whole(v) and v >= 1) or _is_range(v),
    _read_speakers, settle=lambda given: _tried(_read_speakers, given),
    metavar="N",
)  # fmt: skip
NAMED_SOUNDS = Kind(
    "names with recordings in a dictionary, or as text name=path,name=path",
    lambda v: isinstance(v, Mapping) and bool(v) and all(isinstance(name, str) and name.strip() for name in v),
    _named, settle=lambda given: _tried(_named, given),
    metavar="NAME=FILE",
)  # fmt: skip
TRACK = Kind("the number of a track, from 0 on, or its language", _is_track, settle=_number_or_text)
BACKEND = Kind(
    "the name of a way to tell speakers apart (light, channels, pyannote), or a function",
    lambda v: (isinstance(v, str) and bool(v.strip())) or callable(v), settle=_itself,
    metavar="NAME",
)  # fmt: skip
FUNCTION = Kind("a function of two numbers", callable, settle=_itself)
EVENT = Kind(
    "something like a threading.Event, with is_set()",
    lambda v: not isinstance(v, type) and callable(getattr(v, "is_set", None)),
    settle=_itself,
)


# ---------------------------------------------------------------------------------------------------------
# Declarations
# ---------------------------------------------------------------------------------------------------------


class Facts(NamedTuple):
    """The declaration of an option, beside its name, annotation and default."""

    group: str  # heading of the help and of the documentation
    kind: Kind
    help: str
    ours: bool  # openai-whisper has no such option
    our_flag: bool  # the command of openai-whisper has no such flag
    needs: tuple[str, ...]  # without one of these options, it has no effect
    cli: Mapping[str, Any] | None  # arguments of `add_flags` if the flag differs from the option; None: no flag

    @property
    def explained(self) -> str:
        """The help, and what the option needs."""
        return self.help + (f"; needs {' or '.join(self.needs)}" if self.needs else "")


def option(
    group: str,
    default: Any,
    kind: Kind,
    help: str,
    *,
    ours: bool = False,
    our_flag: bool = False,
    needs: tuple[str, ...] = (),
    cli: Mapping[str, Any] | None = {},
) -> Any:
    """Return the field of a dataclass that declares an option; see `Facts`."""
    return field(default=default, metadata={"facts": Facts(group, kind, help, ours, ours or our_flag, needs, cli)})


def facts(declared: Field[Any]) -> Facts:
    """Return what `option` declared."""
    found: Facts = declared.metadata["facts"]
    return found


def takes_none(declared: Field[Any]) -> bool:
    """Whether an option may be None."""
    return declared.default is None or str(declared.type).endswith("| None")


# ---------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def check(name: str, value: Any, kind: Kind, *, none: bool = False) -> Any:
    """Return what is kept of a value.

    Parameters
    ----------
    name
        Of the option or the parameter, in messages.
    value
        What the caller gave.
    kind
        What it must be.
    none
        Whether it may be None.

    Raises
    ------
    OptionError
        The value is not of this kind. The message has the name, the value and what would be right.
    """
    if value is None and none:
        return None
    value = kind.settle(value)
    if kind.holds(value):
        return value
    wanted = kind.words + (", or None" if none else "")
    hint = did_you_mean(str(value).lower(), kind.choices) if kind.choices else ""
    raise OptionError(f"{name} must be {wanted}, not {_SHORT.repr(value)}{hint}")


def check_values(options: Any) -> None:
    """Settle and `check` each field of a dataclass of options."""
    for declared in fields(options):
        value = check(declared.name, getattr(options, declared.name), facts(declared).kind, none=takes_none(declared))
        object.__setattr__(options, declared.name, value)


def check_names(given: Mapping[str, object], function: str, *dataclass_types: type) -> None:
    """Raise `UnknownOptionError` for a name that is no field of the dataclasses, naming the nearest field."""
    known = [f.name for dataclass_type in dataclass_types for f in fields(dataclass_type)]
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            raise UnknownOptionError(f"{function}() has no option {name!r}{hint}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message: the nearest known name; empty if none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def idle(options: Any, *others: Any) -> list[tuple[str, str]]:
    """Return which options of a dataclass have no effect, each with what it needs; `others` may have that, too."""
    found = []
    for declared in fields(options):
        needs = facts(declared).needs
        given = any(getattr(having, name, None) for having in (options, *others) for name in needs)
        if needs and not given and getattr(options, declared.name) != declared.default:
            found.append((declared.name, " or ".join(needs)))
    return found
