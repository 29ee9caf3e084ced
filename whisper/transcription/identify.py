"""The language of a recording, for programs that ask for it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..audio import check_track
from ..engine.operations import cooperate
from ..errors import LanguageError
from ..options.types import check, whole
from ..speech.features import Features
from ..speech.vad import VadOptions, detecting_speech
from .backends import backend_for
from .languages import Detection, candidates, detecting_language

if TYPE_CHECKING:
    from ..audio import Source
    from ..model import Whisper


def identify_language(
    model: Whisper,
    audio: Source,
    *,
    languages: Sequence[str] | str | None = None,
    segments: int = 4,
    vad_parameters: Mapping[str, Any] | str | None = None,
    fp16: bool = True,
    audio_track: int | str | None = None,
) -> Detection:
    """Detect the language of a recording.

    Parameters
    ----------
    model
        A multilingual model.
    audio
        Path, bytes, open file, or samples at 16 kHz; see `load_audio`.
    languages
        Codes or names of the candidates, as a sequence or with commas; by default, all of the
        model's languages.
    segments
        Windows of 30 s to use, spread over the speech of the recording; a short recording may have
        fewer.
    vad_parameters
        Settings of voice activity detection; see `vad.VadOptions`.
    fp16
        Use the fastest precision that the device supports well; False is float32.
    audio_track
        Of a file with several audio tracks, the number of one, from 0, or its language.

    Returns
    -------
    Detection
        The language, and the probabilities of the recording and of its windows.

    Raises
    ------
    AudioError
        The recording cannot be read. (A RuntimeError.)
    LanguageError
        A language is unknown, or the model is English-only. (A ValueError.)
    OptionError
        Another option is wrong. (A ValueError.)
    """
    segments = check("segments", segments, whole(1))
    if not model.is_multilingual:
        raise LanguageError("this model is English-only and cannot detect languages")
    codes, vad_options = candidates(model, languages), VadOptions.of(vad_parameters)
    backend = backend_for(model, fp16)

    async def steps() -> Detection:
        features = await cooperate(Features.reading(audio, model.dims.n_mels, audio_track=check_track(audio_track)))
        speech = await cooperate(detecting_speech(features.samples, features.n_samples, vad_options))
        return await detecting_language(backend, features, int(segments), codes, speech.spans)

    detection: Detection = backend.submit(steps()).result()
    return detection
