"""The messages of the Wyoming protocol: one line of JSON, perhaps more JSON behind it, and perhaps sound behind that.

Written and read under limits of our own: the sizes of what follows a line stand in the line, and a stranger writes it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import invalid

VERSION = "1.5.4"  # of the protocol: that of the package `wyoming` which has the messages that are used here
MOST_LINE = 1 << 16  # bytes
MOST_DATA = 1 << 16
MOST_SOUND = 1 << 20


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes
    ----------
    type
        Such as ``audio-chunk``.
    data
        Its fields.
    payload
        Its sound.
    """

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def encoded(self) -> bytes:
        """Return its bytes."""
        line: dict[str, Any] = {"type": self.type, "version": VERSION}
        data = json.dumps(self.data).encode() if self.data else b""
        if data:
            line["data_length"] = len(data)
        if self.payload:
            line["payload_length"] = len(self.payload)
        return json.dumps(line).encode() + b"\n" + data + self.payload


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """Return the next message; None where the other side has left.

    Parameters
    ----------
    reader
        Made with a limit of `MOST_LINE`.

    Raises
    ------
    RequestError
        What comes is something else, or too large.
    """
    try:
        line = await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except asyncio.LimitOverrunError:
        raise invalid(f"a line of more than {MOST_LINE} bytes", code="message_too_large") from None
    head = _object(line)
    kind, data = head.get("type"), head.get("data")
    if not isinstance(kind, str) or not isinstance({} if data is None else data, dict):
        raise invalid("a message has a type, and data that is an object", code="invalid_message")
    try:
        more = await reader.readexactly(_length(head, "data_length", MOST_DATA))
        payload = await reader.readexactly(_length(head, "payload_length", MOST_SOUND))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return Message(kind, {**(data or {}), **(_object(more) if more else {})}, payload)


def _length(head: Mapping[str, Any], name: str, most: int) -> int:
    length = head.get(name)
    if length is None:
        return 0
    if type(length) is not int or length < 0:
        raise invalid(f"{name} must be a whole number of bytes", name, "invalid_message")
    if length > most:
        raise invalid(f"{name} is {length}, and {most} bytes are the most", name, "message_too_large")
    return length


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise invalid("this port speaks the Wyoming protocol: lines of JSON objects", code="invalid_message")
    return found
