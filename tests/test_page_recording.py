"""Recording on the page, in Chromium with a microphone that plays a file: captions, losses, refusals."""

from __future__ import annotations

import os
import re
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .browsers import CHROMIUM, IN_A_BROWSER, playwright
from .server.library.keeping import keeping
from .server.serving import listening, sound

pytestmark = IN_A_BROWSER
DEVICE, CONSENT = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
Launch = Callable[..., Any]


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Starts a browser; its microphone, if any, says the words of the tests again and again."""
    file = tmp_path_factory.mktemp("microphone") / "words.wav"
    file.write_bytes(sound(16))
    with playwright.sync_playwright() as running:

        def start(*flags: str) -> Any:
            chosen = ["--no-sandbox", f"--use-file-for-fake-audio-capture={file}", *flags]
            return running.chromium.launch(executable_path=CHROMIUM, args=chosen)

        yield start


@pytest.fixture(scope="module")
def browser(launch: Launch) -> Iterator[Any]:
    started = launch(DEVICE, CONSENT)
    yield started
    started.close()


def recording(context: Any, address: str, prepare: Callable[[Any], None] = lambda page: None) -> Any:
    """A page that records, and has captions."""
    page = context.new_page()
    prepare(page)
    page.goto(address)
    page.get_by_role("button", name="Record").click()
    playwright.expect(page.get_by_role("log", name="Live captions")).to_have_text(re.compile(r"\w{2,}"), timeout=60_000)
    playwright.expect(page.get_by_text("What is said appears here.")).to_have_count(0, timeout=60_000)
    return page


def until(page: Any, condition: str, seconds: float = 60.0) -> None:
    """Wait until a condition holds; the page's policy lets no test wait inside it."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(100)


def wait_for_seconds(page: Any, seconds: int) -> None:
    """Wait until so much is recorded."""
    until(
        page, f"(([m, s]) => m * 60 + Number(s))(document.querySelector('.clock').textContent.split(':')) >= {seconds}"
    )


def is_read(page: Any) -> None:
    """The recording is in the library, opened, and transcribed."""
    playwright.expect(page).to_have_title(re.compile(r"Recording \d{4}-\d\d-\d\d \d\d:\d\d – Sotto"), timeout=30_000)
    page.locator("[data-word]").first.wait_for(timeout=60_000)


def told(page: Any, address: str) -> Any:
    return page.request.get(f"{address}/v1/library").json()["data"]


def test_what_is_said_is_captioned_and_then_in_the_library(context: Any, address: str) -> None:
    addresses: list[str] = []
    page = recording(context, address, lambda page: page.on("websocket", lambda one: addresses.append(one.url)))
    assert len(addresses) == 1
    until(page, "document.querySelector('[role=meter]').ariaValueNow > 20")
    page.locator(".interim:not(:empty)").first.wait_for(timeout=30_000)
    wait_for_seconds(page, 6)
    page.get_by_role("button", name="Stop").click()
    is_read(page)
    playwright.expect(page.locator(".recording")).to_have_count(0)
    [made] = told(page, address)
    assert 6 <= made["duration"] < 60
    page.get_by_label("Back to the library").click()
    playwright.expect(page.get_by_role("link", name=made["name"])).to_be_visible()
    playwright.expect(page.get_by_text("kept in this browser")).to_have_count(0)
    page.get_by_role("link", name=made["name"]).click()
    page.reload()  # now the sound comes from the server
    page.locator("[data-word]").first.click()
    playwright.expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_a_lost_connection_stops_captions_and_nothing_else(context: Any, address: str) -> None:
    sockets: list[Any] = []
    refusing = [False]

    def connect(socket: Any) -> None:
        if refusing[0]:
            socket.close(code=1013, reason="full")
            return
        socket.connect_to_server()
        sockets.append(socket)

    page = recording(context, address, lambda page: page.route_web_socket(re.compile("/v1/realtime"), connect))
    refusing[0] = True
    sockets[-1].close(code=1011)
    playwright.expect(page.get_by_text("The recording goes on, and nothing is lost.")).to_be_visible()
    before = page.locator(".captions").inner_text()
    wait_for_seconds(page, 8)
    refusing[0] = False
    playwright.expect(page.get_by_text("nothing is lost")).to_have_count(0, timeout=30_000)
    until(page, f"document.querySelectorAll('.captions p').length > {len(before.splitlines())}")
    context.set_offline(True)
    page.get_by_role("button", name="Stop").click()
    again = page.get_by_role("button", name="Try again")
    again.click()
    again.wait_for()
    context.set_offline(False)
    again.click()
    is_read(page)
    assert told(page, address)[0]["duration"] > 8
    context.faults[:] = [fault for fault in context.faults if "ERR_INTERNET_DISCONNECTED" not in fault]


