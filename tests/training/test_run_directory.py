"""The output folder of a training: locked by one process, refused to another training, with clear file errors."""

from __future__ import annotations

import errno
import io
import os

import pytest
import torch

from whisper.errors import AudioError, TrainingError
from whisper.training import run_directory

SETTINGS = {"seed": 1, "steps": 3, "lengths": (1.0, 2.0), "recordings": "abc", "dev_recordings": None}
CONTENTS = {"recordings": "other recordings", "dev_recordings": "other recordings to score"}


def check_resumable(folder, **changes):
    run_directory.check_resumable(folder, {**SETTINGS, **changes}, ("steps",), CONTENTS)


def test_only_what_may_change_changes(tmp_path):
    check_resumable(tmp_path, seed=2)  # nothing is saved yet
    run_directory.save_settings(tmp_path, SETTINGS)
    check_resumable(tmp_path)
    check_resumable(tmp_path, steps=9)
    check_resumable(tmp_path, dev_recordings="def")  # something to score where there was nothing
    with pytest.raises(TrainingError, match="seed=1, and now it is 2: resume with the old value, or choose another"):
        check_resumable(tmp_path, seed=2)
    with pytest.raises(TrainingError, match="holds a training with other recordings"):
        check_resumable(tmp_path, recordings="abd")


def test_a_folder_is_locked_and_cleaned(tmp_path):
    folder = tmp_path / "a" / "b"
    with run_directory.locked(folder):
        (folder / "last.ckpt.77.tmp").write_bytes(b"half")
        with pytest.raises(TrainingError, match="another process is training into"), run_directory.locked(folder):
            pass
    with run_directory.locked(folder):
        assert not (folder / "last.ckpt.77.tmp").exists()


def test_errors_of_the_disk_say_what_to_do(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(TrainingError, match="file cannot be used: File exists"),
        run_directory.locked(tmp_path / "file"),
    ):
        pass
    with pytest.raises(TrainingError, match=r"no space left in .*: free some and repeat the command"):
        raise_within(tmp_path, errno.ENOSPC)
    with pytest.raises(TrainingError, match="cannot be used: Permission denied"):
        raise_within(tmp_path, errno.EACCES)


def test_errors_of_torch_are_reported_by_their_cause(tmp_path):
    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(TrainingError, match="no space left"), run_directory.translated_errors(tmp_path):
        torch.save({"a": torch.zeros(100)}, Full())
    with pytest.raises(RuntimeError, match="another"), run_directory.translated_errors(tmp_path):
        raise RuntimeError("another")
    with pytest.raises(AudioError, match="ours"), run_directory.translated_errors(tmp_path):
        raise AudioError("ours") from OSError("theirs")


def raise_within(folder, number):
    with run_directory.locked(folder):
        raise OSError(number, os.strerror(number))


def test_digests_tell_contents_apart():
    assert run_directory.digest([("a", 1), b"x"]) == run_directory.digest([("a", 1), b"x"])
    assert run_directory.digest([("a", 1)]) != run_directory.digest([("a", 2)])


def test_a_training_that_fails_before_it_writes_leaves_no_folder(tmp_path):
    with pytest.raises(TrainingError, match="no manifest"):
        fail_within(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrainingError):
        fail_within(tmp_path / "a", "last.ckpt")
    assert (tmp_path / "a" / "last.ckpt").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(TrainingError):
        fail_within(tmp_path / "mine")
    assert (tmp_path / "mine").is_dir()


def fail_within(folder, *files):
    with run_directory.locked(folder):
        for name in files:
            (folder / name).write_text("")
        raise TrainingError("no manifest")
