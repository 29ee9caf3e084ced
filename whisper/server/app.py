"""The application: OpenAI's addresses, and what answers on each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..errors import CancelledError, OptionError
from ..media.isolated.decoders import Decoders
from . import openapi, responses, streaming
from .admission import Admission
from .errors import (
    ClientGoneError,
    RequestError,
    answer_http_error,
    answer_request_error,
    of_work,
    release_frames,
)
from .fields import collect
from .jobs.api import routes as job_routes
from .jobs.runner import Jobs
from .jobs.store import JobStore
from .library.api import routes as library_routes
from .library.library import Library
from .metrics import CONTENT_TYPE, Metrics
from .models import Models
from .observing import LOG, Observer, note
from .page.files import routes as page_routes
from .realtime.client_secrets import ClientSecrets
from .realtime.client_secrets import routes as secret_routes
from .realtime.endpoint import routes as realtime_routes
from .realtime.sessions import LiveSessions, MakeSession, live_session
from .requests import read_request, seconds_of_client
from .security import Gate, owner_of
from .settings import ServeOptions
from .uploads import check_headers, receive_form
from .work import Work
from .wyoming.listener import Listener

if TYPE_CHECKING:
    from ..model import Whisper

STALLED = 300.0  # seconds without a step of any running request, after which the server does not count as ready
N_DECODERS = 2  # decoder processes that wait for uploads; more are started when they are needed
IDLE_CHECK = 1.0  # seconds between two checks for idle models


class Server:
    """What the handlers share: settings, models, and the work that is under way.

    Parameters
    ----------
    options
        The settings.
    names
        Models, as `load` takes them; the first is the default.
    load
        Returns the model of a name.
    keys
        API keys; none are needed where there are none.
    on_failure
        Called with the error where a model cannot be loaded.
    decoders
        Decode the uploads; where not given, some of its own.
    make_session
        Makes live sessions.
    """

    def __init__(
        self,
        options: ServeOptions,
        names: Sequence[str],
        load: Callable[[str], Whisper],
        keys: Sequence[str] = (),
        on_failure: Callable[[Exception], None] = lambda error: None,
        decoders: Decoders | None = None,
        make_session: MakeSession = live_session,
    ) -> None:
        self.options, self.keys = options, keys
        self.metrics = Metrics()
        self.models = Models(names, load, self.metrics, aliases=options.aliases(), strict=options.strict_models)
        self.admission = Admission(options.max_running, options.max_queue, self.metrics)
        self.is_loaded = False
        self.works: set[Work] = set()  # under way
        self.decoders = decoders or Decoders(N_DECODERS)
        # that wait for transcriptions, or for the place of a long one, and for nothing else
        self.threads = anyio.CapacityLimiter(options.max_running + options.max_queue)
        self.jobs: Jobs | None = None
        if options.data_dir is not None:
            self.jobs = Jobs(JobStore(options.data_dir), self.models, options, self.metrics, self.works, self.decoders)
        self.live = LiveSessions(options, self.models, self.admission, self.metrics, make_session)
        self.live.is_loaded = lambda: self.is_loaded
        self.secrets = ClientSecrets()
        self.library: Library | None = None
        if options.job_folders and keys:
            raise OptionError("job_folders: with keys, each has recordings of its own; the results of jobs have no key")
        if options.page:
            self.library = Library(options, self.models, self.metrics, self.works, self.decoders)
        self.wyoming = Listener(self) if options.wyoming_port is not None else None
        self._on_failure = on_failure

    # -- the life of the server --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Load the models while the server already answers `/health`, and free them when they are idle."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._load)
            for jobs in self._all_jobs():
                tasks.start_soon(jobs.run)
            if self.library and self.library.job_folders.folders:
                tasks.start_soon(self.library.job_folders.follow, self.library)
            if self.wyoming:
                await self._listen(self.wyoming)
            yield
            if self.wyoming:
                await self.wyoming.close()
            for jobs in self._all_jobs():
                jobs.end()
            if self.library:
                self.library.job_folders.end()
            tasks.cancel_scope.cancel()
        if self.jobs:
            self.jobs.store.close()
        if self.library:
            self.library.close()
        self.decoders.close()

    def _all_jobs(self) -> list[Jobs]:
        """Return the jobs of programs, and those of the page."""
        return [jobs for jobs in (self.jobs, self.library and self.library.jobs) if jobs]

    async def _listen(self, wyoming: Listener) -> None:
        try:
            await wyoming.start()
        except OptionError as error:
            self._on_failure(error)

    async def _load(self) -> None:
        started = time.monotonic()
        try:
            await anyio.to_thread.run_sync(self.decoders.start)  # while this process is small
            await anyio.to_thread.run_sync(self.models.load_all)
        except Exception as error:  # reported by `on_failure`, which ends the server
            LOG.error("a model cannot be loaded", extra={"notes": {"error": f"{type(error).__name__}: {error}"}})
            self._on_failure(error)
            return
        self.is_loaded = True
        LOG.info("ready", extra={"notes": {"seconds": round(time.monotonic() - started, 2)}})
        while self.options.unload_after_s is not None:
            await anyio.sleep(IDLE_CHECK)
            for name in await anyio.to_thread.run_sync(self.models.unload_idle, self.options.unload_after_s):
                LOG.info("unloaded", extra={"notes": {"model": name}})

    def drain(self) -> None:
        """Take no new work; that under way goes on."""
        self.admission.is_draining = True
        for jobs in self._all_jobs():
            jobs.end()

    def cancel_all(self) -> None:
        """End the work that is under way: its clients are told that the server shuts down."""
        for work in list(self.works):
            work.cancel.set()

    def why_not_ready(self) -> str | None:
        """Return why no work is taken at this moment; None where it is."""
        if self.admission.is_draining:
            return "shutting_down"
        if not self.is_loaded:
            return "loading"
        if self.admission.is_full:
            return "queue_full"
        now = time.monotonic()
        if self.works and all(now - work.last_progress > STALLED for work in self.works):
            return "stalled"
        return None

    def admits(self, scope: Scope, cookies: str) -> bool:
        """Say whether a request needs no key: it has a client secret, or a ticket for sound of the page."""
        return self.secrets.admits(scope) or (self.library is not None and self.library.tickets.admit(scope, cookies))

    # -- one transcription -------------------------------------------------------------------------------

    async def transcribe(self, scope: Scope, receive: Receive, send: Send, translates: bool) -> None:
        """Answer a request for a transcription, from its upload to the last byte of the answer."""
        request = Request(scope, receive)
        check_headers(request, self.options.max_upload_bytes)
        if not self.is_loaded and not self.admission.is_draining:
            raise RequestError(503, "the model is being loaded", code="not_ready", retry_after=5)
        async with self.admission.inside(seconds_of_client(request.headers.get("x-stainless-read-timeout"))):
            form = await receive_form(request, self.options.max_upload_bytes, self.options.upload_timeout_s)
            self.metrics.upload_bytes.inc(form.n_bytes)
            with form.file:
                asked = read_request(collect(form.fields), translates=translates)
                name = self.models.resolve(asked.model)
                key = owner_of(request.headers, bool(self.keys))
                work = Work(asked, form.file, self.models, name, self.options.max_audio_s, self.decoders, key)
                note(scope, model=name, upload_bytes=form.n_bytes)
                try:
                    await self._answer(work, scope, receive, send)
                finally:
                    note(scope, audio_seconds=round(work.duration, 2))

    async def _answer(self, work: Work, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the work and send its answer, unless the client leaves before."""
        self.works.add(work)
        try:
            if work.request.stream:
                await self._while_connected(work, receive, lambda: self._stream(work, send))
            else:
                response = await self._while_connected(work, receive, lambda: self._respond(work))
                await response(scope, receive, send)
        except (ClientGoneError, CancelledError) as error:
            is_gone = isinstance(error, ClientGoneError)
            self.metrics.cancelled.labels("client_gone" if is_gone else "shutdown").inc()
            raise (error if is_gone else self._error_of(error)) from None
        except Exception as error:  # whatever it is, the client gets an answer in OpenAI's form
            told = self._error_of(error)
            raise (error if told.status == 500 else told) from None  # a fault of ours goes to the log
        finally:
            self.works.discard(work)

    async def _respond(self, work: Work) -> Response:
        transcript = await self._on_thread(work, work.transcribe)
        return responses.respond(work, transcript)

    async def _stream(self, work: Work, send: Send) -> None:
        async def run(function: Callable[[], None]) -> None:
            await self._on_thread(work, function)

        first = self.metrics.first_text_seconds.observe
        await streaming.send_events(work, send, run, self._error_in_stream, first)

    async def _on_thread(self, work: Work, function: Callable[[], Any]) -> Any:
        """Run a function on a thread when it is its turn."""
        async with self.admission.running() as place:
            loop = asyncio.get_running_loop()
            work.before_long = lambda: place.become_long_from_thread(loop, work.cancel)
            started = work.last_progress = time.monotonic()
            try:
                return await anyio.to_thread.run_sync(function, limiter=self.threads)
            finally:
                work.before_long = lambda: None
                work.cancel.set()  # where this task itself was cancelled, the thread goes on until it sees this
                self.metrics.audio_seconds.inc(work.duration)
                self.metrics.work_seconds.inc(time.monotonic() - started)

    async def _while_connected(self, work: Work, receive: Receive, function: Callable[[], Any]) -> Any:
        """Await what a function returns; where the client leaves before, cancel the work: `ClientGoneError`."""
        outcome: Any = None
        failure: Exception | None = None
        is_gone = False
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                nonlocal is_gone
                while (await receive())["type"] != "http.disconnect":
                    pass
                if not work.is_answered:
                    is_gone = True
                    work.cancel.set()
                    tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            try:
                outcome = await function()
            except Exception as error:  # raised below: a task group would wrap it
                failure = error
            tasks.cancel_scope.cancel()
        try:
            if is_gone:
                raise ClientGoneError
            if failure is not None:
                raise failure
            return outcome
        finally:
            release_frames(failure)
            del failure

    def _error_of(self, error: Exception) -> RequestError:
        return of_work(error, self.admission.is_draining)

    def _error_in_stream(self, error: Exception) -> RequestError:
        """Return what the client is told where it has the status 200 already; a fault of ours goes to the log."""
        told = self._error_of(error)
        if told.status == 500:
            LOG.error("a stream failed", exc_info=error)
        return told


