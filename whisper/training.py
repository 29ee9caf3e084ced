"""Training for users: from a manifest and some options to a checkpoint, by one call, `fit`.

Prepares the data, chooses what was left open, calls the loop (`loop.py`), listens on a dev set, keeps the best, and
writes a model that this package and openai-whisper load. What it prints goes to the function it is given.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from . import lora
from .audio import N_FRAMES, N_SAMPLES, load_audio, log_mel_spectrogram, pad_or_trim
from .composing import Recipe
from .curves import Curves, progress_line
from .datasets import FRAMES, LONGEST, Preparation, Store, build_store
from .decoding import DecodingOptions, decode
from .download import written_whole
from .errors import AudioError, OptionError, TrainingError
from .learner import FINE_TUNING, FROM_SCRATCH
from .loop import LAST, NANO, Run, Settings, Stage, best_of, export, make_batch, start, train
from .manifests import NOBODY, Recording, read_manifest
from .model import ModelDimensions, Whisper
from .options import is_number
from .targets import PIECES, Vocabulary, used_token_ids, used_vocabulary, whole_vocabulary

__all__ = [
    "FitOptions", "Fitted", "ModelDimensions", "Recipe", "Run", "Settings", "Stage", "best_of", "export", "fit",
    "make_batch", "start", "train", "used_token_ids",
]  # fmt: skip

MODEL, SKIPPED, OPTIONS = "model.pt", "skipped.tsv", "options.json"


def _shape(width: int, layers: int, decoder_layers: int | None = None, **others: int) -> ModelDimensions:
    heads = width // 64
    values = {"n_mels": 80, "n_audio_ctx": 1500, "n_vocab": 51865, "n_text_ctx": 448, **others}
    return ModelDimensions(
        n_audio_state=width, n_audio_head=heads, n_audio_layer=layers, n_text_state=width, n_text_head=heads,
        n_text_layer=decoder_layers or layers, **values,
    )  # fmt: skip


SHAPES = {  # of the published models, and of ours; openai-whisper, MIT
    "nano": NANO, "tiny": _shape(384, 4), "base": _shape(512, 6), "small": _shape(768, 12),
    "medium": _shape(1024, 24), "large": _shape(1280, 32), "turbo": _shape(1280, 32, 4, n_mels=128, n_vocab=51866),
}  # fmt: skip
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {"changes": 0.0, "p_noise": 0.0, "longest_blank": 0},
    "mild": {"changes": 0.5, "p_noise": 0.2, "noise_below": (1.0, 4.0), "longest_blank": 12},
    "strong": {"changes": 1.0, "p_noise": 0.5, "noise_below": (0.0, 3.0), "longest_blank": 22},
}


def _option(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class FitOptions:
    """How to train; the one source of names, defaults and help, for Python and the command.

    What is None is chosen by what is trained: from scratch or from a checkpoint, on a CPU or a GPU.
    """

    model: str | None = _option(None, "fine-tune this model: a name, a checkpoint, or owner/name on the hub")
    shape: str | None = _option(
        None, f"train from scratch, in the shape of one of {', '.join(SHAPES)}, or width=256,encoder=4,decoder=2"
    )
    language: str | None = _option(None, "language of recordings whose manifest does not say")
    task: str = _option("transcribe", "what the texts are", choices=("transcribe", "translate"))
    text: str | None = _option(
        None,
        "learn texts as_given, or plain: lower-case letters alone, which is what small models from scratch can learn",
        choices=("as_given", "plain"),
    )
    epochs: float = _option(3.0, "how often the speech is seen, where steps is not given")
    steps: int | None = _option(None, "steps to train")
    batch_seconds: float | None = _option(None, "sound in one step, in seconds; 240 for a checkpoint, 80 from scratch")
    seconds_at_once: float | None = _option(
        None, "sound handled at a time, in seconds; less needs less memory and gives the same (accumulated gradients)"
    )
    window_seconds: tuple[float, ...] = _option(
        (30.0,), "lengths of windows, one drawn a step; from scratch, short ones learn faster"
    )
    learning_rate: float | None = _option(
        None, "its largest; 1e-5 for a checkpoint, 3e-4 with lora_rank, 2e-3 from scratch"
    )
    warmup: int | None = _option(None, "steps until the learning rate is reached, after which it falls to zero")
    optimiser: str | None = _option(None, "muon from scratch, adamw for a checkpoint", choices=("adamw", "muon"))
    weight_decay: float = _option(0.02, "pull of the matrices towards zero")
    average: float | None = _option(None, "decay of the running average of the weights that is kept; 0 for none")
    lora_rank: int = _option(0, "fine-tune by low-rank matrices of this rank; 0 changes all weights")
    lora_alpha: float = _option(16.0, "weight of those matrices, times rank")
    lora_targets: tuple[str, ...] = _option(("query", "value"), f"where they stand: of {', '.join(lora.TARGETS)}")
    freeze_encoder: bool = _option(False, "leave the encoder as it is")
    augment: str = _option("mild", "changes of voice, room, level and noise", choices=tuple(AUGMENTATIONS))
    p_silent: float = _option(0.05, "share of windows in which nobody speaks")
    p_plain: float = _option(0.3, "share of windows without timestamps")
    p_prompt: float = _option(0.1, "share of windows with earlier text before them")
    p_short: float = _option(0.5, "share of windows with one recording; the others join what fits, with pauses")
    dev: str | None = _option(None, "manifest to listen on while training; the best model is kept")
    dev_clips: int = _option(100, "how many of its recordings, drawn by the seed")
    evaluate_every: int | None = _option(None, "steps between two evaluations; ten in a training if not given")
    patience: int = _option(0, "evaluations without a better one that end the training; 0 for never")
    save_every: int = _option(250, "steps between two checkpoints")
    precision: str = _option("auto", "of matrix products", choices=("auto", "bfloat16", "float16", "float32"))
    device: str | None = _option(None, "where to train; a GPU if there is one")
    threads: int = _option(2, "threads on a CPU")
    seed: int = _option(1, "another seed is another training")

    def __post_init__(self) -> None:
        for f in fields(self):
            choices, value = f.metadata.get("choices"), getattr(self, f.name)
            if choices and value is not None and value not in choices:
                raise OptionError(f"{f.name} must be one of {', '.join(choices)}, not {value!r}")
        if (self.model is None) == (self.shape is None):
            raise OptionError("give model, to fine-tune a checkpoint, or shape, to train from scratch")
        if self.shape and (self.lora_rank or self.freeze_encoder):
            raise OptionError("lora_rank and freeze_encoder are for a checkpoint; from scratch all must learn")
        for name in ("p_silent", "p_plain", "p_prompt", "p_short"):
            self._within(name, 0.0, 1.0)
        for name in ("epochs", "batch_seconds", "seconds_at_once", "learning_rate", "lora_alpha", "threads",
                     "save_every", "dev_clips", "steps", "evaluate_every"):  # fmt: skip
            self._within(name, 1e-12, math.inf)
        for name in ("warmup", "weight_decay", "lora_rank", "patience", "seed"):
            self._within(name, 0, math.inf)
        self._within("average", 0.0, 0.99999)
        if not self.window_seconds or any(not is_number(s) or not 1 <= s <= 30 for s in self.window_seconds):
            raise OptionError(f"window_seconds must be lengths of 1 to 30 s, not {self.window_seconds}")
        if self.patience and self.dev is None:
            raise OptionError("patience needs dev, a manifest to listen on")

    def _within(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is not None and (not is_number(value) or not low <= value <= high):
            kind = "above 0" if low == 1e-12 else f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
            raise OptionError(f"{name} must be {kind}, not {value!r}")

    def dimensions(self) -> ModelDimensions:
        """Dimensions of a network from scratch."""
        assert self.shape is not None
        if self.shape in SHAPES:
            return SHAPES[self.shape]
        try:
            given = {key.strip(): int(value) for key, value in (pair.split("=") for pair in self.shape.split(","))}
            if unknown := set(given) - {"width", "encoder", "decoder", "mels"} or {"width", "encoder"} - set(given):
                raise ValueError(unknown)
            if min(given.values()) < 1 or given["width"] % 64 or given.get("mels", 80) not in (80, 128):
                raise ValueError("numbers")
        except ValueError:
            raise OptionError(
                f"shape must be one of {', '.join(SHAPES)}, or like width=256,encoder=4,decoder=2 with a width "
                f"that is a multiple of 64 (and mels=80 or 128), not {self.shape!r}"
            ) from None
        return _shape(given["width"], given["encoder"], given.get("decoder"), n_mels=given.get("mels", 80))

    def settings(self, hours: float, dims: ModelDimensions) -> Settings:
        """What the loop needs, with everything chosen that was left open; `hours` of speech are there."""
        scratch, device = self.model is None, self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        batch_seconds = self.batch_seconds or (80.0 if scratch else 240.0)
        steps = self.steps or max(math.ceil(self.epochs * hours * 3600 / batch_seconds), 1)
        rate = self.learning_rate or (2e-3 if scratch else 3e-4 if self.lora_rank else 1e-5)
        average = (0.99 if scratch else 0.0) if self.average is None else self.average
        recipe = Recipe(
            lengths=self.window_seconds, p_silent=self.p_silent, p_brief=0.5, p_short=self.p_short,
            p_prompt=self.p_prompt, p_plain=self.p_plain, p_part=0.3 if scratch else 0.0, **AUGMENTATIONS[self.augment],
        )  # fmt: skip
        return Settings(
            (Stage(steps, recipe, batch_seconds, (1.0, 0.0), average),), dims,
            FROM_SCRATCH if scratch else FINE_TUNING, self.seed, self.optimiser or ("muon" if scratch else "adamw"),
            rate, min(steps // 10, 200) if self.warmup is None else self.warmup, self.weight_decay,
            5.0 if scratch else 1.0, self.lora_rank, self.lora_alpha, tuple(self.lora_targets),
            ("encoder",) if self.freeze_encoder else (), _precision(self.precision, device), device, self.threads,
            self.seconds_at_once or (1e9 if device == "cpu" else 240.0), self.save_every,
            (self.evaluate_every or max(steps // 10, 1)) if self.dev else 0, self.patience,
        )  # fmt: skip


def _precision(asked: str, device: str) -> str:
    """The fastest precision that the device does well, where none is asked for."""
    if asked != "auto":
        if asked == "float16" and device == "cpu":
            raise OptionError("precision float16 is for a GPU; on a CPU take bfloat16 or float32")
        return asked
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "bfloat16" if device == "cpu" and _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; else it is slower than float32."""
    capability: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if capability:
        return any(value for name, value in capability.items() if "bf16" in name)
    try:
        return "bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


