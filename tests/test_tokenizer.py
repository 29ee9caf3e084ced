"""The tokenizer: ids that checkpoints depend on, words that lose no token, and openai-whisper's every answer."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_python
from whisper.errors import LanguageError, OptionError
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, Tokenizer, get_encoding, get_tokenizer

# One range of letters per script; what is unassigned in it is a test as well.
SCRIPTS = {
    "latin": (0x41, 0x24F), "greek": (0x370, 0x3FF), "cyrillic": (0x400, 0x4FF), "armenian": (0x531, 0x58F),
    "hebrew": (0x591, 0x5F4), "arabic": (0x600, 0x6FF), "devanagari": (0x900, 0x97F), "bengali": (0x980, 0x9FE),
    "gurmukhi": (0xA01, 0xA76), "gujarati": (0xA81, 0xAF1), "tamil": (0xB82, 0xBFA), "telugu": (0xC00, 0xC7F),
    "kannada": (0xC80, 0xCF2), "malayalam": (0xD00, 0xD7F), "sinhala": (0xD81, 0xDF4), "thai": (0xE01, 0xE5B),
    "lao": (0xE81, 0xEDF), "tibetan": (0xF00, 0xFDA), "myanmar": (0x1000, 0x109F), "georgian": (0x10A0, 0x10FF),
    "hangul": (0xAC00, 0xD7A3), "ethiopic": (0x1200, 0x139F), "khmer": (0x1780, 0x17F9), "kana": (0x3041, 0x30FF),
    "han": (0x4E00, 0x9FFF), "fullwidth": (0xFF01, 0xFFEE), "combining": (0x300, 0x36F),
    "control": (0x00, 0x1F), "emoji": (0x1F300, 0x1FAFF), "symbols": (0x2000, 0x27BF), "any": (0x20, 0x2FFFF),
}  # fmt: skip


def random_texts(count: int, seed: int = 20250625) -> list[str]:
    """Return texts of every script in turn, with ASCII, spaces and emoji sequences strewn in."""
    rng = random.Random(seed)
    strewn = " .,?!'\"-()[]<>0123456789aeiouAEIOU\n\t\u200d\ufe0f\u0301\u00a0\u3000👩🏽‍🚀♪"
    texts = []
    for i in range(count):
        low, high = list(SCRIPTS.values())[i % len(SCRIPTS)]
        chars = [chr(rng.randint(low, high)) for _ in range(rng.randint(0, 30))]
        mixed = "".join(c if rng.random() < 0.75 else rng.choice(strewn) for c in chars)
        texts.append("".join(c for c in mixed if not 0xD800 <= ord(c) <= 0xDFFF))
    return texts


def real_texts(shared_data: Path) -> list[str]:
    """Return the transcripts of the development recordings, in 20 languages, and training texts."""
    texts = []
    for part in ("dev", "train"):
        lines = (shared_data / part / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]
        transcripts = sorted({line.split("\t")[3] for line in lines} - {""})
        texts += transcripts if part == "dev" else transcripts[::12]
    with gzip.open(shared_data / "train/lm_text/common_voice_13_delta_en_sentences.txt.gz", "rt", "utf-8") as f:
        texts += [line.rstrip("\n") for _, line in zip(range(500), f, strict=False)]
    return texts


# -- ids that are part of every checkpoint ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("multilingual", "num_languages", "n_vocab", "eot", "sot", "translate", "no_timestamps"),
    [
        (False, 99, 51864, 50256, 50257, 50357, 50362),
        (True, 99, 51865, 50257, 50258, 50358, 50363),
        (True, 100, 51866, 50257, 50258, 50359, 50364),
    ],
)
def test_special_token_ids(multilingual, num_languages, n_vocab, eot, sot, translate, no_timestamps):
    tokenizer = get_tokenizer(multilingual, num_languages=num_languages)

    assert tokenizer.encoding.n_vocab == n_vocab
    assert (tokenizer.eot, tokenizer.sot) == (eot, sot)
    after_languages = range(translate, translate + 6)
    assert after_languages == range(translate, no_timestamps + 1)
    assert list(after_languages) == [
        tokenizer.translate, tokenizer.transcribe, tokenizer.sot_lm, tokenizer.sot_prev, tokenizer.no_speech,
        tokenizer.no_timestamps,
    ]  # fmt: skip
    assert tokenizer.timestamp_begin == no_timestamps + 1
    assert tokenizer.special_tokens["<|30.00|>"] == tokenizer.timestamp_begin + 1500 == n_vocab - 1
    assert list(tokenizer.special_tokens.values()) == list(range(eot, n_vocab))


def test_sot_sequence_names_language_and_task():
    assert get_tokenizer(True).sot_sequence == (50258, 50259, 50359)
    assert get_tokenizer(True, language="de", task="translate").sot_sequence == (50258, 50261, 50358)
    assert get_tokenizer(True, task="lang_id").sot_sequence == (50258, 50259, 50358)
    assert get_tokenizer(True, num_languages=100, language="yue").sot_sequence == (50258, 50358, 50360)
    assert get_tokenizer(False, language="de", task="translate").sot_sequence == (50257,)
    assert get_tokenizer(True).sot_sequence_including_notimestamps == (50258, 50259, 50359, 50363)


def test_a_tokenizer_can_be_built_directly():
    given: dict[str, int] = {}
    tokenizer = Tokenizer(get_encoding("multilingual"), num_languages=99, special_tokens=given)

    assert tokenizer.sot_sequence == (50258,)
    assert tokenizer.encoding.name == "multilingual.tiktoken"
    assert given == {}, "the caller's dictionary stays his"
    with pytest.raises(LanguageError, match="without a language"):
        tokenizer.language_token  # noqa: B018
    assert Tokenizer(tokenizer.encoding, 99, "fr", "transcribe").sot_sequence == (50258, 50265, 50359)


def test_language_tokens_follow_the_order_of_the_table():
    tokenizer = get_tokenizer(True, num_languages=100, language="haw")

    assert tokenizer.all_language_codes == tuple(LANGUAGES)
    assert tokenizer.all_language_tokens == tuple(range(50259, 50359))
    assert tokenizer.language_token == tokenizer.to_language_token("haw") == 50352
    assert get_tokenizer(True).all_language_codes == tuple(LANGUAGES)[:99]


# -- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["es", "ES", "Spanish", "sPANISH", "Castilian"])
def test_a_language_goes_by_code_name_and_alias(language):
    assert get_tokenizer(True, language=language).language == "es"


def test_every_name_leads_to_its_code():
    assert len(LANGUAGES) == 100
    assert len(TO_LANGUAGE_CODE) == 112
    assert set(TO_LANGUAGE_CODE.values()) == set(LANGUAGES)
    assert TO_LANGUAGE_CODE["haitian creole"] == TO_LANGUAGE_CODE["haitian"] == "ht"


@pytest.mark.parametrize("make", [get_tokenizer, lambda _, language: Tokenizer(get_encoding(), 99, language)])
def test_an_unknown_language_is_told_the_nearest(make):
    with pytest.raises(LanguageError, match="'frensh'; did you mean 'french'"):
        make(True, language="frensh")
    with pytest.raises(ValueError, match="LANGUAGES lists"):
        make(True, language="??")
    with pytest.raises(LanguageError, match="not among the 99 languages"):
        make(True, language="yue")


def test_an_english_only_tokenizer_still_checks_its_options():
    with pytest.raises(LanguageError):
        get_tokenizer(False, language="frensh")
    with pytest.raises(OptionError, match="transcribe, translate"):
        get_tokenizer(False, task="transalte")


def test_a_missing_language_token_is_a_key_error_in_plain_words():
    with pytest.raises(KeyError) as caught:
        get_tokenizer(True).to_language_token("yue")
    assert str(caught.value) == "this vocabulary has no token for the language code 'yue'"


def test_an_unknown_vocabulary_is_told_the_known_ones():
    with pytest.raises(OptionError, match="gpt2, multilingual"):
        get_encoding("gpt3")


def test_import_loads_no_tiktoken():
    code = "import sys, whisper.tokenizer, whisper.normalizers; print({'tiktoken', 'regex'} & set(sys.modules))"
    assert run_python(code) == "set()\n"


# -- text and words ---------------------------------------------------------------------------------------


def joined(word_tokens: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(word_tokens))


def test_encode_and_decode():
    multilingual, english = get_tokenizer(True), get_tokenizer(False)

    assert english.encode("다람쥐") == [46695, 97, 167, 252, 234, 168, 98, 238]
    assert multilingual.encode("다람쥐") == [9835, 22855, 168, 98, 238]
    tokens = [50364, *multilingual.encode(" Hello"), 50414]
    assert multilingual.decode(tokens) == " Hello"
    assert multilingual.decode_with_timestamps(tokens) == "<|0.00|> Hello<|1.00|>"
    with pytest.raises(ValueError, match="endoftext"):
        multilingual.encode("<|endoftext|>")
    assert multilingual.encode("<|endoftext|>", allowed_special="all") == [50257]


def test_words_end_at_spaces_punctuation_and_special_tokens():
    tokenizer = get_tokenizer(True, language="en")
    tokens = [*tokenizer.encode(" Hello, wörld! don't ( x) 5\n"), tokenizer.eot]

    words, word_tokens = tokenizer.split_to_word_tokens(tokens)

    assert words == [" Hello", ",", " wörld", "!", " don't", " (", " x", ")", " 5", "\n", "<|endoftext|>"]
    assert joined(word_tokens) == tokens


def test_words_are_characters_in_languages_without_spaces():
    tokenizer = get_tokenizer(True, num_languages=100, language="yue")
    words, _ = tokenizer.split_to_word_tokens(tokenizer.encode("你好 齉龘"))
    assert "".join(words) == "你好 齉龘"
    assert words[-1] == "龘"  # of three tokens
    assert get_tokenizer(True, language="en").split_to_word_tokens(tokenizer.encode("你好吗"))[0] == ["你好吗"]


def test_no_token_is_lost_at_broken_bytes():
    """The first two bytes of a character, then a letter: openai-whisper loses all that follows."""
    tokenizer = get_tokenizer(True, language="ja")
    byte = tokenizer.encoding.encode_single_token
    broken = [byte(b"\xe3"), byte(b"\x81")]

    for tail in ([], tokenizer.encode("a あ"), [tokenizer.eot]):
        words, word_tokens = tokenizer.split_to_word_tokens([*broken, *tail])
        assert joined(word_tokens) == [*broken, *tail]
        assert words[:2] == ["\ufffd", "\ufffd"]
        assert "".join(words[2:]) == tokenizer.decode(tail)
    assert tokenizer.split_to_word_tokens([]) == ([], [])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_words_put_every_token_in_its_place(language):
    tokenizer = get_tokenizer(True, language=language)
    rng = random.Random(7)
    for text in random_texts(310):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        words, word_tokens = tokenizer.split_to_word_tokens(tokens)
        assert "".join(words) == text, "text cut inside no character"
        assert joined(word_tokens) == tokens

        noise = [rng.randrange(51865) for _ in range(20)]
        assert joined(tokenizer.split_to_word_tokens(noise)[1]) == noise


def test_non_speech_tokens():
    multilingual, english = get_tokenizer(True), get_tokenizer(False)

    assert len(multilingual.non_speech_tokens) == 82
    assert multilingual.non_speech_tokens[:6] == (1, 2, 7, 8, 9, 10)
    for annotation in ("♪", "[", " (", ' "', "♪♪♪", " -", " '"):
        assert multilingual.encode(annotation)[0] in multilingual.non_speech_tokens
        assert english.encode(annotation)[0] in english.non_speech_tokens
    for mark in ",.?!-'":
        assert multilingual.encode(mark)[0] not in multilingual.non_speech_tokens


# -- openai-whisper's answers -----------------------------------------------------------------------------

ANSWERS = """
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, get_tokenizer

