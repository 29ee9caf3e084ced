"""Hallucinations: the known phrases, and the evidence that it takes to drop a text."""

from __future__ import annotations

import pytest

from whisper.audit.hallucinations import PHRASES, Evidence, hallucination_reason, is_known_phrase
from whisper.tokenizer import LANGUAGES

SURE = Evidence(
    speech_seconds=4.0, speech_probability=0.99, mean_probability=0.59, no_speech_prob=0.01, avg_logprob=-0.2
)
WEAK = Evidence(
    speech_seconds=4.0, speech_probability=0.99, mean_probability=0.59, no_speech_prob=0.01, avg_logprob=-1.3
)
WORSE = Evidence(
    speech_seconds=4.0, speech_probability=0.4, mean_probability=0.24, no_speech_prob=0.9, avg_logprob=-1.3
)
NO_SPEECH = Evidence(
    speech_seconds=0.0, speech_probability=0.0, mean_probability=0.00, no_speech_prob=0.01, avg_logprob=-0.1
)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (" Thanks for watching!", "en"),
        (" Thank you. Thank you.", "en"),
        (" Untertitelung des ZDF, 2020", "de"),
        (" Sous-titres réalisés par la communauté d'Amara.org", "fr"),
        ("ご視聴ありがとうございました", "ja"),
        (" subtitles by the AMARA.ORG community", "sw"),
        ("謝謝觀看", "yue"),
    ],
)
def test_the_known_phrases_take_one_weak_sign(text: str, language: str) -> None:
    assert is_known_phrase(text, language)
    assert hallucination_reason(text, language, SURE) is None  # people do say so
    assert "known hallucination" in (hallucination_reason(text, language, WEAK) or "")
    assert hallucination_reason(text, language, NO_SPEECH) == "no speech"


@pytest.mark.parametrize(
    "text", [" Thank you for coming to this meeting.", " Thanks for watching the children.", " You know.", " ", " ..."]
)
def test_other_text_is_not_known_and_takes_several_signs(text: str) -> None:
    assert not is_known_phrase(text, "en")
    assert hallucination_reason(text, "en", WEAK) is None
    assert "high no-speech probability" in (hallucination_reason(text, "en", WORSE) or "")


def test_a_phrase_counts_in_its_own_language_alone() -> None:
    assert is_known_phrase("Vielen Dank fürs Zuschauen", "de")
    assert not is_known_phrase("Vielen Dank fürs Zuschauen", "en")


def test_more_text_than_the_speech_could_hold_is_a_sign() -> None:
    short = Evidence(
        speech_seconds=0.3, speech_probability=0.99, mean_probability=0.59, no_speech_prob=0.0, avg_logprob=-0.2
    )
    assert "0.3 s of speech" in (hallucination_reason(" Thank you for watching", "en", short) or "")
    assert hallucination_reason(" no", "en", short) is None


def test_each_phrase_is_known_in_the_language_that_it_stands_under() -> None:
    rows = [line.split("\t") for line in PHRASES.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert all(len(row) == 2 and (row[0] in LANGUAGES or row[0] == "any") for row in rows)
    assert all(is_known_phrase(phrase, "en" if code == "any" else code) for code, phrase in rows)
    assert len({tuple(row) for row in rows}) == len(rows) > 100


def test_a_short_noise_with_a_high_no_speech_probability_is_dropped() -> None:
    sneeze = Evidence(
        speech_seconds=1.0, speech_probability=0.9, mean_probability=0.54, no_speech_prob=0.8, avg_logprob=-0.7
    )
    assert hallucination_reason(" achoo", "en", sneeze)
    assert hallucination_reason(" achoo", "en", Evidence(1.0, 0.9, 0.6, 0.1, -0.7)) is None
    assert hallucination_reason(" achoo", "en", Evidence(3.0, 0.9, 0.6, 0.8, -0.7)) is None


def test_what_is_certainly_speech_keeps_its_text_whatever_the_model_doubts() -> None:
    for seconds in (0.6, 5.0):
        clear = Evidence(seconds, 0.99, 0.8, 0.9, -1.6)
        assert hallucination_reason(" Roman.", "en", clear) is None
        assert hallucination_reason(" Thank you.", "en", clear)
        assert hallucination_reason(" Roman.", "en", Evidence(seconds, 0.99, 0.5, 0.9, -1.6))


def test_an_unsure_word_in_faint_speech_is_dropped() -> None:
    music = Evidence(0.7, 0.9, 0.25, 0.2, -0.9)
    assert "low mean speech probability" in (hallucination_reason(" and alexa", "en", music) or "")
    for said in (
        Evidence(0.7, 0.9, 0.25, 0.2, -0.5),  # faint, and the model is sure
        Evidence(0.7, 0.9, 0.5, 0.2, -0.9),
        Evidence(2.0, 0.9, 0.25, 0.2, -0.9),
    ):
        assert hallucination_reason(" alexa", "en", said) is None
