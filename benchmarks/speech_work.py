"""What one process of same.py, accuracy.py and speech_speed.py does: one implementation transcribes real speech.

Runs in each implementation's own Python, so it needs nothing but numpy at the top. Sound comes as arrays in memory,
16 kHz, float32, so that everybody hears the same. Options have openai-whisper's names; `FasterWhisper` and
`WhisperCpp` translate them. A result has openai-whisper's keys, as far as the implementation gives them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16000
Options = dict[str, Any]
Transcript = dict[str, Any]


class Implementation:
    """A Whisper with its weights loaded."""

    def __init__(self, weights: dict[str, str], threads: int) -> None:
        """Load; `weights` has the model's ``name`` and where its formats lie: ``pt``, ``ct2``, ``ggml-q8_0`` ..."""
        raise NotImplementedError

    def transcribe(self, samples: np.ndarray, options: Options) -> Transcript:
        """Transcribe a recording."""
        raise NotImplementedError

    def transcribe_all(self, recordings: list[np.ndarray], options: Options) -> list[Transcript]:
        """Transcribe several recordings, in the fastest way that the implementation offers for that."""
        return [self.transcribe(samples, options) for samples in recordings]

    def first_segment(self, samples: np.ndarray, options: Options) -> float:
        """Return the seconds from the call to the first segment that a program gets to see."""
        began = time.perf_counter()
        self.transcribe(samples, options)
        return time.perf_counter() - began


class Original(Implementation):
    """openai-whisper. It hands out nothing before the whole recording is done."""

    load_options: Options = {}  # noqa: RUF012
    options: Options = {"fp16": False}  # noqa: RUF012

    def __init__(self, weights: dict[str, str], threads: int) -> None:
        import torch

        import whisper

        torch.set_num_threads(threads)
        self.torch = torch
        self.model = whisper.load_model(weights["pt"], device="cpu", **self.load_options)
        # a checkpoint that is loaded by its path has no alignment heads of its own
        self.model.set_alignment_heads(whisper._ALIGNMENT_HEADS[weights["name"]])

    def transcribe(self, samples: np.ndarray, options: Options) -> Transcript:
        self.torch.manual_seed(0)  # of the draws at temperatures above 0
        return dict(self.model.transcribe(samples, **self.options, **options))


class Sotto(Original):
    """Sotto in its default precision, recording by recording."""

    options: Options = {"fp16": True}  # noqa: RUF012

    def __init__(self, weights: dict[str, str], threads: int) -> None:
        super().__init__(weights, threads)
        from whisper.runtime import select

        if not select.usable(self.model):
            raise SystemExit("whisper.runtime.select.usable() says no here; there is nothing to measure")

    def first_segment(self, samples: np.ndarray, options: Options) -> float:
        import whisper

        began = time.perf_counter()
        segments = whisper.iter_segments(self.model, samples, **self.options, **options)
        next(iter(segments), None)
        return time.perf_counter() - began


class SottoFloat32(Sotto):
    """Sotto, exact."""

    load_options: Options = {"compute_type": "float32"}  # noqa: RUF012
    options: Options = {"fp16": False}  # noqa: RUF012


class SottoBfloat16(Sotto):
    load_options: Options = {"compute_type": "bfloat16"}  # noqa: RUF012


class SottoInt8(Sotto):
    load_options: Options = {"compute_type": "int8"}  # noqa: RUF012


class SottoWholeContext(Sotto):
    """The encoder reads 30 s, whatever the sound."""

    options: Options = {"fp16": True, "audio_context": "full"}  # noqa: RUF012


def batched(kind: type[Sotto]) -> type[Sotto]:
    """Let several recordings run side by side; a long one that is alone has ``batch_size`` among its options."""

    class Batched(kind):  # type: ignore[misc, valid-type]
        def transcribe_all(self, recordings: list[np.ndarray], options: Options) -> list[Transcript]:
            self.torch.manual_seed(0)
            return list(self.model.transcribe(recordings, **self.options, **options))

    return Batched


class FasterWhisper(Implementation):
    """faster-whisper, one recording after the other."""

    compute_type = "int8"
    extra: Options = {}  # noqa: RUF012

    def __init__(self, weights: dict[str, str], threads: int) -> None:
        import ctranslate2
        from faster_whisper import WhisperModel

        ctranslate2.set_random_seed(0)
        self.model = WhisperModel(weights["ct2"], device="cpu", compute_type=self.compute_type, cpu_threads=threads)

    def stream(self, samples: np.ndarray, options: Options) -> tuple[Iterator[Any], Any]:
        return self.model.transcribe(samples, **translated(options), **self.extra)

    def transcribe(self, samples: np.ndarray, options: Options) -> Transcript:
        segments, info = self.stream(samples, options)
        told = [segment_of(segment) for segment in segments]
        return {"text": "".join(segment["text"] for segment in told), "language": info.language, "segments": told}

    def first_segment(self, samples: np.ndarray, options: Options) -> float:
        began = time.perf_counter()
        next(self.stream(samples, options)[0], None)
        return time.perf_counter() - began


