"""The options of a training, for Python and the command: names, defaults, help and checks.

`FitOptions.settings` turns them into the settings of the trainer. Reads no data and trains nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from ..device import hardware
from ..errors import DeviceError, OptionError
from ..manifests.read import NON_SPEECH, resolve_language
from ..model import ModelDimensions
from ..options.types import is_number
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
    language: str | None = _option(None, "language of recordings whose manifest has none, a code or a name")
    task: str = _option("transcribe", "what the texts are", choices=("transcribe", "translate"))
    text: str | None = _option(
        None,
        "train on texts as_given, or plain: lower-case letters only, which small models learn best; by default plain "
        "for English and French from scratch, and for nano",
        choices=("as_given", "plain"),
    )
    epochs: float = _option(3.0, "passes over the recordings, on average")
    steps: int | None = _option(None, "number of steps, instead of epochs")
    batch_seconds: float | None = _option(None, "seconds of audio in a batch; 240 for a checkpoint, 80 from scratch")
    seconds_at_once: float | None = _option(
        None,
        "seconds of audio in one forward pass, with gradient accumulation: less needs less memory and gives the same "
        "result; at least the length of a window; by default 240 on a GPU, the batch on a CPU",
    )
    window_seconds: tuple[float, ...] = _option(
        (30.0,),
        "lengths of the windows in seconds, with commas, one drawn per step; from scratch, short windows train faster",
    )
    learning_rate: float | None = _option(
        None,
        "the peak learning rate, decaying to zero at the last step; 1e-5 for a checkpoint, 3e-4 with lora_rank, 2e-3 "
        "from scratch",
    )
    warmup: int | None = _option(None, "steps of linear warmup; by default a tenth of all, at most 200")
    optimiser: str | None = _option(None, "muon from scratch, adamw for a checkpoint", choices=("adamw", "muon"))
    weight_decay: float = _option(0.02, "weight decay of matrices")
    average: float | None = _option(
        None,
        "decay of the exponential moving average of the weights, which becomes the model; 0 for none; 0.99 from "
        "scratch, else 0",
    )
    lora_rank: int = _option(0, "train LoRA adapters of this rank instead of the weights; 0 trains the weights")
    lora_alpha: float = _option(16.0, "scale of the adapters, times rank")
    lora_targets: tuple[str, ...] = _option(
        ("query", "value"), f"weights that get adapters, with commas: {', '.join(lora.TARGETS)}"
    )
    freeze_encoder: bool = _option(False, "do not train the encoder")
    augment: str = _option(
        "mild",
        "data augmentation: tempo, voice, room and level, noise, SpecAugment",
        choices=tuple(AUGMENTATIONS),
    )
    p_silent: float = _option(0.05, "share of windows without speech, 0 to 1")
    p_plain: float = _option(0.3, "share of windows without timestamps")
    p_prompt: float = _option(0.1, "share of windows with previous text as a prompt")
    p_short: float = _option(0.5, "share of windows with a single recording; others join what fits, with pauses")
    dev: str | None = _option(
        None, "manifest of a dev set to evaluate on (word error rate); the best model is kept, not the last"
    )
    dev_clips: int = _option(100, "how many of its recordings, drawn by the seed")
    evaluate_every: int | None = _option(None, "steps between evaluations; by default ten evaluations in a training")
    patience: int = _option(0, "stop after this many evaluations without improvement; 0 for never")
    save_every: int = _option(250, "steps between checkpoints; there is also one every five minutes")
    precision: str = _option(
        "auto",
        "of matrix products; auto is the fastest that the device supports well",
        choices=("auto", "bfloat16", "float16", "float32"),
    )
    device: str | None = _option(None, "where to train, such as cpu or cuda:1; by default cuda if available")
    threads: int | None = _option(None, "threads on a CPU; by default as many as there are, at most eight")
    seed: int = _option(1, "random seed of weights and data")

    def __post_init__(self) -> None:
        for name in ("model", "dev"):
            if isinstance(path := getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(path))
        for name in ("window_seconds", "lora_targets"):
            value = getattr(self, name)
            listed = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
            object.__setattr__(self, name, listed)
        if self.language is not None:
            code = resolve_language(self.language)
            if code is None or code == NON_SPEECH:
                raise OptionError(f"language must be the language of speech, not {self.language!r}")
            object.__setattr__(self, "language", code)
        for f in fields(self):
            choices, value = f.metadata.get("choices"), getattr(self, f.name)
            if choices and value is not None and value not in choices:
                raise OptionError(f"{f.name} must be one of {', '.join(choices)}, not {value!r}")
        self._check_numbers()
        self._check_together()

    def _check_numbers(self) -> None:
        for name in ("p_silent", "p_plain", "p_prompt", "p_short"):
            self._within(name, 0.0, 1.0)
        for name in ("epochs", "batch_seconds", "seconds_at_once", "learning_rate", "lora_alpha"):
            self._within(name, 1e-12, math.inf)
        for name in ("threads", "save_every", "dev_clips", "steps", "evaluate_every"):
            self._within(name, 1, math.inf, whole=True)
        for name in ("warmup", "lora_rank", "patience", "seed"):
            self._within(name, 0, math.inf, whole=True)
        self._within("weight_decay", 0, math.inf)
        self._within("average", 0.0, 0.99999)
        if not self.window_seconds or any(not is_number(s) or not 1 <= s <= 30 for s in self.window_seconds):
            raise OptionError(f"window_seconds must be lengths of 1 to 30 s, not {self.window_seconds}")

    def _check_together(self) -> None:
        if (self.model is None) == (self.shape is None):
            raise OptionError("give model, to fine-tune a checkpoint, or shape, to train from scratch")
        if self.shape and (self.lora_rank or self.freeze_encoder):
            raise OptionError("lora_rank and freeze_encoder are for a checkpoint; from scratch all weights are trained")
        if unknown := [target for target in self.lora_targets if target not in lora.TARGETS]:
            raise OptionError(f"lora_targets has no {unknown[0]!r}; there are {', '.join(lora.TARGETS)}")
        for name, needed in _NEEDS.items():
            if getattr(self, name) != _DEFAULTS[name] and not getattr(self, needed):
                raise OptionError(f"{name} has no effect without {needed}")
        if self.steps is not None and self.epochs != _DEFAULTS["epochs"]:
            raise OptionError("give steps or epochs, not both")
        if self.shape is not None:
            self.dimensions()

    def _within(self, name: str, low: float, high: float, whole: bool = False) -> None:
        value = getattr(self, name)
        if value is None and _DEFAULTS[name] is None:
            return
        if not is_number(value) or not low <= value <= high or (whole and value != int(value)):
            kind = "above 0" if low == 1e-12 else f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
            raise OptionError(f"{name} must be {'a whole number of ' if whole else ''}{kind}, not {value!r}")

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


_DEFAULTS = {f.name: f.default for f in fields(FitOptions)}
_NEEDS = {
    "lora_alpha": "lora_rank",
    "lora_targets": "lora_rank",
    "dev_clips": "dev",
    "evaluate_every": "dev",
    "patience": "dev",
}


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
