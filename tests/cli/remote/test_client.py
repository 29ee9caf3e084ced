"""The command with a server: the files are byte for byte those of the command without one."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.server.serving import listening, server, sound
from whisper.cli.main import build_parser, cli
from whisper.cli.remote import client
from whisper.cli.remote.client import Remote, as_transcript
from whisper.cli.remote.connection import Connection
from whisper.cli.remote.fields import all_fields, as_text
from whisper.errors import OptionError, ServerError
from whisper.options.transcription import options_of_transcribe
from whisper.server.app import Server
from whisper.server.fields import collect
from whisper.server.requests import read_request


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recordings") / "talk.wav"
    path.write_bytes(sound(20))
    return str(path)


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return server(keys=("secret",), data_dir=str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def with_jobs(keeping: Server) -> Iterator[str]:
    with listening(keeping) as at:
        yield at


@pytest.fixture(scope="module")
def without_jobs() -> Iterator[str]:
    with listening(server()) as at:
        yield at


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


WAYS: list[list[str]] = [
    [],
    ["--word_timestamps", "True", "--max_words_per_line", "2", "--temperature", "0", "--language", "English"],
    ["--batch_size", "2", "--temperature_increment_on_fallback", "None", "--logprob_threshold", "None"],
    ["--audit", "True", "--vad_parameters", "threshold=0.6", "--initial_prompt", "[music] two", "--verbose", "False"],
]


@pytest.mark.parametrize("flags", WAYS)
def test_the_files_are_those_of_the_command_without_a_server(
    flags: list[str], recording: str, with_jobs: str, without_jobs: str, tmp_path: Path, capfd: Any
) -> None:
    printed = []
    for name, more in (
        ("here", ["--model", "nano", "--device", "cpu"]),
        ("jobs", ["--server", with_jobs, "--server_key", "secret"]),
        ("waiting", ["--server", f"{without_jobs}/v1/", "--model", "whisper-1"]),
    ):
        assert cli([recording, "-o", str(tmp_path / name), *flags, *more]) == 0
        printed.append([line for line in capfd.readouterr().out.splitlines() if line.startswith("[")])
    assert len(files(tmp_path / "here")) == 5
    assert files(tmp_path / "jobs") == files(tmp_path / "here") == files(tmp_path / "waiting")
    assert printed[0] == printed[1] == printed[2]
    assert bool(printed[0]) == ("--verbose" not in flags)


def test_nothing_stays_on_the_server(keeping: Server, with_jobs: str, recording: str, tmp_path: Path) -> None:
    assert cli([recording, "-o", str(tmp_path), "--server", with_jobs, "--server_key", "secret"]) == 0
    assert keeping.jobs is not None
    assert not keeping.jobs.store.page("", 9)
    assert keeping.jobs.store._db.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_every_option_arrives_as_it_was_given() -> None:
    given = vars(build_parser().parse_args(["a.wav"]))
    options = {
        **{f.name: given.get(f.name, f.default) for f in options_of_transcribe()},
        "temperature": (0.0, 0.4), "beam_size": 5, "patience": 1.5, "suppress_tokens": "1,2", "audit": True,
        "languages": ["en", "de"], "hotwords": ("Sotto", "base"), "clip_timestamps": "1,2.5", "seed": 3,
        "compression_ratio_threshold": None, "vad_parameters": "threshold=0.5", "channels": "separate", "verbose": True,
    }  # fmt: skip
    read = read_request(collect([("model", "m"), *all_fields(options)]), translates=False).options
    sent = {f.name for f in options_of_transcribe() if options[f.name] != f.default} - {"verbose"}
    assert set(read) == sent
    for name in sent:
        given_list, read_list = (isinstance(value, (list, tuple)) for value in (options[name], read[name]))
        assert given_list == read_list
        assert list(read[name]) == list(options[name]) if given_list else read[name] == options[name]


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (True, "true"), ((0.0, 0.2), "[0.0, 0.2]"), ({"a": 1}, "a=1"), (1.5, "1.5")]
)
def test_values_as_text(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    "flags", [["--device", "cuda"], ["--threads", "3"], ["--report", "True"], ["--model_dir", "x"]]
)
def test_options_for_this_machine_are_refused(flags: list[str], recording: str, tmp_path: Path, capsys: Any) -> None:
    assert cli([recording, "-o", str(tmp_path), "--server", "http://127.0.0.1:1", *flags]) == 1
    assert flags[0] in capsys.readouterr().err


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://", "http://a:b", "http://u:p@a"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(OptionError, match="--server"):
        Connection(url)


def test_a_server_that_is_not_there(recording: str, tmp_path: Path, capsys: Any) -> None:
    assert cli([recording, "-o", str(tmp_path), "--server", "http://127.0.0.1:1"]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_errors_of_the_server_are_told(with_jobs: str, recording: str, tmp_path: Path, capsys: Any) -> None:
    assert cli([recording, "-o", str(tmp_path), "--server", with_jobs, "--server_key", "wrong"]) == 1
    assert "no API key, or a wrong one" in capsys.readouterr().err
    key = ["--server_key", "secret"]
    (tmp_path / "noise.txt").write_bytes(b"no sound at all")
    paths = [str(tmp_path / "noise.txt"), recording]
    assert cli([*paths, "-o", str(tmp_path), "--server", with_jobs, *key]) == 1
    err = capsys.readouterr().err
    assert "noise.txt" in err
    assert "1 of 2 recordings transcribed" in err
    assert cli([recording, "-o", str(tmp_path), "--server", with_jobs, "--model", "large", *key]) == 1
    assert "there is no model 'large'" in capsys.readouterr().err


class Cutting:
    """Stands between a client and its server: cuts each stream of events after one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_cuts, events = 0, Connection.events

        def cut(connection: Connection, path: str, last: str) -> Iterator[tuple[str, Any]]:
            for event in events(connection, path, last):
                yield event
                self.n_cuts += 1
                raise ConnectionResetError("cut")

        monkeypatch.setattr(Connection, "events", cut)
        monkeypatch.setattr(client, "sleep", lambda seconds: None)


