"""A transcript to share: one HTML file with the sound and the words inside, which opens anywhere, without a network.

The transcript is data in it, never markup: JSON in which no ``<`` is left, shown through text nodes by a script that
the file's own policy names by its hash; no other script runs, and nothing is loaded.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from ...spans import SAMPLE_RATE
from .store import Recording

if TYPE_CHECKING:
    from .library import Library

PLAYED_ANYWHERE = ("audio/mpeg", "audio/mp4", "audio/x-m4a", "audio/mp4a-latm", "audio/aac")
MOST_AS_IT_IS = 25 << 20  # bytes of an upload that goes into the file unchanged
BIT_RATE = 40_000
_FILES = Path(__file__).parents[1] / "page"


def page(library: Library, recording: Recording, document: dict[str, Any]) -> str:
    """Return the file.

    Parameters
    ----------
    library, recording
        Its sound is decoded.
    document
        Its transcript.
    """
    style = (_FILES / "share.css").read_text(encoding="utf-8")
    script = (_FILES / "share.js").read_text(encoding="utf-8")
    shown = {
        "name": recording.name,
        "speakers": document["speakers"],
        "segments": [_shown(s) for s in document["segments"]],
    }
    data = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    kind, sound = _sound(library, recording)
    return f"""<!doctype html>
<html lang="{html.escape(str(document["language"]), quote=True)}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(recording.name)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{html.escape(recording.name)}</h1>
<audio controls preload="auto" src="data:{kind};base64,{base64.b64encode(sound).decode()}"></audio></header>
<main></main>
<script type="application/json" id="transcript">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def _shown(segment: dict[str, Any]) -> dict[str, Any]:
    words = [[word["word"], word["start"], word["end"]] for word in segment["words"]]
    return {name: segment[name] for name in ("start", "end", "text", "speaker") if name in segment} | {"words": words}


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _sound(library: Library, recording: Recording) -> tuple[str, bytes]:
    """Return the media type and the bytes of a sound that every browser plays."""
    kind = mimetypes.guess_type(recording.name)[0] or ""
    path = library.sounds.original(recording.id)
    if kind in PLAYED_ANYWHERE and path.is_file() and path.stat().st_size <= MOST_AS_IT_IS:
        return kind, path.read_bytes()
    return "audio/mp4", encoded(library, recording)


def encoded(library: Library, recording: Recording) -> bytes:
    """Return the sound of a recording as AAC in an MP4 file."""
    file = io.BytesIO()
    with av.open(file, "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=BIT_RATE)
        begin, step = 0.0, 30.0
        while len(samples := library.sounds.samples(recording.id, begin, begin + step)):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, int(begin * SAMPLE_RATE)
            container.mux(stream.encode(frame))
            begin += step
        container.mux(stream.encode(None))
    return file.getvalue()
