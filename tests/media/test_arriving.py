"""Sound that arrives in pieces is the same sound as in one."""

import numpy as np
import pytest

from whisper.media.arriving import Decoder
from whisper.media.reader import resample


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000])
def test_pieces_give_what_the_whole_gives(rate: int) -> None:
    random = np.random.default_rng(0)
    sound = random.integers(-20000, 20000, rate, dtype=np.int16)
    data, decoder, at, got = sound.tobytes(), Decoder("pcm", rate, 16000), 0, []
    while at < len(data):
        n = int(random.integers(1, 3000))  # also odd numbers of bytes
        got.append(decoder.push(data[at : at + n]))
        at += n
    got.append(decoder.finish())
    assert np.array_equal(np.concatenate(got), resample(sound[None], rate, 16000))


def test_the_sound_of_telephones() -> None:
    ulaw, alaw = (Decoder(name, 8000, 8000).push(bytes(range(256))) for name in ("ulaw", "alaw"))
    assert (int(ulaw[0xFF]), int(ulaw[0x00]), int(ulaw[0x80])) == (0, -32124, 32124)  # ITU-T G.711
    assert (int(alaw[0xD5]), int(alaw[0x55]), int(alaw[0xAA])) == (8, -8, 32256)
