"""Texts for synthesis: sentences from text files, and numbers in words."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from whisper.errors import DataError
from whisper.training.synthetic_texts import number_texts, read_texts, spell_number


def test_every_kind_of_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text(
        "It’s “late” — go!\nIn 1992 it was.\n\nA & B\nIt's late , go!\n", encoding="utf-8"
    )
    (tmp_path / "deeper").mkdir()
    with gzip.open(tmp_path / "deeper" / "id.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("LJ1\tThe end.\nLJ2\tTHE OTHER END\n")
    heading = "file\tlanguage\ttranscript\tnotes\na\ten\tGood day\tx\nb\tfr\tÇa va ?\tx\nc\tfr\tbroken\n"
    (tmp_path / "table.tsv").write_text(heading, encoding="utf-8")
    (tmp_path / "sound.wav").write_bytes(b"\xff\xfe")
    plain = ["It's late, go!"]  # the second spelling is the same sentence
    assert sorted(read_texts(tmp_path)) == sorted([*plain, "The end.", "the other end", "Good day", "Ça va ?"])
    assert read_texts(tmp_path / "table.tsv", "French") == ["Ça va ?"]


def test_where_no_sentence_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no texts"):
        read_texts(tmp_path)
    with pytest.raises(DataError, match="holds no texts"):
        read_texts(tmp_path / "missing.txt")
    (tmp_path / "a.txt").write_text("123\n")
    with pytest.raises(DataError, match="has no sentence"):
        read_texts(tmp_path)


@pytest.mark.parametrize(
    ("number", "english", "french"),
    [
        (0, "zero", "zéro"), (21, "twenty-one", "vingt et un"), (71, "seventy-one", "soixante et onze"),
        (80, "eighty", "quatre-vingts"), (81, "eighty-one", "quatre-vingt-un"), (91, "ninety-one", "quatre-vingt-onze"),
        (99, "ninety-nine", "quatre-vingt-dix-neuf"), (100, "one hundred", "cent"), (200, "two hundred", "deux cents"),
        (201, "two hundred one", "deux cent un"), (1000, "one thousand", "mille"), (2000, "two thousand", "deux mille"),
        (1980, "one thousand nine hundred eighty", "mille neuf cent quatre-vingts"),
        (4077, "four thousand seventy-seven", "quatre mille soixante-dix-sept"),
    ],
)  # fmt: skip
def test_numbers_are_spelled(number: int, english: str, french: str) -> None:
    assert (spell_number(number), spell_number(number, "fr")) == (english, french)


def test_no_two_numbers_sound_alike() -> None:
    for language in ("en", "fr"):
        assert len({spell_number(number, language) for number in range(10000)}) == 10000
    for number, language in ((10000, "en"), (-1, "en"), (3, "de")):
        with pytest.raises(DataError, match="cannot spell"):
            spell_number(number, language)


def test_texts_of_numbers_follow_from_the_seed() -> None:
    texts = number_texts(300, 4, "fr")
    assert texts == number_texts(300, 4, "fr") != number_texts(300, 5, "fr")
    assert {"zéro", "neuf", "mille", "soixante-dix"} <= {word for text in texts for word in text.split()}
