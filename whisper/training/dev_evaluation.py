"""Evaluation during a training: the word error rate of a model on some recordings of a dev set.

Decodes greedily, in the language of the manifest, and the first window only, so recordings of more
than 30 s are skipped. What cannot be scored is listed with its reason. Evaluates models; changes
none and keeps none.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ..audio import N_FRAMES, N_SAMPLES, SAMPLE_RATE, load_audio, log_mel_spectrogram, pad_or_trim
from ..decoding import DecodingOptions, decode
from ..errors import AudioError, TrainingError
from ..evaluation.scoring import word_errors, words_of
from ..manifests.read import NON_SPEECH, ManifestEntry, read_manifest
from ..model import Whisper

BATCH_SIZE = 8  # recordings decoded together
_MAX_SECONDS = N_SAMPLES / SAMPLE_RATE


@dataclass(frozen=True)
class DevSetOptions:
    """Which recordings to evaluate on, and how."""

    manifest: str | os.PathLike[str]
    n_mels: int
    languages: Collection[str]  # that the model knows
    language: str | None = None  # of recordings whose manifest entry has none
    task: str = "transcribe"
    clips: int = 100
    seed: int = 1
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class _DevClip:
    mel: torch.Tensor  # (n_mels, n_frames), not padded
    text: str
    language: str


class DevEvaluator:
    """Called with a model, returns its word error rate.

    Raises
    ------
    TrainingError
        There is no usable recording.
    MissingDependencyError
        ``rapidfuzz`` is not installed.
    """

    def __init__(self, options: DevSetOptions) -> None:
        self._options = options
        word_errors([], ["x"])  # a missing dependency is reported now, not after an hour
        manifest = read_manifest(options.manifest, max_seconds=_MAX_SECONDS)
        self.skipped = [(entry_name(entry.line, entry.cells), entry.reason) for entry in manifest.skipped]
        usable = [recording for recording in manifest.recordings if self._check(recording)]
        if len(usable) > options.clips:
            drawn = np.random.default_rng(options.seed).choice(len(usable), options.clips, replace=False)
            usable = [usable[i] for i in sorted(drawn)]
        clips = [clip for clip in map(self._load, usable) if clip is not None]
        if not clips:
            why = examples(self.skipped) or "it has no entries"
            raise TrainingError(f"{options.manifest} has no recording to evaluate on ({why})")
        self._clips = sorted(clips, key=lambda clip: clip.language)

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def content(self) -> list[tuple[str, str, int]]:
        """Text, language and length of each recording, which identify the dev set."""
        return [(clip.text, clip.language, clip.mel.shape[1]) for clip in self._clips]

    def __call__(self, model: Whisper) -> float:
        model = model.to(self._options.device)
        errors = total = 0
        with _torch_threads(self._options.threads):
            for batch in self._batches():
                for text, clip in zip(self._transcribe(model, batch), batch, strict=True):
                    language = "en" if self._options.task == "translate" else clip.language  # of the text
                    reference = words_of(clip.text, language)
                    errors += word_errors(reference, words_of(text, language))
                    total += len(reference)
        return errors / max(total, 1)

    def _check(self, recording: ManifestEntry) -> bool:
        """Whether a recording can be scored; if not, it is added to `skipped`."""
        language, reason = recording.language or self._options.language, ""
        if language == NON_SPEECH:
            reason = "no speech: there is no reference text"
        elif not recording.text:
            reason = "empty text"
        elif language is None:
            reason = "language not given; set one for all such entries"
        elif language not in self._options.languages:
            reason = f"language {language}: the model has no token for it"
        if reason:
            self.skipped.append((recording.path, reason))
        return not reason

    def _load(self, recording: ManifestEntry) -> _DevClip | None:
        try:
            samples = load_audio(recording.path)
        except AudioError as error:
            self.skipped.append((recording.path, f"cannot be read: {error}"))
            return None
        end = None if recording.end is None else round(recording.end * SAMPLE_RATE)
        samples = samples[round((recording.start or 0.0) * SAMPLE_RATE) : end]
        seconds = len(samples) / SAMPLE_RATE
        if seconds < 0.1 or seconds > _MAX_SECONDS:
            limit = "too short" if seconds < 0.1 else f"too long for a window of {_MAX_SECONDS:.0f} s"
            self.skipped.append((recording.path, f"{limit}: {seconds:.2f} s"))
            return None
        mel = log_mel_spectrogram(samples, self._options.n_mels, padding=N_SAMPLES)[:, : len(samples) // 160]
        return _DevClip(mel.clone(), recording.text, recording.language or self._options.language or "")

    def _batches(self) -> Iterator[list[_DevClip]]:
        for language in sorted({clip.language for clip in self._clips}):
            clips = [clip for clip in self._clips if clip.language == language]
            yield from (clips[i : i + BATCH_SIZE] for i in range(0, len(clips), BATCH_SIZE))

    def _transcribe(self, model: Whisper, clips: Sequence[_DevClip]) -> list[str]:
        language = clips[0].language if model.is_multilingual else "en"
        fp16 = self._options.device != "cpu"
        options = DecodingOptions(task=self._options.task, language=language, fp16=fp16)
        mel = torch.stack([pad_or_trim(clip.mel, N_FRAMES) for clip in clips]).to(self._options.device)
        results = decode(model, mel, options)
        return [result.text for result in (results if isinstance(results, list) else [results])]


def entry_name(line: int, cells: dict[str, object]) -> str:
    """Name a skipped entry of a manifest: by its line, or by its file in a folder."""
    return f"line {line}" if line else str(cells.get("file", "an entry"))


def examples(skipped: Sequence[tuple[str, str]], count: int = 3) -> str:
    """Describe skipped recordings (name and reason), one of each kind of reason."""
    kinds = dict[str, list[str]]()
    for name, reason in skipped:
        kinds.setdefault(reason.split(":")[0], []).append(f"{name}: {reason}")
    lines = []
    for found in kinds.values():
        more = f", and {len(found) - 1} more like it" if len(found) > 1 else ""
        lines.append(f"{found[0]}{more}")
    return "; ".join(lines[:count])


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
