"""Sound files for jobs, and a model that says something of any sound."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from ..models import random_model, save_model


def write_wav(path: Path, seconds: float, seed: int, n_channels: int = 1) -> Path:
    """Write noise, 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal((round(16000 * seconds), n_channels)) * 3000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(n_channels)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(noise.astype("<i2").tobytes())
    return path


def talking_model(folder: Path) -> str:
    """Write a checkpoint whose model writes text for any sound; returns its path."""
    return str(save_model(random_model(3), folder / "talks.pt"))


# of runs with that model: quick, and the same on all machines
OPTIONS = {"language": "en", "temperature": 0.0, "sample_len": 12, "compute_type": "float32"}
FLAGS = ["--language", "en", "--temperature_increment_on_fallback", "None", "--sample_len", "12"]
FLAGS += ["--compute_type", "float32"]
