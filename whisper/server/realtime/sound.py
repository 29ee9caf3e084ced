"""The sound of a client: bytes in its format, as they come, to samples at 16 kHz."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...media.arriving import ALAW, PCM, ULAW, Decoder
from ...spans import SAMPLE_RATE
from ..errors import invalid

PIECE = 1 << 16  # bytes that are decoded in one go: milliseconds, in which the event loop does nothing else
LOWEST_RATE, HIGHEST_RATE = 8000, 48000
TELEPHONE_RATE = 8000
_ENCODINGS = {"audio/pcm": PCM, "audio/pcmu": ULAW, "audio/pcma": ALAW}


@dataclass(frozen=True)
class Format:
    """How the bytes of a client are to be read: one channel, 16 bits in little-endian order or G.711."""

    type: str = "audio/pcm"
    rate: int = 24000

    @property
    def described(self) -> dict[str, Any]:
        """Return it as OpenAI writes it."""
        return {"type": self.type, "rate": self.rate} if self.type == "audio/pcm" else {"type": self.type}

    def decoder(self) -> Decoder:
        """Return a decoder to 16 kHz."""
        return Decoder(_ENCODINGS[self.type], self.rate, SAMPLE_RATE)


def read_format(given: Any, param: str, rate: int) -> Format:
    """Return the format that a client asks for.

    Parameters
    ----------
    given
        OpenAI's object, with a `type` and perhaps a `rate`.
    param
        Its name, for errors.
    rate
        The rate of PCM where none is given.

    Raises
    ------
    RequestError
        There is no such format.
    """
    if not isinstance(given, dict) or given.get("type") not in list(_ENCODINGS):
        raise invalid(f"{param} must be an object whose type is one of {', '.join(_ENCODINGS)}", param)
    unknown = sorted(set(given) - {"type", "rate"})
    if unknown:
        raise invalid(f"{param} has no field {unknown[0]!r}", f"{param}.{unknown[0]}", "unknown_parameter")
    kind, asked = given["type"], given.get("rate")
    if kind != "audio/pcm":
        if asked not in (None, TELEPHONE_RATE):
            raise invalid(f"{kind} has {TELEPHONE_RATE} samples a second", f"{param}.rate")
        return Format(kind, TELEPHONE_RATE)
    if asked is None:
        return Format(kind, rate)
    if type(asked) is not int or not LOWEST_RATE <= asked <= HIGHEST_RATE:
        raise invalid(f"{param}.rate must be a whole number from {LOWEST_RATE} to {HIGHEST_RATE}", f"{param}.rate")
    return Format(kind, asked)


def from_base64(text: Any) -> bytes:
    """Return the bytes of an event's field ``audio``.

    Raises
    ------
    RequestError
        It is not base64.
    """
    if not isinstance(text, str):
        raise invalid("audio must be text: the bytes in base64", "audio")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"audio is not base64: {error}", "audio") from None


def decoded(decoder: Decoder, data: bytes) -> Iterator[np.ndarray[Any, np.dtype[np.int16]]]:
    """Give the samples of some bytes, piece by piece."""
    for start in range(0, len(data), PIECE):
        yield decoder.push(data[start : start + PIECE])
