"""Targets: tokens, labels and times of a window, in Whisper's format, for every kind of vocabulary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper.errors import TrainingError
from whisper.training.feature_store import FeatureStore
from whisper.training.mixing import Recipe, TrainingSegment, TrainingWindow, mix_window
from whisper.training.targets import (
    IGNORE_INDEX,
    LETTERS,
    MAX_PROMPT_TOKENS,
    N_TIMESTAMPS,
    UNKNOWN_SPAN,
    ReducedVocabulary,
    Target,
    Vocabulary,
    full_vocabulary,
    keep_letters,
    make_target,
    reduce_text,
    reduced_vocabulary,
    used_token_ids,
)

from ..stores import tonal_store

RECIPE = Recipe(p_prompt=0.0, p_plain=0.0, p_silent=0.1, p_excerpt=0.4)
SILENCE = TrainingWindow(np.zeros((200, 80), np.float32), [], "en")


@pytest.fixture(scope="module")
def store() -> FeatureStore:
    return tonal_store()


@pytest.fixture(scope="module")
def vocabularies(store) -> dict[str, Vocabulary]:
    return {
        "used": reduced_vocabulary([clip.text for clip in store.clips]),
        "whole": full_vocabulary(True),
        "large-v3": full_vocabulary(True, num_languages=100),
        "english": full_vocabulary(False),
        "short": full_vocabulary(True, short_merges=True),
    }


def token_of(v: Vocabulary, index: int) -> int:
    """The token in Whisper's own vocabulary of an index."""
    if index >= v.timestamp_begin:
        return v.tokenizer.timestamp_begin + index - v.timestamp_begin
    return v.token_ids[index]


def text_of(v: Vocabulary, indices: list[int]) -> str:
    return v.tokenizer.decode([token_of(v, index) for index in indices if 0 <= index < v.n_text]).strip()


def target_of(
    window: TrainingWindow, v: Vocabulary, earlier: tuple[str, ...] = (), seed: int = 0, **changes: object
) -> Target:
    return make_target(np.random.default_rng(seed), window, v, replace(RECIPE, **changes), earlier)  # type: ignore


def one(text: str, language: str = "en", words: tuple[tuple[int, int], ...] = ()) -> TrainingWindow:
    return TrainingWindow(SILENCE.mel, [TrainingSegment(20, 160, text, words)], language)


# -- targets and windows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["used", "whole", "large-v3", "english", "short"])
def test_labels_timestamps_and_attention_targets_agree_with_the_window(store, vocabularies, kind):
    v, spoken = vocabularies[kind], 0
    for seed in range(40):
        window = mix_window(np.random.default_rng(seed), store, RECIPE, 6.0)
        target = target_of(window, v, seed=seed)
        assert len(target.tokens) == len(target.labels) == len(target.attention_targets)
        assert target.labels[-1] == v.special("eot")
        text = " ".join(segment.text for segment in window.segments)
        assert text_of(v, target.labels) == text
        times = [index - v.timestamp_begin for index in target.labels if index >= v.timestamp_begin]
        frames = [round(frame / 2) for segment in window.segments for frame in (segment.start, segment.end)]
        silent = [] if kind == "english" else [0]  # without a language, no_speech replaces the timestamp
        assert times == (frames or silent)
        assert times == sorted(times)
        words = iter(
            [(time, word) for s in window.segments for time, word in zip(s.words, s.text.split(), strict=True)]
        )
        text_so_far, word, start, end, at = "", "", 0, 0, 0
        for index, (first, upto) in zip(target.labels, target.attention_targets, strict=True):
            if not 0 <= index < v.n_text:
                continue
            if text_so_far == word:  # complete: go on with the tokens of the next one
                (start, end), word = next(words)
                text_so_far, at = "", start
            assert first >= at
            assert start <= first < upto <= max(end, first + 4)
            at, text_so_far = first, text_so_far + v.tokenizer.decode([token_of(v, index)]).strip()
        spoken += bool(text)
    assert spoken > 25


def test_inputs_are_the_labels_but_for_token_noise(store, vocabularies):
    v, n_replaced, n_text = vocabularies["used"], 0, 0
    for seed in range(40):
        target = target_of(mix_window(np.random.default_rng(seed), store, RECIPE, 6.0), v, seed=seed)
        assert target.tokens[0] == v.special("sot")
        for read, due in zip(target.tokens[1:], target.labels[:-1], strict=True):
            if due >= v.n_text and due != v.special("no_speech"):
                assert read == due
            elif due < v.n_text:
                n_replaced += read != due
                n_text += 1
    assert 0.02 < n_replaced / n_text < 0.12


