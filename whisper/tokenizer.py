"""Text to token ids and back, the special tokens, and the words that tokens form.

Byte-pair encoding is tiktoken's, loaded when the first vocabulary is asked for; here stand Whisper's special
tokens and the rule for where words end. Nothing in this file knows a model or touches a tensor.

The two vocabularies are openai-whisper's (MIT, ``assets/LICENSE.openai-whisper``).
"""

from __future__ import annotations

import reprlib
import string
from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import LanguageError, OptionError, UnknownLanguageTokenError
from .options.language_names import LANGUAGES as LANGUAGES  # programs look for both here
from .options.language_names import TO_LANGUAGE_CODE as TO_LANGUAGE_CODE
from .options.language_names import code_of
from .options.types import check, whole
from .utils import cached_property

if TYPE_CHECKING:
    import tiktoken

TASKS = ("transcribe", "translate", "lang_id")

_ASSETS = Path(__file__).parent / "assets"

# GPT-2's cut of a text before its bytes are merged (Radford et al. 2019); the vocabularies were learned on it.
_GPT2_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # scripts that do not part words by spaces

# What annotates speech instead of being spoken: quotation marks, brackets, markup, speaker tags, music.
_NON_SPEECH_SYMBOLS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))",
    "[[", "]]", "{{", "}}", "♪♪", "♪♪♪",
)  # fmt: skip
# All from U+2640 to U+267F. A vocabulary may need several tokens for one of them, of which the first stands
# for the bytes that this whole block of symbols shares, so that suppressing it costs no letter.
_NOTES = tuple("♩♪♫♬♭♮♯")


