"""A soak of the server: thousands of mixed and hostile requests, after which nothing is left running, held or broken.

Good requests in all formats, streams that are left in the middle, jobs; uploads that are cut, slow, lying, oversized or
no sound at all; bombs, malformed HTTP and forms. No answer is a 500, what is good is answered as before, the memory of
the server and its decoder processes levels off, and no file or row stays behind.
"""

from __future__ import annotations

import gc
import gzip
import io
import os
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import httpx2 as httpx
import numpy as np
import pytest

from .server.serving import TRANSCRIPTIONS, sound, wait_for
from .server.test_run import served

N_CLIENTS = 12
N_REQUESTS = 400  # in CI; the whole soak is `exhaustive`
N_EXHAUSTIVE = 2000
MAX_GROWTH = 64  # megabytes, from a third of the requests to their end
FIELDS = {"model": "whisper-1", "language": "en", "temperature": "[0]", "sample_len": "12"}
BOUNDARY = b"----soak"
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")


def bomb(seconds: int = 3 * 3600) -> bytes:
    """Hours of silence in a few hundred kilobytes of FLAC: longer than the server takes."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 60), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        for _ in range(seconds // 60):
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def form(file: bytes, fields: dict[str, str] = FIELDS, end: bytes = b"--" + BOUNDARY + b"--\r\n") -> bytes:
    """A multipart body, which a hostile client may end as it likes."""
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (BOUNDARY, name.encode(), value.encode())
        for name, value in fields.items()
    ]
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' % BOUNDARY
    return b"".join(parts) + head + file + b"\r\n" + end


class Soak:
    """The requests, by kind; each checks its own answer and returns its status, 0 where the client left."""

    def __init__(self, address: str) -> None:
        self.address = address
        host, port = address.removeprefix("http://").split(":")
        self.host, self.port = host, int(port)
        self.clips = [sound(1.0 + k / 2, start=k / 3) for k in range(4)]
        self.bomb = bomb()
        self.texts: dict[tuple[int, str], str] = {}

    def kinds(self) -> list[Callable[[random.Random], int]]:
        """All kinds of requests; good ones are half of what is sent."""
        hostile = [
            self.leaves_stream, self.leaves_waiting, self.cut_upload, self.slow_upload, self.lying_length,
            self.is_bomb, self.no_sound, self.lying_wav, self.broken_form, self.endless_field, self.unknown_option,
            self.wrong_address, self.no_http, self.huge_header, self.zipped, self.job_deleted,
        ]  # fmt: skip
        return [self.good] * (len(hostile) - 4) + [self.stream] * 2 + [self.job] * 2 + hostile

    def _post(self, file: bytes, **fields: str) -> httpx.Response:
        return httpx.post(self.address + TRANSCRIPTIONS, data={**FIELDS, **fields}, files={"file": file}, timeout=120)

    def _raw(self, data: bytes, *, until: float = 20.0, close: bool = False) -> int:
        """Send bytes on a socket; the status of the answer, 0 where none comes or the client does not wait."""
        with socket.create_connection((self.host, self.port), timeout=until) as connection:
            try:
                connection.sendall(data)
                if close:
                    return 0
                answer = connection.recv(4096)
            except (TimeoutError, ConnectionError):
                return 0
        found = re.match(rb"HTTP/1\.1 (\d+)", answer)
        return int(found[1]) if found else 0

    def _head(
        self, n_bytes: int, kind: bytes = b"multipart/form-data; boundary=" + BOUNDARY, more: bytes = b""
    ) -> bytes:
        return b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n" % (
            TRANSCRIPTIONS.encode(),
            kind,
            n_bytes,
            more,
        )

    def good(self, chance: random.Random) -> int:
        """An ordinary request: the same clip in the same format has the same text each time."""
        k, kind = chance.randrange(len(self.clips)), chance.choice(FORMATS)
        answer = self._post(self.clips[k], response_format=kind)
        assert answer.status_code == 200, answer.text
        text = re.sub(r'"(id|seg_id|processing_ms)":"?[^",]*"?', "", answer.text)
        assert self.texts.setdefault((k, kind), text) == text
        return 200

    def stream(self, chance: random.Random) -> int:
        """A stream, read to its end: its deltas are its text."""
        answer = self._post(self.clips[chance.randrange(len(self.clips))], stream="true")
        assert answer.status_code == 200
        assert '"transcript.text.done"' in answer.text
        return 200

    def job(self, chance: random.Random) -> int:
        """A job, waited for and fetched."""
        made = httpx.post(
            self.address + "/v1/jobs",
            data=FIELDS,
            files={"file": self.clips[chance.randrange(len(self.clips))]},
            timeout=60,
        )
        if made.status_code == 429:
            return 429
        assert made.status_code in (200, 201, 202), made.text
        job = f"{self.address}/v1/jobs/{made.json()['id']}"
        wait_for(lambda: httpx.get(job, timeout=60).json()["status"] not in ("queued", "running"), 120)
        assert httpx.get(job, timeout=60).json()["status"] == "succeeded", httpx.get(job).text
        assert httpx.delete(job, timeout=60).status_code < 300
        return 200

    def job_deleted(self, chance: random.Random) -> int:
        """A job that is deleted before it ends."""
        made = httpx.post(self.address + "/v1/jobs", data=FIELDS, files={"file": sound(60)}, timeout=60)
        if made.status_code == 429:
            return 429
        time.sleep(chance.random() / 5)
        return httpx.delete(f"{self.address}/v1/jobs/{made.json()['id']}", timeout=60).status_code

    def leaves_stream(self, chance: random.Random) -> int:
        """A client that leaves while its text is read."""
        fields = {**FIELDS, "stream": "true"}
        with httpx.stream(
            "POST", self.address + TRANSCRIPTIONS, data=fields, files={"file": sound(120)}, timeout=60
        ) as answer:
            if answer.status_code == 200:
                next(answer.iter_raw())
        return 0

    def leaves_waiting(self, chance: random.Random) -> int:
        """A client that does not wait for the answer."""
        body = form(sound(90))
        with socket.create_connection((self.host, self.port), timeout=20) as connection:
            connection.sendall(self._head(len(body)) + body)
            time.sleep(chance.random() / 3)
        return 0

    def cut_upload(self, chance: random.Random) -> int:
        """A connection that breaks in the middle of the upload."""
        body = form(self.clips[0])
        return self._raw(self._head(len(body)) + body[: chance.randrange(len(body))], close=True)

    def slow_upload(self, chance: random.Random) -> int:
        """Nothing comes for longer than the server waits."""
        body = form(self.clips[0])
        return self._raw(self._head(len(body)) + body[:1000])

    def lying_length(self, chance: random.Random) -> int:
        """A length of gigabytes, of less than there is, or of no number."""
        body = form(self.clips[0])
        head = chance.choice((self._head(5 << 30), self._head(len(body) // 2), self._head(0).replace(b": 0", b": -7")))
        return self._raw(head + body)

    def is_bomb(self, chance: random.Random) -> int:
        """Hours of sound in a small file."""
        status = self._post(self.bomb).status_code
        assert status in (400, 413, 429)
        return status

    def no_sound(self, chance: random.Random) -> int:
        """Random bytes, text, or an empty file."""
        file = chance.choice((chance.randbytes(5000), b"#EXTM3U\nfile:///etc/passwd\n", b"", b"RIFF" + bytes(40)))
        status = self._post(file).status_code
        assert status in (400, 429)
        return status

    def lying_wav(self, chance: random.Random) -> int:
        """A WAV file whose header lies about its size, its channels or its rate."""
        file = bytearray(self.clips[0])
        at = chance.choice((4, 22, 24, 28, 32, 34, 40))
        file[at : at + 4] = chance.randbytes(4)
        return self._post(bytes(file)).status_code

    def broken_form(self, chance: random.Random) -> int:
        """A form that never ends, has no boundary, or ends in the middle of a part."""
        body = form(self.clips[0], end=b"")
        kind = chance.choice((b"multipart/form-data", b"text/plain", b"multipart/form-data; boundary=" + BOUNDARY))
        status = self._raw(self._head(len(body), kind) + body)
        assert status in (400, 415, 429), status
        return status

    def endless_field(self, chance: random.Random) -> int:
        """A field, or many of them, larger than any is."""
        fields = {"prompt": "x" * 200_000} if chance.random() < 0.5 else {f"f{k}": "x" for k in range(1000)}
        status = self._raw(self._head(len(form(b"", fields))) + form(b"", fields))
        assert status in (0, 400, 429)  # it may be refused before all of it is sent
        return status

    def unknown_option(self, chance: random.Random) -> int:
        """An option that does not exist, or has a wrong value."""
        wrong = chance.choice(({"beam_sise": "5"}, {"temperature": "hot"}, {"language": "Klingon"}, {"model": "gpt-9"}))
        status = self._post(self.clips[0], **wrong).status_code
        assert status in (400, 404, 429)
        return status

    def wrong_address(self, chance: random.Random) -> int:
        """An address or a method that is not there."""
        method, path = chance.choice(
            (("GET", TRANSCRIPTIONS), ("PUT", "/v1/jobs"), ("POST", "/v1/chat/completions"), ("GET", "/../etc"))
        )
        status = httpx.request(method, self.address + path, timeout=60).status_code
        assert status in (404, 405)
        return status

    def no_http(self, chance: random.Random) -> int:
        """Bytes that are no HTTP."""
        return self._raw(chance.randbytes(300) + b"\r\n\r\n")

    def huge_header(self, chance: random.Random) -> int:
        """Headers without end."""
        return self._raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 200_000 + b"\r\n\r\n")

    def zipped(self, chance: random.Random) -> int:
        """A compressed body, which would be a bomb where it is unpacked."""
        body = gzip.compress(form(bytes(1_000_000)))
        status = self._raw(self._head(len(body), more=b"Content-Encoding: gzip\r\n") + body)
        assert status in (400, 415, 429), status
        return status


def memory(pid: int) -> float:
    """Megabytes that a process and its children hold, without what they share."""
    pages = [pid, *(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    texts = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in pages if Path(f"/proc/{one}").exists()]
    return sum(float(found[1]) for text in texts if (found := re.search(r"Pss:\s+(\d+)", text))) / 1000


def run_soak(n_requests: int, folder: Path) -> dict[str, Any]:
    """Run it; returns what was seen, of which no part is checked yet."""
    flags = ["--data_dir", str(folder / "data"), "--max_audio_s", "600", "--max_upload_mb", "20"]
    limits = ["--upload_timeout_s", "1", "--max_running", "8", "--max_queue", "64"]
    temporary = folder / "tmp"
    temporary.mkdir()
    with served(*flags, *limits, TMPDIR=str(temporary)) as (process, address, log):
        soak = Soak(address)
        kinds, memories = soak.kinds(), [0.0, 0.0]
        statuses: Counter[str] = Counter()
        before = soak.good(random.Random(0))

        def ask(number: int) -> None:
            chance = random.Random(number)
            kind = chance.choice(kinds)
            statuses[f"{kind.__name__} {kind(chance)}"] += 1

        with ThreadPoolExecutor(N_CLIENTS) as clients:
            for part, numbers in enumerate((range(n_requests // 3), range(n_requests // 3, n_requests))):
                for _ in clients.map(ask, numbers):
                    pass
                wait_for(lambda: idle(address), 60)
                memories[part] = memory(process.pid)
        after = soak.good(random.Random(0))
        metrics = httpx.get(address + "/metrics").text
        library = "sotto-library-"  # which the page has while the server runs
        files = [path for path in temporary.rglob("*") if path.is_file() and library not in str(path)]
        files += (folder / "data").rglob("*.upload")
    return {
        "statuses": statuses,
        "memory": memories,
        "log": log,
        "metrics": metrics,
        "files": files,
        "ends": (before, after),
    }


def idle(address: str) -> bool:
    """Whether nothing waits or runs."""
    text = httpx.get(address + "/metrics", timeout=60).text
    return "sotto_requests_running 0.0" in text and "sotto_requests_waiting 0.0" in text


def check(seen: dict[str, Any]) -> None:
    """Nothing was answered by a 500, nothing grew, and nothing is left."""
    assert not [key for key in seen["statuses"] if key.endswith((" 500", " 502"))], seen["statuses"]
    assert 'status="500"' not in seen["metrics"]
    assert "traceback" not in "".join(seen["log"]), [line for line in seen["log"] if "traceback" in line][:1]
    assert seen["memory"][1] - seen["memory"][0] < MAX_GROWTH, seen["memory"]
    assert seen["files"] == []
    assert seen["ends"] == (200, 200)


pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/smaps_rollup"), reason="memory is read from Linux' /proc"
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_soak_leaves_nothing_behind(tmp_path: Path) -> None:
    check(run_soak(N_REQUESTS, tmp_path))
    gc.collect()


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_a_long_soak_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = run_soak(N_EXHAUSTIVE, tmp_path)
    with capsys.disabled():
        print(
            f"\nmemory {seen['memory']} MB\n"
            + "\n".join(f"{n:5d} {key}" for key, n in sorted(seen["statuses"].items()))
        )
    check(seen)
