"""How an option is declared: once, as a field of a dataclass, with all that is to be said about it.

From a declaration come the checks of what is given in Python, the flags of the commands and the tables of the
documentation. Knows no option, no model and no combination of options.
"""

from __future__ import annotations

import difflib
import math
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, field, fields, is_dataclass
from itertools import islice
from numbers import Integral
from typing import Any, NamedTuple

from ..errors import OptionError
from ..utils import str2bool
from . import language_names

FINITE = sys.float_info.max  # as an upper limit: any number but infinity
MOST_VALUES = 100_000  # in a list; what is iterated over may have no end


# ---------------------------------------------------------------------------------------------------------
# Kinds of values
# ---------------------------------------------------------------------------------------------------------


def settled(value: Any) -> Any:
    """Return numbers and arrays of numpy and torch as Python's, and what can be read but once as a tuple.

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
    """What values an option takes; None is for its annotation to allow."""

    words: str  # how "beam_size must be ..." goes on
    holds: Callable[[Any], bool]
    read: Callable[[str], Any] = str  # makes a value of text from a command line
    choices: tuple[str, ...] = ()
    settle: Callable[[Any], Any] = settled  # what is kept of a value


def is_number(value: object) -> bool:
    """Whether `value` is a number that is one (not NaN, not text, not a flag)."""
    try:
        return not isinstance(value, (bool, str, bytes)) and not math.isnan(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # no number, or one with too many digits for a float
        return False


def is_whole(value: object) -> bool:
    """Whether `value` is a whole number, and no flag."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> Kind:
    """Numbers from `low` to `high`, or from `above` it on."""
    words = f"a number{_range(low, high, above)}"
    return Kind(words, lambda v: is_number(v) and low <= v <= high and not (above and v == low), float)


def whole(low: int, high: float = math.inf) -> Kind:
    """Whole numbers from `low` to `high`."""
    return Kind(f"a whole number{_range(low, high)}", lambda v: is_whole(v) and low <= v <= high, int)


def one_of(*choices: str) -> Kind:
    """One of several words."""
    return Kind(f"one of {', '.join(choices)}", lambda v: isinstance(v, str) and v in choices, choices=choices)


def _range(low: float, high: float, above: bool = False) -> str:
    if low == -math.inf:
        return ""
    return f" {'above' if above else 'of at least'} {low}" if high >= FINITE else f" from {low} to {high}"


def _all(values: Any, holds: Callable[[Any], Any]) -> bool:
    return isinstance(values, (list, tuple)) and len(values) <= MOST_VALUES and all(map(holds, values))


def _parts(given: Any) -> Any:
    """Take text apart at its commas."""
    return tuple(map(str.strip, given.split(","))) if isinstance(given, str) else settled(given)


def _itself(given: Any) -> Any:
    return given


def _number_or_text(given: Any) -> Any:
    """Make a number of text in digits, as from a command line, and Python's own of other whole numbers."""
    if isinstance(given, str):
        return int(given) if given.strip().isdecimal() and len(given) < 10 else given
    return int(given) if is_whole(given) else settled(given)


def _is_track(value: Any) -> bool:
    if is_whole(value):
        return bool(value >= 0)
    return isinstance(value, str) and bool(value.strip()) and not re.fullmatch(r"[+-]?\d+", value.strip())


FLAG = Kind("True or False", lambda v: isinstance(v, int) and v in (0, 1), str2bool)
TEXT = Kind("text", lambda v: isinstance(v, str))
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
TRACK = Kind("the number of a track, from 0 on, or its language", _is_track, settle=_number_or_text)
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
    """What is declared of an option beside its name, annotation and default."""

    group: str  # heading of the help and of the documentation
    kind: Kind
    help: str
    ours: bool  # openai-whisper has no such option
    needs: tuple[str, ...]  # without one of these options, it has no effect
    cli: Mapping[str, Any] | None  # what `argparse` is told where the flag differs from the option; None: no flag

    @property
    def explained(self) -> str:
        """The help, and what the option needs."""
        return self.help + (f"; needs {' or '.join(self.needs)}" if self.needs else "")


def option(
    group: str, default: Any, kind: Kind, help: str, *,
    ours: bool = False, needs: tuple[str, ...] = (), cli: Mapping[str, Any] | None = {},
) -> Any:  # fmt: skip
    """Return the field of a dataclass that declares an option; see `Facts`."""
    return field(default=default, metadata={"facts": Facts(group, kind, help, ours, needs, cli)})


def facts(declared: Field[Any]) -> Facts:
    """Return what `option` was told."""
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


def check_values(options: Any) -> None:
    """Settle each field of a dataclass of options, and raise `OptionError` for a value that its kind does not hold."""
    for declared in fields(options):
        kind, value = facts(declared).kind, getattr(options, declared.name)
        if value is None and takes_none(declared):
            continue
        value = kind.settle(value)
        if not kind.holds(value):
            wanted = kind.words + (", or None" if takes_none(declared) else "")
            near = difflib.get_close_matches(str(value).lower(), kind.choices, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise OptionError(f"{declared.name} must be {wanted}, not {_SHORT.repr(value)}{hint}")
        object.__setattr__(options, declared.name, value)


def idle(options: Any, *others: Any) -> list[tuple[str, str]]:
    """Return which options of a dataclass have no effect, each with what it needs; `others` may have that, too."""
    found = []
    for declared in fields(options):
        needs = facts(declared).needs
        given = any(getattr(having, name, None) for having in (options, *others) for name in needs)
        if needs and not given and getattr(options, declared.name) != declared.default:
            found.append((declared.name, " or ".join(needs)))
    return found
