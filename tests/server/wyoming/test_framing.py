"""The messages of the Wyoming protocol, and what is none."""

import asyncio
import json
from typing import Any

import pytest

from whisper.server.errors import RequestError
from whisper.server.wyoming.framing import MOST_DATA, MOST_LINE, MOST_SOUND, Message, read_message


def read(data: bytes, times: int = 1) -> list[Message | None]:
    async def run() -> list[Message | None]:
        reader = asyncio.StreamReader(limit=MOST_LINE)
        reader.feed_data(data)
        reader.feed_eof()
        return [await read_message(reader) for _ in range(times)]

    return asyncio.run(run())


def test_what_is_written_is_read() -> None:
    messages = [
        Message("a"),
        Message("b", {"text": "schön\n"}),
        Message("c", {"x": [1]}, b"\n\0"),
        Message("d", {}, b"s"),
    ]
    assert read(b"".join(message.encoded() for message in messages), 5) == [*messages, None]


def test_data_in_the_line_and_behind_it() -> None:
    more = json.dumps({"b": 2}).encode()
    line = json.dumps({"type": "t", "data": {"a": 1}, "data_length": len(more), "payload_length": 0}).encode()
    assert read(line + b"\n" + more) == [Message("t", {"a": 1, "b": 2})]
    assert read(b'{"type": "t", "data": null}\n') == [Message("t")]


@pytest.mark.parametrize(
    "data", [b"", b'{"type": "t"', b'{"type": "t", "data_length": 5}\n{}', b'{"type": "t", "payload_length": 5}\nabc']
)
def test_a_client_that_leaves(data: bytes) -> None:
    assert read(data) == [None]


def line(**fields: Any) -> bytes:
    return json.dumps({"type": "t", **fields}).encode() + b"\n"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n", "invalid_message"),
        (b"\xff\n", "invalid_message"),
        (b"[]\n", "invalid_message"),
        (b"[" * 60000 + b"\n", "invalid_message"),
        (b'{"data": {}}\n', "invalid_message"),
        (line(type=1), "invalid_message"),
        (line(data=[1]), "invalid_message"),
        (line(data_length=-1), "invalid_message"),
        (line(data_length="5"), "invalid_message"),
        (line(data_length=True), "invalid_message"),
        (line(payload_length=1.5), "invalid_message"),
        (line(data_length=2) + b"[]", "invalid_message"),
        (line(data_length=MOST_DATA + 1), "message_too_large"),
        (line(payload_length=MOST_SOUND + 1), "message_too_large"),
        (b" " * (MOST_LINE + 10) + b"\n", "message_too_large"),
        (b" " * (MOST_LINE + 10), "message_too_large"),
    ],
)
def test_what_is_no_message(data: bytes, code: str) -> None:
    with pytest.raises(RequestError) as error:
        read(data)
    assert error.value.code == code
