"""Errors in the shape that OpenAI's clients read: ``{"error": {"message", "type", "param", "code"}}`` with a status.

Everything that a client did wrong, or that keeps the server from an answer, is a `RequestError`. What else goes wrong
is our fault: a 500 that tells the client no more than the id of its request.
"""

from __future__ import annotations

import contextlib
import errno
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from ..errors import AudioError, CancelledError, OptionError, UnknownOptionError, WhisperError

CLIENT_GONE = 499  # in logs and metrics alone: there is no client to read an answer
_TYPES = {429: "rate_limit_error", 500: "server_error", 507: "server_error", 503: "service_unavailable_error"}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "file_too_large",
    415: "unsupported_media_type",
    500: "internal_error",
}


class RequestError(WhisperError):
    """A request that gets an error for an answer.

    Parameters
    ----------
    status
        Of HTTP.
    message
        One sentence for the client's user.
    code
        For programs, such as ``"invalid_value"``.
    param
        The field that is wrong.
    retry_after
        Seconds after which a repetition is likely to succeed.
    should_retry
        False where the same request would fail again; OpenAI's clients then do not repeat it.
    headers
        Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: int | None = None,
        should_retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(retry_after)
        if should_retry is not None:
            self.headers["x-should-retry"] = str(should_retry).lower()

    @property
    def body(self) -> dict[str, Any]:
        """Return the answer, as JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """Return the answer, as a response."""
        return JSONResponse(self.body, self.status, self.headers)


class ClientGoneError(Exception):
    """The client has closed the connection."""


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> RequestError:
    """Return the error of a field that cannot be meant."""
    return RequestError(400, message, code=code, param=param)


def internal() -> RequestError:
    """Return the error of a fault of ours; the log has the rest."""
    return RequestError(
        500,
        "the server failed on this request; its log has the reason under the request's id",
        code="internal_error",
        should_retry=False,
    )


def shutting_down() -> RequestError:
    """Return the error of a server that is being stopped."""
    return RequestError(503, "the server is shutting down", code="shutting_down", retry_after=5)


@contextlib.contextmanager
def translating_full_disk() -> Iterator[None]:
    """Translate the errors of a full disk, also SQLite's, into an answer that says so."""
    try:
        yield
    except Exception as error:  # a full disk has many: OSError, those of sqlite3; all others go on as they are
        is_full = getattr(error, "errno", None) in _DISK_FULL or "disk is full" in str(error)
        if not is_full or isinstance(error, WhisperError):
            raise
        raise RequestError(
            507, "the disk of the server is full; nothing of this was kept", code="insufficient_storage"
        ) from error


def of_work(error: BaseException, is_draining: bool = False) -> RequestError:
    """Return what a client is told of an error that ended its transcription."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, CancelledError) and is_draining:
        return shutting_down()
    if isinstance(error, AudioError):
        return invalid(str(error), "file", "audio_unreadable")
    if isinstance(error, OptionError):
        code = "unknown_parameter" if isinstance(error, UnknownOptionError) else "invalid_value"
        return invalid(str(error), code=code)
    return internal()


def answer_request_error(request: Request, error: Exception) -> JSONResponse:
    """Answer a `RequestError`; a handler of Starlette."""
    assert isinstance(error, RequestError)
    return error.response


def answer_http_error(request: Request, error: Exception) -> JSONResponse:
    """Answer Starlette's own errors: a path that does not exist, a method that a path does not have."""
    assert isinstance(error, HTTPException)
    message = {
        404: f"there is no {request.url.path}; /openapi.json lists what there is",
        405: f"{request.url.path} does not take {request.method}",
    }.get(error.status_code, error.detail)
    code = _CODES.get(error.status_code, "invalid_request")
    return RequestError(error.status_code, message, code=code, headers=error.headers).response


def release_frames(error: BaseException | None) -> None:
    """Clear the variables of the functions that an error has left: its traceback stays, what they held does not.

    Errors, their tracebacks and frames hold each other in cycles, also those in futures. A recording would lie in
    memory until Python looks for cycles, which it seldom does while objects are few and large.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
