"""Synthetic speech from free voices (espeak-ng, flite, festival), for training where recordings are few.

``plan`` draws who says what, how fast and how high, from a seed; ``speak`` and ``speak_all`` let the programs say
it; ``python -m whisper.voices`` makes a folder of recordings with a manifest. The programs must be installed: a
missing one is told and left out. Downloads nothing, knows no model, and adds no noise or room (`augment` does).
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

from .audio import SAMPLE_RATE, load_audio
from .errors import TrainingError, WhisperError
from .manifests import resolve_language
from .sentences import number_texts, read_texts

log = logging.getLogger(__name__)

Samples = np.ndarray[Any, np.dtype[np.float32]]

PACKAGES = {
    "espeak-ng": "espeak-ng",
    "flite": "flite",
    "festival": "festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts",
}
# Of the utterances, where all are installed. espeak-ng has by far the most voices and the least human ones: of its
# words pocketsphinx misses 80 %, of flite's and festival's 20 to 40 %.
SHARES = {"espeak-ng": 0.25, "flite": 0.40, "festival": 0.35}
FORMATS = {"flac": "flac", "wav": "pcm_s16le", "opus": "libopus"}  # of the files, and what encodes them
BATCH = 48  # utterances that a worker takes at once; festival needs half a second to start

_ACCENTS = {
    "en": ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc"),
    "fr": ("fr", "fr-be", "fr-ch"),
    "no": ("nb",), "zh": ("cmn",), "pt": ("pt", "pt-br"), "es": ("es", "es-419"),
}  # fmt: skip
# Those that sound like a person, of the hundred that espeak-ng has.
_VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 Alex Alicia Andrea Andy Annie Denis Diogo Gene "
    "Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike adam anika antonio aunty belinda benjamin boris caleb "
    "david ed edward grandma grandpa gustave iven john linda marcelo max michel miguel norbert pablo paul pedro quincy "
    "rob robert sandro shelby steph steph2 travis victor zac"
)
_ESPEAK_WORDS = 160  # a minute; its own 175 is faster than people read
_FLITE_HERTZ = {"kal": 95, "kal16": 95, "awb": 120, "rms": 100, "slt": 170}  # a voice's own mean pitch
_FESTIVAL_HERTZ = {"kal_diphone": 105, "ked_diphone": 105, "cmu_us_slt_arctic_hts": 170}
# How far resampling may change the length of the vocal tract: the engines with few voices get more of it. Not far
# downwards: at 0.85 pocketsphinx misses 81 % of the words of kal_diphone, at 1.2 half.
_WARP = {"espeak-ng": (0.94, 1.12), "flite": (0.91, 1.20), "festival": (0.91, 1.20)}


@dataclass(frozen=True)
class Voice:
    """Who speaks and how; every factor is 1 for the voice as it is."""

    engine: str  # "espeak-ng", "flite" or "festival"
    name: str  # what the engine calls it
    tempo: float = 1.0  # 2 speaks twice as fast
    pitch: float = 1.0  # 2 is an octave higher; espeak-ng goes to 0.63 and 1.57, flite's rms and the hts do not change
    warp: float = 1.0  # of all frequencies, formants too; above 1 a smaller head. The tempo stays, and so does the
    # pitch of the voices that can change it
    gap: float = 0.0  # seconds between words; only espeak-ng has it


@dataclass(frozen=True)
class Spoken:
    """One utterance: what is said, in which language, by whom."""

    text: str
    language: str
    voice: Voice

    @property
    def speaker(self) -> str:
        return f"{self.voice.engine}/{self.voice.name}"


# -- voices -------------------------------------------------------------------------------------------------


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
    """The engines to use, each with its voices and its share; tells those that are missing."""
    asked = {engine: share for engine, share in (shares or SHARES).items() if share > 0}
    if unknown := set(asked) - set(PACKAGES):
        raise TrainingError(f"there is no engine {sorted(unknown)[0]!r}, only {', '.join(PACKAGES)}")
    able = list(PACKAGES) if language == "en" else ["espeak-ng"]
    voices = installed(language)
    missing = [engine for engine in asked if engine in able and engine not in voices]
    here = {engine: (voices[engine], share) for engine, share in asked.items() if engine in voices}
    packages = " ".join(PACKAGES[engine] for engine in missing or able)
    if not here:
        raise TrainingError(
            f"no voice for {language!r} among {', '.join(asked)}: nobody can speak. "
            f"On Debian: apt-get install {packages}" + (" (flite and festival speak English only)" * (language != "en"))
        )
    if missing:
        log.warning("without %s, whose voices are left out (apt-get install %s)", " and ".join(missing), packages)
    return here


def plan(
    texts: Sequence[str],
    n_utterances: int,
    seed: int,
    language: str = "en",
    *,
    shares: Mapping[str, float] | None = None,
    words: tuple[int, int] | None = (2, 12),
) -> list[Spoken]:
    """Draw which texts are said, and by whom; the same arguments and voices give the same plan.

    Parameters
    ----------
    texts
        Sentences. Each is used once before any is used again; of one that is too long, a piece is used.
    n_utterances, seed
        How many to draw, and what the draw follows from.
    language
        Code, name or locale, of the texts and of the voices.
    shares
        Weight of each engine, `SHARES` if not given; a language other than English has espeak-ng alone.
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
        raise TrainingError(f"there is no text to say with at least {words[0] if words else 1} words")
    rng = np.random.default_rng(seed)
    names = list(engines)
    weights = np.array([engines[name][1] for name in names])
    order: list[int] = []
    while len(order) < n_utterances:
        order += rng.permutation(len(texts)).tolist()
    spoken = []
    for i in order[:n_utterances]:
        text = _piece(rng, texts[i], words) if words else texts[i]
        engine = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        spoken.append(Spoken(text, code, _draw_voice(rng, engine, engines[engine][0])))
    return spoken


