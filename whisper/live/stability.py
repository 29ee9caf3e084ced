"""Which words of an item will be said again: stable text that is sent once, and the rest, which may change.

A word is stable when enough sound lies behind its end (the attention that places it is then away from the edge; cf.
AlignAtt, arXiv:2305.11408), and, with a longer delay, when two hypotheses in a row have it (cf. LocalAgreement,
arXiv:2307.14743). An improbable word waits for more sound: it is often another one then. Decodes nothing; texts and
times in, texts out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SURE = 0.5  # the probability of a word that does not wait longer
# a letter of a script without spaces, or a word
_UNITS = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]+")


class Word(Protocol):
    """A word with its end; see `refresh.HeardWord`."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> tuple[int, ...]: ...
    @property
    def end(self) -> float: ...
    @property
    def probability(self) -> float: ...


@dataclass(frozen=True)
class _New:
    """A word, or a part of one, behind the stable text."""

    text: str
    tokens: tuple[int, ...]
    end: float
    probability: float

    @property
    def is_mark(self) -> bool:
        return not any(map(str.isalnum, self.text))

    @property
    def is_doubtful(self) -> bool:
        return self.probability < SURE and not self.is_mark


class ItemText:
    """The text of an item while it grows.

    Parameters
    ----------
    guard
        Seconds of sound behind the end of a word before it may be stable.
    agreement
        Whether the hypothesis before must have had it, too.
    doubtful_guard
        The seconds behind an improbable word; those of any word where it is not given.

    Attributes
    ----------
    text
        The stable text, as it was sent.
    tokens
        Its token ids, with which the next hypothesis begins.
    interim
        The rest of the last hypothesis.
    """

    def __init__(self, guard: float, agreement: bool, doubtful_guard: float | None = None) -> None:
        self._guard, self._agreement = guard, agreement
        self._doubtful_guard = guard if doubtful_guard is None else doubtful_guard
        self.text, self.interim = "", ""
        self.tokens: tuple[int, ...] = ()
        self._n_chars = 0  # of the words that are stable, with the space before the first
        self._before: list[str] = []  # the words of the last hypothesis behind the stable text

    def take(self, words: Sequence[Word], heard: float) -> str:
        """Take in a hypothesis, which begins with the stable tokens; returns what became stable.

        Parameters
        ----------
        words
            Of the whole item.
        heard
            Seconds of sound that they were heard in.
        """
        new = self._behind(words)
        n_stable = 0
        for i, word in enumerate(new):
            agreed = not self._agreement or (i < len(self._before) and self._before[i] == word.text)
            guard = self._doubtful_guard if word.is_doubtful else self._guard
            if word.end > heard - guard or not agreed:
                break
            n_stable = i + 1
        while n_stable and all(word.is_mark for word in new[n_stable - 1 :]):
            n_stable -= 1  # a mark at the end only says that the sound ends there
        stable, rest = new[:n_stable], new[n_stable:]
        self.tokens += tuple(token for word in stable for token in word.tokens)
        self._n_chars += sum(len(word.text) for word in stable)
        self._before = [word.text for word in rest]
        delta = self._add("".join(word.text for word in stable))
        interim = "".join(self._before)
        self.interim = interim if self.text else interim.lstrip()
        return delta

    def complete(self, final: str) -> str:
        """Take in the text of the transcript; returns what it has behind the stable words, so that nothing is lost."""
        final = final.strip()
        self.interim = ""
        if final.startswith(self.text):
            return self._add(final[len(self.text) :])
        units = list(_UNITS.finditer(final))
        n_said = _n_matched(_units(self.text), [unit[0].casefold() for unit in units])
        rest = final[units[n_said - 1].end() :] if n_said else f" {final}".rstrip()
        if self.text and not self.text[-1].isalnum():
            rest = re.sub(r"^[^\w\s]+", "", rest)
        return self._add(rest)

    def _behind(self, words: Sequence[Word]) -> list[_New]:
        """Return what is behind the stable text; a word may begin in it, such as ``don't`` behind ``don``."""
        new, n_chars, n_tokens = [], self._n_chars, len(self.tokens)
        for word in words:
            text, tokens = word.text[max(n_chars, 0) :], word.tokens[max(n_tokens, 0) :]
            n_chars, n_tokens = n_chars - len(word.text), n_tokens - len(word.tokens)
            if tokens:
                new.append(_New(text, tokens, word.end, word.probability))
        return new

    def _add(self, text: str) -> str:
        delta = text if self.text else text.lstrip()
        self.text += delta
        return delta


def _units(text: str) -> list[str]:
    return [unit.casefold() for unit in _UNITS.findall(text)]


def _n_matched(said: Sequence[str], final: Sequence[str]) -> int:
    """Return how many words of the final text the said ones are, by the fewest changes between them."""
    costs = list(range(len(final) + 1))  # from no said word to the first n of the final ones
    for n_said, word in enumerate(said, 1):
        before, costs = costs, [n_said]
        for i, other in enumerate(final, 1):
            costs.append(min(before[i - 1] + (word != other), before[i] + 1, costs[i - 1] + 1))
    return min(range(len(costs)), key=lambda n: (costs[n], abs(n - len(said))))