@dataclass
class Tokenizer:
    """A vocabulary, and the special tokens that tell a Whisper which language and which task it has.

    Parameters
    ----------
    encoding
        The vocabulary, as `get_encoding` gives it.
    num_languages
        How many of `LANGUAGES` the vocabulary has tokens for: 99, or 100 since large-v3.
    language
        A code of `LANGUAGES`, as which any other name of the language is kept; None leaves it out of
        `sot_sequence`, as English-only models need it.
    task
        ``"transcribe"``, ``"translate"`` or None. ``"lang_id"``, the decoding task that ends with the
        language, gets the token of translation, as in openai-whisper.
    sot_sequence
        Filled in: the tokens that a transcript starts with.
    special_tokens
        Filled in: the id of every special token by its text, in the order of the ids.

    Raises
    ------
    LanguageError
        If `language` is none of the first `num_languages` codes.
    OptionError
        If there is no such `task`.
    """

    encoding: tiktoken.Encoding
    num_languages: int
    language: str | None = None
    task: str | None = None
    sot_sequence: tuple[int, ...] = ()
    special_tokens: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_task(self.task)
        if self.language is not None:
            self.language = _to_code(self.language)
        ids = {text: self.encoding.encode_single_token(text) for text in self.encoding.special_tokens_set}
        self.special_tokens = dict(sorted({**self.special_tokens, **ids}.items(), key=lambda item: item[1]))

        sequence = [self.sot]
        if self.language is not None:
            sequence.append(self.sot + 1 + self._language_index(self.language))
        if self.task is not None:
            sequence.append(self.transcribe if self.task == "transcribe" else self.translate)
        self.sot_sequence = tuple(sequence)

    def _language_index(self, language: str) -> int:
        codes = list(LANGUAGES)
        if language not in codes[: self.num_languages]:
            raise LanguageError(
                f"{LANGUAGES[language].title()} ({language!r}) is not among the {self.num_languages} "
                "languages of this vocabulary; only models since large-v3 have 100 (num_languages=100)"
            )
        return codes.index(language)

    # -- text and ids -------------------------------------------------------------------------------------

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """Return the ids of `text`; keywords go to `tiktoken.Encoding.encode`.

        Raises
        ------
        OptionError
            If `text` holds the text of a special token and ``allowed_special`` does not permit it. (A ValueError.)
        """
        try:
            return self.encoding.encode(text, **kwargs)
        except ValueError as error:  # its first sentence names the token
            what = str(error).partition("\n")[0]
            raise OptionError(f"{what} Leave it out of the text, or permit it with allowed_special") from None

    def decode(self, token_ids: Iterable[int], **kwargs: Any) -> str:
        """Return the text of `token_ids` without the timestamps; bytes that are no text read as U+FFFD."""
        return self.encoding.decode([t for t in token_ids if t < self.timestamp_begin], **kwargs)

    def decode_with_timestamps(self, token_ids: Sequence[int], **kwargs: Any) -> str:
        """Return the text of `token_ids` with timestamps written as ``<|1.08|>``."""
        return self.encoding.decode(token_ids, **kwargs)

    # -- special tokens -----------------------------------------------------------------------------------

    @cached_property
    def eot(self) -> int:
        """End of the transcript; every id from here on is special."""
        return self.encoding.eot_token

    @cached_property
    def transcribe(self) -> int:
        """The task of writing down what is said."""
        return self.special_tokens["<|transcribe|>"]

    @cached_property
    def translate(self) -> int:
        """The task of writing it down in English."""
        return self.special_tokens["<|translate|>"]

    @cached_property
    def sot(self) -> int:
        """Start of the transcript."""
        return self.special_tokens["<|startoftranscript|>"]

    @cached_property
    def sot_lm(self) -> int:
        """Start of text without sound, from training."""
        return self.special_tokens["<|startoflm|>"]

    @cached_property
    def sot_prev(self) -> int:
        """Start of the prompt, which is the text before this window."""
        return self.special_tokens["<|startofprev|>"]

    @cached_property
    def no_speech(self) -> int:
        """Stands where the language would, if nobody speaks."""
        return self.special_tokens["<|nospeech|>"]

    @cached_property
    def no_timestamps(self) -> int:
        """Asks for text alone."""
        return self.special_tokens["<|notimestamps|>"]

    @cached_property
    def timestamp_begin(self) -> int:
        """The timestamp of 0.00 s; the ids that follow count up by 0.02 s to 30.00 s."""
        return self.special_tokens["<|0.00|>"]

    @cached_property
    def language_token(self) -> int:
        """The token of this tokenizer's own language; LanguageError where it has none."""
        if self.language is None:
            raise LanguageError("this tokenizer has no language token, because it was made without a language")
        return self.to_language_token(self.language)

    def to_language_token(self, language: str) -> int:
        """Return the token of a language code; UnknownLanguageTokenError, a KeyError, where there is none."""
        token = self.special_tokens.get(f"<|{language}|>")
        if token is None:
            raise UnknownLanguageTokenError(f"this vocabulary has no token for the language code {language!r}")
        return token

    @cached_property
    def all_language_tokens(self) -> tuple[int, ...]:
        """The tokens of all languages of this vocabulary, in the order of their ids."""
        present = {text.strip("<|>"): token for text, token in self.special_tokens.items()}
        return tuple(token for code, token in present.items() if code in LANGUAGES)[: self.num_languages]

    @cached_property
    def all_language_codes(self) -> tuple[str, ...]:
        """The codes of all languages of this vocabulary, in the order of `all_language_tokens`."""
        return tuple(self.decode([token]).strip("<|>") for token in self.all_language_tokens)

    @cached_property
    def sot_sequence_including_notimestamps(self) -> tuple[int, ...]:
        """`sot_sequence` for text alone."""
        return (*self.sot_sequence, self.no_timestamps)

    @cached_property
    def non_speech_tokens(self) -> tuple[int, ...]:
        """The tokens, in ascending order, whose suppression keeps annotations out of the transcript.

        Such as ``♪♪♪``, ``( SPEAKING FOREIGN LANGUAGE )`` or ``[DAVID] Hey there``. Marks that belong to
        sentences stay allowed, hyphen and apostrophe only inside a word.
        """
        tokens = {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in (*_NON_SPEECH_SYMBOLS, *_NOTES):
            for ids in (self.encode(symbol), self.encode(" " + symbol)):
                if len(ids) == 1 or symbol in _NOTES:
                    tokens.add(ids[0])
        return tuple(sorted(tokens))

    # -- words --------------------------------------------------------------------------------------------

    def split_to_word_tokens(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Split `tokens` into words: at spaces, or into characters where the language writes no spaces.

        Returns
        -------
        words, word_tokens
            The text of each word and its tokens; the lists of tokens laid end to end are `tokens` again.
        """
        if self.language in WITHOUT_SPACES:
            return self.split_tokens_on_unicode(tokens)
        return self.split_tokens_on_spaces(tokens)

    def split_tokens_on_unicode(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Split `tokens` into the shortest groups that do not end inside a character.

        Bytes that are part of no character stand alone. openai-whisper looks for U+FFFD in the decoded text
        instead and loses its place, and with it all later tokens, when an invalid sequence spans two tokens.
        """
        pieces = self.encoding.decode_tokens_bytes(tokens)
        text = b"".join(pieces).decode("utf-8", "surrogateescape")  # one surrogate for each invalid byte
        character_ends = set(accumulate(len(c.encode("utf-8", "surrogateescape")) for c in text))

        words, word_tokens, current = [], [], []
        for token, end in zip(tokens, accumulate(map(len, pieces)), strict=True):
            current.append(token)
            if end in character_ends:
                words.append(self.decode_with_timestamps(current))
                word_tokens.append(current)
                current = []
        return words, word_tokens

    def split_tokens_on_spaces(self, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Split `tokens` before spaces, punctuation and special tokens; see `split_to_word_tokens`."""
        words: list[str] = []
        word_tokens: list[list[int]] = []
        for part, part_tokens in zip(*self.split_tokens_on_unicode(tokens), strict=True):
            is_special = part_tokens[0] >= self.eot
            is_punctuation = part.strip() in string.punctuation  # or nothing but white space
            if not words or is_special or is_punctuation or part.startswith(" "):
                words.append(part)
                word_tokens.append(part_tokens)
            else:
                words[-1] += part
                word_tokens[-1] += part_tokens
        return words, word_tokens


def _to_code(language: str) -> str:
    code = code_of(language)
    if code is None:
        raise LanguageError(
            f"language={language!r} asks for the language to be detected, and a tokenizer hears nothing: name the "
            "language, or let transcribe() or detect_language() hear it"
        )
    return code


def _check_task(task: str | None) -> None:
    if task is not None and task not in TASKS:
        raise OptionError(f"there is no task {reprlib.repr(task)}; it must be one of {', '.join(TASKS)}, or None")


def _special_texts(num_languages: int) -> list[str]:
    """Return the texts of the special tokens in the order of their ids."""
    return [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in list(LANGUAGES)[:num_languages]),
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
        *(f"<|{i * 0.02:.2f}|>" for i in range(1501)),
    ]


@cache
def get_encoding(name: str = "gpt2", num_languages: int = 99) -> tiktoken.Encoding:
    """Load a vocabulary and append the special tokens.

    Parameters
    ----------
    name
        ``"gpt2"`` for English-only models, ``"multilingual"`` for all others.
    num_languages
        How many languages get a token.

    Raises
    ------
    OptionError
        If there is no such vocabulary.
    """
    import tiktoken

    path = _ASSETS / f"{name}.tiktoken"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _ASSETS.glob("*.tiktoken")))
        raise OptionError(f"there is no vocabulary {name!r}; there are: {known}")
    fields = path.read_bytes().split()  # a token in base64 and its rank, line by line
    ranks = dict(zip(map(a2b_base64, fields[::2]), map(int, fields[1::2]), strict=True))
    specials = {text: i for i, text in enumerate(_special_texts(num_languages), start=len(ranks))}
    return tiktoken.Encoding(
        name=path.name,
        explicit_n_vocab=len(ranks) + len(specials),
        pat_str=_GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens=specials,
    )


def get_tokenizer(
    multilingual: bool,
    *,
    num_languages: int = 99,
    language: str | None = None,
    task: str | None = None,
) -> Tokenizer:
    """Return the tokenizer for a model, a language and a task; the same object for the same arguments.

    Parameters
    ----------
    multilingual
        Whether the model knows other languages than English. One that does not has neither language nor
        task tokens, and both arguments are only checked.
    num_languages
        The model's number of languages: 99, or 100 since large-v3.
    language
        A code (``"fr"``, ``"fra"``), a locale (``"fr-CA"``) or a name (``"French"``, ``"français"``); see
        `language_names.code_of`. None is English.
    task
        ``"transcribe"``, which None means too, ``"translate"`` or ``"lang_id"``; see `Tokenizer`.

    Raises
    ------
    LanguageError
        If the language is unknown, or not one of the model's, or is to be detected (``"auto"``).
    OptionError
        If there is no such `task`, `multilingual` is no flag, or `num_languages` no whole number.
    """
    _check_task(task)
    if not isinstance(multilingual, int):
        raise OptionError(f"multilingual must be True or False, not {reprlib.repr(multilingual)}")
    num_languages = check("num_languages", num_languages, whole(0))
    return _tokenizer(bool(multilingual), num_languages, None if language is None else _to_code(language), task)


@cache
def _tokenizer(multilingual: bool, num_languages: int, code: str | None, task: str | None) -> Tokenizer:
    if not multilingual:
        return Tokenizer(encoding=get_encoding(name="gpt2", num_languages=num_languages), num_languages=num_languages)
    return Tokenizer(
        encoding=get_encoding(name="multilingual", num_languages=num_languages),
        num_languages=num_languages,
        language=code or "en",
        task=task or "transcribe",
    )


def short_pieces(encoding: tiktoken.Encoding, n: int) -> tiktoken.Encoding:
    """Return the vocabulary of the first `n` tokens of another, without special ones, that parts text at spaces only.

    It is what models from `targets.used_vocabulary` write with.
    """
    import tiktoken

    ranks = {piece: rank for piece, rank in encoding._mergeable_ranks.items() if rank < n}
    return tiktoken.Encoding("pieces", pat_str=r" ?[^\s]+|\s+", mergeable_ranks=ranks, special_tokens={})
