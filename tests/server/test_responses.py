"""Transcripts as answers: what the request decides about their layout."""

from typing import Any

from whisper.server.requests import TranscriptionRequest
from whisper.server.responses import written


def test_a_translation_is_laid_out_as_english() -> None:
    text = ["The", "lines", "of", "a", "text", "are", "as", "wide"]
    words = [
        {"word": f" {word}", "start": i / 2, "end": i / 2 + 0.4, "probability": 1.0} for i, word in enumerate(text)
    ]
    segment: dict[str, Any] = {"id": 0, "start": 0.0, "end": 4.0, "text": " ".join(["", *text]), "words": words}
    transcript = {"text": segment["text"], "segments": [segment], "language": "ja"}
    widths = {}
    for task in ("transcribe", "translate"):
        options = {"task": task, "word_timestamps": True}
        asked = TranscriptionRequest("whisper-1", options, "srt", layout={"subtitle_preset": "netflix"})
        lines = [line for line in written(asked, transcript).splitlines() if line and line[0].isalpha()]
        assert " ".join(lines).split() == text
        widths[task] = max(map(len, lines))
    assert widths["translate"] > 26 >= widths["transcribe"]  # 13 full-width characters of Japanese