class FasterWhisperFloat32(FasterWhisper):
    compute_type = "float32"


class FasterWhisperVad(FasterWhisper):
    extra: Options = {"vad_filter": True}  # noqa: RUF012


class FasterWhisperBatched(FasterWhisper):
    """Its BatchedInferencePipeline, with its own defaults: without timestamps, batches of 8.

    It batches only within one call, pieces of a recording found by voice activity detection. So several recordings are
    put one behind the other, each a clip.
    """

    def __init__(self, weights: dict[str, str], threads: int) -> None:
        from faster_whisper import BatchedInferencePipeline

        super().__init__(weights, threads)
        self.pipeline = BatchedInferencePipeline(self.model)

    def stream(self, samples: np.ndarray, options: Options) -> tuple[Iterator[Any], Any]:
        return self.pipeline.transcribe(samples, **translated(options))

    def transcribe_all(self, recordings: list[np.ndarray], options: Options) -> list[Transcript]:
        if max(map(len, recordings)) > 30 * RATE or len(recordings) == 1:  # it cuts those itself
            return super().transcribe_all(recordings, options)
        edges = np.cumsum([0, *map(len, recordings)]) / RATE
        clips = [{"start": start, "end": end} for start, end in itertools.pairwise(edges.tolist())]
        joined = {**options, "clip_timestamps": clips, "vad_filter": False}
        segments = self.transcribe(np.concatenate(recordings), joined)["segments"]
        found: list[Transcript] = [{"text": "", "segments": []} for _ in recordings]
        for segment in segments:
            one = found[min(int(np.searchsorted(edges[1:], segment["start"], "right")), len(recordings) - 1)]
            one["segments"].append(segment)
            one["text"] += segment["text"]
        return found


def translated(options: Options) -> Options:
    """Name options as faster-whisper does, with openai-whisper's defaults: greedy, one sample when it draws."""
    renamed = {"logprob_threshold": "log_prob_threshold"}
    return {"beam_size": 1, "best_of": 1, **{renamed.get(name, name): value for name, value in options.items()}}


def segment_of(segment: Any) -> dict[str, Any]:
    """Return a segment of faster-whisper with openai-whisper's keys."""
    names = ("id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio")
    told = {name: getattr(segment, name) for name in (*names, "no_speech_prob")}
    if segment.words is not None:
        told["words"] = [{key: getattr(w, key) for key in ("word", "start", "end", "probability")}
                         for w in segment.words]  # fmt: skip
    return told


class WhisperCpp(Implementation):
    """whisper.cpp with flash attention, through the bare binding of pywhispercpp. No word times: its are of tokens."""

    format = "ggml-q8_0"

    def __init__(self, weights: dict[str, str], threads: int) -> None:
        import _pywhispercpp as cpp

        self.cpp, self.threads = cpp, threads
        options = cpp.whisper_context_default_params()
        options.use_gpu, options.flash_attn = False, True
        self.context = cpp.whisper_init_from_file_with_params(weights[self.format], options)

    def transcribe(self, samples: np.ndarray, options: Options) -> Transcript:
        self.run(samples, options)
        n = self.cpp.whisper_full_n_segments(self.context)
        segments = [self.segment(i) for i in range(n)]
        language = self.cpp.whisper_lang_str(self.cpp.whisper_full_lang_id(self.context))
        return {"text": "".join(segment["text"] for segment in segments), "language": language, "segments": segments}

    def segment(self, i: int) -> dict[str, Any]:
        text = self.cpp.whisper_full_get_segment_text(self.context, i)
        return {
            "start": self.cpp.whisper_full_get_segment_t0(self.context, i) / 100,
            "end": self.cpp.whisper_full_get_segment_t1(self.context, i) / 100,
            "text": text.decode("utf-8", "replace") if isinstance(text, bytes) else text,
        }

    def run(self, samples: np.ndarray, options: Options, new_segment: Callable[..., None] | None = None) -> None:
        beam = options.get("beam_size", 1)
        kinds = self.cpp.whisper_sampling_strategy
        kind = kinds.WHISPER_SAMPLING_BEAM_SEARCH if beam > 1 else kinds.WHISPER_SAMPLING_GREEDY
        chosen = self.cpp.whisper_full_default_params(kind)
        if beam > 1:
            chosen.beam_search = {"beam_size": beam, "patience": -1.0}
        else:
            chosen.greedy = {"best_of": 1}
        chosen.n_threads, chosen.language = self.threads, options.get("language") or "auto"
        chosen.no_context = not options.get("condition_on_previous_text", True)
        chosen.print_progress = chosen.print_realtime = chosen.print_timestamps = False
        if options.get("temperature") == 0:
            chosen.temperature_inc = 0.0
        if new_segment is not None:
            self.cpp.assign_new_segment_callback(chosen, new_segment)
        self.cpp.whisper_full(self.context, chosen, samples, len(samples))

    def first_segment(self, samples: np.ndarray, options: Options) -> float:
        began, seen = time.perf_counter(), []
        self.run(samples, options, lambda *_: seen.append(time.perf_counter() - began))
        return float(seen[0]) if seen else time.perf_counter() - began


