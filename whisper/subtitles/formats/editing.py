"""Markers for video editors: Final Cut Pro's XML, and an edit decision list as DaVinci Resolve reads it."""

from __future__ import annotations

from fractions import Fraction

from .document import Document, cue_lines, units
from .xml_text import xml_text

FIRST_HOUR = 3600  # seconds: where timelines begin by custom
_FCPXML = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE fcpxml>
<fcpxml version="1.8">
  <resources>
    <format id="r1" name="FFVideoFormatRateUndefined" frameDuration="{frame}" width="1920" height="1080"/>
  </resources>
  <library>
    <event name="{name}">
      <project name="{name}">
        <sequence format="r1" duration="{duration}" tcStart="0s" tcFormat="NDF">
          <spine>
            <gap name="Gap" offset="0s" start="{start}" duration="{duration}">
{markers}            </gap>
          </spine>
        </sequence>
      </project>
    </event>
  </library>
</fcpxml>
"""


def write_fcpxml(document: Document) -> str:
    """FCPXML 1.8: a marker at the start of each cue, on a gap as long as the text; times are whole frames."""
    rate = document.options.frames_a_second
    offset = FIRST_HOUR * round(rate) / rate  # a whole number of frames, also at 23.976 a second
    markers = "".join(
        f'              <marker start="{_rational(offset + _frame(cue.start, rate) / rate)}" '
        f'duration="{_rational(1 / rate)}" value="{xml_text(" ".join(document.named(cue)))}"/>\n'
        for cue in document.cues
        if cue_lines(cue)
    )
    duration = _rational((_frame(document.duration, rate) + 1) / rate)
    name = xml_text(document.name)
    return _FCPXML.format(
        frame=_rational(1 / rate), name=name, duration=duration, start=_rational(offset), markers=markers
    )


def write_edl(document: Document) -> str:
    """CMX 3600 with the markers of DaVinci Resolve: an event of one frame for each cue, and its text behind it."""
    rate = document.options.frames_a_second
    written = f"TITLE: {xml_text(document.name, escaped=False)}\nFCM: NON-DROP FRAME\n\n"
    cues = (cue for cue in document.cues if cue_lines(cue))
    for number, cue in enumerate(cues, start=1):
        frame = _frame(cue.start, rate)
        lasts = max(_frame(cue.end, rate) - frame, 1)
        begin, end = (_timecode(FIRST_HOUR * round(rate) + at, round(rate)) for at in (frame, frame + 1))
        text = " ".join(document.named(cue)).replace("|", "/")
        written += (
            f"{number:03d}  001      V     C        {begin} {end} {begin} {end}  \n"
            f" |C:ResolveColorBlue |M:{text} |D:{lasts}\n\n"
        )
    return written


def _frame(seconds: float, rate: Fraction) -> int:
    """Return the frame that is shown at a time."""
    return int(Fraction(units(seconds), 1000) * rate)


def _rational(seconds: Fraction | int) -> str:
    """Write a time as Final Cut Pro does, ``1001/24000s``."""
    exact = Fraction(seconds)
    return f"{exact.numerator}s" if exact.denominator == 1 else f"{exact.numerator}/{exact.denominator}s"


def _timecode(frames: int, per_second: int) -> str:
    seconds, frame = divmod(frames, per_second)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frame:02d}"
