"""The description of the API says what the server does, for every field."""

from pathlib import Path
from typing import Any

import pytest

from whisper.server.openapi import document
from whisper.server.requests import LAYOUT, OPENAI_FIELDS, OPTIONS

from .serving import TRANSCRIPTIONS, client, server


def test_every_field_is_described_once() -> None:
    content = document(False)["paths"][TRANSCRIPTIONS]["post"]["requestBody"]["content"]
    properties = content["multipart/form-data"]["schema"]["properties"]
    assert set(properties) == {"file", *OPENAI_FIELDS, *OPTIONS, *LAYOUT}
    assert properties["beam_size"]["type"] == "integer"
    assert properties["audit"]["type"] == "boolean"
    assert properties["channels"]["enum"] == ["mix", "separate"]
    assert properties["no_speech_threshold"]["default"] == 0.6


def test_every_address_is_described(tmp_path: Path) -> None:
    paths = document(False, has_jobs=True)["paths"]
    described = {
        (path, method) for path, operations in paths.items() for method in operations if method != "parameters"
    }
    keeping = client(server(data_dir=str(tmp_path)))
    there = {
        (route.path.replace(":path", ""), method.lower())
        for route in keeping.app.routes  # type: ignore[attr-defined]
        if route.path != "/v1/realtime"  # a websocket, which OpenAPI cannot describe
        for method in route.methods - {"HEAD"}
        if route.include_in_schema  # all but the page's own
    }
    assert described == there
    assert keeping.get("/openapi.json").json()["paths"].keys() == paths.keys()


def test_without_jobs_none_are_described() -> None:
    assert not any("jobs" in path for path in client().get("/openapi.json").json()["paths"])


def test_keys_are_described_where_there_are_some() -> None:
    with_keys = client(server(keys=("key",))).get("/openapi.json", headers={"authorization": "Bearer key"}).json()
    assert with_keys["paths"][TRANSCRIPTIONS]["post"]["security"] == [{"key": []}]
    assert "security" not in with_keys["paths"]["/health"]["get"]
    assert "securitySchemes" not in document(False)["components"]


OPERATIONS = [
    (method.upper(), path)
    for path, operations in document(False, has_jobs=True)["paths"].items()
    for method in operations
    if method != "parameters"
]


@pytest.mark.peers
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_random_requests_get_an_answer_that_the_description_has(method: str, path: str, tmp_path: Path) -> None:
    """Schemathesis makes requests of the description; every status and body must be one that it names."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    keeping = server(allowed_hosts=["testserver"], data_dir=str(tmp_path))
    operation = schemathesis.openapi.from_asgi("/openapi.json", client(keeping).app)[path][method]
    calm = settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck),
                    phases=[Phase.generate])  # fmt: skip

    @calm
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        # of what it sends, no file is a recording, which a description cannot say
        case.call_and_validate(timeout=100, excluded_checks=[schemathesis.checks.positive_data_acceptance])

    check()