class _Transcriptions:
    """An address to which recordings are sent; an ASGI application of its own, as it watches the connection."""

    def __init__(self, server: Server, translates: bool) -> None:
        self.server, self.translates = server, translates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.server.transcribe(scope, receive, send, self.translates)


def build_app(server: Server) -> Starlette:
    """Return the application of a server."""

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        reason = server.why_not_ready()
        if reason is None:
            return JSONResponse({"status": "ready"})
        wait = max(round(server.admission.seconds_to_wait()), 1)
        return JSONResponse({"status": reason}, 503, {"retry-after": str(wait)})

    async def models(request: Request) -> Response:
        return JSONResponse(
            {"object": "list", "data": [server.models.describe(name) for name in server.models.names()]}
        )

    async def model(request: Request) -> Response:
        return JSONResponse(server.models.describe(request.path_params["model"]))

    async def metrics(request: Request) -> Response:
        return Response(server.metrics.text(), media_type=CONTENT_TYPE)

    document = openapi.document(bool(server.keys), has_jobs=server.jobs is not None)

    async def describe(request: Request) -> Response:
        return JSONResponse(document)

    return Starlette(
        routes=[
            Route("/v1/audio/transcriptions", _Transcriptions(server, False), methods=["POST"]),
            Route("/v1/audio/translations", _Transcriptions(server, True), methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{model:path}", model),  # a name may be a path, or owner/name
            *job_routes(server),
            *realtime_routes(server),
            *secret_routes(server),
            *(library_routes(server, server.library) if server.library else []),
            *(page_routes() if server.library else []),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            Route("/openapi.json", describe),
        ],
        middleware=[
            Middleware(Observer, metrics=server.metrics),
            Middleware(
                Gate,
                keys=server.keys,
                hosts=server.options.hosts,
                origins=server.options.cors_origins or (),
                admits=server.admits,
            ),
        ],
        exception_handlers={RequestError: answer_request_error, HTTPException: answer_http_error},
        lifespan=server.lifespan,
    )
