"""What the tests of the page share: Chromium, a user, a recording that is opened; skips where there is no browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .server.serving import sound

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
IN_A_BROWSER = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # on a machine with much other work
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser, which is closed at the end."""
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def user(browser: Any) -> Iterator[Any]:
    """A user whose browser reports no error, and who is sent to no other place."""
    made = browser.new_context(viewport={"width": 1200, "height": 800})
    faults: list[str] = []
    made.on("weberror", lambda error: faults.append(str(error.error)))
    made.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    made.on(
        "request",
        lambda sent: faults.append(sent.url) if "//localhost" not in sent.url and "blob:" not in sent.url else None,
    )
    made.faults, made.expected = faults, list[str]()  # what faults may say, also those that come at the very end
    yield made
    made.close()
    unexpected = [fault for fault in faults if not any(text in fault for text in made.expected)]
    assert not unexpected, unexpected


def opened(context: Any, address: str, audio: bytes | None = None, name: str = "talk.wav") -> Any:
    """A page in which a recording was dropped, transcribed, and opened."""
    page = context.new_page()
    page.goto(address)
    file = {"name": name, "mimeType": "audio/wav", "buffer": audio or sound(8)}
    page.get_by_label("Files").set_input_files(file)
    page.get_by_role("link", name=name).click()
    page.get_by_role("slider", name="Place in the recording").wait_for(timeout=60_000)
    page.locator("[data-word]").first.wait_for()
    return page


def first_text(page: Any) -> str:
    """The text of the first segment."""
    text: str = page.locator(".segment .text").first.inner_text()
    return text


def edit_first(page: Any, text: str) -> None:
    """Give the first segment another text."""
    page.locator("[data-word]").first.dblclick()
    page.locator("textarea").fill(text)
    page.keyboard.press("Escape")


def violations(found: Any) -> list[tuple[str, str, str]]:
    """What axe-core has found: rule, element and reason.

    The edges of a segment lie on the waveform, itself a target; the dialog of times does the same (WCAG 2.2, 2.5.8,
    "equivalent"), so their distance to it does not count.
    """
    return [
        (one["id"], node["html"][:200], node["failureSummary"])
        for one in found["violations"]
        for node in one["nodes"]
        if not (one["id"] == "target-size" and node["html"].startswith('<div class="edge'))
    ]
