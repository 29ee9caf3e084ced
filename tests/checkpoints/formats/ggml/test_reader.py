"""whisper.cpp's files: what is read of one, and the sentence for each that cannot be."""

from __future__ import annotations

import functools
import re
import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from whisper.audio import mel_filters
from whisper.checkpoints.formats.alignment_heads import published_heads
from whisper.checkpoints.formats.ggml import reader
from whisper.checkpoints.formats.ggml.blocks import BLOCK_FORMATS
from whisper.checkpoints.formats.recognize import read as read_checkpoint
from whisper.checkpoints.lazy_tensors import KeptFile, StoredTensors
from whisper.checkpoints.load import load_model
from whisper.checkpoints.weights import build
from whisper.errors import CheckpointError
from whisper.model import Whisper
from whisper.tokenizer import get_encoding

from ....models import random_model

F32, F16, BF16 = 0, 1, 30
BYTES = {F32: torch.float32, F16: torch.float16, BF16: torch.bfloat16}
TYPE_OF = {blocks.name: number for number, blocks in BLOCK_FORMATS.items()}


@functools.cache
def model() -> Whisper:
    return random_model(3, n_audio_layer=1, n_text_layer=1)


@functools.cache
def vocabulary(n_vocab: int) -> list[bytes]:
    ranks = get_encoding("multilingual" if n_vocab >= 51865 else "gpt2")._mergeable_ranks
    return sorted(ranks, key=ranks.__getitem__)


def header(model: Whisper, file_type: int = 1, **changed: int) -> bytes:
    d = {**vars(model.dims), **changed}
    names = (
        "n_vocab n_audio_ctx n_audio_state n_audio_head n_audio_layer n_text_ctx n_text_state n_text_head n_text_layer "
        "n_mels"
    )
    return b"lmgg" + struct.pack("<11i", *(d[name] for name in names.split()), file_type)


def filters(model: Whisper, change: float = 0) -> bytes:
    bands = mel_filters("cpu", model.dims.n_mels)
    bands = bands + change if change else bands  # which has zeros of both signs
    return struct.pack("<2i", *bands.shape) + bands.numpy().tobytes()


def words(tokens: list[bytes]) -> bytes:
    return struct.pack("<i", len(tokens)) + b"".join(struct.pack("<i", len(t)) + t for t in tokens)


def tensor(name: str, values: Tensor, kind: int) -> bytes:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        values = values[:, None]
    head = struct.pack(f"<3i{values.ndim}i", values.ndim, len(name.encode()), kind, *values.shape[::-1])
    if kind in BYTES:
        data = values.to(BYTES[kind]).contiguous().view(torch.uint8).numpy().tobytes()
    else:
        data = BLOCK_FORMATS[kind].quantise(values.contiguous()).numpy().tobytes()
    return head + name.encode() + data


def kind_of(name: str, values: Tensor, matrices: int) -> int:
    if values.ndim < 2 or name.endswith("positional_embedding"):
        return F32
    return matrices if values.ndim == 2 or matrices == F32 else F16


def tensors(state: Mapping[str, Tensor], matrices: int = F16) -> bytes:
    return b"".join(tensor(name, values, kind_of(name, values, matrices)) for name, values in state.items())


@functools.lru_cache(maxsize=2)
def ggml_bytes(model: Whisper, matrices: int = F16, file_type: int = 1, **changed: int) -> bytes:
    head = header(model, file_type, **changed) + filters(model) + words(vocabulary(model.dims.n_vocab))
    return head + tensors(model.state_dict(), matrices)


def loaded(content: bytes, path: str = "ggml-little.bin") -> Whisper:
    return build(reader.read(KeptFile(path, content)))


@functools.cache
def beginning() -> bytes:
    """All that comes before the tensors."""
    return header(model()) + filters(model()) + words(vocabulary(51865))


def refused(content: bytes, match: str, path: str = "ggml-little.bin") -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        loaded(content, path)
    assert str(caught.value).startswith((path, "the dimensions in " + path)) or path in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------
# What is read
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [F32, F16, BF16])
def test_plain_numbers_come_back(kind: int) -> None:
    read = loaded(ggml_bytes(model(), kind)).state_dict()
    assert read.keys() == model().state_dict().keys()
    for name, values in model().state_dict().items():
        stored = values.to(BYTES[kind_of(name, values, kind)]).float()
        assert torch.equal(read[name], stored), name


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_blocks_come_back_as_float32(name: str) -> None:
    kind = TYPE_OF[name]
    weights = reader.read(KeptFile("m.bin", ggml_bytes(model(), kind, file_type=2007)))
    assert weights.quantised == name
    read = build(weights)
    assert read.quantised == name
    embedding = model().decoder.token_embedding.weight
    blocks = BLOCK_FORMATS[kind]
    expected = blocks.dequantise(blocks.quantise(embedding.detach())).view_as(embedding)
    assert torch.equal(read.decoder.token_embedding.weight, expected)
    assert torch.equal(read.decoder.positional_embedding, model().decoder.positional_embedding)
    assert torch.equal(read.encoder.conv1.weight, model().encoder.conv1.weight.half().float())


