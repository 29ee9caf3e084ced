"""What a model is to say of a window: rows of the vocabulary, where each is said, and letters for the CTC loss.

In Whisper's own format: earlier text, language and task, timestamps around each segment, ``<|nospeech|>`` where
nobody speaks. Works on numbers alone; knows no sound and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .composing import Recipe, Window
from .datasets import LETTERS, reduce_text
from .errors import TrainingError
from .tokenizer import WITHOUT_SPACES, Tokenizer, get_tokenizer
from .tokenizer import short_pieces as cut_short

PIECES = 1000  # a used vocabulary has only byte pairs of the first thousand merges: short ones, each seen often
N_TIMESTAMPS = 1501
IGNORED = -100  # a target that is not scored
UNSEEN = (-1, -1)  # nobody knows where a token is said
MISREAD = 0.06  # part of the text tokens that are read as another one, so that a slip is not the end
LONGEST_PROMPT = 120  # tokens of earlier text
Generator = np.random.Generator


class Vocabulary:
    """The rows of the embedding that training works on, and the tokens behind them.

    Made by `used_vocabulary` (only the rows that the texts need, one for all others) or `whole_vocabulary`.

    Attributes
    ----------
    n_text : int
        Rows of text; they come first.
    fill : int or None
        The row that stands for all unused tokens, if there is one.
    n_unused : int
        How many tokens it stands for.
    timestamp_begin : int
        Row of the timestamp of 0.00 s; the others follow.
    letters : str
        What the CTC loss spells; class 0 is the blank, 1 the space, then these.
    """

    def __init__(self, tokenizer: Tokenizer, letters: str = "", short_pieces: bool = False) -> None:
        self._encoding = cut_short(tokenizer.encoding, PIECES) if short_pieces else tokenizer.encoding
        self.tokenizer, self.letters = tokenizer, letters
        self._classes = {c: i for i, c in enumerate(" " + letters, start=1)}
        self.n_text, self.fill, self.n_unused = tokenizer.eot, None, 0  # type: int, int | None, int
        self.timestamp_begin = tokenizer.timestamp_begin
        self.n_rows = tokenizer.timestamp_begin + N_TIMESTAMPS
        self.ids: Sequence[int] = range(self.n_rows)  # tokens of the rows before the timestamps
        codes = tokenizer.all_language_codes if tokenizer.language else ()
        self.languages = dict(zip(codes, tokenizer.all_language_tokens, strict=False)) if codes else {}

    def encode(self, text: str, language: str = "en") -> list[int]:
        """Rows of the pieces of `text`, which begins a word; no space stands before it where the script has none."""
        return self._encoding.encode(text if language in WITHOUT_SPACES else " " + text, disallowed_special=())

    def special(self, name: str) -> int:
        """Row of a special token, by its name on the tokenizer."""
        return int(getattr(self.tokenizer, name))

    def timestamp(self, frame: int) -> int:
        """Row of the timestamp for a frame of 10 ms."""
        return self.timestamp_begin + min(max(round(frame / 2), 0), N_TIMESTAMPS - 1)

    def beginning(self, language: str) -> list[int]:
        """Rows of the tokens that begin a text in `language`; models of English alone have one.

        Raises
        ------
        TrainingError
            The vocabulary has no such language.
        """
        if not self.languages and language == "en":
            return [self.special("sot")]
        if not self.languages:
            raise TrainingError(f"a model of English alone cannot learn {language!r}: leave such rows out")
        if language not in self.languages:
            raise TrainingError(f"the vocabulary has no language {language!r}; it has {', '.join(self.languages)}")
        return [self.special("sot"), self.languages[language], self.special(self.tokenizer.task or "transcribe")]

    def spelled(self, text: str) -> list[int]:
        """Classes of the CTC loss for `text`."""
        return [self._classes[c] for c in letters_only(text, self.letters)]


class UsedVocabulary(Vocabulary):
    """Only the rows in use, numbered without gaps: pieces of text, special tokens, one for the rest, timestamps."""

    def __init__(self, tokenizer: Tokenizer, texts: Iterable[str], languages: Sequence[str], letters: str) -> None:
        super().__init__(tokenizer, letters, short_pieces=True)
        used: set[int] = set()
        for text in texts:
            used.update(self._encoding.encode(" " + text))
            if WITHOUT_SPACES.intersection(languages):
                used.update(self._encoding.encode(text))
        codes = tokenizer.all_language_codes
        if unknown := set(languages) - set(codes):
            raise TrainingError(f"the vocabulary of {len(codes)} languages has no {', '.join(sorted(unknown))}")
        of_language = [tokenizer.all_language_tokens[codes.index(code)] for code in languages]
        t = tokenizer
        task = t.translate if t.task == "translate" else t.transcribe
        special = [t.eot, t.sot, *of_language, task, t.sot_prev, t.no_speech, t.no_timestamps]
        self.ids = [*sorted(used), *special]
        self.n_text = len(used)
        self.row = {token: row for row, token in enumerate(self.ids)}
        self.languages = {code: self.row[token] for code, token in zip(languages, of_language, strict=True)}
        self.fill = len(self.ids)
        self.timestamp_begin = self.fill + 1
        self.n_rows = self.timestamp_begin + N_TIMESTAMPS
        self.n_unused = tokenizer.encoding.n_vocab - len(self.ids) - N_TIMESTAMPS

    def encode(self, text: str, language: str = "en") -> list[int]:
        tokens = super().encode(text, language)
        missing = [token for token in tokens if token not in self.row]
        if missing:
            piece = self._encoding.decode_single_token_bytes(missing[0])
            raise TrainingError(f"no row for {piece!r} of {text[:40]!r}: the vocabulary was made of other texts")
        return [self.row[token] for token in tokens]

    def special(self, name: str) -> int:
        return self.row[super().special(name)]


def used_vocabulary(
    texts: Iterable[str], languages: Sequence[str] = ("en", "fr"), task: str = "transcribe"
) -> Vocabulary:
    """The rows of the multilingual vocabulary that `texts` need, for a model from scratch."""
    texts = list(texts)
    tokenizer = get_tokenizer(True, language=languages[0], task=task)
    return UsedVocabulary(tokenizer, texts, languages, letters_of(texts))


def whole_vocabulary(
    multilingual: bool, num_languages: int = 99, task: str = "transcribe", short_pieces: bool = False
) -> Vocabulary:
    """All rows, as a checkpoint has them; with `short_pieces` for a model that was made with a used vocabulary."""
    language = "en" if multilingual else None
    tokenizer = get_tokenizer(multilingual, num_languages=num_languages, language=language, task=task)
    return Vocabulary(tokenizer, short_pieces=short_pieces)


def used_token_ids(vocabulary: Vocabulary) -> list[int]:
    """Ids of all tokens that have a row of their own."""
    begin = vocabulary.tokenizer.timestamp_begin
    return sorted({*vocabulary.ids, *range(begin, begin + N_TIMESTAMPS)})


def letters_of(texts: Iterable[str]) -> str:
    """`LETTERS`, and what other letters `texts` have often."""
    counts: dict[str, int] = {}
    for text in texts:
        for character in text.lower():
            if character not in LETTERS and character.isalpha():
                counts[character] = counts.get(character, 0) + 1
    often = sorted((c for c in counts if counts[c] >= 5 and reduce_text(c) == ""), key=lambda c: (-counts[c], c))
    return LETTERS + "".join(often[:4000])


def letters_only(text: str, letters: str) -> str:
    """`text` in lower case with nothing but `letters` and single spaces."""
    if all(c in letters or c == " " for c in text):
        return " ".join(text.split())
    kept = "".join(c if c in letters else reduce_text(c) or " " for c in text.lower())
    return " ".join("".join(c if c in letters else " " for c in kept).split())


# ---------------------------------------------------------------------------------------------------------
# Targets
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What the decoder reads, what it must say after each token, and where it should look for it."""

    tokens: list[int]  # rows of the vocabulary
    expected: list[int]
    looks: list[tuple[int, int]]  # frames in which the expected token is said, one pair a token; UNSEEN where unknown
    letters: list[int]  # classes of the CTC loss
    scores_letters: bool  # no where a clip that is cut off leaves them unknown


