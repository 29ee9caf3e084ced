"""One connection of a Wyoming client: descriptions, and utterances one after the other, each with its transcript."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import TYPE_CHECKING, Any

import anyio

from ...live.events import Failed, Final, Stable
from ..errors import RequestError, internal, invalid
from ..observing import LOG
from ..realtime.sessions import NOTHING_COMMITTED, UNREAD, Seat, error_of
from .framing import Message, read_message
from .requests import Asked, Sound, info, read_transcribe

if TYPE_CHECKING:
    from ..app import Server

IDLE = 300.0  # seconds after which a connection on which nothing comes is closed
LAST_MESSAGES = 5.0  # seconds to send what is left at the end


class Utterance:
    """What is known of one utterance: its text, part by part."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.language: str | None = None
        self.error: RequestError | None = None
        self.has_begun = False  # to be told

    @property
    def start(self) -> Message:
        """Return the message before the text."""
        return Message("transcript-start", self._language)

    @property
    def transcript(self) -> Message:
        """Return the message with the whole text."""
        return Message("transcript", {"text": " ".join(filter(None, self.texts)), **self._language})

    @property
    def _language(self) -> dict[str, Any]:
        return {} if self.language is None else {"language": self.language}


class Connection:
    """Answers a client.

    Parameters
    ----------
    server
        Has the models and the places.
    reader, writer
        The connection.
    """

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        peer = writer.get_extra_info("peername")
        self._key = f"wyoming {peer[0]}" if peer else "wyoming"
        self._asked = Asked()

    async def run(self) -> None:
        """Answer until the client leaves, or does something wrong: it is told what, and the connection is closed.

        A client that waits for a transcript takes no error for an answer, so that the close has to tell it.
        """
        try:
            while (message := await self._read(IDLE)) is not None:
                if not await self._handle(message):
                    return
        except RequestError as error:
            with contextlib.suppress(OSError):
                await self._send(Message("error", {"text": str(error), "code": error.code}))
        except OSError:  # the client has left
            pass

    async def _read(self, seconds: float) -> Message | None:
        with anyio.move_on_after(seconds):
            return await read_message(self._reader)
        raise invalid(f"nothing came for {seconds:g} s", code="timeout")

    async def _send(self, message: Message) -> None:
        self._writer.write(message.encoded())
        await self._writer.drain()

    async def _handle(self, message: Message) -> bool:
        """Answer a message; False at the end of the connection. Unknown ones are ignored, as the protocol wants it."""
        if message.type == "describe":
            await self._send(await anyio.to_thread.run_sync(info, self._server.models))
        elif message.type == "ping":
            await self._send(Message("pong", {"text": message.data.get("text")}))
        elif message.type == "transcribe":
            self._asked = read_transcribe(message.data)
        elif message.type == "audio-start":
            return await self._transcribe()
        return True

    # -- an utterance ------------------------------------------------------------------------------------

    async def _transcribe(self) -> bool:
        """Answer an utterance; False where the connection is at its end."""
        models, asked, self._asked = self._server.models, self._asked, Asked()
        name = models.default if asked.model is None else models.resolve(asked.model)
        utterance, started, status = Utterance(), time.monotonic(), "client_gone"
        notes: dict[str, Any] = {"request_id": f"req_{uuid.uuid4().hex}", "model": name}
        try:
            async with self._server.live.open("wyoming", self._key, name, asked.options) as seat:
                try:
                    is_whole = await self._converse(seat, utterance)
                finally:
                    notes["audio_seconds"] = round(seat.seconds, 2)
                if utterance.error is not None:
                    raise utterance.error
                if not is_whole:
                    return False
                await self._tell_all(utterance)
                status = "ok"
                return seat.ending is None
        except RequestError as error:
            status = error.code
            raise
        finally:
            LOG.info(
                "wyoming", extra={"notes": {**notes, "status": status, "seconds": round(time.monotonic() - started, 4)}}
            )

    async def _converse(self, seat: Seat, utterance: Utterance) -> bool:
        """Hear the utterance while its text is sent; False where the client has left before its end."""
        is_whole = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_text, seat, utterance)
            with seat.reading as reading:
                try:
                    is_whole = await self._hear(seat)
                except RequestError as error:  # raised by the caller: a task group would wrap it
                    utterance.error = error
            if reading.cancelled_caught and seat.ending is not UNREAD:
                is_whole = True
            if is_whole:
                await seat.finish()
                with anyio.move_on_after(LAST_MESSAGES):
                    await seat.mailbox.all_sent()
            tasks.cancel_scope.cancel()
        return is_whole

    async def _hear(self, seat: Seat) -> bool:
        """Read sound up to the message ``audio-stop``; False where the client leaves before."""
        sound = Sound()
        while (message := await self._read(self._server.options.upload_timeout_s)) is not None:
            if message.type == "audio-chunk":
                for samples in sound.push(message):
                    seat.append(samples)
                await seat.room()
            elif message.type == "audio-stop":
                seat.append(sound.finish())
                return True
        return False

    async def _send_text(self, seat: Seat, utterance: Utterance) -> None:
        """Send the text as it becomes stable, and keep what is final."""
        try:
            async for event in seat.mailbox:
                if isinstance(event, Stable):
                    await self._begin(utterance)
                    await self._send(Message("transcript-chunk", {"text": event.text}))
                elif isinstance(event, Final):
                    utterance.texts.append(event.result["text"].strip())
                    utterance.language = event.result["language"] or None
                elif isinstance(event, Failed):
                    error = error_of(event)
                    if error.code != NOTHING_COMMITTED:
                        utterance.error = error
        except OSError:  # the client has left
            seat.end(UNREAD)

    async def _begin(self, utterance: Utterance) -> None:
        if not utterance.has_begun:
            utterance.has_begun = True
            await self._send(utterance.start)

    async def _tell_all(self, utterance: Utterance) -> None:
        """Send the whole text: a client that does not follow the stream waits for nothing else."""
        await self._begin(utterance)
        await self._send(utterance.transcript)
        await self._send(Message("transcript-stop"))


async def serve(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a connection to its end; a fault of ours goes to the log."""
    try:
        await Connection(server, reader, writer).run()
    except Exception as error:  # the client is told no more than that, and others go on
        LOG.error("a connection of Wyoming failed", exc_info=error)
        with contextlib.suppress(OSError):
            writer.write(Message("error", {"text": str(internal()), "code": internal().code}).encoded())
    finally:
        writer.close()
