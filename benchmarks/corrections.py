"""What a user's corrections are worth: transcripts mended in the library, a model trained on them, and its word errors.

Recordings of some speakers go through a server's library as the page sends them. Each text that is wrong is mended as a
person would: words that are right stay as they were written, wrong ones are replaced by those of the reference. The
manifest that the library gives out is trained on; both models then read speakers that were not trained on.

    python benchmarks/corrections.py collect --data DATA --speakers 80 --clips 4 --folder corrections
    whisper train corrections/manifest --model tiny.en --output corrections/own
    python benchmarks/corrections.py held-out --data DATA --folder corrections
    whisper eval corrections/held-out.tsv --model tiny.en --model corrections/own/model.pt --beam_size None

DATA is a folder with ``manifest.tsv`` (columns file, transcript, language, speaker).
"""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import json
import random
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

from whisper.normalizers import EnglishTextNormalizer

Clip = dict[str, str]
TAG = "corrected"
FAST = {"temperature": "[0]", "audio_context": "auto"}  # what is heard wrong is mended anyway
normalize = EnglishTextNormalizer()


def clips_of(data: Path, group: str) -> dict[str, list[Clip]]:
    """Clips of each speaker, in an order drawn by a fixed seed."""
    with (data / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        clips = [row for row in rows if row["file"].startswith(f"{group}/")]
    random.Random(1).shuffle(clips)
    speakers: dict[str, list[Clip]] = {}
    for clip in clips:
        speakers.setdefault(clip["speaker"], []).append(clip)
    return speakers


def chosen(data: Path, group: str, speakers: int, n_clips: int) -> tuple[list[Clip], list[Clip]]:
    """Clips to correct; and clips of all other speakers, whose sentences are not among the first."""
    of = clips_of(data, group)
    names = sorted(of)
    random.Random(2).shuffle(names)
    corrected = [clip for name in names[:speakers] for clip in of[name][:n_clips]]
    said = {clip["transcript"] for clip in corrected}
    others = [clip for name in names[speakers:] for clip in of[name] if clip["transcript"] not in said]
    return corrected, others


def mended(heard: str, reference: str) -> str:
    """The text as a person leaves it who hears `reference`: what is right stays as it is written."""
    if normalize(heard) == normalize(reference):
        return heard
    before, after = heard.split(), reference.lower().split()
    plain = [normalize(word) for word in before]
    result = list[str]()
    for kind, a, b, c, d in difflib.SequenceMatcher(None, plain, [normalize(w) for w in after], False).get_opcodes():
        old, new = before[a:b], after[c:d]
        if kind == "equal" or normalize(" ".join(old)) == normalize(" ".join(new)):
            result += old
        elif new:
            new[0] = new[0].capitalize() if a == 0 or (old and old[0][:1].isupper()) else new[0]
            result += [*new[:-1], new[-1] + _ending(old[-1] if old else "")]
    text = " ".join(result)
    if not text.endswith((".", "?", "!")) and heard.rstrip().endswith((".", "?", "!")):
        text = text.rstrip(",;:") + heard.rstrip()[-1]
    return text


def _ending(word: str) -> str:
    return word[-1] if word and word[-1] in ".,?!;:" else ""


@contextmanager
def serving(model: str, library: Path) -> Iterator[httpx.Client]:
    """A server with a library, and a client of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "whisper", "serve", "--model", model, "--library", str(library), "--port", str(port)]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            while not _is_ready(client):
                if process.poll() is not None:
                    raise SystemExit("the server did not start")
                time.sleep(0.3)
            yield client
    finally:
        process.terminate()
        process.wait()


def done_before(client: httpx.Client) -> dict[str, str]:
    """Recordings that an earlier run has mended: ids by name."""
    found, last = dict[str, str](), None
    while True:
        query = {"tag": TAG, "limit": "200"} | ({"after": last} if last else {})
        page = _checked(client.get("/v1/library", params=query)).json()
        found |= {one["name"]: one["id"] for one in page["data"] if one["version"] > 1}
        if not page["has_more"]:
            return found
        last = page["data"][-1]["id"]


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def corrected(client: httpx.Client, clip: Clip, data: Path, model: str) -> tuple[str, str, str]:
    """Upload a clip, wait for its text, mend it; gives its id, and the text before and after."""
    path = data / clip["file"]
    form = {"name": path.name, "tags": json.dumps([TAG]), "model": model, "language": clip["language"]} | FAST
    answer = client.post("/v1/library", data=form, files={"file": (path.name, path.read_bytes())})
    address = _checked(answer).headers["location"]
    while (found := client.get(address).json())["status"] == "working":
        time.sleep(0.05)
    if found["status"] != "done":
        raise SystemExit(f"{path.name}: {found['error']}")
    segments, version = found["document"]["segments"], found["version"]
    heard = " ".join(segment["text"].strip() for segment in segments)
    text = mended(heard, clip["transcript"])
    if not text:
        return found["id"], heard, text
    change = {"version": version, "splices": [_splice(client, address, segments, text, found)]}
    _checked(client.patch(address, json=change))
    return found["id"], heard, text


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise SystemExit(f"{answer.url}: {answer.text}")
    return answer


def _splice(client: httpx.Client, address: str, segments: list[Any], text: str, found: dict[str, Any]) -> Any:
    """All segments joined into one with the mended text, and words that the server aligned."""
    start = segments[0]["start"] if segments else 0.0
    end = segments[-1]["end"] if segments else found["duration"]
    one: dict[str, Any] = {"uid": "mended", "start": start, "end": end, "text": f" {text}", "edited": True}
    answer = client.post(f"{address}/align", json={"start": start, "end": end, "texts": [text], "language": "en"})
    if answer.status_code == 200:
        one["words"] = answer.json()["segments"][0]
    return {"after": None, "remove": [segment["uid"] for segment in segments], "insert": [one]}


def collect(data: Path, group: str, speakers: int, n_clips: int, model: str, folder: Path) -> None:
    """Mend the transcripts of some speakers in a library, and unpack its manifest."""
    clips, _ = chosen(data, group, speakers, n_clips)
    with serving(model, folder / "library") as client:
        before = done_before(client)
        done = [(before[name], "", "") for clip in clips if (name := Path(clip["file"]).name) in before]
        for clip in clips:
            if Path(clip["file"]).name in before:
                continue
            done.append(corrected(client, clip, data, model))
            print(f"{len(done)} of {len(clips)}: {done[-1][1]!r} > {done[-1][2]!r}", flush=True)
        given = _checked(client.post("/v1/library/export", json={"tag": TAG, "format": "manifest"}))
    with zipfile.ZipFile(io.BytesIO(given.content)) as packed:
        packed.extractall(folder / "manifest")
    changed = sum(heard != text for _, heard, text in done)
    print(f"{len(done)} recordings of {speakers} speakers, {changed} of the last {len(clips) - len(before)} mended")


def write_held_out(sets: Sequence[tuple[str, Path, list[Clip]]], path: Path) -> None:
    """Write a manifest of what is evaluated on."""
    with path.open("w", encoding="utf-8") as file:
        file.write("file\ttext\tlanguage\tspeaker\tset\n")
        for name, data, clips in sets:
            for clip in clips:
                cells = [str(data / clip["file"]), clip["transcript"], clip["language"], clip["speaker"], name]
                file.write("\t".join(cells) + "\n")


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["collect", "held-out"])
    parser.add_argument("--data", type=Path, required=True, help="training data; for held-out its others are taken")
    parser.add_argument("--dev", type=Path, help="further data, of which all is held out")
    parser.add_argument("--dev_groups", default="", help="groups of it, with commas")
    parser.add_argument("--group", default="speechocean762")
    parser.add_argument("--speakers", type=int, default=80)
    parser.add_argument("--clips", type=int, default=4, help="of each speaker")
    parser.add_argument("--held_out", type=int, default=300, help="clips of other speakers")
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.step == "collect":
        collect(given.data, given.group, given.speakers, given.clips, given.model, given.folder)
        return
    clips, others = chosen(given.data, given.group, given.speakers, given.clips)
    said = {clip["transcript"] for clip in clips}
    random.Random(3).shuffle(others)
    sets = [(f"{given.group}, other speakers", given.data, others[: given.held_out])]
    for group in filter(None, given.dev_groups.split(",")):
        found = [clip for one in clips_of(given.dev, group).values() for clip in one]
        sets.append((group, given.dev, [clip for clip in found if clip["transcript"] not in said]))
    write_held_out(sets, given.folder / "held-out.tsv")


if __name__ == "__main__":
    main()
