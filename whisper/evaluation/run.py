"""Evaluate a model: transcribe labelled recordings and collect an `Evaluation` with every score.

Takes recordings from `manifests`, calls the public `transcribe`, and leaves the scores to
`results`. A recording that fails is kept with the reason. Prints nothing, draws nothing, and
trains nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..audio import SAMPLE_RATE, load_audio
from ..decoding import DecodingOptions
from ..device.precision import resolve
from ..errors import AudioError, OptionError
from ..manifests.read import ManifestEntry, read_manifest, resolve_language
from ..options.transcription import TranscribeOptions
from ..options.types import check_names
from ..tokenizer import LANGUAGES
from .results import Comparison as Comparison  # a re-export, as those below
from .results import Evaluation as Evaluation
from .results import Hypothesis, ScoredClip, to_plain
from .results import compare as compare
from .scoring import Score as Score
from .scoring import score_words as score_words
from .scoring import word_errors as word_errors

if TYPE_CHECKING:
    from ..model import Whisper

Progress = Callable[[int, int], object]  # called with the number of recordings done, and of all


def choose(
    recordings: Iterable[ManifestEntry], groups: Collection[str] | None = None, limit: int = 0, seed: int = 0
) -> list[ManifestEntry]:
    """Select groups of recordings, and a sample of each.

    Parameters
    ----------
    recordings
        The entries of a manifest.
    groups
        Names of the groups; None selects all.
    limit
        The most recordings of each group, drawn by `seed`; 0 takes all. The sample from a group
        does not depend on the other groups.
    seed
        Of the draw.

    Returns
    -------
    list of ManifestEntry
        In the order of `recordings`.

    Raises
    ------
    OptionError
        There is no such group; the message names the nearest.
    """
    recordings = list(recordings)
    present = list(dict.fromkeys(recording.group for recording in recordings))
    for name in groups or ():
        if name not in present:
            near = get_close_matches(name, present, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, present))}"
            raise OptionError(f"there is no recording in the group {name!r}; {hint}")
    selected: set[int] = set()
    for name in present if groups is None else groups:
        indices = [i for i, recording in enumerate(recordings) if recording.group == name]
        if limit and len(indices) > limit:
            indices = random.Random(f"{seed} {name}").sample(indices, limit)
        selected.update(indices)
    return [recording for i, recording in enumerate(recordings) if i in selected]


def evaluate(
    model: Whisper,
    recordings: Iterable[ManifestEntry],
    *,
    name: str = "",
    language: str | None = None,
    detect_language: bool = False,
    word_timestamps: bool | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Evaluation:
    """Transcribe recordings and score the results.

    Parameters
    ----------
    model
        A Whisper model.
    recordings
        Entries of a manifest; see `manifests.read_manifest`.
    name
        Name of the model in the results.
    language
        The language of all recordings. By default the manifest's; for a recording without one (also
        non-speech) the model detects it.
    detect_language
        Let the model detect each recording's language, and score the detection.
    word_timestamps
        As in `transcribe`; by default for those recordings whose words are labelled with times.
    cache
        A file of JSON lines to which each hypothesis is appended at once. A hypothesis of an
        earlier call with the same weights, options and recording is not computed again.
    progress
        Called with the number of recordings done, and of all.
    **options
        Further options of `transcribe`.

    Returns
    -------
    Evaluation
        Its ``clips`` are in the order of `recordings`; those that failed have an ``error``.

    Raises
    ------
    OptionError
        An option does not exist, or its value is wrong.
    """
    check_names(options, "evaluate", DecodingOptions, TranscribeOptions)
    if resolve_language(language or "") and detect_language:
        raise OptionError("detect_language leaves the language to the model: do not give language as well")
    transcriber = _Transcriber(model, resolve_language(language or ""), detect_language, word_timestamps, options)
    known = _Cache(cache, model) if cache is not None else None
    recordings = list(recordings)
    clips = []
    _reset_peak_memory(model.device)
    for done, recording in enumerate(recordings, start=1):
        clips.append(_transcribe_one(transcriber, recording, known))
        if progress is not None:
            progress(done, len(recordings))
    settings = {"language": language, "detect_language": detect_language, "word_timestamps": word_timestamps}
    return Evaluation(
        model=name,
        clips=tuple(clips),
        options=to_plain({**options, **settings}),
        date=time.strftime("%Y-%m-%d %H:%M"),
        machine=_machine(model),
        peak_memory=_peak_memory(model.device),
    )


class _Transcriber:
    """Calls `transcribe` for one recording after the other."""

    def __init__(
        self,
        model: Whisper,
        language: str | None,
        detect_language: bool,
        word_timestamps: bool | None,
        options: Mapping[str, Any],
    ) -> None:
        self.model = model
        self.language = language
        self.detect_language = detect_language
        self.word_timestamps = word_timestamps
        self.options = options
        self._decoded: tuple[str, np.ndarray] | None = None  # the last file: parts of one file follow each other

    def settings(self, recording: ManifestEntry) -> dict[str, Any]:
        """Return the options for a recording."""
        timed = recording.words is not None if self.word_timestamps is None else self.word_timestamps
        return {**self.options, "language": self._language(recording), "word_timestamps": timed}

    def _language(self, recording: ManifestEntry) -> str | None:
        if not self.model.is_multilingual:
            return "en"
        known = list(LANGUAGES)[: self.model.num_languages]  # models before large-v3 have no Cantonese
        language = None if self.detect_language else self.language or resolve_language(recording.language or "")
        return language if language in known else None

    def transcribe(self, recording: ManifestEntry) -> Hypothesis:
        """Transcribe one recording."""
        settings = self.settings(recording)
        started = time.perf_counter()
        samples = self._samples(recording)
        result = self.model.transcribe(samples, **settings)
        seconds = time.perf_counter() - started
        words = None
        if settings["word_timestamps"]:
            found = [word for segment in result["segments"] for word in segment.get("words", ())]
            words = tuple((word["word"].strip(), float(word["start"]), float(word["end"])) for word in found)
        return Hypothesis(
            text=result["text"].strip(),
            language=result["language"],
            detected=settings["language"] is None,
            duration=len(samples) / SAMPLE_RATE,
            seconds=seconds,
            words=words,
        )

    def _samples(self, recording: ManifestEntry) -> np.ndarray:
        if self._decoded is None or self._decoded[0] != recording.path:
            self._decoded = recording.path, load_audio(recording.path)
        samples = self._decoded[1]
        start = round((recording.start or 0.0) * SAMPLE_RATE)
        end = len(samples) if recording.end is None else round(recording.end * SAMPLE_RATE)
        if start >= len(samples):
            length = len(samples) / SAMPLE_RATE
            raise AudioError(f"{recording.path} is {length:.2f} s long, and the part begins at {recording.start} s")
        return samples[start:end]


def _transcribe_one(transcriber: _Transcriber, recording: ManifestEntry, cache: _Cache | None) -> ScoredClip:
    task = str(transcriber.options.get("task", DecodingOptions.task))
    settings = transcriber.settings(recording)
    if cache is not None:
        known = cache.get(recording, settings)
        if known is not None:
            return ScoredClip(recording, known, task=task)
    try:
        hypothesis = transcriber.transcribe(recording)
    except OptionError:  # the same for every recording
        raise
    except Exception as error:  # one recording must not end the evaluation, whatever is wrong with it
        return ScoredClip(recording, None, str(error) or type(error).__name__, task)
    if cache is not None:
        cache.put(recording, settings, hypothesis)
    return ScoredClip(recording, hypothesis, task=task)


class _Cache:
    """Hypotheses in a file of JSON lines, each under a digest of everything that it depends on."""

    def __init__(self, path: str | os.PathLike[str], model: Whisper) -> None:
        self.path = path
        precision = resolve(getattr(model, "compute_type", "auto"), model.device)  # other models lack compute_type
        self.weights = f"{_digest_weights(model)} {precision}"
        self.known: dict[str, dict[str, Any]] = {}
        self._incomplete = False  # the last line is incomplete: a run was killed
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                for line in file:
                    self._incomplete = not line.endswith("\n")
                    self._add_line(line)

    def _add_line(self, line: str) -> None:
        try:
            values = json.loads(line)
            self.known[values.pop("key")] = values
        except (ValueError, KeyError, AttributeError, TypeError):
            return  # an incomplete or foreign line: its recording is transcribed again

    def _key(self, recording: ManifestEntry, settings: Mapping[str, Any]) -> str:
        try:
            status = os.stat(recording.path)
            version: list[Any] = [status.st_size, status.st_mtime_ns]
        except OSError:
            version = []
        part = [recording.path, recording.start, recording.end]
        content = json.dumps([self.weights, to_plain(settings), part, version], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def get(self, recording: ManifestEntry, settings: Mapping[str, Any]) -> Hypothesis | None:
        values = self.known.get(self._key(recording, settings))
        if values is None:
            return None
        words = values["words"]
        return Hypothesis(**{**values, "words": None if words is None else tuple(tuple(word) for word in words)})

    def put(self, recording: ManifestEntry, settings: Mapping[str, Any], hypothesis: Hypothesis) -> None:
        line = json.dumps({"key": self._key(recording, settings), **asdict(hypothesis)}, ensure_ascii=False)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(("\n" if self._incomplete else "") + line + "\n")
        self._incomplete = False


def _digest_weights(model: Whisper) -> str:
    """A digest of about a thousand values of each tensor: any training step changes them."""
    digest = hashlib.sha256(str(model.dims).encode())
    for name, tensor in model.state_dict().items():
        sample = tensor.detach().flatten()[:: max(1, tensor.numel() // 1024)]
        digest.update(name.encode() + sample.to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()


# --------------------------------------------------------------------------------------------------
# The machine
# --------------------------------------------------------------------------------------------------


def _machine(model: Whisper) -> dict[str, str]:
    device = model.device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"
    return {"device": name, "torch": f"torch {torch.__version__}"}


def _reset_peak_memory(device: torch.device) -> None:
    """Reset the peak counters, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # not Linux: the peak covers the whole life of the process


def _peak_memory(device: torch.device) -> dict[str, int]:
    """Peak memory in bytes: of this process, where the system counts it, and of the device."""
    peak = {}
    try:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    except ImportError:  # Windows
        pass
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


def measure(model: Whisper, folder: str | os.PathLike[str], groups: Sequence[str], limit: int = 0) -> dict[str, Score]:
    """Word error rates on groups of a manifest, at most `limit` clips of each (0: all)."""
    recordings = choose(read_manifest(folder).recordings, groups, limit)
    scores = evaluate(model, recordings).scores.groups.get("set", [])
    return {score.name: score.words for score in scores}
