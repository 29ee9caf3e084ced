"""Transcribe several recordings side by side on one model, which decodes them in one batch.

Threads share the batch, as a list does: `model.transcribe(recordings)`.

python examples/threads.py RECORDING ...
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import whisper

recordings = sys.argv[1:] or [str(Path(__file__).with_name("reading.opus"))] * 3
model = whisper.load_model("base")

with ThreadPoolExecutor(max_workers=2) as pool:
    for recording, result in zip(recordings, pool.map(model.transcribe, recordings), strict=True):
        print(f"{recording}:{result['text']}")
