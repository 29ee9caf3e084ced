"""Normalisation for English: one way to write each number, contraction, title and spelling.

For scoring only: the rules are openai-whisper's down to their oddities (``ninth`` is not a number, ``nineth``
is), because word error rates compare only under the same rules. What looks wrong here is so on purpose.

The spelling table ``english.json`` comes from openai-whisper (MIT, ``assets/LICENSE.openai-whisper``), which
took it from https://www.tysto.com/uk-us-spelling-list.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from .basic import WHITE_SPACE, remove_annotations, remove_symbols_and_diacritics

_ONES = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_POWERS_OF_1000 = [
    "thousand", "million", "billion", "trillion", "quadrillion", "quintillion", "sextillion", "septillion",
    "octillion", "nonillion", "decillion",
]  # fmt: skip
_IRREGULAR_ORDINALS = {
    "zeroth": (0, "th"), "first": (1, "st"), "second": (2, "nd"), "third": (3, "rd"), "fifth": (5, "th"),
    "twelfth": (12, "th"),
}  # fmt: skip

_DIGITS = re.compile(r"\d+(\.\d+)?$")
_AND_A_HALF = re.compile(r"\band\s+a\s+half\b")
_LETTER_THEN_DIGIT = re.compile(r"([a-z])([0-9])")
_DIGIT_THEN_LETTER = re.compile(r"([0-9])([a-z])")
_SPACED_SUFFIX = re.compile(r"([0-9])\s+(st|nd|rd|th|s)\b")
_CURRENCY_AND_CENTS = re.compile(r"([€£$])([0-9]+) (?:and )?¢([0-9]{1,2})\b")
_ONLY_CENTS = re.compile(r"[€£$]0.([0-9]{1,2})\b")  # the dot is any character: "$0 50" is cents as well
_LONE_ONE = re.compile(r"\b1(s?)\b")

Number = int | str  # a string once digits were read one by one: "one oh one" is "101", not 1, 0, 1
Suffixed = dict[str, tuple[int, str]]


class EnglishNumberNormalizer:
    """Write spelled-out numbers in digits.

    - ``twenty five thousand`` -> ``25000``, ``one oh one`` -> ``101``, ``two point five`` -> ``2.5``
    - suffixes stay: ``nineteen sixties`` -> ``1960s``, ``thirty second`` -> ``32nd``
    - signs move to the front and per cent behind: ``$20 million`` -> ``$20000000``, ``minus five percent`` ->
      ``-5%``
    - the number 1 is written ``one``, which is more often a pronoun
    """

    def __init__(self) -> None:
        self.zeros = {"o", "oh", "zero"}
        self.ones = {name: value for value, name in enumerate(_ONES, start=1)}
        self.ones_plural: Suffixed = {
            name + ("es" if name == "six" else "s"): (value, "s") for name, value in self.ones.items()
        }
        self.ones_ordinal: Suffixed = {
            **_IRREGULAR_ORDINALS,
            **{
                name + ("h" if name.endswith("t") else "th"): (value, "th")
                for name, value in self.ones.items()
                if value > 3 and value not in (5, 12)
            },
        }
        self.ones_suffixed = {**self.ones_plural, **self.ones_ordinal}

        self.tens = {name: value for value, name in zip(range(20, 100, 10), _TENS, strict=True)}
        self.tens_plural: Suffixed = {n.replace("y", "ies"): (value, "s") for n, value in self.tens.items()}
        self.tens_ordinal: Suffixed = {n.replace("y", "ieth"): (value, "th") for n, value in self.tens.items()}
        self.tens_suffixed = {**self.tens_plural, **self.tens_ordinal}

        powers = {name: 1000**i for i, name in enumerate(_POWERS_OF_1000, start=1)}
        self.multipliers = {"hundred": 100, **powers}
        self.multipliers_plural: Suffixed = {name + "s": (value, "s") for name, value in self.multipliers.items()}
        self.multipliers_ordinal: Suffixed = {name + "th": (value, "th") for name, value in self.multipliers.items()}
        self.multipliers_suffixed = {**self.multipliers_plural, **self.multipliers_ordinal}
        self.decimals = {*self.ones, *self.tens, *self.zeros}

        self.preceding_prefixers = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}
        self.following_prefixers = {
            "pound": "£", "pounds": "£", "euro": "€", "euros": "€", "dollar": "$", "dollars": "$",
            "cent": "¢", "cents": "¢",
        }  # fmt: skip
        self.prefixes = {*self.preceding_prefixers.values(), *self.following_prefixers.values()}
        self.suffixers: dict[str, str | dict[str, str]] = {"per": {"cent": "%"}, "percent": "%"}
        self.specials = {"and", "double", "triple", "point"}
        self.words: set[str] = set().union(
            self.zeros, self.ones, self.ones_suffixed, self.tens, self.tens_suffixed, self.multipliers,
            self.multipliers_suffixed, self.preceding_prefixers, self.following_prefixers, self.suffixers,
            self.specials,
        )  # fmt: skip
        self.literal_words = {"one", "ones"}

    def process_words(self, words: list[str]) -> Iterator[str]:
        """Yield the words, with a number in digits for each run of words that spells one."""
        reader = _NumberReader(self)
        for previous, word, following in zip([None, *words], words, [*words[1:], None], strict=False):
            reader.read(previous, word, following)
            yield from reader.take()
        reader.flush()
        yield from reader.take()

    def preprocess(self, s: str) -> str:
        """Return `s` with "and a half" as "point five" after a number, and digits parted from letters."""
        *segments, last = _AND_A_HALF.split(s)
        parts = []
        for segment in segments:
            if not segment.strip():
                continue  # and its "and a half" goes with it
            last_word = segment.rsplit(maxsplit=2)[-1]
            is_number = last_word in self.decimals or last_word in self.multipliers
            parts += [segment, "point five" if is_number else "and a half"]
        if last.strip():
            parts.append(last)

        s = _LETTER_THEN_DIGIT.sub(r"\1 \2", " ".join(parts))
        s = _DIGIT_THEN_LETTER.sub(r"\1 \2", s)
        return _SPACED_SUFFIX.sub(r"\1\2", s)

    def postprocess(self, s: str) -> str:
        """Return `s` with dollars and cents as one amount, and the number 1 as a word."""
        s = _CURRENCY_AND_CENTS.sub(lambda m: f"{m[1]}{m[2]}.{int(m[3]):02d}", s)
        s = _ONLY_CENTS.sub(lambda m: f"¢{int(m[1])}", s)
        return _LONE_ONE.sub(r"one\1", s)

    def __call__(self, s: str) -> str:
        """Return `s`, which is in lower case, with its numbers in digits and single spaces."""
        return self.postprocess(" ".join(self.process_words(self.preprocess(s).split())))


class _NumberReader:
    """A state machine over words: a sign and the number read so far, and the words ready to be taken.

    `read` sends each word to the method for its sort; that method extends the number or ends it.
    """

    def __init__(self, names: EnglishNumberNormalizer) -> None:
        self.names = names
        self.sign = ""
        self.value: Number | None = None
        self.skip = False  # the next word was already read together with this one
        self.ready: list[str] = []

    def take(self) -> list[str]:
        ready, self.ready = self.ready, []
        return ready

    def emit(self, text: Number) -> None:
        """Let `text` out behind the sign, and start afresh."""
        self.ready.append(f"{self.sign}{text}")
        self.sign, self.value = "", None

    def flush(self) -> None:
        """End the number, if there is one."""
        if self.value is not None:
            self.emit(self.value)

    def read(self, previous: str | None, word: str, following: str | None) -> None:
        if self.skip:
            self.skip = False
            return
        names = self.names
        if _DIGITS.match(word, 1 if word[:1] in names.prefixes else 0):
            self.read_digits(word)
        elif word not in names.words:
            self.flush()
            self.emit(word)
        elif word in names.zeros:
            self.value = f"{self.value or ''}0"
        elif word in names.specials:
            self.read_special(previous, word, following)
        elif word in names.preceding_prefixers:
            self.read_sign(word, following)
        elif word in names.following_prefixers:
            self.read_currency(word)
        elif word in names.suffixers:
            self.read_percent(word, following)
        else:
            self.read_number_word(previous, word)

    def read_digits(self, word: str) -> None:
        """Take a number in digits, perhaps with a sign: it starts a new number unless it follows a point."""
        if isinstance(self.value, str) and self.value.endswith("."):
            self.value += word
            return
        self.flush()
        if word[0] in self.names.prefixes:
            self.sign, word = word[0], word[1:]
        number = _fraction(word)
        self.value = number.numerator if number is not None and number.denominator == 1 else word

    def read_number_word(self, previous: str | None, word: str) -> None:
        """Take "seven", "sixty", "thousand", or with a suffix, which ends it, "seventh", "sixties"."""
        names = self.names
        for plain, suffixed, join in (
            (names.ones, names.ones_suffixed, self.join_ones),
            (names.tens, names.tens_suffixed, self.join_tens),
            (names.multipliers, names.multipliers_suffixed, self.multiply),
        ):
            if word in plain:
                self.value = join(plain[word], previous)
            elif word in suffixed:
                number, suffix = suffixed[word]
                self.emit(f"{join(number, previous)}{suffix}")

    def join_ones(self, ones: int, previous: str | None) -> Number:
        """Return the value with 0 to 19 behind it: added where the zeros leave room, else as more digits."""
        value = self.value
        if value is None:
            return ones
        if isinstance(value, str) and previous in self.names.tens and ones < 10:
            return f"{value[:-1]}{ones}"  # "one oh twenty five": the last zero gives way
        if isinstance(value, str) or previous in self.names.ones:
            return f"{value}{ones}"
        room = 10 if ones < 10 else 100
        return f"{value}{ones}" if value % room else value + ones

    def join_tens(self, tens: int, previous: str | None) -> Number:
        """Return the value with 20 to 90 behind it, in the same way."""
        if self.value is None:
            return tens
        if isinstance(self.value, str) or self.value % 100:
            return f"{self.value}{tens}"
        return self.value + tens

    def multiply(self, multiplier: int, previous: str | None) -> int:
        """Return the value's last three digits multiplied, or a text of digits as a whole.

        What cannot be multiplied to a whole number ("1.2.3 thousand") goes out as it is.
        """
        value = self.value
        if value is None:
            return multiplier
        if isinstance(value, int):
            return value // 1000 * 1000 + value % 1000 * multiplier
        number = _fraction(value)
        if number is not None and (number * multiplier).denominator == 1:
            return (number * multiplier).numerator
        self.flush()
        return multiplier

    def read_sign(self, word: str, following: str | None) -> None:
        self.flush()
        if self.can_be_number(following):
            self.sign = self.names.preceding_prefixers[word]
        else:
            self.emit(word)

    def read_currency(self, word: str) -> None:
        if self.value is None:
            self.emit(word)
        else:
            self.sign = self.names.following_prefixers[word]
            self.flush()

    def read_percent(self, word: str, following: str | None) -> None:
        suffix = self.names.suffixers[word]
        if isinstance(suffix, dict):
            suffix = suffix.get(following or "", "")
            self.skip = self.value is not None and suffix != ""
        if self.value is not None and suffix:
            self.emit(f"{self.value}{suffix}")
        else:
            self.flush()
            self.emit(word)

    def read_special(self, previous: str | None, word: str, following: str | None) -> None:
        """Take "and", "double", "triple" or "point", which mean something only before a number."""
        names = self.names
        if self.can_be_number(following):
            if word == "and" and previous in names.multipliers:
                return  # "two hundred and five"
            if word == "point":
                if following in names.decimals or not self.is_word(following):
                    self.value = f"{self.value or ''}."
                return
            if word != "and" and (following in names.ones or following in names.zeros):
                repeats = 2 if word == "double" else 3
                self.value = f"{self.value or ''}{str(names.ones.get(following or '', 0)) * repeats}"
                self.skip = True
                return
        self.flush()
        self.emit(word)

    def is_word(self, text: str | None) -> bool:
        return text in self.names.words

    def can_be_number(self, text: str | None) -> bool:
        return self.is_word(text) or (text is not None and _DIGITS.match(text) is not None)


def _fraction(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except ValueError:  # several points; or more digits than Python converts
        return None


@lru_cache(maxsize=1)
def _spellings() -> dict[str, str]:
    table: dict[str, str] = json.loads((Path(__file__).parent / "english.json").read_text(encoding="utf-8"))
    return table


class EnglishSpellingNormalizer:
    """Write British spellings the American way, by the table of https://www.tysto.com/uk-us-spelling-list.html."""

    def __init__(self) -> None:
        self.mapping = dict(_spellings())

    def __call__(self, s: str) -> str:
        """Return `s`, which is in lower case, with American spellings and single spaces."""
        return " ".join([self.mapping.get(word, word) for word in s.split()])


