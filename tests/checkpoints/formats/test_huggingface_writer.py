"""Folders for `transformers`: read back here, and by transformers itself where it has an environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import whisper
from whisper.checkpoints.load import load_model
from whisper.checkpoints.save import save_checkpoint
from whisper.decoding import DecodingOptions
from whisper.errors import CheckpointError, OptionError

from ...conftest import ROOT
from ...models import random_model
from .test_huggingface import DIMS, little_model, same, their_name

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def read(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("precision", DTYPES)
def test_what_is_written_is_read_back(tmp_path: Path, precision: str) -> None:
    model, dtype = little_model(), DTYPES[precision]
    heads = torch.zeros(2, 4, dtype=torch.bool)
    heads[0, 3] = heads[1, 1] = True
    model.set_alignment_mask(heads)
    save_checkpoint(model, tmp_path / "hf", format="huggingface", precision=precision)
    stored = load_file(tmp_path / "hf" / "model.safetensors")
    assert stored.keys() == {"model." + their_name(name) for name in model.state_dict()}
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    loaded = load_model(tmp_path / "hf")
    assert loaded.dims == DIMS
    assert loaded.alignment_heads.indices().T.tolist() == [[0, 3], [1, 1]]
    assert same(loaded, model.to(dtype).float())
    assert not (tmp_path / "hf" / "tokenizer.json").exists()  # 60 tokens are no vocabulary of Whisper's


@pytest.mark.parametrize(("n_vocab", "tokens"), [
    (51864, {"no_timestamps_token_id": 50362, "decoder_start_token_id": 50257, "eos_token_id": 50256}),
    (51865, {"no_timestamps_token_id": 50363, "decoder_start_token_id": 50258, "eos_token_id": 50257}),
    (51866, {"no_timestamps_token_id": 50364, "decoder_start_token_id": 50258, "eos_token_id": 50257}),
])  # fmt: skip
def test_the_tokens_are_those_of_the_published_models(tmp_path: Path, n_vocab: int, tokens: dict[str, int]) -> None:
    model = random_model(1, n_state=8, n_audio_layer=1, n_text_layer=1, n_vocab=n_vocab)
    save_checkpoint(model, tmp_path / "hf", format="huggingface", half=True)
    config, generation = (read(tmp_path / "hf", name) for name in ("config.json", "generation_config.json"))
    assert {name: generation[name] for name in tokens} == tokens
    assert generation["begin_suppress_tokens"] == [220, tokens["eos_token_id"]]
    multilingual = n_vocab != 51864
    assert generation["suppress_tokens"][:5] == ([1, 2, 7, 8, 9])
    assert generation["is_multilingual"] is multilingual
    assert ("lang_to_id" in generation) is multilingual
    if multilingual:
        last = n_vocab - 51865
        assert generation["lang_to_id"]["<|en|>"] == 50259
        assert generation["lang_to_id"]["<|su|>"] == 50357
        assert len(generation["lang_to_id"]) == 99 + last
        assert generation["task_to_id"] == {"translate": 50358 + last, "transcribe": 50359 + last}
        assert generation["suppress_tokens"][-5:] == [i + last for i in (50358, 50359, 50360, 50361, 50362)]
    assert config["torch_dtype"] == "float16"
    assert read(tmp_path / "hf", "preprocessor_config.json")["feature_size"] == 80


def test_what_cannot_be_written(tmp_path: Path) -> None:
    model = little_model()
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "precious.txt").write_text("x")
    with pytest.raises(OptionError, match="is there already, and a folder is not written over"):
        save_checkpoint(model, tmp_path / "hf", format="huggingface")
    with pytest.raises(OptionError, match="stored in float32, float16, bfloat16, not in 'int8'"):
        save_checkpoint(model, tmp_path / "new", format="huggingface", precision="int8")
    model.decoder.ln.weight.data[0] = 1e6
    with pytest.raises(CheckpointError, match=r"decoder.ln.weight has numbers that float16 cannot hold"):
        save_checkpoint(model, tmp_path / "new", format="huggingface", precision="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


# ---------------------------------------------------------------------------------------------------------
# Beside transformers
# ---------------------------------------------------------------------------------------------------------

THEIRS = """
import json, sys
import numpy as np, torch
from transformers import AutoProcessor, WhisperForConditionalGeneration
folder = sys.argv[1]
model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
processor = AutoProcessor.from_pretrained(folder)
sound = np.load(folder + "/sound.npy")
mel = processor(sound, sampling_rate=16000, return_tensors="pt").input_features
tokens = torch.tensor([[50258, 50259, 50359, 50363, 291, 393]])
with torch.no_grad():
    np.save(folder + "/logits.npy", model(input_features=mel, decoder_input_ids=tokens).logits.numpy())
    ids = model.generate(mel, language="en", task="transcribe", max_new_tokens=40)[0].tolist()
text = processor.decode(ids, skip_special_tokens=True)
there = "You can't, won't and don't: naive cafe 3.5%!"
print(json.dumps({"ids": ids, "text": text, "encoded": processor.tokenizer(there, add_special_tokens=False).input_ids}))
"""


@pytest.mark.peers
@pytest.mark.parametrize("precision", DTYPES)
def test_transformers_reads_it(tmp_path: Path, precision: str) -> None:
    python = ROOT / ".venv-peers" / "transformers" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"transformers has no environment here ({python}); run scripts/peers transformers")
    folder = tmp_path / "hf"
    save_checkpoint(load_model("nano"), folder, format="huggingface", precision=precision)
    model = load_model(folder, device="cpu")
    sound = whisper.load_audio(str(ROOT / "examples" / "sample.flac"))[: 16000 * 8]
    np.save(folder / "sound.npy", sound)
    done = subprocess.run([str(python), "-c", THEIRS, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(sound), n_mels=model.dims.n_mels)
    with torch.no_grad():
        logits = model(mel[None], torch.tensor([[50258, 50259, 50359, 50363, 291, 393]]))
    expected = torch.from_numpy(np.load(folder / "logits.npy"))
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-3)  # logits of up to 40; their mel differs a little
    options = DecodingOptions(language="en", without_timestamps=True, fp16=False, sample_len=40)
    ours = whisper.decode(model, mel, options)
    end = len(ours.tokens)
    assert theirs["ids"][:end] == ours.tokens
    assert theirs["text"].strip() == ours.text
    assert theirs["encoded"] == whisper.tokenizer.get_tokenizer(True).encode(
        "You can't, won't and don't: naive cafe 3.5%!"
    )
