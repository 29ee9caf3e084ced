"""Timed Text Markup Language: IMSC 1.1 for the web and streaming, EBU-TT-D for broadcasters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from ...errors import DataError
from ..cues import Cue, TimedWord
from .document import Document, clock, cue_lines, has_word_times, line_text, span
from .parsing import Piece, Timed, parse_clock, spread
from .xml_text import parse_xml, xml_text

_TT = "http://www.w3.org/ns/ttml"
_XML = "{http://www.w3.org/XML/1998/namespace}"
_IMSC = """\
<?xml version="1.0" encoding="UTF-8"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:tts="http://www.w3.org/ns/ttml#styling" \
xmlns:ttp="http://www.w3.org/ns/ttml#parameter" xmlns:ttm="http://www.w3.org/ns/ttml#metadata" xml:lang={language} \
ttp:timeBase="media" ttp:cellResolution="32 15" \
ttp:contentProfiles="http://www.w3.org/ns/ttml/profile/imsc1.1/text">
  <head>
    <metadata>
      <ttm:title>{title}</ttm:title>
{agents}    </metadata>
    <styling>
      <style xml:id="text" tts:color="white" tts:backgroundColor="black" tts:fontFamily="proportionalSansSerif" \
tts:fontSize="100%" tts:lineHeight="125%"/>
    </styling>
    <layout>
      <region xml:id="bottom" tts:origin="10% 10%" tts:extent="80% 80%" tts:displayAlign="after" \
tts:textAlign="center"/>
    </layout>
  </head>
  <body>
    <div region="bottom">
{cues}    </div>
  </body>
</tt>
"""
_EBU = """\
<?xml version="1.0" encoding="UTF-8"?>
<tt:tt xmlns:tt="http://www.w3.org/ns/ttml" xmlns:tts="http://www.w3.org/ns/ttml#styling" \
xmlns:ttp="http://www.w3.org/ns/ttml#parameter" xmlns:ebuttm="urn:ebu:tt:metadata" xmlns:ebutts="urn:ebu:tt:style" \
xml:lang={language} xml:space="default" ttp:timeBase="media" ttp:cellResolution="50 30">
  <tt:head>
    <tt:metadata>
      <ebuttm:documentMetadata>
        <ebuttm:conformsToStandard>urn:ebu:tt:distribution:2018-04</ebuttm:conformsToStandard>
      </ebuttm:documentMetadata>
    </tt:metadata>
    <tt:styling>
      <tt:style xml:id="paragraph" tts:textAlign="center" tts:fontFamily="proportionalSansSerif" tts:fontSize="160%" \
tts:lineHeight="125%" ebutts:linePadding="0.5c"/>
      <tt:style xml:id="text" tts:color="#FFFFFFFF" tts:backgroundColor="#000000FF"/>
    </tt:styling>
    <tt:layout>
      <tt:region xml:id="bottom" tts:origin="10% 10%" tts:extent="80% 80%" tts:displayAlign="after"/>
    </tt:layout>
  </tt:head>
  <tt:body>
    <tt:div>
{cues}    </tt:div>
  </tt:body>
