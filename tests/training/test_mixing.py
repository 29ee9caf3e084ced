"""Mixed windows: audio, text and times agree with each other and with the clips.

Words are tones here (`stores.py`), so the words of a window can be detected in its features.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from whisper.errors import TrainingError
from whisper.training import feature_store, mixing
from whisper.training.feature_store import LOG_POWER_FLOOR, FeatureStore, make_store
from whisper.training.mixing import Recipe, TrainingWindow, mix_window

from ..stores import THRESHOLD, WORDS, sound_clip, tonal_clips, tonal_store, tones_in

# no masking, noise or change of tempo
CLEAR = Recipe(p_silent=0.0, p_noise=0.0, max_mask_frames=0, augment_strength=0.0)


@pytest.fixture(scope="module")
def store() -> FeatureStore:
    return tonal_store()


def windows(store: FeatureStore, recipe: Recipe, seconds: float, count: int = 60) -> list[TrainingWindow]:
    return [mix_window(np.random.default_rng(seed), store, recipe, seconds) for seed in range(count)]


def words_in(window: TrainingWindow) -> list[tuple[int, int, str]]:
    """Start, end and word of all words in the segments of a window."""
    return [
        (*time, word)
        for segment in window.segments
        for time, word in zip(segment.words, segment.text.split(), strict=True)
    ]


def runs(store: FeatureStore) -> set[str]:
    """Every sequence of consecutive words of every clip."""
    found = set()
    for clip in store.clips:
        words = clip.text.split()
        found |= {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    return found


@pytest.mark.parametrize("p_excerpt", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("seconds", "n_mels"), [(2.0, 80), (6.0, 128), (30.0, 80)])
def test_audio_and_labels_agree(seconds, n_mels, p_excerpt):
    store = tonal_store(n_mels=n_mels)
    n_found = 0
    for window in windows(store, replace(CLEAR, p_excerpt=p_excerpt), seconds, 40):
        assert window.mel.shape == (int(seconds * 100), n_mels)
        assert window.mel.dtype == np.float32
        assert tones_in(window.mel) == words_in(window)  # every word at its time, and no other
        n_found += len(window.segments)
        for segment in window.segments:
            assert (segment.start, segment.end) == (segment.words[0][0], segment.words[-1][1])
    assert n_found > 20


def test_excerpts_are_consecutive_words(store):
    recipe = replace(CLEAR, p_excerpt=1.0, p_short=1.0)
    known, parts = runs(store), 0
    for window in windows(store, recipe, 1.5):
        text = " ".join(segment.text for segment in window.segments)
        assert text == "" or text in known
        parts += text != "" and text not in {clip.text for clip in store.clips}
    assert parts > 20


def test_the_context_of_an_excerpt_ends_in_the_middle_of_the_gap(store):
    rng = np.random.default_rng(0)
    for clip in store.clips:
        part = mixing._excerpt(rng, clip, replace(CLEAR, p_excerpt=1.0), 60)
        first = part.offset - clip.offset
        at = next(i for i, (a, _) in enumerate(clip.words) if a == first + part.words[0][0])
        after = at + len(part.words)
        assert part.text.split() == clip.text.split()[at:after]
        if at:
            assert first >= (clip.words[at - 1][1] + clip.words[at][0]) // 2
        if after < len(clip.words):
            assert first + part.n_frames <= (clip.words[after - 1][1] + clip.words[after][0]) // 2 + 1
        assert (part.start, part.end) == (part.words[0][0], part.words[-1][1])
        assert 0 <= part.start < part.end <= part.n_frames


def test_word_times_follow_a_changed_voice(store):
    n_found = 0
    for window in windows(
        store, replace(CLEAR, augment_strength=1.0, p_excerpt=0.3, few_speaker_sources=("tones",)), 6.0
    ):
        loud = window.mel.max(axis=1)
        for start, end, word in words_in(window):
            assert 0 <= start < end <= 600
            if word in WORDS[:6]:  # the others may be above the cutoff of a telephone band
                assert loud[(start + end) // 2] > np.median(window.mel[start:end]) + 0.7
                n_found += 1
    assert n_found > 100


def test_a_truncated_clip_begins_at_its_label(store):
    cut = 0
    for window in windows(store, replace(CLEAR, p_truncated=1.0), 6.0):
        found = tones_in(window.mel)
        if window.truncated_at is None:
            assert found == words_in(window)
            continue
        cut += 1
        whole = [word for word in found if word[1] <= window.truncated_at]
        assert whole == words_in(window)
        assert found[len(whole)][0] == window.truncated_at
        assert window.segments, "a cut clip comes after something whole"
        assert window.segments[-1].end <= window.truncated_at
    assert cut > 20


def test_segments_are_joined_over_short_pauses(store):
    n_segments = []
    for window in windows(store, CLEAR, 30.0, 20):
        pairs = list(zip(window.segments[:-1], window.segments[1:], strict=True))
        assert all(b.start - a.end >= 50 or b.end - a.start >= 1500 for a, b in pairs)
        assert all(segment.end - segment.start < 1500 for segment in window.segments)
        n_segments.append(len(window.segments))
    assert max(n_segments) > 3


def test_clips_without_word_times_are_not_cut(store):
    blind = make_store(store.features, [replace(clip, words=()) for clip in store.clips])
    texts = {clip.text for clip in store.clips}
    for window in windows(blind, replace(CLEAR, p_excerpt=1.0, p_short=1.0), 4.0, 30):
        assert all(segment.text in texts and segment.words == () for segment in window.segments)
        words = [word for segment in window.segments for word in segment.text.split()]
        assert [word for _, _, word in tones_in(window.mel)] == words


@pytest.mark.parametrize("n_speech", [2650, 2900, 3000])
def test_speech_as_long_as_the_window_is_used(n_speech):
    power = np.full((n_speech + 80, 80), -7.0, dtype=np.float16)
    power[40 : 40 + n_speech, 3:8] = -1.0
    clip = feature_store.StoredClip("long", "en", "la", "", 0, len(power), 40, 40 + n_speech)
    store = make_store(power, [clip])
    for window in windows(store, replace(CLEAR, augment_strength=1.0), 30.0, 12):
        assert [segment.text for segment in window.segments] == ["la"]
        [segment] = window.segments
        assert 0 <= segment.start < segment.end <= 3000
        bands = window.mel[:, 3:8].mean(axis=1) - window.mel[:, 60:].mean(axis=1)
        loud = np.flatnonzero(bands > bands.max() / 2)
        assert abs(loud[0] - segment.start) <= 3
        assert abs(loud[-1] + 1 - segment.end) <= 3


# -- which clips -------------------------------------------------------------------------------------------


def two_languages() -> FeatureStore:
    english, clips = tonal_clips(20, source="mixed")
    french, others = tonal_clips(20, source="mixed", language="fr", seed=1)
    return make_store(
        np.concatenate([english, french]), clips + [replace(c, offset=c.offset + len(english)) for c in others]
    )


def test_a_window_has_a_single_language():
    store, counts = two_languages(), {"en": 0, "fr": 0}
    spoken = {language: runs(make_store(store.features, clips)) for (_, language), clips in store.languages.items()}
    texts = {language: {clip.text for clip in store.clips if clip.language == language} for language in counts}
    joined = 0
    for window in windows(store, replace(CLEAR, p_excerpt=0.0), 6.0, 80):
        counts[window.language] += 1
        for segment in window.segments:
            joined += segment.text not in texts[window.language]
            if segment.text in spoken["en"] ^ spoken["fr"]:
                assert segment.text in spoken[window.language]
    assert min(counts.values()) > 20
    assert joined > 5  # several clips were found, of the same language


def test_languages_of_non_speech_windows():
    counts = {"en": 0, "fr": 0}
    for window in windows(two_languages(), replace(CLEAR, p_silent=1.0), 0.5, 100):
        assert window.segments == []
        counts[window.language] += 1
    assert min(counts.values()) > 25


def test_source_weights_and_excluded_speakers(store):
    a, clips = tonal_clips(source="a")
    b, others = tonal_clips(source="b", seed=4)
    both = make_store(np.concatenate([a, b]), clips + [replace(c, offset=c.offset + len(a)) for c in others])
    of_b = runs(make_store(b, others))
    for window in windows(both, replace(CLEAR, weights={"a": 0.0, "b": 1.0, "gone": 3.0}, p_short=1.0), 6.0, 20):
        assert all(segment.text in of_b for segment in window.segments)
    kept = {clip.text for clip in store.clips if clip.speaker == "speaker-1"}
    alone = replace(CLEAR, excluded_speakers=("speaker-0", "speaker-2"), p_short=1.0)
    texts = {segment.text for window in windows(store, alone, 6.0) for segment in window.segments}
    assert texts
    assert texts <= kept
    with pytest.raises(TrainingError, match=r"no source to draw from.*'gone'.*'a', 'b'"):
        mix_window(np.random.default_rng(0), both, replace(CLEAR, weights={"gone": 1.0}), 2.0)


def test_single_word_sources_are_repeated(store):
    def most(recipe: Recipe) -> int:
        one = tonal_store(most_words=1)
        return max(len(words_in(window)) for window in windows(one, recipe, 6.0, 30))

    assert most(replace(CLEAR, p_short=1.0)) == 1
    assert most(replace(CLEAR, p_short=1.0, single_word_sources=("tones",))) > 1


# -- non-speech ----------------------------------------------------------------------------------


def with_sounds(store: FeatureStore, sound: np.ndarray) -> FeatureStore:
    features = np.concatenate([store.features, sound.astype(np.float16)])
    return make_store(features, [*store.clips, sound_clip(len(sound), len(store.features))])


def test_recorded_non_speech_is_background_only(store):
    hum = np.full((500, 80), -6.0)
    hum[:, 28:34] = -2.0
    noisy = with_sounds(store, hum)
    assert [len(noisy.clips), len(noisy.non_speech)] == [len(store.clips), 1]
    recipe = replace(CLEAR, p_noise=1.0, p_recorded_noise=1.0, noise_below=(0.0, 1.0))
    humming = 0
    for window in windows(noisy, recipe, 3.0, 20):
        humming += np.median(window.mel[:150, 24:40].max(axis=1)) > np.median(window.mel[:150, 50:]) + 0.3
        assert not any(set(segment.text.split()) - set(WORDS) for segment in window.segments)
    assert humming > 10


def test_a_click_in_silence_is_not_amplified_above_the_speech(store):
    click = np.full((600, 80), LOG_POWER_FLOOR)
    click[::300] = 0.0
    noisy = with_sounds(store, click)
    recipe = replace(CLEAR, p_noise=1.0, p_recorded_noise=1.0, noise_below=(0.0, 0.0))
    for window in windows(noisy, recipe, 4.0, 20):
        for start, end, _ in words_in(window):
            assert (window.mel[start:end].max(axis=1) > THRESHOLD).all()


@pytest.mark.parametrize("p_short_silent", [0.0, 1.0])
def test_non_speech_windows_have_no_text(store, p_short_silent):
    noisy = with_sounds(store, np.random.default_rng(0).normal(-4, 1, (300, 80)))
    for window in windows(noisy, replace(CLEAR, p_silent=1.0, p_short_silent=p_short_silent), 5.0, 60):
        assert window.segments == []
        assert window.truncated_at is None
        assert window.mel.shape == (500, 80)
        assert np.isfinite(window.mel).all()


# -- the window as the model sees it -----------------------------------------------------------------------


def test_windows_are_normalized_like_the_spectrogram(store):
    for window in windows(store, replace(CLEAR, p_noise=0.5, p_silent=0.2), 4.0, 40):
        sound = window.mel[: np.flatnonzero(window.mel.any(axis=1))[-1] + 1]  # the rest is zero padding
        assert sound.max() - sound.min() <= 2.0 + 0.2  # eight decades, and up to 0.7 more where it is louder elsewhere


def test_padding_is_zeros_or_digital_silence(store):
    filled = {"zeros": 0, "silence": 0}
    for window in windows(store, replace(CLEAR, pad_to_seconds=10.0), 3.0, 40):
        assert window.mel.shape == (1000, 80)
        end = window.mel[300:]
        kind = "zeros" if not end.any() else "silence"
        filled[kind] += 1
        assert kind == "zeros" or (end == window.mel.min()).all()
    assert filled["zeros"] > filled["silence"] > 3


def test_a_window_is_a_function_of_its_generator(store):
    recipe = Recipe(p_excerpt=0.5, p_truncated=0.2)
    for seed in range(5):
        first, again = (mix_window(np.random.default_rng(seed), store, recipe, 4.0) for _ in range(2))
        assert np.array_equal(first.mel, again.mel)
        assert (first.segments, first.language, first.truncated_at) == (
            again.segments,
            again.language,
            again.truncated_at,
        )