class WhisperCppFloat16(WhisperCpp):
    format = "ggml-f16"


IMPLEMENTATIONS: dict[str, type[Implementation]] = {
    "openai-whisper": Original,
    "faster-whisper float32": FasterWhisperFloat32,
    "faster-whisper int8": FasterWhisper,
    "faster-whisper int8 vad": FasterWhisperVad,
    "faster-whisper int8 batched": FasterWhisperBatched,
    "whisper.cpp f16": WhisperCppFloat16,
    "whisper.cpp q8_0": WhisperCpp,
    "sotto float32": SottoFloat32,
    "sotto float32 batched": batched(SottoFloat32),
    "sotto bfloat16": SottoBfloat16,
    "sotto int8": SottoInt8,
    "sotto": Sotto,
    "sotto batched": batched(Sotto),
    "sotto whole context": SottoWholeContext,
    "sotto whole context batched": batched(SottoWholeContext),
}


# ---------------------------------------------------------------------------------------------------------
# Jobs to lines of JSON
# ---------------------------------------------------------------------------------------------------------


def work(implementation: Implementation, jobs: list[dict[str, Any]], results: Path, n_at_once: int) -> None:
    """Transcribe the jobs, up to `n_at_once` with the same options in one call, and add a line for each at once."""
    for options, same in itertools.groupby(jobs, lambda job: job["options"]):
        for group in batches(list(same), n_at_once):
            recordings = [np.load(job["path"]) for job in group]
            began, cpu = time.perf_counter(), time.process_time()
            try:
                transcripts = implementation.transcribe_all(recordings, options)
            except Exception as error:  # whatever it is, it is told, and the others go on
                transcripts = [{"error": f"{type(error).__name__}: {error}"}] * len(group)
            spent = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
            with open(results, "a", encoding="utf-8") as file:
                for job, transcript in zip(group, transcripts, strict=True):
                    line = {key: job[key] for key in ("version", "name", "options")} | transcript
                    line |= {what: seconds / len(group) for what, seconds in spent.items()}
                    file.write(json.dumps(line, default=float, ensure_ascii=False) + "\n")


def batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Cut a list into pieces of `size`."""
    return (items[i : i + size] for i in range(0, len(items), size))


# ---------------------------------------------------------------------------------------------------------
# Speed
# ---------------------------------------------------------------------------------------------------------


def measure(kind: type[Implementation], asked: dict[str, Any], threads: int) -> dict[str, Any]:
    """Load, and time each of the sets that are asked for, in one process.

    Of each set: seconds, peak memory in MB, words of text (to see that all did the same work), and, where asked for,
    seconds to the first segment.
    """
    began = time.perf_counter()
    implementation = kind(asked["weights"], threads)
    told: dict[str, Any] = {"load": time.perf_counter() - began}
    implementation.transcribe(np.load(asked["warm_up"]), {"language": "en"})
    for name, one in asked["sets"].items():
        recordings, options = [np.load(path) for path in one["paths"]], one["options"]
        reset_peak()
        began = time.perf_counter()
        transcripts = implementation.transcribe_all(recordings, options)
        told[name] = {"seconds": time.perf_counter() - began, "peak": peak_memory()}
        told[name]["texts"] = [transcript["text"] for transcript in transcripts]
        told[name]["words"] = sum(len(transcript["text"].split()) for transcript in transcripts)
        if one.get("first"):
            told[name]["first"] = implementation.first_segment(recordings[0], options)
    return told


def reset_peak() -> None:
    """Let the system count this process' peak memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Return the peak of this process since then, in MB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("implementation", choices=IMPLEMENTATIONS)
    parser.add_argument(
        "jobs", type=Path, help="JSON: the weights, and either jobs (version, name, path, options) or sets"
    )
    parser.add_argument("results", type=Path, help="JSON lines, to which is added")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    asked = json.loads(arguments.jobs.read_text(encoding="utf-8"))
    kind = IMPLEMENTATIONS[arguments.implementation]
    if "sets" in asked:
        line = json.dumps(measure(kind, asked, arguments.threads))
        arguments.results.write_text(line, encoding="utf-8")
    else:
        work(kind(asked["weights"], arguments.threads), asked["jobs"], arguments.results, arguments.at_once)


if __name__ == "__main__":
    main()
