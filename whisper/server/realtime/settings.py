"""The settings of one realtime session: OpenAI's objects, those of its beta, too, to `LiveOptions` and back.

An event changes the fields that it has; null brings a default back, and turns off the detection of turns. What cannot
be honoured is an error, apart from what means nothing here: noise reduction, which is told to be off, and what is said
of answers, which transcription sessions do not give.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...errors import OptionError
from ...live.options import LiveOptions
from ...options.language_names import code_of
from ...options.types import did_you_mean, is_number
from ..errors import RequestError, invalid
from .sound import Format, read_format

VAD, NONE = "vad", "none"
LOGPROBS = "item.input_audio_transcription.logprobs"
TURN_OPTIONS = {"threshold": ("threshold", 1.0), "prefix_padding_ms": ("prefix_padding_s", 1000.0),
                "silence_duration_ms": ("silence_s", 1000.0)}  # fmt: skip
OF_ANSWERS = ("create_response", "interrupt_response")  # which are none of ours
TEXT_OPTIONS = {"prompt": "initial_prompt", "keywords": "hotwords"}  # OpenAI's names of options
OWN_OPTIONS = frozenset(f.name for f in fields(LiveOptions)) - {
    "turn_detection", "token_logprobs", *(name for name, _ in TURN_OPTIONS.values())
}  # fmt: skip
DEFAULTS = LiveOptions(interim=False)
BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
BETA_FIELDS = {"input_audio_format": "format", "input_audio_transcription": "transcription",
               "turn_detection": "turn_detection", "input_audio_noise_reduction": "noise_reduction"}  # fmt: skip
LARGEST = 1e9  # number that is looked at
TOLD = ("id", "object", "expires_at")  # fields of the server's description, which a client may send back
NOISE_REDUCTIONS = ("near_field", "far_field")


@dataclass(frozen=True)
class SessionSettings:
    """What a client has asked for.

    Attributes
    ----------
    model
        As the client calls it.
    format
        Of its sound.
    live
        Options of the session.
    with_segments
        Whether the segments of each item are sent.
    is_beta
        Whether the client speaks OpenAI's beta.
    """

    model: str
    format: Format = field(default_factory=Format)
    live: LiveOptions = DEFAULTS
    with_segments: bool = False
    is_beta: bool = False

    @property
    def with_logprobs(self) -> bool:
        """Whether tokens and their log-probabilities are sent."""
        return self.live.token_logprobs

    def updated(self, session: Any) -> SessionSettings:
        """Return these settings after a ``session.update``.

        Raises
        ------
        RequestError
            Something cannot be meant, or not be honoured.
        """
        given = object_of(session, "session", ("type", "audio", "include", *TOLD))
        if given.get("type", "transcription") != "transcription":
            raise invalid(
                "session.type must be transcription: this server transcribes, and does not talk", "session.type"
            )
        audio = object_of(given.get("audio") or {}, "session.audio", ("input",))
        name = "session.audio.input"
        audio_input = object_of(audio.get("input") or {}, name, tuple(BETA_FIELDS.values()))
        return self._with(audio_input, f"{name}.", given)

    def updated_in_beta(self, session: Any) -> SessionSettings:
        """Return these settings after a ``transcription_session.update``, whose fields are flat."""
        given = object_of(session, "session", (*BETA_FIELDS, "include", "modalities", "client_secret", *TOLD))
        audio_input = {new: given[old] for old, new in BETA_FIELDS.items() if old in given}
        if audio_input.get("format") is not None:
            kind = BETA_FORMATS.get(audio_input["format"]) if isinstance(audio_input["format"], str) else None
            if kind is None:
                raise invalid(
                    f"session.input_audio_format must be one of {', '.join(BETA_FORMATS)}",
                    "session.input_audio_format",
                )
            audio_input["format"] = {"type": kind}
        return replace(self, is_beta=True)._with(audio_input, "session.", given)

    def _with(self, audio_input: Mapping[str, Any], prefix: str, session: Mapping[str, Any]) -> SessionSettings:
        new = self
        if "format" in audio_input:
            asked = audio_input["format"]
            chosen = Format() if asked is None else read_format(asked, f"{prefix}format", Format().rate)
            new = replace(new, format=chosen)
        if "noise_reduction" in audio_input:
            _check_noise_reduction(audio_input["noise_reduction"], f"{prefix}noise_reduction")
        if "transcription" in audio_input:
            new = new._with_transcription(audio_input["transcription"], f"{prefix}transcription")
        if "turn_detection" in audio_input:
            new = new._with_turns(audio_input["turn_detection"], f"{prefix}turn_detection")
        if "include" in session:
            new = new._including(session["include"])
        return new

    def _with_transcription(self, given: Any, name: str) -> SessionSettings:
        new = self
        known = {"model", "languages", "segments", *TEXT_OPTIONS, *OWN_OPTIONS}
        for key, value in object_of({} if given is None else given, name, known).items():
            param = f"{name}.{key}"
            if key == "model":
                if not isinstance(value, str):
                    raise invalid(f"{param} must be the name of a model", param)
                new = replace(new, model=value)
            elif key == "segments":
                if value not in (True, False, None):
                    raise invalid(f"{param} must be true or false", param)
                new = replace(new, with_segments=bool(value))
            elif key == "languages":
                new = new._set("language", _only_language(value, param), param)
            else:
                new = new._set(TEXT_OPTIONS.get(key, key), value or None if key in TEXT_OPTIONS else value, param)
        return new

    def _with_turns(self, given: Any, name: str) -> SessionSettings:
        if given is None:
            return self._set("turn_detection", NONE, name)
        known = ("type", "idle_timeout_ms", "eagerness", *OF_ANSWERS, *TURN_OPTIONS)
        turns = object_of(given, name, known)
        if turns.get("type", "server_vad") != "server_vad":
            raise unsupported(f"{name}.type must be server_vad, or {name} null", f"{name}.type")
        for key in ("idle_timeout_ms", "eagerness"):
            if turns.get(key) is not None:
                raise unsupported(f"{name}.{key} is not supported here", f"{name}.{key}")
        new = self._set("turn_detection", VAD, name)
        for key, (option, scale) in TURN_OPTIONS.items():
            if key in turns:
                new = new._set(option, _scaled(turns[key], scale, f"{name}.{key}"), f"{name}.{key}")
        return new

    def _including(self, given: Any) -> SessionSettings:
        wanted = [] if given is None else given
        if not isinstance(wanted, list) or any(name != LOGPROBS for name in wanted):
            raise invalid(f"session.include may have {LOGPROBS}, and nothing else", "session.include")
        return self._set("token_logprobs", bool(wanted), "session.include")

    def _set(self, option: str, value: Any, param: str) -> SessionSettings:
        """Return these settings with another value of an option; None is its default."""
        chosen = getattr(DEFAULTS, option) if value is None else value
        try:
            if option == "language":
                chosen = code_of(chosen)
            return replace(self, live=replace(self.live, **{option: chosen}))
        except OptionError as error:
            raise invalid(f"{param}: {error}", param) from error

    # -- and back ----------------------------------------------------------------------------------------

    def described(self, session_id: str, expires_at: int) -> dict[str, Any]:
        """Return the whole session, as OpenAI describes it."""
        head = {"id": session_id, "object": "realtime.transcription_session", "expires_at": expires_at}
        include = [LOGPROBS] if self.with_logprobs else None
        if self.is_beta:
            names = {kind: name for name, kind in BETA_FORMATS.items()}
            return {
                **head,
                "input_audio_format": names[self.format.type],
                "input_audio_transcription": self._transcription(),
                "input_audio_noise_reduction": None,
                "turn_detection": self._turns(),
                "include": include,
                "client_secret": None,
            }
        audio_input = {
            "format": self.format.described,
            "transcription": self._transcription(),
            "noise_reduction": None,
            "turn_detection": self._turns(),
        }
        return {"type": "transcription", **head, "audio": {"input": audio_input}, "include": include}

    def _transcription(self) -> dict[str, Any]:
        """Return OpenAI's fields, and what differs from the defaults of ours."""
        live = self.live
        fields: dict[str, Any] = {
            "model": self.model,
            "language": live.language,
            "prompt": live.initial_prompt or "",
            "delay": live.delay,
        }
        if live.hotwords is not None:
            fields["keywords"] = live.hotwords if isinstance(live.hotwords, str) else list(live.hotwords)
        ours = {
            name: getattr(live, name)
            for name in sorted(OWN_OPTIONS - {"language", "delay", *TEXT_OPTIONS.values()})
            if getattr(live, name) != getattr(DEFAULTS, name)
        }
        return {**fields, **ours, **({"segments": True} if self.with_segments else {})}

    def _turns(self) -> dict[str, Any] | None:
        if self.live.turn_detection == NONE:
            return None
        return {
            "type": "server_vad",
            "threshold": self.live.threshold,
            "prefix_padding_ms": round(self.live.prefix_padding_s * 1000),
            "silence_duration_ms": round(self.live.silence_s * 1000),
        }


