"""Whisper's vocabularies in the files of other programs: the texts of all tokens, and ``tokenizer.json``.

They write bytes as letters, as GPT-2 did, and byte-pair encoding as a list of merges, which is found here from the
ranks of tokens that tiktoken works with. For programs that hold the files; nothing here reads them.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

from ...tokenizer import Tokenizer, get_encoding, get_tokenizer

VOCABULARIES = {51864: (False, 99), 51865: (True, 99), 51866: (True, 100)}  # multilingual?, number of languages


def tokenizer_of(n_vocab: int) -> Tokenizer:
    """Return the tokenizer of a Whisper with so many tokens, one of `VOCABULARIES`."""
    multilingual, num_languages = VOCABULARIES[n_vocab]
    return get_tokenizer(multilingual, num_languages=num_languages)


def token_texts(n_vocab: int) -> list[str]:
    """Return the texts of all tokens in the order of their ids, bytes as letters."""
    return [*map(_letters, _pieces(_name(n_vocab))), *_special_texts(n_vocab)]


def tokenizer_json(n_vocab: int) -> dict[str, Any]:
    """Return the contents of a ``tokenizer.json``, as the library `tokenizers` reads it.

    Timestamps are not among its tokens, as they are not in the files of the published models with 99 languages, whose
    readers count them on from the last token.
    """
    texts = token_texts(n_vocab)
    n_text = len(_pieces(_name(n_vocab)))
    specials = {text: i for i, text in enumerate(texts[:-1501]) if i >= n_text}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags} for text, i in specials.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": _template(specials),
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": {text: i for i, text in enumerate(texts[: n_text + 1])},  # <|endoftext|> too
            "merges": _merges(_name(n_vocab)),
        },
    }


def suppressed_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the tokens that no text has by default, and those with which none begins."""
    special = (tokenizer.sot, tokenizer.sot_lm, tokenizer.sot_prev, tokenizer.no_speech)
    never = sorted({*tokenizer.non_speech_tokens, *special, tokenizer.transcribe, tokenizer.translate})
    return never, [*tokenizer.encode(" "), tokenizer.eot]


def preprocessor_config(n_mels: int) -> dict[str, Any]:
    """Return the contents of a ``preprocessor_config.json``, which describes the spectrogram.

    Without it faster-whisper makes 80 bands, also where a model needs 128.
    """
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": n_mels,
        "sampling_rate": 16000,
        "n_fft": 400,
        "hop_length": 160,
        "chunk_length": 30,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def _template(specials: dict[str, int]) -> dict[str, Any]:
    """Describe what stands around a text: the start of a transcript without timestamps, and its end."""
    start, none, end = "<|startoftranscript|>", "<|notimestamps|>", "<|endoftext|>"

    def special(text: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": text, "type_id": kind}}

    first, second = ({"Sequence": {"id": text, "type_id": kind}} for kind, text in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [special(start, 0), special(none, 0), first, special(end, 0)],
        "pair": [special(start, 0), special(none, 0), first, second, special(end, 1)],
        "special_tokens": {
            text: {"id": text, "ids": [specials[text]], "tokens": [text]} for text in (end, none, start)
        },
    }


def _name(n_vocab: int) -> str:
    return "multilingual" if VOCABULARIES[n_vocab][0] else "gpt2"


def _special_texts(n_vocab: int) -> list[str]:
    texts = list(tokenizer_of(n_vocab).special_tokens)
    if VOCABULARIES[n_vocab][1] == 99:  # the name that this token has in the files of all models before large-v3
        texts[texts.index("<|nospeech|>")] = "<|nocaptions|>"
    return texts


@cache
def _pieces(name: str) -> list[bytes]:
    """Return the bytes of all tokens of text in the order of their ids."""
    ranks = get_encoding(name)._mergeable_ranks
    return sorted(ranks, key=ranks.__getitem__)


@cache
def _merges(name: str) -> list[str]:
    """Return which two tokens each longer one is merged from, in the order in which merges are tried."""
    pieces = _pieces(name)
    ranks = {piece: i for i, piece in enumerate(pieces)}
    return [" ".join(map(_letters, _parts(piece, ranks))) for piece in pieces if len(piece) > 1]


def _parts(piece: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """Merge the bytes of a token as far as earlier tokens go: two parts are left."""
    parts, no_rank = [piece[i : i + 1] for i in range(len(piece))], len(ranks)
    while len(parts) > 2:
        found = [ranks.get(first + second, no_rank) for first, second in pairwise(parts)]
        best = found.index(min(found))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts


def _letters(piece: bytes) -> str:
    return piece.decode("latin-1").translate(_LETTER_OF_BYTE)


# Bytes that print stand for themselves; the 68 others get the letters from U+0100 on (GPT-2, MIT licence).
_PRINTED = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_LETTER_OF_BYTE = dict(zip((b for b in range(256) if b not in _PRINTED), range(0x100, 0x144), strict=True))
