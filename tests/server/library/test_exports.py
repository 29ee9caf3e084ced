"""Documents as files: the formats of the program, tables, and a page to share."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import av
import pytest

from whisper.output.writers import FURTHER
from whisper.server.library.exports import as_csv, attachment, formats, with_names, written
from whisper.subtitles.formats.names import EXTENSIONS

from ..serving import error_of, sound
from .keeping import LIBRARY, added, client, keeping

EVIL = "</script><img src=x onerror=alert(1)>\u2028"


def document(**speakers: str) -> dict[str, Any]:
    words = [{"word": " Hello", "start": 0.0, "end": 0.5}, {"word": " there.", "start": 0.5, "end": 1.0}]
    first = {"uid": "s0", "start": 0.0, "end": 1.0, "text": " Hello there.", "words": words}
    other = {**first, "uid": "s1", "start": 1.0, "end": 2.0}
    empty = {**first, "uid": "s2", "text": "", "words": []}
    if speakers:
        first, other = {**first, "speaker": "0"}, {**other, "speaker": "1"}
    return {"language": "en", "segments": [first, other, empty], "speakers": speakers, "findings": [], "speech": None}


def test_names_stand_where_a_speaker_begins() -> None:
    named = document(**{"0": "Ann", "1": "Bo"})
    assert written("txt", named, {}) == "Ann: Hello there.\nBo: Hello there.\n"
    assert written("srt", named, {}).startswith("1\n00:00:00,000 --> 00:00:01,000\nAnn: Hello there.\n")
    assert written("txt", document(), {}) == "Hello there.\nHello there.\n"
    assert "words" in next(iter(with_names(document())))


def test_a_table_has_no_formulas() -> None:
    evil = document(**{"0": "=cmd()", "1": "Bo"})
    evil["segments"][1]["text"] = " +1 is\nmore"
    rows = list(csv.reader(io.StringIO(as_csv(evil).removeprefix("\ufeff"))))
    assert rows[1] == ["0.000", "1.000", "'=cmd()", "Hello there."]
    assert rows[2][3] == "'+1 is\nmore"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a talk.mp3", "a%20talk.srt"), ("../../etc/passwd", "_.._etc_passwd.srt"),
     ("x\r\nset-cookie: a", "x__set-cookie_%20a.srt"), ("...", "transcript.srt"), ("Zoë", "Zo%C3%AB.srt")],
)  # fmt: skip
def test_names_of_files_are_harmless(name: str, expected: str) -> None:
    assert attachment(name, "srt") == f"attachment; filename*=UTF-8''{expected}"


def test_every_format_is_given(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording = added(one, sound(6))
        path = f"{LIBRARY}/{recording['id']}/export"
        assert {"ass", "docx", "ttml", "textgrid"} < set(formats())
        assert len(set(formats())) == len(formats())
        for name in formats():
            answer = one.get(path, params={"format": name})
            assert answer.status_code == 200, (name, answer.text)
            extension = EXTENSIONS[name] if name in FURTHER else name
            assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''a.{extension}"
            assert answer.content
        assert one.get(path, params={"format": "json"}).json() == recording["document"]
        narrow = one.get(path, params={"format": "srt", "max_line_width": "10", "max_line_count": "1"}).text
        assert all(len(line) <= 12 or "-->" in line for line in narrow.splitlines())
        assert error_of(one.get(path, params={"format": "exe"}))["param"] == "format"


def test_a_page_to_share_holds_all_and_trusts_nothing(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as one:
        recording = added(one, sound(6), name=EVIL)
        path = f"{LIBRARY}/{recording['id']}"
        first = recording["document"]["segments"][0]
        splice = {"after": None, "remove": [first["uid"]], "insert": [{**first, "text": EVIL, "words": []}]}
        assert one.patch(path, json={"version": 1, "splices": [splice], "speakers": {"0": EVIL}}).status_code == 200
        page = one.get(f"{path}/export", params={"format": "html"}).text
        assert page.count("<img") == 0
        assert page.count("</script>") == 2
        data = re.search(r'id="transcript">(.*?)</script>', page, re.DOTALL)
        assert data is not None
        assert json.loads(data[1])["segments"][0]["text"] == EVIL
        assert not re.search(r"(src|href)=\"(?!data:)", page)
        kind, encoded = re.findall(r'src="data:([^;]+);base64,([^"]+)"', page)[0]
        assert kind == "audio/mp4"
        with av.open(io.BytesIO(base64.b64decode(encoded))) as container:
            assert container.duration is not None
            assert container.duration / 1e6 == pytest.approx(6.0, abs=0.2)
