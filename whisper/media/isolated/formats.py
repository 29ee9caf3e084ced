"""The container formats that are read of a file from outside: FFmpeg's names of those that people send.

FFmpeg knows more than 300, among them playlists that open other files, and rare ones whose code few have looked at. A
file in any other format is refused before its demuxer sees it.
"""

from __future__ import annotations

ALLOWED = (
    "wav", "w64", "aiff", "au", "caf",  # samples as they are, and a few codecs
    "flac", "wv", "tta",
    "mp3", "aac", "loas", "ac3", "eac3", "amr", "amrnb", "amrwb",
    "ogg", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2",
    "asf", "avi", "flv", "mpeg", "mpegts",
)  # fmt: skip