def make_target(
    rng: Generator, window: Window, vocabulary: Vocabulary, recipe: Recipe, earlier: Sequence[str]
) -> Target:
    """The tokens of `window`; `earlier` are texts of the same language, one of which may come as a prompt."""
    v = vocabulary
    plain = rng.random() < recipe.p_plain and window.cut_at is None
    said, looks = _said(window, v, plain)
    beginning = v.beginning(window.language) + ([v.special("no_timestamps")] if plain else [])
    sequence = [*beginning, *said, v.special("eot")]
    expected = [*sequence[1:], IGNORED]
    looks = [UNSEEN] * (len(beginning) - 1) + looks + [UNSEEN] * 2
    if not window.segments:
        expected[0] = v.special("no_speech")
    tokens = [t if rng.random() > MISREAD or t >= v.n_text else int(rng.integers(v.n_text)) for t in sequence]
    if earlier and rng.random() < recipe.p_prompt:
        prompt = [v.special("sot_prev"), *_prompt(rng, v, earlier, window.language)]
        tokens, expected = prompt + tokens, [IGNORED] * len(prompt) + expected
        looks = [UNSEEN] * len(prompt) + looks
    letters = v.spelled(" ".join(s.text for s in window.segments)) if v.letters else []
    return Target(tokens[:-1], expected[:-1], looks[:-1], letters, window.cut_at is None)


def _said(window: Window, v: Vocabulary, plain: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Rows of text and timestamps, and the frames where each is to be found."""
    said, looks = list[int](), list[tuple[int, int]]()

    def stamp(frame: int) -> None:
        said.append(v.timestamp(frame))
        looks.append((max(frame - 3, 0), frame + 3))

    for segment in window.segments:
        if not plain:
            stamp(segment.start)
        if segment.words:
            for i, (word, time) in enumerate(zip(segment.text.split(), segment.words, strict=True)):
                pieces = v.encode(word, window.language) if i == 0 else v.encode(word)
                said += pieces
                looks += _shared(time, len(pieces))
        else:
            pieces = v.encode(segment.text, window.language)
            said += pieces
            looks += [UNSEEN] * len(pieces)
        if not plain:
            stamp(segment.end)
    if window.cut_at is not None:
        stamp(window.cut_at)
    if not window.segments and not plain:
        return [v.timestamp(0)], [UNSEEN]
    return said, looks


def _shared(word: tuple[int, int], n_pieces: int) -> list[tuple[int, int]]:
    """The time of a word cut into equal parts, one for each of its pieces."""
    at = np.linspace(word[0], word[1], n_pieces + 1)
    return [(int(a), max(int(b), int(a) + 4)) for a, b in pairwise(at)]


def _prompt(rng: Generator, v: Vocabulary, earlier: Sequence[str], language: str) -> list[int]:
    rows: list[int] = []
    time = 0
    for text in earlier:
        piece = v.encode(text, language)
        if rng.random() < 0.6:
            piece = [v.timestamp(time), *piece, v.timestamp(time + 200)]
            time += 200
        rows += piece
    return rows[-LONGEST_PROMPT:]