@pytest.mark.parametrize("kind", ["used", "whole"])
def test_the_format_is_whispers(vocabularies, kind):
    v = vocabularies[kind]
    t = v.tokenizer
    timed = target_of(one("la mi"), v)
    assert [token_of(v, r) for r in timed.tokens[:4]] == [*t.sot_sequence, t.timestamp_begin + 10]
    assert [token_of(v, r) for r in timed.labels[-2:]] == [t.timestamp_begin + 80, t.eot]
    plain = target_of(one("la mi"), v, p_plain=1.0)
    assert [token_of(v, r) for r in plain.tokens[:4]] == [*t.sot_sequence, t.no_timestamps]
    assert max(plain.labels) < v.timestamp_begin
    assert text_of(v, plain.labels) == "la mi"


def test_english_only_models_have_no_language_and_no_task(vocabularies):
    v = vocabularies["english"]
    t = v.tokenizer
    target = target_of(one("la mi"), v)
    assert target.tokens[:2] == [t.sot, t.timestamp_begin + 10]
    silent = target_of(SILENCE, v)
    assert (silent.tokens, silent.labels) == ([t.sot, t.timestamp_begin], [t.no_speech, t.eot])
    with pytest.raises(TrainingError, match="English-only model cannot learn 'fr'"):
        target_of(one("la", "fr"), v)


@pytest.mark.parametrize("kind", ["used", "whole"])
def test_non_speech_is_the_no_speech_token_and_the_end(vocabularies, kind):
    v = vocabularies[kind]
    target = target_of(SILENCE, v)
    assert target.labels == [v.special("no_speech"), v.special("transcribe"), v.timestamp(0), v.special("eot")]
    assert target.tokens[:3] == v.start_sequence("en")
    assert target.ctc_targets == []
    assert set(target.attention_targets) == {UNKNOWN_SPAN}
    plain = target_of(SILENCE, v, p_plain=1.0)
    assert plain.labels[-2:] == [v.special("no_timestamps"), v.special("eot")]


@pytest.mark.parametrize("make", [reduced_vocabulary, None], ids=["used", "whole"])
def test_translation_has_its_task_token(make):
    v = make(["la mi"], ("fr", "de"), "translate") if make else full_vocabulary(True, task="translate")
    t = v.tokenizer
    tokens = [token_of(v, index) for index in target_of(one("la mi", "fr"), v).tokens[:3]]
    assert tokens == [t.sot, t.to_language_token("fr"), t.translate]


def test_a_truncated_clip_has_its_start_only(store, vocabularies):
    v, recipe, cut = vocabularies["used"], replace(RECIPE, p_truncated=1.0, p_plain=1.0, p_excerpt=0.0), 0
    for seed in range(30):
        window = mix_window(np.random.default_rng(seed), store, recipe, 6.0)
        target = make_target(np.random.default_rng(seed), window, v, recipe, [])
        if window.truncated_at is not None:
            cut += 1
            assert target.labels[-2:] == [v.timestamp(window.truncated_at), v.special("eot")]
            assert target.labels[-3] == v.timestamp(window.segments[-1].end)
        assert target.has_ctc_targets == (window.truncated_at is None)
    assert cut > 5


# -- prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["used", "whole", "english"])
def test_a_prompt_comes_first_and_has_no_loss(vocabularies, kind):
    v = vocabularies[kind]
    earlier = ("so do re", "fa ti")
    bare, prompted = (target_of(one("la mi", words=((20, 80), (90, 160))), v, earlier, p_prompt=p) for p in (0.0, 1.0))
    n = len(prompted.tokens) - len(bare.tokens)
    assert prompted.tokens[0] == v.special("sot_prev")
    assert text_of(v, prompted.tokens[:n]) == "so do re fa ti"
    assert prompted.labels == [IGNORE_INDEX] * n + bare.labels
    assert prompted.attention_targets == [UNKNOWN_SPAN] * n + bare.attention_targets
    assert prompted.tokens[n : n + 1] == [v.special("sot")]
    assert target_of(one("la mi"), v, (), p_prompt=1.0).tokens[0] == v.special("sot")


def test_a_long_prompt_is_truncated_at_its_start(vocabularies):
    v = vocabularies["used"]
    target = target_of(one("la"), v, (" ".join(["la mi so"] * 60), "dur"), p_prompt=1.0)
    n = target.tokens.index(v.special("sot"))
    assert n == MAX_PROMPT_TOKENS + 1
    assert text_of(v, target.tokens[:n]).endswith("so dur")


# -- vocabularies ------------------------------------------------------------------------------------------

