"""The two networks of this process: in integers where the compiled kernels have them, else in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from . import packed_encoder, packed_segmentation, weights
from .packed_segmentation import PackedSegmentation
from .segmentation import Segmentation
from .voice_encoder import VoiceEncoder

if TYPE_CHECKING:
    from .voice_encoder import Floats


class Voices(NamedTuple):
    """What voices are like: their spectrum, and the vectors that the voice encoder makes of it."""

    mel: Callable[[Floats], Floats]
    embed: Callable[[Sequence[Floats]], Floats]


@lru_cache(maxsize=1)
def segmentation() -> Segmentation | PackedSegmentation:
    """Return the network that finds local speakers; the first call reads its weights."""
    by_name = weights.load("segmentation")
    return packed_segmentation.packed(by_name) or Segmentation(by_name, weights.quick_dtype())


@lru_cache(maxsize=1)
def voices() -> Voices:
    """Return the network that tells what voices are like; the first call reads its weights."""
    plain = VoiceEncoder(weights.load("encoder"), weights.quick_dtype())
    quick = packed_encoder.packed(plain)
    return Voices(plain.mel, (quick or plain).embed)
