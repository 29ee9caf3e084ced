"""Transcribing on a server: by a job where it keeps jobs, so that a lost connection loses nothing, else by waiting.

A server of ours gives what `transcribe` returns, as it is; of another with OpenAI's API, as much as it says is made
into the same form.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, BinaryIO

from ...errors import AudioError, OptionError, ServerError
from ...media.sources import is_standard_input
from ...options.language_names import code_of
from ...output.console import show
from ...output.progress import ProgressBar
from ...transcription.window_loop import verbose_line
from ...utils import make_safe
from ..common import ModelOptions, say
from .connection import LOST, Connection
from .fields import all_fields, openai_fields, refuse_local_options

TITLE = "Sotto"  # of our API's description
JOBS = "/v1/jobs"
RETRY_FOR = 600.0  # seconds for which a server may be away or full
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before it is asked again
SAY_EVERY = 5.0  # seconds between two lines on an upload
FRAMES = 100  # a second, in which the progress bar counts
BUSY = (429, 502, 503, 504)
sleep = time.sleep  # tests replace it


class Remote:
    """A server, and how recordings are transcribed there.

    Parameters
    ----------
    url, key
        Its address and API key.
    model
        The model as the server calls it; None for its first.
    options
        For `transcribe`.
    changed
        The names of the options that were given.

    Raises
    ------
    OptionError
        An option cannot be meant for this server.
    ServerError
        The server cannot be reached, or does not let us in.
    """

    def __init__(
        self, url: str, key: str | None, model: str | None, options: Mapping[str, Any], changed: Collection[str]
    ) -> None:
        refuse_local_options(changed)
        self._connection, self._options = Connection(url, key), options
        with self._reaching():
            served = [one["id"] for one in self._connection.get_json("/v1/models")["data"]]
            self._is_ours, self._has_jobs = self._what_it_is()
        self.model = model or (served[0] if served else ModelOptions.model)
        self._fields = [("model", self.model)]
        self._fields += all_fields(options) if self._is_ours else openai_fields(options, changed)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except LOST as error:
            raise ServerError(f"{self._connection.url} cannot be reached: {error}") from error
        except (KeyError, TypeError):
            raise ServerError(f"{self._connection.url} does not list its models as OpenAI's API does") from None

    def _what_it_is(self) -> tuple[bool, bool]:
        """Return whether the server is one of ours, and keeps jobs."""
        try:
            described = self._connection.get_json("/openapi.json")
            is_ours = described["info"]["title"] == TITLE
            return is_ours, is_ours and JOBS in described["paths"]
        except (ServerError, KeyError, TypeError):
            return False, False

    def transcribe(self, path: str) -> dict[str, Any]:
        """Return the transcript of a recording, in the form of `transcribe`.

        Raises
        ------
        AudioError
            It cannot be read here.
        ServerError
            The server cannot transcribe it, or cannot be reached any more.
        """
        with _opened(path) as file, self._reaching():
            size = file.seek(0, os.SEEK_END)
            if self._has_jobs:
                return self._by_job(path, file, size)
            return self._by_waiting(path, file, size)

    # -- by a job ----------------------------------------------------------------------------------------

    def _by_job(self, path: str, file: BinaryIO, size: int) -> dict[str, Any]:
        headers = {"idempotency-key": uuid.uuid4().hex}  # sent again after a lost answer, it is still one job
        job = self._again(lambda: self._upload(JOBS, path, file, size, headers))
        address = f"{JOBS}/{job['id']}"
        try:
            self._follow(address)
            result: dict[str, Any] = self._again(
                lambda: self._connection.get_json(f"{address}/result?format=transcript")
            )
        finally:  # also where the user has given up: nothing is to stay on the server
            with contextlib.suppress(ServerError, *LOST):
                self._connection.delete(address)
        return result

    def _follow(self, address: str) -> None:
        """Print what comes of a job, until it has ended; a connection that is lost is made anew."""
        last, retries = "0", _Retries()
        with _Shown(self._options["verbose"]) as shown:
            while True:
                error = None
                try:
                    for event_id, event in self._connection.events(f"{address}/events", last):
                        last, retries = event_id, _Retries()
                        if shown.is_last(event):
                            return
                except (ServerError, *LOST) as lost:
                    error = lost
                if not retries.wait(error):
                    raise ServerError(f"{self._connection.url} is gone; the job goes on there, as {address}") from error

    def _again(self, request: Callable[[], Any]) -> Any:
        """Make a request again and again while the server is away or full."""
        retries = _Retries()
        while True:
            try:
                return request()
            except (ServerError, *LOST) as error:  # noqa: PERF203 - the loop is for these
                if not retries.wait(error):
                    raise

    # -- by waiting --------------------------------------------------------------------------------------

    def _by_waiting(self, path: str, file: BinaryIO, size: int) -> dict[str, Any]:
        is_translation = self._options["task"] == "translate"
        address = "/v1/audio/translations" if is_translation and not self._is_ours else "/v1/audio/transcriptions"
        extra = [("response_format", "transcript")] if self._is_ours else []
        answer = self._again(lambda: self._upload(address, path, file, size, None, extra))
        transcript = answer if self._is_ours else as_transcript(answer)
        with _Shown(self._options["verbose"]) as shown:
            for segment in transcript["segments"]:
                shown.is_last({"type": "job.segment", "segment": segment})
        return transcript

    def _upload(
        self, address: str, path: str, file: BinaryIO, size: int, headers: Mapping[str, str] | None,
        extra: Collection[tuple[str, str]] = (),
    ) -> Any:  # fmt: skip
        file.seek(0)
        said_at = time.monotonic()

        def on_sent(n: int) -> None:
            nonlocal said_at
            if self._options["verbose"] is not None and time.monotonic() - said_at > SAY_EVERY:
                said_at = time.monotonic()
                say(f"{path}: {n / 1e6:.0f} of {size / 1e6:.0f} MB are sent")

        # without a job, nothing comes before the transcript is done
        timeout = 60.0 if self._has_jobs else None
        fields = [*self._fields, *extra]
        answer = self._connection.upload(address, fields, file, size, headers, on_sent, timeout)
        return json.loads(answer)


class _Retries:
    """When a server that is away or full is asked again: after ever longer pauses, for `RETRY_FOR` seconds."""

    def __init__(self) -> None:
        self._began, self._pause = time.monotonic(), FIRST_PAUSE

    def wait(self, error: Exception | None) -> bool:
        """Wait until the server may be asked again after an error; False where it was away for too long.

        Raises
        ------
        ServerError
            The error, where asking again is of no use.
        """
        if isinstance(error, ServerError) and error.status not in BUSY:
            raise error
        if time.monotonic() - self._began > RETRY_FOR:
            return False
        wanted = error.retry_after if isinstance(error, ServerError) else None
        sleep(min(wanted or self._pause, LONGEST_PAUSE))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True


class _Shown:
    """What is printed of a transcription, as the command prints it of one on this machine."""

    def __init__(self, verbose: bool | None) -> None:
        self._verbose = verbose
        self._n_segments = 0  # that were seen; a job that was begun anew gives them again
        self._bar: ProgressBar | None = None

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def is_last(self, event: Mapping[str, Any]) -> bool:
        """Print an event; True where the job has ended.

        Raises
        ------
        ServerError
            It failed.
        """
        kind = event["type"]
        if kind == "job.segment":
            segment = event["segment"]
            if self._verbose and segment["text"].strip() and segment.get("id", self._n_segments) >= self._n_segments:
                show(make_safe(verbose_line(segment)), sys.stdout)
            self._n_segments = max(self._n_segments, segment.get("id", self._n_segments) + 1)
        elif kind == "job.progress" and self._verbose is False:
            total, done = round(FRAMES * event["total"]), round(FRAMES * event["seconds"])
            self._bar = self._bar or ProgressBar(total, True).__enter__()
            self._bar.advance(max(done - self._bar.n_done, 0))
        elif kind == "job.failed":
            raise ServerError(event["error"]["message"], code=event["error"]["code"])
        elif kind == "job.deleted":
            raise ServerError("somebody has deleted the job on the server")
        return bool(kind == "job.succeeded")


def as_transcript(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAI's verbose JSON in the form of `transcribe`; each word belongs to the segment of its middle."""
    segments = [dict(segment) for segment in answer.get("segments") or []]
    for i, word in enumerate(answer.get("words") or []):
        middle = (word["start"] + word["end"]) / 2
        at = max((n for n, s in enumerate(segments) if s["start"] <= middle), default=0)
        if segments:
            spaced = word["word"] if i == 0 or word["word"][:1] == " " else f" {word['word']}"
            segments[at].setdefault("words", []).append({"probability": 1.0, **word, "word": spaced})
    if answer.get("words"):
        for segment in segments:
            segment.setdefault("words", [])
    try:
        language = code_of(answer.get("language"))
    except OptionError:
        language = answer.get("language")
    return {"text": answer["text"], "segments": segments, "language": language or "en"}


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open a recording; standard input is kept on disk first, so that it can be sent again."""
    if is_standard_input(path):
        with tempfile.TemporaryFile() as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
            yield file
        return
    try:
        with open(path, "rb") as file:
            yield file
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise AudioError(f"{path} cannot be sent, which must be a file: {error.strerror}") from error
