"""The page in a real browser: Chromium, driven by Playwright, on a server with the model of the package."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from .browsers import IN_A_BROWSER, edit_first, first_text, opened, playwright, violations
from .server.library.keeping import keeping
from .server.serving import listening, sound

pytestmark = IN_A_BROWSER
EVIL = "<img src=x onerror=alert(1)>"


def test_a_recording_is_dropped_read_and_heard(context: Any, address: str) -> None:
    page = opened(context, address)
    assert page.title() == "talk.wav – Sotto"
    words = page.locator("[data-word]")
    words.nth(2).click()
    playwright.expect(page.get_by_role("button", name="Pause")).to_be_visible()
    playwright.expect(page.locator(".now")).not_to_have_count(0)
    page.keyboard.press(" ")
    playwright.expect(page.get_by_role("button", name="Play")).to_be_visible()
    page.reload()  # now without the file: the sound comes from the server
    words.nth(0).click()
    playwright.expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_a_text_is_mended_undone_and_kept_over_a_reload(context: Any, address: str) -> None:
    page = opened(context, address)
    before = first_text(page)
    edit_first(page, EVIL)
    assert first_text(page) == EVIL
    page.keyboard.press("Control+z")
    assert first_text(page) == before
    page.keyboard.press("Control+Shift+z")
    assert first_text(page) == EVIL
    playwright.expect(page.get_by_text("Saved")).to_be_visible()
    page.reload()
    page.locator("[data-word]").first.wait_for()
    assert first_text(page) == EVIL
    assert page.locator("main img").count() == 0


def test_segments_are_cut_and_joined_by_keys(context: Any, address: str) -> None:
    page = opened(context, address)
    n = page.locator(".segment").count()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("textarea").fill("one two")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.locator(".segment").count() == n + 1
    assert page.locator("textarea").input_value() == "two"
    page.keyboard.press("Backspace")
    assert page.locator(".segment").count() == n
    assert page.locator("textarea").input_value() == "one two"
    page.keyboard.press("Escape")


def test_find_and_replace(context: Any, address: str) -> None:
    page = opened(context, address)
    edit_first(page, "a cat, a Cat and a catalogue")
    page.keyboard.press("Control+f")
    page.get_by_label("Find in the transcript").fill("cat")
    playwright.expect(page.locator(".count")).to_have_text("1 of 3")
    page.get_by_label("Whole words only").click()
    playwright.expect(page.locator(".count")).to_have_text("1 of 2")
    page.get_by_role("button", name="Replace", exact=True).click()
    page.get_by_label("Replace by").fill("$& dog")
    page.get_by_role("button", name="All").click()
    assert first_text(page) == "a $& dog, a $& dog and a catalogue"


def test_nothing_is_lost_without_a_connection(context: Any, address: str) -> None:
    page = opened(context, address)
    context.set_offline(True)
    edit_first(page, "written on a train")
    playwright.expect(page.get_by_text("kept in this browser")).to_be_visible()
    draft = page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('sotto.draft.')).length")
    assert draft == 1
    context.set_offline(False)
    playwright.expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=15_000)
    page.reload()
    page.locator("[data-word]").first.wait_for()
    assert first_text(page) == "written on a train"
    context.faults[:] = [fault for fault in context.faults if "ERR_INTERNET_DISCONNECTED" not in fault]


def test_two_tabs_merge_what_does_not_touch(context: Any, address: str) -> None:
    one = opened(context, address, sound(16))
    other = context.new_page()
    other.goto(one.url)
    other.locator("[data-word]").first.wait_for()
    texts = other.locator(".segment .text")
    edit_first(one, "of the first tab")
    playwright.expect(texts.first).to_have_text("of the first tab")  # the other tab has no changes, and follows
    other.context.set_offline(True)
    edit_first(one, "of the first tab, again")
    texts.last.locator("[data-word]").first.dblclick()
    other.locator("textarea").fill("of the second tab")
    other.keyboard.press("Escape")
    other.context.set_offline(False)
    for page in (one, other):
        playwright.expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=20_000)
        playwright.expect(page.locator(".segment .text").first).to_have_text("of the first tab, again", timeout=20_000)
        playwright.expect(page.locator(".segment .text").last).to_have_text("of the second tab", timeout=20_000)
    context.faults[:] = [fault for fault in context.faults if "DISCONNECTED" not in fault and "409" not in fault]


def test_what_was_changed_twice_is_asked_about(browser: Any, context: Any, address: str) -> None:
    one = opened(context, address)
    elsewhere = browser.new_context()  # another person's browser: the tabs hear nothing of each other
    other = elsewhere.new_page()
    other.goto(one.url)
    other.locator("[data-word]").first.wait_for()
    edit_first(one, "mine")
    playwright.expect(one.get_by_text("Saved", exact=True)).to_be_visible()
    one.wait_for_timeout(1200)
    edit_first(other, "theirs")
    other.get_by_role("button", name="Keep my text").click()
    playwright.expect(other.get_by_text("Saved", exact=True)).to_be_visible()
    one.reload()
    one.locator("[data-word]").first.wait_for()
    assert first_text(one) == "theirs"
    elsewhere.close()


def test_the_library_is_searched_renamed_and_emptied(context: Any, address: str) -> None:
    page = opened(context, address, name=f"{EVIL}.wav")
    word = page.locator("[data-word]").first.inner_text().strip(" .,")
    page.get_by_label("Back to the library").click()
    page.get_by_label("Search all that was said").fill(word)
    hit = page.locator(".hits a").first
    playwright.expect(hit).to_contain_text(EVIL)
    assert page.locator("mark").first.inner_text().lower() == word.lower()
    hit.click()
    page.locator("[data-word]").first.wait_for()
    page.get_by_label("Back to the library").click()
    page.get_by_label("Name and tags of").click()
    page.get_by_label("Name", exact=True).fill("A name")
    page.get_by_label("Tags, with commas").fill(f"x, {EVIL}")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name=f"{EVIL} 1").click()
    playwright.expect(page.get_by_role("link", name="A name")).to_be_visible()
    assert page.locator("main img").count() == 0
    page.get_by_label("Delete A name").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    playwright.expect(page.get_by_role("link", name="A name")).to_have_count(0)


def test_a_key_is_asked_for_and_not_put_into_addresses(browser: Any, tmp_path: Path) -> None:
    with listening(keeping(tmp_path, keys=("secret key".replace(" ", "-"),))) as at:
        user = browser.new_context()
        urls: list[str] = []
        user.on("request", lambda sent: urls.append(sent.url))
        page = user.new_page()
        page.goto(at)
        page.get_by_label("API key").fill("secret-key")
        page.get_by_role("button", name="Go on").click()
        page.get_by_label("Files").set_input_files({"name": "a.wav", "mimeType": "audio/wav", "buffer": sound(4)})
        page.get_by_role("link", name="a.wav").click()
        page.locator("[data-word]").first.wait_for(timeout=60_000)
        page.reload()
        page.locator("[data-word]").first.click()
        playwright.expect(page.get_by_role("button", name="Pause")).to_be_visible()
        assert any(url.endswith("/sound") for url in urls)
        assert not [url for url in urls if "secret" in url]
        user.close()


def test_files_to_save_and_a_page_to_share(context: Any, browser: Any, address: str, tmp_path: Path) -> None:
    page = opened(context, address)
    page.get_by_role("button", name="Save and share").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Subtitles, SRT").click()
    assert waiting.value.suggested_filename == "talk.srt"
    with page.expect_download() as waiting:
        page.get_by_role("button", name="A page to share").click()
    waiting.value.save_as(tmp_path / "shared.html")
    alone = browser.new_context(offline=True)
    shared = alone.new_page()
    shared.goto((tmp_path / "shared.html").as_uri())
    shared.locator("span").nth(1).click()
    shared.wait_for_timeout(700)
    assert shared.evaluate("document.querySelector('audio').currentTime") > 0
    assert shared.locator(".now").count() == 1
    alone.close()


@pytest.mark.parametrize(
    ("label", "option", "channels"),
    [("A speaker on each channel", "speakers", 2), ("Tell speakers apart", "voices", 1)],
)
def test_an_interview_has_speakers(context: Any, address: str, label: str, option: str, channels: int) -> None:
    page = context.new_page()
    page.goto(address)
    page.get_by_text("More").click()
    page.get_by_label(label).check()
    file = {"name": "two.wav", "mimeType": "audio/wav", "buffer": sound(6, channels)}
    page.get_by_label("Files").set_input_files(file)
    page.get_by_role("link", name="two.wav").click()
    page.locator(".speaker").first.click(timeout=60_000)
    page.get_by_label("Name", exact=True).fill(EVIL)
    page.get_by_role("button", name="Set").click()
    playwright.expect(page.locator(".speaker").first).to_have_text(EVIL)
    page.reload()
    playwright.expect(page.locator(".speaker").first).to_have_text(EVIL)
    saved = json.loads(page.evaluate("localStorage.getItem('sotto.options')"))
    assert saved[option] is True


def test_what_is_no_sound_is_named(context: Any, address: str) -> None:
    page = context.new_page()
    page.goto(address)
    page.get_by_label("Files").set_input_files([
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x"},
        {"name": "broken.wav", "mimeType": "audio/wav", "buffer": b"this is no sound"},
    ])  # fmt: skip
    playwright.expect(page.get_by_role("status")).to_contain_text("notes.txt")
    playwright.expect(page.get_by_role("button", name="Try again")).to_be_visible(timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(context: Any, address: str, scheme: str) -> None:
    """Needs axe-core, which is under the MPL and not in this package: a path in ``AXE_CORE``."""
    script = os.environ.get("AXE_CORE", "")
    if not Path(script).is_file():
        pytest.skip("AXE_CORE does not name axe.min.js of axe-core")
    page = opened(context, address, sound(6))
    page.emulate_media(color_scheme=scheme)
    rules = Path(script).read_text(encoding="utf-8")

    def check(what: str) -> None:
        page.wait_for_timeout(300)
        page.evaluate(rules)
        found = page.evaluate(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']})"
        )
        assert not violations(found), what

    check("reading")
    page.locator("[data-word]").first.dblclick()
    check("editing")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+f")
    check("finding")
    page.keyboard.press("Escape")
    for key in ("?", "t", "s"):
        page.locator("body").press(key)
        page.locator("dialog").wait_for()
        check(f"dialog {key}")
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Save and share").click()
    check("saving")
    page.keyboard.press("Escape")
    page.get_by_label("Back to the library").click()
    page.get_by_text("More").click()
    page.get_by_role("button", name="Select").click()
    check("library")
    page.get_by_label("Search all that was said").fill("a")
    check("search")


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_is_wider_than_the_screen(context: Any, address: str, width: int) -> None:
    page = opened(context, address, name="a_very_long_name_without_any_space_" * 4 + ".wav")
    page.set_viewport_size({"width": width, "height": 740})
    edit_first(page, "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 2)
    for go in (
        lambda: None,
        lambda: page.keyboard.press("Control+f"),
        lambda: page.get_by_label("Back to the library").click(),
    ):
        go()
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_doubt_is_jumped_to_and_accepted(context: Any, address: str) -> None:
    page = opened(context, address, sound(16))
    recording = page.request.get(f"{address}/v1/library").json()["data"][0]
    path = f"{address}/v1/library/{recording['id']}"
    segments = page.request.get(path).json()["document"]["segments"]
    for segment in segments:
        segment["words"] = [{**word, "confidence": 0.9} for word in segment["words"]]
    segments[1]["words"][0]["confidence"] = 0.1
    finding = {"kind": "uncovered", "start": 12.0, "end": 13.0, "text": "", "reason": "speech", "state": "open"}
    splice = {"after": None, "remove": [segment["uid"] for segment in segments], "insert": segments}
    page.request.patch(path, data={"version": 1, "splices": [splice], "findings": [finding]})
    page.reload()
    counted = page.locator(".doubt-next")
    playwright.expect(counted).to_contain_text("2 doubtful")
    playwright.expect(page.locator(".low[data-word]")).to_have_count(1)
    page.locator("body").press("d")
    playwright.expect(page.locator(".segment.chosen")).to_have_attribute("data-uid", segments[1]["uid"])
    page.keyboard.press("a")
    playwright.expect(counted).to_contain_text("1 doubtful")
    playwright.expect(page.locator("time").first).to_have_text("0:12")  # it goes on to the next one
    page.keyboard.press("a")
    playwright.expect(counted).to_contain_text("No doubt left")
    page.keyboard.press("Control+z")
    playwright.expect(counted).to_contain_text("1 doubtful")


def test_all_is_done_by_keys_alone(context: Any, address: str) -> None:
    page = opened(context, address)
    page.locator("body").press(" ")
    playwright.expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.keyboard.press(" ")
    page.keyboard.press("ArrowDown")
    playwright.expect(page.locator(".segment.chosen")).to_have_count(1)
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.type("typed by keys")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    playwright.expect(page.get_by_text("typed by keys")).to_have_count(0)
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press(">")
    assert page.locator(".speed select").input_value() == "1.25"
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    playwright.expect(page.locator("dialog")).to_have_count(0)
    playwright.expect(page.get_by_text("typed by keys")).to_be_visible()
    names = page.evaluate("""async () => {
        const seen = [];
        for (const one of document.querySelectorAll('button, a, input, select, [tabindex="0"]')) {
            const name = one.getAttribute('aria-label') || one.innerText || one.closest('label')?.innerText || '';
            if (!name.trim()) seen.push(one.outerHTML);
        }
        return seen;
    }""")
    assert names == []
