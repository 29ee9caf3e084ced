"""Sotto: OpenAI Whisper, done again.

>>> import whisper
>>> model = whisper.load_model("base")
>>> model.transcribe("audio.wav")["text"]
"""

import importlib
import os
import sys
import types
import typing

if typing.TYPE_CHECKING:
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
    from .speakers.diarize import diarize as diarize
    from .speakers.voices import enrol as enrol
    from .transcribe import iter_segments as iter_segments
    from .transcribe import transcribe as transcribe
    from .transcribe import transcribe_with_report as transcribe_with_report
    from .transcription.identify import identify_language as identify_language
    from .version import __version__ as __version__

_NAMES = {  # by the module that each is in
    "audio": "load_audio log_mel_spectrogram pad_or_trim",
    "checkpoints.load": "_download available_models load_model",
    "checkpoints.published": "_ALIGNMENT_HEADS _MODELS",
    "decoding": "DecodingOptions DecodingResult decode detect_language",
    "model": "ModelDimensions Whisper",
    "transcribe": "iter_segments transcribe transcribe_with_report",
    "transcription.identify": "identify_language",
    "version": "__version__",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
_FEW_ASK_FOR = {"align": "alignment.align", "diarize": "speakers.diarize", "enrol": "speakers.voices"}
_SUBMODULES = ("audio", "decoding", "model", "timing", "tokenizer", "utils")  # there at once, as in openai-whisper


class _Package(types.ModuleType):
    """The package, whose `transcribe` is the function, also when the module of that name is imported."""

    def __setattr__(self, name: str, value: typing.Any) -> None:
        is_module = name == "transcribe" and isinstance(value, types.ModuleType)
        super().__setattr__(name, value.transcribe if is_module else value)


def __getattr__(name: str) -> typing.Any:
    """Import what is not there yet: what few ask for; and in the command, which needs torch only at times, all else."""
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    home = _HOMES.get(name) or _FEW_ASK_FOR.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_FEW_ASK_FOR, *_SUBMODULES})


def _is_command() -> bool:
    """Whether this process is the command ``whisper``, which imports what it needs itself, and torch if it must."""
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0] if getattr(sys, "argv", None) else ""
    if name == "-m" and "-m" in sys.orig_argv:  # while ``python -m`` looks for the module of that name
        return sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] == [__name__]
    return name in ("whisper", "whisper-script")


sys.modules[__name__].__class__ = _Package
if not _is_command():  # programs for openai-whisper find its modules in `sys.modules`, to replace functions in them
    for _name in (*_SUBMODULES, *_HOMES):
        __getattr__(_name)
    del _name