TEXTS = {
    "en": "It's late — go!",
    "fr": "L’œuvre d’été, ça va",
    "ru": "Добрый день, мир",
    "hi": "नमस्ते दुनिया",
    "ar": "مرحبا بالعالم",
    "ko": "안녕하세요 세계",
    "zh": "你好,世界",
    "ja": "こんにちは 世界",
}


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("make", ["used", "whole"])
def test_every_script_round_trips(language, make):
    text = TEXTS[language]
    v = reduced_vocabulary([text], [language]) if make == "used" else full_vocabulary(True)
    n_words = len(text.split())
    words = tuple((20 + 10 * i, 30 + 10 * i) for i in range(n_words))
    blind, timed = (target_of(one(text, language, times), v) for times in ((), words))
    for target in (blind, timed):
        indices = [index for index in target.labels if 0 <= index < v.n_text]
        decoded = v.tokenizer.decode([token_of(v, index) for index in indices])
        assert decoded == (text if language in ("zh", "ja") else " " + text)  # no space where the language has none
    if make == "whole":
        assert blind.labels == timed.labels  # word by word, the tokens are those of the whole text
    assert text_of(v, target_of(one(text, language), v, (text,), p_prompt=1.0).tokens).startswith(text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=4))
def test_a_reduced_vocabulary_has_its_texts_and_no_gap(texts):
    texts = [" ".join(text.split()) for text in texts]
    v = reduced_vocabulary(texts, ("en", "ja"))
    for text in texts:
        for language in ("en", "ja"):
            indices = v.encode(text, language)
            assert all(0 <= index < v.n_text for index in indices)
            assert v.tokenizer.encoding.decode([v.token_ids[index] for index in indices]) == (
                text if language == "ja" else " " + text
            )
    assert len(set(v.token_ids)) == len(v.token_ids) == v.unused_index
    assert v.timestamp_begin == v.unused_index + 1
    assert v.size == v.timestamp_begin + N_TIMESTAMPS
    assert v.n_unused + len(used_token_ids(v)) == v.tokenizer.encoding.n_vocab


def test_a_full_vocabulary_has_the_size_of_the_checkpoints():
    sizes = {full_vocabulary(True).size: 51865, full_vocabulary(True, 100).size: 51866}
    sizes[full_vocabulary(False).size] = 51864
    assert all(indices == size for indices, size in sizes.items())
    v = full_vocabulary(True)
    assert v.unused_index is None
    assert len(v.languages) == 99
    assert v.timestamp(3000) == v.size - 1 == v.timestamp(9999)
    assert v.timestamp(-5) == v.timestamp_begin


def test_missing_tokens_and_languages_are_errors():
    v = reduced_vocabulary(["la"], ("en", "fr"))
    assert isinstance(v, ReducedVocabulary)
    with pytest.raises(TrainingError, match=r"no index for b'x' of 'lax'"):
        v.encode("lax")
    with pytest.raises(TrainingError, match=r"no language 'de'; it has en, fr"):
        v.start_sequence("de")
    with pytest.raises(TrainingError, match="99 languages has no yue"):
        reduced_vocabulary(["la"], ("en", "yue"))


# -- letters -----------------------------------------------------------------------------------------------


def test_ctc_targets_spell_the_text(store, vocabularies):
    v = vocabularies["used"]
    for seed in range(20):
        window = mix_window(np.random.default_rng(seed), store, RECIPE, 4.0)
        letters = target_of(window, v, seed=seed).ctc_targets
        spelled = "".join(" " if c == 1 else v.alphabet[c - 2] for c in letters)
        assert spelled == " ".join(segment.text for segment in window.segments)
    assert target_of(one("la"), vocabularies["whole"]).ctc_targets == []  # fine-tuning has no CTC loss


def test_letters_of_other_scripts_have_classes_where_they_are_common():
    v = reduced_vocabulary(["привет"] * 5 + ["한"], ("ru",))
    assert set(v.alphabet) - set(LETTERS) == set("привет")
    spelled = v.ctc_classes("Привет, МИР 한!")
    assert "".join(" " if c == 1 else v.alphabet[c - 2] for c in spelled) == "привет ир"


@pytest.mark.parametrize(
    ("text", "reduced"),
    [
        ("WE'RE BUT YOUNG", "we're but young"),
        ("'Tis a “most” curious—business.", "tis a most curious business"),
        ("L’œuvre d'été, ça Škoda", "l'oeuvre d'été ça skoda"),
        ("E\u0301te\u0301", "été"),
        ("Привет, мир!", ""),
        (" \n", ""),
    ],
)
def test_reduce_text(text, reduced):
    assert reduce_text(text) == reduced


@given(st.text(max_size=60))
def test_reduced_text_is_letters_and_single_spaces_and_stays_itself(text):
    reduced = reduce_text(text)
    assert set(reduced) <= set(LETTERS + " ")
    assert reduced == " ".join(reduced.split())
    assert reduce_text(reduced) == reduced
    assert reduce_text(text.swapcase()) == reduced or not text.isascii()


@given(st.text(max_size=40))
def test_letters_only_agrees_with_the_reduced_text(text):
    assert keep_letters(reduce_text(text), LETTERS) == reduce_text(text)
    spelled = keep_letters(text, LETTERS)
    assert set(spelled) <= set(LETTERS + " ")
    assert spelled == " ".join(spelled.split())
    assert keep_letters(spelled, LETTERS) == spelled
