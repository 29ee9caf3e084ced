"""Keys, hosts and origins."""

import pytest

from .serving import client, error_of, server


def test_keys() -> None:
    with_keys = client(server(keys=("right", "also right")))
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "right"}, {"authorization": "Basic right"},
                    {"authorization": "Bearer "}, {"authorization": b"Bearer \xff"}):  # fmt: skip
        answer = with_keys.get("/v1/models", headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert error_of(answer)["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
    for key in ("right", "also right"):
        assert with_keys.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert with_keys.get("/health").status_code == 200
    assert with_keys.get("/metrics").status_code == 401
    assert error_of(with_keys.get("/nowhere"))["code"] == "invalid_api_key"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", ""])
def test_a_name_that_was_rebound_to_this_machine_is_refused(host: str) -> None:
    for path in ("/v1/models", "/health"):
        answer = client().get(path, headers={"host": host})
        assert answer.status_code == 403
        assert error_of(answer)["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
def test_names_of_this_machine(host: str) -> None:
    assert client().get("/health", headers={"host": host}).status_code == 200


def test_given_hosts() -> None:
    one = client(server(allowed_hosts=["speech.example"]))
    assert one.get("/health", headers={"host": "speech.example"}).status_code == 200
    assert one.get("/health").status_code == 403


def test_pages_of_other_origins_are_refused() -> None:
    for origin in ("https://evil.example", "null", "http://localhost:9999", "https://localhost"):
        answer = client().post("/v1/audio/transcriptions", headers={"origin": origin})
        assert answer.status_code == 403
        assert error_of(answer)["code"] == "origin_not_allowed"
        assert "access-control-allow-origin" not in answer.headers
    assert client().get("/health", headers={"origin": "http://localhost"}).status_code == 200


def test_allowed_origins() -> None:
    page = "https://page.example"
    one = client(server(keys=("key",), cors_origins=[page]))
    preflight = {"origin": page, "access-control-request-method": "POST", "access-control-request-headers": "x-a"}
    answer = one.options("/v1/audio/transcriptions", headers=preflight)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, page)
    assert answer.headers["access-control-allow-headers"] == "x-a"
    answer = one.get("/v1/models", headers={"origin": page, "authorization": "Bearer key"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page)
    assert one.get("/v1/models", headers={"origin": page}).status_code == 401
    other = {**preflight, "origin": "https://evil.example"}
    assert one.options("/v1/audio/transcriptions", headers=other).status_code == 403


def test_headers_of_every_answer() -> None:
    for path in ("/health", "/nowhere", "/v1/models"):
        headers = client().get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
