"""CTranslate2 folders that we write: read again by us, by CTranslate2 and faster-whisper; and the published model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import whisper
from whisper.checkpoints.formats.ctranslate2 import reader
from whisper.checkpoints.formats.ctranslate2.writer import PRECISIONS
from whisper.checkpoints.lazy_tensors import keep
from whisper.checkpoints.load import load_model
from whisper.checkpoints.save import save_checkpoint
from whisper.errors import CheckpointError, OptionError
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import get_tokenizer

from ....models import random_model
from ..test_huggingface import same
from .test_reader import TIED, little_model, their_variables

Peer = Callable[[str], Callable[..., Any]]

DIMS = ModelDimensions(8, 20, 4, 2, 1, 51865, 12, 4, 2, 2)
HALF_STEPS = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8, "int16": 2**-11}  # of the largest; int8: 1 / 254


@pytest.fixture(scope="module")
def model() -> Whisper:
    model = little_model(DIMS)
    model.set_alignment_mask(torch.tensor([[False, True], [True, False]]))
    return model


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_written_is_read(precision: str, model: Whisper, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "out", format="ctranslate2", precision=precision)
    loaded = load_model(tmp_path / "out")
    assert loaded.dims == DIMS
    assert loaded.alignment_heads.indices().T.tolist() == [[0, 1], [1, 0]]
    rest = getattr(torch, precision.removeprefix("int8_") if "float" in precision else "float32")
    largest = max(float(tensor.abs().max()) for tensor in model.state_dict().values())
    for name, tensor in model.state_dict().items():
        found = loaded.state_dict()[name]
        if tensor.ndim == 1 or name.endswith("positional_embedding"):
            assert torch.equal(found, tensor.to(rest).float()), name
        else:
            atol = HALF_STEPS.get(precision, 1 / 254) * 1.001 * largest
            assert torch.allclose(found, tensor, rtol=0, atol=atol), name
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_in_float32_nothing_is_lost(model: Whisper, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "out", format="ctranslate2")
    assert same(load_model(tmp_path / "out"), model)


def test_half_means_float16(model: Whisper, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "a", True, format="ctranslate2")
    save_checkpoint(model, tmp_path / "b", format="ctranslate2", precision="float16")
    assert (tmp_path / "a" / "model.bin").read_bytes() == (tmp_path / "b" / "model.bin").read_bytes()


def test_int8_keeps_the_other_tensors_as_they_are(model: Whisper, tmp_path: Path) -> None:
    halved = little_model(DIMS).half()
    save_checkpoint(halved, tmp_path / "a", format="ctranslate2", precision="int8")
    save_checkpoint(halved, tmp_path / "b", format="ctranslate2", precision="int8_float16")
    assert (tmp_path / "a" / "model.bin").read_bytes() == (tmp_path / "b" / "model.bin").read_bytes()


def test_integers_are_the_same_when_written_again(model: Whisper, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "a", format="ctranslate2", precision="int8")
    save_checkpoint(load_model(tmp_path / "a"), tmp_path / "b", format="ctranslate2", precision="int8")
    again, once = load_model(tmp_path / "b").state_dict(), load_model(tmp_path / "a").state_dict()
    for name, tensor in once.items():
        assert torch.allclose(again[name], tensor, rtol=1e-6, atol=0), name


def test_rows_of_zeros_stay_zeros(tmp_path: Path) -> None:
    model = little_model(DIMS)
    with torch.no_grad():
        model.decoder.token_embedding.weight[7] = 0
        model.decoder.token_embedding.weight[8] = 1e-40
        model.encoder.conv1.weight.zero_()
    for precision in ("int8", "int16"):
        save_checkpoint(model, tmp_path / precision, format="ctranslate2", precision=precision)
        loaded = load_model(tmp_path / precision)
        assert loaded.decoder.token_embedding.weight[7:9].abs().max() < 1e-3
        assert not loaded.encoder.conv1.weight.any()


def test_the_files_beside_the_weights(model: Whisper, tmp_path: Path) -> None:
    path = tmp_path / "out"
    save_checkpoint(model, path, format="ctranslate2")
    names = ["config.json", "preprocessor_config.json", "tokenizer.json", "vocabulary.json"]
    files: dict[str, Any] = {name: json.loads((path / name).read_text(encoding="utf-8")) for name in names}
    assert {file.name for file in path.iterdir()} == {"model.bin", *names}
    config = files["config.json"]
    assert config["alignment_heads"] == [[0, 1], [1, 0]]
    assert config["lang_ids"] == list(range(50259, 50358))
    assert config["suppress_ids_begin"] == [220, 50257]
    # those of openai/whisper-base on the Hugging Face hub begin and end so
    assert config["suppress_ids"][:6] == [1, 2, 7, 8, 9, 10]
    assert config["suppress_ids"][-6:] == [50258, 50358, 50359, 50360, 50361, 50362]
    assert files["preprocessor_config.json"]["feature_size"] == 8
    assert len(files["vocabulary.json"]) == 51865
    assert files["vocabulary.json"][50362:50365] == ["<|nocaptions|>", "<|notimestamps|>", "<|0.00|>"]


def test_nothing_is_written_over(model: Whisper, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(OptionError, match="is there already"):
            save_checkpoint(model, tmp_path / name, format="ctranslate2")
    save_checkpoint(model, tmp_path / "empty", format="ctranslate2")
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "file").read_text() == "mine"
    assert len(list((tmp_path / "empty").iterdir())) == 5


@pytest.mark.parametrize(("value", "message"), [(1e6, "cannot hold; save in float32"), (float("nan"), "not finite")])
def test_numbers_that_do_not_fit_leave_no_folder(value: float, message: str, tmp_path: Path) -> None:
    model = little_model(DIMS)
    with torch.no_grad():
        model.decoder.ln.bias[0] = value
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(model, tmp_path / "out", format="ctranslate2", precision="int8_float16")
    assert not list(tmp_path.iterdir())


def test_an_unusual_vocabulary_has_no_texts(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a vocabulary of 60 tokens is none of Whisper's"):
        save_checkpoint(little_model(), tmp_path / "out", format="ctranslate2")


# ---------------------------------------------------------------------------------------------------------
# Other programs
# ---------------------------------------------------------------------------------------------------------

CONVERT = """
import numpy as np
from ctranslate2.specs import WhisperSpec
from ctranslate2.specs.model_spec import index_spec
n_audio, n_text, n_head, n_vocab = arguments["numbers"]
for precision in arguments["precisions"]:
    spec = WhisperSpec(n_audio, n_head, n_text, n_head)
    for name, array in np.load(arguments["arrays"]).items():
        scope, _, attribute = name.rpartition("/")
        setattr(index_spec(spec, scope), attribute, array)
    spec.register_vocabulary([f"t{i}" for i in range(n_vocab)])
    spec.config.alignment_heads = [[0, 1], [1, 0]]
    spec.validate()
    spec.optimize(precision)
    (folder := __import__("pathlib").Path(arguments["out"], precision)).mkdir()
    spec.save(str(folder))
