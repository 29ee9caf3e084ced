"""What is written for whisper.cpp: read back, laid out as its own tools lay it out, and read by itself."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from whisper.audio import load_audio
from whisper.checkpoints.formats.ggml import writer
from whisper.checkpoints.formats.ggml.blocks import BLOCK_FORMATS
from whisper.checkpoints.load import load_model, save_checkpoint
from whisper.device.hardware import processor
from whisper.errors import CheckpointError, OptionError
from whisper.model import Whisper

from ....conftest import ROOT
from ....models import random_model
from .test_blocks import as_tensor, some_blocks
from .test_reader import ggml_bytes, loaded, model

TOOLS = {"float16": (1, 1), "q4_0": (2, 2002), "q4_1": (3, 2003), "q5_0": (6, 2008),
         "q5_1": (7, 2009), "q8_0": (8, 2007)}  # fmt: skip  # the types of matrices and of the file


@pytest.mark.parametrize("precision", writer.PRECISIONS)
def test_it_is_what_whisper_cpp_writes(tmp_path: Path, precision: str) -> None:
    save_checkpoint(model(), tmp_path / "out.bin", format="ggml", precision=precision)
    matrices, file_type = TOOLS[precision]
    assert (tmp_path / "out.bin").read_bytes() == ggml_bytes(model(), matrices, file_type)


def test_float16_is_the_default_and_holds_published_numbers_exactly(tmp_path: Path) -> None:
    published = loaded(ggml_bytes(model()))
    save_checkpoint(published, tmp_path / "out.bin", format="ggml")
    again = load_model(tmp_path / "out.bin", device="cpu")
    for name, values in published.state_dict().items():
        assert torch.equal(again.state_dict()[name], values), name


def test_an_english_only_model_has_no_token_to_spare(tmp_path: Path) -> None:
    english = random_model(1, n_state=32, n_audio_layer=1, n_text_layer=1, n_vocab=51864)
    save_checkpoint(english, tmp_path / "out.bin", format="ggml")
    assert (tmp_path / "out.bin").read_bytes() == ggml_bytes(english)


def test_alignment_heads_that_are_lost_are_a_warning(tmp_path: Path) -> None:
    some = random_model(1, n_state=32, n_audio_layer=1, n_text_layer=1)
    some.set_alignment_mask(torch.tensor([[False, True]]))
    with pytest.warns(UserWarning, match="no place for the alignment heads of this model"):
        save_checkpoint(some, tmp_path / "out.bin", format="ggml")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    def refused(model: Whisper, precision: str, match: str, error: type[Exception] = CheckpointError) -> None:
        with pytest.raises(error, match=match):
            save_checkpoint(model, tmp_path / "out.bin", format="ggml", precision=precision)
        assert os.listdir(tmp_path) == []

    refused(model(), "q4_K", "can be stored in float16, q8_0, q5_1", OptionError)
    refused(model(), "float32", "not in 'float32'", OptionError)
    narrow = random_model(1, n_state=24, n_head=2, n_audio_layer=1, n_text_layer=1)
    refused(narrow, "q5_1", "rows of 24 numbers, and q5_1 stores 32 together; save in float16")
    other = random_model(1, n_state=32, n_audio_layer=1, n_text_layer=1, n_vocab=51870)
    refused(other, "float16", "a model with 51870 tokens and 80 mel bands cannot be written for whisper.cpp")
    for number in (1e5, math.nan, math.inf):
        broken = random_model(1, n_state=32, n_audio_layer=1, n_text_layer=1)
        with torch.no_grad():
            broken.decoder.blocks[0].mlp[2].weight[3, 4] = number
        for precision in ("float16", "q8_0"):
            refused(broken, precision, f"mlp.2.weight has numbers that {precision} cannot hold; save it as .pt")


# ---------------------------------------------------------------------------------------------------------
# The programs themselves (scripts/peers gguf whisper.cpp)
# ---------------------------------------------------------------------------------------------------------


def run(peer: str, code: str, folder: Path, **arguments: object) -> Any:
    """Run Python `code`, which finds `arguments` and leaves its `answer`, where `peer` is installed."""
    python = ROOT / ".venv-peers" / peer / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{peer} has no environment here; run scripts/peers {peer}")
    frame = "import json, sys\narguments = json.loads(sys.argv[1])\n{}\njson.dump(answer, open('answer.json', 'w'))"
    command = [python, "-W", "ignore", "-c", frame.format(code), json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600)
    assert not done.returncode, done.stderr[-2000:]
    return json.loads((folder / "answer.json").read_text())


@pytest.mark.peers
@pytest.mark.parametrize("kind", BLOCK_FORMATS)
def test_gguf_reads_blocks_alike(tmp_path: Path, kind: int) -> None:
    blocks = BLOCK_FORMATS[kind]
    data = some_blocks(blocks, 500)
    (tmp_path / "blocks").write_bytes(data)
    code = (
        "import numpy as np\n"
        "from gguf import quants, GGMLQuantizationType\n"
        "kind = GGMLQuantizationType(arguments['kind'])\n"
        "blocks = np.fromfile('blocks', np.uint8).reshape(-1, arguments['n_bytes'])\n"
        "quants.dequantize(blocks, kind).astype(np.float32).tofile('numbers')\n"
        "answer = kind.name"
    )
    assert run("gguf", code, tmp_path, kind=kind, n_bytes=blocks.n_bytes) == blocks.name.upper()
    assert (tmp_path / "numbers").read_bytes() == blocks.dequantise(as_tensor(data)).numpy().tobytes()


@pytest.mark.peers
def test_ggml_writes_blocks_alike(tmp_path: Path) -> None:
    """By the function of whisper.cpp's `quantize` tool, which lies in the library of its Python binding."""
    numbers = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)).half().float()
    numbers[3], numbers[4, ::7], numbers[4, 1::7] = 0, 4.25, -4.25
    (tmp_path / "numbers").write_bytes(numbers.numpy().tobytes())
    code = (
        "import ctypes, _pywhispercpp\n"
        "quantise = ctypes.CDLL(_pywhispercpp.__file__).ggml_quantize_chunk\n"
        "quantise.restype = ctypes.c_size_t\n"
        "quantise.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]\n"
        "numbers = open('numbers', 'rb').read()\n"
        "answer = {}\n"
        "for kind, n_bytes in arguments['kinds'].items():\n"
        "    blocks = ctypes.create_string_buffer(n_bytes)\n"
        "    assert quantise(int(kind), numbers, blocks, 0, 64, 512, None) == n_bytes\n"
        "    answer[kind] = blocks.raw.hex()"
    )
    ours = {str(kind): blocks.quantise(numbers) for kind, blocks in BLOCK_FORMATS.items() if blocks.pack}
    theirs = run("whisper.cpp", code, tmp_path, kinds={kind: len(data) for kind, data in ours.items()})
    assert theirs == {kind: data.numpy().tobytes().hex() for kind, data in ours.items()}


