"""What one process of benchmarks/rivals.py does: one measurement of one implementation, told as a line of JSON.

Runs in each implementation's own Python, so it needs nothing but numpy at the top. Every implementation gets sound as
an array in memory, the language, no fallback, and weights that never say "end of text" (see rival_models.py), and
must then answer with exactly `N_TOKENS` tokens for each window of 30 s; one that does not is an error.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before anything heavy, for the measurement of start-up

import argparse  # noqa: E402
import json  # noqa: E402
import re  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

N_TOKENS = 100
RATE = 16000
SECONDS = (21, 58, 33, 46, 27, 60, 38, 52, 24, 44, 31, 55, 29, 49, 36, 41)  # sixteen recordings
PROMPT = [50258, 50259, 50359, 50363]  # start of transcript, English, transcribe, no timestamps


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Return noise as loud as speech."""
    return np.random.default_rng(seed).normal(size=int(seconds * RATE)).astype(np.float32) * 0.05


class Rival:
    """An implementation with its weights loaded. Each method does one thing once; the caller times it."""

    def __init__(self, folder: Path, threads: int) -> None:
        raise NotImplementedError

    def encode(self) -> float:
        """Encode the window; return the seconds that it took."""
        raise NotImplementedError

    def window(self, beam: int) -> tuple[float, Sequence[int]]:
        """Decode the window, encoder included, features excluded; return the seconds and the tokens."""
        raise NotImplementedError

    def transcribe(self, samples: np.ndarray, words: bool = False) -> int:
        """Transcribe a recording from its samples; return the number of windows it took."""
        raise NotImplementedError

    def batch(self, recordings: list[np.ndarray]) -> int:
        """Transcribe recordings at once, in the fastest way there is; return the number of tokens."""
        raise NotImplementedError


class Original(Rival):
    """openai-whisper; Sotto answers to the same calls."""

    options: dict[str, Any] = {"fp16": False}  # noqa: RUF012
    load_options: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, folder: Path, threads: int) -> None:
        import torch

        import whisper

        torch.set_num_threads(threads)
        self.torch, self.whisper = torch, whisper
        self.model = whisper.load_model(str(folder / "model.pt"), device="cpu", **self.load_options)
        self.mel = None

    def features(self) -> Any:
        if self.mel is None:
            self.mel = self.whisper.log_mel_spectrogram(sound(30), self.model.dims.n_mels)
        return self.mel

    def encode(self) -> float:
        mel = self.features()[None]
        started = time.perf_counter()
        with self.torch.no_grad():
            self.model.encoder(mel)
        return time.perf_counter() - started

    def window(self, beam: int) -> tuple[float, Sequence[int]]:
        mel = self.features()
        options = self.whisper.DecodingOptions(
            language="en", beam_size=beam if beam > 1 else None, sample_len=N_TOKENS, without_timestamps=True,
            **self.options,
        )  # fmt: skip
        started = time.perf_counter()
        result = self.model.decode(mel, options)
        return time.perf_counter() - started, result.tokens

    def transcribe(self, samples: np.ndarray, words: bool = False) -> int:
        result = self.model.transcribe(
            samples, **self.whole_file(), **({"word_timestamps": True} if words else {"without_timestamps": False})
        )
        return len({segment["seek"] for segment in result["segments"]})

    def whole_file(self) -> dict[str, Any]:
        return {
            "language": "en", "temperature": 0.0, "sample_len": N_TOKENS, "condition_on_previous_text": False,
            "compression_ratio_threshold": None, "logprob_threshold": None, "no_speech_threshold": None,
            **self.options,
        }  # fmt: skip


