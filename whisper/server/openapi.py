"""The description of the server's API, ``/openapi.json``, made of the same declarations that check each request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field
from typing import Any

from ..options.types import (
    FIELDS,
    FINITE,
    FLAG,
    NAMES,
    SPEAKERS,
    TEMPERATURES,
    TEXT_OR_TOKENS,
    TIMES,
    TOKENS,
    TRUTH,
    facts,
    takes_none,
)
from ..version import __release__
from .requests import FORMATS, GRANULARITIES, LAYOUT, MOST, OPTIONS, VAD_FIELDS
from .security import BETA_SECRETS_PATH, LONGEST_SECRET, OPEN_PATHS, SECRETS_PATH, SHORTEST_SECRET, USUAL_SECRET
from .uploads import MAX_VOICES

TEXT_TYPES = (
    "text/plain", "text/vtt", "text/tab-separated-values", "text/csv", "application/ttml+xml", "application/xml",
)  # fmt: skip
_TEXT: dict[str, Any] = {"type": "string"}
_WORDS = {"type": "array", "items": {"type": "string"}}
_NUMBER = {"type": "number"}
_SECONDS = {"type": "integer", "minimum": SHORTEST_SECRET, "maximum": LONGEST_SECRET, "default": USUAL_SECRET}
_BY_KIND: dict[Any, dict[str, Any]] = {
    FLAG: {"type": "boolean"},
    TRUTH: {"type": "boolean"},
    NAMES: _WORDS,
    SPEAKERS: {"oneOf": [{"type": "boolean"}, {"type": "integer"}, _TEXT]},
    TOKENS: {"oneOf": [{"type": "array", "items": {"type": "integer"}}, _TEXT]},
    TEXT_OR_TOKENS: _TEXT,
    TIMES: {"oneOf": [{"type": "array", "items": _NUMBER}, _TEXT]},
    TEMPERATURES: {"oneOf": [_NUMBER, {"type": "array", "items": _NUMBER}]},
    FIELDS: {"oneOf": [{"type": "object"}, _TEXT]},
}
_BY_METAVAR = {"N": {"type": "integer"}, "X": _NUMBER}
_ERRORS = {
    "400": "a field or the recording is wrong",
    "401": "no key, or a wrong one",
    "403": "the host or the origin of the request is not allowed",
    "404": "there is no such model",
    "405": "the address does not take this method",
    "408": "the upload stopped",
    "409": "the job has not ended",
    "413": "the upload or the recording is too long",
    "415": "the body is no form",
    "429": "too many requests wait already; Retry-After says for how long",
    "500": "a fault of the server",
    "503": "the server is starting or shutting down",
    "507": "the disk of the server is full",
}


def document(has_keys: bool, *, has_jobs: bool = False) -> dict[str, Any]:
    """Return the description, as OpenAPI 3.1 has it.

    Parameters
    ----------
    has_keys
        Whether requests need an API key.
    has_jobs
        Whether the server keeps jobs.
    """
    paths: dict[str, Any] = {
        "/v1/audio/transcriptions": {"post": _upload("Write down what is said in a recording", translates=False)},
        "/v1/audio/translations": {"post": _upload("Write in English what is said in a recording", translates=True)},
        "/v1/models": {"get": _get("List the models")},
        "/v1/models/{model}": {
            "get": {
                **_get("Describe a model", "404"),
                "parameters": [{"name": "model", "in": "path", "required": True, "schema": _TEXT}],
            }
        },
        **_secret_paths(),
        **(_job_paths() if has_jobs else {}),
        "/health": {"get": _get("Whether the server lives")},
        "/ready": {"get": _get("Whether the server takes work", "503")},
        "/metrics": {"get": {**_get("Metrics for Prometheus"), "responses": _responses({"text/plain": _TEXT})}},
        "/openapi.json": {"get": _get("This description")},
    }
    schemes = {"key": {"type": "http", "scheme": "bearer"}}
    if has_keys:
        for path, operations in paths.items():
            if path not in OPEN_PATHS:
                for operation in (one for name, one in operations.items() if name != "parameters"):
                    operation["security"] = [{"key": []}]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sotto", "version": __release__, "description": "OpenAI's audio API, and more options."},
        "paths": paths,
        "components": {"schemas": {"Error": _error()}, **({"securitySchemes": schemes} if has_keys else {})},
    }


def _secret_paths() -> dict[str, Any]:
    """Describe how client secrets are made; their sessions are a websocket's, which OpenAPI cannot describe."""
    created = {"type": "object", "properties": {"anchor": {"const": "created_at"}, "seconds": _SECONDS}}
    session = {"type": "object", "description": "settings of the session, as docs/serve.md has them"}
    present = {"expires_after": created, "session": session}
    in_beta = {"client_secret": {"type": "object", "properties": {"expires_after": created}}}

    def make(properties: dict[str, Any], summary: str, **more: Any) -> dict[str, Any]:
        content = {"application/json": {"schema": {"type": "object", "properties": properties, **more}}}
        return {
            "post": {
                **_get(summary, "400", "404", "408", "413", "415", "429"),
                "requestBody": {"required": True, "content": content},
            }
        }

    return {
        SECRETS_PATH: make(present, "Make a key for live sessions that lives for minutes", additionalProperties=False),
        BETA_SECRETS_PATH: make(in_beta, "The same, in the words of OpenAI's beta"),
    }