# ---------------------------------------------------------------------------------------------------------
# Fit
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """What `fit` has made."""

    path: Path  # the checkpoint
    model: Whisper
    run: Run
    skipped: list[tuple[str, str]]  # recordings that were not learnt from, and why

    @property
    def error(self) -> float | None:
        """The best word error rate on the dev set, if there was one."""
        return min((error for _, error in self.run.evaluations), default=None)


def fit(
    manifest: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: FitOptions | None = None,
    say: Callable[[str], None] = lambda line: None,
    **values: Any,
) -> Fitted:
    """Train a model on a manifest, or continue where an earlier call with the same arguments was killed.

    Parameters
    ----------
    manifest
        Recordings with texts, as `manifests.read_manifest` reads them; of rows whose language is ``none`` nobody
        speaks, and they are learnt as such and used as noise behind speech.
    output
        A folder. It gets ``model.pt``, which `load_model` and openai-whisper load; ``last.ckpt`` to continue from;
        ``curves.png`` and a log for TensorBoard; ``skipped.tsv``, the rows that could not be used; and features.
    options, values
        `FitOptions`, or its fields by name.
    say
        Is given each line of progress.

    Raises
    ------
    TrainingError
        There is nothing to train on, or `output` holds another training.
    OptionError
        An option with a wrong value.
    """
    options = options or FitOptions(**values)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    model = _load(options)
    dims = model.dims if model else options.dimensions()
    listed = read_manifest(manifest, max_seconds=LONGEST / FRAMES, require_text=True)
    say(listed.describe())
    small = model is None or _has_short_pieces(model)
    plain = options.text == "plain" or (options.text is None and small)
    preparation = Preparation(dims.n_mels, plain, options.language, word_times=model is None)
    known, foreign = _known(listed.recordings, model)
    store = build_store(known, folder / "features", preparation, options.threads)
    rows = [(f"line {bad.line}", bad.reason) for bad in listed.skipped]
    skipped = _list_skipped([*rows, *foreign, *store.skipped], folder, say)
    vocabulary = _vocabulary(options, store, model)
    settings = options.settings(store.hours, dims)
    _remember(options, folder)
    say(f"{store.hours:.2f} h of speech in {len(store.clips)} recordings, {len(store.sounds)} without; "
        f"{settings.n_steps} steps on {settings.device} in {settings.precision}")  # fmt: skip
    listener = Listener(options, settings) if options.dev else None
    run = _train(settings, store, vocabulary, folder, model, listener, say)
    best = best_of(run, settings, folder)
    made = export(best)
    path = folder / MODEL
    _save(made, path, say)
    return Fitted(path, made, best, skipped)


