"""The voice encoder of this process: in int8 where the compiled kernels have it, else in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from . import weights
from .packed_encoder import packed
from .voice_encoder import VoiceEncoder

if TYPE_CHECKING:
    from .voice_encoder import Floats


class Network(NamedTuple):
    """The network of a process: its spectrum, and its vectors, in int8 where the compiled kernels have them."""

    mel: Callable[[Floats], Floats]
    embed: Callable[[Sequence[Floats]], Floats]


@lru_cache(maxsize=1)
def network() -> Network:
    """Return the network of this process; the first call reads its weights."""
    plain = VoiceEncoder(weights.load("encoder"), weights.quick_dtype())
    quick = packed(plain)
    return Network(plain.mel, (quick or plain).embed)
