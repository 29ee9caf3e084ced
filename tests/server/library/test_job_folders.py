"""The results of `whisper jobs` in the library: taken in once, kept when corrected, heard, and found by a search."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import Scene, transcript_of
from whisper.cli import search
from whisper.errors import OptionError
from whisper.jobs import shown
from whisper.jobs.outputs import read_result
from whisper.jobs.store import JobStore
from whisper.server.app import Server

from ..serving import error_of, server, sound, wait_for
from .keeping import LIBRARY, client, job, keeping


def showing(folder: Path, scene: Scene, **settings: Any) -> Server:
    return keeping(folder, job_folders=[str(scene.out)], **settings)


def listed(one: Any, n: int) -> list[Any]:
    """The recordings, once there are so many."""
    wait_for(lambda: len(one.get(LIBRARY).json()["data"]) >= n)
    found: list[Any] = one.get(LIBRARY).json()["data"]
    assert len(found) == n
    return found


def test_results_of_jobs_are_documents(tmp_path: Path) -> None:
    scene = job(tmp_path, "a.wav", "deep/b.wav")
    with client(showing(tmp_path, scene)) as one:
        first, second = sorted(listed(one, 2), key=lambda recording: recording["name"])
        assert (first["name"], first["status"], first["tags"]) == ("a.wav", "done", ["out"])
        assert sorted(second["tags"]) == ["deep", "out"]
        assert first["id"] == shown.recording_id(scene.out, str(scene.inputs / "a.wav"))
        document = one.get(f"{LIBRARY}/{first['id']}").json()["document"]
        with closing(JobStore(scene.out)) as store:
            result = next(read_result(scene.out, file) for r, file in store.finished() if r.source.endswith("a.wav"))
        assert result is not None
        assert [s["text"] for s in document["segments"]] == [s["text"] for s in result["transcript"]["segments"]]
        word = document["segments"][1]["text"].split()[0]
        hits = one.get(f"{LIBRARY}/search", params={"q": word}).json()["data"]
        assert [(hit["recording"], hit["start"]) for hit in hits] == [(first["id"], 1.0)]
        assert one.get(f"{LIBRARY}/{first['id']}/export", params={"format": "srt"}).text.count("-->") == 3


def test_their_sound_stays_where_it_is_and_is_heard(tmp_path: Path) -> None:
    scene = job(tmp_path, "a.wav")
    source = scene.inputs / "a.wav"
    of = showing(tmp_path, scene)
    with client(of) as one:
        (recording,) = listed(one, 1)
        path = f"{LIBRARY}/{recording['id']}"
        assert one.get(f"{path}/sound").content == source.read_bytes()
        assert any(one.get(f"{path}/peaks", params={"start": 0, "end": 4, "n": 50}).content)
        assert len(one.get(f"{path}/sound", params={"copy": "true"}).content) == 44 + 2 * 4 * 16000
        assert one.get(f"{path}/export", params={"format": "html"}).status_code == 200
        assert one.delete(path).status_code == 200
    assert source.exists()
    assert not list((tmp_path / "library" / "sounds").iterdir())


def test_a_recording_that_is_gone_is_still_read(tmp_path: Path) -> None:
    scene = job(tmp_path, "a.wav")
    (scene.inputs / "a.wav").unlink()
    with client(showing(tmp_path, scene)) as one:
        (recording,) = listed(one, 1)
        path = f"{LIBRARY}/{recording['id']}"
        for asked in ("sound", "sound?copy=true", "peaks?end=1", "export?format=html"):
            answer = one.get(f"{path}/{asked}")
            assert (answer.status_code, error_of(answer)["code"]) in ((409, "not_decoded"), (409, "sound_lost"))
        assert one.get(f"{path}/export", params={"format": "txt"}).status_code == 200


def test_only_what_nobody_corrected_is_replaced(tmp_path: Path) -> None:
    scene = job(tmp_path, "a.wav", "b.wav", "c.wav")
    of = showing(tmp_path, scene)
    with client(of) as one:
        by_name = {recording["name"]: recording for recording in listed(one, 3)}
        document = one.get(f"{LIBRARY}/{by_name['a.wav']['id']}").json()["document"]
        mended = {**document["segments"][0], "text": " Mended.", "words": []}
        splice = {"after": None, "remove": [mended["uid"]], "insert": [mended]}
        changed = one.patch(f"{LIBRARY}/{by_name['a.wav']['id']}", json={"version": 1, "splices": [splice]})
        assert changed.status_code == 200
        one.delete(f"{LIBRARY}/{by_name['c.wav']['id']}")
    with client(showing(tmp_path, scene)) as one:  # nothing comes twice, nor back
        before = {recording["name"]: recording["version"] for recording in listed(one, 2)}
        assert before == {"a.wav": 2, "b.wav": 1}
        for name in ("a.wav", "b.wav"):
            (scene.inputs / name).write_bytes(sound(4, start=5))
        scene.run()
        expected = transcript_of(scene_content(scene, "b.wav"))["segments"][0]["text"]

        def first_text(name: str) -> str:
            text: str = one.get(f"{LIBRARY}/{by_name[name]['id']}").json()["document"]["segments"][0]["text"]
            return text

        wait_for(lambda: first_text("b.wav") == expected)
        assert first_text("a.wav") == " Mended."


def scene_content(scene: Scene, name: str) -> str:
    with closing(JobStore(scene.out)) as store:
        return next(r.content or "" for r in store.recordings() if r.source.endswith(name))


def test_a_search_tells_where_its_hits_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = job(tmp_path, "a.wav")
    of = showing(tmp_path, scene)
    word = transcript_of(scene_content(scene, "a.wav"))["segments"][2]["text"].split()[0]
    with client(of) as one:
        (recording,) = listed(one, 1)
        assert search.main([str(scene.out), word]) == 0
        assert "http" not in capsys.readouterr().out
        assert of.library is not None
        with socket.create_server(("127.0.0.1", 0)) as listening:  # as the server's own port
            address = of.options.page_address(listening.getsockname()[1])
            of.library.job_folders.announce(address)
            assert search.main([str(scene.out), word]) == 0
            expected = f"{address}/#/r/{recording['id']}?t=2.00"
            assert capsys.readouterr().out.splitlines()[-1].strip() == expected
            assert search.main([str(scene.out), word, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["page"] == expected
        assert search.main([str(scene.out), word]) == 0  # nobody answers there any more
        assert "http" not in capsys.readouterr().out
    assert not (scene.out / ".sotto" / "page.json").exists()


def test_what_cannot_be_shown_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"job_folders: .*no job"):
        keeping(tmp_path, job_folders=[str(tmp_path)])
    scene = job(tmp_path, "a.wav")
    with pytest.raises(OptionError, match="keys"):
        server(job_folders=[str(scene.out)], keys=("key",))
    with pytest.raises(OptionError, match="page=False"):
        server(job_folders=[str(scene.out)], page=False)


def test_a_job_that_runs_is_followed(tmp_path: Path) -> None:
    scene = job(tmp_path, "a.wav")
    with client(showing(tmp_path, scene)) as one:
        listed(one, 1)
        (scene.inputs / "b.wav").write_bytes(sound(4, start=5))
        scene.run()
        listed(one, 2)
