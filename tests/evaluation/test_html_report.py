"""The page: self-contained, safe for any text, accessible, and readable on phones."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from whisper.errors import OptionError
from whisper.evaluation.html_report import make_report
from whisper.evaluation.plots import _ticks
from whisper.evaluation.results import Evaluation, Hypothesis, ScoredClip, compare
from whisper.manifests.read import ManifestEntry

VOID = {"meta", "br", "use", "path"}


def clip(
    path: str, text: str, said: str, group: str = "digits", language: str = "en", timed: bool = False
) -> ScoredClip:
    words = tuple((w, float(i), i + 0.4) for i, w in enumerate(text.split())) if timed else None
    times = tuple((w, i + 0.1, i + 0.6) for i, w in enumerate(said.split())) if timed else None
    recording = ManifestEntry(path, text, language, speaker=path, group=group, words=words)
    return ScoredClip(recording, Hypothesis(said, "en", True, 2.0, 0.3, times))


CLIPS = (
    clip("d/a.wav", "red blue", "red blew", timed=True),
    clip("d/b.wav", "<script>alert(1)</script> & sons", "<img src=x> and sons", "names $x_1$ ☃ with quite a long name"),
    clip("d/c.wav", "你好", "你", "chinese", "zh"),
    clip("d/d.wav", "", "thank <b>you</b>", "noise", "none"),
    clip("d/e.wav", "all of it is right", "all of it is right", "digits", "fr"),
    ScoredClip(ManifestEntry("d/f.wav", "x", "en"), None, "no sound in d/f.wav"),
)
EVALUATION = Evaluation(
    "nano & co", CLIPS, {"beam_size": None}, "2026-01-01", {"device": "cpu"}, 0.5, {"process": 5 * 10**8},
    ({"line": 7, "reason": "no such file: <gone>"},),
)  # fmt: skip


class Page(HTMLParser):
    """Checks that tags close in order, and gathers them with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID or ("/>" not in (self.get_starttag_text() or "") and tag not in {"meta", "br"}):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def two() -> str:
    better = replace(EVALUATION, model="other", clips=tuple(
        replace(c, hypothesis=replace(c.hypothesis, text=c.recording.text)) if c.hypothesis else c for c in CLIPS
    ))  # fmt: skip
    return make_report([EVALUATION, better], compare(EVALUATION, better))


def test_the_page_is_self_contained(two: str) -> None:
    page = Page(two)
    assert not page.all("script")
    assert not page.all("img")
    assert not page.all("link")
    outside = re.findall(r"(?:src|href)=\"(?!#)[^\"]*|url\((?!#)[^)]*|@import", two)
    assert outside == []


def test_texts_are_escaped(two: str) -> None:
    assert "<script>" not in two
    assert "<img src" not in two
    assert "&lt;gone&gt;" in two
    assert "nano &amp; co" in two
    assert "no sound in d/f.wav" in two
    assert "thank &lt;b&gt;you" in two


def test_each_part_is_there_and_has_a_name(two: str) -> None:
    page = Page(two)
    plots = page.all("svg")
    assert len(plots) == 5  # sets, clips, times, speed, differences
    assert all(plot["role"] == "img" and plot["aria-label"] and plot["viewbox"] for plot in plots)
    assert len(page.all("caption")) == len(page.all("table")) > 8
    assert {cell.get("scope") for cell in page.all("th")} == {"col", "row"}
    assert all(box.get("tabindex") == "0" and box.get("aria-label") for box in page.all("div") if "role" in box)
    assert 'aria-label="blew instead of blue"' in two
    assert [meta["content"] for meta in page.all("meta") if meta.get("name") == "viewport"]
    for heading in ("Word timestamps", "Hallucinations on non-speech", "Detected languages", "failed", "skipped"):
        assert heading in two


def test_light_and_dark_come_from_the_page(two: str) -> None:
    style, body = two.split("</style>", 1)
    light, dark = style.split("prefers-color-scheme: dark")
    used = set(re.findall(r"var\((--\w+)\)", body + style))
    assert {"--ink", "--line", "--one", "--two"} <= used
    for name in used:
        assert f"{name}: #" in light
        assert f"{name}: #" in dark
    assert "#0102" not in body  # no placeholder is left


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_colour_of_text_can_be_read(two: str) -> None:
    """4.5 to 1, as the Web Content Accessibility Guidelines ask (1.4.3)."""
    for part in two.split("</style>")[0].split("prefers-color-scheme: dark"):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", part))
        for name in ("ink", "quiet", "one", "two", "wrong", "added", "missing"):
            for ground in ("ground", "card"):
                bright, dull = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
                assert (bright + 0.05) / (dull + 0.05) >= 4.5, (name, ground)


def test_the_same_evaluation_gives_the_same_page() -> None:
    assert make_report([EVALUATION]) == make_report([EVALUATION])


def test_a_page_of_almost_nothing() -> None:
    nothing = make_report([Evaluation("nano", ())])
    assert "0 recordings" in nothing
    assert "<svg" not in nothing
    assert "100.0 %" in make_report([Evaluation("nano", (clip("a", "red", ""),))])
    with pytest.raises(OptionError, match="nothing to report"):
        make_report([])


@pytest.mark.parametrize(("low", "high"), [(2.1, 2.9), (0.2, 233.0), (1.0, 1.0), (0.0, 0.0), (9.9, 10.1), (3.0, 299.0)])
def test_scales_of_logarithms_have_numbers_around_the_values(low: float, high: float) -> None:
    ticks = _ticks(low, high)
    assert ticks[0] <= max(low, 1e-6) * 1.001
    assert ticks[-1] >= high * 0.999
    assert 2 <= len(ticks) <= 9