def test_a_closed_tab_keeps_what_was_recorded(context: Any, address: str, tmp_path: Path) -> None:
    page = recording(context, address)
    wait_for_seconds(page, 7)
    other = context.new_page()
    other.goto(address)
    other.get_by_role("button", name="Record").wait_for()
    playwright.expect(other.get_by_text("kept in this browser")).to_have_count(0)  # the other tab has it
    page.close()
    other.reload()
    playwright.expect(other.get_by_text("kept in this browser")).to_be_visible()
    assert told(other, address) == []
    with other.expect_download() as waiting:
        other.get_by_role("button", name="Save as a file").click()
    waiting.value.save_as(tmp_path / "kept.wav")
    with wave.open(str(tmp_path / "kept.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert file.getnframes() / file.getframerate() >= 6
        assert file.getframerate() in (22050, 24000)
    playwright.expect(other.get_by_text("kept in this browser")).to_be_visible()
    other.get_by_role("button", name="Add to the library").click()
    is_read(other)
    other.get_by_label("Back to the library").click()
    playwright.expect(other.get_by_text("kept in this browser")).to_have_count(0)


def test_a_key_goes_into_no_address(browser: Any, tmp_path: Path) -> None:
    with listening(keeping(tmp_path, keys=("secret-key",))) as at:
        user = browser.new_context()
        page = user.new_page()
        addresses: list[str] = []
        page.on("websocket", lambda one: addresses.append(one.url))
        page.goto(at)
        page.get_by_label("API key").fill("secret-key")
        page.get_by_role("button", name="Go on").click()
        page.get_by_role("button", name="Record").click()
        playwright.expect(page.locator(".captions p:not(.quiet)").first).to_have_text(
            re.compile(r"\w{2,}"), timeout=60_000
        )
        page.get_by_role("button", name="Stop").click()
        is_read(page)
        assert addresses
        assert not [one for one in addresses if "secret" in one]
        user.close()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((DEVICE,), "does not let this page use the microphone"),
        ((CONSENT,), "There is no microphone"),
        ((DEVICE, CONSENT, "--host-resolver-rules=MAP sotto.test 127.0.0.1"), "only to pages that come by https"),
    ],
)
def test_why_there_is_no_recording(launch: Launch, tmp_path: Path, flags: tuple[str, ...], says: str) -> None:
    host = "sotto.test" if len(flags) == 3 else "localhost"
    with listening(keeping(tmp_path, allowed_hosts=(host,))) as at:
        started = launch(*flags)
        page = started.new_page()
        page.goto(at.replace("127.0.0.1", host))
        page.get_by_role("button", name="Record").click()
        playwright.expect(page.get_by_role("alert").filter(has_text=says)).to_be_visible()
        playwright.expect(page.get_by_role("button", name="Record")).to_be_enabled()
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(context: Any, address: str, scheme: str) -> None:
    """Needs axe-core, which is under the MPL and not in this package: a path in ``AXE_CORE``."""
    script = os.environ.get("AXE_CORE", "")
    if not Path(script).is_file():
        pytest.skip("AXE_CORE does not name axe.min.js of axe-core")
    rules = Path(script).read_text(encoding="utf-8")
    page = recording(context, address)
    page.emulate_media(color_scheme=scheme)
    page.locator(".interim:not(:empty)").first.wait_for(timeout=30_000)

    def check(page: Any, what: str) -> None:
        page.evaluate(rules)
        tags = "['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']"
        found = page.evaluate(f"axe.run(document, {{runOnly: {tags}}})")["violations"]
        assert not found, (what, [(one["id"], one["nodes"][0]["html"][:200]) for one in found])

    check(page, "recording")
    for width in (360, 768):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    wait_for_seconds(page, 5)
    page.close()
    left = context.new_page()
    left.emulate_media(color_scheme=scheme)
    left.goto(address)
    left.get_by_text("kept in this browser").wait_for()
    check(left, "kept")
    assert told(left, address) == []
    left.get_by_role("button", name="Delete", exact=True).click()
    left.locator("dialog").wait_for()
    check(left, "deleting")
    left.locator("dialog").get_by_role("button", name="Delete", exact=True).click()
    playwright.expect(left.get_by_text("kept in this browser")).to_have_count(0)
