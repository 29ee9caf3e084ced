"""Text tracks in videos: times, languages, what was there before, and no byte of picture or sound changed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from whisper.errors import AudioError, OptionError
from whisper.media.text_tracks import TextTrack, embed, formats_of

from ..containers import Track, container

SECONDS = 6
TONE = (np.sin(np.arange(16000 * SECONDS) / 20) * 9000).astype(np.int16)[None]
SRT = "1\n00:00:00,500 --> 00:00:02,000\nHello\n<i>you</i>\n\n2\n00:00:03,000 --> 00:00:04,000\nÜber <\u2060b>\n\n"
VTT = "WEBVTT\n\n00:00.500 --> 00:02.000\nHello\n\n"
ASS = (
    "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,60\n\n"
    "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    "Dialogue: 0,0:00:00.50,0:00:02.00,Default,Ann,0,0,0,,{\\k50}Hello{\\k100} you\n"
)
ENGLISH = TextTrack(SRT, "srt", "eng", "English")


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., Path]:
    def write(ending: str = ".mkv", **options: Any) -> Path:
        path = tmp_path / f"film{ending}"
        codec = "aac" if ending in (".mp4", ".mov") else "flac"
        format = {".mkv": "matroska", ".mp4": "mp4", ".mov": "mov", ".ts": "mpegts"}[ending]
        tracks = [
            Track([(0.0, TONE)], codec="mp2" if ending == ".ts" else codec, language="fre", title="French"),
            Track([(0.0, TONE)], codec="mp2" if ending == ".ts" else codec, language="ger", is_default=True),
        ]
        path.write_bytes(container(format, *tracks, picture=float(SECONDS), **options))
        return path

    return write


def contents(path: Path) -> list[tuple[str, list[tuple[float, bytes]]]]:
    """The packets of picture and sound, each with its time."""
    with av.open(str(path)) as opened:
        found: dict[int, list[tuple[float, bytes]]] = {s.index: [] for s in opened.streams if s.type != "subtitle"}
        kinds = {s.index: s.type for s in opened.streams}
        for packet in opened.demux():
            if packet.size and packet.stream.index in found:
                found[packet.stream.index].append((round(float(packet.pts * packet.time_base), 3), bytes(packet)))
    return [(kinds[i], packets) for i, packets in found.items()]


def texts(path: Path, number: int = 0) -> list[tuple[float, float, str]]:
    with av.open(str(path)) as opened:
        stream = opened.streams.subtitles[number]
        is_mp4 = stream.codec_context.name == "mov_text"
        return [
            (float(p.pts * p.time_base), float((p.pts + p.duration) * p.time_base), bytes(p)[2 * is_mp4 :].decode())
            for p in opened.demux(stream)
            if p.size > 2
        ]


@pytest.mark.parametrize(("ending", "codec"), [(".mkv", "srt"), (".mp4", "mov_text"), (".mov", "mov_text")])
def test_a_track_is_added_and_nothing_else_changes(
    ending: str, codec: str, video: Callable[..., Path], tmp_path: Path
) -> None:
    source, target = video(ending), tmp_path / f"out{ending}"
    before = source.read_bytes()
    embed(source, target, [ENGLISH])
    assert contents(target) == contents(source)
    assert source.read_bytes() == before
    last = "Über <b>" if ending != ".mkv" else "Über <\u2060b>"
    assert texts(target) == [(0.5, 2.0, "Hello\n<i>you</i>"), (3.0, 4.0, last)]
    with av.open(str(target)) as opened:
        assert opened.streams.subtitles[0].codec_context.name == codec
        if ending != ".mov":  # has numbers for languages, not names
            assert [s.metadata["language"] for s in opened.streams if s.type != "video"] == ["fre", "ger", "eng"]
        assert [s.disposition & 1 for s in opened.streams.audio] == [0, 1]
        assert opened.streams.subtitles[0].disposition & 1
        name = "title" if ending == ".mkv" else "name"
        if ending != ".mov":
            assert opened.streams.audio[0].metadata[name] == "French"
            assert opened.streams.subtitles[0].metadata[name] == "English"
    assert sorted(os.listdir(tmp_path)) == sorted([source.name, target.name])


def test_tracks_that_were_there_stay_and_only_one_is_shown(video: Callable[..., Path], tmp_path: Path) -> None:
    first, second = tmp_path / "first.mkv", tmp_path / "second.mkv"
    embed(video(), first, [ENGLISH, TextTrack(ASS, "ass", "deu")])
    embed(first, second, [TextTrack(VTT, "webvtt", "", "third")])
    with av.open(str(second)) as opened:
        streams = opened.streams.subtitles
        assert [s.codec_context.name for s in streams] == ["srt", "ssa", "webvtt"]
        assert [s.metadata.get("language", "und") for s in streams] == ["eng", "deu", "und"]
        assert [bool(s.disposition & 1) for s in streams] == [True, False, False]
        assert b"Style: Default,Arial,60" in bytes(streams[1].codec_context.extradata or b"")
    assert texts(second) == texts(first)
    assert "{\\k50}Hello{\\k100} you" in texts(second, 1)[0][2]


def test_another_container_and_a_late_start(video: Callable[..., Path], tmp_path: Path) -> None:
    """Texts count from where the first track begins, which need not be zero."""
    source, target = video(".ts"), tmp_path / "out.mkv"
    embed(source, target, [ENGLISH])
    assert [text[0] for text in texts(target)] == [0.5, 3.0]
    source.write_bytes(container("matroska", Track([(2.0, TONE)])))
    embed(source, target, [ENGLISH])
    with av.open(str(target)) as opened:
        begins = {
            s.type: float(next(opened.demux(s)).pts * s.time_base) for s in opened.streams if s.type != "subtitle"
        }
    with av.open(str(source)) as opened:
        assert opened.start_time
    assert [round(text[0] - min(begins.values()), 1) for text in texts(target)] == [0.5, 3.0]


def test_chapters_tags_and_attachments_are_kept(tmp_path: Path) -> None:
    source, target = tmp_path / "a.mkv", tmp_path / "b.mkv"
    file = io.BytesIO(container("matroska", Track([(0.0, TONE)]), picture=6.0))
    with av.open(file) as opened, av.open(str(source), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in opened.streams}
        out.add_attachment("font.ttf", "font/ttf", b"not a font")
        out.metadata["title"] = "A film"
        half = {"id": 1, "start": 0, "end": 3000, "time_base": Fraction(1, 1000)}
        out.set_chapters([{**half, "metadata": {"title": "One"}}])
        for packet in opened.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    embed(source, target, [ENGLISH])
    with av.open(str(target)) as opened:
        assert opened.metadata["title"] == "A film"
        assert [c["metadata"]["title"] for c in opened.chapters()] == ["One"]
        (attached,) = [s for s in opened.streams if s.type == "attachment"]
        assert (attached.metadata["filename"], attached.metadata["mimetype"]) == ("font.ttf", "font/ttf")


def test_a_film_that_is_turned_stays_so(video: Callable[..., Path], tmp_path: Path) -> None:
    """The matrix of a telephone's upright film, in the header of the track."""
    source, target = video(".mp4"), tmp_path / "out.mp4"
    data = source.read_bytes()
    one, zero = (0x10000).to_bytes(4, "big"), bytes(4)
    upright = one + zero * 3 + one + zero * 3 + (0x40000000).to_bytes(4, "big")
    turned = zero + one + zero + (0xFFFF0000).to_bytes(4, "big") + zero * 4 + (0x40000000).to_bytes(4, "big")
    at = data.index(upright, data.index(b"tkhd"))
    source.write_bytes(data[:at] + turned + data[at + len(turned) :])
    embed(source, target, [ENGLISH])
    assert turned in target.read_bytes()