def _train(
    settings: Settings, store: Store, vocabulary: Vocabulary, folder: Path, model: Whisper | None,
    listener: Listener | None, say: Callable[[str], None],
) -> Run:  # fmt: skip
    curves: Curves | None = None

    def watch(run: Run, settings: Settings, pace: float) -> None:
        nonlocal curves
        curves = curves or Curves(folder, max(run.step - 25, 0))
        curves.write(run, settings, pace)
        say(progress_line(run, settings, pace))

    if (folder / LAST).exists():
        say(f"continuing from {folder / LAST}")
    try:
        return train(settings, store, vocabulary, folder, model=model, evaluate=listener, watch=watch)
    finally:
        if curves is not None:
            curves.close()


def _load(options: FitOptions) -> Whisper | None:
    from .checkpoints import load_model

    if options.model is None:
        return None
    model = load_model(options.model, device="cpu")
    if options.task == "translate" and not model.is_multilingual:
        raise OptionError(f"task=translate needs a multilingual model, and {options.model} knows English alone")
    return model


def _known(recordings: Sequence[Recording], model: Whisper | None) -> tuple[list[Recording], list[tuple[str, str]]]:
    """What a model can learn, and what it cannot: one of English alone has no token for another language."""
    if model is None or model.is_multilingual:
        return list(recordings), []
    known = [r for r in recordings if r.language in (None, "en", NOBODY)]
    foreign = [(r.path, f"language {r.language}: the model knows English alone") for r in recordings if r not in known]
    return known, foreign