def _scaled(value: Any, scale: float, param: str) -> float | None:
    """Return a number in the unit of the option."""
    if value is None:
        return None
    if not is_number(value) or not abs(value) < LARGEST:
        raise invalid(f"{param} must be a number", param)
    return float(value) / scale


def unsupported(message: str, param: str) -> RequestError:
    """Return the error of something that OpenAI has and this server has not."""
    return invalid(message, param, "unsupported_parameter")


def object_of(given: Any, name: str, known: Collection[str]) -> Mapping[str, Any]:
    """Check that something is an object with known fields."""
    if not isinstance(given, dict):
        raise invalid(f"{name} must be an object", name)
    for key in given:
        if key not in known:
            hint = did_you_mean(key, known)
            raise invalid(f"{name} has no field {key[:80]!r}{hint}", f"{name}.{key[:80]}", "unknown_parameter")
    return given


def _check_noise_reduction(given: Any, name: str) -> None:
    """Check the noise reduction that a client asks for; there is none, and the description of the session says so."""
    if given is None:
        return
    kind = object_of(given, name, ("type", "strength")).get("type", NOISE_REDUCTIONS[0])
    if kind not in NOISE_REDUCTIONS:
        raise invalid(f"{name}.type must be one of {', '.join(NOISE_REDUCTIONS)}", f"{name}.type")


def _only_language(given: Any, name: str) -> Any:
    """Return the language of a list with one."""
    if not given:
        return None
    if not isinstance(given, list) or len(given) != 1:
        raise unsupported(f"{name} may have one language here; without any, it is detected in each turn", name)
    return given[0]
