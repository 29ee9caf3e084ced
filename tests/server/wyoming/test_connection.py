"""Utterances over a real port, by the client of the package `wyoming`."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import anyio
import numpy as np
import pytest

from whisper.server.app import Server
from whisper.server.wyoming import connection
from whisper.server.wyoming.listener import CONNECTIONS_PER_PLACE, Listener

from ..live_sessions import FakeSession
from ..serving import nano, server, spoken
from .peer import (
    AsyncClient,
    AudioChunk,
    AudioStart,
    AudioStop,
    Describe,
    Error,
    Info,
    Ping,
    Pong,
    Transcribe,
    Transcript,
    TranscriptChunk,
    TranscriptStart,
    TranscriptStop,
)

LOUD = np.full(1600, 1000, np.int16).tobytes()


@contextlib.asynccontextmanager
async def connected(of: Server) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Listen; gives what connects a client."""
    listener = Listener(of)
    await listener.start()
    clients: list[Any] = []

    async def connect() -> Any:
        client = AsyncClient.from_uri(f"tcp://127.0.0.1:{listener.port}")
        await client.connect()
        clients.append(client)
        return client

    try:
        with anyio.fail_after(60):
            yield connect
    finally:
        for client in clients:
            await client.disconnect()
        await listener.close()


def made(make: Any = FakeSession, **options: Any) -> Server:
    FakeSession.made.clear()
    return server(make_session=make, wyoming_port=0, **options)


def run(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(function())


async def say(client: Any, *pieces: bytes, ends: bool = True, **asked: Any) -> None:
    await client.write_event(Transcribe(**asked).event())
    await client.write_event(AudioStart(16000, 2, 1).event())
    for piece in pieces:
        await client.write_event(AudioChunk(16000, 2, 1, piece).event())
    if ends:
        await client.write_event(AudioStop().event())


async def answers(client: Any) -> list[Any]:
    """The events up to the end of a transcript, or of the connection."""
    kinds = (TranscriptStart, TranscriptChunk, Transcript, TranscriptStop, Error)
    found: list[Any] = []
    while (event := await client.read_event()) is not None:
        found += [kind.from_event(event) for kind in kinds if kind.is_type(event.type)]
        if event.type == "transcript-stop":
            break
    return found


def test_a_description() -> None:
    async def ask() -> Any:
        async with connected(made()) as connect:
            client = await connect()
            await client.write_event(Describe().event())
            return Info.from_event(await client.read_event())

    [program] = run(ask).asr
    assert program.supports_transcript_streaming
    assert [model.name for model in program.models] == ["nano"]
    assert program.models[0].languages[:2] == ["en", "zh"]
    assert len(program.models[0].languages) == nano().num_languages
    assert program.installed
    assert program.models[0].installed


def test_utterances_one_after_the_other() -> None:
    async def talk() -> list[Any]:
        found = []
        async with connected(made()) as connect:
            client = await connect()
            await client.write_event(Ping("hello").event())
            assert Pong.from_event(await client.read_event()).text == "hello"
            for n in (2, 3):
                await say(client, *[LOUD] * n, language="de", transcript_names=["Lampe"])
                found.append(await answers(client))
        return found

    two, three = run(talk)
    assert [type(event).__name__ for event in two] == [
        "TranscriptStart", "TranscriptChunk", "TranscriptChunk", "Transcript", "TranscriptStop"
    ]  # fmt: skip
    assert (two[3].text, two[3].language) == ("word word", "de")
    assert "".join(event.text for event in three[1:4]).strip() == three[4].text == "word word word"
    options = FakeSession.made[-1].options
    assert (options.language, list(options.hotwords or ())) == ("de", ["Lampe"])
    assert [session.closed for session in FakeSession.made] == [[True], [True]]


def test_an_utterance_without_speech_has_an_empty_transcript() -> None:
    async def talk() -> list[Any]:
        async with connected(made()) as connect:
            client = await connect()
            await say(client, bytes(3200))
            silent = await answers(client)
            await say(client)
            return [silent, await answers(client)]

    for events in run(talk):
        assert [event.text for event in events if isinstance(event, Transcript)] == [""]


@pytest.mark.parametrize(
    ("asked", "code"), [({"name": "gpt-9"}, "model_not_found"), ({"language": "klingon"}, "invalid_value")]
)
def test_an_error_ends_the_connection(asked: Any, code: str) -> None:
    async def talk() -> tuple[list[Any], Any]:
        async with connected(made()) as connect:
            client = await connect()
            await say(client, LOUD, **asked)
            return await answers(client), await client.read_event()

    [error], end = run(talk)
    assert (error.code, end) == (code, None)
    assert error.text


def test_an_item_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "failure", RuntimeError("a secret of ours"))

    async def talk() -> list[Any]:
        async with connected(made()) as connect:
            client = await connect()
            await say(client, LOUD)
            return await answers(client)

    error = run(talk)[-1]
    assert (type(error), error.code) == (Error, "internal_error")
    assert "secret" not in error.text