def _list_skipped(rows: list[tuple[str, str]], folder: Path, say: Callable[[str], None]) -> list[tuple[str, str]]:
    """Write what is not learnt from into a file, and say how much it is."""
    lines = ["what\twhy", *("\t".join(" ".join(cell.split()) for cell in row) for row in rows)]
    with written_whole(folder / SKIPPED) as file:
        file.write(("\n".join(lines) + "\n").encode())
    if rows:
        say(f"left out: {len(rows)}, such as {rows[-1][0]}: {rows[-1][1]}; {folder / SKIPPED} lists all")
    return rows


def _vocabulary(options: FitOptions, store: Store, model: Whisper | None) -> Vocabulary:
    texts = [clip.text for clip in store.clips]
    if model is not None:
        return whole_vocabulary(model.is_multilingual, model.num_languages, options.task, _has_short_pieces(model))
    return used_vocabulary(texts, sorted({clip.language for clip in store.clips}), options.task)


def _has_short_pieces(model: Whisper) -> bool:
    """Whether the model was made with a used vocabulary: then most rows of its embedding are one and the same."""
    rows = model.decoder.token_embedding.weight[PIECES:20000]
    return bool((rows == rows[-1]).all(dim=1).float().mean() > 0.9)


def _remember(options: FitOptions, folder: Path) -> None:
    with written_whole(folder / OPTIONS) as file:
        file.write(json.dumps(asdict(options), indent=1, ensure_ascii=False).encode())


