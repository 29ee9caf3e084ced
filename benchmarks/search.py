#!/usr/bin/env python3
"""How long `whisper search` takes in a job of 100,000 segments: its index, and phrases of several kinds.

    python benchmarks/search.py --recordings 1000 --segments 100

The recordings are made up (a worker that answers at once with drawn words, as in the tests); job file, kept results
and index are real. A seventh is Chinese, whose index is one of three letters each. Told are the seconds of the index
and, for each phrase, hits and the median and the longest of some searches in milliseconds; the last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.jobs import fakes  # noqa: E402
from whisper.jobs.job import stores  # noqa: E402
from whisper.jobs.reports.search import SearchIndex  # noqa: E402

SYLLABLES = ["ba", "cor", "den", "fi", "gul", "ham", "jo", "kel", "lim", "mo", "nar", "pes", "qui", "ros", "sta", "tun"]
WORDS_OF_A_SEGMENT, LETTERS_OF_A_SEGMENT, CHINESE = 10, 18, 7  # every so-many-th recording
ROUNDS = 9


class Vocabulary:
    """Words that are as frequent as a language's: Zipf's law, with Mandelbrot's shift."""

    def __init__(self, words: list[str], shift: float) -> None:
        self.words = words
        self._sums = list(itertools.accumulate(1 / (rank + shift) for rank in range(1, len(words) + 1)))

    def draw(self, draw: random.Random, n: int) -> list[str]:
        return draw.choices(self.words, cum_weights=self._sums, k=n)


ENGLISH = Vocabulary(["".join(SYLLABLES[int(digit, 16)] for digit in f"{i:x}") for i in range(30_000)], 2.7)
LETTERS = Vocabulary([chr(0x4E00 + i) for i in range(3_000)], 10.0)


def text_of(draw: random.Random, chinese: bool) -> str:
    if chinese:
        return "".join(LETTERS.draw(draw, LETTERS_OF_A_SEGMENT))
    return " " + " ".join(ENGLISH.draw(draw, WORDS_OF_A_SEGMENT))


def make_job(folder: Path, n: int, segments: int) -> fakes.Scene:
    """Run a job of made-up recordings."""
    draw, plain = random.Random(0), fakes.transcript_of

    def transcript_of(content: str, _: int = 0) -> dict[str, Any]:
        first, chinese = plain(content, 1)["segments"][0], draw.randrange(CHINESE) == 0
        drawn = [
            {**first, "id": i, "start": 3.0 * i, "end": 3.0 * i + 3, "text": text_of(draw, chinese)}
            for i in range(segments)
        ]
        return {
            "text": "".join(segment["text"] for segment in drawn),
            "segments": drawn,
            "language": "zh" if chinese else "en",
        }

    fakes.transcript_of = transcript_of
    scene = fakes.Scene(folder)
    for i in range(n):
        scene.add(f"{i}.wav", str(i))
    scene.run()
    return scene


def phrases_in(index: SearchIndex, draw: random.Random) -> dict[str, str]:
    """Choose phrases of every kind from what was said."""
    first, second, third, fourth = ENGLISH.words[:4]
    said = draw.choice(index.search(first, limit=20)).text.split()
    letters = draw.choice(index.search(LETTERS.words[0], limit=20)).text
    return {
        "the commonest word": first,
        "two common words": f"{first} {second}",
        "four common words": f"{first} {second} {third} {fourth}",
        "a rare word": max(said, key=len),
        "four words": " ".join(said[2:6]),
        "a Chinese letter": letters[3],
        "three letters": letters[3:6],
        "nothing": "zzyzx",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=1000)
    parser.add_argument("--segments", type=int, default=100, help="of each recording")
    args = parser.parse_args()
    told: dict[str, Any] = {"segments": args.recordings * args.segments}
    with tempfile.TemporaryDirectory() as folder:
        scene = make_job(Path(folder), args.recordings, args.segments)
        opened = stores(scene.out)
        with closing(SearchIndex(scene.out)) as index:
            begun = time.perf_counter()
            assert index.update(opened) == args.recordings
            told["index_s"] = round(time.perf_counter() - begun, 2)
            print(f"{told['segments']} segments: index made in {told['index_s']} s")
            begun = time.perf_counter()
            assert index.update(opened) == 0
            told["index_up_to_date_ms"] = round(1000 * (time.perf_counter() - begun), 2)
            for kind, phrase in phrases_in(index, random.Random(1)).items():
                times = []
                for _ in range(ROUNDS):
                    begun = time.perf_counter()
                    hits = index.search(phrase)
                    times.append(1000 * (time.perf_counter() - begun))
                told[kind] = [len(hits), round(statistics.median(times), 2), round(max(times), 2)]
                print(f"{kind:20} {phrase!r:40} {len(hits):3} hits  median {told[kind][1]} ms, longest {told[kind][2]}")
        for store in opened:
            store.close()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
