"""The first view of the page: recordings in, options kept, work that is followed and ended, several saved at once."""

from __future__ import annotations

import json
import re
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from whisper.cli import search
from whisper.jobs.outputs import read_result
from whisper.jobs.store import JobStore

from .browsers import IN_A_BROWSER, opened, playwright, user
from .server.library.keeping import job, keeping
from .server.serving import listening, sound

pytestmark = IN_A_BROWSER


def test_several_recordings_are_saved_at_once(context: Any, address: str, tmp_path: Path) -> None:
    page = opened(context, address)
    page.get_by_label("Back to the library").click()
    files = [{"name": f"{name}.wav", "mimeType": "audio/wav", "buffer": sound(4)} for name in ("one", "two")]
    page.get_by_label("Files").set_input_files(files)
    for name in ("one.wav", "two.wav"):
        row = page.locator(".row", has=page.get_by_role("link", name=name))
        playwright.expect(row.locator(".beginning")).to_be_visible(timeout=60_000)

    def saved(kind: str) -> list[str]:
        page.get_by_role("button", name="Save", exact=True).click()
        if kind == "Clips":
            page.get_by_text("Other formats").click()
        with page.expect_download() as waiting:
            page.get_by_role("button", name=kind).click()
        waiting.value.save_as(tmp_path / "saved.zip")
        page.keyboard.press("Escape")
        return sorted(zipfile.ZipFile(tmp_path / "saved.zip").namelist())

    page.get_by_role("button", name="Select").click()
    playwright.expect(page.get_by_role("button", name="Save", exact=True)).to_be_disabled()
    page.get_by_label("Select one.wav").check()
    page.get_by_label("Select talk.wav").check()
    playwright.expect(page.get_by_role("group", name="Selection")).to_contain_text("2 selected")
    assert saved("Subtitles, SRT") == ["one.srt", "talk.srt"]
    page.get_by_role("button", name="All", exact=True).click()
    assert saved("Text") == ["one.txt", "talk.txt", "two.txt"]
    assert "manifest.tsv" in saved("Clips")
    page.get_by_role("button", name="Done").click()
    playwright.expect(page.locator(".choose")).to_have_count(0)


def test_files_are_dropped_pasted_and_taken_from_folders(context: Any, address: str, tmp_path: Path) -> None:
    page = context.new_page()
    page.goto(address)
    page.get_by_role("button", name="Choose files").wait_for()
    give = """([kind, name, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name, { type: "audio/wav" }));
        const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true })
            : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
        document.querySelector("main").dispatchEvent(event);
    }"""
    audio = list(sound(2))
    page.evaluate(give, ["dragover", "dropped.wav", audio])
    playwright.expect(page.locator(".drop.over")).to_have_count(1)
    page.evaluate(give, ["drop", "dropped.wav", audio])
    playwright.expect(page.get_by_role("link", name="dropped.wav")).to_be_visible(timeout=30_000)
    page.evaluate(give, ["paste", "pasted.wav", audio])
    playwright.expect(page.get_by_role("link", name="pasted.wav")).to_be_visible(timeout=30_000)
    folder = tmp_path / "interviews"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(sound(2))
    page.get_by_label("Folder").set_input_files(folder)
    for name in ("a.wav", "b.wav"):
        playwright.expect(page.get_by_role("link", name=name)).to_be_visible(timeout=30_000)
    playwright.expect(page.get_by_role("button", name="interviews 2")).to_be_visible()


def test_what_is_asked_for_is_remembered(context: Any, address: str) -> None:
    page = context.new_page()
    page.goto(address)
    page.get_by_label("Language").select_option("fr")
    page.get_by_label("Words to listen for").fill("Sotto, Zoë")
    page.get_by_text("More").click()
    page.get_by_label("Translate to English").check()
    page.reload()
    assert page.get_by_label("Language").input_value() == "fr"
    assert page.get_by_label("Words to listen for").input_value() == "Sotto, Zoë"
    with page.expect_request(lambda sent: sent.method == "POST" and sent.url.endswith("/v1/library")) as waiting:
        page.get_by_label("Files").set_input_files({"name": "a.wav", "mimeType": "audio/wav", "buffer": sound(2)})
    asked = waiting.value.response().json()["options"]
    assert asked["language"] == "fr"
    assert asked["hotwords"] == "Sotto, Zoë"
    assert asked["task"] == "translate"


