"""The backend `pyannote`: pyannote.audio's own pipeline, for who has its package and a token for its models.

Nothing of it comes with this package. It reads the whole recording at once, and knows no voices of `enrol`.
"""

from __future__ import annotations

import inspect
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DownloadError, MissingDependencyError, OptionError
from ..spans import SAMPLE_RATE
from .diarization import Diarization, Hints, Sound, Turn, numbered_name

VARIABLE = "SOTTO_PYANNOTE"  # in the environment: another pipeline, by its name on the hub or as a file or folder
OF_3, OF_4 = "pyannote/speaker-diarization-3.1", "pyannote/speaker-diarization-community-1"


def check_installed() -> None:
    """Raise a MissingDependencyError where pyannote.audio is not installed; imports nothing of it."""
    if find_spec("pyannote") is None or find_spec("pyannote.audio") is None:
        raise MissingDependencyError("speaker_backend='pyannote' needs pyannote.audio", "pyannote")


def diarized(sound: Sound, hints: Hints) -> Diarization:
    """Find out who speaks when; a `diarization.Backend`.

    Raises
    ------
    OptionError
        Known speakers are given.
    DownloadError
        The pipeline cannot be loaded.
    MissingDependencyError
        pyannote.audio is not installed.
    """
    if hints.known:
        raise OptionError("speaker_backend='pyannote' knows no voices: leave known_speakers out")
    if not len(sound):
        return Diarization((), (), ())
    import torch

    numbers = {"num_speakers": hints.number} if hints.number else {
        "min_speakers": hints.fewest, "max_speakers": hints.most
    }  # fmt: skip
    samples = torch.from_numpy(np.array(sound, np.float32))[None]
    given = {name: number for name, number in numbers.items() if number is not None}
    return converted(pipeline()({"waveform": samples, "sample_rate": SAMPLE_RATE}, **given))


def converted(output: Any) -> Diarization:
    """Return what a pipeline has found: an annotation (3.x), or an object that holds two of them (4.x)."""
    turns = _turns(getattr(output, "speaker_diarization", output))
    exclusive = getattr(output, "exclusive_speaker_diarization", None)
    alone = one_at_a_time(turns) if exclusive is None else _turns(exclusive)
    names = {name: numbered_name(i) for i, name in enumerate(dict.fromkeys(turn.speaker for turn in turns))}
    return Diarization(turns, alone, tuple(names)).renamed(names)


def one_at_a_time(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Return turns of which none overlap: who has begun to speak keeps the time until the end of the turn."""
    alone, end = [], 0.0
    for turn in turns:
        if turn.end > end:
            alone.append(turn._replace(start=max(turn.start, end)))
            end = turn.end
    return tuple(alone)


def _turns(annotation: Any) -> tuple[Turn, ...]:
    found = annotation.itertracks(yield_label=True)
    return tuple(sorted(Turn(float(time.start), float(time.end), str(name)) for time, _, name in found))


@lru_cache(maxsize=1)
def pipeline() -> Any:
    """Return the pipeline of this process, on the GPU where there is one; the first call loads it.

    Raises
    ------
    DownloadError
        It cannot be loaded; most often, the hub does not give it to this user.
    MissingDependencyError
        pyannote.audio is not installed.
    """
    check_installed()
    import torch
    from pyannote.audio import Pipeline

    parameter = "token" if "token" in inspect.signature(Pipeline.from_pretrained).parameters else "use_auth_token"
    name = os.environ.get(VARIABLE) or (OF_4 if parameter == "token" else OF_3)
    token = None if Path(name).exists() else _token(name)
    try:
        loaded = Pipeline.from_pretrained(name, **{parameter: token})
    except Exception as error:  # of pyannote, of the hub, of YAML: there is no common class
        raise DownloadError(f"{name} cannot be loaded ({type(error).__name__}: {error}){_advice(name)}") from error
    if loaded is None:  # 3.x prints why, and returns nothing
        raise DownloadError(f"{name} cannot be loaded{_advice(name)}")
    if torch.cuda.is_available():
        loaded.to(torch.device("cuda"))
    return loaded


def _token(name: str) -> str:
    """Return the user's token for the hub."""
    from huggingface_hub import get_token  # pyannote.audio brings it

    token = get_token()
    if not token:
        raise DownloadError(f"{name} needs a token of Hugging Face: set HF_TOKEN{_advice(name)}")
    return str(token)


def _advice(name: str) -> str:
    return "" if Path(name).exists() else f"; its terms are accepted at https://huggingface.co/{name}"
