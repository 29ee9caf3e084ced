"""Hotwords: which tokens are biased, and by how much, while a text grows.

Shallow fusion with a biasing tree (Zhao et al. 2019, "Shallow-Fusion End-to-End Contextual
Biasing"): a prefix tree over the tokens of each phrase. The bias of a phrase that a text has begun
is pending. It is confirmed when the phrase is complete, and taken back when the text continues with
something else, so that a shared prefix gains nothing. Knows tokens, and no logits.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..tokenizer import Tokenizer, get_tokenizer


class _Node(dict[int, Any]):
    """The tokens that may follow, each with its node, and whether a phrase ends here."""

    is_complete = False

    def add(self, tokens: Sequence[int]) -> None:
        node = self
        for token in tokens:
            node = node.setdefault(token, _Node())
        node.is_complete = True


class TreeState(NamedTuple):
    """The place of a text in the tree."""

    node: _Node  # the tokens of a phrase so far; `root` where no phrase has begun
    root: _Node  # the phrases that may begin here
    n_pending: int = 0  # tokens whose bias is taken back if the phrase is not completed
    confirmed: float = 0.0  # bias of complete phrases


class TokenBias(NamedTuple):
    """The tokens that are biased in a state."""

    ids: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]  # added to their logits
    shares: npt.NDArray[np.float64]  # of their biased probabilities that are due to the bias


class Hotwords:
    """Phrases that are biased.

    Each counts as written and with a capital letter; after a space and, where a word may begin
    without one (at the start, after a quotation mark, anywhere in scripts without cases, many of
    which have no spaces), without. No phrase begins inside another, and none continues after a
    timestamp.

    Parameters
    ----------
    phrases
        Not empty.
    boost
        Added to the log-probability of each token that begins or continues a phrase.
    tokenizer
        Of the model.

    Raises
    ------
    OptionError
        A phrase contains the text of a special token.
    """

    def __init__(self, phrases: Sequence[str], boost: float, tokenizer: Tokenizer) -> None:
        self.boost = boost
        self._tokenizer = tokenizer
        self._root_in_word = _Node()  # phrases that may begin after a letter or digit
        self._root = _Node()  # and elsewhere
        for phrase in map(str.strip, phrases):
            capitalised = phrase[0].upper() + phrase[1:]
            for text in (phrase, " " + phrase, capitalised, " " + capitalised):
                tokens = tokenizer.encode(text)
                self._root.add(tokens)
                if text[0] == " " or unicodedata.category(text[0]) == "Lo":
                    self._root_in_word.add(tokens)
        self._root_after: dict[int, _Node] = {}  # by token
        self._token_bias: dict[tuple[int, int, int], TokenBias] = {}

    def bias(self, n_tokens: int) -> float:
        """Return the bias of so many tokens of a phrase."""
        return self.boost * n_tokens

    def initial_state(self) -> TreeState:
        """Return the state of an empty text."""
        return TreeState(self._root, self._root)

    def advance(self, state: TreeState, tokens: Iterable[int]) -> TreeState:
        """Return the state after more tokens."""
        node, root, n_pending, confirmed = state
        for token in tokens:
            after: _Node | None
            if token in node:
                after, n_pending = node[token], n_pending + 1
            elif token in root:
                after, n_pending = root[token], 1
            else:
                after, n_pending = None, 0
            if after is not None and after.is_complete:
                confirmed, n_pending = confirmed + self.bias(n_pending), 0
            root = self._next_root(token)
            node = after or root
        return TreeState(node, root, n_pending, confirmed)

    def _next_root(self, token: int) -> _Node:
        if token not in self._root_after:
            text = self._tokenizer.decode([token])
            inside = text[-1:].isalnum() or text[-1:] == "\ufffd"  # or in the middle of a character
            self._root_after[token] = self._root_in_word if inside else self._root
        return self._root_after[token]

    def token_bias(self, state: TreeState) -> TokenBias:
        """Return the tokens that are biased in a state."""
        key = id(state.node), state.n_pending, id(state.root)
        if key not in self._token_bias:
            biased = dict.fromkeys(state.root, self.bias(1))
            if state.node is not state.root:
                biased |= dict.fromkeys(state.node, self.bias(state.n_pending + 1))
            ids, values = np.array([*biased], np.int64), np.array([*biased.values()])
            self._token_bias[key] = TokenBias(ids, values.astype(np.float32), -np.expm1(-values))
        return self._token_bias[key]


@lru_cache(maxsize=16)
def hotwords_for(phrases: tuple[str, ...], boost: float, multilingual: bool, num_languages: int) -> Hotwords:
    """Return one object for equal arguments, those of `Hotwords` and `get_tokenizer`."""
    return Hotwords(phrases, boost, get_tokenizer(multilingual, num_languages=num_languages))
