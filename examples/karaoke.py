"""Write subtitles in which each word is underlined as it is spoken.

python examples/karaoke.py [RECORDING [FOLDER [MODEL]]]
"""

import sys
from pathlib import Path

import whisper
from whisper.utils import get_writer

recording = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("reading.opus"))
folder = sys.argv[2] if len(sys.argv) > 2 else "."
model = whisper.load_model(sys.argv[3] if len(sys.argv) > 3 else "base")

result = model.transcribe(recording, word_timestamps=True)
get_writer("vtt", folder)(result, recording, {"highlight_words": True, "max_words_per_line": 6})
print(Path(folder, Path(recording).stem + ".vtt").read_text(encoding="utf-8"))
