"""Other programs for live captions, each as it is, in a process of its own: what benchmarks/live.py plays sound to.

Run by the Python of a program's environment as ``live_rivals.py PROGRAM FOLDER``: sound comes on standard input, with
16 bits at 16 kHz; on standard output goes a line of JSON when it is ready, and one each time that its text changes.
FOLDER has the weights. Imports nothing of Sotto in that process.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers"
PROGRAMS = ("whisper_streaming", "whisperlivekit")
RATE = 16000
PIECE = RATE // 10  # samples that are sent at once
LANGUAGE = "en"


# ---------------------------------------------------------------------------------------------------------
# In the process of a program
# ---------------------------------------------------------------------------------------------------------


def tell(**what: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps(what), flush=True)


def run_whisper_streaming(folder: Path) -> None:
    """Run whisper_streaming's LocalAgreement-2 on faster-whisper, int8, with its defaults, once a second."""
    sys.path.insert(0, str(Path(sys.executable).parent.parent / "source"))
    from faster_whisper import WhisperModel  # type: ignore[import-not-found,unused-ignore]
    from whisper_online import FasterWhisperASR, OnlineASRProcessor  # type: ignore[import-not-found,unused-ignore]

    class OnProcessor(FasterWhisperASR):  # type: ignore[misc,unused-ignore]
        """Its own asks for CUDA."""

        def load_model(self, modelsize: Any = None, cache_dir: Any = None, model_dir: Any = None) -> Any:
            return WhisperModel(model_dir, device="cpu", compute_type="int8")

    recognizer = OnProcessor(LANGUAGE, model_dir=str(folder / "ct2"))
    recognizer.transcribe(np.zeros(RATE, np.float32))
    online = OnlineASRProcessor(recognizer)
    tell(ready=True)
    for samples in _pieces(RATE):  # all that has come since, at least a second
        online.insert_audio_chunk(samples)
        said = online.process_iter()[2]
        tell(stable=said, interim="".join(word for _, _, word in online.transcript_buffer.complete()))
    tell(stable=online.finish()[2], interim="")


