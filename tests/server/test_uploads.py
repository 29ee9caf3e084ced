"""Uploads: limits, and forms that are broken."""

from collections.abc import Iterator

import pytest

from whisper.server import uploads

from .serving import TRANSCRIPTIONS, client, error_of, post, server, sound

FORM = {"content-type": "multipart/form-data; boundary=xyz"}


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--xyz\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


END = b"--xyz--\r\n"
GOOD = (
    part("model", b"nano")
    + part("sample_len", b"4")
    + part("language", b"en")
    + part("file", sound(0.5), '; filename="a.wav"')
)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, "invalid_value"),
        (b"no form", None, "invalid_value"),
        (GOOD, None, "invalid_value"),  # without its end
        (GOOD[:200], None, "invalid_value"),
        (part("model", b"nano") + END, "file", "missing_required_parameter"),
        (part("model", b"nano") + part("file", b"") + END, "file", "audio_unreadable"),
        (GOOD + part("file", b"x") + END, "file", "invalid_value"),
        (GOOD + part("audio", b"x", '; filename="b"') + END, "audio", "unknown_parameter"),
        (GOOD + part("prompt", b"\xff") + END, "prompt", "invalid_value"),
        (GOOD + part("prompt", b"x" * 70_000) + END, "prompt", "invalid_value"),
        (GOOD + b"--xyz\r\nA: b\r\n\r\nx\r\n" + END, None, "invalid_value"),
        (GOOD + b"--xyz\r\n" + b"A: b\r\n" * 20 + b"\r\nx\r\n" + END, None, "invalid_value"),
        (GOOD + b"--xyz\r\nA: " + b"b" * 10_000 + b"\r\n\r\nx\r\n" + END, None, "invalid_value"),
        (b"".join(part("a", b"") for _ in range(300)) + END, None, "invalid_value"),
    ],
    ids=lambda value: None,
)
def test_broken_forms(body: bytes, param: str | None, code: str) -> None:
    error = error_of(answer := client().post(TRANSCRIPTIONS, content=body, headers=FORM))
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "application/x-www-form-urlencoded", ""])
def test_what_is_no_form(kind: str) -> None:
    answer = client().post(TRANSCRIPTIONS, content=b"{}", headers={"content-type": kind})
    assert (answer.status_code, error_of(answer)["code"]) == (415, "unsupported_media_type")


def test_too_many_bytes_are_refused_by_their_announcement_and_while_they_come() -> None:
    small = client(server(max_upload_mb=0.01))
    answer = post(small, sound(1))
    assert (answer.status_code, error_of(answer)["code"]) == (413, "file_too_large")

    def pieces() -> Iterator[bytes]:
        yield part("model", b"nano")
        yield b'--xyz\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for _ in range(100):
            yield bytes(1000)

    answer = small.post(TRANSCRIPTIONS, content=pieces(), headers=FORM)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "file_too_large")


def test_the_file_may_come_first_and_have_any_name() -> None:
    body = part("file", sound(0.5), '; filename="../../etc/passwd"') + part("model", b"nano") + part("language", b"en")
    body += part("sample_len", b"4")
    answer = client().post(TRANSCRIPTIONS, content=body + END, headers=FORM)
    assert answer.status_code == 200
    assert client().post(TRANSCRIPTIONS, content=GOOD + END, headers=FORM).json() == answer.json()


def test_a_file_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_WRITE_BYTES", 1000)
    answer = client().post(TRANSCRIPTIONS, content=(GOOD[i : i + 777] for i in range(0, len(GOOD), 777)), headers=FORM)
    assert answer.status_code == 400  # without its end
    whole = GOOD + END
    answer = client().post(
        TRANSCRIPTIONS, content=(whole[i : i + 777] for i in range(0, len(whole), 777)), headers=FORM
    )
    assert answer.json()["usage"] == {"type": "duration", "seconds": 0.5}
