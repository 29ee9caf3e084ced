"""What is written for whisper.cpp: read back, laid out as its own tools lay it out, and read by itself."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from whisper.checkpoints.formats import ggml_writer
from whisper.checkpoints.formats.recognize import read as read_checkpoint
from whisper.checkpoints.load import load_model, save_checkpoint
from whisper.checkpoints.weights import build
from whisper.errors import CheckpointError, OptionError
from whisper.model import Whisper

from ...conftest import ROOT
from ...models import random_model
from .test_ggml import ggml_bytes, model

TOOLS = {"float32": (0, 0), "float16": (1, 1), "q4_0": (2, 2002), "q4_1": (3, 2003), "q5_0": (6, 2008),
         "q5_1": (7, 2009), "q8_0": (8, 2007)}  # fmt: skip  # the types of matrices and of the file


@pytest.mark.parametrize("precision", ggml_writer.PRECISIONS)
def test_it_is_what_whisper_cpp_writes(tmp_path: Path, precision: str) -> None:
    save_checkpoint(model(), tmp_path / "out.bin", format="ggml", precision=precision)
    matrices, file_type = TOOLS[precision]
    assert (tmp_path / "out.bin").read_bytes() == ggml_bytes(model(), matrices, file_type)


def test_float16_is_the_default_and_holds_published_numbers_exactly(tmp_path: Path) -> None:
    published = build(read_checkpoint("half.bin", ggml_bytes(model())))
    save_checkpoint(published, tmp_path / "out.bin", format="ggml")
    again = load_model(tmp_path / "out.bin", device="cpu")
    for name, values in published.state_dict().items():
        assert torch.equal(again.state_dict()[name], values), name


def test_an_english_only_model_has_no_token_to_spare(tmp_path: Path) -> None:
    english = random_model(1, n_state=32, n_audio_layer=1, n_text_layer=1, n_vocab=51864)
    save_checkpoint(english, tmp_path / "out.bin", format="ggml", precision="float32")
    assert (tmp_path / "out.bin").read_bytes() == ggml_bytes(english, 0, 0)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    def refused(model: Whisper, precision: str, match: str, error: type[Exception] = CheckpointError) -> None:
        with pytest.raises(error, match=match):
            save_checkpoint(model, tmp_path / "out.bin", format="ggml", precision=precision)
        assert os.listdir(tmp_path) == []

    refused(model(), "q4_K", "can be stored in float16, float32, q8_0", OptionError)
    refused(model(), "bfloat16", "not in 'bfloat16'", OptionError)
    narrow = random_model(1, n_state=24, n_head=2, n_audio_layer=1, n_text_layer=1)
    refused(narrow, "q5_1", "rows of 24 numbers, and q5_1 stores 32 together; save in float16")
    other = random_model(1, n_state=32, n_audio_layer=1, n_text_layer=1, n_vocab=51870)
    refused(other, "float16", "a model with 51870 tokens and 80 mel bands cannot be written for whisper.cpp")
    for number in (1e5, math.nan, math.inf):
        broken = random_model(1, n_state=32, n_audio_layer=1, n_text_layer=1)
        with torch.no_grad():
            broken.decoder.blocks[0].mlp[2].weight[3, 4] = number
        for precision in ("float16", "q8_0"):
            refused(broken, precision, f"mlp.2.weight has numbers that {precision} cannot hold; save in float32")


# ---------------------------------------------------------------------------------------------------------
# The programs themselves (scripts/peers gguf whisper.cpp)
# ---------------------------------------------------------------------------------------------------------


def python_of(peer: str) -> str:
    python = ROOT / ".venv-peers" / peer / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{peer} has no environment here; run scripts/peers {peer}")
    return str(python)
