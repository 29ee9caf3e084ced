"""Jobs on an object store, from end to end: moto's server on loopback in the place of S3."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from whisper.cli import cli
from whisper.jobs import remote
from whisper.jobs.inputs import find
from whisper.jobs.store import JobStore

from .jobs.sounds import FLAGS, talking_model, write_wav

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
fsspec = pytest.importorskip("fsspec")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of other packages: the event loop of s3fs, botocore's clock
]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket with recordings and other things."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (("AWS_ENDPOINT_URL", f"http://{host}:{port}"), ("AWS_ACCESS_KEY_ID", "any"),
                        ("AWS_SECRET_ACCESS_KEY", "any"), ("AWS_DEFAULT_REGION", "us-east-1")):  # fmt: skip
        monkeypatch.setenv(name, value)
    # what servers of one process hold is one thing
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("archive")
    for i, name in enumerate(("a.wav", "deep/er/b.wav", "c.wav")):
        system.pipe(f"archive/talks/{name}", write_wav(tmp_path / "x.wav", 1 + i, i).read_bytes())
    system.pipe("archive/talks/notes.txt", b"no recording")
    system.pipe("archive/talks/bad.mp3", b"<html>404</html>")
    yield system
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


def run(out: Path, model: str, *arguments: str) -> int:
    return cli(["jobs", "run", *arguments, "--out", str(out), "--model", model, *FLAGS, "-f", "txt", "--threads", "1"])


def states(out: Path) -> dict[str, str]:
    store = JobStore(out)
    try:
        return {one.source: one.state for one in store.recordings()}
    finally:
        store.close()


def test_folders_globs_and_objects(bucket: Any) -> None:
    names = lambda address: sorted(one.name for one in find([address], "out"))  # noqa: E731
    assert names("s3://archive/talks") == ["a", "bad", "c", "deep/er/b"]
    assert names("s3://archive/**/*.wav") == ["talks/a", "talks/c", "talks/deep/er/b"]
    (one,) = find(["s3://archive/talks/c.wav"], "out")
    assert (one.name, one.source) == ("c", "s3://archive/talks/c.wav")
    assert one.stamp == remote.stamp_of("s3://archive/talks/c.wav")
    (gone,) = find(["s3://archive/talks/none.wav"], "out")
    assert gone.stamp is None


def test_a_job_on_a_bucket_goes_on_and_notices_what_changed(bucket: Any, tmp_path: Path) -> None:
    model, out = talking_model(tmp_path), tmp_path / "out"
    assert run(out, model, "s3://archive/talks") == 1
    assert states(out) == {
        "s3://archive/talks/a.wav": "done", "s3://archive/talks/bad.mp3": "failed",
        "s3://archive/talks/c.wav": "done", "s3://archive/talks/deep/er/b.wav": "done",
    }  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.txt")}
    assert sorted(str(path.relative_to(out)) for path in before) == ["a.txt", "c.txt", "deep/er/b.txt"]
    bucket.pipe("archive/talks/a.wav", write_wav(tmp_path / "x.wav", 2, 9).read_bytes())
    bucket.pipe("archive/talks/new.wav", write_wav(tmp_path / "x.wav", 1, 10).read_bytes())
    bucket.rm("archive/talks/bad.mp3")
    fsspec.filesystem("s3").invalidate_cache()
    assert run(out, model) == 1  # the same inputs, from what the job knows
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.txt")}
    assert sorted(path.name for path in after if after[path] != before.get(path)) == ["a.txt", "new.txt"]


def test_a_manifest_in_a_bucket_and_one_here(bucket: Any, tmp_path: Path) -> None:
    bucket.pipe("archive/talks/list.tsv", b"file\tlanguage\tstart\tend\na.wav\tde\t0.2\t0.8\ndeep/er/b.wav\tfr\t\t\n")
    model, out = talking_model(tmp_path), tmp_path / "out"
    (tmp_path / "here.csv").write_text("file,priority\ns3://archive/talks/c.wav,5\ns3://archive/talks/none.wav,1\n")
    assert run(out, model, "s3://archive/talks/list.tsv", str(tmp_path / "here.csv")) == 1
    store = JobStore(out)
    found = {one.name: (one.state, one.kind, json.loads(one.overrides), one.priority) for one in store.recordings()}
    store.close()
    assert found == {
        "a.0.20-0.80": ("done", None, {"language": "de", "clip_timestamps": [0.2, 0.8]}, 0),
        "deep/er/b": ("done", None, {"language": "fr"}, 0),
        "c": ("done", None, {}, 5),
        "none": ("failed", "missing", {}, 1),
    }
