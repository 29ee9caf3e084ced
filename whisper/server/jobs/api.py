"""The addresses of jobs: made, listed, followed, fetched and deleted, each by the key that made it and by no other."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ...tokenizer import get_tokenizer
from .. import responses
from ..errors import RequestError, invalid, shutting_down
from ..fields import collect
from ..observing import note
from ..requests import check_format, read_request
from ..security import owner_of
from ..streaming import HEADERS
from ..uploads import check_headers, length_of, receive_form
from .following import lines
from .store import Job

if TYPE_CHECKING:
    from ..app import Server

KIND = "transcription.job"
PAGE, LARGEST_PAGE = 20, 100
REPEAT_HEADER = "idempotency-key"  # the same key gives the same job, so a client may send a lost request again
MAX_REPEAT_KEY = 200


class JobsApi:
    """Answers at ``/v1/jobs``.

    Parameters
    ----------
    server
        One that has jobs.
    """

    def __init__(self, server: Server) -> None:
        assert server.jobs is not None
        self.server, self.jobs, self.store = server, server.jobs, server.jobs.store

    def routes(self) -> list[Route]:
        """Return the addresses."""
        return [
            Route("/v1/jobs", self.show_all, methods=["GET"]),
            Route("/v1/jobs", self.create, methods=["POST"]),
            Route("/v1/jobs/{id}", self.show, methods=["GET"]),
            Route("/v1/jobs/{id}", self.delete, methods=["DELETE"]),
            Route("/v1/jobs/{id}/result", self.result, methods=["GET"]),
            Route("/v1/jobs/{id}/events", self.events, methods=["GET"]),
        ]

    # -- making one --------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        """Keep an upload, and queue its job."""
        limit, owner = self.server.options.max_upload_bytes, self._owner(request)
        check_headers(request, limit)
        if self.server.admission.is_draining:
            raise shutting_down()
        repeat_key = request.headers.get(REPEAT_HEADER)
        if repeat_key is not None and len(repeat_key) > MAX_REPEAT_KEY:
            raise invalid(f"the header {REPEAT_HEADER} has more than {MAX_REPEAT_KEY} characters")
        await self.jobs.check_room(length_of(request.headers))
        job_id, open_file = self.store.new_upload()
        self.jobs.n_uploading += 1
        job = None
        try:
            form = await receive_form(request, limit, self.server.options.upload_timeout_s, open_file)
            self.server.metrics.upload_bytes.inc(form.n_bytes)
            with form.file:
                model = self._check(form.fields)
                await anyio.to_thread.run_sync(os.fsync, form.file.fileno())
            note(request.scope, model=model, upload_bytes=form.n_bytes)

            def add() -> Job:
                before = None if repeat_key is None else self.store.repeated(owner, repeat_key)
                return before or self.store.add(job_id, owner, model, form.fields, form.n_bytes, repeat_key)

            job = await anyio.to_thread.run_sync(add)
        finally:
            self.jobs.n_uploading -= 1
            if job is None or job.id != job_id:
                self.store.drop_upload(job_id)
        self.jobs.wake()
        address = f"/v1/jobs/{job.id}"
        return JSONResponse(await self._described(job), 202, {"location": address})

    def _check(self, fields: list[tuple[str, str]]) -> str:
        """Raise where the job could not be run as it is asked for; returns the name of its model."""
        asked = read_request(collect(fields), translates=False)
        if asked.stream:
            raise invalid("a job has no stream of its own; follow it at /v1/jobs/ID/events", "stream")
        return self.server.models.resolve(asked.model)

    # -- looking at them ---------------------------------------------------------------------------------

    async def show_all(self, request: Request) -> Response:
        """List the jobs of a key, the newest first, in pages."""
        query, owner = request.query_params, self._owner(request)
        limit = query.get("limit", str(PAGE))
        if not (limit.isdecimal() and limit.isascii() and len(limit) < 9 and 1 <= int(limit) <= LARGEST_PAGE):
            raise invalid(f"limit must be a whole number from 1 to {LARGEST_PAGE}, not {limit[:80]!r}", "limit")
        after = await self._found(query["after"], owner) if "after" in query else None
        jobs = await anyio.to_thread.run_sync(self.store.page, owner, int(limit) + 1, after)
        shown = [await self._described(job) for job in jobs[: int(limit)]]
        first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
        has_more = len(jobs) > int(limit)
        return JSONResponse({"object": "list", "data": shown, "first_id": first, "last_id": last, "has_more": has_more})

    async def show(self, request: Request) -> Response:
        """Describe a job."""
        return JSONResponse(await self._described(await self._asked(request)))

    async def result(self, request: Request) -> Response:
        """Give the transcript of a job in any format; by default in that which it was made with."""
        job = await self._asked(request)
        if job.error is not None:
            error = {name: job.error["error"][name] for name in ("code", "param")}
            raise RequestError(job.error["status"], job.error["error"]["message"], **error)
        if not job.is_finished:
            raise RequestError(409, f"the job is {job.status}; it has no result yet", code="job_not_finished",
                               retry_after=5)  # fmt: skip
        asked = self.jobs.request_of(job)
        if "format" in request.query_params:
            asked = check_format(asked, request.query_params["format"])

        def make() -> Response:
            outcome = self.store.outcome(job)
            tokenizer = get_tokenizer(outcome["is_multilingual"], num_languages=outcome["n_languages"])
            work: Any = SimpleNamespace(request=asked, duration=outcome["duration"], tokenizer=tokenizer)
            return responses.respond(work, outcome["transcript"])

        return await anyio.to_thread.run_sync(make)

    async def events(self, request: Request) -> Response:
        """Stream what happens to a job, from the beginning or after the last event that the client has."""
        job, last = await self._asked(request), request.headers.get("last-event-id", "0")
        if not (last.isdecimal() and last.isascii() and len(last) < 16):
            raise invalid("the header Last-Event-ID must be the id of an event of this job")
        return StreamingResponse(lines(self.jobs, job, int(last)), headers=HEADERS)

    async def delete(self, request: Request) -> Response:
        """End a job, where it has not ended, and forget it."""
        job = await self._asked(request)
        await self.jobs.delete(job)
        return JSONResponse({"id": job.id, "object": KIND, "deleted": True})

    def _owner(self, request: Request) -> str:
        return owner_of(request.headers, bool(self.server.keys))

    async def _asked(self, request: Request) -> Job:
        return await self._found(request.path_params["id"], self._owner(request))

    async def _found(self, job_id: str, owner: str) -> Job:
        job = await anyio.to_thread.run_sync(self.store.get, job_id, owner)
        if job is None:
            raise RequestError(404, f"there is no job {job_id[:80]!r}", code="not_found")
        return job

    async def _described(self, job: Job) -> dict[str, Any]:
        """Return a job as clients see it."""
        done, total = (0.0, 0.0) if (work := self.jobs.running.get(job.id)) is None else work.done
        expires = None if job.finished is None else job.finished + self.server.options.job_retention_hours * 3600
        position = None
        if job.status == "queued":
            ids = [one.id for one in self.jobs.in_turn(await anyio.to_thread.run_sync(self.store.waiting))]
            position = ids.index(job.id) if job.id in ids else 0  # it may have begun meanwhile
        return {
            "id": job.id,
            "object": KIND,
            "status": job.status,
            "model": job.model,
            "created_at": job.created,
            "started_at": job.started,
            "finished_at": job.finished,
            "expires_at": expires,
            "position": position,
            "progress": {"seconds": round(done, 2), "total": round(total, 2)} if work is not None else None,
            "eta_s": self.jobs.seconds_left(job, position),
            "error": None if job.error is None else job.error["error"],
        }


class _Never:
    """Answers where the server keeps no jobs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise RequestError(404, "this server keeps no jobs; whisper serve does with --data_dir", code="jobs_not_kept")


def routes(server: Server) -> list[Route]:
    """Return the addresses of jobs, which say so where the server keeps none."""
    if server.jobs is None:
        return [Route("/v1/jobs", _Never()), Route("/v1/jobs/{rest:path}", _Never())]
    return JobsApi(server).routes()
