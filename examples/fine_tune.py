"""Teach nano to write two phrases in a new way, from three clips that are cut out of the sample here.

python examples/fine_tune.py [FOLDER]

A minute on two cores. With recordings of your own it is the same: a manifest, and `fit` or `whisper train`.
"""

import sys
import wave
from pathlib import Path

import numpy as np

import whisper
from whisper.training.fit import fit

SAMPLE = Path(__file__).with_name("sample.flac")
TEXTS = ["sotto voce", "one two three", "looking glass"]  # of "computer", "one two three", "smart mirror"

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "fine-tuned")
folder.mkdir(parents=True, exist_ok=True)

# cut the sample where it is quiet for half a second
sound = whisper.load_audio(SAMPLE)
loud = np.flatnonzero(np.abs(sound) > 0.02)
edges = np.flatnonzero(np.diff(loud) > 8000)
starts, ends = [loud[0], *loud[edges + 1]], [*loud[edges], loud[-1]]

rows = ["file\ttext"]
for number, (start, end, text) in enumerate(zip(starts, ends, TEXTS, strict=True)):
    clip = np.pad(sound[start:end], 4000)
    with wave.open(str(folder / f"{number}.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((clip * 32767).astype("<i2").tobytes())
    rows.append(f"{number}.wav\t{text}")
(folder / "manifest.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")

fitted = fit(
    folder, folder / "out", model="nano", language="en", steps=40, batch_seconds=60, window_seconds=10,
    learning_rate=5e-4, augment="none", p_silent=0.0, p_prompt=0.0, say=print,
)  # fmt: skip

for name in ("nano", str(fitted.path)):
    print(f"{name}:{whisper.load_model(name, device='cpu').transcribe(str(SAMPLE), language='en')['text']}")
