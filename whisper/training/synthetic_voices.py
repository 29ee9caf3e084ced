"""Synthetic speech from free voices (espeak-ng, flite, festival), for training with few recordings.

`plan` draws texts, voices, tempo and pitch from a seed; `speak` and `speak_all` synthesize them;
``python -m whisper.training.synthetic_voices`` makes a folder of recordings with a manifest. The engines must be
installed; a missing one is reported and left out. Downloads nothing, knows no model, and adds no
noise or room (`augment` does).
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import SAMPLE_RATE, load_audio
from ..errors import TrainingError, WhisperError
from ..files import atomic_write
from ..manifests.read import resolve_language
from ..output.console import show
from .synthetic_texts import number_texts, read_texts

log = logging.getLogger(__name__)

Samples = np.ndarray[Any, np.dtype[np.float32]]

DEBIAN_PACKAGES = {
    "espeak-ng": "espeak-ng",
    "flite": "flite",
    "festival": "festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts",
}
# Shares of the utterances if all engines are installed. espeak-ng has by far the most voices and
# the least natural ones: pocketsphinx misses 80 % of its words, 20 to 40 % of those of flite and
# festival.
SHARES = {"espeak-ng": 0.25, "flite": 0.40, "festival": 0.35}
FORMATS = {"flac": "flac", "wav": "pcm_s16le", "opus": "libopus"}  # file formats and their codecs
UTTERANCES_PER_BATCH = 48  # synthesized at once by a worker; festival takes half a second to start

_ACCENTS = {
    "en": ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc"),
    "fr": ("fr", "fr-be", "fr-ch"),
    "no": ("nb",),
    "zh": ("cmn",),
    "pt": ("pt", "pt-br"),
    "es": ("es", "es-419"),
}
# The natural ones of the hundred variants of espeak-ng.
_VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 Alex Alicia Andrea Andy Annie Denis Diogo Gene "
    "Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike adam anika antonio aunty belinda benjamin boris caleb "
    "david ed edward grandma grandpa gustave iven john linda marcelo max michel miguel norbert pablo paul pedro quincy "
    "rob robert sandro shelby steph steph2 travis victor zac"
)
_ESPEAK_WORDS_PER_MINUTE = 160  # the default of 175 is faster than read speech
_FLITE_HERTZ = {"kal": 95, "kal16": 95, "awb": 120, "rms": 100, "slt": 170}  # mean pitch of each voice
_FESTIVAL_HERTZ = {"kal_diphone": 105, "ked_diphone": 105, "cmu_us_slt_arctic_hts": 170}
# Range of the vocal tract length, by resampling; wider for engines with few voices. Not far
# downwards: at 0.85 pocketsphinx misses 81 % of the words of kal_diphone, at 1.2 half.
_WARP = {"espeak-ng": (0.94, 1.12), "flite": (0.91, 1.20), "festival": (0.91, 1.20)}


@dataclass(frozen=True)
class Voice:
    """A voice and its modifications; all factors are 1 for the original voice."""

    engine: str  # "espeak-ng", "flite" or "festival"
    name: str  # what the engine calls it
    tempo: float = 1.0  # 2 is twice as fast
    pitch: float = 1.0  # 2 is an octave higher; espeak-ng has 0.63 to 1.57, flite's rms and the hts voice only 1
    # of all frequencies, formants too; above 1: a shorter vocal tract. Keeps the tempo, and the
    # pitch of the voices that can change it
    warp: float = 1.0
    gap: float = 0.0  # seconds between words; only espeak-ng supports it


@dataclass(frozen=True)
class Utterance:
    """One utterance to synthesize: text, language and voice."""

    text: str
    language: str
    voice: Voice

    @property
    def speaker(self) -> str:
        return f"{self.voice.engine}/{self.voice.name}"


# -- voices ----------------------------------------------------------------------------------------


@cache
def installed(language: str = "en") -> Mapping[str, tuple[str, ...]]:
    """Return the names of the voices for a language by engine; engines without any are left out."""
    found = {"espeak-ng": _espeak_voices(language)}
    if language == "en":
        listed = _output("flite", "-lv").partition(":")[2].split()
        found["flite"] = tuple(name for name in _FLITE_HERTZ if name in listed)
        listed = re.findall(r"\w+", _output("festival", "-b", "(print (voice.list))"))
        found["festival"] = tuple(name for name in _FESTIVAL_HERTZ if name in listed)
    return {engine: names for engine, names in found.items() if names}


def _espeak_voices(language: str) -> tuple[str, ...]:
    listed = set(re.findall(r"[\w-]+", _output("espeak-ng", "--voices").lower()))
    variants = set(re.findall(r"!v/(\S+)", _output("espeak-ng", "--voices=variant")))
    accents = [accent for accent in _ACCENTS.get(language, (language,)) if accent in listed]
    return tuple(f"{accent}+{variant}" for accent in accents for variant in _VARIANTS.split() if variant in variants)


def _output(program: str, *arguments: str) -> str:
    if not shutil.which(program):
        return ""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, errors="replace", timeout=60)
    return done.stdout


def _engines(language: str, shares: Mapping[str, float] | None) -> dict[str, tuple[tuple[str, ...], float]]:
    """The engines to use, each with its voices and its share; warns of missing ones."""
    asked = {engine: share for engine, share in (shares or SHARES).items() if share > 0}
    if unknown := set(asked) - set(DEBIAN_PACKAGES):
        raise TrainingError(f"there is no engine {sorted(unknown)[0]!r}, only {', '.join(DEBIAN_PACKAGES)}")
    suitable = list(DEBIAN_PACKAGES) if language == "en" else ["espeak-ng"]
    voices = installed(language)
    missing = [engine for engine in asked if engine in suitable and engine not in voices]
    available = {engine: (voices[engine], share) for engine, share in asked.items() if engine in voices}
    packages = " ".join(DEBIAN_PACKAGES[engine] for engine in missing or suitable)
    if not available:
        hint = "" if language == "en" else " (flite and festival have English voices only)"
        raise TrainingError(
            f"no voice for {language!r} is installed, of {', '.join(asked)}. "
            f"On Debian: apt-get install {packages}{hint}"
        )
    if missing:
        log.warning("%s not installed: voices left out (apt-get install %s)", " and ".join(missing), packages)
    return available


def plan(
    texts: Sequence[str],
    n_utterances: int,
    seed: int,
    language: str = "en",
    *,
    shares: Mapping[str, float] | None = None,
    words: tuple[int, int] | None = (2, 12),
) -> list[Utterance]:
    """Draw texts and a voice for each; the same arguments and installed voices give the same plan.

    Parameters
    ----------
    texts
        Sentences. Each is used once before any is used again; a text that is too long is cut.
    n_utterances, seed
        How many to draw, and the random seed.
    language
        Code, name or locale of the texts and voices.
    shares
        Weight of each engine, by default `SHARES`; languages other than English have espeak-ng
        only.
    words
        Fewest and most words of an utterance; None takes the texts as they are.

    Raises
    ------
    TrainingError
        None of the engines is installed, or no text has enough words.
    """
    code = resolve_language(language) or "en"
    engines = _engines(code, shares)
    if words is not None:
        texts = [text for text in texts if len(text.split()) >= words[0]]
    if not texts and n_utterances:
        raise TrainingError(f"there is no text with at least {words[0] if words else 1} words")
    rng = np.random.default_rng(seed)
    names = list(engines)
    weights = np.array([engines[name][1] for name in names])
    order: list[int] = []
    while len(order) < n_utterances:
        order += rng.permutation(len(texts)).tolist()
    utterances = []
    for i in order[:n_utterances]:
        text = _cut(rng, texts[i], words) if words else texts[i]
        engine = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        utterances.append(Utterance(text, code, _draw_voice(rng, engine, engines[engine][0])))
    return utterances


def _draw_voice(rng: np.random.Generator, engine: str, names: Sequence[str]) -> Voice:
    def between(low: float, high: float) -> float:
        return round(float(np.exp(rng.uniform(math.log(low), math.log(high)))), 3)

    name = names[int(rng.integers(len(names)))]
    tempo, pitch, warp = between(0.75, 1.3), between(0.75, 1.4), between(*_WARP[engine])
    gap = 0.0
    if engine == "espeak-ng" and rng.random() < 0.25:
        gap = round(float(rng.uniform(0.02, 0.12)), 2)
    return Voice(engine, name, tempo, pitch, warp, gap)


def _cut(rng: np.random.Generator, text: str, words: tuple[int, int]) -> str:
    """Consecutive words of `text`, at most ``words[1]``."""
    parts = text.split()
    if len(parts) <= words[1]:
        return text
    length = int(rng.integers(max(words[0], words[1] // 3), words[1] + 1))
    start = int(rng.integers(len(parts) - length + 1))
    return " ".join(parts[start : start + length]).strip(" ,;:-–—")


# -- synthesis -------------------------------------------------------------------------------------


def speak(voice: Voice, text: str) -> Samples:
    """Synthesize `text`: 16 kHz float32 samples.

    Raises
    ------
    TrainingError
        The engine is not installed, or fails.
    """
    [result] = _speak_batch([Utterance(text, "", voice)])
    if isinstance(result, TrainingError):
        raise result
    return result


def speak_all(utterances: Sequence[Utterance], threads: int | None = None) -> Iterator[tuple[Utterance, Samples]]:
    """Synthesize all utterances, in order, with `threads` workers (default: one per processor).

    An utterance that fails is logged as a warning and left out. Only a few batches are in memory at
    a time.
    """
    threads = threads or os.cpu_count() or 1
    batches = (utterances[i : i + UTTERANCES_PER_BATCH] for i in range(0, len(utterances), UTTERANCES_PER_BATCH))
    with ThreadPoolExecutor(threads) as pool:
        running: list[tuple[Sequence[Utterance], Future[list[Samples | TrainingError]]]] = []
        running += [(batch, pool.submit(_speak_batch, batch)) for batch in islice(batches, threads + 1)]
        while running:
            batch, future = running.pop(0)
            results = future.result()
            running += [(more, pool.submit(_speak_batch, more)) for more in islice(batches, 1)]
            for utterance, result in zip(batch, results, strict=True):
                if isinstance(result, TrainingError):
                    log.warning("left out: %s", result)
                else:
                    yield utterance, result


def _speak_batch(batch: Sequence[Utterance]) -> list[Samples | TrainingError]:
    with tempfile.TemporaryDirectory(prefix="voices-") as folder:
        paths = [os.path.join(folder, f"{i}.wav") for i in range(len(batch))]
        errors = dict[str, str]()  # of the last call of each engine
        jobs = list(zip(batch, paths, strict=True))
        errors["festival"] = _run_festival([job for job in jobs if job[0].voice.engine == "festival"])
        results: list[Samples | TrainingError] = []
        for utterance, path in jobs:
            voice = utterance.voice
            if voice.engine != "festival":
                errors[voice.engine] = _run(_command(voice, utterance.text, path), voice.engine)
            try:
                results.append(_read_wave(path, voice))
            except (OSError, EOFError, wave.Error, TrainingError) as error:
                reason = errors[voice.engine] or str(error)
                message = f"{utterance.speaker} failed on {utterance.text!r}: {reason[-200:]}"
                results.append(TrainingError(message))
        return results


def _run(command: Sequence[str], engine: str, stdin: str = "", timeout: float = 60) -> str:
    """Run a program; returns its error output, empty if there is none."""
    if not shutil.which(command[0]):
        return f"{engine} is not installed (apt-get install {DEBIAN_PACKAGES.get(engine, engine)})"
    try:
        done = subprocess.run(
            command,
            input=stdin.encode("latin-1", "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:g} s"
    return done.stderr.decode("utf-8", "replace").strip()


def _command(voice: Voice, text: str, path: str) -> list[str]:
    """The command line of espeak-ng or flite; tempo and pitch compensate for `warp`."""
    tempo, pitch = voice.tempo / voice.warp, voice.pitch / voice.warp
    if voice.engine == "espeak-ng":
        # measured: 0 to 99 is two thirds of an octave down and up
        height = min(max(round(50 + 75 * math.log2(pitch)), 0), 99)
        gap = ["-g", str(round(100 * voice.gap * voice.warp))] if voice.gap else []
        return [
            "espeak-ng",
            "-v",
            voice.name,
            "-s",
            str(round(_ESPEAK_WORDS_PER_MINUTE * tempo)),
            "-p",
            str(height),
            *gap,
            "-w",
            path,
            "--",
            text,
        ]
    if voice.engine == "flite":
        hertz = _FLITE_HERTZ.get(voice.name, 120) * pitch
        return [
            "flite",
            "-voice",
            voice.name,
            "--setf",
            f"duration_stretch={1 / tempo:.3f}",
            "--setf",
            f"int_f0_target_mean={hertz:.0f}",
            "-o",
            path,
            "-t",
            text,
        ]
    raise TrainingError(f"there is no engine {voice.engine!r}, only {', '.join(DEBIAN_PACKAGES)}")


def _run_festival(jobs: Sequence[tuple[Utterance, str]]) -> str:
    """Synthesize all jobs in one process, which starts slowly; returns its error output."""
    if not jobs:
        return ""
    by_voice = sorted(jobs, key=lambda job: job[0].voice.name)
    script = [_scheme(utterance.voice, utterance.text, path) for utterance, path in by_voice]
    return _run(["festival", "--pipe"], "festival", "\n".join(script), timeout=30 + 10 * len(jobs))


def _scheme(voice: Voice, text: str, path: str) -> str:
    tempo, pitch = voice.tempo / voice.warp, voice.pitch / voice.warp
    if voice.name.endswith("_hts"):
        # of the engine's parameters only the tempo works in festival 2.5
        manner = f"""(set! hts_engine_params (append hts_engine_params '(("-r" {tempo:.3f}))))"""
    else:
        hertz = _FESTIVAL_HERTZ.get(voice.name, 105) * pitch
        manner = f"""(Parameter.set 'Duration_Stretch {1 / tempo:.3f})
            (set! int_lr_params '((target_f0_mean {hertz:.0f}) (target_f0_std {0.14 * hertz:.0f})
            (model_f0_mean 170) (model_f0_std 34)))"""
    escaped = text.replace("\\", " ").replace('"', " ")
    return f"""(unwind-protect (begin (voice_{voice.name}) {manner}
        (utt.save.wave (utt.synth (Utterance Text "{escaped}")) "{path}" 'riff)) nil)"""


def _read_wave(path: str, voice: Voice) -> Samples:
    with wave.open(path, "rb") as file:
        rate, pcm = file.getframerate(), file.readframes(file.getnframes())
    samples = np.frombuffer(pcm, dtype="<i2")
    if len(samples) < 0.05 * rate or not samples.any():
        raise TrainingError("its output is silent")
    return load_audio(samples, SAMPLE_RATE, rate=round(rate * voice.warp))


# -- a folder of recordings ------------------------------------------------------------------------


def make_folder(
    utterances: Sequence[Utterance], out: str | os.PathLike[str], *, format: str = "flac", threads: int | None = None
) -> float:
    """Synthesize into a folder with a manifest; returns the seconds of speech.

    Audio files go to ``out/synthetic``; ``out/manifest.tsv`` is written last.

    Raises
    ------
    TrainingError
        There already is a manifest in `out`, `format` is unknown, or every utterance failed.
    """
    out = Path(out)
    if (out / "manifest.tsv").exists():
        raise TrainingError(f"{out} already holds a manifest: choose another folder, or remove it")
    if format not in FORMATS:
        raise TrainingError(f"there is no format {format!r}, only {', '.join(FORMATS)}")
    (out / "synthetic").mkdir(parents=True, exist_ok=True)
    lines, total = ["\t".join(("file", "duration_s", "language", "transcript", "speaker", "licence", "notes"))], 0.0
    for number, (utterance, samples) in enumerate(speak_all(utterances, threads), start=1):
        language, voice = utterance.language, utterance.voice
        name = f"synthetic/{number:06d}_{language}.{format}"
        _write_audio(out / name, samples)
        seconds = len(samples) / SAMPLE_RATE
        notes = f"tempo={voice.tempo};pitch={voice.pitch};warp={voice.warp};gap={voice.gap}"
        cells = (name, f"{seconds:.3f}", language, utterance.text, utterance.speaker, "synthetic", notes)
        lines.append("\t".join(cells))
        total += seconds
        if number % 500 == 0:
            log.info("%d of %d utterances, %.2f h", number, len(utterances), total / 3600)
    if not total:
        raise TrainingError("every utterance failed; the warnings say why")
    with atomic_write(out / "manifest.tsv") as file:
        file.write(("\n".join(lines) + "\n").encode())
    return total


def _write_audio(path: Path, samples: Samples) -> None:
    import av

    pcm = (samples * 32767.0).round().clip(-32768, 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(FORMATS[path.suffix[1:]], rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m whisper.training.synthetic_voices``: make a folder of synthetic recordings with a manifest."""
    parser = argparse.ArgumentParser(prog="python -m whisper.training.synthetic_voices", description=main.__doc__)
    parser.add_argument("--texts", nargs="*", default=[], metavar="PATH", help="files or folders of sentences")
    parser.add_argument("--numbers", type=int, default=0, metavar="N", help="number of utterances of spelled numbers")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="number of utterances of the texts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", default="en", help="of the texts and the voices")
    parser.add_argument("--words", type=int, nargs=2, default=(2, 12), metavar=("LEAST", "MOST"))
    parser.add_argument("--engines", nargs="+", choices=DEBIAN_PACKAGES, default=list(DEBIAN_PACKAGES))
    parser.add_argument("--format", choices=FORMATS, default="flac")
    parser.add_argument("--threads", type=int, default=None, help="number of engines that run in parallel")
    parser.add_argument("--out", type=Path, required=True, help="a folder without a manifest")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    shares = {engine: SHARES[engine] for engine in args.engines}
    try:
        texts = [text for path in args.texts for text in read_texts(path, args.language)]
        utterances = plan(texts, args.count, args.seed, args.language, shares=shares, words=tuple(args.words))
        if args.numbers:
            numbers = number_texts(args.numbers, args.seed, resolve_language(args.language) or "en")
            utterances += plan(numbers, args.numbers, args.seed + 1, args.language, shares=shares, words=None)
        seconds = make_folder(utterances, args.out, format=args.format, threads=args.threads)
    except WhisperError as error:
        sys.exit(f"{error}")
    show(f"{args.out}: {len(utterances)} utterances planned, {seconds / 3600:.2f} h of speech", sys.stdout)


if __name__ == "__main__":
    main()
