"""A model and a list of recordings to an `Evaluation`: what the model wrote for each, and every score of that.

Takes recordings from `manifests`, calls the public `transcribe`, and leaves the scores to `outcomes`. A recording
that cannot be read is kept with the reason. Prints nothing, draws nothing, and trains nothing.
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

from .audio import SAMPLE_RATE, load_audio
from .compute_types import resolve
from .decoding import DecodingOptions
from .errors import AudioError, OptionError
from .manifests import Recording, read_manifest, resolve_language
from .options import TranscribeOptions, check_names
from .outcomes import Clip, Hypothesis, plain
from .outcomes import Comparison as Comparison  # this and the next are part of what programs use from here
from .outcomes import Evaluation as Evaluation
from .outcomes import compare as compare
from .scoring import Score as Score
from .scoring import score_words as score_words
from .scoring import word_errors as word_errors
from .tokenizer import LANGUAGES

if TYPE_CHECKING:
    from .model import Whisper

Progress = Callable[[int, int], object]  # is told how many recordings of how many are done


def choose(
    recordings: Iterable[Recording], groups: Collection[str] | None = None, limit: int = 0, seed: int = 0
) -> list[Recording]:
    """Take the named groups, and of each at most `limit` recordings (0: all), drawn by `seed`; keeps the order.

    What is drawn from a group does not depend on which others there are.

    Raises
    ------
    OptionError
        There is no such group; names the nearest.
    """
    recordings = list(recordings)
    there = list(dict.fromkeys(recording.group for recording in recordings))
    for name in groups or ():
        if name not in there:
            near = get_close_matches(name, there, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, there))}"
            raise OptionError(f"no recording is of the group {name!r}; {hint}")
    taken: set[int] = set()
    for name in there if groups is None else groups:
        places = [i for i, recording in enumerate(recordings) if recording.group == name]
        if limit and len(places) > limit:
            places = random.Random(f"{seed} {name}").sample(places, limit)
        taken.update(places)
    return [recording for i, recording in enumerate(recordings) if i in taken]


def evaluate(
    model: Whisper,
    recordings: Iterable[Recording],
    *,
    name: str = "",
    language: str | None = None,
    detect_language: bool = False,
    word_timestamps: bool | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Evaluation:
    """Transcribe recordings and score what comes out.

    Parameters
    ----------
    model
        A Whisper model.
    recordings
        Rows of a manifest; see `manifests.read_manifest`.
    name
        What to call the model.
    language
        The language of all recordings; where not given, the manifest's, and for a recording without one (also
        where nobody speaks) the model's own choice.
    detect_language
        Let the model choose each recording's language, and score the choice.
    word_timestamps
        As in `transcribe`; None (or not given) times the words of those recordings whose words have times.
    cache
        A file of JSON lines that keeps each hypothesis as soon as it is there; what an earlier call with the same
        weights, options and recording has left in it is not computed again.
    progress
        Is called with the numbers of recordings done and to do.
    **options
        Further options of `transcribe`.

    Returns
    -------
    Evaluation
        Its ``clips`` are in the order of `recordings`; those that could not be read have an ``error``.

    Raises
    ------
    OptionError
        An option does not exist, or its value is wrong.
    """
    check_names(options, "evaluate", DecodingOptions, TranscribeOptions)
    if resolve_language(language or "") and detect_language:
        raise OptionError("detect_language leaves the language to the model: give no language with it")
    reader = _Reader(model, resolve_language(language or ""), detect_language, word_timestamps, options)
    kept = _Cache(cache, model, options) if cache is not None else None
    recordings = list(recordings)
    clips = []
    _reset_peak_memory(model.device)
    for done, recording in enumerate(recordings, start=1):
        clips.append(_read_one(reader, recording, kept))
        if progress is not None:
            progress(done, len(recordings))
    settings = {"language": language, "detect_language": detect_language, "word_timestamps": word_timestamps}
    return Evaluation(
        model=name,
        clips=tuple(clips),
        options=plain({**options, **settings}),
        date=time.strftime("%Y-%m-%d %H:%M"),
        machine=_machine(model),
        peak_memory=_peak_memory(model.device),
    )


class _Reader:
    """Calls `transcribe` for one recording after the other."""

    def __init__(
        self, model: Whisper, language: str | None, detect: bool, timed: bool | None, options: Mapping[str, Any]
    ) -> None:
        self.model = model
        self.language = language
        self.detect = detect
        self.timed = timed
        self.options = options
        self._last: tuple[str, np.ndarray] | None = None  # parts of one file follow each other

    def settings(self, recording: Recording) -> dict[str, Any]:
        """Return the options for a recording."""
        timed = self.timed if self.timed is not None else recording.words is not None
        return {**self.options, "language": self._language(recording), "word_timestamps": timed}

    def _language(self, recording: Recording) -> str | None:
        if not self.model.is_multilingual:
            return "en"
        known = list(LANGUAGES)[: self.model.num_languages]  # models of an earlier make know no Cantonese
        spoken = None if self.detect else self.language or resolve_language(recording.language or "")
        return spoken if spoken in known else None

    def read(self, recording: Recording) -> Hypothesis:
        """Transcribe one recording."""
        settings = self.settings(recording)
        started = time.perf_counter()
        samples = self._samples(recording)
        result = self.model.transcribe(samples, **settings)
        seconds = time.perf_counter() - started
        words = None
        if settings["word_timestamps"]:
            spoken = [word for segment in result["segments"] for word in segment.get("words", ())]
            words = tuple((word["word"].strip(), float(word["start"]), float(word["end"])) for word in spoken)
        return Hypothesis(
            text=result["text"].strip(),
            language=result["language"],
            detected=settings["language"] is None,
            duration=len(samples) / SAMPLE_RATE,
            seconds=seconds,
            words=words,
        )

    def _samples(self, recording: Recording) -> np.ndarray:
        if self._last is None or self._last[0] != recording.path:
            self._last = recording.path, load_audio(recording.path)
        samples = self._last[1]
        start = round((recording.start or 0.0) * SAMPLE_RATE)
        end = len(samples) if recording.end is None else round(recording.end * SAMPLE_RATE)
        if start >= len(samples):
            length = len(samples) / SAMPLE_RATE
            raise AudioError(f"{recording.path} is {length:.2f} s long, and the part begins at {recording.start} s")
        return samples[start:end]


def _read_one(reader: _Reader, recording: Recording, cache: _Cache | None) -> Clip:
    task = str(reader.options.get("task", DecodingOptions.task))
    if cache is not None and (known := cache.get(recording, reader.settings(recording))):
        return Clip(recording, known, task=task)
    try:
        hypothesis = reader.read(recording)
    except OptionError:  # would be the same for all of them
        raise
    except Exception as error:  # one bad recording, whatever is wrong with it, must not cost the others
        return Clip(recording, None, str(error) or type(error).__name__, task)
    if cache is not None:
        cache.put(recording, reader.settings(recording), hypothesis)
    return Clip(recording, hypothesis, task=task)


class _Cache:
    """Hypotheses in a file of JSON lines, each under a digest of all that it depends on."""

    def __init__(self, path: str | os.PathLike[str], model: Whisper, options: Mapping[str, Any]) -> None:
        self.path = path
        precision = resolve(getattr(model, "compute_type", "auto"), model.device)  # models of others have none
        self.weights = f"{_digest_weights(model)} {precision}"
        self.known: dict[str, dict[str, Any]] = {}
        self._broken = False  # the last line was cut short when a run was killed
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                for line in file:
                    self._broken = not line.endswith("\n")
                    self._learn(line)

    def _learn(self, line: str) -> None:
        try:
            told = json.loads(line)
            self.known[told.pop("key")] = told
        except (ValueError, KeyError, AttributeError, TypeError):
            return  # a line that is not ours, or half of one: it is read anew

    def _key(self, recording: Recording, settings: Mapping[str, Any]) -> str:
        try:
            file = os.stat(recording.path)
            seen: list[Any] = [file.st_size, file.st_mtime_ns]
        except OSError:
            seen = []
        part = [recording.path, recording.start, recording.end]
        told = json.dumps([self.weights, plain(settings), part, seen], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def get(self, recording: Recording, settings: Mapping[str, Any]) -> Hypothesis | None:
        told = self.known.get(self._key(recording, settings))
        if told is None:
            return None
        words = told["words"]
        return Hypothesis(**{**told, "words": None if words is None else tuple(tuple(word) for word in words)})

    def put(self, recording: Recording, settings: Mapping[str, Any], hypothesis: Hypothesis) -> None:
        line = json.dumps({"key": self._key(recording, settings), **asdict(hypothesis)}, ensure_ascii=False)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(("\n" if self._broken else "") + line + "\n")
        self._broken = False


def _digest_weights(model: Whisper) -> str:
    """A digest of some thousand numbers of each tensor: another training step changes all of them."""
    digest = hashlib.sha256(str(model.dims).encode())
    for name, tensor in model.state_dict().items():
        some = tensor.detach().flatten()[:: max(1, tensor.numel() // 1024)]
        digest.update(name.encode() + some.to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------
# The machine
# ---------------------------------------------------------------------------------------------------------


def _machine(model: Whisper) -> dict[str, str]:
    device = model.device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"
    return {"device": name, "torch": f"torch {torch.__version__}"}


def _reset_peak_memory(device: torch.device) -> None:
    """Forget the peaks of what ran before, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # not Linux: the peak is the whole process's


def _peak_memory(device: torch.device) -> dict[str, int]:
    """The most memory in use at once, in bytes: of this process, where the system tells, and on the device."""
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


def measure(model: Whisper, folder: str | os.PathLike[str], parts: Sequence[str], limit: int = 0) -> dict[str, Score]:
    """Word error rates on the named groups of a manifest, at most `limit` clips of each (0: all), greedily."""
    chosen = choose(read_manifest(folder).recordings, parts, limit)
    found = evaluate(model, chosen).scores.groups.get("set", [])
    return {group.name: group.words for group in found}