def fields(multilingual, num_languages, language, task):
    t = get_tokenizer(multilingual, num_languages=num_languages, language=language, task=task)
    return [
        t.eot, t.sot, t.sot_lm, t.sot_prev, t.transcribe, t.translate, t.no_speech, t.no_timestamps,
        t.timestamp_begin, t.sot_sequence, t.sot_sequence_including_notimestamps, t.language, t.task,
        t.language and t.language_token, sorted(t.all_language_tokens), sorted(t.all_language_codes),
        t.num_languages,
    ]

def split(tokenizer, tokens):
    # None where the words are not the tokens and the text in pieces, or the original crashes
    try:
        words, groups = tokenizer.split_to_word_tokens(tokens)
    except IndexError:
        return None
    intact = sum(groups, []) == list(tokens) and "".join(words) == tokenizer.decode_with_timestamps(tokens)
    return [words, groups] if intact else None

def texts(tokenizer, strings):
    tokens = [tokenizer.encode(s) for s in strings]
    return [tokens, [tokenizer.decode(t) for t in tokens], [split(tokenizer, t + [tokenizer.eot]) for t in tokens]]

def compute(arguments):
    combinations = [
        [multilingual, n, language, task] for multilingual in (True, False) for n in (99, 100)
        for language in [None, *list(LANGUAGES)[:n], "French", "mandarin"]
        for task in (None, "transcribe", "translate", "lang_id")
    ]
    english, others, chinese, *unspaced = [
        get_tokenizer(l != "gpt2", num_languages=100, language=None if l == "gpt2" else l)
        for l in ("gpt2", "fr", "zh", "ja", "th", "lo", "my", "yue")
    ]
    strings = arguments["strings"]
    return {
        "tables": [LANGUAGES, TO_LANGUAGE_CODE],
        "fields": [fields(*c) for c in combinations],
        "non_speech": [get_tokenizer(m).non_speech_tokens for m in (True, False)],
        "special": [get_tokenizer(m, num_languages=n).special_tokens for m in (True, False) for n in (99, 100)],
        "texts": [texts(t, strings) for t in (english, others, chinese)],
        "unspaced": [texts(t, strings[::10]) for t in unspaced],
        "noise": [
            [[t.decode(x), t.decode_with_timestamps(x), split(t, x)] for x in arguments["noise"]]
            for t in (others, chinese)
        ],
    }