def _draw_voice(rng: np.random.Generator, engine: str, names: Sequence[str]) -> Voice:
    def between(low: float, high: float) -> float:
        return round(float(np.exp(rng.uniform(math.log(low), math.log(high)))), 3)

    name = names[int(rng.integers(len(names)))]
    tempo, pitch, warp = between(0.75, 1.3), between(0.75, 1.4), between(*_WARP[engine])
    pauses = engine == "espeak-ng" and rng.random() < 0.25
    return Voice(engine, name, tempo, pitch, warp, round(float(rng.uniform(0.02, 0.12)), 2) if pauses else 0.0)


def _piece(rng: np.random.Generator, text: str, words: tuple[int, int]) -> str:
    parts = text.split()
    if len(parts) <= words[1]:
        return text
    length = int(rng.integers(max(words[0], words[1] // 3), words[1] + 1))
    start = int(rng.integers(len(parts) - length + 1))
    return " ".join(parts[start : start + length]).strip(" ,;:-–—")


# -- speaking -----------------------------------------------------------------------------------------------


def speak(voice: Voice, text: str) -> Samples:
    """Let a voice say `text`: 16 kHz float32 samples.

    Raises
    ------
    TrainingError
        The engine is not installed, or fails.
    """
    [said] = _speak_batch([Spoken(text, "", voice)])
    if isinstance(said, TrainingError):
        raise said
    return said


def speak_all(spoken: Sequence[Spoken], threads: int | None = None) -> Iterator[tuple[Spoken, Samples]]:
    """Let all be said, `threads` at once (as many as processors), in the order of the plan.

    An utterance that fails is told in a warning and left out. Few batches are held at a time, however long the plan.
    """
    threads = threads or os.cpu_count() or 1
    batches = (spoken[i : i + BATCH] for i in range(0, len(spoken), BATCH))
    with ThreadPoolExecutor(threads) as pool:
        running: list[tuple[Sequence[Spoken], Future[list[Samples | TrainingError]]]] = []
        running += [(batch, pool.submit(_speak_batch, batch)) for batch in islice(batches, threads + 1)]
        while running:
            batch, future = running.pop(0)
            said = future.result()
            running += [(more, pool.submit(_speak_batch, more)) for more in islice(batches, 1)]
            for one, samples in zip(batch, said, strict=True):
                if isinstance(samples, TrainingError):
                    log.warning("left out: %s", samples)
                else:
                    yield one, samples


def _speak_batch(batch: Sequence[Spoken]) -> list[Samples | TrainingError]:
    with tempfile.TemporaryDirectory(prefix="voices-") as folder:
        paths = [os.path.join(folder, f"{i}.wav") for i in range(len(batch))]
        complaints = dict[str, str]()
        jobs = list(zip(batch, paths, strict=True))
        complaints["festival"] = _festival([(one, path) for one, path in jobs if one.voice.engine == "festival"])
        results: list[Samples | TrainingError] = []
        for one, path in jobs:
            if one.voice.engine != "festival":
                complaints[one.voice.engine] = _run(_command(one.voice, one.text, path), one.voice.engine)
            try:
                results.append(_read(path, one.voice))
            except (OSError, EOFError, wave.Error, TrainingError) as error:
                told = complaints[one.voice.engine] or str(error)
                results.append(TrainingError(f"{one.speaker} failed on {one.text!r}: {told[-200:]}"))
        return results


def _run(command: Sequence[str], engine: str, stdin: str = "", timeout: float = 60) -> str:
    """Run a program; what it complains of, empty if nothing."""
    if not shutil.which(command[0]):
        return f"{engine} is not installed (apt-get install {PACKAGES.get(engine, engine)})"
    try:
        done = subprocess.run(
            command, input=stdin.encode("latin-1", "replace"), stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, timeout=timeout,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:g} s"
    return done.stderr.decode("utf-8", "replace").strip()


def _command(voice: Voice, text: str, path: str) -> list[str]:
    """The command line of espeak-ng or flite; resampling by `warp` gives tempo and pitch back what is taken here."""
    tempo, pitch = voice.tempo / voice.warp, voice.pitch / voice.warp
    if voice.engine == "espeak-ng":
        height = min(max(round(50 + 75 * math.log2(pitch)), 0), 99)  # as measured: two thirds of an octave either way
        gap = ["-g", str(round(100 * voice.gap * voice.warp))] if voice.gap else []
        return ["espeak-ng", "-v", voice.name, "-s", str(round(_ESPEAK_WORDS * tempo)), "-p", str(height), *gap,
                "-w", path, "--", text]  # fmt: skip
    if voice.engine == "flite":
        hertz = _FLITE_HERTZ.get(voice.name, 120) * pitch
        return ["flite", "-voice", voice.name, "--setf", f"duration_stretch={1 / tempo:.3f}",
                "--setf", f"int_f0_target_mean={hertz:.0f}", "-o", path, "-t", text]  # fmt: skip
    raise TrainingError(f"there is no engine {voice.engine!r}, only {', '.join(PACKAGES)}")


def _festival(jobs: Sequence[tuple[Spoken, str]]) -> str:
    """Let one festival say everything, as starting it takes longer than a sentence; returns what it complains of."""
    if not jobs:
        return ""
    script = [_scheme(one.voice, one.text, path) for one, path in sorted(jobs, key=lambda job: job[0].voice.name)]
    return _run(["festival", "--pipe"], "festival", "\n".join(script), timeout=30 + 10 * len(jobs))


def _scheme(voice: Voice, text: str, path: str) -> str:
    tempo, pitch = voice.tempo / voice.warp, voice.pitch / voice.warp
    if voice.name.endswith("_hts"):
        # of the engine's parameters only the tempo has an effect in festival 2.5
        manner = f"""(set! hts_engine_params (append hts_engine_params '(("-r" {tempo:.3f}))))"""
    else:
        hertz = _FESTIVAL_HERTZ.get(voice.name, 105) * pitch
        manner = f"""(Parameter.set 'Duration_Stretch {1 / tempo:.3f})
            (set! int_lr_params '((target_f0_mean {hertz:.0f}) (target_f0_std {0.14 * hertz:.0f})
            (model_f0_mean 170) (model_f0_std 34)))"""
    said = text.replace("\\", " ").replace('"', " ")
    return f"""(unwind-protect (begin (voice_{voice.name}) {manner}
        (utt.save.wave (utt.synth (Utterance Text "{said}")) "{path}" 'riff)) nil)"""


def _read(path: str, voice: Voice) -> Samples:
    with wave.open(path, "rb") as file:
        rate, sound = file.getframerate(), file.readframes(file.getnframes())
    samples = np.frombuffer(sound, dtype="<i2")
    if len(samples) < 0.05 * rate or not samples.any():
        raise TrainingError("it said nothing")
    return load_audio(samples, SAMPLE_RATE, rate=round(rate * voice.warp))


# -- a folder of recordings ----------------------------------------------------------------------------------


def make_folder(
    spoken: Sequence[Spoken], out: str | os.PathLike[str], *, format: str = "flac", threads: int | None = None
) -> float:
    """Write what is said to ``out/synthetic``, with ``out/manifest.tsv`` last; returns the seconds of speech.

    Raises
    ------
    TrainingError
        There already is a manifest in `out`, there is no such `format`, or nothing could be said.
    """
    out = Path(out)
    if (out / "manifest.tsv").exists():
        raise TrainingError(f"{out} already holds a manifest: choose another folder, or remove it")
    if format not in FORMATS:
        raise TrainingError(f"there is no format {format!r}, only {', '.join(FORMATS)}")
    (out / "synthetic").mkdir(parents=True, exist_ok=True)
    rows, total = ["\t".join(("file", "duration_s", "language", "transcript", "speaker", "licence", "notes"))], 0.0
    for number, (one, samples) in enumerate(speak_all(spoken, threads), start=1):
        name = f"synthetic/{number:06d}_{one.language}.{format}"
        _write(out / name, samples)
        seconds, voice = len(samples) / SAMPLE_RATE, one.voice
        notes = f"tempo={voice.tempo};pitch={voice.pitch};warp={voice.warp};gap={voice.gap}"
        rows.append("\t".join((name, f"{seconds:.3f}", one.language, one.text, one.speaker, "synthetic", notes)))
        total += seconds
        if number % 500 == 0:
            log.info("%d of %d said, %.2f h", number, len(spoken), total / 3600)
    if not total:
        raise TrainingError("nothing could be said; the warnings tell why")
    unfinished = out / "manifest.tsv.part"
    unfinished.write_text("\n".join(rows) + "\n", encoding="utf-8")
    unfinished.replace(out / "manifest.tsv")
    return total


def _write(path: Path, samples: Samples) -> None:
    import av

    pcm = (samples * 32767.0).round().clip(-32768, 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(FORMATS[path.suffix[1:]], rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m whisper.voices``: make a folder of synthetic recordings with a manifest."""
    parser = argparse.ArgumentParser(prog="python -m whisper.voices", description=main.__doc__)
    parser.add_argument("--texts", nargs="*", default=[], metavar="PATH", help="files or folders of sentences")
    parser.add_argument("--numbers", type=int, default=0, metavar="N", help="say so many texts of numbers as well")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="how many utterances of the texts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language", default="en", help="of the texts and the voices")
    parser.add_argument("--words", type=int, nargs=2, default=(2, 12), metavar=("LEAST", "MOST"))
    parser.add_argument("--engines", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--format", choices=FORMATS, default="flac")
    parser.add_argument("--threads", type=int, default=None, help="how many voices speak at once")
    parser.add_argument("--out", type=Path, required=True, help="a folder without a manifest")
    told = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    shares = {engine: SHARES[engine] for engine in told.engines}
    try:
        texts = [text for path in told.texts for text in read_texts(path, told.language)]
        spoken = plan(texts, told.count, told.seed, told.language, shares=shares, words=tuple(told.words))
        if told.numbers:
            numbers = number_texts(told.numbers, told.seed, resolve_language(told.language) or "en")
            spoken += plan(numbers, told.numbers, told.seed + 1, told.language, shares=shares, words=None)
        seconds = make_folder(spoken, told.out, format=told.format, threads=told.threads)
    except WhisperError as error:
        sys.exit(f"{error}")
    print(f"{told.out}: {len(spoken)} utterances planned, {seconds / 3600:.2f} h said")


if __name__ == "__main__":
    main()