def test_a_connection_that_is_cut_loses_nothing(
    with_jobs: str, recording: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    flags = [recording, "--server", with_jobs, "--server_key", "secret"]
    assert cli([*flags, "-o", str(tmp_path / "whole")]) == 0
    whole = capfd.readouterr().out
    cutting = Cutting(monkeypatch)
    assert cli([*flags, "-o", str(tmp_path / "cut")]) == 0
    assert cutting.n_cuts > 3
    assert capfd.readouterr().out == whole
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


# ---------------------------------------------------------------------------------------------------------
# Another server with OpenAI's API
# ---------------------------------------------------------------------------------------------------------


class Foreign(BaseHTTPRequestHandler):
    """Answers as OpenAI does; first it is busy."""

    seen: dict[str, list[bytes]]
    n_busy: int

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._answer(200, {"data": [{"id": "other"}]})
        else:
            self._answer(404, {"error": {"message": "nothing here"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).seen.setdefault(self.path, []).append(body)
        if type(self).n_busy:
            type(self).n_busy -= 1
            self._answer(429, {"error": {"message": "busy", "code": "rate"}}, {"retry-after": "1"})
            return
        self._answer(200, {
            "text": "one two", "language": "english", "duration": 2.0,
            "segments": [
                {"id": 0, "start": 0.0, "end": 1.0, "text": " one"},
                {"id": 1, "start": 1.0, "end": 2.0, "text": " two"},
            ],
            "words": [{"word": "one", "start": 0.1, "end": 0.9}, {"word": "two", "start": 1.1, "end": 1.9}],
        })  # fmt: skip

    def _answer(self, status: int, body: Any, headers: Any = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def foreign(n_busy: int = 0) -> Iterator[str]:
    Foreign.seen, Foreign.n_busy = {}, n_busy
    http = ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def test_another_server(recording: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(client, "sleep", waits.append)
    with foreign(n_busy=2) as url:
        flags = ["--word_timestamps", "True", "--language", "en", "-f", "srt", "--max_words_per_line", "1"]
        assert cli([recording, "-o", str(tmp_path), "--server", url, *flags]) == 0
        (sent, *again) = Foreign.seen["/v1/audio/transcriptions"]
    assert len(again) == 2
    assert waits == [1.0, 1.0]
    for part in (b'name="model"\r\n\r\nother', b'name="language"\r\n\r\nen', b'granularities[]"\r\n\r\nword'):
        assert part in sent
    assert b"beam_size" not in sent
    text = (tmp_path / "talk.srt").read_text()
    assert text == "1\n00:00:00,100 --> 00:00:00,900\none\n\n2\n00:00:01,100 --> 00:00:01,900\ntwo\n\n"


def test_another_server_does_not_know_our_options(recording: str, tmp_path: Path, capsys: Any) -> None:
    with foreign() as url:
        assert cli([recording, "-o", str(tmp_path), "--server", url, "--audit", "True"]) == 1
    assert "--audit" in capsys.readouterr().err


def test_what_another_server_says_becomes_a_transcript() -> None:
    answer = {"text": "a", "language": "Klingon", "segments": None}
    assert as_transcript(answer) == {"text": "a", "language": "Klingon", "segments": []}


def test_a_web_page_is_no_server() -> None:
    class Page(Foreign):
        def do_GET(self) -> None:
            self._answer(200, "<html>")

    http = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        with pytest.raises(ServerError, match="does not list its models"):
            Remote(f"http://127.0.0.1:{http.server_address[1]}", None, None, {}, ())
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
