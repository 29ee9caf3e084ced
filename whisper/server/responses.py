"""Transcripts as the answers of OpenAI's API, in its six formats and two more."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from ..options.language_names import code_of
from ..output.writers import WRITERS
from ..tokenizer import LANGUAGES
from .requests import TranscriptionRequest

if TYPE_CHECKING:
    from ..results import Segment, Transcript
    from .work import Work

PLAIN = "text/plain; charset=utf-8"
MEDIA_TYPES = {"srt": PLAIN, "vtt": "text/vtt; charset=utf-8", "tsv": "text/tab-separated-values; charset=utf-8"}
JSON = "application/json"


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
        answer["logprobs"] = logprobs(work, transcript["segments"])
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
    """Return ``diarized_json``: each channel is a speaker."""
    return {
        "task": "transcribe",
        "duration": round(work.duration, 2),
        "text": transcript["text"].strip(),
        "segments": [diarized_segment(segment) for segment in transcript["segments"]],
        "usage": usage(work),
    }


def diarized_segment(segment: Segment) -> dict[str, Any]:
    """Return a segment with its speaker, channel 0 as A."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{segment['id']}",
        "start": segment["start"],
        "end": segment["end"],
        "text": segment["text"],
        "speaker": chr(ord("A") + segment.get("channel", 0)),
    }


def written(request: TranscriptionRequest, transcript: Mapping[str, Any]) -> str:
    """Return ``srt``, ``vtt`` or ``tsv``."""
    text = io.StringIO()
    writer = WRITERS[request.response_format](output_dir="")
    writer.write_result(dict(transcript), text, {**(request.layout or {}), "escape_cues": True})
    return text.getvalue()


def logprobs(work: Work, segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Return the tokens of the text, each with its bytes and its log-probability."""
    tokenizer = work.tokenizer
    assert tokenizer is not None, "the work has run"
    entries = []
    for segment in segments:
        for token, logprob in zip(segment["tokens"], segment["token_logprobs"], strict=True):
            if token < tokenizer.eot:
                data = tokenizer.encoding.decode_single_token_bytes(token)
                entries.append({"token": data.decode("utf-8", "replace"), "bytes": list(data), "logprob": logprob})
    return entries
