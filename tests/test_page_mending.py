"""Mending in the page when things go wrong or slowly: a killed server, a slow connection; times, copies and print."""

from __future__ import annotations

import os
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from .browsers import IN_A_BROWSER, edit_first, first_text, opened, playwright, violations
from .server.serving import sound
from .server.test_run import served

pytestmark = IN_A_BROWSER


def test_nothing_is_lost_when_the_server_is_killed(context: Any, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = "--library", str(tmp_path / "library"), "--port", port
    with served(*command) as (process, at, _):
        page = opened(context, at.replace("127.0.0.1", "localhost"))
        edit_first(page, "before it was killed")
        playwright.expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=15_000)
        process.kill()
        process.wait()
        edit_first(page, "while it was away")
        playwright.expect(page.get_by_text("kept in this browser")).to_be_visible()
    with served(*command):
        playwright.expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=60_000)
        page.reload()
        page.locator("[data-word]").first.wait_for()
        assert first_text(page) == "while it was away"
        assert "CONNECTION_REFUSED" in " ".join(context.faults)
        page.close()
        context.faults[:] = [fault for fault in context.faults if "net::ERR_" not in fault]


def test_a_slow_connection_is_enough(address: str, context: Any) -> None:
    """As a telephone has it without 4G: 400 ms there and back, 50 kB a second."""
    page = context.new_page()
    network = context.new_cdp_session(page)
    slow = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", slow)
    page.goto(address)
    page.get_by_label("Files").set_input_files({"name": "a.wav", "mimeType": "audio/wav", "buffer": sound(16)})
    playwright.expect(page.get_by_role("progressbar", name="Sending a.wav")).to_be_visible()
    page.get_by_role("link", name="a.wav").click(timeout=60_000)
    page.locator("[data-word]").first.wait_for(timeout=60_000)
    page.locator("[data-word]").nth(2).click()  # the sound is this tab's own file
    playwright.expect(page.get_by_role("button", name="Pause")).to_be_visible(timeout=2000)
    page.keyboard.press(" ")
    edit_first(page, "typed on a slow line")
    assert first_text(page) == "typed on a slow line"  # at once, whatever the line
    playwright.expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=30_000)
    page.reload()
    page.locator("[data-word]").first.wait_for(timeout=60_000)
    assert first_text(page) == "typed on a slow line"


def test_words_are_placed_again_times_set_and_segments_removed(address: str, context: Any) -> None:
    page = opened(context, address, sound(16))
    path = f"{address}/v1/library/{page.request.get(f'{address}/v1/library').json()['data'][0]['id']}"

    def first() -> Any:
        return page.request.get(path).json()["document"]["segments"][0]

    before = first()
    edit_first(page, "one two three four five six seven")
    for _ in range(100):
        page.wait_for_timeout(200)
        words = first()["words"]
        if len(words) == 7 and any(word["probability"] not in (0, 1) for word in words):
            break
    else:
        raise AssertionError(f"the words were not aligned: {words}")
    assert all(a["end"] <= b["start"] + 0.01 for a, b in pairwise(words))
    page.keyboard.press("t")
    page.get_by_role("textbox", name="Start").fill("0:00.3")
    page.get_by_role("textbox", name="End").fill("nonsense")
    playwright.expect(page.get_by_role("button", name="Set", exact=True)).to_be_disabled()
    page.get_by_role("textbox", name="End").fill("0:03.5")
    page.get_by_role("button", name="Set", exact=True).click()
    page.wait_for_timeout(1200)
    playwright.expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=15_000)
    assert (first()["start"], first()["end"]) == (0.3, 3.5)
    n = page.locator(".segment").count()
    page.keyboard.press("t")
    page.get_by_role("button", name="Remove the segment").click()
    playwright.expect(page.locator(".segment")).to_have_count(n - 1)
    for _ in range(3):
        page.keyboard.press("Control+z")
    assert first_text(page) == before["text"].strip()
    # seven words in half a second cannot be aligned: the server says so, and the browser's console tells it
    context.expected.append("status of 400")


def test_text_is_copied_printed_and_found_on_the_waveform(address: str, context: Any) -> None:
    page = opened(context, address)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    edit_first(page, "a needle")
    height = page.locator(".wave canvas").bounding_box()["height"]
    page.keyboard.press("Control+f")
    page.get_by_label("Find in the transcript").fill("needle")
    page.wait_for_timeout(300)
    assert page.locator(".wave canvas").bounding_box()["height"] > height  # a lane of hits
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Save and share").click()
    page.get_by_role("button", name="Copy with times").click()
    playwright.expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[0].startswith("[0:00] a needle")
    page.get_by_role("button", name="Copy the text").click()
    page.wait_for_timeout(200)
    assert page.evaluate("navigator.clipboard.readText()").startswith("a needle")
    page.keyboard.press("Escape")
    page.emulate_media(media="print")
    playwright.expect(page.locator(".deck")).to_be_hidden()
    playwright.expect(page.locator(".segment").first).to_be_visible()
    assert page.pdf()[:5] == b"%PDF-"


@pytest.mark.skipif("AXE_CORE" not in os.environ, reason="AXE_CORE does not name axe.min.js of axe-core")
def test_axe_finds_nothing_on_the_waveform(address: str, context: Any) -> None:
    page = opened(context, address, sound(6))
    page.locator("body").press("ArrowDown")
    page.keyboard.press("+")
    edit_first(page, "changed")
    for opens in (lambda: None, lambda: page.get_by_role("button", name="Restore what was heard").click()):
        opens()
        page.wait_for_timeout(300)
        page.evaluate(Path(os.environ["AXE_CORE"]).read_text(encoding="utf-8"))
        found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
        assert violations(found) == []