def test_work_is_followed_cancelled_and_tried_again(context: Any, address: str) -> None:
    page = context.new_page()
    page.goto(address)
    page.get_by_label("Files").set_input_files({"name": "a.wav", "mimeType": "audio/wav", "buffer": sound(600)})
    row = page.locator(".row", has=page.get_by_role("link", name="a.wav"))
    row.get_by_role("button", name="Cancel", exact=True).click(timeout=60_000)
    row = page.locator(".row", has_text="a.wav")
    playwright.expect(row).to_contain_text("Cancelled", timeout=30_000)
    held = list[Any]()
    row.get_by_role("button", name="Try again").click()
    page.get_by_role("link", name="a.wav").click(timeout=30_000)
    page.locator(".waiting").wait_for()
    # what the page asks for at the end waits, so that its growth is seen
    page.route("**/v1/library/rec_*", lambda route: held.append(route))
    playwright.expect(page.locator(".growing .segment").nth(2)).to_be_visible(timeout=90_000)
    playwright.expect(page.locator(".waiting")).to_contain_text("of 10 min")
    playwright.expect(page.locator(".waiting")).to_contain_text("left")
    page.unroute("**/v1/library/rec_*")
    for one in held:
        one.continue_()
    page.locator("[data-word]").first.wait_for(timeout=100_000)


def test_the_library_is_used_by_keys_alone(context: Any, address: str) -> None:
    page = opened(context, address)
    page.get_by_label("Back to the library").press("Enter")
    page.get_by_role("link", name="talk.wav").wait_for()

    def go_to(name: str) -> None:
        page.evaluate("document.activeElement.blur()")
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(({ ariaLabel, innerText, outerHTML }) => ariaLabel || innerText || outerHTML)(document.activeElement)"
            )
            if focused.strip() == name:
                return
        raise AssertionError(f"{name} is not reached by Tab")

    go_to("Choose files")
    go_to("Record")
    go_to("Select")
    page.keyboard.press("Enter")
    go_to("Select talk.wav")
    page.keyboard.press(" ")
    go_to("Save")
    page.keyboard.press("Enter")
    page.locator("dialog").wait_for()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Subtitles, SRT").press("Enter")
    assert waiting.value.suggested_filename == "transcripts.zip"
    page.keyboard.press("Escape")
    go_to("Search all that was said")
    page.keyboard.type("zero")
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    go_to("talk.wav")
    page.keyboard.press("Enter")
    page.locator("[data-word]").first.wait_for()
    assert json.loads(page.evaluate("JSON.stringify(location.hash)")).startswith("#/r/rec_")


def test_a_hit_of_a_search_in_a_job_opens_where_it_was_said(
    browser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = job(tmp_path, "talk.wav")
    with closing(JobStore(scene.out)) as store:
        ((_, file),) = store.finished()
        result = read_result(scene.out, file)
    assert result is not None
    segment = result["transcript"]["segments"][2]
    of = keeping(tmp_path, job_folders=[str(scene.out)])
    with listening(of) as at, user(browser) as context:
        assert of.library is not None
        of.library.job_folders.announce(at.replace("127.0.0.1", "localhost"))
        page = context.new_page()
        page.goto(at.replace("127.0.0.1", "localhost"))
        page.get_by_role("link", name="talk.wav").wait_for()  # taken in
        assert search.main([str(scene.out), segment["text"].strip()]) == 0
        page.goto(capsys.readouterr().out.splitlines()[-1].strip())
        text = page.get_by_text(segment["text"].strip())
        text.wait_for()
        slider = page.get_by_role("slider", name="Place in the recording")
        playwright.expect(slider).to_have_attribute("aria-valuenow", re.compile(f"^{segment['start']:g}"))
        page.keyboard.press("Space")
        playwright.expect(page.get_by_role("button", name="Pause")).to_be_visible()
