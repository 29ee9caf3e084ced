"""Command-line flags made from the declarations of options: names, defaults and help texts are not repeated.

Only converts text to values: the dataclasses check ranges and combinations when `take` creates them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

from .types import Facts, facts, takes_none

Options = TypeVar("Options")


def add_flags(
    parser: argparse.ArgumentParser,
    declared: type | Iterable[Field[Any]],
    *,
    as_openai: bool = False,
    without: Collection[str] = (),
    changed: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add a flag for each option, under the heading of its group.

    Parameters
    ----------
    parser
        Gets the flags, and the headings that it does not have yet.
    declared
        A dataclass whose fields are made by `option`, or such fields.
    as_openai
        Flags as openai-whisper has them: nothing but the name of the option stands for its value
        in the help, and the word None is text where the option is text.
    without
        Options that the command does not have.
    changed
        By the name of an option, settings of ``argparse`` that are others here; like
        `Facts.cli`, in which ``flags`` are the names of the flag.
    """
    for option in fields(declared) if isinstance(declared, type) else declared:
        known = facts(option)
        if known.cli is None or option.name in without:
            continue
        settings = {**known.cli, **(changed or {}).get(option.name, {})}
        if settings.get("action") != "store_true":
            settings = {
                "type": _reader(known, takes_none(option), as_openai),
                "choices": list(known.kind.choices) or None,
                "metavar": None if as_openai or known.kind.choices else known.kind.metavar,
                **settings,
            }
        names = settings.pop("flags", (f"--{option.name}",))
        settings = {"dest": option.name, "default": option.default, "help": known.explained, **settings}
        groups = {group.title: group for group in parser._action_groups}
        group = groups.get(known.group) or parser.add_argument_group(known.group)
        group.add_argument(*names, **settings)


def take(dataclass_type: type[Options], given: dict[str, Any], **changed: Any) -> Options:
    """Create a dataclass of options from parsed arguments, and remove its fields from them.

    Parameters
    ----------
    dataclass_type
        Its fields are made by `option`.
    given
        Values by name.
    **changed
        Values that are others than those in `given`.

    Raises
    ------
    OptionError
        A value is not what its option takes.
    """
    names = [f.name for f in fields(dataclass_type) if f.name in given]  # type: ignore[arg-type]
    return dataclass_type(**{**{name: given.pop(name) for name in names}, **changed})


def _reader(known: Facts, may_be_none: bool, as_openai: bool) -> Callable[[str], Any]:
    """Return a converter from text to a value; its error says what the text must be."""
    kind = known.kind
    reads_none = may_be_none and not kind.choices and not (as_openai and kind.read is str)

    def read(text: str) -> Any:
        if reads_none and text == "None":
            return None
        try:
            return kind.read(text)
        except ValueError:
            words = kind.words + (", or None" if reads_none else "")
            raise argparse.ArgumentTypeError(f"must be {words}, not {text!r}") from None

    return read