</tt:tt>
"""


def write_imsc(document: Document) -> str:
    """TTML in the text profile of IMSC 1.1: speakers as agents, with karaoke a time on each word.

    Source: W3C, TTML Profiles for Internet Media Subtitles and Captions 1.1.
    """
    names = list(dict.fromkeys(cue.speaker for cue in document.cues if cue.speaker))
    agents = {name: f"s{i}" for i, name in enumerate(names, start=1)}
    return _IMSC.format(
        language=quoteattr(document.language),
        title=xml_text(document.name),
        agents="".join(
            f'      <ttm:agent xml:id="{key}" type="person"><ttm:name type="full">{xml_text(name)}</ttm:name>'
            "</ttm:agent>\n"
            for name, key in agents.items()
        ),
        cues="".join(_imsc_cue(i, cue, document, agents) for i, cue in _numbered(document)),
    )


def write_ebuttd(document: Document) -> str:
    """EBU-TT-D: the same for players of European broadcasters, which have no speakers: those stand before the text.

    Source: EBU Tech 3380, version 1.0.1.
    """
    return _EBU.format(
        language=quoteattr(document.language),
        cues="".join(
            f'      <tt:p xml:id="c{i}" region="bottom" style="paragraph" {_times(cue)}><tt:span style="text">'
            f"{'<tt:br/>'.join(map(xml_text, document.named(cue)))}</tt:span></tt:p>\n"
            for i, cue in _numbered(document)
        ),
    )


def _numbered(document: Document) -> Iterator[tuple[int, Cue]]:
    return enumerate((cue for cue in document.cues if cue_lines(cue)), start=1)


def _times(item: Cue | TimedWord, offset: int = 0) -> str:
    begin, end = (clock(max(at - offset, 0) / 1000) for at in span(item.start, item.end))
    return f'begin="{begin}" end="{end}"'


def _imsc_cue(number: int, cue: Cue, document: Document, agents: Mapping[str, str]) -> str:
    agent = f' ttm:agent="{agents[cue.speaker]}"' if cue.speaker else ""
    head = f'      <p xml:id="c{number}" {_times(cue)}{agent}>'
    if not (document.options.karaoke and has_word_times(cue)):
        return f'{head}<span style="text">{"<br/>".join(map(xml_text, cue_lines(cue)))}</span></p>\n'
    lines = ("".join(_imsc_word(w, i == 0, cue) for i, w in enumerate(line)) for line in cue.lines if line_text(line))
    return f"{head}{'<br/>'.join(lines)}</p>\n"


def _imsc_word(word: TimedWord, is_first: bool, cue: Cue) -> str:
    """Return a word that appears when it is spoken, and stays; times within a cue count from its start."""
    text = escape(xml_text(word.text, escaped=False))
    start, end = span(cue.start, cue.end)
    begin = clock(min(max(span(word.start, word.end)[0] - start, 0), end - start - 1) / 1000)
    return f'<span style="text" xml:space="preserve" begin="{begin}">{text.lstrip() if is_first else text}</span>'


# ---------------------------------------------------------------------------------------------------------
# Read
# ---------------------------------------------------------------------------------------------------------

_OFFSET = re.compile(r"(\d+(?:\.\d+)?)(h|m|s|ms|f|t)")
_FRAMES = re.compile(r"(\d{2,}:\d\d:\d\d):(\d{2,}(?:\.\d+)?)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def read_ttml(text: str) -> Timed:
    """Read TTML of any profile: the times of body, div, p and span add up, agents are speakers."""
    root = parse_xml(text)
    if _local(root) != "tt":
        raise DataError(f"TTML begins with <tt>, not with <{_local(root)}>")
    agents = {
        agent.get(f"{_XML}id"): "".join(agent.itertext()).strip() for agent in root.iter() if _local(agent) == "agent"
    }
    clockwork = _Clockwork(root)
    body = next((child for child in root if _local(child) == "body"), None)
    pieces = [] if body is None else list(_paragraphs(body, 0.0, None, None, clockwork, agents))
    return Timed(pieces, root.get(f"{_XML}lang", ""))


class _Clockwork:
    """How a document counts time: its frame rate and its tick rate."""

    def __init__(self, root: ElementTree.Element) -> None:
        given = {name.partition("}")[2] or name: value for name, value in root.attrib.items()}
        try:
            numerator, denominator = map(float, given.get("frameRateMultiplier", "1 1").replace(":", " ").split())
            self.frame_rate = float(given.get("frameRate", 30)) * numerator / denominator
            self.tick_rate = float(given.get("tickRate", self.frame_rate if "frameRate" in given else 1))
        except (ValueError, ZeroDivisionError):
            raise DataError("frameRate, frameRateMultiplier and tickRate of TTML must be numbers above 0") from None
        if self.frame_rate <= 0 or self.tick_rate <= 0:
            raise DataError("frameRate and tickRate of TTML must be above 0")

    def seconds(self, text: str) -> float:
        """Return the seconds of a time expression."""
        if offset := _OFFSET.fullmatch(text.strip()):
            value, unit = float(offset[1]), offset[2]
            return value / {"f": self.frame_rate, "t": self.tick_rate}.get(unit, 1.0) * _SECONDS.get(unit, 1.0)
        if frames := _FRAMES.fullmatch(text.strip()):
            return parse_clock(frames[1]) + float(frames[2]) / self.frame_rate
        return parse_clock(text)


def _paragraphs(
    element: ElementTree.Element, start: float, end: float | None, agent: str | None, clockwork: _Clockwork,
    agents: Mapping[str | None, str],
) -> Iterator[Piece]:  # fmt: skip
    """Give the paragraphs in an element that itself lasts from `start` to `end`."""
    start, end = _lasts(element, start, end, clockwork)
    agent = _agent(element) or agent
    if _local(element) != "p":
        for child in element:
            yield from _paragraphs(child, start, end, agent, clockwork, agents)
        return
    runs = list(_runs(element, start, end, clockwork))
    known = [(a, b) for text, a, b, _ in runs if text.strip()]
    spoken = "".join(text for text, *_ in runs)
    if not known:
        return
    first, last = min(a for a, _ in known), [b for _, b in known]
    if None in last:
        raise DataError(f"a paragraph has no end: {spoken.strip()[:40]!r}")
    timed = [run for run in runs if run[3] and run[0].strip()]
    words: list[TimedWord] = []
    if len(timed) > 1:  # each is lit until the next one is
        until = [*(run[1] for run in timed[1:]), max(b for b in last if b is not None)]
        words = [w for (text, a, _, _), b in zip(timed, until, strict=True) for w in spread(text, a, max(a, b))]
    speaker = agents.get(agent) or agent
    yield Piece(
        min(first, start) if words else first, max(b for b in last if b is not None), spoken, speaker, tuple(words)
    )


def _runs(
    element: ElementTree.Element, start: float, end: float | None, clockwork: _Clockwork, timed: bool = False
) -> Iterator[tuple[str, float, float | None, bool]]:
    """Give the texts in a paragraph with their times, and whether those are their own."""
    yield element.text or "", start, end, timed
    for child in element:
        if _local(child) == "br":
            yield " ", start, end, False
        elif _local(child) == "span":
            own = child.get("begin") is not None
            yield from _runs(child, *_lasts(child, start, end, clockwork), clockwork, own)
        yield child.tail or "", start, end, timed


def _lasts(
    element: ElementTree.Element, start: float, end: float | None, clockwork: _Clockwork
) -> tuple[float, float | None]:
    """Return when an element begins and ends, within what it lies in."""
    begin = start + clockwork.seconds(element.get("begin", "0s"))
    ends = [end] if end is not None else []
    if (given := element.get("end")) is not None:
        ends.append(start + clockwork.seconds(given))
    if (lasts := element.get("dur")) is not None:
        ends.append(begin + clockwork.seconds(lasts))
    return begin, max(min(ends), begin) if ends else None


def _agent(element: ElementTree.Element) -> str | None:
    return next((value for name, value in element.attrib.items() if name.endswith("#metadata}agent")), None)


def _local(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]
