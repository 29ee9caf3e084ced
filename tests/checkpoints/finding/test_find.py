"""Where `load_model` finds a published model: the order of places, what is not taken, and what it says."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from whisper import load_model
from whisper.checkpoints import load
from whisper.checkpoints.finding import find, names
from whisper.errors import DownloadError, OptionError
from whisper.model import Whisper

from .conftest import Home, little


def seed_of(model: Whisper) -> int:
    """Which of the little models it is."""
    bias = model.state_dict()["encoder.conv1.bias"]
    return next(seed for seed in range(9) if torch.equal(bias, little(seed).encoder.conv1.bias.half().float()))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No download succeeds; the list has those that were tried."""
    tried: list[str] = []

    def fail(url: str, *_: object) -> str:
        tried.append(url)
        raise DownloadError("no network")

    monkeypatch.setattr(load, "_download", fail)
    return tried


def test_places_are_tried_in_their_order(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], offline: list[str]
) -> None:
    copies = [
        home.put(".local/share/pywhispercpp/models/base.pt", 0),
        home.hub("Systran/faster-whisper-base", 1),
        home.put("named/faster-whisper-base", 2, format="ctranslate2"),
    ]
    monkeypatch.setenv("SOTTO_MODELS", os.pathsep.join([str(home.path / "missing"), str(home.path / "named")]))
    for seed in (2, 1, 0):
        assert seed_of(load_model("base", device="cpu")) == seed
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"taking base from {copies[seed]} (")
        copies[seed].rename(home.path / f"away-{seed}")
    assert not offline
    with pytest.raises(DownloadError, match="no network"):
        load_model("base", device="cpu")
    assert len(offline) == 1


def test_what_was_downloaded_comes_first(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.hub("Systran/faster-whisper-base", 1)
    own = home.put(".cache/whisper/base.pt", 2)
    monkeypatch.setattr(load, "_download", lambda url, root, in_memory: os.path.join(root, os.path.basename(url)))
    assert seed_of(load_model("base", device="cpu")) == 2
    own.rename(home.path / "elsewhere.pt")
    assert seed_of(load_model("base", device="cpu")) == 1


def test_it_says_once_what_it_took(home: Home, capsys: pytest.CaptureFixture[str], offline: list[str]) -> None:
    home.hub("Systran/faster-whisper-base")
    for _ in range(2):
        load_model("base", device="cpu")
    said, out = capsys.readouterr().err, capsys.readouterr().out
    assert said.count("\n") == 1
    assert "Hugging Face's cache; CTranslate2, float16" in said
    assert not out


def test_looking_can_be_turned_off(home: Home, monkeypatch: pytest.MonkeyPatch, offline: list[str]) -> None:
    home.hub("Systran/faster-whisper-base")
    monkeypatch.setenv("SOTTO_FIND", "0")
    with pytest.raises(DownloadError):
        load_model("base", device="cpu")


@pytest.mark.parametrize("precision", ["int8", "int16", "bfloat16", "int8_float16"])
def test_what_lost_something_is_taken_on_request_alone(
    precision: str, home: Home, capsys: pytest.CaptureFixture[str], offline: list[str]
) -> None:
    path = home.hub("Systran/faster-whisper-base", 1, precision=precision)
    with pytest.raises(DownloadError, match=rf"no network; quantized=True, --quantized True takes {path}"):
        load_model("base", device="cpu")
    load_model("base", device="cpu", quantized=True)
    assert precision.split("_")[0] in capsys.readouterr().err
    home.put(".local/share/pywhispercpp/models/base.pt", 2)  # an exact copy, though in a later place
    assert seed_of(load_model("base", device="cpu", quantized=True)) == 2


def test_float32_is_exact(home: Home, offline: list[str]) -> None:
    home.put("whisper.cpp/models/base.pt", precision="float32")
    assert load_model("base", device="cpu").dims == names.dimensions("base")


def test_quantized_is_no_option_of_other_names(home: Home) -> None:
    path = home.put("mine.pt")
    with pytest.raises(OptionError, match=r"quantized=True chooses among copies .*, and '.*mine\.pt' is none"):
        load_model(str(path), quantized=True)


def test_another_model_of_that_name_is_passed_over(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], offline: list[str]
) -> None:
    home.put("whisper.cpp/models/base.pt", 1)
    monkeypatch.setitem(names._SIZES, "base", (32, 1, 1, 1))
    with pytest.raises(DownloadError):
        load_model("base", device="cpu")
    said = capsys.readouterr().err
    assert said.startswith(f"not taking base from {home.path}/whisper.cpp/models/base.pt")
    assert "is called base and is another model" in said


