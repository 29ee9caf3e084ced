"""From the options of the command to the fields of a form, and what of them another server does not know."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from ...errors import OptionError
from ...options.language_names import code_of
from ...options.transcription import options_of_transcribe
from ..common import ModelOptions

HERE_ALONE = ("verbose", "progress", "cancel")  # what is printed is printed here
NOT_SENT = ("known_speakers", "speaker_backend")  # files and programs of this machine
OF_OPENAI = (
    "language",
    "initial_prompt",
    "temperature",
    "temperature_increment_on_fallback",
    "word_timestamps",
    "task",
)


def refuse_local_options(changed: Collection[str]) -> None:
    """Raise where an option was given that is about a model on this machine, or that no server answers."""
    for name in (f.name for f in fields(ModelOptions) if f.name != "model"):
        if name in changed:
            raise OptionError(f"--{name} is for a model on this machine; with --server, the server has chosen it")
    for name in NOT_SENT:
        if name in changed:
            raise OptionError(f"--{name} is about files or programs of this machine; leave --server out")
    if "report" in changed:
        raise OptionError("--report is made where the model runs, and servers do not send it; leave --server out")


def all_fields(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the fields for a server of ours: all options whose value is not the default of `transcribe`."""
    found = []
    for declared in options_of_transcribe():
        name = declared.name
        if name in HERE_ALONE or name not in options or options[name] == declared.default:
            continue
        found.append((name, as_text(options[name])))
    return found


def as_text(value: Any) -> str:
    """Return a value as a form holds it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return json.dumps(list(value))
    return str(value)


def openai_fields(options: Mapping[str, Any], changed: Collection[str]) -> list[tuple[str, str]]:
    """Return the fields for a server that knows OpenAI's alone.

    Raises
    ------
    OptionError
        An option was given that such a server would not know.
    """
    known = {declared.name for declared in options_of_transcribe()} - {*HERE_ALONE, *OF_OPENAI}
    for name in sorted(known & set(changed)):
        raise OptionError(f"the server knows OpenAI's options alone, and --{name} is none of them")
    temperatures = options["temperature"]
    first = temperatures[0] if isinstance(temperatures, (list, tuple)) else temperatures
    found = [("response_format", "verbose_json"), ("temperature", str(first))]
    if options["language"] is not None and (code := code_of(options["language"])):
        found.append(("language", code))
    if options["initial_prompt"]:
        found.append(("prompt", options["initial_prompt"]))
    if options["word_timestamps"]:
        found += [("timestamp_granularities[]", "segment"), ("timestamp_granularities[]", "word")]
    return found
