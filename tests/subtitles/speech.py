"""Words at random, as speech has them and as it never has them, for the property tests of the layout."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

ENGLISH = [
    "the",
    "a",
    "of",
    "and",
    "I",
    "you",
    "we",
    "said",
    "in",
    "to",
    "because",
    "with",
    "not",
    "is",
    "Dr.",
    "Mary",
    "Smith",
    "42",
    "percent",
    "house",
    "running,",
    "yes.",
    "no!",
    "why?",
    "well;",
    "understanding",
    "extraordinarily",
    "it's",
    "that",
    "which",
    "from",
    "under",
    "over",
    "through",
    "3.5",
    "U.S.",
    "etc.",
    "--",
    "hello",
]
SCRIPTS = {
    "en": ENGLISH,
    "de": [
        "der",
        "die",
        "ein",
        "und",
        "weil",
        "mit",
        "nicht",
        "Haus",
        "Donaudampfschifffahrtsgesellschaft,",
        "ja.",
        "Dr.",
        "Müller",
        "ist",
        "auf",
        "7",
    ],
    "fr": [
        "le",
        "la",
        "l'eau",
        "et",
        "parce",
        "que",
        "avec",
        "ne",
        "pas",
        "maison,",
        "oui.",
        "Monsieur",
        "Dupont",
        "est",
        "sur",
        "quatre-vingts",
        "«",
        "bien",
        "»",
        "?",
    ],
    "es": [
        "el",
        "la",
        "y",
        "porque",
        "con",
        "no",
        "casa,",
        "sí.",
        "¿Qué?",
        "Señor",
        "García",
        "está",
        "en",
        "muy",
        "bien",
    ],
    "ja": [*"今日はとても天気です。明日、雨が降るでしょう「東京」へッャー1a"],
    "zh": [*"我們更決心加強於強化規則，無論是在國際間。「好」！2"],
    "th": [*"วันนี้อากาศดีมากเลยเราไปเที่ยวกันเถอะ"],
    "ar": ["السلام", "عليكم،", "كيف", "حالك؟", "هذا", "كتاب", "جديد.", "في", "من"],
}
SPACED = {"en", "de", "fr", "es", "ar"}


@st.composite
def results(draw: st.DrawFn, languages: tuple[str, ...] = tuple(SCRIPTS), wild: bool = False) -> dict[str, Any]:
    """A result of `transcribe`: one language, some segments; `wild` with times that no speech has."""
    language = draw(st.sampled_from(languages))
    texts = draw(st.lists(st.sampled_from(SCRIPTS[language]), min_size=1, max_size=40))
    space = " " if language in SPACED else ""
    now, words = draw(st.floats(0, 5)), []
    for text in texts:
        pause = draw(st.sampled_from([0, 0, 0, 0, 0.05, 0.3, 0.7, 1.5, 4.0]))
        pace = draw(st.floats(0.0, 0.6)) if wild else draw(st.floats(0.08, 0.12)) * max(len(text), 2)
        start, end = round(now + pause, 2), round(now + pause + pace, 2)
        words.append({"word": space + text, "start": start, "end": end, "probability": 0.9})
        now = end if not wild else draw(st.sampled_from([end, start, end + 0.01]))
    bounds = sorted({0, len(words), *draw(st.lists(st.integers(0, len(words)), max_size=4))})
    segments = [
        {
            "id": n,
            "start": words[i]["start"],
            "end": words[j - 1]["end"],
            "text": "".join(word["word"] for word in words[i:j]),
            "words": words[i:j],
        }
        for n, (i, j) in enumerate(pairwise(bounds))
    ]
    return {"text": "".join(s["text"] for s in segments), "segments": segments, "language": language}