class Sotto(Original):
    """Sotto as it is by default: in the fastest precision of the processor."""

    options = {"fp16": True}  # noqa: RUF012
    load_options = {"compute_type": "auto"}  # noqa: RUF012

    def __init__(self, folder: Path, threads: int) -> None:
        super().__init__(folder, threads)
        from whisper.runtime import select

        self.runner = select.runner_for(self.model, self.options["fp16"]) if select.usable(self.model) else None
        if self.runner is None:
            raise SystemExit("whisper.runtime.select.usable() says no here; there is nothing to measure")

    def encode(self) -> float:
        mel = self.features()
        started = time.perf_counter()
        self.runner.encode([mel])
        return time.perf_counter() - started

    def batch(self, recordings: list[np.ndarray]) -> int:
        results = self.model.transcribe(recordings, without_timestamps=True, **self.whole_file())
        return count_tokens(segment["tokens"] for result in results for segment in result["segments"])

    def one_by_one(self, recordings: list[np.ndarray]) -> int:
        return sum(
            count_tokens(
                segment["tokens"]
                for segment in self.model.transcribe(samples, without_timestamps=True, **self.whole_file())["segments"]
            )
            for samples in recordings
        )


class SottoFloat32(Sotto):
    """Sotto, exact."""

    options = {"fp16": False}  # noqa: RUF012
    load_options = {"compute_type": "float32"}  # noqa: RUF012


class FasterWhisper(Rival):
    """faster-whisper, int8: the fastest precision that CTranslate2 has on a CPU."""

    def __init__(self, folder: Path, threads: int) -> None:
        from faster_whisper import WhisperModel

        self.model = WhisperModel(str(folder / "ct2"), device="cpu", compute_type="int8", cpu_threads=threads)
        self.mel = None

    def features(self) -> np.ndarray:
        if self.mel is None:
            self.mel = self.model.feature_extractor(sound(30))[..., :3000]
        return self.mel

    def encode(self) -> float:
        mel = self.features()
        started = time.perf_counter()
        self.model.encode(mel)
        return time.perf_counter() - started

    def window(self, beam: int) -> tuple[float, Sequence[int]]:
        mel = self.features()
        started = time.perf_counter()
        result = self.model.model.generate(
            self.model.encode(mel), [PROMPT], beam_size=beam, max_length=2 * N_TOKENS,  # half of it may be generated
        )[0]  # fmt: skip
        return time.perf_counter() - started, result.sequences_ids[0]

    options: dict[str, Any] = {  # noqa: RUF012
        "language": "en", "beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False,
        "compression_ratio_threshold": None, "log_prob_threshold": None, "no_speech_threshold": None,
    }  # fmt: skip

    def transcribe(self, samples: np.ndarray, words: bool = False) -> int:
        # one token less of prompt than without timestamps
        limit = 2 * N_TOKENS - len(PROMPT) + 1
        segments, _ = self.model.transcribe(samples, **self.options, max_new_tokens=limit, word_timestamps=words)
        return len({segment.seek for segment in segments})

    def batch(self, recordings: list[np.ndarray]) -> int:
        """Put the recordings one behind the other: only windows of one call share its batches."""
        from faster_whisper import BatchedInferencePipeline

        clips, at = [], 0.0
        for samples in recordings:
            seconds = len(samples) / RATE
            starts = np.arange(0, seconds, 30.0)
            clips += [{"start": at + s, "end": at + min(s + 30.0, seconds)} for s in starts]
            at += seconds
        segments, _ = BatchedInferencePipeline(self.model).transcribe(
            np.concatenate(recordings), **self.options, vad_filter=False, clip_timestamps=clips, batch_size=8,
            without_timestamps=True, max_new_tokens=2 * N_TOKENS - len(PROMPT),
        )  # fmt: skip
        return count_tokens(segment.tokens for segment in segments)


