"""Lists of recordings with transcripts."""

from .read import read_manifest as read_manifest
