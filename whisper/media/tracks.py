"""The choice of an audio track in a recording that has several.

By default the one that the ``ffmpeg`` program takes; else by number or language. Reads no packet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import AudioError, LanguageError, OptionError
from ..options.language_names import code_of
from ..utils import warn_caller

HOW = "choose with audio_track, a number or a language"


def choose(streams: Sequence[Any], audio_track: int | str | None, name: str) -> Any:
    """Return the stream to decode.

    Parameters
    ----------
    streams
        PyAV's audio streams, in the order of the container.
    audio_track
        Number of one of them, from 0, or its language; None for the best.
    name
        Of the recording, in messages.

    Raises
    ------
    AudioError
        There is none, or its codec is not known.
    OptionError
        There is none of that number or language; the message lists those that there are.

    Warns
    -----
    RuntimeWarning
        There are several and none was asked for, or several of the language; says which was taken.
    """
    if not streams:
        raise AudioError(f"{name} has no audio stream")
    wanted = _of_language(streams, audio_track) if isinstance(audio_track, str) else list(streams)
    if isinstance(audio_track, int):
        wanted = wanted[audio_track : audio_track + 1]
    if not wanted:
        raise OptionError(f"{name} has no audio track {audio_track!r}; there are {_listed(streams)}")
    usable = [s for s in wanted if s.codec_context is not None and s.codec_context.channels > 0]
    if not usable:
        raise AudioError(f"{name} has an audio stream of an unknown codec: broken, or no recording at all")
    best = max(usable, key=_score)
    if len(usable) > 1:
        which = f"in {audio_track!r}" if audio_track is not None else "and none was chosen"
        warn_caller(
            f"{name} has {len(usable)} audio tracks {which}: {_described(streams, best)} is read, of "
            f"{_listed(streams)}; {HOW}"
        )
    return best


def _score(stream: Any) -> int:
    """Rank streams as the `ffmpeg` program does: a default one, then the one with most channels, then the first."""
    disposition = getattr(stream, "disposition", None)  # PyAV 13 lacks it
    is_default = getattr(disposition, "value", 0) & 1  # AV_DISPOSITION_DEFAULT
    return int(stream.codec_context.channels) + 5_000_000 * is_default


def _of_language(streams: Sequence[Any], language: str) -> list[Any]:
    """The streams whose tag is this very text, else those whose tag means the same language."""
    tags = [str(getattr(stream, "language", None) or "").strip() for stream in streams]
    same = [s for s, tag in zip(streams, tags, strict=True) if tag.lower() == language.strip().lower()]
    code = _code(language)
    return same or [s for s, tag in zip(streams, tags, strict=True) if code is not None and _code(tag) == code]


def _code(language: str) -> str | None:
    """Whisper's code of a language; None where it has none."""
    try:
        return code_of(language)
    except LanguageError:  # a track may be in a language that Whisper does not know
        return None


def _listed(streams: Sequence[Any]) -> str:
    return ", ".join(_described(streams, stream) for stream in streams)


def _described(streams: Sequence[Any], stream: Any) -> str:
    codec = stream.codec_context
    facts = [str(getattr(stream, "language", None) or "no language")]
    title = stream.metadata.get("title", "")
    if title:
        facts.append(repr(title[:60]))
    if codec:
        facts += [codec.name, f"{codec.channels} channel{'s' if codec.channels != 1 else ''}"]
    else:
        facts.append("unknown codec")
    return f"{list(streams).index(stream)} ({', '.join(facts)})"