@pytest.mark.parametrize(
    ("track", "ending", "error", "message"),
    [
        (TextTrack(ASS, "ass"), ".mp4", OptionError, "mp4 holds text as srt, not as ass"),
        (ENGLISH, ".avi", OptionError, "names no container with text tracks"),
        (TextTrack("WEBVTT\n\n", "webvtt"), ".mkv", OptionError, "no text"),
        (ENGLISH, ".webm", AudioError, "a track of video cannot be copied"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    track: TextTrack, ending: str, error: type[Exception], message: str, video: Callable[..., Path], tmp_path: Path
) -> None:
    source = video()
    track = TextTrack(VTT, "webvtt") if ending == ".webm" else track
    with pytest.raises(error, match=message):
        embed(source, tmp_path / f"out{ending}", [track])
    assert os.listdir(tmp_path) == [source.name]


def test_the_video_is_never_written_over(video: Callable[..., Path], tmp_path: Path) -> None:
    source = video()
    os.symlink(source, tmp_path / "link.mkv")
    for target in (source, tmp_path / "link.mkv"):
        with pytest.raises(OptionError, match="is the video itself"):
            embed(source, target, [ENGLISH])
    for name, content in (("none.mkv", None), ("text.mkv", b"no video")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError, match=name):
            embed(tmp_path / name, tmp_path / "out.mkv", [ENGLISH])


def test_formats_by_the_name_of_the_video() -> None:
    assert formats_of("a.MP4") == ("srt",)
    assert formats_of("a.mkv")[0] == "srt"
    assert formats_of("a.webm") == ("webvtt",)
