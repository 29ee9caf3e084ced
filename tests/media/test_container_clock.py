"""Times of the container: sound that begins late, gaps, overlaps, and stamps that cannot be meant."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import whisper
from whisper.audio import load_audio
from whisper.media import container_clock, containers
from whisper.media.container_clock import BACK, GAP, MOST_SILENCE, ContainerClock
from whisper.speech import features
from whisper.speech.features import Features
from whisper.transcription.channels import read_channels

from ..containers import Track, container
from ..models import random_model
from ..test_audio import RATE, OneWay, encode, floats, melody

OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0, "sample_len": 8, "fp16": False}
# whole frames of every codec at 16 kHz
FIRST, SECOND = melody(4.608, seed=1), melody(3.456, seed=2)
LATE = r"its sound begins 2\.\d\d s after the container, so all times are early by that; container_time=True"
GAPPED = (
    r"2\.39 s of its time hold no sound, the first at 4\.6\d s, and times behind are early by that; container_time="
)


def placed(*stretches: tuple[float, np.ndarray]) -> np.ndarray:
    """Sound at its times, with silence between."""
    found = np.zeros(max(round(begin * RATE) + x.shape[1] for begin, x in stretches), np.float32)
    for begin, x in stretches:
        found[round(begin * RATE) :][: x.shape[1]] = floats(x[0])
    return found


def late(codec: str = "flac", format: str = "matroska") -> bytes:
    return container(format, Track([(2.5, FIRST)], codec), picture=8.0)


def gapped(codec: str = "flac", format: str = "matroska", rate: int = RATE) -> bytes:
    if rate != RATE:
        return container(format, Track([(0, melody(4.608, rate)), (7.0, melody(3.456, rate))], codec, rate=rate))
    return container(format, Track([(0, FIRST), (7.0, SECOND)], codec))


def told(source: Any, match: str, **options: Any) -> np.ndarray:
    with pytest.warns(RuntimeWarning, match=match) as caught:
        loaded = load_audio(source, **options)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    return loaded


# ---------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------


def test_a_late_beginning_is_told_or_kept() -> None:
    np.testing.assert_array_equal(told(late(), LATE), floats(FIRST[0]))
    np.testing.assert_array_equal(load_audio(late(), container_time=True), placed((2.5, FIRST)))


def test_a_gap_is_told_or_kept() -> None:
    np.testing.assert_array_equal(told(gapped(), GAPPED), np.append(floats(FIRST[0]), floats(SECOND[0])))
    kept = told(gapped(), r"2\.39 s of its time hold no sound.*; silence stands there$", container_time=True)
    np.testing.assert_array_equal(kept, placed((0, FIRST), (7.0, SECOND)))


def test_both_in_a_film_that_does_not_begin_at_0() -> None:
    track = Track([(1.5, FIRST), (9.0, SECOND), (12.5, FIRST)])
    contents = container("matroska", track, picture=13.0, options={"output_ts_offset": "5000"})
    told(contents, r"begins 1\.50 s after .*; 2\.94 s of its time")
    kept = told(contents, "silence stands there", container_time=True)
    np.testing.assert_array_equal(kept, placed((1.5, FIRST), (9.0, SECOND), (12.5, FIRST)))


@pytest.mark.parametrize(
    ("format", "codec", "rate"),
    [
        ("mp4", "aac", RATE),
        ("mpegts", "mp2", RATE),
        ("mpegts", "aac", RATE),
        ("asf", "libmp3lame", RATE),
        ("mov", "alac", RATE),
    ],
)
def test_late_in_other_containers(format: str, codec: str, rate: int) -> None:
    told(late(codec, format), LATE)
    kept = load_audio(late(codec, format), container_time=True)
    assert len(kept) == pytest.approx(7.108 * RATE, abs=0.06 * RATE)
    assert not kept[: int(2.4 * RATE)].any()
    reference = placed((2.5, FIRST))
    lags = np.correlate(kept[3 * RATE - 800 : 4 * RATE + 800], reference[3 * RATE : 4 * RATE])
    assert abs(int(lags.argmax()) - 800) < 0.05 * RATE  # also for codecs that put a delay before it


@pytest.mark.parametrize(
    ("format", "codec", "rate"),
    [("mp4", "aac", RATE), ("mpegts", "mp2", RATE), ("webm", "libopus", 48000), ("ogg", "libopus", 48000),
     ("flv", "aac", 44100)],
)  # fmt: skip
def test_gaps_in_other_containers(format: str, codec: str, rate: int) -> None:
    told(gapped(codec, format, rate), r"2\.[34]\d s of its time hold no sound")
    kept = told(gapped(codec, format, rate), "silence stands there", container_time=True)
    assert len(kept) == pytest.approx(10.456 * RATE, abs=0.08 * RATE)
    if format != "ogg":  # whose pages of a second have one time stamp each
        assert not kept[int(4.8 * RATE) : int(6.9 * RATE)].any()


def test_silence_is_silence_in_every_format_and_for_any_channels() -> None:
    for codec, n_channels, rate in (("pcm_u8", 1, RATE), ("pcm_f32le", 2, 44100), ("pcm_s16le", 3, 8000),
                                    ("flac", 6, RATE), ("pcm_f64le", 8, RATE)):  # fmt: skip
        x = melody(2.304, rate, n_channels)
        contents = container("matroska", Track([(1.5, x), (5.0, x)], codec, rate=rate), picture=6.0)
        kept = told(contents, "silence stands there", container_time=True)
        assert len(kept) == pytest.approx(7.304 * RATE, abs=0.1 * RATE)
        assert not kept[: int(1.49 * RATE)].any()
        assert not kept[int(3.82 * RATE) : int(4.98 * RATE)].any()
        assert kept[int(5.0 * RATE) :].any()


def test_what_is_no_loss_is_not_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for format, codec in (("mp4", "aac"), ("mpegts", "aac"), ("matroska", "aac"), ("matroska", "flac")):
            for begin in (0.0, 0.05):  # a delay that nobody notices
                for keeps in (False, True):
                    load_audio(container(format, Track([(begin, FIRST)], codec), picture=4.0), container_time=keeps)
            # without a picture, what the sound begins with is the beginning of the container: live recordings
            live = load_audio(container(format, Track([(400000.0, FIRST)], codec)), container_time=True)
            assert len(live) < 4.8 * RATE
        overlap = container("matroska", Track([(0, FIRST), (3.5, SECOND)]))
        np.testing.assert_array_equal(load_audio(overlap, container_time=True), load_audio(overlap))
        joined = gapless = encode(FIRST, "matroska", "flac")
        np.testing.assert_array_equal(load_audio(joined + gapless, container_time=True), load_audio(joined + gapless))


def test_lost_packets_leave_silence_of_their_length() -> None:
    x = melody(4.0)
    contents = encode(x, "matroska", "flac", spoil=5)
    kept = told(contents, "1 broken packets were left out; .*silence stands there", container_time=True)
    assert len(kept) == x.shape[1]
    same = kept == floats(x[0])
    assert same[: 4 * 1152].all()
    assert same[-20000:].all()
    assert not same.all()


@pytest.mark.parametrize("jump", [10_000.0, 3e5, 1e8])
def test_a_forged_jump_fills_neither_memory_nor_disk(jump: float) -> None:
    contents = container("matroska", Track([(0, FIRST), (jump, SECOND)]))
    for keeps in (False, True):
        loaded = told(
            contents, r"stamps jump by \S+ s at 4\.61 s, which is not taken for silence", container_time=keeps
        )
        np.testing.assert_array_equal(loaded, np.append(floats(FIRST[0]), floats(SECOND[0])))


def test_many_jumps_have_a_common_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_clock, "MOST_SILENCE", 5.0)
    x = melody(1.152)
    contents = container("matroska", Track([(3.0 * i, x) for i in range(6)]))
    kept = told(contents, "stamps jump by 1.848 s at 3.46 s.*at most 5 s in all", container_time=True)
    assert len(kept) / RATE == pytest.approx(6 * 1.152 + 2 * 1.848, abs=0.01)


def test_streamed_and_apart_and_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [np.concatenate([x, x[:, ::-1]]) for x in (FIRST, SECOND)]
    contents = container("matroska", Track([(1.5, both[0]), (9.0, both[1])]), picture=12.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = load_audio(contents, container_time=True)
        np.testing.assert_array_equal(load_audio(OneWay(contents), container_time=True), whole)
        np.testing.assert_array_equal(load_audio(io.BytesIO(contents), container_time=True), whole)
        first, second = read_channels(contents, container_time=True)
        expected = placed((1.5, both[0]), (9.0, both[1]))
        heard = first != 0  # the rest is silence, or the sound of the other channel
        np.testing.assert_array_equal(first[heard], (expected * 32768).astype(np.int16)[heard])
        assert len(first) == len(second) == len(whole)
        held = Features.of(contents, 80, container_time=True)
        monkeypatch.setattr(features, "HELD", RATE)
        streamed = Features.of(contents, 80, container_time=True)
    assert held.n_frames == streamed.n_frames == 1245
    for seek in (0, 700, 1245):
        assert torch.equal(streamed.window(seek, 3000), held.window(seek, 3000))
    np.testing.assert_array_equal(streamed.samples(0, 10**7), whole)


def test_every_mode_of_transcribing_takes_it() -> None:
    model = random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1, end=4.5)
    expected = model.transcribe(placed((2.5, FIRST)), **OPTIONS)
    options = {**OPTIONS, "container_time": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.transcribe(late(), **options) == expected
        assert model.transcribe([late(), late()], batch_size=2, **{**options, "audit": False}) == [expected] * 2
        assert list(whisper.iter_segments(model, late(), **options)) == expected["segments"]
        assert whisper.transcribe_with_report(model, late(), **options, audit=False)[0] == expected
        text = {"text": "a", "language": "en", "fp16": False}
        aligned = whisper.align(model, placed((2.5, FIRST)), **text)
        assert whisper.align(model, late(), container_time=True, **text) == aligned
    with pytest.warns(RuntimeWarning, match=LATE):
        assert model.transcribe(late(), **OPTIONS) == model.transcribe(floats(FIRST[0]), **OPTIONS)


# ---------------------------------------------------------------------------------------------------------
# The clock itself
# ---------------------------------------------------------------------------------------------------------

stamps = st.lists(st.tuples(st.none() | st.floats(-1e9, 1e9) | st.floats(-5, 50), st.floats(0, 2)), max_size=30)


@given(start=st.floats(-1e6, 1e6), frames=stamps, keeps=st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_stamps_give_a_bounded_clock(start: float, frames: list[tuple[float | None, float]], keeps: bool) -> None:
    clock = ContainerClock(start, keeps)
    silence = [clock.follow(stamp, seconds) for stamp, seconds in frames]
    assert all(0 <= s <= MOST_SILENCE for s in silence)
    assert sum(silence) <= MOST_SILENCE + 1e-6
    assert keeps or not any(silence)
    assert clock.decoded == pytest.approx(sum(seconds for _, seconds in frames))
    for loss in clock.losses():
        assert not re.search(r"nan|inf ", loss)


@given(
    gaps=st.lists(st.sampled_from([0.0, 0.0, 0.02, 0.5, 30.0]), min_size=1, max_size=20),
    start=st.floats(0, 1e5), noise=st.lists(st.floats(-0.004, 0.004), min_size=20, max_size=20),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_every_frame_lies_where_the_container_has_it(gaps: list[float], start: float, noise: list[float]) -> None:
    clock, stamp, out = ContainerClock(start, True), start, 0.0
    for gap, waver in zip(gaps, noise, strict=False):
        stamp += gap
        out += clock.follow(stamp + waver, 0.5)
        assert out == pytest.approx(stamp - start, abs=0.1)
        stamp, out = stamp + 0.5, out + 0.5


def test_a_slow_drift_and_a_jitter() -> None:
    drifting, jittering = ContainerClock(0, True), ContainerClock(0, True)
    total = sum(drifting.follow(i * 0.0202, 0.02) for i in range(10000))  # one per cent more time than sound
    assert total == pytest.approx(2.0, abs=0.11)
    rng = np.random.default_rng(0)
    total = sum(jittering.follow(i * 0.02 + rng.uniform(0, 0.03), 0.02) for i in range(10000))
    assert total <= 0.05
    assert GAP < 0.02 < BACK


def test_the_account_belongs_to_the_recording() -> None:
    assert containers.ContainerClock is ContainerClock
    clock = ContainerClock(0, False)
    assert clock.losses() == []
    clock.follow(3.0, 1.0)
    clock.follow(6.0, 1.0)
    assert clock.losses()[:2] == [
        "its sound begins 3.00 s after the container, so all times are early by that",
        "2.00 s of its time hold no sound, the first at 1.00 s, and times behind are early by that",
    ]
