"""The official client of OpenAI on the server's websocket, with the bundled model: its text, events and errors."""

import asyncio
import base64
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from whisper.media.arriving import Resampler

from .server.serving import certificate, listening, nano, server, spoken

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.peers

T = "conversation.item.input_audio_transcription"
PIECE = 4800  # bytes: 100 ms


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with listening(server(keys=("right",))) as at:
        yield at


def recording() -> bytes:
    """The words as a client sends them: 16 bits at 24 kHz, with a pause behind them."""
    resampler = Resampler(16000, 24000)
    return np.concatenate([resampler.push(spoken()), resampler.finish(), np.zeros(36000, np.int16)]).tobytes()


async def said(connection: Any, until: str) -> list[Any]:
    """The events up to the last of a kind that comes within the time."""
    events = []
    with anyio.fail_after(60):
        async for event in connection:
            events.append(event)
            if event.type == until:
                return events
    raise AssertionError([event.type for event in events])


async def converse(address: str, key: str = "right", **settings: Any) -> list[Any]:
    heard = {"transcription": {"model": "whisper-1", "language": "en", "temperature": [0]}, "turn_detection": None}
    client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        session = {"type": "transcription", "audio": {"input": {**heard, **settings}}}
        await connection.session.update(session=session)
        events = await said(connection, "session.updated")
        sound = recording()
        for start in range(0, len(sound), PIECE):
            piece = base64.b64encode(sound[start : start + PIECE]).decode()
            await connection.input_audio_buffer.append(audio=piece)
        if settings.get("turn_detection") is None:
            await connection.input_audio_buffer.commit()
        return events + await said(connection, f"{T}.completed")


def test_turns_by_hand(address: str) -> None:
    events = asyncio.run(converse(address))
    kinds = [type(event).__name__ for event in events]
    assert kinds[:2] == ["SessionCreatedEvent", "SessionUpdatedEvent"]
    assert {"InputAudioBufferCommittedEvent", "ConversationItemAdded", "ConversationItemDone"} <= set(kinds)
    completed = events[-1]
    assert type(completed).__name__ == "ConversationItemInputAudioTranscriptionCompletedEvent"
    assert {"computer", "three"} <= set(completed.transcript.split())
    assert completed.usage.seconds == pytest.approx(len(recording()) / 48000, abs=0.01)
    deltas = [event.delta for event in events if event.type == f"{T}.delta"]
    assert deltas
    assert "".join(deltas).strip()


def test_client_secrets(address: str) -> None:
    """A program with the key asks for a secret; another one has a session by it."""
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="right", max_retries=0)
    session: Any = {"type": "transcription", "audio": {"input": {"transcription": {"language": "en"}}}}
    secret = client.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60}, session=session
    )
    assert type(secret.session).__name__ == "RealtimeTranscriptionSessionCreateResponse"
    assert secret.session.audio.input.transcription.language == "en"
    completed = asyncio.run(converse(address, key=secret.value))[-1]
    assert {"computer", "three"} <= set(completed.transcript.split())
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{address}/v1", api_key=secret.value, max_retries=0).models.list()
    beta = client.beta.realtime.transcription_sessions.create(input_audio_format="pcm16")
    assert beta.client_secret.value.startswith("ek_")


def test_turns_by_voice(address: str) -> None:
    turns = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 500, "prefix_padding_ms": 300}
    events = asyncio.run(converse(address, turn_detection=turns))
    kinds = [event.type for event in events]
    order = [f"input_audio_buffer.{name}" for name in ("speech_started", "speech_stopped", "committed")]
    assert [kind for kind in kinds if kind in order][:3] == order
    assert events[-1].transcript


def test_a_wrong_key(address: str) -> None:
    with pytest.raises(Exception, match="401"):
        asyncio.run(converse(address, key="wrong"))


def test_a_wrong_update_reaches_the_user_and_the_session_stays(address: str) -> None:
    async def run() -> list[Any]:
        client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="right")
        async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            await connection.session.update(session={"type": "transcription", "voice": "none"}, event_id="mine")
            events = await said(connection, "error")
            await connection.input_audio_buffer.clear()
            return events + await said(connection, "input_audio_buffer.cleared")

    error = asyncio.run(run())[-2].error
    assert (error.code, error.param, error.event_id) == ("unknown_parameter", "session.voice", "mine")