# In the order in which they apply: "won't" before "n't", "'s been" before "'s".
_CONTRACTIONS = {
    r"\bwon't\b": "will not", r"\bcan't\b": "can not", r"\blet's\b": "let us", r"\bain't\b": "aint",
    r"\by'all\b": "you all", r"\bwanna\b": "want to", r"\bgotta\b": "got to", r"\bgonna\b": "going to",
    r"\bi'ma\b": "i am going to", r"\bimma\b": "i am going to", r"\bwoulda\b": "would have",
    r"\bcoulda\b": "could have", r"\bshoulda\b": "should have", r"\bma'am\b": "madam",
}  # fmt: skip
_TITLES = {
    r"\bmr\b": "mister ", r"\bmrs\b": "missus ", r"\bst\b": "saint ", r"\bdr\b": "doctor ",
    r"\bprof\b": "professor ", r"\bcapt\b": "captain ", r"\bgov\b": "governor ", r"\bald\b": "alderman ",
    r"\bgen\b": "general ", r"\bsen\b": "senator ", r"\brep\b": "representative ", r"\bpres\b": "president ",
    r"\brev\b": "reverend ", r"\bhon\b": "honorable ", r"\basst\b": "assistant ", r"\bassoc\b": "associate ",
    r"\blt\b": "lieutenant ", r"\bcol\b": "colonel ", r"\bjr\b": "junior ", r"\bsr\b": "senior ",
    r"\besq\b": "esquire ",
}  # fmt: skip
_PERFECT_TENSES = {
    r"'d been\b": " had been", r"'s been\b": " has been", r"'d gone\b": " had gone",
    r"'s gone\b": " has gone",
    r"'d done\b": " had done", r"'s got\b": " has got",  # and not "'s done", which may be "is done"
}  # fmt: skip
_ENDINGS = {
    r"n't\b": " not", r"'re\b": " are", r"'s\b": " is", r"'d\b": " would", r"'ll\b": " will", r"'t\b": " not",
    r"'ve\b": " have", r"'m\b": " am",
}  # fmt: skip

