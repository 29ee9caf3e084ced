"""The command ``whisper serve``: its arguments, and what it hands to the server."""

import logging
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from whisper.cli import cli, serve
from whisper.errors import ModelNotFoundError
from whisper.server import run
from whisper.server.observing import LOG


@pytest.fixture(autouse=True)
def logs_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server's log goes to the standard error of one test: of later tests, that file is closed."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    loggers = [logging.getLogger(name) for name in (LOG.name, "uvicorn")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `server.run` was called with."""
    calls: list[Any] = []
    monkeypatch.setattr(run, "run", lambda *given: calls.append(given))
    monkeypatch.delenv("SOTTO_API_KEYS", raising=False)
    return calls


def test_arguments(started: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "serve --model nano base --alias whisper-1=base --port 9000 --max_queue 3 --compute_type float32"
    assert cli(arguments.split()) == 0
    ((options, names, load, keys),) = started
    assert (options.port, options.max_queue, options.host) == (9000, 3, "127.0.0.1")
    assert (names, keys) == (["nano", "base"], ())
    assert options.aliases() == {"whisper-1": "base"}
    model = load("nano")
    assert model.compute_type == "float32"
    assert "http://127.0.0.1:9000/v1" in capsys.readouterr().err


def test_keys_come_from_the_environment_and_a_file(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOTTO_API_KEYS", "one")
    (tmp_path / "keys").write_text("two")
    assert serve.main(["--model", "nano", "--host", "0.0.0.0", "--key_file", str(tmp_path / "keys")]) == 0
    assert started[0][3] == ("one", "two")


def test_a_model_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object) -> None:
        raise ModelNotFoundError("there is no such model")

    monkeypatch.setattr(run, "run", fails)
    assert serve.main(["--model", "nano"]) == 1
    assert "error: serve: there is no such model" in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("whisper.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert serve.main(["--model", "nano"]) == 1
    assert "pip install 'sotto[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "no key is set"),
        (["--alias", "a=base"], "not among the models"),
        (["--cors_origins", "*"], "every page"),
        (["--bort", "1"], "did you mean --port"),
    ],
)
def test_what_cannot_be_meant(arguments: Sequence[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        serve.main(["--model", "nano", *arguments])
    assert error.value.code == 2
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli(["serve", "--model", "nano", "--port", str(port)]) == 1
    err = capsys.readouterr().err
    assert f"error: serve: port {port} of 127.0.0.1 cannot be used: address already in use; --port gives another" in err
    assert '"level"' not in err


def test_the_page_is_named_where_there_is_one(started: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    for page in (True, False):
        assert cli(["serve", "--model", "nano", "--page", str(page)]) == 0
        assert ("the page on http://127.0.0.1:8000/" in capsys.readouterr().err) is page


def test_a_library_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert cli(["serve", "--model", "nano", "--port", "0", "--library", str(tmp_path / "file")]) == 1
    assert "file cannot be used: it is a file, not a folder" in capsys.readouterr().err