answer = None
"""


CONVERTED = [precision for precision in PRECISIONS if "bfloat16" not in precision]  # for which it needs torch


@pytest.mark.peers
def test_our_numbers_are_those_of_the_converter(peer: Peer, tmp_path: Path) -> None:
    model = little_model(DIMS)
    variables = {name: t.float().numpy() for name, t in their_variables(model).items() if t.ndim}
    variables["decoder/projection/weight"] = variables[TIED["decoder/projection/weight"]].copy()
    np.savez(tmp_path / "arrays.npz", **variables)
    numbers = [DIMS.n_audio_layer, DIMS.n_text_layer, DIMS.n_audio_head, DIMS.n_vocab]
    arrays = str(tmp_path / "arrays.npz")
    peer("faster-whisper")(CONVERT, tmp_path, arrays=arrays, out=str(tmp_path), precisions=CONVERTED, numbers=numbers)
    for precision in CONVERTED:
        ours, theirs = tmp_path / "ours" / precision, tmp_path / precision
        ours.parent.mkdir(exist_ok=True)
        save_checkpoint(model, ours, format="ctranslate2", precision=precision)
        written, expected = (reader._parse(keep([str(path / "model.bin")])[0])[0] for path in (ours, theirs))
        assert written.keys() <= expected.keys()
        for name, variable in expected.items():
            if variable.shape or name in written:
                assert (written[name].shape, written[name].dtype) == (variable.shape, variable.dtype), name
                assert torch.equal(written[name].read(), variable.read()), f"{name} in {precision}"
        loaded = load_model(theirs)
        assert same(loaded, load_model(ours))
        assert loaded.alignment_heads.indices().T.tolist() == [[0, 1], [1, 0]]


GENERATE = """
import numpy as np, ctranslate2, faster_whisper
model = faster_whisper.WhisperModel(arguments["folder"], device="cpu", compute_type="float32", cpu_threads=1)
features = ctranslate2.StorageView.from_array(np.load(arguments["mel"]))
found = model.model.generate(
    features, [arguments["prompt"]] * features.shape[0], beam_size=1,
    suppress_blank=False, suppress_tokens=[],
)
answer = {
    "tokens": [result.sequences_ids[0][:40] for result in found],
    "multilingual": model.model.is_multilingual,
    "bands": model.feature_extractor.mel_filters.shape[0],
    "ids": [model.hf_tokenizer.encode(text, add_special_tokens=False).ids for text in arguments["texts"]],
    "specials": [model.hf_tokenizer.token_to_id(f"<|{name}|>") for name in ("startoftranscript", "notimestamps")],
}
"""

TEXTS = [" The theatre's cat, isn't it?", " 日本語 สวัสดี żółć 🎉", "  two\n\nlines 1,000"]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("n_vocab", "n_mels", "precision"),
    [(51864, 80, "float32"), *((51865, 80, precision) for precision in PRECISIONS), (51866, 128, "float32")],
)
def test_faster_whisper_reads_in_our_folders_what_we_read(
    n_vocab: int, n_mels: int, precision: str, peer: Peer, tmp_path: Path
) -> None:
    written = random_model(3, n_vocab=n_vocab, n_mels=n_mels)
    save_checkpoint(written, tmp_path / "out", format="ctranslate2", precision=precision)
    model = load_model(tmp_path / "out")
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(4, n_mels, 3000, generator=generator) * 0.5
    np.save(tmp_path / "mel.npy", mel.numpy())
    tokenizer = get_tokenizer(n_vocab > 51864, num_languages=100 if n_vocab == 51866 else 99, language="en")
    prompt = list(tokenizer.sot_sequence_including_notimestamps)
    answer = peer("faster-whisper")(
        GENERATE, tmp_path, folder=str(tmp_path / "out"), mel=str(tmp_path / "mel.npy"), prompt=prompt,
        texts=TEXTS,
    )  # fmt: skip
    options = {"without_timestamps": True, "suppress_blank": False, "suppress_tokens": None, "sample_len": 40}
    results = whisper.decode(model, mel, language="en", fp16=False, **options)
    assert [result.tokens for result in results] == answer["tokens"]
    assert min(len(tokens) for tokens in answer["tokens"]) > 2
    assert answer["multilingual"] == (n_vocab > 51864)
    assert answer["bands"] == n_mels
    assert answer["ids"] == [tokenizer.encode(text) for text in TEXTS]
    assert answer["specials"] == [tokenizer.sot, tokenizer.no_timestamps]


@pytest.mark.slow
def test_the_real_base_is_the_same_in_every_format(real_base: list[str], tmp_path: Path) -> None:
    models = [load_model(path) for path in real_base]
    assert all(same(model, models[0]) for model in models[1:])
    save_checkpoint(models[0], tmp_path / "out", format="ctranslate2", precision="float16")
    assert same(load_model(tmp_path / "out"), models[0])
    for published in [Path(path) for path in real_base if Path(path, "model.bin").is_file()]:  # Systran's
        assert (tmp_path / "out" / "model.bin").read_bytes() == (published / "model.bin").read_bytes()
        theirs, ours = (json.loads((path / "config.json").read_text()) for path in (published, tmp_path / "out"))
        assert {**theirs, "suppress_ids_begin": sorted(theirs["suppress_ids_begin"])} == ours
