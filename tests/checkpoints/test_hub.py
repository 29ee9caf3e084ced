"""Names on the hub: which files of a repository are fetched, tried with the hub's own client on a hub of our own."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from whisper.checkpoints import hub
from whisper.checkpoints.load import load_model
from whisper.checkpoints.save import save_checkpoint
from whisper.cli.common import model_name
from whisper.errors import DownloadError, MissingDependencyError, ModelNotFoundError

from .formats import test_huggingface as huggingface
from .formats import test_mlx as mlx

# ---------------------------------------------------------------------------------------------------------
# Which files: listings as repositories have them, and what of each is fetched
# ---------------------------------------------------------------------------------------------------------

CONFIGS = ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json"]
UNREAD = [".gitattributes", "README.md", "added_tokens.json", "merges.txt", "normalizer.json", "vocab.json"]
FLAX_AND_TF = ["flax_model.msgpack", "tf_model.h5"]
LARGE_SHARDS = [f"model.fp32-0000{i}-of-00002.safetensors" for i in (1, 2)]
GGML = [f"ggml-{name}.bin" for name in ("base", "base-q5_1", "base.en", "large-v3", "tiny")]

REPOSITORIES: dict[str, tuple[list[str], list[str]]] = {
    "openai/whisper-base": (
        [*CONFIGS, *UNREAD, *FLAX_AND_TF, "model.safetensors", "pytorch_model.bin"],
        [*CONFIGS, "model.safetensors"],
    ),
    "openai/whisper-large-v3": (
        [*CONFIGS, *UNREAD, "flax_model.msgpack", "model.safetensors", *LARGE_SHARDS,
         "model.safetensors.index.fp32.json", "pytorch_model.bin", "pytorch_model.fp32-00001-of-00002.bin"],
        [*CONFIGS, "model.safetensors"],
    ),
    "owner/fp32-alone": (
        [*CONFIGS, *LARGE_SHARDS, "model.safetensors.index.fp32.json"],
        [*CONFIGS, *LARGE_SHARDS, "model.safetensors.index.fp32.json"],
    ),
    "owner/old": ([*CONFIGS, *FLAX_AND_TF, "pytorch_model.bin"], [*CONFIGS, "pytorch_model.bin"]),
    "owner/shards": (
        ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
         "model.safetensors.index.json", "pytorch_model.bin.index.json"],
        ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
         "model.safetensors.index.json"],
    ),
    "owner/fine-tuned": (
        ["config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "training_args.bin",
         "checkpoint-500/model.safetensors", "runs/events.out.tfevents"],
        ["config.json", "model.safetensors"],
    ),
    "distil-whisper/distil-large-v3": (
        [*CONFIGS, *UNREAD, "model.safetensors", "onnx/encoder_model.onnx", "onnx/decoder_model_merged.onnx"],
        [*CONFIGS, "model.safetensors"],
    ),
    "Systran/faster-whisper-small": (
        [".gitattributes", "README.md", "config.json", "model.bin", "tokenizer.json", "vocabulary.txt"],
        ["config.json", "model.bin", "tokenizer.json", "vocabulary.txt"],
    ),
    "distil-whisper/distil-large-v3.5-ct2": (
        ["config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json"],
        ["config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json"],
    ),
    "mlx-community/whisper-tiny": (["README.md", "config.json", "weights.npz"], ["config.json", "weights.npz"]),
    "mlx-community/both": (
        ["config.json", "weights.npz", "weights.safetensors"], ["config.json", "weights.safetensors"],
    ),
    "owner/one-ggml": (["README.md", "ggml-model.bin"], ["ggml-model.bin"]),
    "owner/one-pt": (["README.md", "tiny-ft.pt"], ["tiny-ft.pt"]),
    "ggerganov/whisper.cpp:ggml-base-q5_1.bin": ([*GGML, "README.md"], ["ggml-base-q5_1.bin"]),
    "openai/whisper-base:pytorch_model.bin": (
        [*CONFIGS, *UNREAD, "model.safetensors", "pytorch_model.bin"], [*CONFIGS, "pytorch_model.bin"],
    ),
    "owner/fine-tuned:checkpoint-500/model.safetensors": (
        ["config.json", "model.safetensors", "checkpoint-500/config.json", "checkpoint-500/model.safetensors"],
        ["checkpoint-500/config.json", "checkpoint-500/model.safetensors"],
    ),
}  # fmt: skip

NOT_FOUND: dict[str, tuple[list[str], str]] = {
    "ggerganov/whisper.cpp": (GGML, r"holds 5 models; .*whisper.cpp:ggml-base.bin .there are ggml-base.bin, ggml-b"),
    "ggerganov/whisper.cpp:ggml-basis.bin": (GGML, r"no file ggml-basis.bin; it has ggml-base.bin, ggml-base-q5_1.bin"),
    "owner/flax": ([*CONFIGS, *FLAX_AND_TF], "holds Flax weights and TensorFlow weights, and no weights that can be"),
    "onnx-community/whisper-base": ([*CONFIGS, "onnx/encoder_model.onnx"], "holds ONNX graphs, and no weights"),
    "argmaxinc/whisperkit": (["openai_base/AudioEncoder.mlmodelc/model.mil"], "holds CoreML models, and no weights"),
    "owner/adapter": (["adapter_config.json", "adapter_model.safetensors"], r"an adapter .LoRA. without its base"),
    "owner/text": (["README.md"], "holds README.md, and no weights that can be read"),
    "owner/empty": ([], "holds no files, and"),
}


@pytest.mark.parametrize("name", REPOSITORIES)
def test_the_files_that_are_fetched(name: str) -> None:
    files, expected = REPOSITORIES[name]
    assert hub.is_hub_name(name)
    assert model_name(name) == name
    assert hub.chosen(sorted(files), name, name.partition(":")[2]) == sorted(expected)


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_cannot_be_fetched_is_named(name: str) -> None:
    files, says = NOT_FOUND[name]
    with pytest.raises(ModelNotFoundError, match=says) as caught:
        hub.chosen(files, name, name.partition(":")[2])
    assert "\n" not in str(caught.value)


def test_names_that_are_none() -> None:
    for name in ("base", "a/b/c", "./a", "/a/b", "models/base.pt", "a/b:", "a/b:/etc/passwd", "a/b:../c", "a/", "C:/a"):
        assert not hub.is_hub_name(name), name


# ---------------------------------------------------------------------------------------------------------
# The client
# ---------------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub on this machine, which holds folders by the names of their repositories."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.sent: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def files(self, name: str) -> list[str]:
        folder = self.repositories[name]
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        if name not in self.hub.repositories:
            return self.answer(b"{}", 404, X_Error_Code="RepoNotFound", X_Error_Message="Repository Not Found")
        folder, files = self.hub.repositories[name], self.hub.files(name)
        if api:
            tree = [{"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": "0" * 40} for f in files]
            info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files], "private": False}
            content = json.dumps(tree if "tree" in parts else info).encode()
            return self.answer(content, Content_Type="application/json")
        file = "/".join(parts[4:])
        body = (folder / file).read_bytes()
        if self.command == "GET":
            self.hub.sent.append(file)
        return self.answer(body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def local_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed here")
    started = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", started.address)
    place = started.address + "/{repo_id}/resolve/{revision}/{filename}"  # made from the address at import
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.chdir(tmp_path)
    yield started
    started.server.shutdown()
    started.server.server_close()


def _huggingface(folder: Path) -> Any:
    model = huggingface.little_model()
    huggingface.write(folder, huggingface.their_tensors(model))
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "tf_model.h5").write_bytes(b"not needed")
    return model


def _mlx(folder: Path) -> Any:
    model = mlx.little_model()
    mlx.write(folder, mlx.mlx_tensors(model))
    return model


def _several(folder: Path) -> Any:
    model = mlx.little_model()
    folder.mkdir()
    for name in ("a.pt", "b.pt"):
        save_checkpoint(model, folder / name)
    return model


MADE: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "owner/whisper-little": (_huggingface, ["config.json", "model.safetensors"]),
    "mlx-community/whisper-little": (_mlx, ["config.json", "weights.npz"]),
    "owner/several:b.pt": (_several, ["b.pt"]),
}


@pytest.mark.parametrize("name", MADE)
def test_a_model_on_the_hub(name: str, local_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, expected = MADE[name]
    local_hub.repositories[name.partition(":")[0]] = tmp_path / "files"
    model = make(tmp_path / "files")
    cache = str(tmp_path / "cache")
    assert huggingface.same(load_model(name, download_root=cache), model)
    assert sorted(local_hub.sent) == expected

    local_hub.repositories.clear()  # as where the connection is gone
    assert huggingface.same(load_model(name, download_root=cache), model)
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "ENDPOINT", "http://127.0.0.1:9")
    assert huggingface.same(load_model(name, download_root=cache), model)
    assert sorted(local_hub.sent) == expected


def test_a_name_that_the_hub_does_not_have(local_hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"owner/other is no file .* hub did not give it .*; check the name"):
        load_model("owner/other", download_root=str(tmp_path))
    local_hub.repositories["owner/several"] = tmp_path / "files"
    _several(tmp_path / "files")
    with pytest.raises(ModelNotFoundError, match=r"owner/several holds 2 models; .* owner/several:a.pt"):
        load_model("owner/several", download_root=str(tmp_path))
    assert not local_hub.sent


def test_without_the_hub_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sotto\[hub\]'"):
        load_model("owner/whisper-little")
