"""The summary page: what it shows, and that nothing in it is taken for markup."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from whisper.cli import cli
from whisper.errors import AudioError
from whisper.jobs.job import stores
from whisper.jobs.reports.page import page, write_page

from ..fakes import Scene


def fails(source: str) -> None:
    if "bad" in source:
        raise AudioError("<script>alert(1)</script>")


class Balanced(HTMLParser):
    """Counts tags that are opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.add(tag)
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_the_job(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 5)
    scene.add("bad & worse.wav", "bad")
    scene.run(of_worker={"fails": fails})
    opened = stores(scene.out)
    write_page(opened, scene.out / "summary.html")
    opened[0].close()
    text = (scene.out / "summary.html").read_text()
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "script" not in parser.names
    assert "bad &amp; worse.wav" in text
    assert f"<code>whisper jobs retry {scene.out} --kind audio</code>" in text
    assert "<dt>done</dt><dd>5</dd>" in text
    assert "Speed: hours of sound in each hour" in text
    assert '<td dir="auto">en</td>' in text


def test_places_come_by_what_is_at_stake(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 3)
    scene.run()
    opened = stores(scene.out)
    recordings = opened[0].recordings()
    opened[0].close()
    for one, stake in zip(recordings, (1.0, 9.0, 4.0), strict=True):
        one.figures["places"] = [[0.0, 1.0, stake, "a reason", f"text {stake}"]]
    text = "\n".join(page(recordings, str(scene.out)))
    assert text.index("text 9.0") < text.index("text 4.0") < text.index("text 1.0")


def test_recordings_are_links_that_open_at_the_place(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 0)
    for name in ("a/b c#1.wav", "d.wav"):
        scene.add(name, name)
    scene.run()
    opened = stores(scene.out)
    recordings = opened[0].recordings()
    opened[0].close()
    for one in recordings:
        one.figures["places"] = [[75.5, 76.0, 1.0, "a reason", "a text"]]
    text = "\n".join(page(recordings, str(scene.out)))
    assert f'<a href="file://{scene.inputs}/a/b%20c%231.wav#t=75.5">a/b c#1.wav</a></td>' in text
    assert f"at stake, in {scene.inputs}/<" in text
    assert ">01:15</td>" in text
    away = replace(recordings[0], source="s3://bucket/<x>.wav")
    assert ">s3://bucket/&lt;x&gt;.wav</td>" in "\n".join(page([away, recordings[1]], str(scene.out)))


def test_an_empty_job_and_the_command(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.run()
    assert cli(["jobs", "page", str(scene.out)]) == 0
    assert (scene.out / "summary.html").read_text().startswith("<!doctype html>")
