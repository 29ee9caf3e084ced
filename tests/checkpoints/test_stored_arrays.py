"""Arrays in files: read from parts, and with an identity only as long as the file is the same."""

from pathlib import Path

import numpy as np
import pytest

from whisper.checkpoints.stored_arrays import Place, Source, StoredArrays
from whisper.errors import CheckpointError
from whisper.network.dimensions import ModelDimensions

DIMS = ModelDimensions(16, 20, 32, 2, 2, 60, 12, 32, 2, 4)
NUMBERS = np.arange(60, dtype=np.float32).reshape(12, 5)


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three bytes and the numbers, in three files."""
    monkeypatch.setattr("whisper.checkpoints.stored_arrays.JUST_NOW", 0)
    content = b"abc" + NUMBERS.tobytes()
    paths = [tmp_path / name for name in ("first", "second", "third")]
    for path, piece in zip(paths, (content[:2], content[2:101], content[101:]), strict=True):
        path.write_bytes(piece)
    return paths


def arrays(parts: list[Path]) -> StoredArrays:
    source = Source.of(list(map(str, parts)), "little")
    assert source is not None
    places = {"all": Place(3, np.float32, (12, 5)), "last": Place(3 + 4 * 55, np.float32, (5,))}
    return StoredArrays(source, DIMS, [[0, 1]], places)


def test_an_array_may_lie_in_several_parts(parts: list[Path]) -> None:
    found = arrays(parts)
    assert np.array_equal(found["all"], NUMBERS)
    assert np.array_equal(found["last"], NUMBERS[-1])
    assert list(found) == ["all", "last"]
    assert len(found) == 2


def test_a_changed_file_has_no_identity(parts: list[Path]) -> None:
    found = arrays(parts)
    assert found.origin.identity
    about = found.origin.about
    parts[1].write_bytes(parts[1].read_bytes())
    assert not found.origin.identity
    assert found.origin.about == about


@pytest.mark.parametrize("harm", ["shorter", "gone"])
def test_a_file_that_cannot_be_read_is_an_error(parts: list[Path], harm: str) -> None:
    found = arrays(parts)
    if harm == "gone":
        parts[1].unlink()
    else:
        parts[2].write_bytes(parts[2].read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="load it again"):
        found["all"]


def test_what_is_being_written_is_no_source(parts: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    paths = list(map(str, parts))
    assert Source.of(paths, "") is not None
    assert Source.of([*paths, paths[0] + "?"], "") is None
    assert Source.of([str(parts[0].parent)], "") is None
    monkeypatch.setattr("whisper.checkpoints.stored_arrays.JUST_NOW", 0.02)
    monkeypatch.setattr("time.time", lambda: parts[0].stat().st_mtime + 0.01)
    assert Source.of(paths, "") is None
    monkeypatch.setattr("time.time", lambda: parts[0].stat().st_mtime + 9)
    assert Source.of(paths, "") is not None
