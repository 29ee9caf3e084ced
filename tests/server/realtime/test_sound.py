"""The bytes of a client to samples at 16 kHz."""

import base64
from typing import Any

import numpy as np
import pytest

from whisper.media.arriving import Resampler
from whisper.server.errors import RequestError
from whisper.server.realtime.sound import PIECE, Format, decoded, from_base64

from ..serving import spoken


def test_pieces_are_as_one() -> None:
    data = np.tile(spoken(), 3).tobytes()
    assert len(data) > 5 * PIECE
    whole = Resampler(24000, 16000)
    expected = np.concatenate([whole.push(np.frombuffer(data, np.int16)), whole.finish()])
    decoder, found = Format().decoder(), []
    for start in range(0, len(data), 100_003):  # also within a sample
        found += decoded(decoder, data[start : start + 100_003])
    assert max(map(len, found)) <= PIECE
    assert np.array_equal(np.concatenate([*found, decoder.finish()]), expected)


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_the_codecs_of_telephones(kind: str) -> None:
    decoder = Format(kind, 8000).decoder()
    samples = np.concatenate([*decoded(decoder, bytes(range(256)) * 10), decoder.finish()])
    assert len(samples) == pytest.approx(2 * 2560, abs=32)
    assert np.abs(samples).max() > 20000


def test_base64() -> None:
    assert from_base64(base64.b64encode(b"sound").decode()) == b"sound"
    assert from_base64("") == b""
    wrong: list[Any] = [None, 3, [], "a", "a b=", "ä", "YQ=\n=", "\ud800"]
    for text in wrong:
        with pytest.raises(RequestError) as error:
            from_base64(text)
        assert error.value.param == "audio"