class WhisperCpp(Rival):
    """whisper.cpp, q8_0, flash attention, through the bare binding of pywhispercpp."""

    def __init__(self, folder: Path, threads: int) -> None:
        import _pywhispercpp as cpp

        self.cpp, self.threads = cpp, threads
        options = cpp.whisper_context_default_params()
        options.use_gpu, options.flash_attn = False, True
        self.context = cpp.whisper_init_from_file_with_params(str(folder / "ggml-q8_0.bin"), options)

    def encode(self) -> float:
        samples = sound(30)
        self.cpp.whisper_pcm_to_mel(self.context, samples, len(samples), self.threads)
        started = time.perf_counter()
        self.cpp.whisper_encode(self.context, 0, self.threads)
        return time.perf_counter() - started

    def full(self, samples: np.ndarray, beam: int) -> None:
        kinds = self.cpp.whisper_sampling_strategy
        kind = kinds.WHISPER_SAMPLING_BEAM_SEARCH if beam > 1 else kinds.WHISPER_SAMPLING_GREEDY
        options = self.cpp.whisper_full_default_params(kind)
        if beam > 1:
            options.beam_search = {"beam_size": beam, "patience": -1.0}
        else:
            options.greedy = {"best_of": 1}
        options.n_threads, options.language = self.threads, "en"
        options.max_tokens = N_TOKENS - 1  # it stops after one more
        options.no_context = options.no_timestamps = options.single_segment = True
        options.temperature_inc = 0.0
        options.print_progress = options.print_realtime = options.print_timestamps = False
        self.cpp.whisper_full(self.context, options, samples, len(samples))

    def window(self, beam: int) -> tuple[float, Sequence[int]]:
        samples = sound(30)
        started = time.perf_counter()
        self.cpp.whisper_pcm_to_mel(self.context, samples, len(samples), self.threads)
        features = time.perf_counter() - started
        started = time.perf_counter()
        self.full(samples, beam)  # which makes the features again
        seconds = time.perf_counter() - started - features
        n = self.cpp.whisper_full_n_tokens(self.context, 0)
        tokens = [self.cpp.whisper_full_get_token_id(self.context, 0, i) for i in range(n)]
        return seconds, [token for token in tokens if token < 50257]

    def transcribe(self, samples: np.ndarray, words: bool = False) -> int:
        self.full(samples, 1)
        return int(self.cpp.whisper_full_n_segments(self.context))


class OpenVino(Rival):
    """openvino-genai: int8 weights, stateful decoder, bfloat16 where the processor has it (its own choice)."""

    def __init__(self, folder: Path, threads: int) -> None:
        import openvino_genai

        self.pipeline = openvino_genai.WhisperPipeline(str(folder / "openvino"), "CPU", INFERENCE_NUM_THREADS=threads)

    def encode(self) -> float:
        metrics = self.generate(sound(30), 1, n_tokens=1).perf_metrics
        return float(metrics.get_encode_inference_duration().mean / 1000)

    def generate(self, samples: np.ndarray, beam: int, n_tokens: int = N_TOKENS) -> Any:
        options = {"num_beams": beam} if beam > 1 else {}
        return self.pipeline.generate(
            samples, max_new_tokens=n_tokens, language="<|en|>", task="transcribe", return_timestamps=False, **options
        )

    def window(self, beam: int) -> tuple[float, Sequence[int]]:
        samples = sound(30)
        started = time.perf_counter()
        metrics = self.generate(samples, beam).perf_metrics
        seconds = time.perf_counter() - started
        n = metrics.get_num_generated_tokens()  # of all beams together; all but the first step has every beam
        return seconds - metrics.get_features_extraction_duration().mean / 1000, [0] * (n if beam == 1 else N_TOKENS)

    def transcribe(self, samples: np.ndarray, words: bool = False) -> int:
        metrics = self.generate(samples, 1).perf_metrics
        return round(metrics.get_num_generated_tokens() / N_TOKENS)


RIVALS: dict[str, type[Rival]] = {
    "openai-whisper": Original,
    "faster-whisper": FasterWhisper,
    "whisper.cpp": WhisperCpp,
    "openvino-genai": OpenVino,
    "sotto float32": SottoFloat32,
    "sotto": Sotto,
}


