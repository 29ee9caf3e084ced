"""Subtitles and transcripts: cues, their layout by rules, and every format that they are written in and read from."""

from .cues import Cue as Cue
from .cues import TimedWord as TimedWord
from .layout import lay_out as lay_out
from .transcript_files import read as read
from .transcript_files import write as write
