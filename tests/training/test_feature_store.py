"""The feature store: what it holds, what it skips and why, and when it is computed again."""

from __future__ import annotations

import warnings
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from whisper.audio import SAMPLE_RATE, log_mel_spectrogram
from whisper.errors import MissingDependencyError, TrainingError
from whisper.manifests.read import NON_SPEECH, ManifestEntry, read_manifest
from whisper.training import feature_store
from whisper.training.feature_store import Preparation, build_store, join_stores, open_store

BLIND = Preparation(word_times=False)


def speech(seconds: float, *parts: tuple[float, float], seed: int = 0) -> np.ndarray:
    """Quiet noise, loud in `parts` (start and end in seconds)."""
    samples = np.random.default_rng(seed).normal(0, 1e-4, int(seconds * SAMPLE_RATE)).astype(np.float32)
    for start, end in parts:
        samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] *= 1000
    return samples


def write(path: Path, samples: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())
    return str(path)


def write_flac(path: Path, samples: np.ndarray) -> str:
    import av

    pcm = (samples * 32767).clip(-32768, 32767).astype(np.int16)[None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return str(path)


@pytest.fixture
def recordings(tmp_path: Path) -> list[ManifestEntry]:
    """Three words, each in a file of its own, and a non-speech recording."""
    rows = []
    for number, (text, language) in enumerate((("la", "en"), ("mi", "en"), ("so", "fr"))):
        path = write(tmp_path / "sounds" / f"{number}.wav", speech(1.5 + number / 10, (0.5, 1.0), seed=number))
        rows.append(ManifestEntry(path, text, language, f"speaker-{number}", "set"))
    hum = write(tmp_path / "sounds" / "hum.wav", speech(2.0, (0.0, 2.0), seed=9))
    return [*rows, ManifestEntry(hum, "", NON_SPEECH, "", "noise")]


# -- sound -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_mels", [80, 128])
def test_features_are_the_spectrogram_before_normalization(n_mels):
    samples = speech(1.0, (0.2, 0.6))
    power = feature_store.log_power(samples, n_mels).T
    normalised = (np.maximum(power, power.max() - 8) + 4) / 4
    np.testing.assert_allclose(normalised, log_mel_spectrogram(samples, n_mels).numpy(), atol=1e-4)


@pytest.mark.parametrize(("start", "end"), [(100, 180), (20, 280), (0, 60), (240, 300)])
def test_speech_bounds_find_the_loud_part(start, end):
    power = np.random.default_rng(0).normal(-6, 0.1, (300, 80)).astype(np.float32)
    power[start:end] += 3
    found = feature_store.speech_bounds(power)
    assert abs(found[0] - start) <= 8
    assert abs(found[1] - end) <= 8


def test_speech_bounds_ignore_clicks_and_take_everything_without_contrast():
    power = np.random.default_rng(0).normal(-6, 0.1, (300, 80)).astype(np.float32)
    assert feature_store.speech_bounds(power[:, :] * 0 - 10) == (0, 300)
    power[100:180] += 3
    power[20:22] += 3
    assert abs(feature_store.speech_bounds(power)[0] - 100) <= 8
    assert feature_store.speech_bounds(np.full((15, 80), -5.0, np.float32)) == (0, 15)


# -- the store ---------------------------------------------------------------------------------------------


def test_a_store_holds_every_recording_in_its_order(recordings, tmp_path):
    store = build_store(recordings, tmp_path / "store", BLIND, threads=3)
    assert [(c.text, c.language, c.speaker, c.source) for c in store.clips] == [
        (r.text, r.language, r.speaker, r.group) for r in recordings[:3]
    ]
    for clip, recording in zip([*store.clips, *store.non_speech], recordings, strict=True):
        samples = feature_store.load_audio(recording.path)
        kept = store.power(clip, 0, clip.n_frames)
        np.testing.assert_allclose(kept, feature_store.log_power(samples), atol=0.01)
        if clip.text:
            assert abs(clip.start - 50) <= 8
            assert abs(clip.end - 100) <= 8
            assert clip.words == ((clip.start, clip.end),)  # one word is where speech is
    assert (store.non_speech[0].start, store.non_speech[0].end) == (0, 200)
    assert store.n_speech == {"set": sum(clip.n_speech for clip in store.clips)}
    assert {key: len(clips) for key, clips in store.languages.items()} == {("set", "en"): 2, ("set", "fr"): 1}
    assert store.skipped == []
    assert abs(store.hours * 3600 - 1.5) < 0.3


def test_stores_join(recordings, tmp_path):
    a, b = (build_store(recordings[i : i + 2], tmp_path / str(i), BLIND) for i in (0, 2))
    both, whole = join_stores([a, b]), build_store(recordings, tmp_path / "whole", BLIND)
    assert np.array_equal(both.features, whole.features)
    assert (both.clips, both.non_speech) == (whole.clips, whole.non_speech)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_bands_and_language_are_those_of_the_preparation(recordings, tmp_path, n_mels):
    rows = [replace(recording, language=None) for recording in recordings[:2]]
    store = build_store(rows, tmp_path / "store", replace(BLIND, n_mels=n_mels, language="de"))
    assert store.n_mels == n_mels
    assert {clip.language for clip in store.clips} == {"de"}


def test_texts_stay_as_they_are_unless_they_are_to_be_plain(recordings, tmp_path):
    rows = [replace(recordings[0], text="It's  LATE —\tgo!"), replace(recordings[1], text="Добрый день", language="ru")]
    store = build_store(rows, tmp_path / "as-is", BLIND)
    assert [clip.text for clip in store.clips] == ["It's LATE — go!", "Добрый день"]
    plain = build_store(rows, tmp_path / "plain", replace(BLIND, plain_text=True))
    assert [clip.text for clip in plain.clips] == ["it's late go"]
    assert plain.skipped == [(rows[1].path, "no usable letters in 'Добрый день'")]


# -- what is refused ---------------------------------------------------------------------------------------


def test_skipped_recordings_are_listed_with_their_reason(recordings, tmp_path):
    good = recordings[0]
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing of the kind")
    cut = Path(write_flac(tmp_path / "cut.flac", speech(20.0, (0.0, 20.0))))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    rows = {
        "cannot be read: ": replace(good, path=str(tmp_path / "missing.wav")),
        "cannot be read": replace(good, path=str(tmp_path / "broken.wav")),
        "too short: 0.10 s": replace(good, path=write(tmp_path / "short.wav", speech(0.1))),
        "too long: 31.0 s, a window has 30": replace(good, path=write(tmp_path / "long.wav", speech(31.0, (1, 30)))),
        "empty text": replace(good, text=""),
        "language not given": replace(good, language=None),
        "no usable letters in '...'": replace(good, text="..."),
        "digits, which plain text cannot have, in '2 la'": replace(good, text="2 la"),
        "ends 3.50 s after its file": replace(good, end=5.0),
        "too short: 0.00 s": replace(good, start=2.0),
        "damaged: it is truncated": replace(good, path=str(cut)),
    }
    store = build_store([*rows.values(), good], tmp_path / "store", replace(BLIND, plain_text=True), threads=2)
    assert [clip.text for clip in store.clips] == ["la"]
    assert [path for path, _ in store.skipped] == [row.path for row in rows.values()]
    for (_, found), reason in zip(store.skipped, rows, strict=True):
        assert found.startswith(reason)
    assert open_store(tmp_path / "store").skipped == store.skipped


def test_non_speech_may_be_long_or_damaged(recordings, tmp_path):
    long = write(tmp_path / "long.wav", speech(35.0, (0, 35)))
    cut = Path(write_flac(tmp_path / "cut.flac", speech(20.0, (0.0, 20.0))))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    rows = [recordings[0], ManifestEntry(long, "", NON_SPEECH, end=60.0), ManifestEntry(str(cut), "", NON_SPEECH)]
    store = build_store(rows, tmp_path / "store", BLIND)
    assert store.non_speech[0].n_frames == 3500
    assert len(store.non_speech) == 2
    assert store.skipped == []


def test_nothing_to_train_on_is_an_error_with_reasons(recordings, tmp_path):
    with pytest.raises(TrainingError, match=r"nothing to train on.*gone\.wav: cannot be read"):
        build_store([ManifestEntry("gone.wav", "la", "en")], tmp_path / "a")
    with pytest.raises(TrainingError, match="nothing to train on"):
        build_store(recordings[3:], tmp_path / "b")
    with pytest.raises(TrainingError, match="the manifest has no entry"):
        build_store([], tmp_path / "c")


def test_other_warnings_are_shown(recordings, tmp_path, monkeypatch):
    def loud(samples: np.ndarray, n_mels: int) -> np.ndarray:
        warnings.warn("odd", RuntimeWarning, stacklevel=1)
        return power(samples, n_mels)

    power = feature_store.log_power
    monkeypatch.setattr(feature_store, "log_power", loud)
    with pytest.warns(RuntimeWarning, match="odd"):
        build_store(recordings[:1], tmp_path / "store", BLIND)


# -- parts of files and times of words ---------------------------------------------------------------------


def test_parts_of_a_file_are_cut_from_one_decoding_of_it(tmp_path, monkeypatch):
    samples = speech(9.0, (0.5, 1.0), (3.4, 4.1), (6.2, 6.9))
    path = write(tmp_path / "talk.wav", samples)
    parts = [(0.0, 2.0), (2.5, 5.0), (5.5, None)]
    rows = [ManifestEntry(path, f"part {i}", "en", start=start, end=end) for i, (start, end) in enumerate(parts)]
    opened = []
    load = feature_store.load_audio
    monkeypatch.setattr(feature_store, "load_audio", lambda name: opened.append(name) or load(name))
    store = build_store(rows, tmp_path / "store", BLIND, threads=2)
    assert opened == [path]
    assert [clip.n_frames for clip in store.clips] == [200, 250, 350]
    for clip, (start, end) in zip(store.clips, ((50, 100), (90, 160), (70, 140)), strict=True):
        assert abs(clip.start - start) <= 8
        assert abs(clip.end - end) <= 8


def test_word_times_of_the_manifest_are_those_of_the_part(tmp_path):
    path = write(tmp_path / "talk.wav", speech(6.0, (3.2, 4.8)))
    words = (("la", 3.2, 3.9), ("mi", 4.0, 4.8))
    row = ManifestEntry(path, "la mi", "fr", start=3.0, end=5.0, words=words)
    store = build_store([row], tmp_path / "a", BLIND)
    [clip] = store.clips
    assert clip.words == ((20, 90), (100, 180))
    assert (clip.start, clip.end) == (20, 180)
    for wrong in (replace(row, words=words[:1]), replace(row, words=(("la", 1.0, 2.0), words[1]))):
        [clip] = build_store([wrong], tmp_path / "b", BLIND).clips  # too few words, or outside of the part
        assert clip.words == ()
        assert abs(clip.start - 20) <= 8


def test_english_words_are_aligned(tmp_path):
    pytest.importorskip("pocketsphinx", reason="word times need pocketsphinx, which is not installed here")
    sample = Path(__file__).resolve().parent.parent.parent / "examples" / "sample.flac"
    row = ManifestEntry(str(sample), "Computer, one two three: smart mirror!", "en")
    [clip] = build_store([row], tmp_path / "a").clips
    assert len(clip.words) == 6
    assert (clip.start, clip.end) == (clip.words[0][0], clip.words[-1][1])
    level = open_store(tmp_path / "a").power(clip, 0, clip.n_frames).mean(axis=1)
    assert all(level[a:b].mean() > level.mean() for a, b in clip.words)
    [french] = build_store([replace(row, language="fr")], tmp_path / "b").clips
    assert french.words == ()
    [other] = build_store([replace(row, text="Computer 1 2 3 smart mirror")], tmp_path / "c").clips
    assert other.words == ()  # how the numbers are spoken is unknown


def test_without_pocketsphinx_there_are_no_word_times(recordings, tmp_path, monkeypatch, caplog):
    def missing() -> None:
        raise MissingDependencyError("word times need pocketsphinx", extra="train")

    monkeypatch.setattr(feature_store, "WordAligner", missing)
    store = build_store([replace(recordings[0], text="la mi")], tmp_path / "store", Preparation())
    assert store.clips[0].words == ()
    assert "training without word times: word times need pocketsphinx" in caplog.text


# -- what stays on disk ------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that were decoded."""
    names: list[str] = []
    load = feature_store.load_audio
    monkeypatch.setattr(feature_store, "load_audio", lambda name: names.append(name) or load(name))
    return names


def test_unchanged_features_are_not_computed_again(recordings, tmp_path, decoded):
    first = build_store(recordings, tmp_path / "store", BLIND)
    assert len(decoded) == 4
    again = build_store(recordings, tmp_path / "store", BLIND, threads=2)
    assert len(decoded) == 4
    assert again.clips == first.clips
    assert isinstance(again.features.base, np.memmap)


@pytest.mark.parametrize("change", ["text", "row", "order", "bands", "plain", "file", "truncated"])
def test_changes_are_computed_again(recordings, tmp_path, decoded, change):
    build_store(recordings, tmp_path / "store", BLIND)
    rows, preparation = list(recordings), BLIND
    if change == "text":
        rows[0] = replace(rows[0], text="dur")
    elif change == "row":
        rows.pop(1)
    elif change == "order":
        rows.reverse()
    elif change == "bands":
        preparation = replace(BLIND, n_mels=128)
    elif change == "plain":
        preparation = replace(BLIND, plain_text=True)
    elif change == "file":
        write(Path(rows[0].path), speech(3.0, (1.0, 2.0)))
    else:
        features = tmp_path / "store" / "features.f16"
        features.write_bytes(features.read_bytes()[:-2])
    decoded.clear()
    store = build_store(rows, tmp_path / "store", preparation)
    assert len(decoded) == len(rows)
    fresh = build_store(rows, tmp_path / "fresh", preparation)
    assert (store.clips, store.non_speech) == (fresh.clips, fresh.non_speech)
    assert np.array_equal(store.features, fresh.features)


class KilledError(Exception):
    """Simulates the end of the process."""


@pytest.mark.parametrize("at", ["features", 1, 2])
def test_a_kill_leaves_a_consistent_store(recordings, tmp_path, monkeypatch, at):
    old, new = recordings, [replace(recordings[1], text="dur"), *recordings[2:]]
    before = build_store(old, tmp_path / "store", BLIND)
    expected = build_store(new, tmp_path / "fresh", BLIND)
    clips, features = before.clips, np.array(before.features)

    calls = 0
    real, power = feature_store.os.replace, feature_store.log_power

    def replace_or_die(*paths: object) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KilledError
        real(*paths)

    def power_or_die(samples: np.ndarray, n_mels: int) -> np.ndarray:
        if at == "features" and len(samples) == len(feature_store.load_audio(new[1].path)):
            raise KilledError
        return power(samples, n_mels)

    with monkeypatch.context() as patched:
        patched.setattr(feature_store.os, "replace", replace_or_die)
        patched.setattr(feature_store, "log_power", power_or_die)
        with pytest.raises(KilledError):
            build_store(new, tmp_path / "store", BLIND)

    after = build_store(old, tmp_path / "store", BLIND)  # the old entries again: correct, computed again or not
    assert after.clips == clips
    assert np.array_equal(after.features, features)
    again = build_store(new, tmp_path / "store", BLIND)
    assert again.clips == expected.clips
    assert np.array_equal(again.features, expected.features)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["clips.json", "features.f16"]


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"fingerprint": 1}'])
def test_an_invalid_index_is_rebuilt(recordings, tmp_path, index):
    first = build_store(recordings, tmp_path / "store", BLIND)
    (tmp_path / "store" / "clips.json").write_text(index)
    assert build_store(recordings, tmp_path / "store", BLIND).clips == first.clips


# -- real recordings ---------------------------------------------------------------------------------------


@pytest.mark.shared
def test_real_recordings_become_clips(shared_data, tmp_path):
    rows = read_manifest(shared_data / "dev").recordings
    groups = ("ljspeech", "commonvoice_en", "digits", "noise")
    some = [row for group in groups for row in [r for r in rows if r.group == group][:4]]
    store = build_store(some, tmp_path / "store", replace(Preparation(), plain_text=True))
    assert len(store.clips) + len(store.non_speech) + len(store.skipped) == len(some)
    assert len(store.clips) >= 10
    known = [clip for clip in store.clips if clip.words]
    assert all(len(clip.words) == len(clip.text.split()) for clip in known)
