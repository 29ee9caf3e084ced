"""Print what is said in a recording, with times.

python examples/transcribe.py [RECORDING [MODEL]]
"""

import sys
from pathlib import Path

import whisper

recording = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("reading.opus")
model = whisper.load_model(sys.argv[2] if len(sys.argv) > 2 else "base")

result = model.transcribe(recording)
print("language:", result["language"])
for segment in result["segments"]:
    print(f"{segment['start']:7.2f} - {segment['end']:6.2f} {segment['text']}")
