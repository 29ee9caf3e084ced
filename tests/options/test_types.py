"""The one check of values: what is kept of them, and what the messages say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whisper.errors import OptionError
from whisper.options.types import FLAG, PATH, TRUTH, Kind, check, did_you_mean, number, numbers, one_of, some_of, whole


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        (whole(1), np.int64(4), 4),
        (whole(1), torch.tensor(4), 4),
        (whole(1, floats=True), 16000.0, 16000),
        (whole(1, floats=True), np.float32(2.0), 2),
        (number(0, 1), np.float32(0.5), 0.5),
        (numbers(1, 30), 5, (5,)),
        (numbers(1, 30), [1, 2.5], (1, 2.5)),
        (numbers(1, 30), np.array([1.0, 2.0]), (1.0, 2.0)),
        (some_of("a", "b"), "a, b", ("a", "b")),
        (some_of("a", "b"), iter("ab"), ("a", "b")),
        (PATH, Path("a") / "b", str(Path("a") / "b")),
        (TRUTH, "yes", True),
        (TRUTH, None, False),
    ],
)
def test_what_is_kept(kind: Kind, given: Any, kept: Any) -> None:
    found = check("x", given, kind)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (whole(1), 2.0, "x must be a whole number of at least 1, not 2.0"),
        (whole(1), True, "x must be a whole number of at least 1, not True"),
        (whole(0, 9, floats=True), 2.5, "x must be a whole number from 0 to 9, not 2.5"),
        (whole(floats=True), math.inf, "x must be a whole number, not inf"),
        (whole(floats=True), math.nan, "x must be a whole number, not nan"),
        (number(0, above=True), 0, "x must be a number above 0, not 0"),
        (number(), "1", "x must be a number, not '1'"),
        (numbers(1, 30), (), "x must be one or more numbers from 1 to 30, not ()"),
        (numbers(1, 30), "5", "x must be one or more numbers from 1 to 30, not ('5',)"),
        (some_of("a", "b"), "", "x must be one or more of a, b, not ('',)"),
        (one_of("fast", "slow"), "fats", "x must be one of fast, slow, not 'fats'; did you mean 'fast'?"),
        (FLAG, 2, "x must be True or False, not 2"),
        (FLAG, None, "x must be True or False, not None"),
    ],
)
def test_what_is_refused(kind: Kind, given: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        check("x", given, kind)
    assert str(caught.value) == message


def test_none_where_it_may_be() -> None:
    assert check("x", None, whole(1), none=True) is None
    with pytest.raises(OptionError, match="x must be a whole number of at least 1, or None, not 0"):
        check("x", 0, whole(1), none=True)


def test_the_nearest_name() -> None:
    assert did_you_mean("treshold", ["method", "threshold"]) == "; did you mean 'threshold'?"
    assert did_you_mean("xyz", ["method", "threshold"]) == ""