def _save(model: Whisper, path: Path, say: Callable[[str], None]) -> None:
    from .checkpoints import save_checkpoint

    save_checkpoint(model, path)
    say(f"{path}: {path.stat().st_size / 1e6:.0f} MB; whisper.load_model({str(path)!r})")


# ---------------------------------------------------------------------------------------------------------
# Listening on a dev set
# ---------------------------------------------------------------------------------------------------------


class Listener:
    """Word error rate of a model on some recordings, read greedily, the first 30 s of each."""

    BATCH = 8

    def __init__(self, options: FitOptions, settings: Settings) -> None:
        import numpy as np

        assert options.dev is not None
        manifest = read_manifest(options.dev, max_seconds=LONGEST / FRAMES, require_text=True)
        chosen = [r for r in manifest.recordings if r.text]
        if len(chosen) > options.dev_clips:
            at = np.random.default_rng(options.seed).choice(len(chosen), options.dev_clips, replace=False)
            chosen = [chosen[i] for i in sorted(at)]
        self._settings, self._task = settings, options.task
        self._clips = list[tuple[torch.Tensor, str, str]]()  # features, text, language
        for recording in chosen:
            language = recording.language or options.language
            if language is not None:
                self._add(recording, language)
        if not self._clips:
            raise TrainingError(f"{options.dev} has no recording that can be listened to")
        self._clips.sort(key=lambda clip: clip[2])

    def _add(self, recording: Recording, language: str) -> None:
        try:
            samples = load_audio(recording.path)
        except AudioError:
            return
        samples = samples[int((recording.start or 0) * 16000) :][: int((recording.seconds or 30) * 16000) + 1]
        mel = log_mel_spectrogram(samples, self._settings.dims.n_mels, padding=N_SAMPLES)
        self._clips.append((pad_or_trim(mel[:, : len(samples) // 160], N_FRAMES), recording.text, language))

    def __call__(self, model: Whisper) -> float:
        """Word errors a word."""
        from .scoring import word_errors, words_of

        model = model.to(self._settings.device)
        threads = torch.get_num_threads()
        torch.set_num_threads(self._settings.threads)
        errors = total = 0
        for language in sorted({language for _, _, language in self._clips}):
            clips = [clip for clip in self._clips if clip[2] == language]
            for i in range(0, len(clips), self.BATCH):
                part = clips[i : i + self.BATCH]
                for text, (_, wanted, _) in zip(self._read(model, part, language), part, strict=True):
                    expected = words_of(wanted, language)
                    errors += word_errors(expected, words_of(text, language))
                    total += len(expected)
        torch.set_num_threads(threads)
        return errors / max(total, 1)

    def _read(self, model: Whisper, clips: Sequence[tuple[torch.Tensor, str, str]], language: str) -> list[str]:
        known = language if model.is_multilingual else "en"
        options = DecodingOptions(task=self._task, language=known, fp16=self._settings.device != "cpu")
        mel = torch.stack([mel for mel, _, _ in clips]).to(self._settings.device)
        results = decode(model, mel, options)
        return [result.text for result in (results if isinstance(results, list) else [results])]
