"""Names, .pt files and what is none: loading, saving, and the sentence for each file that cannot be loaded."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from whisper.checkpoints import load
from whisper.checkpoints.load import available_models, load_model, save_checkpoint
from whisper.checkpoints.weights import dump_alignment_heads
from whisper.errors import CheckpointError, DeviceError, DownloadError, ModelNotFoundError
from whisper.model import ModelDimensions, Whisper

DIMS = ModelDimensions(8, 20, 16, 2, 2, 60, 12, 16, 4, 3)


def little_model(seed: int = 0, dims: ModelDimensions = DIMS) -> Whisper:
    torch.manual_seed(seed)
    model = Whisper(dims)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    heads = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    heads[0, 1] = heads[2, 3] = True
    model.set_alignment_mask(heads)
    return model


def logits(model: Whisper) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    mel = torch.randn(2, DIMS.n_mels, 2 * DIMS.n_audio_ctx, generator=generator)
    with torch.no_grad():
        return model(mel, torch.tensor([[1, 5, 9], [2, 2, 59]]))


def heads_of(model: Whisper) -> list[list[int]]:
    return model.alignment_heads.indices().T.tolist()


def contents(half: bool = False, **changes: Any) -> dict[str, Any]:
    state = {k: v.half() if half else v for k, v in little_model().state_dict().items()}
    return {"dims": asdict(DIMS), "model_state_dict": state, **changes}


# ---------------------------------------------------------------------------------------------------------
# What loads
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_a_saved_model_comes_back(tmp_path: Path, half: bool, in_memory: bool) -> None:
    model = little_model()
    save_checkpoint(model, tmp_path / "little.pt", half=half)
    loaded = load_model(tmp_path / "little.pt", device="cpu", in_memory=in_memory)
    size = (tmp_path / "little.pt").stat().st_size
    with open(tmp_path / "little.pt", "r+b") as file:
        file.write(bytes(size))  # a tensor that is still mapped would notice

    assert type(loaded) is Whisper
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float() if half else tensor), name
    assert torch.equal(logits(loaded), logits(model)) is not half
    assert heads_of(loaded) == [[0, 1], [2, 3]]


def test_it_is_like_a_model_that_was_built(tmp_path: Path) -> None:
    save_checkpoint(little_model(), tmp_path / "little.pt", half=True)
    loaded, built = load_model(tmp_path / "little.pt"), Whisper(DIMS)
    for ours, theirs in ((loaded.named_parameters(), built.named_parameters()),
                         (loaded.named_buffers(), built.named_buffers())):  # fmt: skip
        ours, theirs = dict(ours), dict(theirs)
        assert list(ours) == list(theirs)
        for name in ours:
            assert type(ours[name]) is type(theirs[name])
            assert (ours[name].dtype, ours[name].device) == (theirs[name].dtype, theirs[name].device)
            assert ours[name].requires_grad == theirs[name].requires_grad
            assert ours[name].layout != torch.strided or ours[name].stride() == theirs[name].stride()
    assert loaded.training == built.training
    assert torch.equal(loaded.decoder.mask, built.decoder.mask)
    assert loaded.state_dict().keys() == built.state_dict().keys()
    logits_sum = loaded(torch.zeros(1, 8, 40), torch.zeros(1, 2, dtype=torch.long)).sum()
    logits_sum.backward()  # it can be trained
    assert loaded.encoder.conv1.weight.grad is not None


def test_files_of_the_original_and_of_its_finetuners(tmp_path: Path) -> None:
    torch.save(contents(half=True), tmp_path / "plain.pt")
    torch.save(contents(epoch=3, optimizer={"lr": 0.1}), tmp_path / "extra.pt")
    torch.save(contents(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(contents(model_state_dict=OrderedDict(contents()["model_state_dict"])), tmp_path / "ordered.pt")
    for name in ("extra.pt", "old.pt", "ordered.pt"):
        model = load_model(str(tmp_path / name))
        assert torch.equal(logits(model), logits(little_model()))
        assert heads_of(model) == heads_of(Whisper(DIMS))  # the upper half: nobody measured them
    assert load_model(tmp_path / "plain.pt").decoder.ln.weight.dtype == torch.float32


def test_a_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    save_checkpoint(little_model(), tmp_path / "little.pt")
    model = little_model(1)
    model.decoder.ln.weight.data[3] = 1e6
    with pytest.raises(CheckpointError, match=r"decoder.ln.weight.*save in float32"):
        save_checkpoint(model, tmp_path / "little.pt", half=True)
    assert os.listdir(tmp_path) == ["little.pt"]
    assert torch.equal(logits(load_model(tmp_path / "little.pt")), logits(little_model()))


# ---------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------


def test_the_published_models() -> None:
    assert available_models() == [
        "tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium",
        "large-v1", "large-v2", "large-v3", "large", "large-v3-turbo", "turbo", "nano",
    ]  # fmt: skip
    assert list(load._MODELS) == available_models()[:-1] == list(load._ALIGNMENT_HEADS)
    table = json.dumps([load._MODELS, {k: v.decode() for k, v in load._ALIGNMENT_HEADS.items()}])
    # of the same expression over the tables of openai-whisper 20250625
    assert hashlib.sha256(table.encode()).hexdigest() == TABLES_SHA


TABLES_SHA = "85650dc6adc1053f977a93d636db00643d87d51884b3b8cef98e61505f656017"


def test_a_published_name_is_downloaded_and_gets_its_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(contents(), tmp_path / "t.pt")
    raw = (tmp_path / "t.pt").read_bytes()
    url = f"https://example.invalid/{hashlib.sha256(raw).hexdigest()}/t.pt"
    monkeypatch.setitem(load._MODELS, "tiny", url)
    heads = dump_alignment_heads(little_model().alignment_heads).encode()
    monkeypatch.setitem(load._ALIGNMENT_HEADS, "tiny", heads)
    (tmp_path / "cache" / "whisper").mkdir(parents=True)
    (tmp_path / "cache" / "whisper" / "t.pt").write_bytes(raw)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for options in ({}, {"in_memory": True}, {"download_root": str(tmp_path)}):
        model = load_model("tiny", **options)
        assert heads_of(model) == [[0, 1], [2, 3]]
        assert torch.equal(logits(model), logits(little_model()))


def test_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whisper.checkpoints import bundled

    monkeypatch.setattr(bundled, "BUNDLED", str(tmp_path / "nano.safetensors"))
    with pytest.raises(CheckpointError, match=r"nano.safetensors is missing.*install sotto again"):
        load_model("nano")
    bundled.pack(little_model(), tmp_path / "nano.safetensors", range(60), {})
    assert heads_of(load_model("nano")) == [[0, 1], [2, 3]]
    assert torch.equal(logits(load_model(tmp_path / "nano.safetensors")), logits(load_model("nano")))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smal", r"did you mean 'small'\?.*turbo, nano"),
        ("Large-V3", r"did you mean 'large-v3'\?"),
        ("zzz", r"model 'zzz' not found; available models: tiny.en, tiny,"),
        ("folder/model.pt", r"no file or folder 'folder/model.pt' \(looked from"),
        ("model.pt", "no file or folder 'model.pt'"),
        (Path("owner/name"), "no file or folder"),
        ("", "model '' not found"),
    ],
)
def test_unknown_names(name: str | Path, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=says) as caught:
        load_model(name)  # type: ignore[arg-type]
    assert isinstance(caught.value, RuntimeError)


def test_a_device_that_is_not_there_is_noticed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_download", lambda *_: pytest.fail("it was downloaded"))
    for device in ("cuda:99", "abacus"):
        with pytest.raises(DeviceError, match=f"device '{device}' cannot be used here"):
            load_model("tiny", device=device)


# ---------------------------------------------------------------------------------------------------------
# What does not load, and its one sentence
# ---------------------------------------------------------------------------------------------------------


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def _with(key: str, value: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        made = contents()
        if value is None:
            del made["model_state_dict"][key]
        else:
            made["model_state_dict"][key] = value
        torch.save(made, path)

    return write


def _bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def _torch(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


def _truncated(path: Path) -> None:
    save_checkpoint(little_model(), path)
    path.write_bytes(path.read_bytes()[:-5000])


def _old_and_truncated(path: Path) -> None:
    torch.save(contents(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-5000])


def _plain_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def _torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"model/{name}", "")


FOREIGN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (_bytes(b""), "is empty"),
    "html": (_bytes(b"\n<!DOCTYPE html><html>404</html>"), "is a web page.*download the model again"),
    "text": (_bytes(b"nothing but text\n"), "is a text file"),
    "lfs": (_bytes(b"version https://git-lfs.github.com/spec/v1\noid"), "Git LFS pointer.*git lfs pull"),
    "ggml": (_bytes(b"lmgg" + bytes(100)), r"do not describe a Whisper \(n_mels = 0;"),
    "wav": (_bytes(b"RIFF\x10\0\0\0WAVEfmt "), "is a recording"),
    "noise": (_bytes(bytes(range(1, 99)) + b"\0"), "is no checkpoint of a known kind .it begins with 01 02"),
    "zip": (_plain_zip, "is a zip archive.*data.pkl"),
    "torchscript": (_torchscript, "is a TorchScript program"),
    "truncated": (_truncated, "is truncated.*get it again"),
    "old truncated": (_old_and_truncated, "damaged or truncated"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"dims": 1})), "is a Python pickle that torch.save did not"),
    "safetensors": (_bytes((9).to_bytes(8, "little") + b'{"a": 1}'), "weights alone, and its dimensions are missing"),
    "tensor": (_torch(torch.zeros(3)), "holds a Tensor; a dictionary with dims is needed"),
    "hf bin": (_torch({"model.encoder.layers.0.fc1.bias": torch.zeros(3)}), "Hugging Face.*config.json"),
    "bare": (_torch(contents()["model_state_dict"]), "bare state dict of .* tensors, and dims and model_state"),
    "lightning": (_torch({"epoch": 1, "state_dict": {}}), "holds epoch, state_dict, and dims and model_state"),
    "no dims": (_torch({"model_state_dict": {}}), "and dims is missing"),
    "nine dims": (_torch(contents(dims={**asdict(DIMS), "n_mels": None})), "n_mels = None"),
    "eleven dims": (_torch(contents(dims={**asdict(DIMS), "n_ears": 2})), "n_ears is unknown"),
    "odd heads": (_torch(contents(dims={**asdict(DIMS), "n_text_head": 3})), "16 is no multiple of n_text_he"),
    "giant": (_torch(contents(dims={**asdict(DIMS), "n_text_layer": 10**9})), "n_text_layer = 1000000000"),
    "many layers": (_torch(contents(dims={**asdict(DIMS), "n_text_layer": 999})), "announces 1001 layers"),
    "list": (_torch(contents(model_state_dict=[1])), "model_state_dict of type list"),
    "incomplete": (_with("decoder.ln.weight", None), r"incomplete: 1 of 113 tensors.*\(decoder.ln.weight\)"),
    "surplus": (_with("decoder.more", torch.zeros(1)), "1 tensors that a Whisper.*decoder.more"),
    "shape": (_with("decoder.ln.weight", torch.zeros(5)), r"has shape \(5,\), and its dim.* ask for \(16,\)"),
    "integers": (_with("decoder.ln.weight", torch.zeros(16, dtype=torch.int8)), "is torch.int8, not plain"),
    "string": (_with("decoder.ln.weight", "hello"), "is str, not plain"),
    "heads": (_torch(contents(alignment_heads="ABzY8")), "alignment heads .* are not 3 x 4"),
}


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_checkpoint_is_called_by_its_name(kind: str, in_memory: bool, tmp_path: Path) -> None:
    write, says = FOREIGN[kind]
    path = tmp_path / "strange.pt"
    write(path)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_model(path, in_memory=in_memory)
    message = str(caught.value)
    assert str(path) in message
    assert "; " in message  # what it is; what to do
    assert "\n" not in message


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_is_run(tmp_path: Path, zipped: bool, in_memory: bool) -> None:
    sign = tmp_path / "the code ran"
    torch.save(contents(more=Attack(sign)), tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.mkdir, which is code.*was not run"):
        load_model(tmp_path / "evil.pt", in_memory=in_memory)
    assert not sign.exists()
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Attack(sign)))
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "bare.pt", in_memory=in_memory)
    assert not sign.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    save_checkpoint(little_model(), tmp_path / "little.pt")
    (tmp_path / "little.pt").chmod(0)
    with pytest.raises(CheckpointError, match="check its permissions"):
        load_model(tmp_path / "little.pt")


def test_offline_the_error_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setitem(load._MODELS, "tiny", "http://nowhere.invalid/00/tiny.pt")
    by_hand = re.escape(str(tmp_path / "tiny.pt")) + r" by hand.*pip install 'sotto\[base\]'"
    with pytest.raises(DownloadError, match=by_hand):
        load_model("tiny", download_root=str(tmp_path))


# ---------------------------------------------------------------------------------------------------------
# Beside the original
# ---------------------------------------------------------------------------------------------------------

ORIGINAL = """
import torch, whisper
model = whisper.load_model(arguments["ours"], device="cpu")
generator = torch.Generator().manual_seed(1)
mel = torch.randn(2, 8, 40, generator=generator)
with torch.no_grad():
    logits = model(mel, torch.tensor([[1, 5, 9], [2, 2, 59]]))
torch.save({"dims": vars(model.dims), "model_state_dict": model.half().state_dict()}, arguments["theirs"])
tables = [whisper._MODELS, {k: v.decode() for k, v in whisper._ALIGNMENT_HEADS.items()}]
answer = {"logits": logits.tolist(), "tables": tables}
"""


@pytest.mark.peers
def test_the_original_loads_ours_and_we_load_the_originals(original: Any, tmp_path: Path) -> None:
    save_checkpoint(little_model(), tmp_path / "ours.pt")
    paths = {"ours": str(tmp_path / "ours.pt"), "theirs": str(tmp_path / "theirs.pt")}
    answer = original(ORIGINAL, tmp_path, **paths)
    torch.testing.assert_close(torch.tensor(answer["logits"]), logits(little_model()), rtol=0, atol=1e-5)
    theirs = load_model(paths["theirs"])
    for name, tensor in little_model().state_dict().items():
        assert torch.equal(theirs.state_dict()[name], tensor.half().float())
    heads = {name: dump.decode() for name, dump in load._ALIGNMENT_HEADS.items()}
    assert answer["tables"] == [load._MODELS, heads]