@pytest.mark.peers
@pytest.mark.parametrize("precision", ["float16", "q5_1", "q5_0", "q8_0", "q4_1"])
def test_whisper_cpp_reads_it_and_hears_the_same(tmp_path: Path, precision: str) -> None:
    if precision in ("q8_0", "q4_1") and "amx_int8" in processor():
        pytest.skip("whisper.cpp crashes on these blocks on processors with AMX (llama.cpp issue 20824)")
    samples = load_audio(str(ROOT / "examples" / "sample.flac"))
    samples.tofile(tmp_path / "samples")
    with pytest.warns(UserWarning, match="no place for the alignment heads"):
        save_checkpoint(load_model("nano", device="cpu"), tmp_path / "nano.bin", format="ggml", precision=precision)
    code = (
        "import numpy as np\n"
        "from pywhispercpp.model import Model\n"
        "model = Model('nano.bin', n_threads=1, print_progress=False, redirect_whispercpp_logs_to=None)\n"
        "segments = model.transcribe(np.fromfile('samples', np.float32), language='en', temperature_inc=0.0)\n"
        "answer = ''.join(segment.text for segment in segments)"
    )
    theirs = run("whisper.cpp", code, tmp_path)
    ours = load_model(tmp_path / "nano.bin", device="cpu").transcribe(samples, language="en", temperature=0, fp16=False)
    assert ours["text"].split() == theirs.split()
    assert ours["text"]