"""


def plain(value: Any) -> Any:
    """Return `value` as JSON would bring it back."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def token_noise(rng: random.Random, count: int) -> list[list[int]]:
    """Return sequences of any tokens, with a share of such that are parts of characters."""
    decode = get_tokenizer(True).decode
    parts = [token for token in range(50257) if "\ufffd" in decode([token])]
    return [
        [rng.choice(parts) if rng.random() < share else rng.randrange(51866) for _ in range(rng.randint(0, 12))]
        for share in (rng.choice([0.0, 0.1, 0.5]) for _ in range(count))
    ]


@pytest.mark.peers
@pytest.mark.shared
def test_every_answer_is_openai_whispers(original: Callable[..., Any], shared_data: Path, tmp_path: Path) -> None:
    rng = random.Random(11)
    strings = real_texts(shared_data) + random_texts(3100)
    noise = token_noise(rng, 3000)
    theirs = original(ANSWERS + "\nanswer = compute(arguments)", tmp_path, strings=strings, noise=noise)
    space: dict[str, Any] = {}
    exec(compile(ANSWERS, "ours", "exec"), space)
    ours = plain(space["compute"]({"strings": strings, "noise": noise}))

    assert len(set(strings)) >= 3000
    for key in ("tables", "fields", "non_speech", "special", "texts", "unspaced"):
        assert ours[key] == theirs[key], key
    assert list(LANGUAGES) == list(theirs["tables"][0]), "the order is that of the tokens"
    broken = 0
    for our_answers, their_answers in zip(ours["noise"], theirs["noise"], strict=True):
        for (text, stamped, words), expected in zip(our_answers, their_answers, strict=True):
            assert [text, stamped] == expected[:2]
            assert expected[2] in (words, None)
            assert expected[2] is not None or "\ufffd" in text, "only broken characters may be cut otherwise"
            broken += expected[2] is None
    print(f"\n{len(set(strings))} texts and {len(noise)} token sequences alike; the original cut {broken} wrongly")