def test_the_text_is_that_of_transcribe(address: str) -> None:
    """The last samples of the resampler come with the commit, so that the server has what a whole resampling gives."""
    samples = Resampler(24000, 16000)
    whole = np.concatenate([samples.push(np.frombuffer(recording(), np.int16)), samples.finish()])
    expected = nano().transcribe(whole.astype(np.float32) / 32768, language="en", temperature=0.0)["text"]
    assert asyncio.run(converse(address))[-1].transcript == expected.strip()


# -- clients that only speak TLS ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with a certificate, and that."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    files = certificate(tmp_path_factory.mktemp("tls"))
    with listening(server(keys=("right",)), files) as at:
        yield at, files[0]


def test_the_beta(secure: tuple[str, Path]) -> None:
    address, trusted = secure

    async def run() -> list[Any]:
        client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="right")
        options = {"ssl": ssl.create_default_context(cafile=str(trusted))}
        async with client.beta.realtime.connect(
            model="whisper-1", extra_query={"intent": "transcription"}, websocket_connection_options=options
        ) as connection:
            session = {
                "input_audio_format": "pcm16", "input_audio_transcription": {"model": "whisper-1", "language": "en"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 500, "create_response": False},
            }  # fmt: skip
            await connection.transcription_session.update(session=session)
            events = await said(connection, "transcription_session.updated")
            sound = recording()
            for start in range(0, len(sound), PIECE):
                piece = base64.b64encode(sound[start : start + PIECE]).decode()
                await connection.input_audio_buffer.append(audio=piece)
            return events + await said(connection, f"{T}.completed")

    events = asyncio.run(run())
    kinds = [event.type for event in events]
    assert kinds[0] == "transcription_session.created"
    assert "conversation.item.created" in kinds
    assert events[-1].transcript


NODE_CLIENT = """
import fs from "node:fs";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const { address, sound } = JSON.parse(process.argv[1]);
const client = new OpenAI({ baseURL: address + "/v1", apiKey: "right" });
const realtime = new OpenAIRealtimeWS({ model: "gpt-realtime" }, client);
const kinds = [];
realtime.on("event", (event) => kinds.push(event.type));
realtime.on("error", (error) => { console.error(error.message); process.exit(1); });
realtime.on("session.created", () => {
  const input = { format: { type: "audio/pcm", rate: 24000 }, turn_detection: null,
    noise_reduction: { type: "near_field" }, transcription: { model: "gpt-4o-transcribe", language: "en" } };
  realtime.send({ type: "session.update", session: { type: "transcription", audio: { input } } });
  const audio = fs.readFileSync(sound);
  for (let at = 0; at < audio.length; at += 4800)
    realtime.send({ type: "input_audio_buffer.append", audio: audio.subarray(at, at + 4800).toString("base64") });
  realtime.send({ type: "input_audio_buffer.commit" });
});
realtime.on("conversation.item.input_audio_transcription.completed", (event) => {
  console.log(JSON.stringify({ transcript: event.transcript, kinds }));
  realtime.close();
});
"""


def test_the_client_for_node(secure: tuple[str, Path], tmp_path: Path) -> None:
    """Needs node, and in SOTTO_NODE_MODULES the folder in which npm has put `openai` and `ws`."""
    node, folder = shutil.which("node"), os.environ.get("SOTTO_NODE_MODULES")
    if node is None or folder is None:
        pytest.skip("node, or SOTTO_NODE_MODULES, is missing")
    address, trusted = secure
    (tmp_path / "sound").write_bytes(recording())
    given = json.dumps({"address": address, "sound": str(tmp_path / "sound")})
    done = subprocess.run(
        [node, "--input-type=module", "-e", NODE_CLIENT, given], cwd=folder, capture_output=True, text=True,
        timeout=100, env={**os.environ, "NODE_EXTRA_CA_CERTS": str(trusted)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {"computer", "three"} <= set(told["transcript"].split())
    assert told["kinds"][:2] == ["session.created", "session.updated"]
