"""Where a line may end, and how well: a cost for the place before each word.

Whether a break is allowed follows Unicode's line breaking classes (Annex 14); how good it is follows the guidelines
of subtitlers: after punctuation, before conjunctions and prepositions, at pauses, and never between an article and
its noun, a title and a name, a number and its unit. Chinese and Japanese phrases and Thai words are found by BudouX
where it is installed.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence

from .cues import TimedWord
from .phrases import Phrases, phrases_of
from .text_width import MARKUP

FORBIDDEN = math.inf
SENTENCE = 0.0
CLAUSE = 1.5
CONJUNCTION = 2.5
PREPOSITION = 3.5
PLAIN = 6.0
IN_PHRASE = 12.0  # between characters of scripts without spaces
AFTER_LINK = 20.0  # between a preposition, or a conjunction, and what it introduces
TORN = 40.0  # inside what belongs together
PAUSE = 3.0  # what a pause of `LONG_PAUSE` is worth
LONG_PAUSE = 0.7  # seconds

_CLOSING = "\"'”’»)\\]」』）】］〉》"
_SENTENCE_END = re.compile(rf"[.!?…。！？｡؟।॥։።។]+[{_CLOSING}]*$")
_CLAUSE_END = re.compile(rf"[,;:،؛、，；：–—][{_CLOSING}]*$|--[{_CLOSING}]*$")
_INITIAL = re.compile(r"^\W*(?:[^\W\d_]\.)+$")
_NUMBER = re.compile(r"^\W*\d[\d.,:]*$")
_EDGES = re.compile(r"^[^\w']+|[^\w'.]+$")

# Classes of Annex 14. What none of these begins or ends is held together unless there is a space.
_NEVER_FIRST = r"[\p{lb=CL}\p{lb=CP}\p{lb=EX}\p{lb=IS}\p{lb=SY}\p{lb=NS}\p{lb=CJ}\p{lb=BA}\p{lb=HY}\p{lb=IN}\p{lb=PO}]"
_NEVER_SPLIT = r"[\p{lb=GL}\p{lb=WJ}\p{lb=ZWJ}\p{lb=CM}\p{lb=QU}]"
_NEVER_LAST = r"[\p{lb=OP}\p{lb=PR}]"
_ANYWHERE = r"[\p{lb=ID}\p{lb=CJ}\p{lb=NS}\p{lb=CL}\p{lb=CP}\p{lb=EX}\p{lb=SA}\p{lb=H2}\p{lb=H3}\p{lb=EB}\p{lb=EM}]"
_BEHIND = r"[\p{lb=BA}\p{lb=HY}\p{lb=ZW}\p{lb=B2}]"
_THAI_BEFORE = "เแโใไ"  # vowels that are written before their consonant
_THAI_AFTER = "ะาำๅๆฯ"


def break_costs(
    words: Sequence[TimedWord], language: str | None = None, segment_starts: Sequence[int] = (), markup: bool = False
) -> list[float]:
    """Rate the place before each word.

    Parameters
    ----------
    words
        As they follow one another, with the space before each.
    language
        Its code; None rates by punctuation and pauses alone.
    segment_starts
        Indexes of words with which a segment of the model begins: mostly a phrase, also without punctuation.
    markup
        The text has tags of a subtitle file, which count for nothing.

    Returns
    -------
    list of float
        One for each word, from 0 (a sentence ends) to `TORN`; `FORBIDDEN` where the script allows no break.
    """
    texts = [MARKUP.sub("", word.text) if markup else word.text for word in words]
    known = phrases_of(language)
    good = frozenset(_phrase_starts(texts, language))
    starts = frozenset(segment_starts)
    costs = [0.0] if words else []
    for k in range(1, len(words)):
        if not may_break(texts[k - 1], texts[k]):
            costs.append(FORBIDDEN)
            continue
        spaced = _spaced(texts[k - 1], texts[k])
        cost = _at_space(texts[k - 1].strip(), texts[k].strip(), known) if spaced else _unspaced(texts, k, good)
        if k in starts and cost < TORN:
            cost = min(cost, CLAUSE)
        pause = min(1.0, max(0.0, words[k].start - words[k - 1].end) / LONG_PAUSE)
        costs.append(max(0.0, cost - PAUSE * pause))
    return costs


def ends_sentence(text: str, language: str | None = None) -> bool:
    """Whether a word ends a sentence; a title or an initial with its full stop does not."""
    return _ends_sentence(text.strip(), phrases_of(language))


def _ends_sentence(word: str, known: Phrases) -> bool:
    if not _SENTENCE_END.search(word):
        return False
    return word.lower() not in known.abbreviations and not (_INITIAL.match(word) and word[:1].isupper())


def _at_space(left: str, right: str, known: Phrases) -> float:
    """Rate the space between two words."""
    if _ends_sentence(left, known):
        return SENTENCE
    if _CLAUSE_END.search(left):
        return CLAUSE
    before, after = _EDGES.sub("", left).lower(), _EDGES.sub("", right).lower()
    if before in known.bound or before in known.abbreviations or _NUMBER.match(left) or _is_name(left, right, known):
        return TORN
    if before in known.prepositions or before in known.conjunctions:
        return AFTER_LINK
    if after in known.conjunctions:
        return CONJUNCTION
    return PREPOSITION if after in known.prepositions else PLAIN


def _is_name(left: str, right: str, known: Phrases) -> bool:
    """Whether two words are parts of one name: both with a capital letter, or an initial and a word with one."""
    if not (known.bound and left[:1].isupper() and right[:1].isupper()):
        return False
    small = known.bound | known.prepositions | known.conjunctions
    if _INITIAL.match(left):
        return True
    return not (left.lower() in small or right.lower() in small or right == "I") and left[-1:].isalpha()


def _unspaced(texts: Sequence[str], k: int, good: frozenset[int]) -> float:
    """Rate a place without a space: in scripts that have none, or behind a hyphen."""
    left = texts[k - 1].strip()
    if _SENTENCE_END.search(left):
        return SENTENCE
    if _CLAUSE_END.search(left):
        return CLAUSE
    if k in good:
        return CONJUNCTION
    first = texts[k].strip()[:1]
    return TORN if _matches(r"[\p{lb=SA}\p{lb=H2}\p{lb=H3}]", first) else IN_PHRASE


# ---------------------------------------------------------------------------------------------------------
# What the script allows
# ---------------------------------------------------------------------------------------------------------


def may_break(left: str, right: str) -> bool:
    """Whether a line may end between two texts that follow one another.

    With a space between them, unless that does not break or one of them is punctuation that clings to the other;
    without one, where the characters belong to a script without spaces, or behind a hyphen (Unicode Annex 14).
    """
    last, first = left.rstrip()[-1:], right.lstrip()[:1]
    if not last or not first:
        return False
    if _spaced(left, right):
        space = left[len(left.rstrip()) :] + right[: len(right) - len(right.lstrip())]
        if "\u00a0" in space or "\u202f" in space or unicodedata.category(last) in ("Ps", "Pi"):
            return False
        alone = not any(map(str.isalnum, right)) and first not in "-–—"
        return not (alone and (_matches(_NEVER_FIRST, first) or unicodedata.category(first) in ("Pe", "Pf")))
    if _matches(_NEVER_FIRST, first) or _matches(_NEVER_SPLIT, first) or unicodedata.category(first)[0] == "M":
        return False
    if _matches(_NEVER_LAST, last) or _matches(r"[\p{lb=GL}\p{lb=WJ}\p{lb=ZWJ}\p{lb=QU}]", last):
        return False
    if last in _THAI_BEFORE or first in _THAI_AFTER:
        return False
    return _matches(_ANYWHERE, last) or _matches(_ANYWHERE, first) or _matches(_BEHIND, last)


def _spaced(left: str, right: str) -> bool:
    return left[-1:].isspace() or right[:1].isspace()


@functools.lru_cache(maxsize=16384)
def _matches(pattern: str, character: str) -> bool:
    import regex  # here, as `import whisper` must not load it

    return regex.match(pattern, character) is not None


def _phrase_starts(texts: Sequence[str], language: str | None) -> Iterator[int]:
    """Give the indexes of words with which a phrase begins in a script without spaces, as BudouX finds them."""
    parser = _phrase_parser(language)
    if parser is None:
        return
    offsets, at = {0}, 0
    for phrase in parser.parse("".join(texts)) if any(texts) else ():
        at += len(phrase)
        offsets.add(at)
    at = 0
    for k, text in enumerate(texts):
        if at in offsets:
            yield k
        at += len(text)


@functools.cache
def _phrase_parser(language: str | None):  # type: ignore[no-untyped-def]
    """Return BudouX's parser of a language; None where it has none, or is not installed."""
    names = {"ja": "japanese", "zh": "simplified_chinese", "yue": "traditional_chinese", "th": "thai"}
    if language not in names:
        return None
    try:
        import budoux
    except ImportError:
        return None
    return getattr(budoux, f"load_default_{names[language]}_parser")()
