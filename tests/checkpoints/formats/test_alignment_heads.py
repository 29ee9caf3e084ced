"""Alignment heads by dimensions: every published model gets its own."""

import warnings

import pytest

from whisper.checkpoints.formats.alignment_heads import published_heads
from whisper.checkpoints.published import _ALIGNMENT_HEADS
from whisper.checkpoints.weights import parse_alignment_heads
from whisper.model import ModelDimensions

SIZES = {  # width, heads, encoder layers, decoder layers; from the paper's table 1 and the model cards
    "tiny": (384, 6, 4, 4),
    "base": (512, 8, 6, 6),
    "small": (768, 12, 12, 12),
    "medium": (1024, 16, 24, 24),
    "large": (1280, 20, 32, 32),
    "turbo": (1280, 20, 32, 4),
    "large-v3-turbo": (1280, 20, 32, 4),
}


def dimensions(name):
    width, heads, audio, text = SIZES[name] if name in SIZES else SIZES[name.split(".")[0].split("-")[0]]
    newest = name in ("large", "large-v3", "turbo", "large-v3-turbo")
    vocabulary = 51864 if name.endswith(".en") else 51866 if newest else 51865
    mels = 128 if newest else 80
    return ModelDimensions(mels, 1500, width, heads, audio, vocabulary, 448, width, heads, text)


@pytest.mark.parametrize("name", _ALIGNMENT_HEADS)
def test_every_published_model_gets_its_own_heads(name):
    dims = dimensions(name)
    mask = published_heads(dims, f"/models/faster-whisper-{name}/model.bin")
    assert mask.equal(parse_alignment_heads(_ALIGNMENT_HEADS[name], dims, name))


def test_a_large_model_of_unknown_version_gets_none_and_a_warning():
    with pytest.warns(UserWarning, match="large-v1 or large-v2"):
        assert published_heads(dimensions("large-v2"), "/models/mine/model.bin") is None


def test_the_last_version_in_a_path_counts():
    heads = published_heads(dimensions("large-v1"), "/large-v2-tests/ggml-large-v1.bin")
    assert heads.equal(published_heads(dimensions("large-v1"), "ggml-large-v1.bin"))


def test_other_dimensions_get_none():
    dims = dimensions("tiny")
    dims.n_text_layer = 2  # distilled
    with warnings.catch_warnings(action="error"):
        assert published_heads(dims, "distil") is None
