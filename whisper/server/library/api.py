"""The addresses of the library: recordings taken in, listed, searched, corrected and deleted, each for its key only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..errors import ClientGoneError, RequestError, invalid, shutting_down, translating_full_disk
from ..fields import collect
from ..jobs.following import lines
from ..observing import note
from ..requests import read_request
from ..security import owner_of
from ..streaming import HEADERS
from ..uploads import check_headers, length_of, receive_form
from . import archives, documents, exports, media
from .library import DEFAULTS, Library
from .store import Recording, conflict

if TYPE_CHECKING:
    from ..app import Server

PAGE, LARGEST_PAGE = 50, 200
MAX_CHANGE_BYTES = 64 << 20  # of a change: that of a whole transcript of many hours
MAX_QUERY = 500
_OWN_FIELDS = ("name", "tags")  # of the form; all others are those of a transcription
T = TypeVar("T")


class LibraryApi:
    """Answers at ``/v1/library``.

    Parameters
    ----------
    server
        Gives its limits, its models and its threads.
    library
        The library.
    """

    def __init__(self, server: Server, library: Library) -> None:
        self.server, self.library = server, library

    def routes(self) -> list[Route]:
        """Return the addresses."""
        one = "/v1/library/{id}"
        table: list[tuple[str, str, Callable[..., Any]]] = [
            ("/v1/library", "GET", self.show_all),
            ("/v1/library", "POST", self.create),
            ("/v1/library/search", "GET", self.search),
            ("/v1/library/ticket", "POST", self.ticket),
            ("/v1/library/export", "POST", self.export_several),
            (one, "GET", self.show),
            (one, "PATCH", self.change),
            (one, "DELETE", self.delete),
            (f"{one}/retry", "POST", self.retry),
            (f"{one}/cancel", "POST", self.cancel),
            (f"{one}/events", "GET", self.events),
            (f"{one}/sound", "GET", self.sound),
            (f"{one}/peaks", "GET", self.peaks),
            (f"{one}/align", "POST", self.align),
            (f"{one}/export", "GET", self.export),
        ]
        return [Route(path, to, methods=[method], include_in_schema=False) for path, method, to in table]

    # -- taking in ---------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        """Keep an upload, and transcribe it."""
        limit, owner = self.server.options.max_upload_bytes, self._owner(request)
        check_headers(request, limit)
        if self.server.admission.is_draining:
            raise shutting_down()
        await self.library.jobs.check_room(length_of(request.headers))
        recording_id = self.library.store.new_id()
        path = self.library.sounds.original(recording_id)
        recording = None
        try:
            form = await receive_form(request, limit, self.server.options.upload_timeout_s, partial(_open_new, path))
            self.server.metrics.upload_bytes.inc(form.n_bytes)
            with form.file:
                columns = self._checked(form.fields)
                await anyio.to_thread.run_sync(os.fsync, form.file.fileno())
            note(request.scope, model=columns["model"], upload_bytes=form.n_bytes)
            add = partial(self.library.add, recording_id, owner, n_bytes=form.n_bytes, **columns)
            recording = await anyio.to_thread.run_sync(add)
        finally:
            if recording is None:
                self.library.sounds.delete(recording_id)
        self.library.jobs.wake()
        address = f"/v1/library/{recording.id}"
        return JSONResponse(await self._described(recording), 202, {"location": address})

    def _checked(self, fields: list[tuple[str, str]]) -> dict[str, Any]:
        """Return the columns of a recording; raises where it could not be transcribed as it is asked for."""
        own = {name: value for name, value in fields if name in _OWN_FIELDS}
        others = [(name, value) for name, value in fields if name not in _OWN_FIELDS]
        given = {name.partition("[")[0] for name, _ in others}
        others += [(name, value) for name, value in DEFAULTS.items() if name not in given]
        asked = read_request(collect(others), translates=False)
        if asked.stream or asked.response_format != "json":
            raise invalid("the library has no stream and no response_format", "stream")
        name = " ".join(documents.clean(own.get("name", ""), "name", documents.MAX_NAME).split())
        return {
            "name": name or "Recording",
            "tags": documents.tags(_json(own.get("tags", "[]"), "tags")),
            "model": self.server.models.resolve(asked.model),
            "fields": others,
        }

    async def retry(self, request: Request) -> Response:
        """Transcribe a recording again that failed or was cancelled."""
        recording = await _on_thread(self.library.settle, await self._asked(request))
        await _on_thread(self.library.retry, recording)
        self.library.jobs.wake()
        return JSONResponse(await self._described(await self._asked(request)), 202)

    async def cancel(self, request: Request) -> Response:
        """End a transcription; the recording stays."""
        await self.library.cancel(await _on_thread(self.library.settle, await self._asked(request)))
        return JSONResponse(await self._described(await self._asked(request)))

    async def delete(self, request: Request) -> Response:
        """Forget a recording, its sound and its transcript."""
        recording = await self._asked(request)
        await self.library.delete(recording)
        return JSONResponse({"id": recording.id, "deleted": True})

    # -- looking -----------------------------------------------------------------------------------------

    async def show_all(self, request: Request) -> Response:
        """List recordings, the newest first, in pages; with all tags."""
        query, owner = request.query_params, self._owner(request)
        limit = _whole(query.get("limit", str(PAGE)), "limit", 1, LARGEST_PAGE)
        after = await self._found(query["after"], owner) if "after" in query else None
        store = self.library.store
        found = await _on_thread(store.page, owner, limit + 1, after, query.get("tag"))
        tags = await _on_thread(store.all_tags, owner)
        return JSONResponse({
            "data": [await self._described(recording) for recording in found[:limit]],
            "has_more": len(found) > limit,
            "tags": [{"tag": tag, "count": count} for tag, count in tags],
            "is_lasting": self.library.is_lasting,
        })  # fmt: skip

    async def search(self, request: Request) -> Response:
        """Find lines in all recordings."""
        query = request.query_params.get("q", "")
        documents.clean(query, "q", MAX_QUERY)
        hits = await _on_thread(self.library.store.search, self._owner(request), query)
        return JSONResponse({"data": hits})

    async def show(self, request: Request) -> Response:
        """Describe a recording, with its document."""
        recording = await self._asked(request)
        described = await self._described(recording)
        if described["version"]:
            is_original = request.query_params.get("original") == "true"
            read = partial(self.library.store.document, recording, original=is_original)
            described["version"], described["document"] = await anyio.to_thread.run_sync(read)
        return JSONResponse(described)

    async def events(self, request: Request) -> Response:
        """Stream what happens while a recording is transcribed."""
        recording, last = await self._asked(request), request.headers.get("last-event-id", "0")
        after = _whole(last, "last-event-id", 0, 1 << 50)
        job = await _on_thread(self.library.jobs.store.get, recording.job, recording.owner)
        if job is None:
            raise RequestError(404, "the recording is not being transcribed", code="not_found")
        return StreamingResponse(lines(self.library.jobs, job, after), headers=HEADERS)

    # -- correcting --------------------------------------------------------------------------------------

    async def change(self, request: Request) -> Response:
        """Rename or tag a recording, or change its document, whose version the client knows."""
        recording, change = await self._asked(request), await self._json_body(request)
        store = self.library.store
        if "name" in change:
            name = " ".join(documents.clean(change["name"], "name", documents.MAX_NAME).split())
            if not name:
                raise invalid("a recording has a name", "name")
            await anyio.to_thread.run_sync(partial(store.change, recording, name=name))
        if "tags" in change:
            await _on_thread(store.set_tags, recording, documents.tags(change["tags"]))
        if "version" in change:
            await _on_thread(self._save, recording, change)
        return JSONResponse(await self._described(await self._asked(request)))

    def _save(self, recording: Recording, change: dict[str, Any]) -> None:
        """Change a document; a change that comes again, because its answer was lost, is not made twice."""
        change_id = documents.clean(change.get("change_id", ""), "change_id", 80)
        if change_id and change_id == recording.last_change:
            return
        version, document = self.library.store.document(recording)
        if change["version"] != version:
            raise conflict()
        self.library.store.save(recording, version, documents.changed(document, change), change_id)

    async def align(self, request: Request) -> Response:
        """Return the times of the words of corrected segments."""
        recording, asked = await self._asked(request), await self._json_body(request)
        stretch = media.Stretch.read(asked)
        async with self.server.admission.inside(), self.server.admission.running():
            run = partial(stretch.align, self.library, recording)
            words = await anyio.to_thread.run_sync(run, limiter=self.server.threads)
        return JSONResponse({"segments": words})

    # -- giving out --------------------------------------------------------------------------------------

    async def ticket(self, request: Request) -> Response:
        """Let the browser's player hear sound without a key, for some hours."""
        response = JSONResponse({})
        if self.server.keys:
            self.library.tickets.give(response, self._owner(request), secure=request.url.scheme == "https")
        return response

    async def sound(self, request: Request) -> Response:
        """Give the sound of a recording, or a part of it: the upload, or a copy that every browser plays."""
        recording = await self._asked(request, by_ticket=True)
        copy = request.query_params.get("copy") == "true"
        return await anyio.to_thread.run_sync(partial(media.sound, self.library, recording, copy=copy))

    async def peaks(self, request: Request) -> Response:
        """Give the waveform of a stretch as pairs of int8."""
        recording, query = await self._asked(request), request.query_params
        start, end = (documents.seconds(_float(query.get(name, "0"), name), name) for name in ("start", "end"))
        n = _whole(query.get("n", "1000"), "n", 1, 8192)
        data = await _on_thread(self.library.sounds.peaks, recording.id, start, max(end, start), n)
        return Response(data, media_type="application/octet-stream")

    async def export(self, request: Request) -> Response:
        """Give a document in another format, as a file."""
        recording = await self._asked(request)
        export = partial(exports.export, self.library, recording, dict(request.query_params))
        return await anyio.to_thread.run_sync(export)

    async def export_several(self, request: Request) -> Response:
        """Give several documents as a zip file: in a format, or as clips with a manifest for training."""
        asked = await self._json_body(request)
        return await _on_thread(archives.export, self.library, self._owner(request), asked)

    # -- what they share ---------------------------------------------------------------------------------

    def _owner(self, request: Request) -> str:
        return owner_of(request.headers, bool(self.server.keys))

    async def _asked(self, request: Request, *, by_ticket: bool = False) -> Recording:
        owner = self._owner(request)
        if by_ticket and self.server.keys and "authorization" not in request.headers:
            owner = self.library.tickets.owner_of(request.headers.get("cookie", "")) or owner
        return await self._found(request.path_params["id"], owner)

    async def _found(self, recording_id: str, owner: str) -> Recording:
        recording = await _on_thread(self.library.store.get, recording_id, owner)
        if recording is None:
            raise RequestError(404, f"there is no recording {recording_id[:80]!r}", code="not_found")
        return recording

    async def _described(self, recording: Recording) -> dict[str, Any]:
        """Return a recording as clients see it, without its document."""
        recording = await _on_thread(self.library.settle, recording)
        jobs, progress, eta, position = self.library.jobs, None, None, None
        if recording.status == "working":
            job = await _on_thread(jobs.store.get, recording.job, recording.owner)
            work = jobs.running.get(recording.job)
            progress = None if work is None else {"seconds": round(work.done[0], 2), "total": round(work.duration, 2)}
            if job is not None and job.status == "queued":
                ids = [one.id for one in jobs.in_turn(await _on_thread(jobs.store.waiting))]
                position = ids.index(job.id) if job.id in ids else 0
            eta = None if job is None else jobs.seconds_left(job, position)
        return {
            **{name: getattr(recording, name) for name in
               ("id", "name", "status", "created", "changed", "model", "duration", "language", "error", "version",
                "beginning", "n_bytes")},
            "tags": await _on_thread(self.library.store.tags_of, recording),
            "options": dict(recording.fields),
            "position": position,
            "progress": progress,
            "eta_s": eta,
        }  # fmt: skip

    async def _json_body(self, request: Request) -> dict[str, Any]:
        """Read a JSON object; a form of another site cannot send one."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise RequestError(415, "the request must be JSON, application/json", code="unsupported_media_type")
        body = bytearray()
        try:
            with anyio.fail_after(self.server.options.upload_timeout_s):
                async for piece in request.stream():
                    body += piece
                    if len(body) > MAX_CHANGE_BYTES:
                        raise RequestError(413, "the change is too large", code="file_too_large")
        except ClientDisconnect:
            raise ClientGoneError from None
        except TimeoutError:
            raise RequestError(408, "the request did not come in time", code="upload_timeout") from None
        read = _json(bytes(body), None)
        if not isinstance(read, dict):
            raise invalid("the request must be a JSON object")
        return read


def _open_new(path: Any) -> BinaryIO:
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
    with translating_full_disk():
        return open(os.open(path, flags, 0o600), "r+b", buffering=0)


async def _on_thread(function: Callable[..., T], *arguments: Any) -> T:
    return await anyio.to_thread.run_sync(function, *arguments)


def _json(text: str | bytes, field: str | None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise invalid("this is no JSON", field) from None


def _whole(text: str, field: str, low: int, high: int) -> int:
    if not (text.isdecimal() and text.isascii() and len(text) < 17 and low <= int(text) <= high):
        raise invalid(f"{field} must be a whole number from {low} to {high}, not {text[:80]!r}", field)
    return int(text)


def _float(text: str, field: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise invalid(f"{field} must be a number, not {text[:80]!r}", field) from None


def routes(server: Server, library: Library) -> list[Route]:
    """Return the addresses of a library."""
    return LibraryApi(server, library).routes()
