"""Texts for speech synthesis: sentences from text files, and numbers spelled in words.

Keeps only texts with one reading: lines with digits or symbols are left out. Knows no voice.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError, LanguageError
from ..manifests.read import COLUMNS, resolve_language


def read_texts(path: str | os.PathLike[str], language: str | None = None) -> list[str]:
    """Read sentences from a file, or from all ``.txt`` and ``.tsv`` of a folder, also gzipped.

    One sentence per line. Of lines with tabs the text is the last cell or, under a header, that of
    the text column; if the header has a language, only lines in `language` count. Lines in capitals
    are converted to lower case, because a voice may spell capitals. Sentences with digits or
    symbols are left out, because their reading depends on the voice.

    Raises
    ------
    DataError
        There is no file, or no sentence in it.
    """
    path = Path(path)
    kinds = (".txt", ".tsv", ".txt.gz", ".tsv.gz")
    files = sorted(p for p in path.rglob("*") if p.name.endswith(kinds)) if path.is_dir() else [path]
    if not files or not path.exists():
        raise DataError(f"{path} holds no texts: sentences are read from {', '.join(kinds)}")
    code = resolve_language(language or "")
    sentences: dict[str, None] = {}  # an ordered set
    for file in files:
        with gzip.open(file, "rb") if file.suffix == ".gz" else open(file, "rb") as opened:
            lines = opened.read().decode("utf-8-sig", "replace").splitlines()
        cleaned = (_clean_sentence(text) for text in _texts_of(lines, code))
        sentences.update((sentence, None) for sentence in cleaned if sentence)
    if not sentences:
        raise DataError(f"{path} has no sentence" + (f" in {code!r}" if code else ""))
    return list(sentences)


def _texts_of(lines: list[str], code: str | None) -> Iterator[str]:
    """The text of each line, or of each line in the language `code`."""
    names = [name.strip().lower() for name in lines[0].split("\t")] if lines else []
    column = next((names.index(name) for name in COLUMNS["text"] if len(names) > 1 and name in names), None)
    if column is None:
        yield from (line.rpartition("\t")[2] for line in lines)
        return
    language = next((names.index(name) for name in COLUMNS["language"] if name in names), None)
    for line in lines[1:]:
        cells = line.split("\t")
        if len(cells) == len(names) and (language is None or code is None or _is_in(code, cells[language])):
            yield cells[column]


def _is_in(code: str, language: str) -> bool:
    try:
        return resolve_language(language) == code
    except LanguageError:  # the row is in a language that Whisper does not have
        return False


def _clean_sentence(text: str) -> str:
    """Normalize punctuation; empty where the text has digits or symbols."""
    text = text.translate({0x2019: "'", 0x2018: "'", 0xA0: " ", 0x201C: '"', 0x201D: '"', 0x2026: "..."})
    text = " ".join(text.replace("--", ", ").replace("—", ", ").replace('"', "").replace(" ,", ",").split())
    if not re.fullmatch(r"(?:[^\W\d_]|[\s.,;:!?'()-])+", text) or not re.search(r"[^\W\d_]", text):
        return ""
    return text.lower() if text == text.upper() else text


_ENGLISH = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_ENGLISH_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_FRENCH = (
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit "
    "dix-neuf"
)
_FRENCH_TENS = "vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt"


def spell_number(number: int, language: str = "en") -> str:
    """Return a number from 0 to 9999 in words, in English or French (of France)."""
    if not 0 <= number <= 9999 or language not in ("en", "fr"):
        raise DataError(f"cannot spell {number} in {language!r}: only 0 to 9999 in 'en' and 'fr'")
    below_hundred = _english if language == "en" else _french
    if number < 100:
        return below_hundred(number)
    size, unit, units = (1000, "thousand", "thousand") if number >= 1000 else (100, "hundred", "hundred")
    if language == "fr":
        unit, units = ("mille", "mille") if number >= 1000 else ("cent", "cents")
    many, rest = divmod(number, size)
    if language == "fr" and many == 1:
        head = unit
    else:
        head = f"{below_hundred(many)} {units if many > 1 and not rest else unit}"
    return f"{head} {spell_number(rest, language)}" if rest else head


def _english(number: int) -> str:
    if number < 20:
        return _ENGLISH.split()[number]
    tens = _ENGLISH_TENS.split()[number // 10 - 2]
    return f"{tens}-{_ENGLISH.split()[number % 10]}" if number % 10 else tens


def _french(number: int) -> str:
    names = _FRENCH.split()
    if number < 20:
        return names[number]
    tens, ones = divmod(number, 10)
    stem = _FRENCH_TENS.split()[tens - 2]
    if tens in (7, 9):  # continue from sixty and eighty
        ones += 10
    if number == 80:
        return "quatre-vingts"
    if ones in (1, 11) and tens < 8:
        return f"{stem} et {names[ones]}"
    return f"{stem}-{names[ones]}" if ones else stem


def number_texts(n_texts: int, seed: int, language: str = "en") -> list[str]:
    """Draw texts of numbers in words: one to six digits, or a number below 10,000."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(n_texts):
        if rng.random() < 0.7:
            digits = rng.integers(0, 10, size=int(rng.integers(1, 7)))
            texts.append(" ".join(spell_number(int(digit), language) for digit in digits))
        else:
            texts.append(spell_number(int(rng.integers(10 ** int(rng.integers(2, 5)))), language))
    return texts
