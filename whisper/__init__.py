"""Sotto: OpenAI Whisper, done again.

>>> import whisper
>>> model = whisper.load_model("base")
>>> model.transcribe("audio.wav")["text"]
"""

from . import compat
from .alignment.align import align as align
from .audio import load_audio as load_audio
from .audio import log_mel_spectrogram as log_mel_spectrogram
from .audio import pad_or_trim as pad_or_trim
from .checkpoints.load import _download as _download
from .checkpoints.load import available_models as available_models
from .checkpoints.load import load_model as load_model
from .checkpoints.published import _ALIGNMENT_HEADS as _ALIGNMENT_HEADS
from .checkpoints.published import _MODELS as _MODELS
from .decoding import DecodingOptions as DecodingOptions
from .decoding import DecodingResult as DecodingResult
from .decoding import decode as decode
from .decoding import detect_language as detect_language
from .model import ModelDimensions as ModelDimensions
from .model import Whisper as Whisper
from .runtime import select as fast_path
from .transcribe import iter_segments as iter_segments
from .transcribe import transcribe as transcribe
from .transcribe import transcribe_with_report as transcribe_with_report
from .transcription.identify import identify_language as identify_language
from .version import __version__ as __version__

Whisper.decode = decode
Whisper.detect_language = detect_language
Whisper.transcribe = transcribe
Whisper.refresh = fast_path.refresh
compat.remember("Whisper.decode", (vars(Whisper), ["decode", "detect_language"]))
