"""``whisper models convert``: the format that a name tells, precisions, what is in the way, and what is said."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from whisper.checkpoints.load import load_model, save_checkpoint
from whisper.checkpoints.save import FORMATS
from whisper.cli.common import Parser
from whisper.cli.convert import add_convert, format_of
from whisper.errors import OptionError
from whisper.model import Whisper

from ..models import random_model


def convert(*arguments: str | Path) -> int:
    parser = Parser(what="", prog="whisper models")
    add_convert(parser.add_subparsers())
    args: argparse.Namespace = parser.parse_args(["convert", *map(str, arguments)])
    return int(args.action(args))


def half_model() -> Whisper:
    model = random_model(1, n_state=32, n_audio_layer=1, n_text_layer=1)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    model.encoder.positional_embedding = model.encoder.positional_embedding.half().float()
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(half_model(), tmp_path / "half.pt")
    return tmp_path


def test_without_a_precision_nothing_is_lost_and_nothing_wasted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(folder / "half.pt", folder / "ggml.bin") == 0
    assert convert(folder / "ggml.bin", folder / "again.pt") == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "ggml.bin written: ggml, float16, " in said.err
    assert "again.pt written: pt, float16, " in said.err
    first, last = (load_model(folder / name).state_dict() for name in ("half.pt", "again.pt"))
    assert all(torch.equal(first[name], last[name]) for name in first)


def test_numbers_that_float16_cannot_hold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = half_model()
    model.decoder.ln.bias.data[0] = 1 / 3
    save_checkpoint(model, folder / "wide.pt")
    convert(folder / "wide.pt", folder / "same.pt")
    assert "same.pt written: pt, float32, " in capsys.readouterr().err
    convert(folder / "wide.pt", folder / "ggml.bin")
    assert "rounded to float16, as the format ggml has no float32" in capsys.readouterr().err


def test_a_quantised_model_is_said_to_be_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(folder / "half.pt", folder / "small.bin", "--precision", "q5_1")
    assert "is quantised" not in capsys.readouterr().err
    convert(folder / "small.bin", folder / "large.pt")
    said = " ".join(capsys.readouterr().err.split())
    assert "small.bin is quantised (q5_1): what it lost by that" in said
    assert "large.pt written: pt, float32, " in said  # each number exactly that of the quantised file
    small, large = (load_model(folder / name).state_dict() for name in ("small.bin", "large.pt"))
    assert all(torch.equal(small[name], large[name]) for name in small)


@pytest.mark.parametrize(
    ("out", "format"), [("a.pt", "pt"), ("x.y/A.PT", "pt"), ("ggml-base.bin", "ggml"), ("x.y/base", "ctranslate2")]
)
def test_the_name_tells_the_format(out: str, format: str) -> None:
    if format in FORMATS:
        assert format_of(out) == format


@pytest.mark.parametrize("out", ["a.onnx", "a.safetensors", "folder.v2/"])
def test_names_that_tell_no_format(out: str) -> None:
    with pytest.raises(OptionError, match=r"does not tell the format to write: give --format .*ggml or .*pt"):
        format_of(out)


def test_what_is_there_already(folder: Path) -> None:
    source, taken = folder / "half.pt", folder / "taken.bin"
    taken.write_text("mine")
    with pytest.raises(OptionError, match=r"taken.bin is there already; give another name, or --force"):
        convert(source, taken)
    assert taken.read_text() == "mine"
    convert(source, taken, "--force")
    assert taken.read_bytes()[:4] == b"lmgg"
    with pytest.raises(OptionError, match="is a folder that is not empty, and none is written over"):
        convert(source, folder, "--format", "ggml", "--force")
    with pytest.raises(OptionError, match="there is no folder"):
        convert(source, folder / "missing" / "a.bin")


def test_errors_come_before_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper.checkpoints.load.load_model", None)
    with pytest.raises(
        OptionError, match=r"--precision int8 is none that the format ggml has: give one of float16, q8_0"
    ):
        convert(folder / "half.pt", folder / "a.bin", "--precision", "int8")
    with pytest.raises(SystemExit):
        convert(folder / "half.pt", folder / "a.bin", "--format", "onnx")
    with pytest.raises(SystemExit):
        convert("no-such-model", folder / "a.bin")


def test_a_model_over_itself(folder: Path) -> None:
    before = load_model(folder / "half.pt").state_dict()
    convert(folder / "half.pt", folder / "half.pt", "--force", "--precision", "float16")
    after = load_model(folder / "half.pt").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