def _pieces(least: int) -> Any:
    """Give the sound of standard input as it has come, at least so many samples; the last piece may be shorter."""
    buffer, has_ended = bytearray(), threading.Event()
    changed = threading.Condition()

    def read() -> None:
        while data := os.read(0, 1 << 16):
            with changed:
                buffer.extend(data)
                changed.notify()
        has_ended.set()
        with changed:
            changed.notify()

    threading.Thread(target=read, daemon=True).start()
    while True:
        with changed:
            changed.wait_for(lambda: len(buffer) >= 2 * least or has_ended.is_set())
            data = bytes(buffer[: len(buffer) // 2 * 2])
            del buffer[: len(data)]
        if data:
            yield np.frombuffer(data, np.int16).astype(np.float32) / 32768
        if has_ended.is_set() and not buffer:
            return


def run_whisperlivekit(folder: Path) -> None:
    """Run WhisperLiveKit with its defaults: AlignAtt, with faster-whisper's encoder.

    It knows the alignment heads of a published model by its name alone, and of a file takes all heads of the upper
    layers; so it is told those of the model.
    """
    import whisperlivekit as wlk  # type: ignore[import-not-found,unused-ignore]
    from whisperlivekit.whisper import _ALIGNMENT_HEADS  # type: ignore[import-not-found,unused-ignore]

    (weights,) = (folder / "pt").glob("*.pt")
    engine = wlk.TranscriptionEngine(
        model_path=str(weights), encoder_model_path=str(folder / "ct2"), lan=LANGUAGE, pcm_input=True,
        custom_alignment_heads=_ALIGNMENT_HEADS[weights.stem].decode(), warmup_file=_noise(),
    )  # fmt: skip

    async def converse() -> None:
        processor = wlk.AudioProcessor(transcription_engine=engine)
        results = await processor.create_tasks()

        async def listen() -> None:
            async for result in results:
                text = " ".join(line.text.strip() for line in result.lines if line.text)
                tell(text=text, interim=result.buffer_transcription)

        listening = asyncio.create_task(listen())
        while data := await asyncio.to_thread(os.read, 0, 1 << 16):
            await processor.process_audio(data)
        await processor.process_audio(b"")
        await asyncio.wait_for(listening, 60)
        await processor.cleanup()

    tell(ready=True)
    asyncio.run(converse())


def _noise() -> str:
    """Write a second of noise, for a program to warm up with: its own would come from the network."""
    path = Path(tempfile.gettempdir()) / "sotto-live-warmup.wav"
    samples = np.random.default_rng(0).normal(size=RATE) * 300
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return str(path)


# ---------------------------------------------------------------------------------------------------------
# Here
# ---------------------------------------------------------------------------------------------------------


def weights_of(model: str, folder: Path) -> None:
    """Write the weights as the programs read them, once."""
    import whisper
    from whisper.checkpoints.save import save_checkpoint

    if not (folder / "pt").exists():
        loaded = whisper.load_model(model, device="cpu")
        (folder / "pt").mkdir(parents=True)
        save_checkpoint(loaded, folder / "pt" / f"{model}.pt", half=True)
        if not (folder / "ct2").exists():
            save_checkpoint(loaded, folder / "ct2", format="ctranslate2", precision="int8")


def play(program: str, folder: Path, samples: np.ndarray[Any, Any]) -> list[tuple[float, dict[str, Any]]]:
    """Play sound to a program; return what it told, each with the seconds since the beginning of the sound."""
    python = PEERS / program.replace("_", "-") / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{program} is not here: scripts/peers {program.replace('_', '-')}")
    command = [str(python), str(Path(__file__).resolve()), program, str(folder)]
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    told: list[tuple[float, dict[str, Any]]] = []
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
                         cwd=tempfile.gettempdir()) as process,
    ):  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        if b"ready" not in _first_line(process.stdout):
            process.kill()
            process.wait()
            log.seek(0)
            raise SystemExit(f"{program} did not start:\n{log.read().decode(errors='replace')[-2000:]}")
        start = time.monotonic()
        listening = threading.Thread(target=_listen, args=(process.stdout, start, told.append))
        listening.start()
        data = (np.clip(samples, -1, 1) * 32767).astype("<i2")
        for begin in range(0, len(data), PIECE):
            piece = data[begin : begin + PIECE]
            time.sleep(max(0.0, start + (begin + len(piece)) / RATE - time.monotonic()))
            process.stdin.write(piece.tobytes())
            process.stdin.flush()
        process.stdin.close()
        listening.join()
    return told


def _first_line(stream: Any) -> bytes:
    """Return the first line of JSON: libraries may print before."""
    for line in stream:
        if line.startswith(b"{"):
            return bytes(line)
    return b""


def _listen(stream: Any, start: float, note: Callable[[tuple[float, dict[str, Any]]], None]) -> None:
    for line in stream:
        if line.startswith(b"{"):
            note((time.monotonic() - start, json.loads(line)))


def stable_and_interim(told: dict[str, Any], stable: str) -> tuple[str, str]:
    """Return what is new of the stable text, and what is shown behind it.

    A program that tells its whole text each time may have changed what it told before. What was told stays, as it does
    in a stream of deltas, and counts as it was; new are the words behind as many as there are.
    """
    if "text" not in told:
        return told["stable"], told["interim"]
    text, interim = told["text"], f" {told['interim']}" if told["interim"] else ""
    if text.startswith(stable):  # its last word may go on, or get a mark
        return text[len(stable) :], interim
    return "".join(f" {word}" for word in text.split()[len(stable.split()) :]), interim


if __name__ == "__main__":
    {"whisper_streaming": run_whisper_streaming, "whisperlivekit": run_whisperlivekit}[sys.argv[1]](Path(sys.argv[2]))
