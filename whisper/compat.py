"""What a program has replaced: functions of openai-whisper's modules, and methods on whole classes.

What a program puts in the place of ours must run, so every faster way asks `replaced` first. Each
module hands its originals to `remember` at its end. What is replaced in a single model, or watched
by hooks, is seen by `runtime.select.usable`, as that depends on the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_originals: dict[str, list[tuple[Mapping[str, Any], str, Any]]] = {}


def remember(what: str, *owners: tuple[Mapping[str, Any], Iterable[str]]) -> None:
    """Remember what is there now as the originals that `replaced` compares with.

    Parameters
    ----------
    what
        The name to ask for.
    owners
        Each the names in a module, ``globals()``, or in a class, ``vars(cls)``, and which of them
        count.
    """
    _originals[what] = [(names, name, names[name]) for names, which in owners for name in which]


def replaced(what: str) -> bool:
    """Whether a program has replaced, or removed, one of the originals that were remembered as `what`.

    What was never remembered is in a module that nobody has imported.
    """
    return any(names.get(name) is not original for names, name, original in _originals.get(what, ()))
