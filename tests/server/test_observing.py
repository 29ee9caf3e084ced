"""The log: one line of JSON for each request, and nothing in it that belongs to the user."""

import json
import logging

import pytest

from whisper.server.observing import JsonFormatter

from .serving import client, post, server, sound


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records]


def test_a_line_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "whisper.server")
    one = client(server(keys=("secret-key",)), headers={"authorization": "Bearer secret-key"})
    answer = post(one, sound(), prompt="a secret prompt")
    one.get("/v1/models/secret-model?secret=1")
    one.get("/secret-path")
    first, second, third = lines(caplog)
    assert first["request_id"] == answer.headers["x-request-id"]
    assert (first["route"], first["status"], first["model"]) == ("/v1/audio/transcriptions", 200, "nano")
    assert first["audio_seconds"] == 2.0
    assert (second["route"], second["status"]) == ("/v1/models/{model:path}", 404)
    assert (third["route"], third["status"]) == ("other", 404)
    text = json.dumps(lines(caplog))
    assert "secret" not in text
    assert answer.json()["text"]
    assert answer.json()["text"] not in text


def test_a_fault_has_its_traceback(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    made = server()
    monkeypatch.setattr(made.models, "resolve", lambda name: 1 / 0)
    answer = post(client(made))
    (line,) = lines(caplog)
    assert (line["level"], line["request_id"]) == ("error", answer.headers["x-request-id"])
    assert "ZeroDivisionError" in str(line["traceback"])
