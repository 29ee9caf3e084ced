"""A broken part in the middle is skipped and told, and what follows is read."""

from __future__ import annotations

import io
import random
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from whisper.audio import load_audio
from whisper.media import containers
from whisper.media.unread_data import resumption

from .test_audio import RATE, OneWay, encode, floats, likeness, melody, wav

SECONDS = 12.0


def fragmented(samples: np.ndarray, codec: str = "aac", seconds: float = 1.0) -> bytes:
    """An MP4 in fragments, as browsers and DASH have it."""
    source, out = io.BytesIO(encode(samples, "ipod", codec)), io.BytesIO()
    how = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": str(round(seconds * 1e6))}
    with av.open(source) as given, av.open(out, "w", format="mp4", options=how) as made:
        stream = made.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(given.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    return out.getvalue()


def heard(contents: Any, **options: Any) -> tuple[np.ndarray, str]:
    """The sound, and what was told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load_audio(contents, **options)
    assert len(caught) <= 1
    return loaded, str(caught[0].message) if caught else ""


def damaged(contents: bytes, kind: str, at: float = 0.5, size: int = 600) -> bytes:
    place = round(len(contents) * at)
    noise = random.Random(f"{kind} {at}").randbytes(size)
    if kind == "cut out":
        return contents[:place] + contents[place + size :]
    return contents[:place] + (noise if kind == "noise" else bytes(size)) + contents[place + size :]


FORMATS = [("mp3", "libmp3lame"), ("flac", "flac"), ("ogg", "libopus"), ("ogg", "flac"), ("ipod", "aac"),
           ("fragments", "aac"), ("matroska", "flac"), ("matroska", "aac"), ("webm", "libopus"), ("mpegts", "aac"),
           ("mpegts", "mp2"), ("adts", "aac"), ("wv", "wavpack")]  # fmt: skip


def made(format: str, codec: str) -> bytes:
    if format == "fragments":
        return fragmented(melody(SECONDS), codec)
    rate = 48000 if codec == "libopus" else RATE
    return encode(melody(SECONDS, rate), format, codec, rate)


@pytest.mark.parametrize("kind", ["noise", "zeros", "cut out"])
@pytest.mark.parametrize(("format", "codec"), FORMATS)
def test_what_follows_damage_is_read(format: str, codec: str, kind: str) -> None:
    contents = made(format, codec)
    if kind == "cut out" and format == "ipod":
        return  # its index says where every packet is: all behind is in the wrong place
    clean, message = heard(contents)
    assert not message
    for at in (0.3, 0.5):
        loaded, message = heard(damaged(contents, kind, at))
        lost = (len(clean) - len(loaded)) / RATE
        assert lost < 5.1, "at most a cluster of Matroska, which has 5 s"
        late = clean[-3 * RATE // 2 : -RATE // 2]  # the very end is cut by the number of samples
        assert np.correlate(loaded[-3 * RATE :], late, "valid").max() > 0.98 * float(late @ late)
        assert message or lost < 0.01 or (kind == "cut out" and format in ("mp3", "adts")), "no stamp, no trace"
        kept, _ = heard(damaged(contents, kind, at), container_time=True)
        if format not in ("mp3", "adts"):  # which have no time stamps
            assert len(kept) == pytest.approx(len(clean), abs=0.05 * RATE)
            assert likeness(kept[-RATE:], clean[-RATE:]) > 0.99


def test_seconds_are_estimated_where_no_time_stamps_count_them() -> None:
    for format, codec in (("mp3", "libmp3lame"), ("adts", "aac")):
        contents = made(format, codec)
        for size in (2000, 8000):
            assert heard(contents)[1] == ""
            loaded, message = heard(damaged(contents, "zeros", size=size))
            lost = SECONDS - len(loaded) / RATE
            told = float(message.split("left out (about ")[1].split(" s,")[0])
            assert "broken packets were left out" in message
            assert told == pytest.approx(lost, abs=0.35)


@pytest.mark.parametrize("way", ["bytes", "path", "file", "pipe"])
def test_fragments_behind_a_broken_head_are_read(way: str, tmp_path: Path) -> None:
    x = melody(SECONDS)
    contents = fragmented(x, "alac")
    heads = [i for i in range(len(contents)) if contents.startswith(b"moof", i)]
    broken = bytearray(contents)
    for i in (heads[3], heads[4], heads[8]):
        broken[i - 4 : i + 40] = bytes(44)
    (tmp_path / "a.mp4").write_bytes(broken)
    source: Any = {"bytes": bytes(broken), "path": tmp_path / "a.mp4", "file": io.BytesIO(broken),
                   "pipe": OneWay(bytes(broken))}[way]  # fmt: skip
    clean, _ = heard(contents)
    loaded, message = heard(source)
    assert "s of its time hold no sound" in message
    assert 2 < SECONDS - len(loaded) / RATE < 5
    np.testing.assert_array_equal(loaded[-2 * RATE :], clean[-2 * RATE :])
    kept, _ = heard(bytes(broken), container_time=True)
    assert len(kept) == len(clean)
    assert (kept == clean).mean() > 0.6
    assert np.isin(kept[kept != clean], 0).all()


def test_blocks_of_wavpack_behind_a_broken_one_are_read() -> None:
    contents = encode(melody(SECONDS), "wv", "wavpack")
    blocks = [i for i in range(len(contents)) if contents.startswith(b"wvpk", i)]
    broken = bytearray(contents)
    broken[blocks[1] : blocks[1] + 300] = b"\xee" * 300
    clean, _ = heard(contents)
    loaded, message = heard(bytes(broken))
    assert "4.00 s of its time hold no sound, the first at 4.00 s" in message
    np.testing.assert_array_equal(loaded, np.delete(clean, np.s_[4 * RATE : 8 * RATE]))


def test_reading_ends_whatever_the_damage() -> None:
    """Every fragment broken: as many attempts as there are heads at most, and none without progress."""
    contents = fragmented(melody(6.0), seconds=0.3)
    first = contents.index(b"traf") + 4
    loaded, _ = heard(contents[:first] + contents[first:].replace(b"traf", b"\xff\xff\xff\xff"))
    assert 0 < len(loaded) < RATE


def test_errors_of_the_demuxer_are_bounded_and_gone_over(monkeypatch: pytest.MonkeyPatch) -> None:
    x = melody(4.0)
    contents = encode(x, "matroska", "flac")
    real = av.open

    class Failing:
        """A container whose demuxer fails some times on its way."""

        def __init__(self, container: Any, n_errors: int, error: type[Exception]) -> None:
            self.inner, self.n_left, self.error = container, n_errors, error
            self.packets: Any = None

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            self.inner.close()

        def demux(self, stream: Any) -> Any:
            self.packets = self.packets or enumerate(self.inner.demux(stream))
            for i, packet in self.packets:
                yield packet
                if i >= 10 and self.n_left > 0:
                    self.n_left -= 1
                    raise self.error(1, "it is broken")

    for n_errors, error, whole in ((3, av.InvalidDataError, True), (50, av.InvalidDataError, True),
                                   (1, av.error.TimeoutError, False)):  # fmt: skip
        monkeypatch.setattr(av, "open", lambda *a, n=n_errors, e=error, **o: Failing(real(*a, **o), n, e))
        loaded, message = heard(contents)
        assert (len(loaded) == x.shape[1]) == whole
        assert ("reading stopped after" in message) != whole
    monkeypatch.setattr(containers, "_MOST_ERRORS", 5)

    def hopeless(self: Any, stream: Any) -> Any:
        raise av.InvalidDataError(1, "it is broken")
        yield

    monkeypatch.setattr(Failing, "demux", hopeless)
    monkeypatch.setattr(av, "open", lambda *a, **o: Failing(real(*a, **o), 0, ValueError))
    with pytest.raises(Exception, match="none of its sound can be decoded"):
        load_audio(contents)


def test_truncated_ends_are_told_as_before() -> None:
    x = melody(4.0)
    for format, codec in (("flac", "flac"), ("matroska", "flac"), ("mpegts", "mp2"), ("adts", "aac")):
        contents = encode(x, format, codec)
        loaded, _ = heard(contents[: len(contents) * 6 // 10])
        assert 1.0 < len(loaded) / RATE < 3.0
    np.testing.assert_array_equal(heard(wav(x)[:-16000])[0], floats(x[0, :-8000]))


def test_where_nothing_can_be_resumed() -> None:
    for contents in (wav(melody()), encode(melody(), "ipod", "aac"), b"", b"moof", b"\0\0\0\1moof" * 9):
        for format in ("wav", "mov,mp4,m4a,3gp,3g2,mj2", "wv", "flac"):
            assert resumption(io.BytesIO(contents), len(contents), format, 0) is None
