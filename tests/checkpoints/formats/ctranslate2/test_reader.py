"""CTranslate2 folders, built here by hand after the format's description, apart from the program's own writer."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from whisper.checkpoints.formats import recognize
from whisper.checkpoints.load import load_model
from whisper.checkpoints.weights import build
from whisper.errors import CheckpointError
from whisper.model import ModelDimensions, Whisper
from whisper.runtime.pytorch.quantization import Buffers, PackedInt8

from ..test_huggingface import same

DIMS = ModelDimensions(8, 20, 16, 2, 3, 60, 12, 16, 4, 2)
TYPE_IDS = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.float16: 4, torch.bfloat16: 5}

Variables = dict[str, Tensor]


def little_model(dims: ModelDimensions = DIMS, dtype: torch.dtype = torch.float32) -> Whisper:
    """A model whose numbers fit into `dtype`, and none of whose tensors are alike."""
    generator = torch.Generator().manual_seed(0)
    model = Whisper(dims)
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for n, b in model.named_buffers() if n.endswith("embedding"))):
            tensor.copy_((torch.randn(tensor.shape, generator=generator) * 0.3).to(dtype))
    return model.eval()


def their_variables(model: Whisper) -> Variables:
    """The variables of a file, in the order of their names; the output layer is left to an alias."""
    state = model.state_dict()
    dims = model.dims
    found: Variables = {
        "encoder/num_heads": torch.tensor(dims.n_audio_head, dtype=torch.int16),
        "decoder/num_heads": torch.tensor(dims.n_text_head, dtype=torch.int16),
        "decoder/activation": torch.tensor(3, dtype=torch.int8),
        "decoder/pre_norm": torch.tensor(1, dtype=torch.int8),
        "decoder/scale_embeddings": torch.tensor(0, dtype=torch.int8),
        "decoder/alignment_layer": torch.tensor(-1, dtype=torch.int16),
        "decoder/embeddings/weight": state["decoder.token_embedding.weight"],
    }
    for side, last in (("encoder", "ln_post"), ("decoder", "ln")):
        found[f"{side}/position_encodings/encodings"] = state[f"{side}.positional_embedding"]
        found[f"{side}/layer_norm/gamma"] = state[f"{side}.{last}.weight"]
        found[f"{side}/layer_norm/beta"] = state[f"{side}.{last}.bias"]
        for i in range(dims.n_audio_layer if side == "encoder" else dims.n_text_layer):
            block, layer = f"{side}.blocks.{i}", f"{side}/layer_{i}"
            for ours, theirs in (("attn_ln", "self_attention"), ("cross_attn_ln", "attention"), ("mlp_ln", "ffn")):
                if f"{block}.{ours}.weight" in state:
                    found[f"{layer}/{theirs}/layer_norm/gamma"] = state[f"{block}.{ours}.weight"]
                    found[f"{layer}/{theirs}/layer_norm/beta"] = state[f"{block}.{ours}.bias"]
            for place, inner, parts in (
                ("self_attention/linear_0", "attn", ("query", "key", "value")),
                ("self_attention/linear_1", "attn", ("out",)),
                ("attention/linear_0", "cross_attn", ("query",)),
                ("attention/linear_1", "cross_attn", ("key", "value")),
                ("attention/linear_2", "cross_attn", ("out",)),
                ("ffn/linear_0", "mlp", ("0",)),
                ("ffn/linear_1", "mlp", ("2",)),
            ):
                names = [f"{block}.{inner}.{part}" for part in parts]
                if f"{names[0]}.weight" not in state:
                    continue
                weights = [state[f"{name}.weight"] for name in names]
                found[f"{layer}/{place}/weight"] = torch.cat(weights)
                biases = [state.get(f"{n}.bias", torch.zeros(len(w))) for n, w in zip(names, weights, strict=True)]
                found[f"{layer}/{place}/bias"] = torch.cat(biases)
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            found[f"encoder/{name}/{kind}"] = state[f"encoder.{name}.{kind}"]
    return dict(sorted(found.items()))


TIED = {"decoder/projection/weight": "decoder/embeddings/weight"}


def text(value: str) -> bytes:
    content = value.encode() + b"\0"
    return struct.pack("<H", len(content)) + content


def file_of(
    variables: Variables,
    aliases: dict[str, str] | None = None,
    *,
    version: int = 6,
    spec: str = "WhisperSpec",
    revision: int = 3,
) -> bytes:
    """A model.bin of any version since 2."""
    aliases = TIED if aliases is None else aliases
    if version < 3:  # no aliases yet: every variable is stored
        variables = {**variables, **{alias: variables[name] for alias, name in aliases.items()}}
    out = [struct.pack("<I", version), text(spec), struct.pack("<II", revision, len(variables))]
    for name, tensor in variables.items():
        content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        out += [text(name), struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)]
        size = tensor.element_size()
        out.append(
            struct.pack("<BI", TYPE_IDS[tensor.dtype], len(content))
            if version >= 4
            else struct.pack("<BI", size, len(content) // size)
        )
        out.append(content)
    if version >= 3:
        out.append(struct.pack("<I", len(aliases)))
        out += [text(alias) + text(name) for alias, name in aliases.items()]
    return b"".join(out)


def cast(variables: Variables, dtype: torch.dtype) -> Variables:
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in variables.items()}


def quantized(
    variables: Variables, *, rest: torch.dtype = torch.float32, bits: int = 8, stated: bool = True
) -> Variables:
    """Integers for all matrices, with a scale by row (8 bits) or one for all (16 bits, 1000 where not stated)."""
    found: Variables = {}
    for name, tensor in cast(variables, rest).items():
        if not name.endswith("/weight"):
            found[name] = tensor
            continue
        whole = variables[name].float()
        if bits == 8:
            scale = 127 / whole.flatten(1).abs().amax(1)
            by_row = scale.reshape(-1, *[1] * (whole.ndim - 1))
            found[name], found[name + "_scale"] = (whole * by_row).round().to(torch.int8), scale
        else:
            scale = 1024 / whole.abs().amax() if stated else torch.tensor(1000.0)
            found[name] = (whole * scale).round().to(torch.int16)
            if stated:
                found[name + "_scale"] = scale
    return dict(sorted(found.items()))


def folder(path: Path, content: bytes, **files: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "model.bin").write_bytes(content)
    for name, value in {"config": {}, **files}.items():
        if value is not None:
            (path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def read(content: bytes) -> Whisper:
    return build(recognize.read("model.bin", content))


# ---------------------------------------------------------------------------------------------------------
# Whole files
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_every_version_is_read(version: int, tmp_path: Path) -> None:
    model = little_model()
    path = folder(tmp_path / "model", file_of(their_variables(model), version=version))
    assert same(load_model(path), model)
    loaded = load_model(path / "model.bin")
    assert same(loaded, model)
    assert loaded.dims == DIMS


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept(dtype: torch.dtype) -> None:
    model = little_model(dtype=dtype)
    weights = recognize.read("model.bin", file_of(cast(their_variables(model), dtype)))
    assert {tensor.dtype for tensor in weights.tensors.values()} == {dtype}
    assert same(build(weights), model)


@pytest.mark.parametrize(
    ("version", "form"),
    [
        (3, {}),
        (3, {"bits": 16}),
        (3, {"bits": 16, "stated": False}),
        (6, {}),
        (6, {"rest": torch.float16}),
        (6, {"rest": torch.bfloat16}),
        (6, {"bits": 16}),
        (6, {"bits": 16, "stated": False}),
    ],
)
def test_integers_are_divided_by_their_scales(version: int, form: dict[str, Any]) -> None:
    model = little_model(dtype=torch.bfloat16)  # so that what is not quantised is exact in all precisions
    variables = quantized(their_variables(model), **form)
    loaded = read(file_of(variables, version=version)).state_dict()
    largest = max(float(tensor.abs().max()) for tensor in model.state_dict().values())
    half_a_step = 0.501 * (largest / 127 if "bits" not in form else max(largest / 1024, 1 / 1000))
    for name, tensor in model.state_dict().items():
        is_exact = tensor.ndim == 1 or name.endswith("positional_embedding")
        assert torch.allclose(loaded[name], tensor, rtol=0, atol=0 if is_exact else half_a_step), name
    levels = variables["decoder/layer_1/attention/linear_1/weight"].float()
    scale = variables.get("decoder/layer_1/attention/linear_1/weight_scale", torch.tensor(1000.0))
    key_and_value = levels / (scale[:, None] if scale.ndim else scale)
    assert torch.equal(loaded["decoder.blocks.1.cross_attn.key.weight"], key_and_value[:16])
    assert torch.equal(loaded["decoder.blocks.1.cross_attn.value.weight"], key_and_value[16:])


def test_equal_variables_may_be_stored_once() -> None:
    model = little_model()
    with torch.no_grad():
        for block in model.decoder.blocks:
            block.attn_ln.weight.fill_(1)
            block.mlp_ln.weight.fill_(1)
            block.mlp[0].weight.copy_(model.decoder.blocks[0].mlp[0].weight)
    variables = quantized(their_variables(model))
    first = "decoder/layer_0/attention/layer_norm/gamma"
    aliases = {
        f"decoder/layer_{i}/{part}/layer_norm/gamma": first for i in (0, 1) for part in ("self_attention", "ffn")
    }
    variables[first] = torch.ones(16)
    with torch.no_grad():
        model.decoder.blocks[0].cross_attn_ln.weight.fill_(1)
    aliases |= {"decoder/layer_1/ffn/linear_0/weight": "decoder/layer_0/ffn/linear_0/weight"}  # and its scales
    whole = file_of(variables)
    for alias in aliases:
        del variables[alias]
    del variables["decoder/layer_1/ffn/linear_0/weight_scale"]
    assert same(read(file_of(variables, {**TIED, **aliases})), read(whole))


@pytest.mark.parametrize("bits", [8, 16])
def test_an_output_layer_of_its_own_must_equal_the_embedding(bits: int) -> None:
    variables = quantized(their_variables(little_model()), bits=bits)
    output, embedding = "decoder/projection/weight", "decoder/embeddings/weight"
    for name in (embedding, f"{embedding}_scale"):
        variables[name.replace(embedding, output)] = variables[name].clone()
    read(file_of(variables, {}))
    variables[output].view(torch.uint8)[-1] ^= 1
    with pytest.raises(CheckpointError, match="output layer of its own"):
        read(file_of(variables, {}))
    variables[output] = variables[embedding]
    variables[f"{output}_scale"] = variables[f"{embedding}_scale"] * 2
    with pytest.raises(CheckpointError, match="output layer of its own"):
        read(file_of(variables, {}))


def test_integers_of_int8_stay_what_they_are_on_the_fast_path() -> None:
    variables = quantized(their_variables(little_model()))
    name = "decoder/layer_0/ffn/linear_0/weight"
    loaded = read(file_of(variables))
    linear = loaded.decoder.blocks[0].mlp[0]
    assert torch.equal(PackedInt8(linear.weight, linear.bias, Buffers()).weight, variables[name])


# ---------------------------------------------------------------------------------------------------------
# The files beside model.bin
# ---------------------------------------------------------------------------------------------------------


def test_alignment_heads_come_from_the_configuration(tmp_path: Path) -> None:
    path = folder(
        tmp_path / "m", file_of(their_variables(little_model())), config={"alignment_heads": [[0, 3], [1, 2]]}
    )
    assert load_model(path).alignment_heads.indices().T.tolist() == [[0, 3], [1, 2]]


def test_without_a_configuration_the_upper_half_aligns(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", file_of(their_variables(little_model())), config=None)
    assert load_model(path).alignment_heads.indices().T.tolist() == [[1, 0], [1, 1], [1, 2], [1, 3]]


@pytest.mark.parametrize("pair", [[2, 0], [0, 4], [-1, 0], [0.0, 1], 7, [1], "ab"])
def test_alignment_heads_of_another_model_are_left_out(pair: Any, tmp_path: Path) -> None:
    path = folder(tmp_path / "m", file_of(their_variables(little_model())), config={"alignment_heads": [[0, 3], pair]})
    with pytest.warns(UserWarning, match="another model's"):
        assert len(load_model(path).alignment_heads.indices().T) == 4


@pytest.mark.parametrize("name", ["vocabulary.json", "vocabulary.txt"])
@pytest.mark.parametrize(("n_more", "n_kept"), [(0, 51865), (3, 51865)])
def test_tokens_behind_the_vocabulary_are_cut_off(name: str, n_more: int, n_kept: int, tmp_path: Path) -> None:
    dims = ModelDimensions(8, 20, 4, 1, 1, 51865 + n_more, 12, 4, 1, 1)
    model = little_model(dims)
    tokens = [f"t{i}" for i in range(dims.n_vocab)]
    tokens[50363], tokens[50256] = "<|notimestamps|>", ""
    path = folder(tmp_path / "m", file_of(quantized(their_variables(model))))
    content = json.dumps(tokens) if name.endswith("json") else "".join(token + "\n" for token in tokens)
    (path / name).write_text(content)
    if n_more:
        with pytest.warns(UserWarning, match="3 tokens behind Whisper's 51865"):
            loaded = load_model(path)
    else:
        loaded = load_model(path)
    assert loaded.dims.n_vocab == n_kept
    rows = model.decoder.token_embedding.weight[:n_kept]
    assert torch.allclose(loaded.decoder.token_embedding.weight, rows, atol=0.02)


def test_more_tokens_than_any_whisper_need_a_vocabulary(tmp_path: Path) -> None:
    dims = ModelDimensions(8, 20, 4, 1, 1, 51870, 12, 4, 1, 1)
    path = folder(tmp_path / "m", file_of(their_variables(little_model(dims))))
    with pytest.raises(CheckpointError, match="51870 tokens, more than any Whisper"):
        load_model(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config": {"quantization_type": 1}}, "quantised by AWQ"),
        ({"config": "{"}, r"config\.json cannot be read as JSON"),
        ({"config": "[]"}, r"config\.json holds a list"),
        ({"config": "[" * 100_000}, r"config\.json cannot be read as JSON"),
        ({"vocabulary": ["a", "b"]}, "a vocabulary of 2 tokens and embeddings of 60"),
        ({"vocabulary": {"a": 0}}, r"vocabulary\.json cannot be read"),
        ({"vocabulary": [1] * 60}, r"vocabulary\.json cannot be read"),
        ({"vocabulary": "\x00"}, r"vocabulary\.json cannot be read"),
    ],
)
def test_wrong_files_beside_the_weights_are_named(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "m", file_of(their_variables(little_model())), **files)
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


# ---------------------------------------------------------------------------------------------------------
# Wrong files
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 145217532\n", "Git LFS pointer"),
        (b"PK\x03\x04" + bytes(100), "a torch file under the name"),
        (b"\x80\x02}q\x00.", "a torch file under the name"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"", "is empty"),
        (struct.pack("<II", 1, 3) + text("encoder/num_heads"), "binary version 1, older"),
        (b"\x07\x01\x00\x00" * 30, "begins with 07 01"),
    ],
)
def test_a_model_file_of_another_kind_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_model(folder(tmp_path / "m", content))


def changed(name: str, change: Any) -> Variables:
    variables = their_variables(little_model())
    variables[name] = change(variables.get(name))
    return variables


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (changed("decoder/activation", lambda _: torch.tensor(0, dtype=torch.int8)), "decoder/activation = 0"),
        (changed("decoder/pre_norm", lambda _: torch.tensor(0, dtype=torch.int8)), "decoder/pre_norm = 0"),
        (changed("decoder/scale_embeddings", lambda _: torch.tensor(8.0)), "scale_embeddings = 8"),
        (changed("encoder/num_heads", lambda _: torch.tensor(0, dtype=torch.int16)), "n_audio_head = 0"),
        (changed("encoder/num_heads", lambda _: torch.tensor(3, dtype=torch.int16)), "no multiple of n_audio_head = 3"),
        (changed("encoder/num_heads", lambda t: t.reshape(1)), "n_audio_head = None"),
        (changed("encoder/lora/weight", lambda _: torch.zeros(2, 2)), "1 variables that a Whisper does not have"),
        (changed("decoder/projection/bias", lambda _: torch.zeros(60)), "does not have .'decoder/projection/bias'"),
        (changed("encoder/layer_7/ffn/linear_0/bias", lambda _: torch.zeros(64)), "variables are missing"),
        (changed("encoder/conv1/weight", lambda t: t[0]), "encoder/conv1/weight has shape"),
        (changed("encoder/conv2/weight", lambda t: t[:-1]), "its dimensions ask for"),
        (changed("encoder/layer_0/self_attention/linear_0/bias", lambda t: t + 1), "a bias for keys"),
        (changed("encoder/layer_0/self_attention/linear_0/bias", lambda t: t[:-1]), "cannot be cut into 3"),
        (changed("encoder/layer_0/ffn/linear_0/weight", lambda t: t.to(torch.int8)), "int8 with 0 scales for 64 rows"),
        (changed("encoder/layer_0/ffn/linear_0/weight", lambda t: t.to(torch.int32)), "int32 with 0 scales"),
    ],
)
def test_what_our_network_cannot_express_is_refused(variables: Variables, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(file_of(variables))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("-inf")])
def test_scales_must_be_positive_numbers(scale: float) -> None:
    variables = quantized(their_variables(little_model()))
    variables["encoder/conv1/weight_scale"][3] = scale
    with pytest.raises(CheckpointError, match="scales that are not positive numbers"):
        read(file_of(variables))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"spec": "TransformerSpec"}, "a Whisper has WhisperSpec"),
        ({"version": 7}, "binary version 7"),
        ({"revision": 4}, "revision 4"),
        ({"aliases": {"decoder/projection/weight": "nowhere"}}, "lacks the variable 'nowhere'"),
    ],
)
def test_other_models_and_newer_versions_are_named(form: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(file_of(their_variables(little_model()), **form))


def test_every_missing_variable_is_noticed() -> None:
    variables = their_variables(little_model())
    for name in [name for name, tensor in variables.items() if tensor.ndim]:
        rest = {other: tensor for other, tensor in variables.items() if other != name}
        aliases = TIED if name != TIED["decoder/projection/weight"] else {}
        with pytest.raises(CheckpointError, match="missing"):
            read(file_of(rest, aliases))


def header_places(content: bytes) -> Iterator[int]:
    """Where the bytes of a file lie that are not the contents of arrays."""
    sizes = iter(tensor.numel() * tensor.element_size() for tensor in their_variables(little_model()).values())
    at = 4
    at += 2 + struct.unpack_from("<H", content, at)[0] + 8
    yield from range(at)
    for size in sizes:
        start = at
        at += 2 + struct.unpack_from("<H", content, at)[0]
        at += 1 + 4 * content[at] + 5
        yield from range(start, at)
        at += size
    yield from range(at, len(content))


def test_a_file_that_ends_early_is_called_truncated() -> None:
    content = file_of(their_variables(little_model()))
    places = list(header_places(content))
    random.seed(0)
    ends = {*places[:200], *random.sample(places, 300), *random.sample(range(len(content)), 100)}
    for end in ends:
        with pytest.raises(CheckpointError, match="truncated" if end > 24 else "is "):
            recognize.read("model.bin", content[:end])
    with pytest.raises(CheckpointError, match="goes on for 1 bytes"):
        recognize.read("model.bin", content + b"\0")


def test_forged_numbers_end_in_an_error_or_in_the_same_model() -> None:
    variables = quantized(their_variables(little_model()))
    content = file_of(variables)
    expected = read(content)
    places = [i for i, byte in enumerate(content[:-1]) if i < 40 or byte < 128]
    random.seed(0)
    refused = 0
    for _ in range(150):
        forged = bytearray(content)
        place = random.choice([random.choice(places), random.randrange(len(content) - 4)])
        forged[place : place + 4] = random.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", random.randbytes(4)])
        try:
            weights = recognize.read("model.bin", bytes(forged))
            assert {*weights.tensors} == {*expected.state_dict()}
        except CheckpointError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("place", "number", "message"),
    [
        (22, 0xFFFFFFFF, "announces 4294967295 variables"),
        (-4, 0xFFFFFFFF, "announces 4294967295 aliases"),
    ],
)
def test_forged_counts_are_not_believed(place: int, number: int, message: str) -> None:
    content = bytearray(file_of(their_variables(little_model()), {}))
    struct.pack_into("<I", content, place % len(content), number)
    with pytest.raises(CheckpointError, match=message):
        recognize.read("model.bin", bytes(content))


@pytest.mark.parametrize("shape", [(2**31, 2**31), (0, 5), (1,) * 255, (2**32 - 1,)])
def test_forged_shapes_are_not_believed(shape: tuple[int, ...]) -> None:
    head = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 1) + text("x")
    variable = struct.pack(f"<B{len(shape)}I", len(shape), *shape) + struct.pack("<BI", 1, 0) + bytes(8)
    with pytest.raises(CheckpointError, match=r"do not fit|has 255 axes"):
        recognize.read("model.bin", head + variable)
    sized = struct.pack("<B1I", 1, 2**32 - 1) + struct.pack("<BI", 1, 2**32 - 1) + bytes(8)
    with pytest.raises(CheckpointError, match="truncated: 'x' needs 4294967295 bytes"):
        recognize.read("model.bin", head + sized)


def test_twice_the_same_name_is_refused() -> None:
    one = text("x") + struct.pack("<BIBI", 1, 1, 1, 1) + b"\0"
    head = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 2)
    with pytest.raises(CheckpointError, match="holds 'x' twice"):
        recognize.read("model.bin", head + one + one)


@pytest.mark.parametrize("name", [b"\x02\0xy", b"\x00\0", b"\x03\0\xff\xfe\0", b"\x03\0\0x\0"])
def test_names_must_be_texts(name: bytes) -> None:
    head = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 1)
    with pytest.raises(CheckpointError, match="no text that ends in a zero"):
        recognize.read("model.bin", head + name + bytes(40))


def test_tensors_are_made_when_asked_for() -> None:
    weights = recognize.read("model.bin", file_of(quantized(their_variables(little_model()))))
    name = "encoder.blocks.0.mlp.0.weight"
    first, second = weights.tensors[name], weights.tensors[name]
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert {n: tuple(t.shape) for n, t in weights.tensors.items()} == {
        n: tuple(t.shape) for n, t in little_model().state_dict().items()
    }
