"""The fields of a form in all their spellings: ``x``, ``x`` repeated, ``x[]``, ``x[key]``, or JSON as text.

OpenAI's Python client sends lists as ``x[]`` and objects as ``x[key]``, its JavaScript client the same in any order,
people with curl send JSON. Knows no field: what a value means is for `requests`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from .errors import invalid

Value: TypeAlias = "str | list[str] | dict[str, str]"
_SPELLING = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def collect(fields: Iterable[tuple[str, str]]) -> dict[str, Value]:
    """Return each field once: text, a list, or a dictionary.

    Raises
    ------
    RequestError
        A name is misspelt, or one field is sent as a list and as a dictionary.
    """
    found: dict[str, Value] = {}
    for spelling, text in fields:
        match = _SPELLING.fullmatch(spelling)
        if match is None:
            raise invalid(f"the name of a field is {spelling[:80]!r}; it must be x, x[] or x[key]", spelling[:80])
        name, key = match.groups()
        before = found.get(name)
        if key:
            if before is not None and not isinstance(before, dict):
                raise invalid("the field is sent as a list and as an object", name)
            found[name] = {**(before or {}), key: text}
        elif isinstance(before, dict):
            raise invalid("the field is sent as a list and as an object", name)
        elif before is not None:
            found[name] = [*([before] if isinstance(before, str) else before), text]
        else:
            found[name] = [text] if key == "" else text
    return found


def as_text(name: str, value: Value) -> str:
    """Return the value of a field that has just one."""
    if isinstance(value, list) and len(value) == 1:
        return value[0]
    if not isinstance(value, str):
        raise invalid(f"{name} takes one value, and {len(value)} were sent", name)
    return value


def as_truth(name: str, value: Value) -> bool:
    """Return the value of a field that is true or false."""
    text = as_text(name, value)
    if text.lower() not in _TRUTH:
        raise invalid(f"{name} must be true or false, not {text[:80]!r}", name)
    return _TRUTH[text.lower()]


def as_json(name: str, value: Value) -> Any:
    """Return a value, which may be a list or an object in JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise invalid(f"{name} looks like JSON, and is none", name) from None
    return value


def as_list(name: str, value: Value) -> list[str]:
    """Return the values of a field that may have several words."""
    given = as_json(name, value)
    if isinstance(given, str):
        return [given]
    if not (isinstance(given, list) and all(isinstance(item, str) for item in given)):
        raise invalid(f"{name} must be a list of words", name)
    return given


def as_object(name: str, value: Value) -> dict[str, Any]:
    """Return the value of a field that has names in it."""
    given = as_json(name, value)
    if not isinstance(given, dict):
        raise invalid(f"{name} must be an object, as {name}[...] or in JSON", name)
    return given
