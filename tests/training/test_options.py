"""Options of a training: each has an effect, open ones are chosen, and mistakes are reported at once."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from whisper.errors import DeviceError, LanguageError, OptionError
from whisper.training.options import SHAPES, FitOptions

BASE = {"model": "tiny", "device": "cpu", "threads": 2, "precision": "float32"}
# a changed value of each option, and the options that it needs
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "epochs": (5.0, {}), "steps": (7, {}), "batch_seconds": (60.0, {}), "seconds_at_once": (30.0, {}),
    "window_seconds": ((10.0,), {}), "learning_rate": (1.0, {}), "warmup": (3, {}), "optimiser": ("muon", {}),
    "weight_decay": (0.5, {}), "average": (0.5, {}), "lora_rank": (4, {}), "lora_alpha": (2.0, {"lora_rank": 4}),
    "lora_targets": (("mlp",), {"lora_rank": 4}), "freeze_encoder": (True, {}), "augment": ("strong", {}),
    "p_silent": (0.5, {}), "p_plain": (0.5, {}), "p_prompt": (0.5, {}), "p_short": (0.1, {}), "dev": ("m.tsv", {}),
    "evaluate_every": (5, {"dev": "m.tsv"}), "patience": (3, {"dev": "m.tsv"}), "save_every": (5, {}),
    "precision": ("bfloat16", {}), "device": ("meta", {}), "threads": (1, {}), "seed": (9, {}),
}  # fmt: skip
OF_THE_DATA = {"language", "task", "text", "dev_clips"}  # `test_training` checks their effect on the training data


def test_every_option_changes_the_settings():
    assert set(CHANGES) | OF_THE_DATA | {"model", "shape"} == {f.name for f in fields(FitOptions)}
    for name, (value, others) in CHANGES.items():
        plain = FitOptions(**BASE, **others)
        changed = replace(plain, **{name: value})
        assert plain.settings(10.0, SHAPES["tiny"]) != changed.settings(10.0, SHAPES["tiny"]), name
    scratch = FitOptions(**{**BASE, "model": None, "shape": "tiny"})
    assert scratch.settings(10.0, SHAPES["tiny"]) != FitOptions(**BASE).settings(10.0, SHAPES["tiny"])


def test_open_options_are_chosen():
    scratch = FitOptions(shape="nano", epochs=2.0, device="cpu").settings(1.0, SHAPES["nano"])
    assert scratch.n_steps == 90  # two hours in steps of 80 s
    assert FitOptions(shape="nano", epochs=2.0).settings(1.0, SHAPES["nano"], speech_share=0.5).n_steps == 180
    assert (scratch.optimiser, scratch.learning_rate, scratch.objective.ctc_weight) == ("muon", 2e-3, 1.0)
    tuned = FitOptions(model="tiny", lora_rank=8, device="cpu").settings(1.0, SHAPES["tiny"])
    assert (tuned.optimiser, tuned.learning_rate, tuned.objective.ctc_weight) == ("adamw", 3e-4, 0.0)
    assert tuned.stages[0].lr_factors == (1.0, 0.0)
    assert 1 <= tuned.threads <= 8


@pytest.mark.parametrize("name", ["tiny", "base", "small", "medium", "large", "turbo"])
def test_shapes_are_those_of_the_published_models(name):
    dims = SHAPES[name]
    widths = {"tiny": 384, "base": 512, "small": 768, "medium": 1024, "large": 1280, "turbo": 1280}
    assert dims.n_audio_state == dims.n_text_state == widths[name]
    assert dims.n_audio_head == widths[name] // 64
    assert (dims.n_mels, dims.n_vocab) == ((128, 51866) if name == "turbo" else (80, 51865))


def test_shapes_by_hand():
    dims = FitOptions(shape="width=128, encoder=2, mels=128").dimensions()
    assert (dims.n_audio_state, dims.n_audio_layer, dims.n_text_layer, dims.n_mels) == (128, 2, 2, 128)


@pytest.mark.parametrize("shape", ["width=100,encoder=2", "wide", "width=64", "width=64,encoder=1,dcoder=1", "width=x"])
def test_wrong_shapes_are_reported(shape):
    with pytest.raises(OptionError, match="width=256,encoder=4,decoder=2"):
        FitOptions(shape=shape)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 2.5}, "steps must be a whole number of at least 1, or None, not 2.5"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"threads": "2"}, "threads must be a whole number"),
        ({"epochs": None}, "epochs must be a number above 0, not None"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0, or None, not nan"),
        ({"average": 1.0}, "average must be a number from 0 to 0.99999, or None, not 1.0"),
        ({"window_seconds": ()}, "window_seconds must be one or more numbers from 1 to 30"),
        ({"window_seconds": 31}, "window_seconds must be one or more numbers from 1 to 30"),
        (
            {"lora_rank": 2, "lora_targets": ("query", "keys")},
            "lora_targets must be one or more of query, .*, not .'query', 'keys'.",
        ),
        ({"lora_alpha": 2.0}, "lora_alpha has no effect without lora_rank"),
        ({"dev_clips": 5}, "dev_clips has no effect without dev"),
        ({"evaluate_every": 5}, "evaluate_every has no effect without dev"),
        ({"steps": 5, "epochs": 2.0}, "steps or epochs"),
        ({"augment": "loud"}, "augment must be one of none, mild, strong"),
        ({"language": "none"}, "the language of speech"),
    ],
)
def test_wrong_values_are_reported(values, says):
    with pytest.raises(OptionError, match=says):
        FitOptions(model="tiny", **values)


def test_values_are_converted():
    options = FitOptions(model=Path("a") / "b.pt", language="French", window_seconds=5, lora_rank=2, lora_targets="mlp")
    assert options.model == str(Path("a") / "b.pt")
    assert options.language == "fr"
    assert (options.window_seconds, options.lora_targets) == ((5,), ("mlp",))
    with pytest.raises(LanguageError, match="did you mean 'french'"):
        FitOptions(model="tiny", language="frensh")


def test_devices_and_precisions_are_checked_at_once():
    with pytest.raises(OptionError, match="float16 needs a GPU; on a CPU use bfloat16 or float32"):
        FitOptions(model="tiny", device="cpu", precision="float16").place()
    with pytest.raises(DeviceError, match="device 'warp' cannot be used here"):
        FitOptions(model="tiny", device="warp").place()
    if not torch.cuda.is_available():
        assert FitOptions(model="tiny").place()[0] == "cpu"
        with pytest.raises(DeviceError, match="leave it out or give cpu"):
            FitOptions(model="tiny", device="cuda").place()
