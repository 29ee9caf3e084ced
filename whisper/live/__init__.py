"""Live captions: sound that is still arriving becomes text at once, and each item ends with what `transcribe` gives.

Knows no HTTP and no terminal: samples in, events out.
"""

from __future__ import annotations

from .events import Committed, Event, Failed, Final, Interim, SpeechStarted, SpeechStopped, Stable
from .options import LiveOptions
from .session import LiveSession

__all__ = [
    "Committed",
    "Event",
    "Failed",
    "Final",
    "Interim",
    "LiveOptions",
    "LiveSession",
    "SpeechStarted",
    "SpeechStopped",
    "Stable",
]
