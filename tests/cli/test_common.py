"""What the commands share: messages for people."""

import errno

import pytest

from whisper.cli import cli
from whisper.cli.common import counted, explain
from whisper.errors import DataError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.srt"), "a.srt: there is no such file"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), "a: this is a folder, where a file is needed"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: this user has no permission for it"),
        (OSError(errno.ENOSPC, "No space", "a"), "OSError: [Errno 28] No space: 'a' (SOTTO_DEBUG=1 shows where)"),
        (FileNotFoundError("odd"), "FileNotFoundError: odd (SOTTO_DEBUG=1 shows where)"),
        (DataError("a is no transcript"), "a is no transcript"),
    ],
)
def test_errors_of_files_are_told_without_python(error: Exception, message: str) -> None:
    assert explain(error) == message


def test_one_thing_has_no_plural() -> None:
    assert [counted(n, "cue") for n in (0, 1, 2, 1000)] == ["0 cues", "1 cue", "2 cues", "1,000 cues"]


@pytest.mark.parametrize("command", ["jobs", "models"])
def test_the_help_names_what_follows_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli([command, "--help"])
    assert "COMMAND ..." in capsys.readouterr().out


def test_a_command_that_is_missing_or_unknown_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["jobs"], ["jobs", "foo"]):
        with pytest.raises(SystemExit) as ended:
            cli(arguments)
        assert ended.value.code == 2
        assert "COMMAND" in capsys.readouterr().err


def test_a_misspelt_command_is_hinted_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["serch", "--model", "nano"]) == 1
    assert "serch: there is no such file; is the command whisper search meant?" in capsys.readouterr().err
