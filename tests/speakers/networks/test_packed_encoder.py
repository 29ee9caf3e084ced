"""The voice encoder in int8 against the one in float32, where the compiled kernels of this processor have it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from whisper.speakers.networks import choice, packed_encoder, weights
from whisper.speakers.networks.packed_encoder import PackedEncoder
from whisper.speakers.networks.voice_encoder import VoiceEncoder, pieces_of

from .test_voice_encoder import noisy, vowel


@pytest.fixture(scope="module")
def plain() -> VoiceEncoder:
    return VoiceEncoder(weights.load("encoder"), torch.float32)


@pytest.fixture(scope="module")
def packed(plain: VoiceEncoder) -> PackedEncoder:
    found = packed_encoder.packed(plain)
    if found is None:
        pytest.skip("the compiled kernels of this processor have no voice encoder")
    return found


def pieces(plain: VoiceEncoder) -> list[np.ndarray]:
    """Pieces of different lengths of three voices."""
    made: list[np.ndarray] = []
    for i, (pitch, formant, n) in enumerate([(90, 500, 200), (140, 700, 60), (250, 900, 134)]):
        made += pieces_of(plain.mel(noisy(vowel(pitch, formant), i))[:n])
    return made


def test_the_vectors_are_nearly_those_of_float32(plain: VoiceEncoder, packed: PackedEncoder) -> None:
    some = pieces(plain)
    expected, found = plain.embed(some), packed.embed(some)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert (expected * found).sum(1).min() > 0.9


def test_a_vector_depends_on_its_piece_alone(plain: VoiceEncoder, packed: PackedEncoder) -> None:
    some = pieces(plain)
    together = packed.embed(some)
    for piece, vector in zip(reversed(some), together[::-1], strict=True):
        assert packed.embed([piece])[0] == pytest.approx(vector, abs=1e-6)  # the last layer is PyTorch's


def test_the_number_of_threads_changes_nothing(
    plain: VoiceEncoder, packed: PackedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for n in (1, 2, 5):
        monkeypatch.setattr(packed_encoder, "get_num_threads", lambda n=n: n)
        found.append(packed.embed(pieces(plain)))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_without_kernels_pytorch_computes(plain: VoiceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_encoder.kernels, "load", lambda: None)
    assert packed_encoder.packed(plain) is None
    choice.voices.cache_clear()
    try:
        assert isinstance(choice.voices().embed.__self__, VoiceEncoder)  # type: ignore[attr-defined]
    finally:
        choice.voices.cache_clear()