def count_tokens(lists: Any) -> int:
    """Count text tokens."""
    return sum(sum(token < 50257 for token in tokens) for tokens in lists)


# ---------------------------------------------------------------------------------------------------------
# Measurements
# ---------------------------------------------------------------------------------------------------------


def repeated(call: Callable[[], float], budget: float) -> float:
    """Return the median of `call`, which returns its seconds, over `budget` seconds, but at least twice."""
    call()  # warm up
    times = [call(), call()]
    while sum(times) < budget and len(times) < 9:
        times.append(call())
    return statistics.median(times)


def measure_window(rival: Rival, beams: int) -> dict[str, Any]:
    """Time encoder, greedy and beam decoding of one window."""
    tokens: Sequence[int] = []

    def window(beam: int) -> float:
        nonlocal tokens
        seconds, tokens = rival.window(beam)
        if len(tokens) != N_TOKENS:
            raise SystemExit(f"{len(tokens)} tokens in place of {N_TOKENS}, beam {beam}")
        return seconds

    told: dict[str, Any] = {"encoder": repeated(rival.encode, 0.5), "window": repeated(lambda: window(1), 1.5)}
    told["tokens"] = list(map(int, tokens))
    told["token"] = (told["window"] - told["encoder"]) / N_TOKENS
    if told["window"] < 2:
        window(5)  # warm up; where a second counts little, greedy decoding has warmed up all but a few buffers
    told["beam"] = statistics.median(window(5) for _ in range(beams))
    told["compute_type"] = getattr(getattr(rival, "runner", None), "compute_type", "")
    return told


def measure_words(rival: Rival, rounds: int) -> dict[str, Any]:
    """Time a recording with and without word times, by window: word times move where the next one begins."""
    samples = sound(30)

    def timed(words: bool) -> float:
        started = time.perf_counter()
        windows = rival.transcribe(samples, words)
        return (time.perf_counter() - started) / windows

    timed(False), timed(True)
    pairs = [(timed(False), timed(True)) for _ in range(rounds)]
    return {
        "plain": statistics.median(a for a, _ in pairs),
        "words": statistics.median(b for _, b in pairs),
        "added": statistics.median(b / a - 1 for a, b in pairs),
    }


def measure_batch(rival: Rival) -> dict[str, Any]:
    """Time sixteen recordings."""
    recordings = [sound(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    expected = sum(-(-seconds // 30) for seconds in SECONDS) * N_TOKENS
    told: dict[str, Any] = {"audio": sum(SECONDS)}
    ways = {"batch": rival.batch, "one_by_one": getattr(rival, "one_by_one", None)}
    for name, way in ways.items():
        if way is not None:
            way(recordings[:1])  # warm up
            started = time.perf_counter()
            n = way(recordings)
            told[name] = time.perf_counter() - started
            if n != expected:
                raise SystemExit(f"{name}: {n} tokens in place of {expected}")
    return told


def peak_memory() -> float:
    """Return the peak of this process in MB; getrusage would also count what its parent held when it forked."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("measurement", choices=["window", "words", "batch", "memory", "start"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beams", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rival = RIVALS[arguments.rival](arguments.folder, arguments.threads)
    told: dict[str, Any] = {}
    if arguments.measurement == "window":
        told = measure_window(rival, arguments.beams)
    elif arguments.measurement == "words":
        told = measure_words(rival, 4 if isinstance(rival, Sotto) else 2)
    elif arguments.measurement == "batch":
        told = measure_batch(rival)
    elif arguments.measurement == "memory":
        rival.transcribe(sound(45))
        told = {"memory": peak_memory()}
    elif arguments.measurement == "start":
        rival.whisper.decode(rival.model, rival.features(), language="en", sample_len=1, **rival.options)
        told = {"start": time.perf_counter() - STARTED}
    print(json.dumps(told), flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
