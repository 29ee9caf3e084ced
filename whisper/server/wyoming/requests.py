"""What a Wyoming client asks for, and what it is told of this server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import OptionError
from ...live.options import LiveOptions
from ...media.arriving import Resampler, Samples
from ...options.language_names import code_of
from ...spans import SAMPLE_RATE
from ...tokenizer import LANGUAGES
from ...version import __release__
from ..errors import invalid
from ..models import Models
from ..realtime.sound import HIGHEST_RATE, LOWEST_RATE
from .framing import Message

MOST_CHANNELS = 8
WIDTHS = {2: "<i2", 4: "<i4"}  # bytes of a sample
# The client ends an utterance, so that no pause does; but what has no speech in it must have no text.
OPTIONS = LiveOptions(silence_s=10, prefix_padding_s=0.5, threshold=0.3, interim=False)
OPENAI = {"name": "OpenAI", "url": "https://github.com/openai/whisper"}


@dataclass(frozen=True)
class Asked:
    """What the message ``transcribe`` asks for.

    Attributes
    ----------
    model
        As the client calls it; None for the default.
    options
        Of the session.
    """

    model: str | None = None
    options: LiveOptions = OPTIONS


def read_transcribe(data: Mapping[str, Any]) -> Asked:
    """Return what a message ``transcribe`` asks for.

    Raises
    ------
    RequestError
        It has a field that cannot be meant.
    """
    name = data.get("name")
    if not isinstance(name, str | None):
        raise invalid("name must be the name of a model", "name")
    names = [*_texts(data, "transcript_names"), *_texts(data, "transcript_terms")]
    try:
        given = {"language": code_of(data.get("language")), "hotwords": names or None}
        return Asked(name or None, LiveOptions(**{**vars(OPTIONS), **given}))
    except OptionError as error:
        raise invalid(str(error), "language") from error


def _texts(data: Mapping[str, Any], name: str) -> Sequence[str]:
    given = data.get(name) or []
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise invalid(f"{name} must be a list of texts", name)
    return [text for text in given if text.strip()]


class Sound:
    """The sound of one utterance, brought to one channel at 16 kHz."""

    def __init__(self) -> None:
        self._resampler = Resampler(SAMPLE_RATE, SAMPLE_RATE)

    def push(self, chunk: Message) -> list[Samples]:
        """Return the samples of a message ``audio-chunk``.

        Raises
        ------
        RequestError
            Its format is not known.
        """
        rate, width, channels = (chunk.data.get(name) for name in ("rate", "width", "channels"))
        if type(rate) is not int or not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise invalid(f"rate must be from {LOWEST_RATE} to {HIGHEST_RATE}", "rate")
        if type(width) is not int or width not in WIDTHS:
            raise invalid("width must be 2 or 4: bytes of a sample", "width")
        if type(channels) is not int or not 1 <= channels <= MOST_CHANNELS:
            raise invalid(f"channels must be from 1 to {MOST_CHANNELS}", "channels")
        if len(chunk.payload) % (width * channels):
            raise invalid("the payload must be whole samples of all channels", "payload")
        numbers = np.frombuffer(chunk.payload, WIDTHS[width]).astype(np.int32) >> (8 * (width - 2))
        mono = numbers.reshape(-1, channels).mean(axis=1).round().astype(np.int16) if channels > 1 else numbers
        rest = []
        if rate != self._resampler.rate:
            rest = [self._resampler.finish()]
            self._resampler = Resampler(rate, SAMPLE_RATE)
        return [*rest, self._resampler.push(mono.astype(np.int16))]

    def finish(self) -> Samples:
        """Return the rest."""
        return self._resampler.finish()


def info(models: Models) -> Message:
    """Return the description of the server; loads the models, where they are not."""
    program = {
        "name": "sotto",
        "attribution": {"name": "Sotto", "url": ""},
        "installed": True,
        "description": "Whisper, on this machine",
        "version": __release__,
        "models": [_described(models, name) for name in models.served],
        "supports_transcript_streaming": True,
        "requires_external_vad": True,
    }
    return Message("info", {"asr": [program]})


def _described(models: Models, name: str) -> dict[str, Any]:
    with models.use(name) as model:
        languages = list(LANGUAGES)[: model.num_languages] if model.is_multilingual else ["en"]
    return {
        "name": name,
        "languages": languages,
        "attribution": OPENAI,
        "installed": True,
        "description": name,
        "version": None,
    }
