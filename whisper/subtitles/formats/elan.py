"""ELAN's annotation files (EAF 2.8): a tier for each speaker, and below it one for words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from xml.etree import ElementTree

from ...errors import DataError
from .document import SEGMENTS, WORDS, Document, side_by_side
from .parsing import Piece, Timed, TimedTexts, words_in
from .xml_text import parse_xml, xml_text

_HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="{date}" FORMAT="2.8" VERSION="2.8" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv2.8.xsd">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>
  <TIME_ORDER>
{slots}  </TIME_ORDER>
{tiers}  <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="text" TIME_ALIGNABLE="true"/>
  <LINGUISTIC_TYPE CONSTRAINTS="Included_In" GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="word" \
TIME_ALIGNABLE="true"/>
  <CONSTRAINT DESCRIPTION="Time alignable annotations within the parent annotation's time interval, gaps are allowed" \
STEREOTYPE="Included_In"/>
</ANNOTATION_DOCUMENT>
"""


def write_eaf(document: Document) -> str:
    """EAF 2.8, without the name of a sound file: ELAN asks for it."""
    slots: list[int] = []
    tiers = ""
    for speaker in document.speakers:
        own = [segment for segment in document.segments if segment.speaker == speaker]
        name = speaker or SEGMENTS
        person = f' PARTICIPANT="{xml_text(speaker)}"' if speaker else ""
        head = f'TIER_ID="{xml_text(name)}" LINGUISTIC_TYPE_REF="text"{person}'
        tiers += _tier(head, side_by_side([segment[:3] for segment in own]), slots)
        if words := [(word.start, word.end, word.text.strip()) for segment in own for word in segment.words]:
            below = f"{speaker} {WORDS}" if speaker else WORDS
            head = f'TIER_ID="{xml_text(below)}" LINGUISTIC_TYPE_REF="word" PARENT_REF="{xml_text(name)}"{person}'
            tiers += _tier(head, side_by_side(words), slots)
    # ELAN wants the slots in the order of time
    order = sorted(range(len(slots)), key=lambda i: slots[i])
    written = "".join(f'    <TIME_SLOT TIME_SLOT_ID="ts{i + 1}" TIME_VALUE="{slots[i]}"/>\n' for i in order)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return _HEAD.format(date=date, slots=written, tiers=tiers)


def _tier(head: str, items: Iterable[tuple[int, int, str]], slots: list[int]) -> str:
    """Return a tier; adds its times to `slots`, from which the numbers of all annotations follow."""
    annotations = ""
    for start, end, text in items:
        slots += (start, end)
        n = len(slots)
        annotations += (
            f'    <ANNOTATION>\n      <ALIGNABLE_ANNOTATION ANNOTATION_ID="a{n // 2}" '
            f'TIME_SLOT_REF1="ts{n - 1}" TIME_SLOT_REF2="ts{n}">\n'
            f"        <ANNOTATION_VALUE>{xml_text(text)}</ANNOTATION_VALUE>\n"
            "      </ALIGNABLE_ANNOTATION>\n    </ANNOTATION>\n"
        )
    return f"  <TIER {head}>\n{annotations}  </TIER>\n" if annotations else f"  <TIER {head}/>\n"


def read_eaf(text: str) -> Timed:
    """Read the tiers that have times of their own; those below them named ``words`` are their words."""
    root = parse_xml(text)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise DataError(f"an EAF file begins with <ANNOTATION_DOCUMENT>, not with <{root.tag}>")
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    tiers = {tier.get("TIER_ID", ""): tier for tier in root.iter("TIER")}
    pieces: list[Piece] = []
    for name, tier in tiers.items():
        if tier.get("PARENT_REF") in tiers:
            continue
        below = [t for n, t in tiers.items() if t.get("PARENT_REF") == name and n.endswith(WORDS)]
        words = TimedTexts([(*item, None) for t in below for item in _items(t, slots)])
        speaker = tier.get("PARTICIPANT") or (None if name in (SEGMENTS, "default") else name)
        for start, end, spoken in _items(tier, slots):
            pieces.append(
                Piece(start, end, spoken, speaker, words_in(" " + spoken.strip(), words.within(start, end), start, end))
            )
    return Timed(pieces)


def _items(tier: ElementTree.Element, slots: dict[str | None, str | None]) -> list[tuple[float, float, str]]:
    """Return the annotations of a tier that have both times, in seconds."""
    items = []
    for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
        times = [slots.get(annotation.get(f"TIME_SLOT_REF{i}")) for i in (1, 2)]
        text = annotation.findtext("ANNOTATION_VALUE") or ""
        if not text.strip():
            continue
        try:
            start, end = (int(time or "") / 1000 for time in times)
        except ValueError:
            raise DataError(f"the annotation {text[:40]!r} has no two times") from None
        items.append((start, end, text))
    return items
