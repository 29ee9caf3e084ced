"""What was loaded stays loaded, whatever happens to its file, and takes no memory until it is wanted."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from whisper.checkpoints import bundled, lazy_tensors
from whisper.checkpoints import load as checkpoints
from whisper.checkpoints.formats.model_folders import HUGGING_FACE_NAMES
from whisper.checkpoints.formats.recognize import read as read_checkpoint
from whisper.checkpoints.formats.tensor_files import read_safetensors, read_tensors
from whisper.checkpoints.lazy_tensors import FileTensors, KeptFile, StoredTensors, keep
from whisper.checkpoints.load import load_model, save_checkpoint
from whisper.checkpoints.weights import build
from whisper.errors import CheckpointError
from whisper.lazy_modules import deferred
from whisper.model import Whisper
from whisper.runtime import select

from ..runtime.test_fingerprint import DIMS, expected, heard
from .test_load import little_model, logits

pytestmark = pytest.mark.skipif(not Path(lazy_tensors.MAPS).exists(), reason="this system reads all weights at once")


def tiny_model(seed: int = 0) -> Whisper:
    torch.manual_seed(seed)
    return Whisper(DIMS).eval()


@pytest.fixture(autouse=True)
def all_files_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_tensors, "SMALL", 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_checkpoint(little_model(), tmp_path / "little.pt", half=True)
    return tmp_path / "little.pt"


def is_mapped(file: KeptFile) -> bool:
    return os.readlink(file.place) in Path(lazy_tensors.MAPS).read_text()


def copies() -> list[str]:
    """Where the copies of this process are."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the one that lists them
            continue
        if name.endswith("(deleted)"):
            names.append(name)
    return names


# ---------------------------------------------------------------------------------------------------------
# What is done to a file
# ---------------------------------------------------------------------------------------------------------


def _overwrite(path: Path) -> None:
    content = path.read_bytes()
    with open(path, "r+b") as opened:
        opened.write(bytes(255 - byte for byte in content))


