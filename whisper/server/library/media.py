"""Sound to hear, and words placed on it: what of a recording is played, and the times of corrected words."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import FileResponse

from ...errors import AudioError, OptionError
from ..errors import RequestError, invalid
from . import documents
from .sounds import not_decoded
from .store import Recording

if TYPE_CHECKING:
    from .library import Library

MAX_ALIGNED = 300.0  # seconds of one request
MARGIN = 0.3  # seconds of sound before and after the segments, where their first and last words may lie
MAX_LINES = 100


def sound(library: Library, recording: Recording, *, copy: bool) -> FileResponse:
    """Return the upload, or its 16 kHz copy; parts of it where the client asks for these (``Range``).

    What is said to be sound is sent as sound, and all else as bytes: no file is shown as a page.
    """
    if copy:
        library.sounds.prepare(recording.id)
    path = (library.sounds.copy if copy else library.sounds.original)(recording.id)
    if not path.is_file():
        raise not_decoded()
    kind = "audio/wav" if copy else mimetypes.guess_type(recording.name)[0] or ""
    if not kind.startswith(("audio/", "video/")):
        kind = "application/octet-stream"
    return FileResponse(path, media_type=kind, headers={"cache-control": "private, max-age=3600"})


@dataclass(frozen=True)
class Stretch:
    """Segments of a document that lie beside each other, whose words need times.

    Attributes
    ----------
    start, end
        Seconds.
    texts
        Of the segments.
    language
        Code; None to find it out.
    """

    start: float
    end: float
    texts: list[str]
    language: str | None

    @classmethod
    def read(cls, asked: Mapping[str, Any]) -> Stretch:
        """Read what a client asks for; `RequestError` where it is malformed or too long."""
        texts = asked.get("texts")
        if not (isinstance(texts, list) and 0 < len(texts) <= MAX_LINES):
            raise invalid(f"texts must be a list of 1 to {MAX_LINES}", "texts")
        texts = [" ".join(documents.clean(text, "texts", documents.MAX_TEXT).split()) for text in texts]
        if not all(texts):
            raise invalid("a text without words has no times", "texts")
        start, end = (documents.seconds(asked.get(name), name) for name in ("start", "end"))
        if not 0 < end - start <= MAX_ALIGNED:
            raise invalid(f"the end must follow the start within {MAX_ALIGNED:g} s", "end")
        language = asked.get("language")
        return cls(start, end, texts, None if language is None else documents.clean(language, "language", 20))

    def align(self, library: Library, recording: Recording) -> list[list[dict[str, Any]]]:
        """Return the words of each text, with times in the recording and probabilities."""
        from ...alignment import align

        begin = max(self.start - MARGIN, 0.0)
        samples = library.sounds.samples(recording.id, begin, self.end + MARGIN)
        if not len(samples):
            raise invalid("the recording is shorter than that", "end")
        try:
            with library.models.use(recording.model) as model:
                audio = samples.astype(np.float32) / 32768
                aligned = align(model, audio, self.texts, language=self.language)
        except (AudioError, OptionError) as error:
            raise RequestError(400, str(error), code="not_aligned") from error
        except KeyError:
            raise RequestError(409, f"the model {recording.model} is not served now", code="model_not_found") from None

        def placed(seconds: float) -> float:
            return round(min(max(seconds + begin, self.start - MARGIN, 0.0), self.end + MARGIN), 2)

        return [
            [{**word, "start": placed(word["start"]), "end": placed(word["end"])} for word in segment["words"]]
            for segment in aligned["segments"]
        ]
