"""Transcripts as the answers of OpenAI's API, in its six formats, two more, and those of `subtitles` that are text."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from ..options.language_names import code_of
from ..output.writers import WRITERS
from ..results import in_its_language
from ..tokenizer import LANGUAGES, Tokenizer
from .requests import WRITTEN, TranscriptionRequest

if TYPE_CHECKING:
    from ..results import Segment, Transcript
    from .work import Work

PLAIN = "text/plain; charset=utf-8"
MEDIA_TYPES = {"srt": PLAIN, "vtt": "text/vtt; charset=utf-8", "tsv": "text/tab-separated-values; charset=utf-8"}
_NUMBERED = re.compile(r"SPEAKER_(\d{2,9})")
JSON = "application/json"
XML = "application/xml"
FURTHER_TYPES = {
    "csv": "text/csv; charset=utf-8", "podcast": JSON, "ttml": "application/ttml+xml", "ebuttd": "application/ttml+xml",
    "eaf": XML, "fcpxml": XML,
}  # fmt: skip


def respond(work: Work, transcript: Transcript) -> Response:
    """Return the answer to a request.

    Parameters
    ----------
    work
        The work on it, which is done.
    transcript
        What `transcribe` returned.
    """
    response_format = work.request.response_format
    if response_format in MEDIA_TYPES:
        return Response(written(work.request, transcript), media_type=MEDIA_TYPES[response_format])
    if response_format in WRITTEN:
        from ..output.further_formats import text_of  # few ask for it

        result = in_its_language(transcript, work.request.is_translation)
        content = text_of(result, response_format, work.request.layout or {}, name="recording")
        return Response(content, media_type=FURTHER_TYPES.get(response_format, PLAIN))
    if response_format == "text":
        return Response(transcript["text"].strip() + "\n", media_type=PLAIN)
    if response_format == "transcript":  # what `transcribe` returns, as it is
        return Response(json.dumps(transcript), media_type=JSON)
    make = {"json": short, "verbose_json": verbose, "diarized_json": diarized}[response_format]
    return Response(json.dumps(make(work, transcript)), media_type=JSON)


def usage(work: Work) -> dict[str, Any]:
    """Return what OpenAI charges by."""
    return {"type": "duration", "seconds": round(work.duration, 2)}


def short(work: Work, transcript: Transcript) -> dict[str, Any]:
    """Return ``json``."""
    answer: dict[str, Any] = {"text": transcript["text"].strip()}
    if work.request.with_logprobs:
        answer["logprobs"] = logprobs(work.tokenizer, transcript["segments"])
    answer["languages"] = [{"code": code_of(transcript["language"])}]
    return {**answer, "usage": usage(work)}


def verbose(work: Work, transcript: Transcript) -> dict[str, Any]:
    """Return ``verbose_json``; a translation is in English, whatever was spoken."""
    request, spoken = work.request, code_of(transcript["language"]) or "en"
    answer: dict[str, Any] = {
        "task": "translate" if request.is_translation else "transcribe",
        "language": "english" if request.is_translation else LANGUAGES[spoken],
        "duration": round(work.duration, 2),
        "text": transcript["text"].strip(),
    }
    if request.with_segments:
        answer["segments"] = transcript["segments"]
    if request.with_words:
        answer["words"] = [
            {"word": word["word"].strip(), "start": word["start"], "end": word["end"]}
            for segment in transcript["segments"]
            for word in segment.get("words", ())
        ]
    return {**answer, "usage": usage(work)}


def diarized(work: Work, transcript: Transcript) -> dict[str, Any]:
    """Return ``diarized_json``: who says each segment, by voice or by channel."""
    return {
        "task": "transcribe",
        "duration": round(work.duration, 2),
        "text": transcript["text"].strip(),
        "segments": [diarized_segment(segment) for segment in transcript["segments"]],
        "usage": usage(work),
    }


def diarized_segment(segment: Segment) -> dict[str, Any]:
    """Return a segment with its speaker: a known one's name, or else a letter."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{segment['id']}",
        "start": segment["start"],
        "end": segment["end"],
        "text": segment["text"],
        "speaker": _called(segment),
    }


def _called(segment: Segment) -> str:
    """Return who speaks: ``SPEAKER_00`` and channel 0 are A, 25 is Z, 26 is AA."""
    speaker = segment.get("speaker")
    number = _NUMBERED.fullmatch(speaker) if speaker is not None else None
    if speaker is not None and number is None:
        return speaker
    left, letters = (int(number[1]) if number else segment.get("channel", 0)) + 1, ""
    while left:
        left, letter = divmod(left - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


def written(request: TranscriptionRequest, transcript: Mapping[str, Any]) -> str:
    """Return ``srt``, ``vtt`` or ``tsv``."""
    text = io.StringIO()
    writer = WRITERS[request.response_format](output_dir="")
    result = in_its_language(transcript, request.is_translation)
    writer.write_result(result, text, {**(request.layout or {}), "escape_cues": True})
    return text.getvalue()


def logprobs(tokenizer: Tokenizer | None, segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Return the tokens of the text, each with its bytes and its log-probability; the work on them has run."""
    assert tokenizer is not None
    entries = []
    for segment in segments:
        for token, logprob in zip(segment["tokens"], segment["token_logprobs"], strict=True):
            if token < tokenizer.eot:
                data = tokenizer.encoding.decode_single_token_bytes(token)
                entries.append({"token": data.decode("utf-8", "replace"), "bytes": list(data), "logprob": logprob})
    return entries
