"""Listening while a training runs: the word error rate of a model on some recordings of a dev set.

Reads greedily, in the language that the manifest names, and the first window alone, so recordings of more than 30 s
are left out. What cannot be scored is listed with its reason. Judges models; changes none and keeps none.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from .audio import N_FRAMES, N_SAMPLES, SAMPLE_RATE, load_audio, log_mel_spectrogram, pad_or_trim
from .decoding import DecodingOptions, decode
from .errors import AudioError, TrainingError
from .manifests import NOBODY, Recording, read_manifest
from .model import Whisper
from .scoring import word_errors, words_of

BATCH = 8  # recordings read at a time
_LONGEST = N_SAMPLES / SAMPLE_RATE  # seconds


@dataclass(frozen=True)
class Listening:
    """What to listen on, and how."""

    manifest: str | os.PathLike[str]
    n_mels: int
    languages: Collection[str]  # that the model knows
    language: str | None = None  # of recordings whose manifest does not say
    task: str = "transcribe"
    clips: int = 100
    seed: int = 1
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class _Clip:
    mel: torch.Tensor  # (n_mels, n_frames), not padded
    text: str
    language: str


class Listener:
    """Call it with a model: gives word errors a word.

    Raises
    ------
    TrainingError
        No recording can be listened to, or ``rapidfuzz`` is missing.
    """

    def __init__(self, listening: Listening) -> None:
        self._how = listening
        word_errors([], ["x"])  # says now, not after an hour, that what it needs is not installed
        manifest = read_manifest(listening.manifest, max_seconds=_LONGEST)
        self.skipped = [(bad_row_name(bad.line, bad.row), bad.reason) for bad in manifest.skipped]
        usable = [recording for recording in manifest.recordings if not self._left_out(recording)]
        if len(usable) > listening.clips:
            drawn = np.random.default_rng(listening.seed).choice(len(usable), listening.clips, replace=False)
            usable = [usable[i] for i in sorted(drawn)]
        clips = [clip for recording in usable if (clip := self._load(recording)) is not None]
        if not clips:
            why = examples(self.skipped) or "it has no rows"
            raise TrainingError(f"{listening.manifest} has no recording that can be listened to ({why})")
        self._clips = sorted(clips, key=lambda clip: clip.language)

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def content(self) -> list[tuple[str, str, int]]:
        """Text, language and length of each recording: another dev set has another content."""
        return [(clip.text, clip.language, clip.mel.shape[1]) for clip in self._clips]

    def __call__(self, model: Whisper) -> float:
        model = model.to(self._how.device)
        errors = total = 0
        with _threads(self._how.threads):
            for batch in self._batches():
                for text, clip in zip(self._read(model, batch), batch, strict=True):
                    language = "en" if self._how.task == "translate" else clip.language  # of the text
                    expected = words_of(clip.text, language)
                    errors += word_errors(expected, words_of(text, language))
                    total += len(expected)
        return errors / max(total, 1)

    def _left_out(self, recording: Recording) -> bool:
        language, reason = recording.language or self._how.language, ""
        if language == NOBODY:
            reason = "nobody speaks: there is no word to get right"
        elif not recording.text:
            reason = "empty text"
        elif language is None:
            reason = "language not given; name one for all such rows"
        elif language not in self._how.languages:
            reason = f"language {language}: the model has no token for it"
        if reason:
            self.skipped.append((recording.path, reason))
        return bool(reason)

    def _load(self, recording: Recording) -> _Clip | None:
        try:
            samples = load_audio(recording.path)
        except AudioError as error:
            self.skipped.append((recording.path, f"cannot be read: {error}"))
            return None
        end = None if recording.end is None else round(recording.end * SAMPLE_RATE)
        samples = samples[round((recording.start or 0.0) * SAMPLE_RATE) : end]
        seconds = len(samples) / SAMPLE_RATE
        if seconds < 0.1 or seconds > _LONGEST:
            limit = "too short" if seconds < 0.1 else f"too long for a window of {_LONGEST:.0f} s"
            self.skipped.append((recording.path, f"{limit}: {seconds:.2f} s"))
            return None
        mel = log_mel_spectrogram(samples, self._how.n_mels, padding=N_SAMPLES)[:, : len(samples) // 160]
        return _Clip(mel.clone(), recording.text, recording.language or self._how.language or "")

    def _batches(self) -> Iterator[list[_Clip]]:
        for language in sorted({clip.language for clip in self._clips}):
            clips = [clip for clip in self._clips if clip.language == language]
            yield from (clips[i : i + BATCH] for i in range(0, len(clips), BATCH))

    def _read(self, model: Whisper, clips: Sequence[_Clip]) -> list[str]:
        language = clips[0].language if model.is_multilingual else "en"
        options = DecodingOptions(task=self._how.task, language=language, fp16=self._how.device != "cpu")
        mel = torch.stack([pad_or_trim(clip.mel, N_FRAMES) for clip in clips]).to(self._how.device)
        results = decode(model, mel, options)
        return [result.text for result in (results if isinstance(results, list) else [results])]


def bad_row_name(line: int, row: dict[str, object]) -> str:
    """What to call a row that a manifest could not give: its line, or its file where rows are files."""
    return f"line {line}" if line else str(row.get("file", "a row"))


def examples(rows: Sequence[tuple[str, str]], count: int = 3) -> str:
    """Rows that are left out, one for each reason."""
    reasons = dict[str, list[str]]()
    for what, reason in rows:
        reasons.setdefault(reason.split(":")[0], []).append(f"{what}: {reason}")
    told = [f"{found[0]}{f', and {len(found) - 1} more like it' if found[1:] else ''}" for found in reasons.values()]
    return "; ".join(told[:count])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
