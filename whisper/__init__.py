"""Sotto: OpenAI Whisper, done again.

>>> import whisper
>>> model = whisper.load_model("base")
>>> model.transcribe("audio.wav")["text"]
"""

import typing

from . import compat
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

if typing.TYPE_CHECKING:
    from .alignment.align import align as align

Whisper.decode = decode
Whisper.detect_language = detect_language
Whisper.transcribe = transcribe
Whisper.refresh = fast_path.refresh
compat.remember("Whisper.decode", (vars(Whisper), ["decode", "detect_language"]))


def __getattr__(name: str) -> typing.Any:
    """Import `align` when a program asks for it: few do, and `import whisper` should stay quick."""
    if name != "align":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .alignment.align import align

    globals()[name] = align  # the next access finds it at once
    return align


def __dir__() -> list[str]:
    return sorted({*globals(), "align"})
