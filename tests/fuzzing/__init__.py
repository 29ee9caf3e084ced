"""Malformed inputs: files, file objects, arrays, options, checkpoints, results, arguments; random ones from a seed.

Each is a `Case`: a door of the package (see ``test_fuzz.DOORS``), what is handed in, made afresh whenever it is asked
for, and options. What the right answer would be is not said here: there is a rule for it at each door.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from whisper.audio import load_audio

ROOT = Path(__file__).resolve().parent.parent.parent
RATE = 16000
NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Case:
    """One malformed input."""

    name: str
    door: str
    make: Callable[[Path], Any]  # given a folder of its own, returns what is handed in
    options: dict[str, Callable[[], Any]] = field(default_factory=dict)  # made afresh, too

    def __str__(self) -> str:
        return f"{self.door}-{self.name}"


@cache
def speech() -> np.ndarray:
    """A second and a half with two words in it, int16 ``(1, n)``."""
    samples = load_audio(str(ROOT / "examples" / "sample.flac"))[int(1.0 * RATE) : int(2.5 * RATE)]
    return (samples * 32768).astype(np.int16)[None]


def floats() -> np.ndarray:
    """The same as float32 ``(n,)``."""
    return (speech()[0] / np.float32(32768)).astype(np.float32)


def shown(value: Any) -> str:
    """A value as part of a name."""
    text = repr(value)
    return text if len(text) < 40 else text[:30] + "..."


def given(options: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Options as a `Case` has them."""
    return {name: lambda value=value: value for name, value in options.items()}
