"""The websocket from a web page, in a real browser: the key in the subprotocol, and pages of other origins refused."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .browsers import IN_A_BROWSER
from .server.library.keeping import keeping
from .server.serving import listening, spoken

pytestmark = IN_A_BROWSER

TALK = """
([url, key, sound]) => new Promise((resolve) => {
  const socket = new WebSocket(url, ["realtime", "openai-insecure-api-key." + key]);
  const told = [];
  setTimeout(() => resolve({ told, code: 0, protocol: socket.protocol }), 50000);
  socket.onclose = (event) => resolve({ told, code: event.code, protocol: socket.protocol });
  socket.onmessage = (message) => {
    const event = JSON.parse(message.data);
    told.push(event);
    if (event.type === "session.created") {
      const transcription = { language: "en", temperature: [0] };
      const input = { format: { type: "audio/pcm", rate: 16000 }, turn_detection: null, transcription };
      socket.send(JSON.stringify({ type: "session.update", session: { type: "transcription", audio: { input } } }));
      socket.send(Uint8Array.from(atob(sound), (c) => c.charCodeAt(0)));
      socket.send(JSON.stringify({ type: "input_audio_buffer.commit" }));
    } else if (/completed$|failed$|^error$/.test(event.type)) socket.close(1000);
  };
})
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with listening(keeping(tmp_path, keys=("right",))) as at:
        yield at.replace("127.0.0.1", "localhost")


def talk(browser: Any, page_at: str, address: str, key: str = "right") -> Any:
    page = browser.new_page()
    page.route("http://evil.example/", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    page.goto(page_at)
    sound = base64.b64encode(spoken().tobytes()).decode()
    told = page.evaluate(TALK, [address.replace("http", "ws") + "/v1/realtime", key, sound])
    page.close()
    return told


def test_a_page_of_the_server(browser: Any, address: str) -> None:
    told = talk(browser, address, address)
    assert (told["code"], told["protocol"]) == (1000, "realtime")
    assert {"computer", "three"} <= set(told["told"][-1]["transcript"].split())
    assert talk(browser, address, address, key="wrong") == {"told": [], "code": 1006, "protocol": ""}


def test_a_page_of_another_origin(browser: Any, address: str) -> None:
    for foreign in ("about:blank", "http://evil.example/"):
        assert talk(browser, foreign, address) == {"told": [], "code": 1006, "protocol": ""}
