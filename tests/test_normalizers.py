"""The normalisers: each rule by example, and openai-whisper's every answer, its oddities included."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_tokenizer import random_texts, real_texts
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer
from whisper.normalizers.basic import remove_symbols, remove_symbols_and_diacritics
from whisper.normalizers.english import EnglishNumberNormalizer, EnglishSpellingNormalizer

numbers = EnglishNumberNormalizer()
english = EnglishTextNormalizer()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("twenty five thousand three hundred and seven", "25307"),
        ("two hundred and", "200 and"),
        ("one oh one", "101"),
        ("one oh twenty five", "1025"),
        ("nineteen eighty four", "1984"),
        ("nineteen eighteen", "1918"),
        ("three million two hundred thousand", "3200000"),
        ("one decillion", "1" + "0" * 33),
        ("double oh seven", "007"),
        ("triple five one", "5551"),
        ("double trouble", "double trouble"),
        ("two point five million", "2500000"),
        ("1.2.3 thousand", "one.2.3 1000"),
        ("seven point two point three thousand", "7.2.3 1000"),
        ("point of order", "point of order"),
        ("two and a half", "2.5"),
        ("day and a half", "day and a half"),
        ("and a half", ""),
    ],
)
def test_cardinals_and_decimals(text, expected):
    assert numbers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thirty second", "32nd"),
        ("two hundred fiftieth", "250th"),
        ("one hundred and first", "101st"),
        ("ninth", "ninth"),
        ("nineteen sixties", "1960s"),
        ("twenty twelfth", "2012th"),
        ("sixes and twos", "6s and 2s"),
        ("four thousandth", "4000th"),
        ("1960 s", "1960s"),
        ("one", "one"),
        ("ones", "ones"),
        ("first", "1st"),
    ],
)
def test_suffixes(text, expected):
    assert numbers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("minus five", "-5"),
        ("minus the tax", "minus the tax"),
        ("plus 5 and minus $7", "+5 and minus $7"),
        ("$20 million", "$20000000"),
        ("twenty million dollars", "$20000000"),
        ("two dollars and seven cents", "$2.07"),
        ("zero dollars fifty cents", "¢50"),
        ("$0.50", "¢50"),
        ("five percent", "5%"),
        ("five per cent more", "5% more"),
        ("five per day", "5 per day"),
        ("percent", "percent"),
        ("minus minus", "-minus"),
    ],
)
def test_signs_money_and_percent(text, expected):
    assert numbers(text) == expected


def test_numbers_survive_what_python_does_not_convert():
    digits = "7" * 5000
    assert numbers(digits) == digits
    assert numbers("") == ""
    assert list(numbers.process_words(["", "five"])) == ["", "5"]


def test_english_text():
    text = "Mr. Park and Assoc. Prof. Kim Jr. [laughs] (coughs), hmm, DIDN'T say he's been to the Théâtre."
    assert english(text) == ("mister park and associate professor kim junior did not say he has been to the theater")
    assert english("They're 1,234.5 km away, for $ 5%, won't they?") == ("they are 1234.5 km away for 5% will not they")
    assert english("Let's see: I'ma wanna, y'all can't.") == "let us see i am going to want to you all can not"


def test_the_replacers_can_be_extended_by_any_pattern():
    mine = EnglishTextNormalizer()
    mine.replacers[r"\bwhisp\w+"] = "murmur"
    assert mine("Whispering, whisper") == "murmur murmur"
    assert english("Whispering") == "whispering"


def test_spelling():
    spelling = EnglishSpellingNormalizer()
    assert spelling("accessorise  the colour of mobilisation") == "accessorize the color of mobilization"
    assert len(spelling.mapping) == 1739


def test_basic_text():
    assert BasicTextNormalizer()("Olá, <noise> São (x) Tomé!  It's ½") == "olá são tomé it s 1 2"
    assert BasicTextNormalizer(remove_diacritics=True)("Łódź, Ærø, straße") == "lodz aero strasse"
    assert BasicTextNormalizer(split_letters=True)("한국e\u0301 ok") == "한 국 é o k"


def test_removal_of_symbols():
    assert remove_symbols("e\u0301 + 5€ हिन्दी") == "é   5  ह न द "
    assert remove_symbols_and_diacritics("é.5€ Øß हिन्दी", keep=".€") == "e.5€ Oss ह नद "
    assert remove_symbols_and_diacritics("a-b") == "a b", "what an earlier call kept is not kept"


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text_can_be_normalised(text):
    for normalizer in (english, BasicTextNormalizer(True, True)):
        result = normalizer(text)
        assert "  " not in result
        assert "[" not in result


# -- openai-whisper's answers -----------------------------------------------------------------------------

ANSWERS = """
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer
from whisper.normalizers.basic import remove_symbols, remove_symbols_and_diacritics
from whisper.normalizers.english import EnglishNumberNormalizer, EnglishSpellingNormalizer

