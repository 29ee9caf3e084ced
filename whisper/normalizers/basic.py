"""Normalisation for every language: no case, no punctuation, no annotations in brackets.

Knows no language: numbers, spelling and contractions stay as they are. The rules are those of Radford et
al. 2022 (arXiv:2212.04356), appendix C, as openai-whisper applies them, because word error rates compare
only under the same rules.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

# Letters that NFKD does not take apart.
ADDITIONAL_DIACRITICS = {
    "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "ß": "ss", "ẞ": "SS", "đ": "d",
    "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "th", "ł": "l", "Ł": "L",
}  # fmt: skip

IN_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]")
IN_PARENTHESES = re.compile(r"\(([^)]+?)\)")
WHITE_SPACE = re.compile(r"\s+")


class _CharacterTable(dict[int, str]):
    """For `str.translate`: what becomes of a character, worked out when it is first met.

    Marks, symbols and punctuation become a space. With `fold`, marks without a width and the diacritics of
    `ADDITIONAL_DIACRITICS` are dropped, and what is in `keep` stays.
    """

    def __init__(self, fold: bool, keep: frozenset[str]) -> None:
        super().__init__()
        self.fold = fold
        self.keep = keep

    def __missing__(self, code: int) -> str:
        self[code] = self._replace(chr(code))
        return self[code]

    def _replace(self, char: str) -> str:
        category = unicodedata.category(char)
        if char in self.keep:
            return char
        if self.fold and char in ADDITIONAL_DIACRITICS:
            return ADDITIONAL_DIACRITICS[char]
        if self.fold and category == "Mn":
            return ""
        return " " if category[0] in "MSP" else char


@lru_cache(maxsize=64)
def _table(fold: bool, keep: frozenset[str] = frozenset()) -> _CharacterTable:
    return _CharacterTable(fold, keep)


def remove_symbols_and_diacritics(s: str, keep: Iterable[str] = "") -> str:
    """Return `s` without diacritics and with a space for every symbol and punctuation mark not in `keep`."""
    return unicodedata.normalize("NFKD", s).translate(_table(True, frozenset(keep)))


def remove_symbols(s: str) -> str:
    """Return `s` with a space for every mark, symbol and punctuation mark; composed letters keep theirs."""
    return unicodedata.normalize("NFKC", s).translate(_table(False))


def remove_annotations(s: str) -> str:
    """Return `s` without what stands in brackets or parentheses: speakers, sounds, asides."""
    return IN_PARENTHESES.sub("", IN_BRACKETS.sub("", s))


class BasicTextNormalizer:
    """Lower case, no annotations, no punctuation, single spaces.

    Parameters
    ----------
    remove_diacritics
        Also drop diacritics: ``é`` becomes ``e``.
    split_letters
        Put a space between all letters (grapheme clusters), for languages that do not write spaces: the
        word error rate is then a character error rate.
    """

    def __init__(self, remove_diacritics: bool = False, split_letters: bool = False) -> None:
        self.clean = remove_symbols_and_diacritics if remove_diacritics else remove_symbols
        self.split_letters = split_letters

    def __call__(self, s: str) -> str:
        """Return `s` normalised; a space that punctuation left at either end stays."""
        s = self.clean(remove_annotations(s.lower())).lower()
        if self.split_letters:
            import regex

            s = " ".join(regex.findall(r"\X", s))
        return WHITE_SPACE.sub(" ", s)
