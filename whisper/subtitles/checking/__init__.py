"""Files of subtitles held against the rules: what breaks them, and the file mended."""

from .check import Finding as Finding
from .check import check as check
