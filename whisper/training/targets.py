"""Training targets of a window: decoder inputs and labels, attention targets, and CTC targets.

In Whisper's own format: prompt, language and task, timestamps around each segment, ``<|nospeech|>``
for windows without speech. Works on numbers alone; knows no audio and no model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..errors import TrainingError
from ..tokenizer import WITHOUT_SPACES, Tokenizer, get_tokenizer
from ..tokenizer import short_pieces as keep_short_merges

if TYPE_CHECKING:
    from .augmentation import Rng
    from .mixing import Recipe, TrainingWindow

LETTERS = "abcdefghijklmnopqrstuvwxyz'àâäçèéêëîïôöùûü"
N_SHORT_MERGES = 1000  # byte-pair merges of a reduced vocabulary: short tokens, each seen often
N_TIMESTAMPS = 1501
IGNORE_INDEX = -100  # label of a position without loss
UNKNOWN_SPAN = (-1, -1)  # attention target of a token whose time is unknown
TOKEN_NOISE = 0.06  # share of text tokens replaced in the input, so that the decoder recovers from errors
MAX_PROMPT_TOKENS = 120


class Vocabulary:
    """The indices of the embedding that training uses, and the token of each.

    Made by `reduced_vocabulary` (an index for each token of the texts, a shared one for all others)
    or `full_vocabulary`.

    Attributes
    ----------
    n_text : int
        Number of text tokens; their indices come first.
    unused_index : int or None
        The index that all unused tokens share, if there is one.
    n_unused : int
        How many tokens share it.
    timestamp_begin : int
        Index of the timestamp 0.00 s; the others follow.
    size : int
        Number of indices.
    token_ids : sequence of int
        The token of each index before `unused_index`.
    alphabet : str
        Letters of the CTC loss; class 0 is the blank, 1 the space, then these.
    """

    def __init__(self, tokenizer: Tokenizer, alphabet: str = "", short_merges: bool = False) -> None:
        self._encoding = tokenizer.encoding
        if short_merges:
            self._encoding = keep_short_merges(tokenizer.encoding, N_SHORT_MERGES)
        self.tokenizer, self.alphabet = tokenizer, alphabet
        self._ctc_class = {c: i for i, c in enumerate(" " + alphabet, start=1)}
        self.n_text = tokenizer.eot
        self.unused_index: int | None = None
        self.n_unused = 0
        self.timestamp_begin = tokenizer.timestamp_begin
        self.size = tokenizer.timestamp_begin + N_TIMESTAMPS
        self.token_ids: Sequence[int] = range(self.size)
        self.languages: dict[str, int] = {}
        if tokenizer.language:
            codes, tokens = tokenizer.all_language_codes, tokenizer.all_language_tokens
            self.languages = dict(zip(codes, tokens, strict=False))

    def encode(self, text: str, language: str = "en") -> list[int]:
        """Indices of `text`, with a leading space if the language has spaces between words."""
        text = text if language in WITHOUT_SPACES else " " + text
        return self._encoding.encode(text, disallowed_special=())

    def special(self, name: str) -> int:
        """Index of a special token, by its name on the tokenizer."""
        return int(getattr(self.tokenizer, name))

    def timestamp(self, frame: int) -> int:
        """Index of the timestamp at a frame of 10 ms."""
        return self.timestamp_begin + min(max(round(frame / 2), 0), N_TIMESTAMPS - 1)

    def start_sequence(self, language: str) -> list[int]:
        """Indices of the start-of-transcript sequence; English-only models have a single token.

        Raises
        ------
        TrainingError
            The vocabulary has no such language.
        """
        if not self.languages and language == "en":
            return [self.special("sot")]
        if not self.languages:
            raise TrainingError(f"an English-only model cannot learn {language!r}: leave such entries out")
        if language not in self.languages:
            raise TrainingError(f"the vocabulary has no language {language!r}; it has {', '.join(self.languages)}")
        return [self.special("sot"), self.languages[language], self.special(self.tokenizer.task or "transcribe")]

    def ctc_classes(self, text: str) -> list[int]:
        """Classes of the CTC loss for `text`."""
        return [self._ctc_class[c] for c in keep_letters(text, self.alphabet)]


class ReducedVocabulary(Vocabulary):
    """Only the tokens in use: text, special tokens, one shared index for the rest, timestamps."""

    def __init__(self, tokenizer: Tokenizer, texts: Iterable[str], languages: Sequence[str], alphabet: str) -> None:
        super().__init__(tokenizer, alphabet, short_merges=True)
        used: set[int] = set()
        for text in texts:
            used.update(self._encoding.encode(" " + text))
            if WITHOUT_SPACES.intersection(languages):
                used.update(self._encoding.encode(text))
        codes = tokenizer.all_language_codes
        if unknown := set(languages) - set(codes):
            raise TrainingError(f"the vocabulary of {len(codes)} languages has no {', '.join(sorted(unknown))}")
        language_tokens = [tokenizer.all_language_tokens[codes.index(code)] for code in languages]
        t = tokenizer
        task = t.translate if t.task == "translate" else t.transcribe
        special = [t.eot, t.sot, *language_tokens, task, t.sot_prev, t.no_speech, t.no_timestamps]
        self.token_ids = [*sorted(used), *special]
        self.n_text = len(used)
        self._index = {token: index for index, token in enumerate(self.token_ids)}
        self.languages = {code: self._index[token] for code, token in zip(languages, language_tokens, strict=True)}
        self.unused_index = len(self.token_ids)
        self.timestamp_begin = self.unused_index + 1
        self.size = self.timestamp_begin + N_TIMESTAMPS
        self.n_unused = tokenizer.encoding.n_vocab - len(self.token_ids) - N_TIMESTAMPS

    def encode(self, text: str, language: str = "en") -> list[int]:
        tokens = super().encode(text, language)
        missing = [token for token in tokens if token not in self._index]
        if missing:
            content = self._encoding.decode_single_token_bytes(missing[0])
            raise TrainingError(f"no index for {content!r} of {text[:40]!r}: the vocabulary was made of other texts")
        return [self._index[token] for token in tokens]

    def special(self, name: str) -> int:
        return self._index[super().special(name)]


def reduced_vocabulary(
    texts: Iterable[str], languages: Sequence[str] = ("en", "fr"), task: str = "transcribe"
) -> Vocabulary:
    """The part of the multilingual vocabulary that `texts` need, for a model from scratch."""
    texts = list(texts)
    tokenizer = get_tokenizer(True, language=languages[0], task=task)
    return ReducedVocabulary(tokenizer, texts, languages, alphabet_of(texts))


def full_vocabulary(
    multilingual: bool, num_languages: int = 99, task: str = "transcribe", short_merges: bool = False
) -> Vocabulary:
    """All tokens; `short_merges` for a model that was trained with a reduced vocabulary."""
    language = "en" if multilingual else None
    tokenizer = get_tokenizer(multilingual, num_languages=num_languages, language=language, task=task)
    return Vocabulary(tokenizer, short_merges=short_merges)


def used_token_ids(vocabulary: Vocabulary) -> list[int]:
    """Ids of all tokens with an index of their own."""
    begin = vocabulary.tokenizer.timestamp_begin
    return sorted({*vocabulary.token_ids, *range(begin, begin + N_TIMESTAMPS)})


def reduce_text(text: str) -> str:
    """Normalize a transcript to the style of small models: lower-case letters and apostrophes.

    Sources disagree (upper case without punctuation, or cased with it), so case and punctuation
    cannot be learnt from all of them.
    """
    text = unicodedata.normalize("NFC", text.lower())
    for old, new in (("’", "'"), ("‘", "'"), ("´", "'"), ("œ", "oe"), ("æ", "ae"), ("ÿ", "y")):
        text = text.replace(old, new)
    kept = ""
    for character in text:
        base = character if character in LETTERS else unicodedata.normalize("NFD", character)[0]
        kept += base if base in LETTERS else " "
    kept = re.sub(r"(?<![a-zà-ü])'+|'+(?![a-zà-ü])", " ", kept)  # quotation marks, not apostrophes
    return " ".join(kept.split())


def alphabet_of(texts: Iterable[str]) -> str:
    """`LETTERS`, and other letters that are frequent in `texts`."""
    counts: dict[str, int] = {}
    for text in texts:
        for character in text.lower():
            if character not in LETTERS and character.isalpha():
                counts[character] = counts.get(character, 0) + 1
    frequent = [c for c in counts if counts[c] >= 5 and reduce_text(c) == ""]
    frequent.sort(key=lambda c: (-counts[c], c))
    return LETTERS + "".join(frequent[:4000])


def keep_letters(text: str, alphabet: str) -> str:
    """`text` in lower case with nothing but letters of `alphabet` and single spaces."""
    if all(c in alphabet or c == " " for c in text):
        return " ".join(text.split())
    kept = "".join(c if c in alphabet else reduce_text(c) or " " for c in text.lower())
    return " ".join("".join(c if c in alphabet else " " for c in kept).split())


# --------------------------------------------------------------------------------------------------
# Targets
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """The targets of one window."""

    tokens: list[int]  # decoder inputs, as vocabulary indices
    labels: list[int]  # the next token of each, or IGNORE_INDEX
    attention_targets: list[tuple[int, int]]  # frames of each label, or UNKNOWN_SPAN
    ctc_targets: list[int]  # CTC classes
    has_ctc_targets: bool  # false if the text of a truncated clip is unknown


def make_target(
    rng: Rng, window: TrainingWindow, vocabulary: Vocabulary, recipe: Recipe, earlier: Sequence[str]
) -> Target:
    """The targets of `window`; `earlier` are texts of the same language for the prompt."""
    v = vocabulary
    plain = rng.random() < recipe.p_plain and window.truncated_at is None
    text, spans = _text_and_timestamps(window, v, plain)
    start = v.start_sequence(window.language) + ([v.special("no_timestamps")] if plain else [])
    sequence = [*start, *text, v.special("eot")]
    labels = [*sequence[1:], IGNORE_INDEX]
    spans = [UNKNOWN_SPAN] * (len(start) - 1) + spans + [UNKNOWN_SPAN] * 2
    if not window.segments:
        labels[0] = v.special("no_speech")
    tokens = [t if rng.random() > TOKEN_NOISE or t >= v.n_text else int(rng.integers(v.n_text)) for t in sequence]
    if earlier and rng.random() < recipe.p_prompt:
        prompt = [v.special("sot_prev"), *_prompt(rng, v, earlier, window.language)]
        tokens, labels = prompt + tokens, [IGNORE_INDEX] * len(prompt) + labels
        spans = [UNKNOWN_SPAN] * len(prompt) + spans
    ctc_targets = v.ctc_classes(" ".join(s.text for s in window.segments)) if v.alphabet else []
    return Target(tokens[:-1], labels[:-1], spans[:-1], ctc_targets, window.truncated_at is None)


def _text_and_timestamps(window: TrainingWindow, v: Vocabulary, plain: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Indices of text and timestamps, and the frames of each."""
    indices, spans = list[int](), list[tuple[int, int]]()

    def add_timestamp(frame: int) -> None:
        indices.append(v.timestamp(frame))
        spans.append((max(frame - 3, 0), frame + 3))

    for segment in window.segments:
        if not plain:
            add_timestamp(segment.start)
        if segment.words:
            for i, (word, time) in enumerate(zip(segment.text.split(), segment.words, strict=True)):
                tokens = v.encode(word, window.language) if i == 0 else v.encode(word)
                indices += tokens
                spans += _split_span(time, len(tokens))
        else:
            tokens = v.encode(segment.text, window.language)
            indices += tokens
            spans += [UNKNOWN_SPAN] * len(tokens)
        if not plain:
            add_timestamp(segment.end)
    if window.truncated_at is not None:
        add_timestamp(window.truncated_at)
    if not window.segments and not plain:
        return [v.timestamp(0)], [UNKNOWN_SPAN]
    return indices, spans


def _split_span(word: tuple[int, int], n_tokens: int) -> list[tuple[int, int]]:
    """The span of a word split evenly over its tokens."""
    edges = np.linspace(word[0], word[1], n_tokens + 1)
    return [(int(a), max(int(b), int(a) + 4)) for a, b in pairwise(edges)]


def _prompt(rng: Rng, v: Vocabulary, earlier: Sequence[str], language: str) -> list[int]:
    indices: list[int] = []
    time = 0
    for text in earlier:
        tokens = v.encode(text, language)
        if rng.random() < 0.6:
            tokens = [v.timestamp(time), *tokens, v.timestamp(time + 200)]
            time += 200
        indices += tokens
    return indices[-MAX_PROMPT_TOKENS:]
