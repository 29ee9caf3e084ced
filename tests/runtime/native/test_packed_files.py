"""Packed weights on disk: read back as they were, and never where anything about them is another."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from whisper.checkpoints.load import load_model, save_checkpoint
from whisper.model import Whisper
from whisper.runtime import select
from whisper.runtime.native import kernels, packed_files, packing

from ..test_fingerprint import DIMS

pytestmark = pytest.mark.skipif(kernels.load() is None, reason="there are no compiled kernels here")


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of random numbers, with an empty folder for what is packed of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(packed_files.VARIABLE)
    monkeypatch.setattr("whisper.checkpoints.lazy_tensors.SMALL", 0)
    torch.manual_seed(0)
    path = tmp_path / "little.pt"
    save_checkpoint(Whisper(DIMS), path)
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all matrices that are packed."""
    packed: list[str] = []
    pack = packing.Packer._matrix

    def counting(self: packing.Packer, weights: list[str], *rest: Any, **named: Any) -> int:
        packed.extend(weights)
        return pack(self, weights, *rest, **named)

    monkeypatch.setattr(packing.Packer, "_matrix", counting)
    return packed


def features(path: Path, compute_type: str = "int8") -> torch.Tensor:
    """What a fresh model makes of a window."""
    model = load_model(path, device="cpu", compute_type=compute_type)
    runner = select.runner_for(model, fp16=True)
    mel = torch.linspace(-1, 1, DIMS.n_mels * 2 * DIMS.n_audio_ctx).view(DIMS.n_mels, -1)
    return runner.encode([mel])[0]


def files() -> list[Path]:
    folder = Path(packed_files.folder())
    return sorted(folder.iterdir()) if folder.exists() else []


def test_what_was_packed_is_read_back_and_computes_the_same(stored: Path, counted: list[str]) -> None:
    for compute_type in ("int8", "bfloat16"):
        first = features(stored, compute_type)
        assert counted
        counted.clear()
        assert torch.equal(features(stored, compute_type), first)
        assert not counted
    assert len(files()) == 2


def test_a_header_says_what_the_model_is(stored: Path) -> None:
    features(stored)
    header = packed_files.read_header(str(files()[0]))
    assert header is not None
    assert header.about["dims"] == asdict(DIMS)
    assert header.about["alignment_heads"] == [[1, 0], [1, 1]]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def change_a_number(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"n_mels"', b'"n_melz"', 1))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, change_a_number, change_the_header, empty])
def test_a_damaged_file_is_noticed_and_made_anew(
    stored: Path, counted: list[str], damage: Callable[[Path], None]
) -> None:
    first = features(stored)
    whole = files()[0].read_bytes()
    damage(files()[0])
    counted.clear()
    assert torch.equal(features(stored), first)
    assert counted
    assert files()[0].read_bytes() == whole


def test_another_checkpoint_in_its_place_is_packed(stored: Path, counted: list[str]) -> None:
    first = features(stored)
    torch.manual_seed(1)
    save_checkpoint(Whisper(DIMS), stored)
    counted.clear()
    assert not torch.equal(features(stored), first)
    assert counted


@pytest.mark.parametrize("reason", ["off", "float32", "read-only"])
def test_nothing_is_kept_where_it_shall_not_be(stored: Path, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    if reason == "off":
        monkeypatch.setenv(packed_files.VARIABLE, "0")
    if reason == "read-only":
        Path(packed_files.folder()).parent.mkdir(exist_ok=True)
        Path(packed_files.folder()).write_text("a file where the folder would be")
    features(stored, "float32" if reason == "float32" else "int8")
    assert Path(packed_files.folder()).is_file() or files() == []


def test_the_files_that_were_not_used_for_longest_go(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features(stored, "int8")
    (old,) = files()
    monkeypatch.setattr(packed_files, "MOST_BYTES", 2 * old.stat().st_size)  # room for one: bfloat16 is larger
    features(stored, "bfloat16")
    assert old not in files()
    assert len(files()) == 1


def test_weights_that_a_program_has_changed_are_not_kept(stored: Path, counted: list[str]) -> None:
    first = features(stored)
    model = load_model(stored, device="cpu", compute_type="int8")
    with torch.no_grad():
        model.encoder.conv1.weight.zero_()
    counted.clear()
    mel = torch.linspace(-1, 1, DIMS.n_mels * 2 * DIMS.n_audio_ctx).view(DIMS.n_mels, -1)
    assert not torch.equal(select.runner_for(model, fp16=True).encode([mel])[0], first)
    assert counted
    assert len(files()) == 1