def _write_one_byte(path: Path) -> None:
    with open(path, "r+b") as opened:
        opened.seek(path.stat().st_size // 2)
        byte = opened.read(1)[0]
        opened.seek(-1, 1)
        opened.write(bytes([byte ^ 0x40]))


def _write_through_a_mapping(path: Path) -> None:
    with open(path, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as content:
        content[100:-100] = b"\x3c" * (len(content) - 200)


def _write_and_restore_the_time(path: Path) -> None:
    old = path.stat()
    _overwrite(path)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"something else")
    other.replace(path)


def _append(path: Path) -> None:
    with open(path, "ab") as opened:
        opened.write(b"\1" * 9999)


HARMS: dict[str, Callable[[Path], Any]] = {
    "touched": lambda path: os.utime(path),
    "touched in the past": lambda path: os.utime(path, (1, 1)),
    "overwritten": _overwrite,
    "one byte written": _write_one_byte,
    "written through a mapping": _write_through_a_mapping,
    "overwritten with its time restored": _write_and_restore_the_time,
    "truncated to nothing": lambda path: os.truncate(path, 0),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "grown": _append,
    "deleted": lambda path: path.unlink(),
    "replaced": _replace,
    "made unreadable": lambda path: path.chmod(0),
    "gone with its folder": lambda path: shutil.rmtree(path.parent),
}


def _pt(folder: Path) -> tuple[list[Path], Callable[[], Whisper]]:
    save_checkpoint(tiny_model(), folder / "model.pt")
    return [folder / "model.pt"], lambda: load_model(folder / "model.pt", device="cpu")


def _in_memory(folder: Path) -> tuple[list[Path], Callable[[], Whisper]]:
    files, _ = _pt(folder)
    return files, lambda: load_model(files[0], device="cpu", in_memory=True)


_THEIR_NAMES = [
    ("token_embedding", "embed_tokens"), (".positional_embedding", ".embed_positions.weight"), (".blocks.", ".layers."),
    (".cross_attn_ln.", ".encoder_attn_layer_norm."), (".attn_ln.", ".self_attn_layer_norm."),
    (".cross_attn.", ".encoder_attn."), (".attn.", ".self_attn."), (".query.", ".q_proj."), (".key.", ".k_proj."),
    (".value.", ".v_proj."), (".out.", ".out_proj."), (".mlp.0.", ".fc1."), (".mlp.2.", ".fc2."),
    (".mlp_ln.", ".final_layer_norm."), ("encoder.ln_post.", "encoder.layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
]  # fmt: skip


def _huggingface(folder: Path) -> dict[str, Tensor]:
    """Write a configuration, and return the weights under the names of Hugging Face."""
    config: dict[str, Any] = {theirs: getattr(DIMS, ours) for ours, theirs in HUGGING_FACE_NAMES.items()}
    config |= {"encoder_ffn_dim": 4 * DIMS.n_audio_state, "decoder_ffn_dim": 4 * DIMS.n_text_state}
    (folder / "config.json").write_text(json.dumps(config))
    renamed = {}
    for name, tensor in tiny_model().state_dict().items():
        for ours, theirs in _THEIR_NAMES:
            name = name.replace(ours, theirs)
        renamed[f"model.{name}"] = tensor.clone()
    return renamed


def _safetensors(folder: Path) -> tuple[list[Path], Callable[[], Whisper]]:
    from safetensors.torch import save_file

    save_file(_huggingface(folder), folder / "model.safetensors")
    return [folder / "model.safetensors"], lambda: load_model(folder, device="cpu")


def _shards(folder: Path) -> tuple[list[Path], Callable[[], Whisper]]:
    from safetensors.torch import save_file

    state = _huggingface(folder)
    names = [("a.safetensors" if ".encoder." in name[:14] else "b.safetensors") for name in state]
    for shard in set(names):
        save_file({n: t for n, t, to in zip(state, state.values(), names, strict=True) if to == shard}, folder / shard)
    index = {"weight_map": dict(zip(state, names, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return [folder / "a.safetensors", folder / "b.safetensors"], lambda: load_model(folder, device="cpu")


def _pytorch_bin(folder: Path) -> tuple[list[Path], Callable[[], Whisper]]:
    torch.save(_huggingface(folder), folder / "pytorch_model.bin")
    return [folder / "pytorch_model.bin"], lambda: load_model(folder, device="cpu")


def _old_format(folder: Path) -> tuple[list[Path], Callable[[], Whisper]]:
    torch.save(_huggingface(folder), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return [folder / "pytorch_model.bin"], lambda: load_model(folder, device="cpu")


KINDS: dict[str, Callable[[Path], tuple[list[Path], Callable[[], Whisper]]]] = {
    ".pt": _pt, "in memory": _in_memory, "safetensors": _safetensors, "shards": _shards, "bin": _pytorch_bin,
    "old torch": _old_format,
}  # fmt: skip


def assert_is_as_loaded(model: Whisper) -> None:
    """The same results in both precisions, the same modules, and it can be moved."""
    whole = tiny_model()
    torch.testing.assert_close(heard(model), expected(whole), rtol=1e-3, atol=1e-3)
    state = model.state_dict()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert model.to(torch.float64).encoder.conv1.weight.dtype == torch.float64


WORST = ("touched", "overwritten", "truncated to nothing", "gone with its folder")


@pytest.mark.parametrize(
    ("kind", "harm"), [(kind, harm) for kind in KINDS for harm in (HARMS if kind == ".pt" else WORST)]
)
def test_what_happens_to_the_file_hurts_no_model(kind: str, harm: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    files, load = KINDS[kind](folder)
    models = [load(), load(), load()]
    select.runner_for(models[1], True)  # packed already, but not in float32
    assert models[2].encoder is not None
    for path in files if harm != "gone with its folder" else files[:1]:
        HARMS[harm](path)
    for model in models:
        assert_is_as_loaded(model)


@pytest.mark.parametrize("harm", WORST)
def test_the_bundled_model_and_published_ones(harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    save_checkpoint(tiny_model(), folder / "mine.pt")
    sha = hashlib.sha256((folder / "mine.pt").read_bytes()).hexdigest()
    monkeypatch.setitem(checkpoints._MODELS, "mine", f"https://nowhere.invalid/{sha}/mine.pt")
    published = load_model("mine", device="cpu", download_root=str(folder))
    HARMS[harm](folder / "mine.pt")
    assert_is_as_loaded(published)

    assets = tmp_path / "assets"
    assets.mkdir()
    bundled.pack(little_model(), assets / "nano.safetensors", range(10, 20), {}, fill_row=torch.zeros(16))
    monkeypatch.setattr(bundled, "BUNDLED", str(assets / "nano.safetensors"))
    wanted, model = logits(load_model("nano", device="cpu")), load_model("nano", device="cpu")
    HARMS[harm](assets / "nano.safetensors")
    assert torch.equal(logits(model), wanted)


def test_a_blob_behind_links(tmp_path: Path) -> None:
    """As in the cache of the hub."""
    folder, blob = tmp_path / "snapshots" / "1", tmp_path / "blobs" / "5f"
    for made in (folder, blob.parent):
        made.mkdir(parents=True)
    files, load = _safetensors(folder)
    files[0].rename(blob)
    files[0].symlink_to(blob)
    model = load()
    _overwrite(blob)
    assert_is_as_loaded(model)


def test_two_models_of_one_file_one_after_the_other(file: Path) -> None:
    model, other = load_model(file), load_model(file)
    save_checkpoint(little_model(1), file, half=True)
    wanted = build(read_checkpoint(str(file)))
    assert torch.equal(logits(wanted), logits(load_model(file)))
    assert not torch.equal(logits(wanted), logits(model))
    file.unlink()
    assert torch.equal(logits(other), logits(model))


# ---------------------------------------------------------------------------------------------------------
# While it is loaded
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """What happens, one after the other, when so much of a file was copied."""
    todo: list[Callable[[], Any]] = []
    copy = lazy_tensors._filled

    def filled(*arguments: Any) -> int:
        number = copy(*arguments)
        if todo:
            todo.pop(0)()
        return number

    monkeypatch.setattr(lazy_tensors, "_filled", filled)
    return todo


def loaded(file: Path) -> Tensor:
    return logits(load_model(file, device="cpu"))


def test_a_file_that_is_touched_or_deleted_while_it_is_loaded(file: Path, meanwhile: list[Any]) -> None:
    wanted = loaded(file)
    meanwhile += [lambda: os.utime(file)]
    assert torch.equal(loaded(file), wanted)
    meanwhile += [file.unlink]
    assert torch.equal(loaded(file), wanted)
    assert not meanwhile


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_becomes_another_while_it_is_loaded(file: Path, in_place: bool, meanwhile: list[Any]) -> None:
    other = file.with_name("other.pt")
    save_checkpoint(little_model(1), other, half=True)
    wanted = loaded(other)
    meanwhile += [(lambda: file.write_bytes(other.read_bytes())) if in_place else (lambda: other.replace(file))]
    assert torch.equal(loaded(file), wanted)


def test_a_file_that_is_being_written(file: Path, meanwhile: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_tensors, "DELAYS", (0.01, 0.01))
    content = file.read_bytes()
    file.write_bytes(content[:5000])
    before = len(copies())
    meanwhile += [lambda n=n: file.write_bytes(content[:n]) for n in (6000, 7000, 8000)]
    with pytest.raises(CheckpointError, match=r"little.pt is being written; load it again when that is done"):
        load_model(file)
    assert len(copies()) == before
    with pytest.raises(CheckpointError, match="truncated"):
        load_model(file)
    file.write_bytes(content)
    assert torch.equal(loaded(file), logits(little_model().half().float()))


def test_shards_are_of_one_moment(tmp_path: Path, meanwhile: list[Any]) -> None:
    from safetensors.torch import load_file, save

    files, load = _shards(tmp_path)
    new = [save({name: tensor + 1 for name, tensor in load_file(path).items()}) for path in files]

    def write() -> None:  # when the first was copied and the second not
        for path, content in zip(files, new, strict=True):
            path.write_bytes(content)

    meanwhile += [write]
    state = load().state_dict()
    assert all(torch.equal(state[name], tensor + 1) for name, tensor in tiny_model().state_dict().items())


def test_many_load_the_same_file_while_it_is_touched(file: Path) -> None:
    wanted, found, done = loaded(file), [], threading.Event()

    def touch() -> None:
        while not done.wait(0.001):
            os.utime(file)

    threads = [threading.Thread(target=lambda: found.append(loaded(file))) for _ in range(8)]
    toucher = threading.Thread(target=touch)
    for thread in (toucher, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    toucher.join()
    assert len(found) == 8
    assert all(torch.equal(logits, wanted) for logits in found)


# ---------------------------------------------------------------------------------------------------------
# Where the copy is
# ---------------------------------------------------------------------------------------------------------


def _no_room(*_: Any) -> Any:
    return os.statvfs_result((4096, 4096, 9, 9, 0, 0, 0, 0, 0, 255))


def test_it_lies_on_disk_and_in_memory_where_there_is_no_room(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(lazy_tensors, "temporary_folder", lambda: str(tmp_path / "temporary"))
    wanted = loaded(file)

    def where(model: Whisper) -> list[str]:
        assert deferred(model) is not None
        return [name for name in copies() if str(tmp_path) in name or "memfd" in name]

    model = load_model(file, device="cpu")
    assert [str(tmp_path / "temporary") in name for name in where(model)] == [True]
    assert os.listdir(tmp_path / "temporary") == []  # it has no name
    assert torch.equal(logits(model), wanted)
    for attribute, replaced in (("temporary_folder", lambda: "/nowhere"), ("os.fstatvfs", _no_room)):
        with monkeypatch.context() as patch:
            patch.setattr(f"whisper.checkpoints.lazy_tensors.{attribute}", replaced)
            model = load_model(file, device="cpu")
            assert ["memfd" in name for name in where(model)] == [True]
            _overwrite(file)
            assert torch.equal(logits(model), wanted)
            _overwrite(file)
    with monkeypatch.context() as patch:  # a system that has neither
        patch.setattr(lazy_tensors, "temporary_folder", lambda: "/nowhere")
        patch.delattr(os, "memfd_create")
        model = load_model(file, device="cpu")
        assert where(model) == []
        _overwrite(file)
        assert torch.equal(logits(model), wanted)


def test_a_file_system_that_shares_equal_blocks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def clone(number: int, request: int, source: int) -> int:
        assert request == lazy_tensors.FICLONE
        os.write(number, os.pread(source, 1 << 20, 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    monkeypatch.setattr(lazy_tensors, "_filled", None)  # nothing else is copied
    model = load_model(file, device="cpu")
    _overwrite(file)
    assert torch.equal(logits(model), logits(little_model().half().float()))
    assert os.listdir(file.parent) == [file.name]


def test_elsewhere_files_are_held_in_memory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_tensors, "MAPS", "/nowhere/maps")  # as on another system
    before = copies()
    model = load_model(file, device="cpu")
    assert copies() == before
    assert isinstance(read_checkpoint(str(file)).tensors, dict)
    os.truncate(file, 0)
    assert torch.equal(logits(model), logits(little_model().half().float()))


def test_tensors_are_read_when_asked_for_and_are_their_owners(file: Path) -> None:
    tensors = read_checkpoint(str(file)).tensors
    assert isinstance(tensors, FileTensors)
    assert not tensors._held
    assert not is_mapped(next(iter(tensors._places.values())).file)
    wanted = little_model().state_dict()
    assert set(tensors) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(tensors[name], tensor.half()), name
        assert (tensors.views[name].shape, tensors.views[name].dtype) == (tensor.shape, torch.float16)
    tensors["decoder.ln.weight"].zero_()
    assert torch.equal(tensors["decoder.ln.weight"], wanted["decoder.ln.weight"].half())


def test_copies_go_when_nobody_wants_them_any_more(file: Path) -> None:
    def n_open() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = n_open()
    model = load_model(file)
    assert n_open() == before + 1
    model.decoder  # noqa: B018
    assert n_open() == before
    model = load_model(file)
    del model
    assert n_open() == before


def test_tensors_that_lie_apart_and_small_files_are_held(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = torch.load(file)
    state: dict[str, Tensor] = checkpoint["model_state_dict"]
    state["encoder.conv1.weight"] = state["encoder.conv1.weight"].transpose(0, 1).contiguous().transpose(0, 1)
    torch.save(checkpoint, file)
    tensors = read_checkpoint(str(file)).tensors
    assert isinstance(tensors, FileTensors)
    assert set(tensors._held) == {"encoder.conv1.weight"}
    assert torch.equal(loaded(file), logits(load_model(file, in_memory=True)))

    monkeypatch.setattr(lazy_tensors, "SMALL", file.stat().st_size)
    assert isinstance(read_checkpoint(str(file)).tensors, dict)
    monkeypatch.setattr(lazy_tensors, "SMALL", 0)
    monkeypatch.setattr(lazy_tensors.KeptFile, "mappings", lambda _: [])  # as on file systems that hide what is mapped
    assert isinstance(read_checkpoint(str(file)).tensors, dict)


def test_folders_of_shards_stay_in_their_files_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: tensor.bfloat16() for name, tensor in little_model().state_dict().items()}
    for i, part in enumerate(("encoder", "decoder")):
        save_file({n: t for n, t in state.items() if n.startswith(part)}, tmp_path / f"{i}.safetensors")
    index = {name: f"{int(name.startswith('decoder'))}.safetensors" for name in state}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    files, tensors = read_tensors(str(tmp_path), "model.safetensors.index.json")
    assert all(map(is_mapped, files))
    left = lazy_tensors.left_in_files(tensors, files)
    del tensors
    assert isinstance(left, FileTensors)
    assert not left._held
    assert not any(map(is_mapped, files))
    assert all(torch.equal(left[name], tensor) for name, tensor in state.items())


def test_the_bundled_model_is_unpacked_tensor_by_tensor() -> None:
    model = load_model("nano", device="cpu")
    tensors = deferred(model).source.tensors  # type: ignore[union-attr]
    assert isinstance(tensors, StoredTensors)
    state = model.state_dict()
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert {n: t.shape for n, t in tensors.views.items()} == {n: t.shape for n, t in state.items()}


def test_safetensors_in_memory_are_those_on_disk(tmp_path: Path) -> None:
    _safetensors(tmp_path)
    path = str(tmp_path / "model.safetensors")
    on_disk, in_memory = (read_safetensors(keep([path], in_memory=held)[0]) for held in (False, True))
    assert on_disk[1] == in_memory[1]
    assert on_disk[0].keys() == in_memory[0].keys()
    assert all(torch.equal(on_disk[0][name], tensor) for name, tensor in in_memory[0].items())
    assert read_safetensors(keep([bundled.BUNDLED], in_memory=True)[0])[1]["sotto"]