def _job_paths() -> dict[str, Any]:
    def parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "in": place, "required": place == "path", "schema": schema}

    of_id = {"parameters": [parameter("id", "path", _TEXT)]}
    create = _upload("Transcribe a recording without waiting for it", translates=False)
    create["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"].pop("stream")
    responses = _responses({"application/json": {"type": "object"}}, "400", "404", "408", "413", "415", "429", "507")
    create["responses"] = {"202" if status == "200" else status: told for status, told in responses.items()}
    create["parameters"] = [parameter("Idempotency-Key", "header", {**_TEXT, "maxLength": 200})]
    pages = [
        parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
        parameter("after", "query", _TEXT),
    ]
    contents = dict.fromkeys(TEXT_TYPES, _TEXT)
    result = _get("The transcript, in any format", "400", "404", "409", "413")
    result["responses"] |= {"200": _responses({"application/json": {"type": "object"}, **contents})["200"]}
    result["parameters"] = [parameter("format", "query", {"enum": list(FORMATS)})]
    events = {**_get("What happens to the job, as server-sent events", "400", "404")}
    events["responses"] |= {"200": _responses({"text/event-stream": _TEXT})["200"]}
    events["parameters"] = [parameter("Last-Event-ID", "header", _TEXT)]
    return {
        "/v1/jobs": {"get": {**_get("List the jobs", "400", "404"), "parameters": pages}, "post": create},
        "/v1/jobs/{id}": {
            **of_id,
            "get": _get("Describe a job", "404"),
            "delete": _get("End a job, and forget it", "404", "507"),
        },
        "/v1/jobs/{id}/result": {**of_id, "get": result},
        "/v1/jobs/{id}/events": {**of_id, "get": events},
    }


def _get(summary: str, *errors: str) -> dict[str, Any]:
    return {"summary": summary, "responses": _responses({"application/json": {"type": "object"}}, *errors)}


def _upload(summary: str, *, translates: bool) -> dict[str, Any]:
    properties = form_properties(translates)
    schema = {
        "type": "object",
        "required": ["file", "model"],
        "properties": properties,
        "additionalProperties": False,
    }
    content = {
        "application/json": {"type": "object"},
        **dict.fromkeys(TEXT_TYPES, _TEXT),
        "text/event-stream": _TEXT,
    }
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}},
        "responses": _responses(content, "400", "404", "408", "413", "415", "429"),
    }


def _responses(content: Mapping[str, Any], *errors: str) -> dict[str, Any]:
    always = ("401", "403", "405", "500", "503")
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "200": {"description": "done", "content": {kind: {"schema": schema} for kind, schema in content.items()}},
        **{status: {"description": _ERRORS[status], "content": error} for status in sorted({*always, *errors})},
    }


def _error() -> dict[str, Any]:
    text_or_null = {"type": ["string", "null"]}
    return {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {"message": _TEXT, "type": _TEXT, "param": text_or_null, "code": text_or_null},
            }
        },
    }


def form_properties(translates: bool) -> dict[str, Any]:
    """Return the schema of each field of a form."""
    vad = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": ["server_vad"]}, **dict.fromkeys(VAD_FIELDS, _NUMBER)},
        "additionalProperties": False,
    }
    openai: dict[str, Any] = {
        "file": {"type": "string", "format": "binary", "description": "the recording, of any common format"},
        "model": {**_TEXT, "description": "name or alias of a model; see /v1/models"},
        "prompt": {**_TEXT, "description": "OpenAI's name of initial_prompt"},
        "response_format": {"enum": list(FORMATS), "default": "json"},
        "timestamp_granularities": {
            "type": "array", "items": {"enum": list(GRANULARITIES)}, "description": "with verbose_json",
        },
        "include": {"type": "array", "items": {"enum": ["logprobs"]}, "description": "with json"},
        "stream": {"type": "boolean", "default": False, "description": "answer with server-sent events"},
        "chunking_strategy": {"oneOf": [{"enum": ["auto"]}, vad], "description": "OpenAI's name of vad_filter"},
        "keywords": {**_WORDS, "description": "OpenAI's name of hotwords"},
        "known_speaker_names": {**_WORDS, "description": f"names of known speakers, at most {MAX_VOICES}"},
        "known_speaker_references": {
            **_WORDS, "description": "their voices in the same order, each as a data URL of at most 60 s of sound",
        },
    }  # fmt: skip
    own = {name: _schema(declared) for name, declared in {**OPTIONS, **LAYOUT}.items()}
    own["task"]["enum"] = ["translate"] if translates else ["transcribe", "translate"]
    if translates:
        own["task"]["default"] = "translate"
    return {**openai, **own}


def _schema(declared: Field[Any]) -> dict[str, Any]:
    """Return the schema of a declared option."""
    known = facts(declared)
    schema = dict(_BY_KIND.get(known.kind) or _BY_METAVAR.get(known.kind.metavar or "") or _TEXT)
    if known.kind.choices:
        schema["enum"] = list(known.kind.choices)
    most = min(known.kind.high, MOST.get(declared.name, math.inf))
    schema |= {"minimum": known.kind.low} if known.kind.low > -math.inf else {}
    schema |= {"maximum": most} if most < FINITE else {}
    schema["description"] = f"{known.explained}; must be {known.kind.words}"
    if declared.default is not None:
        schema["default"] = declared.default
    elif takes_none(declared):
        schema["description"] += ", or empty"
    return schema
