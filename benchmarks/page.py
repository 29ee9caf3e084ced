"""Hours of speech in the page: how smoothly a browser scrolls, edits and searches, and how much memory it takes.

A transcript and a sound are made up, put into a library, and opened in Chromium by Playwright. Prints milliseconds a
frame while the text scrolls by 120 pixels a frame, what of these the main thread works, milliseconds until a key shows
on the screen, and the memory of the renderer. A text without elements is scrolled beside it: what the machine can do.

    python benchmarks/page.py --hours 3 --picture long.png
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from playwright.sync_api import sync_playwright

from whisper.checkpoints import load_model
from whisper.server.app import Server, build_app
from whisper.server.settings import ServeOptions

WORDS = ["the", "of", "and", "to", "in", "that", "it", "was", "on", "with", "his",
         "they", "not", "but", "what", "we", "when"]  # fmt: skip
RATE = 16000
SCROLL = """async (milliseconds) => {
  const gaps = []; let last = performance.now(); const end = last + milliseconds; let y = scrollY;
  return await new Promise((done) => {
    const draw = (now) => {
      gaps.push(now - last); last = now; y += 120;
      if (y > document.documentElement.scrollHeight - innerHeight) y = 0;
      scrollTo(0, y);
      if (now < end) requestAnimationFrame(draw); else done(gaps.slice(2));
    };
    requestAnimationFrame(draw);
  });
}"""
TYPE = """async () => {
  const field = document.querySelector('textarea'), times = [];
  for (let i = 0; i < 30; i++) {
    const begin = performance.now();
    field.setRangeText('x', field.selectionStart, field.selectionStart, 'end');
    field.dispatchEvent(new InputEvent('input', {bubbles: true}));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    times.push(performance.now() - begin);
  }
  return times;
}"""
WORK = ("TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration")


def document(hours: float, seed: int = 0) -> dict[str, Any]:
    """Return a transcript of so many hours: 2.7 words a second, by three speakers, some words in doubt."""
    rng, segments, at = np.random.default_rng(seed), [], 0.0
    while at < hours * 3600 - 8:
        begin, words = at, []
        for _ in range(int(rng.integers(7, 15))):
            end = at + float(rng.uniform(0.15, 0.5))
            word = {"word": f" {rng.choice(WORDS)}", "start": round(at, 2), "end": round(end, 2)}
            words.append({**word, "probability": 0.9, "confidence": round(float(rng.beta(6, 1)), 3)})
            at = end
        text = "".join(word["word"] for word in words)
        spoken = {"start": round(begin, 2), "end": round(at, 2), "text": text, "words": words}
        segments.append({"uid": f"s{len(segments)}", **spoken, "speaker": str(len(segments) // 9 % 3)})
        at += 0.3
    return {
        "language": "en",
        "segments": segments,
        "speakers": {"0": "A", "1": "B", "2": "C"},
        "findings": [],
        "speech": None,
    }


def keep(server: Server, hours: float) -> str:
    """Put a recording into the library of a server; returns its id."""
    assert server.library is not None
    store, sounds = server.library.store, server.library.sounds
    rng, samples = np.random.default_rng(1), np.zeros(int(hours * 3600 * RATE), np.int16)
    for begin in range(0, len(samples), RATE):
        samples[begin : begin + 12000] = rng.integers(-6000, 6000, len(samples[begin : begin + 12000]))
    recording_id = store.new_id()
    sounds.keep(recording_id, samples)
    os.link(sounds.copy(recording_id), sounds.original(recording_id))
    columns = {"name": f"{hours:g} hours.wav", "job": "", "model": "nano", "fields": [], "n_bytes": 0, "tags": []}
    recording = store.add("", recording_id, **columns)
    store.change(recording, duration=hours * 3600)
    made = document(hours)
    store.finish(recording, made)
    print(f"{len(made['segments'])} segments, {sum(len(s['words']) for s in made['segments'])} words")
    return recording_id


def told(what: str, milliseconds: list[float]) -> None:
    """Print a row of times."""
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    print(f"{what}: median {p50:.1f} ms, p95 {p95:.1f}, p99 {p99:.1f}, most {max(milliseconds):.1f}")


def renderers() -> list[float]:
    """Return the resident megabytes of the renderers of Chromium, the largest first."""
    listed = subprocess.run(["ps", "-eo", "rss,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 1) for line in listed.splitlines() if "--type=renderer" in line]
    return sorted((int(rss) / 1024 for rss, _ in rows), reverse=True)


def measure(page: Any, address: str, recording_id: str, seconds: float, picture: str | None) -> None:
    """Open a recording, and do what people do."""
    page.goto("about:blank")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('pre'), {textContent: 'a line\\n'.repeat(20000)}))"
    )
    told("scroll, plain text", page.evaluate(SCROLL, 1000 * seconds / 2))
    begin = time.monotonic()
    page.goto(f"{address}/#/r/{recording_id}")
    page.locator("[data-word]").first.wait_for(timeout=120_000)
    print(f"opened: {time.monotonic() - begin:.2f} s")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    metrics: Callable[[], dict[str, float]] = lambda: {  # noqa: E731
        one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]
    }
    page.wait_for_timeout(1500)
    before, gaps, after = metrics(), page.evaluate(SCROLL, 1000 * seconds), metrics()
    told("scroll, the page", gaps)
    work = {name: round(1000 * (after[name] - before[name]) / len(gaps), 2) for name in WORK}
    print(f"the main thread, ms a frame: {work}")
    page.locator("[data-word]").first.dblclick()
    told("a key", page.evaluate(TYPE))
    page.keyboard.press("Escape")
    begin = time.monotonic()
    page.keyboard.press("Control+f")
    page.get_by_label("Find in the transcript").fill("not")
    page.locator(".count", has_text="of").wait_for()
    print(f"found {page.locator('.count').inner_text()}: {time.monotonic() - begin:.2f} s")
    session.send("HeapProfiler.collectGarbage")
    print(f"memory: renderer {renderers()[0]:.0f} MB, JavaScript {metrics()['JSHeapUsedSize'] / 1e6:.0f} MB")
    if picture:
        page.screenshot(path=picture)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=8.0, help="of scrolling")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--picture", help="file for a screenshot")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = ServeOptions(library=str(Path(folder) / "library"))
        server = Server(options, ["nano"], lambda name: load_model("nano", device="cpu"))
        http = uvicorn.Server(uvicorn.Config(build_app(server), port=0, log_config=None))
        thread = threading.Thread(target=http.run)
        recording_id = keep(server, given.hours)
        thread.start()
        while not (http.started and server.is_loaded):
            time.sleep(0.05)
        port = http.servers[0].sockets[0].getsockname()[1]
        with sync_playwright() as running:
            browser = running.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            measure(page, f"http://127.0.0.1:{port}", recording_id, given.seconds, given.picture)
            browser.close()
        http.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