@pytest.mark.parametrize("name", ["q2_K", "q3_K", "q4_K", "q5_K", "q6_K"])
def test_k_quants_are_read_where_rows_are_wide_enough(name: str) -> None:
    blocks, label = BLOCK_FORMATS[TYPE_OF[name]], "decoder.blocks.0.mlp.2.weight"
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 100, (64 * blocks.n_bytes,), dtype=torch.uint8, generator=generator)
    head = struct.pack("<5i", 2, len(label), TYPE_OF[name], 256, 64)
    weights = reader.read(KeptFile("m.bin", beginning() + head + label.encode() + data.numpy().tobytes()))
    assert weights.quantised == name
    assert torch.equal(weights.tensors[label], blocks.dequantise(data).view(64, 256))


def test_tensors_are_made_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper.checkpoints.lazy_tensors.SMALL", 0)
    path = tmp_path / "ggml.bin"
    path.write_bytes(ggml_bytes(model(), TYPE_OF["q8_0"], file_type=2007))
    weights = read_checkpoint(str(path))
    path.write_bytes(b"gone")
    assert isinstance(weights.tensors, StoredTensors)
    assert weights.tensors.views["decoder.token_embedding.weight"].is_meta
    first, again = (weights.tensors["decoder.ln.weight"] for _ in range(2))
    assert torch.equal(first, model().decoder.ln.weight)
    assert first.data_ptr() != again.data_ptr()


def test_it_transcribes_like_the_model_it_was_made_from(tmp_path: Path) -> None:
    (tmp_path / "any.name").write_bytes(ggml_bytes(model(), F32, file_type=0))
    sound = torch.randn(48000, generator=torch.Generator().manual_seed(0)) * 0.1
    ours, theirs = (
        m.transcribe(sound, language="en", temperature=0, fp16=False, sample_len=30)
        for m in (load_model(tmp_path / "any.name", device="cpu"), model())
    )
    assert ours == theirs
    assert ours["text"]


def test_the_shape_decides_the_length_of_texts() -> None:
    """The header of a Hugging Face model that was converted has max_length there, perhaps 225."""
    assert loaded(ggml_bytes(model(), n_text_ctx=225)).dims.n_text_ctx == 448


@pytest.mark.parametrize("n_vocab", [51864, 51865, 51866])
def test_every_vocabulary(n_vocab: int) -> None:
    some = random_model(
        1, n_state=32, n_audio_layer=1, n_text_layer=1, n_vocab=n_vocab, n_mels=80 + 48 * (n_vocab == 51866)
    )
    read = loaded(ggml_bytes(some))
    assert (read.dims, read.is_multilingual) == (some.dims, n_vocab > 51864)


def test_special_tokens_behind_the_others_are_passed_over() -> None:
    text = vocabulary(51865)
    state = tensors(model().state_dict())
    for tokens in (text[:-1], [*text, b"<|endoftext|>"], [*text, *[b"x" * 50] * 1608]):
        read = loaded(header(model()) + filters(model()) + words(tokens) + state)
        assert torch.equal(read.decoder.ln.weight, model().decoder.ln.weight)


def test_alignment_heads_are_those_of_the_published_model_of_its_size() -> None:
    base = random_model(1, n_state=64, n_head=8, n_audio_layer=6, n_text_layer=6)
    read = loaded(ggml_bytes(base))
    expected = published_heads(base.dims, "")
    assert expected is not None
    assert torch.equal(read.alignment_heads.to_dense(), expected)


# ---------------------------------------------------------------------------------------------------------
# What is refused, each in one sentence
# ---------------------------------------------------------------------------------------------------------


def test_a_file_for_tests_is_named() -> None:
    refused(beginning(), "vocabulary and no tensors: it is one of whisper.cpp's for-tests files")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"n_vocab": 51870}, r"51870 tokens, and Whisper's vocabularies have 51864, 51865, 51866"),
        ({"n_audio_head": 3}, "n_audio_state = 64 is no multiple of n_audio_head = 3"),
        ({"n_text_layer": 0}, "n_text_layer = 0"),
        ({"n_audio_ctx": -1500}, "n_audio_ctx = -1500"),
        ({"n_mels": 128}, r"mel filters of shape \(80, 201\)"),
        ({"n_mels": 2**31 - 1}, "n_mels = 2147483647"),
        ({"n_text_layer": 2**31 - 1}, "n_text_layer = 2147483647"),
        ({"n_text_layer": 2}, r"24 of 74 tensors are missing \(decoder.blocks.1.attn.query.weight"),
        ({"n_audio_state": 128}, r"has shape \(64,"),
        ({"n_text_state": 2**30}, "n_text_state = 1073741824"),
        ({"file_type": 1002}, "quantised in version 1 of ggml's block formats"),
        ({"file_type": 7}, "quantised in version 0 of ggml's block formats"),
    ],
)  # fmt: skip
def test_forged_headers(changed: dict[str, int], match: str) -> None:
    refused(ggml_bytes(model(), **{"file_type": 1, **changed}), match)