def test_a_wrong_chunk_and_what_is_no_wyoming() -> None:
    async def talk() -> list[Any]:
        found = []
        async with connected(made()) as connect:
            client = await connect()
            await client.write_event(AudioStart(16000, 2, 1).event())
            await client.write_event(AudioChunk(16000, 3, 1, LOUD).event())
            found.append(await answers(client))
            client = await connect()
            client._writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b'{"type": "describe"}\n')
            found.append(await answers(client))
        return found

    wrong, foreign = run(talk)
    assert [error.code for error in wrong + foreign] == ["invalid_value", "invalid_message"]


def test_limits() -> None:
    async def talk() -> list[Any]:
        of = made(max_sessions=1)
        async with connected(of) as connect:
            first, second = await connect(), await connect()
            await say(first, LOUD, ends=False)
            while not FakeSession.made:
                await asyncio.sleep(0.01)
            await say(second, LOUD)
            found = await answers(second)
            assert (
                'sotto_live_refused_total{protocol="wyoming",reason="sessions_full"} 1.0' in of.metrics.text().decode()
            )
            others = [await connect() for _ in range(CONNECTIONS_PER_PLACE + 1)]
            assert None in [await client.read_event() for client in others[-1:]]
        return found

    [error] = run(talk)
    assert error.code == "sessions_full"


def test_a_client_that_leaves_or_falls_silent() -> None:
    async def talk() -> list[Any]:
        of = made(upload_timeout_s=0.2)
        async with connected(of) as connect:
            client = await connect()
            await say(client, LOUD, ends=False)
            found = await answers(client)
            client = await connect()
            await say(client, LOUD, ends=False)
            while len(FakeSession.made) < 2:
                await asyncio.sleep(0.01)
            await client.disconnect()
            while of.live._seats:
                await asyncio.sleep(0.01)
        return found

    assert run(talk)[-1].code == "timeout"
    assert [session.closed for session in FakeSession.made] == [[False], [False]]


def test_the_end_of_the_server_gives_an_utterance_its_text() -> None:
    async def talk() -> list[Any]:
        of = made()
        async with connected(of) as connect:
            client, late = await connect(), await connect()
            await say(client, LOUD, ends=False)
            assert (await client.read_event()).type == "transcript-start"
            of.drain()
            await of.live.drain(10)
            found = await answers(client)
            await say(late, LOUD)
            return [*found, await answers(late)]

    *found, late = run(talk)
    assert [event.text for event in found if isinstance(event, Transcript)] == ["word"]
    assert [error.code for error in late] == ["shutting_down"]


def test_the_log_has_a_line_without_text(caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        async with connected(made()) as connect:
            client = await connect()
            await say(client, LOUD)
            await answers(client)

    with caplog.at_level(logging.INFO, "whisper.server"):
        run(talk)
    notes = [record.notes for record in caplog.records if "status" in getattr(record, "notes", {})]  # type: ignore[attr-defined]
    assert [(one["status"], one["model"], one["audio_seconds"]) for one in notes] == [("ok", "nano", 0.1)]
    assert "word" not in str(notes)


def test_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(connection, "Sound", fail)

    async def talk() -> list[Any]:
        async with connected(made()) as connect:
            client = await connect()
            await say(client, LOUD)
            return await answers(client)

    [error] = run(talk)
    assert error.code == "internal_error"
    assert "secret" not in error.text
    assert any(record.exc_info for record in caplog.records)


def test_words_of_the_bundled_model() -> None:
    from whisper.server.realtime.sessions import live_session

    async def talk() -> list[Any]:
        async with connected(made(live_session)) as connect:
            client = await connect()
            sound = spoken().tobytes()
            await say(client, *[sound[i : i + 3200] for i in range(0, len(sound), 3200)], language="en")
            return await answers(client)

    nano()
    events = run(talk)
    assert [type(event).__name__ for event in events][-2:] == ["Transcript", "TranscriptStop"]
    assert {"computer", "three"} <= set(events[-2].text.split())
