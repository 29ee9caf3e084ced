"""Uploads: a multipart form is parsed while it arrives, and its file written to disk, under limits of our own.

The name that a client gives its file is not used: the file here has none, and disappears when it is closed.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, BinaryIO, NamedTuple, cast

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from ..media.spool import temporary_folder
from .errors import ClientGoneError, RequestError, invalid, translating_full_disk

FILE_FIELD = "file"
MAX_FIELDS = 256
MAX_FIELD_BYTES = 64 << 10
VOICE_FIELDS = ("known_speaker_references", "known_speaker_references[]")  # sound as text
MAX_VOICES = 4
MAX_VOICE_BYTES = 4 << 20  # as text: 10 s of stereo at 48 kHz, and some more
MAX_PART_HEADERS = 16
MAX_HEADER_BYTES = 8 << 10  # of one part, names and values together
_WRITE_BYTES = 1 << 18  # written to disk at once


class Form(NamedTuple):
    """What a client sent."""

    fields: list[tuple[str, str]]  # names and values, as they came
    file: BinaryIO  # at its beginning
    n_bytes: int  # of the file


class _Parts:
    """Callbacks of the multipart parser: collects fields and the bytes of the file that are not yet on disk."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.file_data = bytearray()
        self.n_file_bytes = 0
        self.has_file = self.is_complete = False
        self._n_headers = 0
        self._header_name, self._header_value = bytearray(), bytearray()
        self._disposition = b""
        self._name = ""
        self._value = bytearray()

    def on_part_begin(self) -> None:
        self._n_headers, self._disposition = 0, b""
        self._value = bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._check_header_size()

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_header_size()

    def _check_header_size(self) -> None:
        if len(self._header_name) + len(self._header_value) > MAX_HEADER_BYTES:
            raise invalid(f"a header in the form has more than {MAX_HEADER_BYTES} bytes")

    def on_header_end(self) -> None:
        self._n_headers += 1
        if self._n_headers > MAX_PART_HEADERS:
            raise invalid(f"a part of the form has more than {MAX_PART_HEADERS} headers")
        if bytes(self._header_name).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            raise invalid("a part of the form has no name")
        if self._name == FILE_FIELD:
            if self.has_file:
                raise invalid("more than one file was sent; send each in a request of its own", FILE_FIELD)
            self.has_file = True
        elif b"filename" in options:
            raise invalid(f"the field of the recording is called {FILE_FIELD!r}", self._name, "unknown_parameter")
        elif len(self.fields) >= MAX_FIELDS:
            raise invalid(f"the form has more than {MAX_FIELDS} fields")
        elif self._name in VOICE_FIELDS and sum(name in VOICE_FIELDS for name, _ in self.fields) >= MAX_VOICES:
            raise invalid(f"at most {MAX_VOICES} speakers may be known", self._name)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE_FIELD:
            self.file_data += data[start:end]
            self.n_file_bytes += end - start
            return
        self._value += data[start:end]
        most = MAX_VOICE_BYTES if self._name in VOICE_FIELDS else MAX_FIELD_BYTES
        if len(self._value) > most:
            raise invalid(f"the field has more than {most} bytes", self._name)

    def on_part_end(self) -> None:
        if self._name != FILE_FIELD:
            try:
                self.fields.append((self._name, self._value.decode("utf-8")))
            except UnicodeDecodeError:
                raise invalid("the field is not in UTF-8", self._name) from None

    def on_end(self) -> None:
        self.is_complete = True

    def callbacks(self) -> Mapping[str, Callable[..., None]]:
        """Return what the parser calls."""
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}


def check_headers(request: Request, max_bytes: int) -> bytes:
    """Refuse by its headers what would be refused anyway, before any of it is read; returns the form's boundary."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise RequestError(
            415, "the request must be a form, multipart/form-data with a boundary", code="unsupported_media_type"
        )
    if length_of(request.headers) > max_bytes:
        raise _too_large(max_bytes)
    return boundary


def length_of(headers: Mapping[str, str]) -> int:
    """Return the bytes of a body as its headers say; 0 where they say nothing."""
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _open_temporary() -> BinaryIO:
    """Open a file that has no name, and disappears when it is closed."""
    file: Any = tempfile.TemporaryFile(buffering=0, dir=temporary_folder())  # noqa: SIM115
    file.name = "upload"  # in messages, instead of the number of a file
    return cast("BinaryIO", file)


async def receive_form(
    request: Request, max_bytes: int, timeout: float, open_file: Callable[[], BinaryIO] = _open_temporary
) -> Form:
    """Read a form to its end; close its file.

    Parameters
    ----------
    request
        Its body has not been read.
    max_bytes
        Of the whole body.
    timeout
        Seconds within which each next piece must come.
    open_file
        Opens the file for what is uploaded.

    Raises
    ------
    RequestError
        It is no form, is too large or too slow, or has no file.
    ClientGoneError
        The connection was closed before its end.
    """
    parts = _Parts()
    try:
        parser = MultipartParser(check_headers(request, max_bytes), cast("Any", parts.callbacks()))
    except FormParserError as error:
        raise invalid(f"the form cannot be parsed: {error}") from error
    file = open_file()
    try:
        await _receive(request, parser, parts, file, max_bytes, timeout)
        file.seek(0)
    except BaseException:  # whatever ended the upload, also a cancel: no file stays open
        file.close()
        raise
    return Form(parts.fields, file, parts.n_file_bytes)


async def body_of(request: Request, max_bytes: int, timeout: float) -> AsyncIterator[bytes]:
    """Give a body as it comes; see `receive_form` for what may be wrong."""
    n_bytes = 0
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(timeout):
                piece = await anext(stream, None)
        except TimeoutError:
            raise RequestError(408, f"nothing of the upload came for {timeout:g} s", code="upload_timeout") from None
        except ClientDisconnect:
            raise ClientGoneError from None
        if piece is None:
            return
        n_bytes += len(piece)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        yield piece


async def _receive(
    request: Request, parser: MultipartParser, parts: _Parts, file: Any, max_bytes: int, timeout: float
) -> None:
    async for piece in body_of(request, max_bytes, timeout):
        try:
            parser.write(piece)
        except FormParserError as error:
            raise invalid(f"the form cannot be parsed: {error}") from error
        if len(parts.file_data) >= _WRITE_BYTES:
            await _write(parts, file)
    await _write(parts, file)
    if not parts.is_complete:
        raise invalid("the form ends before its last boundary; a part of it is missing")
    if not parts.has_file:
        raise invalid("the form has no recording", FILE_FIELD, "missing_required_parameter")
    if parts.n_file_bytes == 0:
        raise invalid("the recording is empty (0 bytes)", FILE_FIELD, "audio_unreadable")


async def _write(parts: _Parts, file: Any) -> None:
    """Write what has come of the file; a disk may be slow, so on another thread."""
    data, parts.file_data = parts.file_data, bytearray()

    def write() -> None:
        view = memoryview(data)
        with translating_full_disk():
            while len(view) > 0:
                view = view[file.write(view) :]

    if data:
        await anyio.to_thread.run_sync(write)


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(
        413,
        f"the upload is larger than the {max_bytes / 1e6:g} MB that this server takes; cut the recording, or send it "
        "compressed",
        code="file_too_large",
        param=FILE_FIELD,
    )