def test_what_is_broken_is_not_there(home: Home, offline: list[str]) -> None:
    whole = home.hub("Systran/faster-whisper-base", 1)
    hub = home.path / ".cache/huggingface/hub"
    (hub / "models--openai--whisper-base/snapshots/a").mkdir(parents=True)
    (hub / "models--openai--whisper-base/snapshots/a/model.safetensors").symlink_to(home.path / "nowhere")
    (hub / "models--openai--whisper-base/snapshots/a/config.json").write_text('{"model_type": "whisper"}')
    (hub / "models--openai--whisper-base/refs").mkdir()
    (hub / "models--openai--whisper-base/refs/main").write_text("../../../..")
    cut = home.hub("guillaumekln/faster-whisper-base")
    (cut / "model.bin").write_bytes((cut / "model.bin").read_bytes()[:-1])
    (home.path / "whisper.cpp").write_text("a file where a folder is expected")
    assert [found.path for found in find.copies("base", quantized=True)] == [str(whole)]
    assert seed_of(load_model("base", device="cpu")) == 1


def test_a_copy_that_cannot_be_read_gives_way_to_the_next(
    home: Home, capsys: pytest.CaptureFixture[str], offline: list[str]
) -> None:
    path = home.hub("Systran/faster-whisper-base", 1)
    content = (path / "model.bin").read_bytes()
    (path / "model.bin").write_bytes(content.replace(b"encoder/conv1/bias", b"encoder/conv9/bias"))
    home.put(".local/share/pywhispercpp/models/base.pt", 2)
    assert seed_of(load_model("base", device="cpu")) == 2
    refused, taken = capsys.readouterr().err.splitlines()
    assert refused.startswith(f"not taking base from {path}")
    assert taken.startswith("taking base")


def test_a_folder_may_be_a_model_and_a_copy_counts_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.put("deep/faster-whisper-base", format="ctranslate2")
    (home.path / "linked").mkdir()
    (home.path / "linked" / "base").symlink_to(path)
    monkeypatch.setenv("SOTTO_MODELS", os.pathsep.join([str(path), str(path.parent), str(home.path / "linked")]))
    assert [found.path for found in find.copies("base")] == [str(path)]


def test_large_and_turbo_are_two_names_each() -> None:
    assert names.dimensions("turbo") == names.dimensions("large-v3-turbo")
    assert names.repositories("large") == names.repositories("large-v3")
    assert {"large", "turbo"} & set(names.known()) == set()


def test_distilled_models_are_found_by_name(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names._SIZES, "distil-large-v2", (16, 1, 1, 1))
    home.hub("distil-whisper/distil-large-v2-ct2", 3)
    assert seed_of(load_model("distil-large-v2", device="cpu")) == 3


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("tiny", 37.76), ("base.en", 72.59), ("small", 241.73), ("medium", 763.86), ("large-v2", 1543.30),
        ("turbo", 808.88), ("distil-large-v3", 756.41), ("distil-small.en", 166.13),
    ],
)  # fmt: skip
def test_sizes(name: str, millions: float) -> None:
    assert names.n_parameters(name) / 1e6 == pytest.approx(millions, abs=0.01)


def test_every_published_model_is_known() -> None:
    known = [name for name in load.available_models() if name != load.BUNDLED_NAME]
    assert {names.canonical(name) for name in known} == set(names.known()) - set(names.DISTILLED)
    assert set(names.BEST_FIRST) == set(names.known())


def test_looking_is_quick_among_many_files(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = home.path / "crowd"
    crowd.mkdir()
    for number in range(2000):
        (crowd / f"base-{number}.bin").touch()
    monkeypatch.setenv("SOTTO_MODELS", str(crowd))
    list(find.copies("base"))
    start = time.process_time()
    for _ in range(10):
        assert not list(find.copies("base", quantized=True))
    assert time.process_time() - start < 0.2  # 20 ms each


def test_unreadable_folders_hold_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    home.hub("Systran/faster-whisper-base")
    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", refuse)
        patched.setattr(os, "scandir", refuse)
        assert not list(find.copies("base", quantized=True))
    assert len(list(find.copies("base"))) == 1


def test_all_copies_of_all_models(home: Home) -> None:
    first = home.hub("Systran/faster-whisper-base")
    quantized = home.put(".cache/Buzz/models/models--Systran--faster-whisper-small/snapshots/x", format="ctranslate2",
                         precision="int8")  # fmt: skip
    (home.cache).mkdir()
    (home.cache / "tiny.pt").write_bytes(b"half")
    here = find.on_this_machine(quantized=True)
    assert {name: [(f.path, f.stored.precision) for f in copies] for name, copies in here.items()} == {
        "base": [(str(first), "float16")],
        "small": [(str(quantized), "int8")],
        "tiny": [(str(home.cache / "tiny.pt"), "broken")],
    }
    assert set(find.on_this_machine()) == {"base", "tiny"}


def test_the_own_folder_may_be_another(home: Home, tmp_path: Path, offline: list[str]) -> None:
    own = home.put("own/base.pt", 5)
    found = find.downloaded("base", str(tmp_path / "own"))
    assert found is not None
    assert found.path == str(own)
    assert found.whose == find.OWN
