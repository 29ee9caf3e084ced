"""Words and phrases to listen for: which tokens become likelier for them, and by how much, as a text grows.

A prefix tree over the tokens of each phrase. A text that has begun a phrase has credit; it keeps the credit when the
phrase is whole, and gives it back when it goes on with something else, so that a likeness of beginnings earns nothing
(shallow fusion with a biasing tree: Zhao et al. 2019, "Shallow-Fusion End-to-End Contextual Biasing"). Knows tokens,
and no logits.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .tokenizer import Tokenizer, get_tokenizer


class _Node(dict[int, Any]):
    """The tokens that may follow, each with its node, and whether a phrase is whole here."""

    is_whole = False

    def add(self, tokens: Sequence[int]) -> None:
        node = self
        for token in tokens:
            node = node.setdefault(token, _Node())
        node.is_whole = True


class Place(NamedTuple):
    """Where in the tree a text stands."""

    node: _Node  # what it has said of a phrase; `root` where it has begun none
    root: _Node  # the phrases that may begin here
    n_open: int = 0  # tokens whose credit is lost if the phrase does not become whole
    kept: float = 0.0  # credit of whole phrases


class Bonuses(NamedTuple):
    """The tokens that become likelier at a place."""

    ids: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]  # added to their logits
    shares: npt.NDArray[np.float64]  # of their probabilities: what is owed to that


class Hotwords:
    """Phrases that are listened for.

    Each counts as it is written and with a capital letter, after a space and, where a word begins without one (at the
    start, after a quotation mark, anywhere in scripts without cases, as many have no spaces), without. Inside
    another phrase none begins, and none goes on over a timestamp.

    Parameters
    ----------
    phrases
        Not empty.
    boost
        Added to the log-probability of a token that begins or continues a phrase.
    tokenizer
        Of the model.

    Raises
    ------
    OptionError
        A phrase holds the text of a special token.
    """

    def __init__(self, phrases: Sequence[str], boost: float, tokenizer: Tokenizer) -> None:
        self.boost = boost
        self._tokenizer = tokenizer
        self._within, self._afresh = _Node(), _Node()  # what may begin after a letter or digit, and elsewhere
        for text in _spellings(phrases):
            tokens = tokenizer.encode(text)
            self._afresh.add(tokens)
            if text[0] == " " or unicodedata.category(text[0]) == "Lo":
                self._within.add(tokens)
        self._root_after: dict[int, _Node] = {}  # by token
        self._bonuses: dict[tuple[int, int, int], Bonuses] = {}

    def credit(self, n_open: int) -> float:
        """Return what a text gives back if it leaves a phrase of which it has said so many tokens."""
        return self.boost * n_open

    def begin(self) -> Place:
        """Return where a text stands that has said nothing."""
        return Place(self._afresh, self._afresh)

    def follow(self, place: Place, said: Iterable[int]) -> Place:
        """Return where a text stands that goes on from a place with these tokens."""
        node, root, n_open, kept = place
        for token in said:
            after: _Node | None
            if token in node:
                after, n_open = node[token], n_open + 1
            elif token in root:
                after, n_open = root[token], 1
            else:
                after, n_open = None, 0
            if after is not None and after.is_whole:
                kept, n_open = kept + self.credit(n_open), 0
            root = self._after(token)
            node = after or root
        return Place(node, root, n_open, kept)

    def _after(self, token: int) -> _Node:
        if token not in self._root_after:
            text = self._tokenizer.decode([token])
            inside = text[-1:].isalnum() or text[-1:] == "\ufffd"  # or in the middle of a letter
            self._root_after[token] = self._within if inside else self._afresh
        return self._root_after[token]

    def bonuses(self, place: Place) -> Bonuses:
        """Return which tokens become likelier at a place."""
        key = id(place.node), place.n_open, id(place.root)
        if key not in self._bonuses:
            added = dict.fromkeys(place.root, self.credit(1))
            if place.node is not place.root:
                added |= dict.fromkeys(place.node, self.credit(place.n_open + 1))
            values = np.array([*added.values()])
            self._bonuses[key] = Bonuses(np.array([*added], np.int64), values.astype(np.float32), -np.expm1(-values))
        return self._bonuses[key]


@lru_cache(maxsize=16)
def hotwords_for(phrases: tuple[str, ...], boost: float, multilingual: bool, num_languages: int) -> Hotwords:
    """Return the same for the same; see `Hotwords`, and `get_tokenizer` for what is known of the model."""
    return Hotwords(phrases, boost, get_tokenizer(multilingual, num_languages=num_languages))


def _spellings(phrases: Sequence[str]) -> Iterator[str]:
    for phrase in map(str.strip, phrases):
        for text in (phrase, phrase[0].upper() + phrase[1:]):
            yield from (text, " " + text)
