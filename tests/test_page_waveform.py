"""The waveform in the page: edges of segments are moved, less or more of it is shown; what was heard."""

from __future__ import annotations

from typing import Any

import pytest

from .browsers import IN_A_BROWSER, edit_first, first_text, opened, playwright
from .server.serving import sound

pytestmark = IN_A_BROWSER


def segments(page: Any, address: str) -> list[dict[str, Any]]:
    """The segments that the server has."""
    playwright.expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=15_000)
    recording = page.request.get(f"{address}/v1/library").json()["data"][0]
    address = f"{address}/v1/library/{recording['id']}"
    found: list[dict[str, Any]] = page.request.get(address).json()["document"]["segments"]
    return found


def dragged(page: Any, handle: Any, pixels: float) -> None:
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + pixels / 2, y)
    page.mouse.move(x + pixels, y)
    page.mouse.up()


def test_an_edge_is_dragged_undone_and_moved_by_keys(context: Any, address: str) -> None:
    page = opened(context, address, sound(16))
    before = segments(page, address)[0]
    page.locator("body").press("ArrowDown")
    end = page.get_by_role("slider", name="End of the segment")
    width = page.locator(".wave").bounding_box()["width"]
    dragged(page, end, -0.4 * width / 16)
    assert float(end.get_attribute("aria-valuenow")) == pytest.approx(before["end"] - 0.4, abs=0.03)
    page.wait_for_timeout(1000)
    now = segments(page, address)[0]
    assert now["end"] == pytest.approx(before["end"] - 0.4, abs=0.03)
    assert now["start"] == before["start"]
    assert now["text"] == before["text"]
    assert all(word["end"] <= now["end"] + 0.31 for word in now["words"])
    page.keyboard.press("Control+z")
    assert float(end.get_attribute("aria-valuenow")) == before["end"]

    start = page.get_by_role("slider", name="Start of the segment")
    start.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert float(start.get_attribute("aria-valuenow")) == pytest.approx(before["start"] + 0.2, abs=0.002)
    page.wait_for_timeout(1000)
    assert segments(page, address)[0]["start"] == pytest.approx(before["start"] + 0.2, abs=0.002)
    page.keyboard.press("Control+z")  # the four together
    assert float(start.get_attribute("aria-valuenow")) == before["start"]
    page.keyboard.press("Control+Shift+z")
    for _ in range(30):
        page.keyboard.press("Shift+ArrowRight")
    last = float(start.get_attribute("aria-valuenow"))
    assert last == pytest.approx(before["end"] - 0.1, abs=0.002)  # it goes over nothing
    page.wait_for_timeout(1000)
    page.reload()
    page.locator("[data-word]").first.wait_for()
    assert segments(page, address)[0]["start"] == last


def test_an_edge_stops_at_the_segment_beside_it(context: Any, address: str) -> None:
    page = opened(context, address, sound(16))
    following = segments(page, address)[1]["start"]
    page.locator("body").press("ArrowDown")
    end = page.get_by_role("slider", name="End of the segment")
    dragged(page, end, 600)
    assert float(end.get_attribute("aria-valuenow")) == following


def test_less_of_the_waveform_is_shown_and_more_again(context: Any, address: str) -> None:
    page = opened(context, address, sound(16))
    wave, part = page.locator(".wave"), page.locator(".part")
    width = wave.bounding_box()["width"]
    playwright.expect(part).to_have_count(0)
    page.locator("body").press("ArrowDown")
    stretch = page.locator(".stretch").bounding_box()["width"]
    page.keyboard.press("+")
    playwright.expect(part).to_be_visible()
    assert page.locator(".stretch").bounding_box()["width"] == pytest.approx(2 * stretch, rel=0.05)
    wave.focus()
    page.keyboard.press("End")  # what is shown follows the sound
    page.wait_for_timeout(4500)
    page.keyboard.press("End")
    playwright.expect(page.locator(".clock time")).to_have_text("0:16")
    playwright.expect(page.locator(".part > div")).to_have_attribute("style", "left: 50%; width: 50%;")
    wave.click(position={"x": width / 4, "y": 20})
    playwright.expect(page.locator(".clock time")).to_have_text("0:10")
    wave.hover(position={"x": width / 4, "y": 20})
    page.mouse.wheel(-100, 0)
    style = page.locator(".part > div").get_attribute("style")
    assert "left: 50%" not in style
    page.get_by_role("button", name="Show more of the waveform").click()
    playwright.expect(part).to_have_count(0)


def test_what_was_heard_comes_back(context: Any, address: str) -> None:
    page = opened(context, address, sound(16))
    texts = page.locator(".segment .text")
    original = texts.all_inner_texts()
    edit_first(page, "not what was said")
    texts.last.locator("[data-word]").first.dblclick()
    page.locator("textarea").fill("nor this")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    playwright.expect(texts.last).to_have_text(original[-1])
    assert first_text(page) == "not what was said"
    page.get_by_role("button", name="Restore what was heard").click()
    page.get_by_role("button", name="Restore all").click()
    playwright.expect(texts.first).to_have_text(original[0])
    assert texts.all_inner_texts() == original
    page.keyboard.press("Control+z")
    assert first_text(page) == "not what was said"
    page.keyboard.press("Control+Shift+z")
    page.wait_for_timeout(1000)
    assert [one["text"].strip() for one in segments(page, address)] == [text.strip() for text in original]
