"""Files of vocabularies: merges that give the ids of tiktoken, and texts in the order of the ids."""

from __future__ import annotations

from itertools import pairwise

import pytest
import regex

from whisper.checkpoints.formats.tokenizer_files import VOCABULARIES, token_texts, tokenizer_json
from whisper.tokenizer import _GPT2_PATTERN, get_encoding, get_tokenizer

TEXTS = [
    "the cat",
    " The theatre's cat, isn't it?  It is -- \n\n(surely)!",
    " żółć, naïve café, Straße",
    " 日本語のテキスト สวัสดี 한국어 مرحبا हिन्दी",
    " 3.14159 1,000,000 \t tabs 🎉👩‍👩‍👧",
]


def encode(text: str, content: dict) -> list[int]:
    """Byte-pair encoding as the library `tokenizers` does it: the earliest merge of the list first."""
    ids = content["model"]["vocab"]
    order = {tuple(merge.split(" ")): i for i, merge in enumerate(content["model"]["merges"])}
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's letters for bytes
    letters = {byte: chr(byte) for byte in printed}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len(letters) - len(printed)))
    found = []
    for word in regex.findall(_GPT2_PATTERN, text):
        parts = [letters[byte] for byte in word.encode()]
        while pairs := [order[pair] for pair in pairwise(parts) if pair in order]:
            first, second = content["model"]["merges"][min(pairs)].split(" ")
            i = next(i for i in range(len(parts)) if parts[i : i + 2] == [first, second])
            parts[i : i + 2] = [first + second]
        found += [ids[part] for part in parts]
    return found


@pytest.mark.parametrize("n_vocab", [51864, 51865])
def test_merges_give_the_ids_of_tiktoken(n_vocab: int) -> None:
    content = tokenizer_json(n_vocab)
    encoding = get_encoding("gpt2" if n_vocab == 51864 else "multilingual")
    for text in TEXTS:
        assert encode(text, content) == encoding.encode(text)


@pytest.mark.parametrize("n_vocab", VOCABULARIES)
def test_every_token_has_its_text(n_vocab: int) -> None:
    texts = token_texts(n_vocab)
    assert len(texts) == n_vocab == len(set(texts))
    tokenizer = get_tokenizer(n_vocab > 51864, num_languages=100 if n_vocab == 51866 else 99)
    no_speech = "<|nospeech|>" if n_vocab == 51866 else "<|nocaptions|>"
    assert texts[tokenizer.no_speech] == no_speech
    assert texts[tokenizer.sot] == "<|startoftranscript|>"
    assert texts[tokenizer.timestamp_begin] == "<|0.00|>"
    assert texts[-1] == "<|30.00|>"
    assert texts[tokenizer.encode(" the")[0]] == "Ġthe"
    added = {token["content"]: token["id"] for token in tokenizer_json(n_vocab)["added_tokens"]}
    assert added["<|endoftext|>"] == tokenizer.eot
    assert max(added.values()) == added["<|notimestamps|>"] == tokenizer.no_timestamps