def test_other_filters_and_vocabularies() -> None:
    rest = tensors(model().state_dict())
    text = vocabulary(51865)
    refused(header(model()) + filters(model(), 0.001) + words(text) + rest, "made for other mel filters")
    refused(header(model()) + filters(model(), float("nan")) + words(text) + rest, "made for other mel filters")
    loaded(header(model()) + filters(model(), 1e-7) + words(text) + rest)
    swapped = [text[1], text[0], *text[2:]]
    refused(header(model()) + filters(model()) + words(swapped) + rest, "another vocabulary than Whisper's")
    refused(header(model()) + filters(model()) + words(text[:4000]) + rest, "vocabulary of 4000 tokens")
    refused(header(model()) + filters(model()) + words(text)[4:] + rest, "vocabulary of 1 tokens")
    english = random_model(1, n_audio_layer=1, n_text_layer=1, n_vocab=51864)
    refused(header(english) + filters(english) + words(text) + tensors(english.state_dict()), "another vocabulary")


NAME = "decoder.ln.weight"


def with_head(n_dims: int = 1, length: int = len(NAME), kind: int = F32, sizes: tuple[int, ...] = (64,)) -> bytes:
    """A file whose one tensor has such a head."""
    head = struct.pack(f"<3i{len(sizes)}I", n_dims, length, kind, *sizes)
    return beginning() + head + NAME.encode() + bytes(4 * 64)


@pytest.mark.parametrize(
    ("head", "match"),
    [
        ({"n_dims": 0, "sizes": ()}, "is damaged before byte"),
        ({"n_dims": 5, "sizes": (64, 1, 1, 1, 1)}, "is damaged before byte"),
        ({"n_dims": -1}, "is damaged before byte"),
        ({"length": 0}, "is damaged before byte"),
        ({"length": -1}, "is damaged before byte"),
        ({"length": 2**31 - 1}, "is damaged before byte"),
        ({"length": 200}, "is damaged before byte"),
        ({"sizes": (0,)}, "is damaged before byte"),
        ({"n_dims": 4, "sizes": (2**32 - 1,) * 4}, "is truncated: decoder.ln.weight needs"),
        ({"sizes": (65,)}, "is truncated: decoder.ln.weight needs 260 bytes at byte"),
        ({"kind": 15}, "in the type 15 of ggml, which is none of f32, f16, bf16, q4_0, "),
        ({"kind": -1}, "in the type -1 of ggml"),
        ({"kind": 8, "sizes": (50,)}, "or does not fit the shape"),
        ({"kind": 12, "sizes": (64,)}, "or does not fit the shape"),
    ],
)  # fmt: skip
def test_forged_heads_of_tensors_take_no_memory(head: dict[str, object], match: str) -> None:
    content = with_head(**head)  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        refused(content, match)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def test_tensors_twice_and_tensors_of_another_model() -> None:
    one = tensor(NAME, torch.ones(64), F32)
    refused(beginning() + one + one, "holds decoder.ln.weight twice")
    more = ggml_bytes(model()) + tensor("vad.weight", torch.ones(64), F32)
    refused(more, r"holds 1 tensors that a Whisper of its dimensions does not have \(vad.weight\)")
    for name in ("two\nlines", "caf\u00e9", "\x00"):
        refused(ggml_bytes(model()) + tensor(name, torch.ones(64), F32), "is damaged before byte")


def test_files_that_are_cut_off() -> None:
    content = ggml_bytes(model())
    first = len(beginning())
    cuts = [*range(4, 70), 70 + 80 * 201 * 4, *range(first - 20, first), *range(first + 1, first + 60, 3)]
    cuts += range(first + 60, len(content) - 1, len(content) // 20)
    for cut in (*cuts, len(content) - 1):
        refused(content[:cut], "is truncated|for-tests|incomplete")
    for cut in range(4):
        with pytest.raises(CheckpointError):
            loaded(content[:cut])
    for name in ("encoder.conv1.weight", "decoder.ln.weight"):  # cut between two tensors
        refused(content[: content.index(name.encode()) - 12 - 4 * (3 if "conv" in name else 1)], "missing|announces")


def test_errors_are_one_sentence() -> None:
    with pytest.raises(CheckpointError) as caught:
        loaded(beginning())
    assert re.fullmatch(r"ggml-little\.bin [^.\n]*(\.[a-z][^.\n]*)*; [^\n]+", str(caught.value))
