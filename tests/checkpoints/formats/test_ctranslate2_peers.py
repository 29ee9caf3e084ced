"""CTranslate2 and faster-whisper themselves: their integers, their reading of our folders, and the published model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import whisper
from whisper.checkpoints.formats import ctranslate2
from whisper.checkpoints.formats.ctranslate2_writer import PRECISIONS
from whisper.checkpoints.lazy_tensors import keep
from whisper.checkpoints.load import load_model
from whisper.checkpoints.save import save_checkpoint
from whisper.tokenizer import get_tokenizer

from ...models import random_model
from .test_ctranslate2 import TIED, little_model, their_variables
from .test_ctranslate2_writer import DIMS
from .test_huggingface import same

Peer = Callable[[str], Callable[..., Any]]

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
        written, expected = (ctranslate2._parse(keep([str(path / "model.bin")])[0])[0] for path in (ours, theirs))
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
