"""The options of a training, for Python and the command: names, defaults, help and checks.

`FitOptions.settings` turns them into the settings of the trainer. Reads no data and trains nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from ..device import hardware
from ..errors import DeviceError, OptionError
from ..manifests.read import NON_SPEECH, resolve_language
from ..model import ModelDimensions
from ..options.types import (
    FINITE,
    FLAG,
    PATH,
    TEXT,
    check_values,
    idle,
    number,
    numbers,
    one_of,
    option,
    some_of,
    whole,
)
from . import lora
from .mixing import Recipe
from .network import FINE_TUNING, FROM_SCRATCH
from .trainer import NANO, Settings, Stage


def _shape(width: int, layers: int, decoder_layers: int | None = None, **others: int) -> ModelDimensions:
    heads = width // 64
    values = {"n_mels": 80, "n_audio_ctx": 1500, "n_vocab": 51865, "n_text_ctx": 448, **others}
    return ModelDimensions(
        n_audio_state=width,
        n_audio_head=heads,
        n_audio_layer=layers,
        n_text_state=width,
        n_text_head=heads,
        n_text_layer=decoder_layers or layers,
        **values,
    )


SHAPES = {  # of the published models, and of ours; openai-whisper, MIT
    "nano": NANO,
    "tiny": _shape(384, 4),
    "base": _shape(512, 6),
    "small": _shape(768, 12),
    "medium": _shape(1024, 24),
    "large": _shape(1280, 32),
    "turbo": _shape(1280, 32, 4, n_mels=128, n_vocab=51866),
}
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {"augment_strength": 0.0, "p_noise": 0.0, "max_mask_frames": 0},
    "mild": {"augment_strength": 0.5, "p_noise": 0.2, "noise_below": (1.0, 4.0), "max_mask_frames": 12},
    "strong": {"augment_strength": 1.0, "p_noise": 0.5, "noise_below": (0.0, 3.0), "max_mask_frames": 22},
}


# headings of the help and of docs/options.md, in their order
GROUPS = (
    MODEL := "model",
    TEXTS := "language and texts",
    DURATION := "duration and batches",
    OPTIMIZATION := "optimization",
    PARTIAL := "fine-tuning a part of the weights, which needs less memory and forgets less of the pretraining",
    WINDOWS := "windows and augmentation",
    EVALUATION := "evaluation during the training",
    RUNNING := "checkpoints and device",
)
POSITIVE, SHARE = number(0, FINITE, above=True), number(0, 1)
SPOKEN = TEXT._replace(words="the code or the name of a language")
STEPS, COUNT = whole(1, floats=True), whole(0, floats=True)


@dataclass(frozen=True)
class FitOptions:
    """How to train; the one source of names, defaults and help, for Python and the command.

    What is None is chosen by what is trained: from scratch or from a checkpoint, on a CPU or a GPU.
    """

    model: str | None = option(
        MODEL, None, PATH, "fine-tune this model: a name, a checkpoint, or owner/name on the hub"
    )
    shape: str | None = option(
        MODEL,
        None,
        TEXT,
        f"train from scratch, in the shape of one of {', '.join(SHAPES)}, or width=256,encoder=4,decoder=2",
    )

    language: str | None = option(
        TEXTS, None, SPOKEN, "language of recordings whose manifest has none, a code or a name"
    )
    task: str = option(TEXTS, "transcribe", one_of("transcribe", "translate"), "what the texts are")
    text: str | None = option(
        TEXTS,
        None,
        one_of("as_given", "plain"),
        "train on texts as_given, or plain: lower-case letters only, which small models learn best; by default plain "
        "for English and French from scratch, and for nano",
    )

    epochs: float = option(DURATION, 3.0, POSITIVE, "passes over the recordings, on average")
    steps: int | None = option(DURATION, None, STEPS, "number of steps, instead of epochs")
    batch_seconds: float | None = option(
        DURATION, None, POSITIVE, "seconds of audio in a batch; 240 for a checkpoint, 80 from scratch"
    )
    seconds_at_once: float | None = option(
        DURATION,
        None,
        POSITIVE,
        "seconds of audio in one forward pass, with gradient accumulation: less needs less memory and gives the same "
        "result; at least the length of a window; by default 240 on a GPU, the batch on a CPU",
    )
    window_seconds: tuple[float, ...] = option(
        DURATION,
        (30.0,),
        numbers(1, 30),
        "lengths of the windows in seconds, with commas, one drawn per step; from scratch, short windows train faster",
    )

    learning_rate: float | None = option(
        OPTIMIZATION,
        None,
        POSITIVE,
        "the peak learning rate, decaying to zero at the last step; 1e-5 for a checkpoint, 3e-4 with lora_rank, 2e-3 "
        "from scratch",
    )
    warmup: int | None = option(
        OPTIMIZATION, None, COUNT, "steps of linear warmup; by default a tenth of all, at most 200"
    )
    optimiser: str | None = option(
        OPTIMIZATION, None, one_of("adamw", "muon"), "muon from scratch, adamw for a checkpoint"
    )
    weight_decay: float = option(OPTIMIZATION, 0.02, number(0, FINITE), "weight decay of matrices")
    average: float | None = option(
        OPTIMIZATION,
        None,
        number(0, 0.99999),
        "decay of the exponential moving average of the weights, which becomes the model; 0 for none; 0.99 from "
        "scratch, else 0",
    )

    lora_rank: int = option(
        PARTIAL, 0, COUNT, "train LoRA adapters of this rank instead of the weights; 0 trains the weights"
    )
    lora_alpha: float = option(PARTIAL, 16.0, POSITIVE, "scale of the adapters, times rank", needs=("lora_rank",))
    lora_targets: tuple[str, ...] = option(
        PARTIAL,
        ("query", "value"),
        some_of(*lora.TARGETS),
        f"weights that get adapters, with commas: {', '.join(lora.TARGETS)}",
        needs=("lora_rank",),
    )
    freeze_encoder: bool = option(PARTIAL, False, FLAG, "do not train the encoder")

    augment: str = option(
        WINDOWS,
        "mild",
        one_of(*AUGMENTATIONS),
        "data augmentation: tempo, voice, room and level, noise, SpecAugment",
    )
    p_silent: float = option(WINDOWS, 0.05, SHARE, "share of windows without speech, 0 to 1")
    p_plain: float = option(WINDOWS, 0.3, SHARE, "share of windows without timestamps")
    p_prompt: float = option(WINDOWS, 0.1, SHARE, "share of windows with previous text as a prompt")
    p_short: float = option(
        WINDOWS, 0.5, SHARE, "share of windows with a single recording; others join what fits, with pauses"
    )

    dev: str | None = option(
        EVALUATION,
        None,
        PATH,
        "manifest of a dev set to evaluate on (word error rate); the best model is kept, not the last",
        cli={"metavar": "MANIFEST"},
    )
    dev_clips: int = option(EVALUATION, 100, STEPS, "how many of its recordings, drawn by the seed", needs=("dev",))
    evaluate_every: int | None = option(
        EVALUATION, None, STEPS, "steps between evaluations; by default ten evaluations in a training", needs=("dev",)
    )
    patience: int = option(
        EVALUATION, 0, COUNT, "stop after this many evaluations without improvement; 0 for never", needs=("dev",)
    )

    save_every: int = option(RUNNING, 250, STEPS, "steps between checkpoints; there is also one every five minutes")
    precision: str = option(
        RUNNING,
        "auto",
        one_of("auto", "bfloat16", "float16", "float32"),
        "of matrix products; auto is the fastest that the device supports well",
    )
    device: str | None = option(
        RUNNING, None, TEXT, "where to train, such as cpu or cuda:1; by default cuda if available"
    )
    threads: int | None = option(
        RUNNING, None, STEPS, "threads on a CPU; by default as many as there are, at most eight"
    )
    seed: int = option(RUNNING, 1, COUNT, "random seed of weights and data")

    def __post_init__(self) -> None:
        check_values(self)
        if self.language is not None:
            code = resolve_language(self.language)
            if code is None or code == NON_SPEECH:
                raise OptionError(f"language must be the language of speech, not {self.language!r}")
            object.__setattr__(self, "language", code)
        self._check_together()

    def _check_together(self) -> None:
        if (self.model is None) == (self.shape is None):
            raise OptionError("give model, to fine-tune a checkpoint, or shape, to train from scratch")
        if self.shape and (self.lora_rank or self.freeze_encoder):
            raise OptionError("lora_rank and freeze_encoder are for a checkpoint; from scratch all weights are trained")
        for name, needed in idle(self):
            raise OptionError(f"{name} has no effect without {needed}")
        if self.steps is not None and self.epochs != FitOptions.epochs:
            raise OptionError("give steps or epochs, not both")
        if self.shape is not None:
            self.dimensions()

    def dimensions(self) -> ModelDimensions:
        """Dimensions of a network from scratch."""
        assert self.shape is not None
        if self.shape in SHAPES:
            return SHAPES[self.shape]
        try:
            pairs = [pair.split("=") for pair in self.shape.split(",")]
            given = {key.strip(): int(value) for key, value in pairs}
            if not {"width", "encoder"} <= set(given) <= {"width", "encoder", "decoder", "mels"}:
                raise ValueError("names")
            if min(given.values()) < 1 or given["width"] % 64 or given.get("mels", 80) not in (80, 128):
                raise ValueError("numbers")
        except ValueError:
            raise OptionError(
                f"shape must be one of {', '.join(SHAPES)}, or like width=256,encoder=4,decoder=2 with a width "
                f"that is a multiple of 64 (and mels=80 or 128), not {self.shape!r}"
            ) from None
        return _shape(given["width"], given["encoder"], given.get("decoder"), n_mels=given.get("mels", 80))

    def recipe(self) -> Recipe:
        """How windows are mixed."""
        return Recipe(
            lengths=self.window_seconds,
            p_silent=self.p_silent,
            p_short_silent=0.5,
            p_short=self.p_short,
            p_prompt=self.p_prompt,
            p_plain=self.p_plain,
            p_excerpt=0.0 if self.model else 0.3,
            **AUGMENTATIONS[self.augment],
        )

    def place(self) -> tuple[str, str, int]:
        """Device, precision and threads.

        Raises
        ------
        DeviceError
            There is no such device.
        OptionError
            It has no such precision.
        """
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            kind = torch.empty(0, dtype=torch.float32, device=device).device.type
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).strip().split("\n")[0]
            raise DeviceError(f"device {device!r} cannot be used here ({reason}); leave it out or give cpu") from error
        device = "cpu" if kind == "cpu" else device
        return device, _precision(self.precision, device), self.threads or min(hardware.usable_cores(), 8)

    def settings(self, hours: float, dims: ModelDimensions, speech_share: float = 1.0) -> Settings:
        """The settings of the trainer, with everything chosen that was left open.

        Parameters
        ----------
        hours
            Hours of speech.
        dims
            Of the network.
        speech_share
            The share of the windows that is speech.
        """
        scratch, (device, precision, threads) = self.model is None, self.place()
        batch_seconds = self.batch_seconds or (80.0 if scratch else 240.0)
        steps = self.steps or max(math.ceil(self.epochs * hours * 3600 / (batch_seconds * speech_share)), 1)
        average = (0.99 if scratch else 0.0) if self.average is None else self.average
        stage = Stage(
            steps=int(steps),
            recipe=self.recipe(),
            seconds_per_step=batch_seconds,
            lr_factors=(1.0, 0.0),
            ema_decay=average,
        )
        return Settings(
            stages=(stage,),
            dims=dims,
            objective=FROM_SCRATCH if scratch else FINE_TUNING,
            seed=self.seed,
            optimiser=self.optimiser or ("muon" if scratch else "adamw"),
            learning_rate=self.learning_rate or (2e-3 if scratch else 3e-4 if self.lora_rank else 1e-5),
            warmup=min(steps // 10, 200) if self.warmup is None else self.warmup,
            weight_decay=self.weight_decay,
            max_grad_norm=5.0 if scratch else 1.0,
            lora_rank=self.lora_rank,
            lora_alpha=self.lora_alpha,
            lora_targets=self.lora_targets,
            freeze=("encoder",) if self.freeze_encoder else (),
            precision=precision,
            device=device,
            threads=threads,
            seconds_at_once=self.seconds_at_once or (1e9 if device == "cpu" else 240.0),
            save_every=self.save_every,
            evaluate_every=(self.evaluate_every or max(steps // 10, 1)) if self.dev else 0,
            patience=self.patience,
        )


def _precision(asked: str, device: str) -> str:
    """The precision asked for, or the fastest that the device supports well."""
    if asked != "auto":
        if asked == "float16" and device == "cpu":
            raise OptionError("precision float16 needs a GPU; on a CPU use bfloat16 or float32")
        return asked
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    # without bfloat16 instructions it is slower than float32
    return "bfloat16" if device == "cpu" and hardware.has_bfloat16() else "float32"