_SPACE_BEFORE_APOSTROPHE = re.compile(r"\s+'")
_COMMA_IN_NUMBER = re.compile(r"(\d),(\d)")
_FULL_STOP = re.compile(r"\.([^0-9]|$)")
_STRAY_PREFIX = re.compile(r"[.$¢€£]([^0-9])")
_STRAY_PERCENT = re.compile(r"([^0-9])%")


@lru_cache(maxsize=1024)
def _required_text(pattern: str) -> str:
    r"""Return what a text must hold for `pattern` to match; "" if `pattern` is more than ``\bwords\b``.

    Looking for it first saves most of the 50 searches by pattern, each ten times as slow.
    """
    words = pattern.removeprefix(r"\b").removesuffix(r"\b")
    return words if re.fullmatch(r"[a-z' ]+", words) else ""


class EnglishTextNormalizer:
    """Lower case; no annotations, hesitations or punctuation; contractions, titles and numbers in one form.

    Attributes
    ----------
    replacers
        Pattern and replacement of contractions and titles, applied in order; may be changed.
    """

    def __init__(self) -> None:
        self.ignore_patterns = r"\b(hmm|mm|mhm|mmm|uh|um)\b"
        self.replacers = {**_CONTRACTIONS, **_TITLES, **_PERFECT_TENSES, **_ENDINGS}
        self.standardize_numbers = EnglishNumberNormalizer()
        self.standardize_spellings = EnglishSpellingNormalizer()

    def __call__(self, s: str) -> str:
        """Return `s` normalised."""
        s = re.sub(self.ignore_patterns, "", remove_annotations(s.lower()))
        s = _SPACE_BEFORE_APOSTROPHE.sub("'", s)
        for pattern, replacement in self.replacers.items():
            if _required_text(pattern) in s:
                s = re.sub(pattern, replacement, s)

        s = _COMMA_IN_NUMBER.sub(r"\1\2", s)
        s = _FULL_STOP.sub(r" \1", s)
        s = remove_symbols_and_diacritics(s, keep=".%$¢€£")  # they may be part of a number
        s = self.standardize_spellings(self.standardize_numbers(s))
        s = _STRAY_PREFIX.sub(r" \1", s)
        s = _STRAY_PERCENT.sub(r"\1 ", s)
        return WHITE_SPACE.sub(" ", s)
