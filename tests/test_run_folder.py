"""The folder of a training: held by one process, refused to another training, its disk errors in words."""

from __future__ import annotations

import errno
import io
import os

import pytest
import torch

from whisper import run_folder
from whisper.errors import AudioError, TrainingError

TOLD = {"seed": 1, "steps": 3, "lengths": (1.0, 2.0), "recordings": "abc", "dev_recordings": None}
CONTENTS = {"recordings": "other recordings", "dev_recordings": "other recordings to score"}


def check(folder, **changes):
    run_folder.check(folder, {**TOLD, **changes}, ("steps",), CONTENTS)


def test_only_what_may_change_changes(tmp_path):
    check(tmp_path, seed=2)  # nothing is remembered yet
    run_folder.remember(tmp_path, TOLD)
    check(tmp_path)
    check(tmp_path, steps=9)
    check(tmp_path, dev_recordings="def")  # something to score where there was nothing
    with pytest.raises(TrainingError, match="seed=1, and now it is 2: continue with the old value, or choose another"):
        check(tmp_path, seed=2)
    with pytest.raises(TrainingError, match="holds a training with other recordings"):
        check(tmp_path, recordings="abd")


def test_a_folder_is_held_by_one_and_swept(tmp_path):
    folder = tmp_path / "a" / "b"
    with run_folder.held(folder):
        (folder / "last.ckpt.77.tmp").write_bytes(b"half")
        with pytest.raises(TrainingError, match="another process is training into"), run_folder.held(folder):
            pass
    with run_folder.held(folder):
        assert not (folder / "last.ckpt.77.tmp").exists()


def test_errors_of_the_disk_say_what_to_do(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrainingError, match="file cannot be used: File exists"), run_folder.held(tmp_path / "file"):
        pass
    with pytest.raises(TrainingError, match=r"no room left in .*: free some and give the same command"):
        raise_within(tmp_path, errno.ENOSPC)
    with pytest.raises(TrainingError, match="cannot be used: Permission denied"):
        raise_within(tmp_path, errno.EACCES)


def test_errors_of_torch_are_told_by_what_is_behind_them(tmp_path):
    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(TrainingError, match="no room left"), run_folder.in_words(tmp_path):
        torch.save({"a": torch.zeros(100)}, Full())
    with pytest.raises(RuntimeError, match="another"), run_folder.in_words(tmp_path):
        raise RuntimeError("another")
    with pytest.raises(AudioError, match="ours"), run_folder.in_words(tmp_path):
        raise AudioError("ours") from OSError("theirs")


def raise_within(folder, number):
    with run_folder.held(folder):
        raise OSError(number, os.strerror(number))


def test_digests_tell_contents_apart():
    assert run_folder.digest([("a", 1), b"x"]) == run_folder.digest([("a", 1), b"x"])
    assert run_folder.digest([("a", 1)]) != run_folder.digest([("a", 2)])
