"""Requests to a server over HTTP: JSON, uploads that stream from disk, and server-sent events.

Made of the standard library: one connection for each request, which is all that is needed, and nothing to install.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from ...errors import OptionError, ServerError

TIMEOUT = 60.0  # seconds without a byte; servers of ours send one every 15 s
BLOCK = 1 << 16
MAX_ANSWER = 1 << 31  # bytes
LOST = (OSError, http.client.HTTPException)  # what a connection that was lost raises


class Connection:
    """How a server is reached.

    Parameters
    ----------
    url
        Its address, with or without ``/v1`` at the end.
    key
        Its API key, where it needs one.

    Raises
    ------
    OptionError
        The address is none.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.username:
            raise OptionError(f"--server must be an address such as http://localhost:8000, not {url!r}")
        self.url, self._host, self._port, self._is_secure = url, parts.hostname, port, parts.scheme == "https"
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._headers = {"accept": "*/*", "user-agent": "sotto"}
        if key:
            if not (key.isascii() and key.isprintable()):
                raise OptionError("--server_key must be printable ASCII, as it is sent in a header")
            self._headers["authorization"] = f"Bearer {key}"

    def get(self, path: str) -> bytes:
        """Return the answer to a request; see `send` for errors."""
        with self.send("GET", path) as answer:
            return answer.read(MAX_ANSWER)

    def get_json(self, path: str) -> Any:
        """Return the answer to a request, which must be JSON."""
        return _json(self.get(path), self.url)

    def delete(self, path: str) -> None:
        """Delete something."""
        with self.send("DELETE", path):
            pass

    def upload(
        self,
        path: str,
        fields: Sequence[tuple[str, str]],
        file: BinaryIO,
        size: int,
        headers: Mapping[str, str] | None = None,
        on_sent: Callable[[int], object] = lambda n: None,
        timeout: float | None = TIMEOUT,
    ) -> bytes:
        """Send a form with a file, read from its place on while it is sent; returns the answer.

        Parameters
        ----------
        path
            Below the address of the server.
        fields
            The other fields of the form.
        file, size
            The recording, and its bytes.
        headers
            Further headers.
        on_sent
            Called with the bytes of the file that are sent.
        timeout
            Seconds without a byte of the answer; None for no limit.
        """
        boundary = uuid.uuid4().hex
        head = b"".join(_part(boundary, name, value) for name, value in fields)
        head += _head(boundary, 'name="file"; filename="recording"') + b"content-type: application/octet-stream\r\n\r\n"
        tail = f"\r\n--{boundary}--\r\n".encode("ascii")

        def body() -> Iterator[bytes]:
            yield head
            left = size
            while left > 0:
                block = file.read(min(BLOCK, left))
                if not block:
                    raise ServerError("the recording became shorter while it was sent")
                left -= len(block)
                yield block
                on_sent(size - left)
            yield tail

        described = {
            "content-type": f"multipart/form-data; boundary={boundary}",
            "content-length": str(len(head) + size + len(tail)),
            **(headers or {}),
        }
        with self.send("POST", path, body(), described, timeout) as answer:
            return answer.read(MAX_ANSWER)

    def events(self, path: str, last: str) -> Iterator[tuple[str, Any]]:
        """Give the ids and the data of server-sent events after the last one, until the connection ends."""
        with self.send("GET", path, headers={"last-event-id": last}) as answer:
            event_id, data = last, ""
            for line in _lines(answer):
                name, _, value = line.partition(":")
                if name == "id":
                    event_id = value.strip()
                elif name == "data":
                    data += value
                elif not line and data:
                    yield event_id, _json(data.encode("utf-8"), self.url)
                    data = ""

    @contextlib.contextmanager
    def send(
        self,
        method: str,
        path: str,
        body: Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = TIMEOUT,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and give its answer, which is one of success.

        Raises
        ------
        ServerError
            The server answered with an error.
        OSError, http.client.HTTPException
            The connection was lost, or there is none.
        """
        connection = self._connect(timeout)
        try:
            try:
                connection.request(
                    method, quote(self._path + path, safe="/?=&%"), body, {**self._headers, **(headers or {})}
                )
            except (BrokenPipeError, ConnectionResetError):
                if body is None:
                    raise
                # the server may have answered before it had read all: that says why
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                raise _error_of(answer, self.url)
            yield answer
        finally:
            connection.close()

    def _connect(self, timeout: float | None) -> http.client.HTTPConnection:
        if self._is_secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)


def _lines(answer: http.client.HTTPResponse) -> Iterator[str]:
    while line := answer.readline(MAX_ANSWER):
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def _head(boundary: str, disposition: str) -> bytes:
    return f"--{boundary}\r\ncontent-disposition: form-data; {disposition}\r\n".encode("ascii")


def _part(boundary: str, name: str, value: str) -> bytes:
    return _head(boundary, f'name="{name}"') + b"\r\n" + value.encode("utf-8", "surrogatepass") + b"\r\n"


def _json(text: bytes, url: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ServerError(f"{url} answers what is not JSON; is it a server for transcriptions?") from None


def _error_of(answer: http.client.HTTPResponse, url: str) -> ServerError:
    """Return the error that a server tells, in OpenAI's form or any other."""
    try:
        text = answer.read(BLOCK).decode("utf-8", "replace")
    except LOST:
        text = ""
    try:
        error = json.loads(text)["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = " ".join(text.split())[:200] or answer.reason, None
    wait = answer.headers.get("retry-after", "")
    return ServerError(
        f"{url}: {message}", status=answer.status, code=code, retry_after=float(wait) if wait.isdecimal() else None
    )
