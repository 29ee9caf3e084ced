#!/usr/bin/env python3
"""Live captions in real time: how late words are, how many stable ones are wrong, and how much is erased.

    python benchmarks/live.py --data data/dev/manifest.tsv --only ljspeech librispeech --seconds 120 --streams 1 4
    python benchmarks/live.py --data data/dev/manifest.tsv --policies medium alignatt localagreement --plot live.png
    python benchmarks/live.py --data data/dev/manifest.tsv --simulate 2

A run may be done in parts (``--policies``) with one ``--output``, which keeps the rows of others.

Recordings of a manifest are joined, with pauses, to streams, and played at their own speed into as many
live sessions of one model at once. The policies are the words of ``delay``, and two others on the same weights, with
the same detection of speech and the same final text:

  localagreement  LocalAgreement-2 (arXiv:2307.14743, whisper_streaming): once a second the item is decoded anew on 30
                  s, and what two texts in a row begin with is stable
  alignatt        AlignAtt (arXiv:2305.11408, SimulStreaming): once a second the stable text is continued on 30 s, up
                  to the first word whose attention is within 0.5 s of the end of the sound

Beside these stand other programs as they are, each in its own environment (scripts/peers) and a process of its own:

  whisper_streaming   LocalAgreement-2 on faster-whisper, int8, once a second, five beams
  whisperlivekit      WhisperLiveKit: AlignAtt, on faster-whisper's encoder

Of these a whole stream is one item, so their final latency is that of the end of the stream.

Latency of a word is the time of the event that shows it first, or for stable text for good, minus the end of the word
in the transcript of the whole stream (``transcribe`` with word times). Words of both are matched by the fewest changes.
Final latency is counted from the end of the item, when the silence after it was long enough. Normalised erasure is the
words that were shown and replaced, for each word of the final text. Word errors are those of the stable text (with what
the end of an item adds), of the final text, and of the transcript of the whole stream. Keep the machine quiet.

With ``--simulate CORES`` nothing is played: the clock is that of the sound, and what the model does takes the time of
the processor that it took, divided by so many cores, times the sessions that share it. Figures of a busy machine are
then those of a quiet one, but for what its caches lose; set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from live_rivals import PROGRAMS, stable_and_interim, weights_of
from live_rivals import play as play_program
from rapidfuzz.distance import Levenshtein

import whisper
from whisper.live import Committed, Final, Interim, LiveOptions, LiveSession, SpeechStarted, Stable
from whisper.live.listener import Listener
from whisper.live.options import DELAYS
from whisper.live.pace import LOAD
from whisper.live.refresh import Refresher
from whisper.live.session import LEAST_SOUND, text_of
from whisper.live.stability import ItemText
from whisper.manifests.read import ManifestEntry, read_manifest
from whisper.normalizers import EnglishTextNormalizer

CACHE = Path(__file__).resolve().parent.parent / ".venv-peers" / "serve-weights"  # also of benchmarks/serve.py
RATE = 16000
PIECE = RATE // 10  # samples that are sent at once
PAUSES = (0.3, 1.2)  # seconds between two recordings, drawn evenly
WHOLE = 3000  # frames of padding: a context of 30 s
LEVELS = (50, 95)  # percentiles
Words = list[str]
HEAD = (
    "policy          streams | interim p50  p95 | stable p50   p95 |  final p50   p95 | erasure | "
    "WER stable  final  offline"
)

normalize = EnglishTextNormalizer()


# ---------------------------------------------------------------------------------------------------------
# Policies
# ---------------------------------------------------------------------------------------------------------


class AnewText(ItemText):
    """Stable text of a policy whose hypotheses do not begin with it: as many words as it has are left out."""

    def take(self, words: Sequence[Any], heard: float) -> str:
        """See `ItemText`."""
        said = len(self.text.split())
        texts, kept = "", []
        for i, word in enumerate(words):
            texts += word.text
            if len(texts.split()) > said:
                kept = list(words[i:])
                break
        self.tokens, self._n_chars = (), 0
        return super().take(kept, heard)


@dataclass(frozen=True)
class Policy:
    """How a session refreshes: the word of ``delay``, and what differs from it."""

    delay: str
    text: Callable[[LiveOptions], ItemText] | None = None
    margin: int | None = None
    continues: bool = True  # whether a hypothesis begins with the stable text


POLICIES = {
    **{name: Policy(name) for name in DELAYS},
    "localagreement": Policy("xhigh", lambda _: AnewText(0.0, True), WHOLE, continues=False),
    "alignatt": Policy("xhigh", lambda _: ItemText(0.5, False), WHOLE),
}


def session_of(model: Any, policy: Policy, on_event: Callable[[Any], None], key: str) -> LiveSession:
    """Return a session with a policy."""
    refresher = Refresher(model, key) if policy.margin is None else Refresher(model, key, policy.margin)

    def hear(samples: Any, options: Any, known: Any, language: Any, stop: Any) -> Any:
        return refresher.refresh(samples, options, known if policy.continues else (), language, stop)

    options = LiveOptions(language="en", delay=policy.delay)
    return LiveSession(model, options, on_event, key=key, hear=hear, text=policy.text)


# ---------------------------------------------------------------------------------------------------------
# Streams
# ---------------------------------------------------------------------------------------------------------


@dataclass
class Stream:
    """Joined recordings, what is said in them, and what `transcribe` gives for them."""

    samples: np.ndarray[Any, Any]
    text: str
    offline: str = ""
    words: Words = field(default_factory=list)  # of the offline transcript
    ends: list[float] = field(default_factory=list)  # seconds


def make_stream(folder: Path, entries: Sequence[ManifestEntry], seconds: float, seed: int) -> Stream:
    """Join recordings, drawn at random, with pauses of faint noise between them."""
    drawn, rng = list(entries), np.random.default_rng(seed)
    random.Random(seed).shuffle(drawn)
    parts, texts, n = [], [], 0
    for entry in drawn:
        sound = whisper.load_audio(str(folder / entry.path))
        pause = rng.normal(size=int(rng.uniform(*PAUSES) * RATE)).astype(np.float32) * np.float32(1e-4)
        parts += [sound, pause]
        texts.append(entry.text)
        n += len(sound) + len(pause)
        if n >= seconds * RATE:
            break
    silence = np.zeros(RATE, np.float32)
    return Stream(np.concatenate([*parts, silence]), " ".join(texts))


def transcribe_offline(model: Any, stream: Stream) -> None:
    """Add the transcript of the whole stream, and its words with their ends."""
    result = model.transcribe(stream.samples, language="en", word_timestamps=True)
    stream.offline = result["text"]
    for segment in result["segments"]:
        for word in segment["words"]:
            for part in plain(word["word"]):
                stream.words.append(part)
                stream.ends.append(word["end"])


def play(model: Any, policy: Policy, streams: Sequence[Stream]) -> list[list[tuple[float, Any]]]:
    """Play streams at once; return the events of each, with the seconds since it began."""
    events: list[list[tuple[float, Any]]] = [[] for _ in streams]

    def run(i: int) -> None:
        start = time.monotonic()
        with session_of(model, policy, lambda e: events[i].append((time.monotonic() - start, e)), str(i)) as session:
            for begin in range(0, len(streams[i].samples), PIECE):
                piece = streams[i].samples[begin : begin + PIECE]
                time.sleep(max(0.0, start + (begin + len(piece)) / RATE - time.monotonic()))
                session.append(piece)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(streams))]
    for thread in threads:
        thread.start()
        time.sleep(0.37)  # streams do not begin together
    for thread in threads:
        thread.join()
    return events


def play_programs(name: str, folder: Path, streams: Sequence[Stream]) -> list[list[tuple[float, Any]]]:
    """Play streams at once, each to a process of another program; return the events of each, as ours would be."""
    with ThreadPoolExecutor(len(streams)) as pool:
        told = list(pool.map(lambda stream: play_program(name, folder, stream.samples), streams))
    return [as_events(lines, len(stream.samples) / RATE) for lines, stream in zip(told, streams, strict=True)]


def as_events(lines: Sequence[tuple[float, dict[str, Any]]], seconds: float) -> list[tuple[float, Any]]:
    """Return what a program told as the events of one item."""
    events: list[tuple[float, Any]] = []
    stable, at = "", seconds
    for at, line in lines:
        new, interim = stable_and_interim(line, stable)
        if new:
            stable += new
            events.append((at, Stable(0, new)))
        events.append((at, Interim(0, interim)))
    transcript: Any = {"text": stable, "segments": [], "language": "en"}
    return [*events, (at, Committed(0, 0.0, seconds)), (at, Final(0, 0.0, seconds, transcript))]


class Simulation:
    """One of several equal streams, whose sessions share a machine, in the time of its sound.

    Parameters
    ----------
    model, policy
        What is simulated.
    n_cores
        Of the machine.
    n_streams
        Sessions at once.
    """

    def __init__(self, model: Any, policy: Policy, n_cores: float, n_streams: int) -> None:
        self._model, self._policy, self._n_cores, self._n_streams = model, policy, n_cores, n_streams
        self._options = LiveOptions(language="en", delay=policy.delay)
        self._refresher = Refresher(model) if policy.margin is None else Refresher(model, margin=policy.margin)
        self._listener = Listener(self._options)
        self._text = self._new_text()
        self._events: list[tuple[float, Any]] = []
        self._costs: list[float] = []
        self._free_at = self._due_at = 0.0
        self._n_refreshed = 0
        self._running: tuple[float, Any, float] | None = None  # when a refresh ends, what it heard, in how much sound

    def run(self, samples: np.ndarray[Any, Any]) -> list[tuple[float, Any]]:
        """Return the events of a stream, with their times."""
        for begin in range(0, len(samples), 1024):
            self._listener.feed(samples[begin : begin + 1024])
            now = min(begin + 1024, len(samples)) / RATE
            if self._running is not None and self._running[0] <= now:
                self._tell(*self._running)
                self._running = None
            while (change := self._listener.advance()) is not None:
                self._change(change, now)
            self._refresh(now)
        if self._listener.item is not None and (ended := self._listener.commit()) is not None:
            self._change(ended, len(samples) / RATE)
        return sorted(self._events, key=lambda pair: pair[0])

    def _new_text(self) -> ItemText:
        return (self._policy.text or text_of)(self._options)

    def _timed(self, work: Callable[[], Any]) -> tuple[Any, float]:
        start = time.process_time()
        done = work()
        return done, (time.process_time() - start) / self._n_cores

    def _change(self, change: Any, now: float) -> None:
        if isinstance(change, SpeechStarted):
            self._text = self._new_text()
            self._events.append((now, change))
            return
        self._running = None
        start, end = change.start / RATE, change.end / RATE
        self._events.append((now, Committed(change.number, start, end)))
        result, cost = self._timed(lambda: self._model.transcribe(change.samples, **self._options.for_transcribe()))
        self._free_at = now + cost
        if delta := self._text.complete(result["text"]):
            self._events.append((self._free_at, Stable(change.number, delta)))
        self._events.append((self._free_at, Final(change.number, start, end, result)))

    def _refresh(self, now: float) -> None:
        listener = self._listener
        is_due = listener.item is not None and now >= max(self._due_at, self._free_at) and self._running is None
        is_new = listener.last_speech > max(self._n_refreshed, listener.start)
        if not is_due or not is_new or listener.n_heard - listener.start < LEAST_SOUND * RATE:
            return
        samples, known = listener.samples, self._text.tokens if self._policy.continues else ()
        heard, cost = self._timed(lambda: self._refresher.refresh(samples, self._options, known, "en"))
        self._costs.append(cost)
        self._n_refreshed = listener.n_heard
        usual = float(np.median(self._costs[-9:]))
        interval = max(DELAYS[self._policy.delay].interval, usual * self._n_streams / LOAD)
        # those of other sessions that are in line before it, on average
        waits = usual * (self._n_streams - 1) * min(usual * self._n_streams / interval, 1.0) / 2
        self._due_at = now + interval
        self._running = now + waits + cost, heard, len(samples) / RATE

    def _tell(self, at: float, heard: Any, seconds: float) -> None:
        number = self._listener.item
        if heard is None or number is None:
            return
        if delta := self._text.take(heard.words, seconds):
            self._events.append((at, Stable(number, delta)))
        self._events.append((at, Interim(number, self._text.interim)))


# ---------------------------------------------------------------------------------------------------------
# Measures
# ---------------------------------------------------------------------------------------------------------


@dataclass
class Measures:
    """What came of one or several streams."""

    interim: list[float] = field(default_factory=list)  # seconds, of each word
    stable: list[float] = field(default_factory=list)
    final: list[float] = field(default_factory=list)  # of each item
    n_erased: int = 0
    n_words: int = 0  # of the final texts
    errors: dict[str, list[int]] = field(default_factory=dict)  # changes and words of each layer

    def add(self, stream: Stream, events: Sequence[tuple[float, Any]]) -> None:
        """Add a stream."""
        texts = {"stable": "", "final": "", "offline": stream.offline}
        for told in by_item(events).values():
            self._add_item(stream, told)
            texts["stable"] += " " + "".join(e.text for _, e in told if isinstance(e, Stable))
            texts["final"] += "".join(e.result["text"] for _, e in told if isinstance(e, Final))
        said = normalize(stream.text).split()
        for layer, text in texts.items():
            count = self.errors.setdefault(layer, [0, 0])
            count[0] += Levenshtein.distance(said, normalize(text).split())
            count[1] += len(said)

    def _add_item(self, stream: Stream, told: Sequence[tuple[float, Any]]) -> None:
        committed = next((e for _, e in told if isinstance(e, Committed)), None)
        if committed is None:
            return
        inside = [i for i, end in enumerate(stream.ends) if committed.start <= end <= committed.end + 0.2]
        words, ends = [stream.words[i] for i in inside], [stream.ends[i] for i in inside]
        shown, stable = list(displayed(told, interim=True)), list(displayed(told, interim=False))
        self.interim += latencies(words, ends, shown)
        self.stable += latencies(words, ends, stable)
        self.n_erased += erased([text for _, text in shown])
        for at, event in told:
            if isinstance(event, Final):
                self.final.append(at - event.end)
                self.n_words += len(plain(event.result["text"]))

    def row(self) -> dict[str, Any]:
        """Return the figures."""
        found: dict[str, Any] = {}
        for name in ("interim", "stable", "final"):
            values = getattr(self, name)
            found[name] = (
                {f"p{level}": round(float(np.percentile(values, level)), 3) for level in LEVELS} if values else {}
            )
        found["erasure"] = round(self.n_erased / max(self.n_words, 1), 3)
        found["wer"] = {layer: round(100 * n / max(total, 1), 2) for layer, (n, total) in self.errors.items()}
        found["n_words"], found["n_items"] = len(self.stable), len(self.final)
        return found


def by_item(events: Sequence[tuple[float, Any]]) -> dict[int, list[tuple[float, Any]]]:
    """Return the events of each item."""
    found: dict[int, list[tuple[float, Any]]] = {}
    for at, event in events:
        found.setdefault(event.item, []).append((at, event))
    return found


def displayed(told: Sequence[tuple[float, Any]], *, interim: bool) -> Iterator[tuple[float, Words]]:
    """Give the words of an item that are on display after each event."""
    stable = rest = ""
    for at, event in told:
        if isinstance(event, Stable):
            stable, rest = stable + event.text, ""
        elif isinstance(event, Interim) and interim:
            rest = event.text
        else:
            continue
        yield at, plain(stable + rest)


def latencies(words: Words, ends: Sequence[float], shown: Sequence[tuple[float, Words]]) -> list[float]:
    """Return, for each word that was shown, when it was first, minus its end."""
    first: dict[int, float] = {}
    for at, text in shown:
        for block in Levenshtein.opcodes(words, text):
            if block.tag == "equal":
                for i in range(block.src_start, block.src_end):
                    first.setdefault(i, at)
    return [at - ends[i] for i, at in sorted(first.items())]


def erased(texts: Sequence[Words]) -> int:
    """Return how many words were replaced, from each text to the next."""
    n = 0
    for before, after in itertools.pairwise(texts):
        same = next(
            (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
        )
        n += len(before) - same
    return n


def plain(text: str) -> Words:
    """Return the words of a text, without marks and capitals."""
    bare = ("".join(c for c in word.casefold() if c.isalnum()) for word in text.replace("-", " ").split())
    return [word for word in bare if word]


# ---------------------------------------------------------------------------------------------------------


def entries_of(given: argparse.Namespace) -> list[ManifestEntry]:
    """Return the English recordings whose paths have one of the names."""
    recordings = read_manifest(given.data).recordings
    found = [entry for entry in recordings if any(name in entry.path.casefold() for name in given.only)]
    if not found:
        raise SystemExit(f"{given.data}: no recording has one of {', '.join(given.only)} in its path")
    return found


def main() -> None:
    """Play, measure, and print a table."""
    given = parse()
    model = whisper.load_model(given.model)
    entries = entries_of(given)
    if set(given.policies) & set(PROGRAMS):
        weights_of(given.model, given.cache)
    rows = earlier(given)
    streams = [
        make_stream(Path(given.data).parent, entries, given.seconds, given.seed + i) for i in range(max(given.streams))
    ]
    for stream in streams:
        transcribe_offline(model, stream)
    print(HEAD)
    for name in given.policies:
        for n in given.streams:
            measures = Measures()
            for stream, events in zip(streams, told(given, model, name, streams, n), strict=False):
                measures.add(stream, events)
            row = {"policy": name, "streams": n, **measures.row()}
            rows = [other for other in rows if (other["policy"], other["streams"]) != (name, n)] + [row]
            print(line_of(row), flush=True)
            if given.output:
                Path(given.output).write_text(json.dumps({**settings_of(given), "rows": rows}, indent=1), "utf-8")
    if given.plot:
        plot(rows, Path(given.plot))


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """Return what rows must have in common to stand in one table."""
    names = ("model", "seconds", "seed", "only", "simulate")
    return {name: getattr(given, name) for name in names}


def earlier(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows that the output file has from an earlier run of the same streams; or none."""
    if not given.output or not Path(given.output).exists():
        return []
    known = json.loads(Path(given.output).read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = known.pop("rows")
    if known != settings_of(given):
        raise SystemExit(f"{given.output} is of other streams: give another file")
    return rows


def told(
    given: argparse.Namespace, model: Any, name: str, streams: Sequence[Stream], n: int
) -> Sequence[list[tuple[float, Any]]]:
    """Play, or simulate, so many streams; in a simulation, all that there are, each beside others like it."""
    if name in PROGRAMS:
        return play_programs(name, given.cache, streams[:n])
    if given.simulate is None:
        return play(model, POLICIES[name], streams[:n])
    return [Simulation(model, POLICIES[name], given.simulate, n).run(stream.samples) for stream in streams]


def line_of(row: dict[str, Any]) -> str:
    """Return a line of the table."""
    cells = [f"{row['policy']:15} {row['streams']:7d}"]
    cells += [
        "  ".join(f"{row[name].get(f'p{level}', float('nan')):7.2f}" for level in LEVELS)
        for name in ("interim", "stable", "final")
    ]
    cells.append(f"{row['erasure']:7.2f}")
    cells.append("  ".join(f"{row['wer'][layer]:6.1f}" for layer in ("stable", "final", "offline")))
    return " | ".join(cells)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw latency against word errors of stable text, a point for each policy and number of streams."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name in dict.fromkeys(row["policy"] for row in rows):
        mine = [row for row in rows if row["policy"] == name and row["stable"]]
        axes.plot([r["stable"]["p50"] for r in mine], [r["wer"]["stable"] for r in mine], "o-", label=name)
        for row in mine:
            axes.annotate(
                str(row["streams"]), (row["stable"]["p50"], row["wer"]["stable"]), (4, 4), textcoords="offset points"
            )
    axes.axhline(rows[0]["wer"]["offline"], color="grey", linestyle=":", label="whole recording, one stream")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.15 * max(row["wer"]["stable"] for row in rows))
    axes.set_xlabel("seconds until a word is stable, median")
    axes.set_ylabel("word errors of stable text, %")
    axes.set_title("Live captions, by policy and number of streams at once")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--data", required=True, help="manifest of recordings with their texts")
    parser.add_argument(
        "--only", nargs="+", default=["ljspeech", "librispeech"], help="parts of the paths that are used"
    )
    usual = ["medium", "alignatt", "localagreement"]
    parser.add_argument("--policies", nargs="+", default=usual, choices=[*POLICIES, *PROGRAMS])
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for the weights of other programs")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4], help="sessions at once")
    parser.add_argument("--seconds", type=float, default=120, help="of each stream")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--simulate", type=float, metavar="CORES", help="play nothing; see above")
    parser.add_argument("--output", help="file of the results, as JSON")
    parser.add_argument("--plot", help="file of a picture")
    given = parser.parse_args()
    if given.simulate is not None and set(given.policies) & set(PROGRAMS):
        parser.error(f"{' and '.join(PROGRAMS)} can only be played")
    return given


if __name__ == "__main__":
    main()