def compute(strings):
    numbers = EnglishNumberNormalizer()
    functions = [
        EnglishTextNormalizer(), numbers, EnglishSpellingNormalizer(), remove_symbols,
        remove_symbols_and_diacritics, lambda s: remove_symbols_and_diacritics(s, keep=".%$"),
        lambda s: list(numbers.process_words(s.lower().split())), numbers.preprocess, numbers.postprocess,
        *[BasicTextNormalizer(a, b) for a in (False, True) for b in (False, True)],
    ]
    tables = {k: sorted(v) for k, v in vars(numbers).items()}
    return [[[f(s) for s in strings] for f in functions], tables, list(EnglishTextNormalizer().replacers.items())]
"""


def spoken_numbers(count: int, seed: int = 5) -> list[str]:
    """Return word salads of everything the number normaliser knows: numbers, money, years, contractions."""
    rng = random.Random(seed)
    known = sorted(numbers.words)
    rarely = [
        "1", "0", "7", "10", "42", "1984", "2.0", "3.14", "0.50", "$5", "€0", "-3", "+1,000", "£2.50", "¢7", "5%",
        "1st", "60s", "4k", "v2", "a", "and a half", "the", "is", "don't", "he's been", "mr.", "st.", "uh", "£",
        "%", "$", ".", "5.", "١٢", "５", "colour", "[x]", "(y)", "1960 s", "'s", "--5", "1.2.3", "it's 5 o'clock",
    ]  # fmt: skip
    few = [
        "one",
        "two",
        "twenty",
        "twelve",
        "first",
        "oh",
        "hundred",
        "thousand",
        "and",
        "point",
        "double",
        "minus",
    ]
    pools = (known, rarely, few)
    return [
        " ".join(rng.choice(rng.choices(pools, (5, 3, 6))[0]) for _ in range(rng.randint(1, 9))) for _ in range(count)
    ]


@pytest.mark.peers
@pytest.mark.shared
def test_every_answer_is_openai_whispers(original: Callable[..., Any], shared_data: Path, tmp_path: Path) -> None:
    strings = real_texts(shared_data) + random_texts(3100) + spoken_numbers(12000)
    theirs, their_tables, their_replacers = original(
        ANSWERS + "\nanswer = compute(arguments['strings'])", tmp_path, strings=strings
    )
    space: dict[str, Any] = {}
    exec(compile(ANSWERS, "ours", "exec"), space)
    ours, tables, replacers = space["compute"](strings)

    for number, (our_texts, their_texts) in enumerate(zip(ours, theirs, strict=True)):
        differing = [x for x in zip(strings, our_texts, their_texts, strict=True) if x[1] != x[2]]
        assert differing == [], (number, len(differing))
    assert tables == their_tables
    assert [list(pair) for pair in replacers] == their_replacers
    print(f"\n{len(set(strings))} texts alike through {len(ours)} functions")
