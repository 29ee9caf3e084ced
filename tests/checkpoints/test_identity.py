"""The identity of a checkpoint follows its files."""

import os
from pathlib import Path

import torch

from whisper.checkpoints.identity import MOST_FILES, Origin, identity_of, origin_of


def test_a_file_that_is_written_replaced_or_moved_is_another(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"one")
    first = identity_of([str(path)], "base")
    assert first == identity_of([str(path)], "base")
    seen = {first, identity_of([str(path)], "tiny")}
    os.utime(path, (1, 1))
    seen.add(identity_of([str(path)], "base"))
    other = tmp_path / "other.pt"
    other.write_bytes(b"two")
    os.utime(other, (1, 1))
    os.replace(other, path)
    seen.add(identity_of([str(path)], "base"))
    path.rename(other)
    seen.add(identity_of([str(other)], "base"))
    assert len(seen) == 5
    assert identity_of([str(path)], "base") == ""


def test_what_describes_a_file_or_lies_in_a_folder_counts(tmp_path: Path) -> None:
    weights, config = tmp_path / "model.bin", tmp_path / "config.json"
    weights.write_bytes(b"1")
    alone = identity_of([str(weights)], "")
    config.write_text("{}")
    seen = {alone, identity_of([str(weights)], ""), identity_of([str(tmp_path)], "")}
    config.write_text('{"alignment_heads": []}')
    seen |= {identity_of([str(weights)], ""), identity_of([str(tmp_path)], "")}
    assert len(seen) == 5
    for i in range(MOST_FILES):
        (tmp_path / f"{i}.txt").touch()
    assert identity_of([str(tmp_path)], "") == ""


def test_tensors_in_memory_have_no_origin() -> None:
    assert origin_of({"x": torch.zeros(1)}) == Origin()
