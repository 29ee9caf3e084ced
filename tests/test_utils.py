"""The public helpers: what they return, what they refuse, and that they load nothing heavy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Original, run_python
from whisper import utils
from whisper.errors import NumberError, OptionError
from whisper.output import writers

TIMES = [0, 0.0004, 0.0005, 0.9996, 59.9995, 61.5, 3599.9994, 3599.9996, 3661.001, 360000.25]


def test_exact_div() -> None:
    assert utils.exact_div(480000, 160) == 3000
    with pytest.raises(NumberError, match="1 would be left"):
        utils.exact_div(10, 3)
    with pytest.raises(AssertionError):  # what programs for the original catch
        utils.exact_div(10, 3)


def test_str2bool_takes_two_words_only() -> None:
    assert utils.str2bool("True") is True
    assert utils.str2bool("False") is False
    for word in ("true", "1", "", "yes"):
        with pytest.raises(OptionError):
            utils.str2bool(word)


def test_optional_numbers() -> None:
    assert utils.optional_int("None") is None
    assert utils.optional_int("7") == 7
    assert utils.optional_float("None") is None
    assert utils.optional_float("0.5") == 0.5
    with pytest.raises(ValueError, match="x"):
        utils.optional_float("x")


def test_compression_ratio_tells_a_loop_from_a_sentence() -> None:
    assert utils.compression_ratio("thank you. " * 30) > 2.4
    assert utils.compression_ratio("The birch canoe slid on the smooth planks.") < 1.0


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (0, "00:00.000", "00:00:00,000"),
        (59.9995, "01:00.000", "00:01:00,000"),  # rounds up through the minute
        (3599.9996, "01:00:00.000", "01:00:00,000"),  # and through the hour
        (360000.25, "100:00:00.250", "100:00:00,250"),
    ],
)
def test_format_timestamp(seconds: float, short: str, long: str) -> None:
    assert utils.format_timestamp(seconds) == short
    assert utils.format_timestamp(seconds, always_include_hours=True, decimal_marker=",") == long


@pytest.mark.parametrize("seconds", [-0.001, float("nan")])
def test_format_timestamp_refuses_what_is_no_time(seconds: float) -> None:
    with pytest.raises(NumberError):
        utils.format_timestamp(seconds)


def test_start_and_end_look_at_words_first() -> None:
    word = {"word": " a", "start": 1.5, "end": 2.0}
    silent = {"start": 0.0, "end": 9.0, "words": []}
    spoken = {"start": 1.0, "end": 3.0, "words": [word]}
    assert utils.get_start([silent, spoken]) == 1.5
    assert utils.get_end([spoken, silent]) == 2.0
    assert utils.get_start([{"start": 0.5, "end": 1.0}]) == 0.5  # without word times
    assert utils.get_end([silent]) == 9.0
    assert utils.get_start([]) is utils.get_end([]) is None


def test_make_safe_replaces_what_the_console_cannot_write(monkeypatch: pytest.MonkeyPatch) -> None:
    assert utils.make_safe("naïve 你") == "naïve 你"
    monkeypatch.setattr(utils, "system_encoding", "ascii")
    assert utils.make_safe("naïve 你") == "na?ve ?"


def test_the_writers_are_found_here_too() -> None:
    assert utils.get_writer is writers.get_writer
    assert {name for name in dir(utils) if name.startswith("Write")} == {
        "WriteJSON", "WriteSRT", "WriteTSV", "WriteTXT", "WriteVTT",
    }  # fmt: skip
    with pytest.raises(AttributeError, match="WriteDOC"):
        utils.WriteDOC  # noqa: B018


@pytest.mark.parametrize("first", ["utils", "output.writers"])
def test_either_module_can_be_imported_first_and_loads_nothing_heavy(first: str) -> None:
    """Run on a bare package object, because `whisper` itself loads torch."""
    code = (
        "import importlib, sys, types\n"
        "package = types.ModuleType('whisper'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['whisper'] = package\n"
        f"importlib.import_module('whisper.{first}')\n"
        "from whisper.utils import WriteSRT, get_writer\n"
        "heavy = {'torch', 'numpy', 'av', 'tiktoken', 'regex'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert run_python(code, str(Path(utils.__file__).parent)) == ""


@pytest.mark.peers
def test_same_as_the_original(original: Original, tmp_path: Path) -> None:
    code = (
        "from whisper import utils\n"
        "answer = {'names': [n for n in dir(utils) if not n.startswith('_')],\n"
        "          'times': [[utils.format_timestamp(t), utils.format_timestamp(t, True, ',')]\n"
        "                    for t in arguments['times']],\n"
        "          'ratios': [utils.compression_ratio(t) for t in arguments['texts']]}\n"
    )
    texts = ["a", "so so so so so so", "你好，世界", "x" * 1000]
    theirs = original(code, tmp_path, times=TIMES, texts=texts)
    assert theirs["times"] == [[utils.format_timestamp(t), utils.format_timestamp(t, True, ",")] for t in TIMES]
    assert theirs["ratios"] == [utils.compression_ratio(t) for t in texts]
    imported = {"json", "os", "re", "Callable", "List", "Optional", "TextIO"}
    assert set(theirs["names"]) - imported <= set(dir(utils))
