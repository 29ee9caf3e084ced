"""The promise "same": every option of transcribe() and decode() gives what the original gives.

Same weights (small random ones of several shapes, and nano), same samples, float32. The samples are given as arrays,
so that both sides hear exactly the same (`test_audio.py` compares the decoding of files). Cases that sample above
temperature 0 seed torch alike on both sides.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import whisper

from .conftest import Original
from .models import random_model, save_model

pytestmark = [pytest.mark.peers, pytest.mark.shared, pytest.mark.timeout(1500)]

MODELS: dict[str, dict[str, Any]] = {
    "multilingual": {"seed": 1},
    "talkative": {"seed": 2, "n_state": 96, "n_head": 3},
    "v3": {"seed": 3, "n_mels": 128, "n_vocab": 51866, "n_audio_layer": 1, "n_text_layer": 3},
    "english": {"seed": 4, "n_vocab": 51864, "n_state": 48},
}
SOUNDS = {
    "jfk": "misc/jfk_16k.wav",
    "minute": "misc/fw_multilingual.mp3",
    "digit": "digits/0_george_0.flac",
    "noise": "noise/doing_the_dishes_12s.flac",
}
NO_LIMITS = {"logprob_threshold": None, "compression_ratio_threshold": None, "no_speech_threshold": None}
WORDS = {"word_timestamps": True, **NO_LIMITS}

# each option of transcribe() appears at least once; the keys are the cases' names
TRANSCRIBE: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults at one temperature": ("minute", {"temperature": 0}),
    "short": ("digit", {"temperature": 0, "word_timestamps": True}),
    "noise": ("noise", {"temperature": 0, "no_speech_threshold": 0.1}),
    "silence by threshold": ("minute", {"temperature": 0, "no_speech_threshold": 0.0, "logprob_threshold": 0.0}),
    "silence without logprob": ("jfk", {"temperature": 0, "no_speech_threshold": 0.0, "logprob_threshold": None}),
    "language": ("minute", {"temperature": 0, "language": "en", **NO_LIMITS}),
    "language by name": ("jfk", {"temperature": 0, "language": "English", **NO_LIMITS}),
    "translate": ("jfk", {"temperature": 0, "task": "translate", "language": "de", **NO_LIMITS}),
    "words": ("minute", {"temperature": 0, "language": "en", **WORDS}),
    "words without spaces": ("jfk", {"temperature": 0, "language": "ja", **WORDS}),
    "words, other punctuation": (
        "jfk",
        {"temperature": 0, "prepend_punctuations": "(", "append_punctuations": ".", **WORDS},
    ),
    "words of translation": ("jfk", {"temperature": 0, "language": "en", "task": "translate", **WORDS}),
    "hallucination threshold": (
        "minute",
        {"temperature": 0, "language": "en", "hallucination_silence_threshold": 0.5, **WORDS},
    ),
    "hallucination threshold, long": (
        "minute",
        {"temperature": 0, "language": "fr", "hallucination_silence_threshold": 2.0, **WORDS},
    ),
    "no conditioning": ("minute", {"temperature": 0, "condition_on_previous_text": False, **NO_LIMITS}),
    "prompt": ("minute", {"temperature": 0, "initial_prompt": " Sotto, Whisper. ", **NO_LIMITS}),
    "carried prompt": (
        "minute",
        {"temperature": 0, "initial_prompt": "Glossary: sotto voce", "carry_initial_prompt": True, **NO_LIMITS},
    ),
    "clips as text": ("minute", {"temperature": 0, "clip_timestamps": "1,5.5,7", **NO_LIMITS}),
    "clips as numbers": (
        "minute",
        {"temperature": 0, "clip_timestamps": [0.5, 9, 12, 20.25], "language": "en", **WORDS},
    ),
    "clip timestamps empty": ("jfk", {"temperature": 0, "clip_timestamps": "", **NO_LIMITS}),
    "beams": ("jfk", {"temperature": 0, "beam_size": 3, **NO_LIMITS}),
    "beams, patience, length penalty": (
        "jfk",
        {"temperature": 0, "beam_size": 2, "patience": 2.0, "length_penalty": 0.6, "sample_len": 40, **NO_LIMITS},
    ),
    "sample_len": ("minute", {"temperature": 0, "sample_len": 17, **NO_LIMITS}),
    "prefix": ("jfk", {"temperature": 0, "prefix": "And so", **NO_LIMITS}),
    "prefix with sample_len": ("jfk", {"temperature": 0, "prefix": "one two three four", "sample_len": 221}),
    "suppress nothing": ("jfk", {"temperature": 0, "suppress_tokens": "", **NO_LIMITS}),
    "suppress by text": ("jfk", {"temperature": 0, "suppress_tokens": "-1,13,440", **NO_LIMITS}),
    "suppress by list": ("jfk", {"temperature": 0, "suppress_tokens": [11, 13], "language": "en"}),
    "blank allowed": ("jfk", {"temperature": 0, "suppress_blank": False, **NO_LIMITS}),
    "without timestamps": ("minute", {"temperature": 0, "without_timestamps": True, **NO_LIMITS}),
    "max_initial_timestamp": ("minute", {"temperature": 0, "max_initial_timestamp": None, **NO_LIMITS}),
    "late start": ("minute", {"temperature": 0, "max_initial_timestamp": 5.0, **NO_LIMITS}),
    "fallback by logprob": ("jfk", {"temperature": (0, 0.4, 0.8), "logprob_threshold": -0.05}),
    "fallback by compression": (
        "jfk",
        {
            "temperature": (0, 0.6),
            "compression_ratio_threshold": 0.5,
            "best_of": 2,
            "beam_size": 2,
            "sample_len": 30,
        },
    ),
    "sampled": ("jfk", {"temperature": 0.7, "best_of": 3, "sample_len": 40, **NO_LIMITS}),
}
# (sounds, options) for decode() on windows; several sounds make a batch
DECODE: dict[str, tuple[list[str], dict[str, Any]]] = {
    "decode": (["jfk"], {}),
    "decode batch": (["jfk", "noise", "digit"], {"language": "en"}),
    "decode with prompt": (["jfk"], {"prompt": "One, two", "language": "en"}),
    "decode with prompt tokens": (["jfk"], {"prompt": list(range(1000, 1300)), "prefix": [440, 1001]}),
    "decode beams": (["noise"], {"beam_size": 4, "sample_len": 60}),
    "lang_id": (["jfk", "minute"], {"task": "lang_id"}),
}

FEW = [
    "short", "language", "words", "words without spaces", "clips as numbers", "carried prompt", "beams", "translate",
    "without timestamps",
]  # fmt: skip

SCRIPT = """
import dataclasses, json, numpy as np, torch, warnings, whisper
warnings.simplefilter("ignore")
answer = {}
for model_name, path in arguments["models"].items():
    model = whisper.load_model(path, device="cpu")
    sounds = {name: np.load(file) for name, file in arguments["sounds"].items()}
    for name, sound, options in arguments["transcribe"]:
        if model_name not in arguments["all"] and name not in arguments["few"]:
            continue
        if not model.is_multilingual and options.get("language") not in (None, "en", "English"):
            continue
        if name in arguments["short"]:
            options = {"sample_len": 50, **options}
        torch.manual_seed(0)
        result = model.transcribe(sounds[sound], fp16=False, **options)
        answer[model_name + ": " + name] = json.loads(json.dumps(result, default=float))
    for name, names, options in arguments["decode"]:
        if not model.is_multilingual:
            if "lang_id" in name:
                continue
            options = {**options, "language": "en"}
        cut = [whisper.pad_or_trim(sounds[n]) for n in names]
        mel = torch.stack([whisper.log_mel_spectrogram(sound, model.dims.n_mels) for sound in cut])
        fields = [dataclasses.asdict(r) for r in model.decode(mel, fp16=False, **options)]
        for field in fields:
            field["audio_features"] = field["audio_features"].mean().item()
            for ours in ("is_loop", "token_logprobs"):
                field.pop(ours, None)
        answer[model_name + ": " + name] = fields
"""


@pytest.fixture(scope="module")
def results(
    original: Original, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the original gives, and what we give, for every case."""
    folder = tmp_path_factory.mktemp("parity")
    models = {name: save_model(random_model(**shape), folder / f"{name}.pt") for name, shape in MODELS.items()}
    models["nano"] = save_model(whisper.load_model("nano", device="cpu"), folder / "nano.pt")
    sounds = {}
    for name, file in SOUNDS.items():
        sounds[name] = folder / f"{name}.npy"
        np.save(sounds[name], whisper.load_audio(str(shared_data / "dev" / file))[: 35 * 16000])
    arguments = {
        "models": {name: str(path) for name, path in models.items()},
        "sounds": {name: str(path) for name, path in sounds.items()},
        "transcribe": [[name, *case] for name, case in TRANSCRIBE.items()],
        "decode": [[name, *case] for name, case in DECODE.items()],
        # every case with one random model and with nano, some cases with the models of other shapes
        "all": ["talkative", "nano"],
        "few": FEW,
        # the original's loop is slow: only some cases decode to the end of the decoder's context
        "short": [name for name in TRANSCRIBE if name not in ("defaults at one temperature", "words")],
    }
    theirs = original(SCRIPT, folder, timeout=1200, **arguments)
    space: dict[str, Any] = {"arguments": arguments}
    exec(compile(SCRIPT, "ours", "exec"), space)  # the very same program, on our package
    ours = json.loads(json.dumps(space["answer"]))
    return theirs, ours


def differences(theirs: Any, ours: Any, path: str = "") -> list[str]:
    """Compare two results; times to 0.02 s, scores to 1e-3, all else exactly."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if list(theirs) != list(ours) and set(theirs) != set(ours):
            return [f"{path}: keys {sorted(theirs)} and {sorted(ours)}"]
        return [d for key in theirs for d in differences(theirs[key], ours[key], f"{path}.{key}")]
    if isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            return [f"{path}: {len(theirs)} and {len(ours)} items"]
        return [d for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) for d in differences(a, b, f"{path}[{i}]")]
    if isinstance(theirs, float) and isinstance(ours, float):
        tolerance = 0.02 + 1e-9 if path.endswith((".start", ".end")) else 1e-3
        same = abs(theirs - ours) <= tolerance or (np.isnan(theirs) and np.isnan(ours))
        return [] if same else [f"{path}: {theirs} and {ours}"]
    return [] if theirs == ours else [f"{path}: {theirs!r} and {ours!r}"]


def test_every_case_gives_what_the_original_gives(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    theirs, ours = results
    assert set(theirs) == set(ours)
    assert len(theirs) > 110
    found = {case: d for case in theirs if (d := differences(theirs[case], ours[case], case))}
    n_segments = sum(len(r["segments"]) for r in theirs.values() if isinstance(r, dict))
    n_words = sum(len(s.get("words", ())) for r in theirs.values() if isinstance(r, dict) for s in r["segments"])
    print(f"{len(theirs)} cases, {n_segments} segments, {n_words} words; {len(found)} cases differ")
    assert not found, "\n".join(line for lines in found.values() for line in lines[:3])


def test_the_cases_are_no_empty_ones(results: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Agreement on nothing would prove nothing."""
    theirs, _ = results
    transcripts = [r for r in theirs.values() if isinstance(r, dict)]
    assert sum(len(r["segments"]) > 2 for r in transcripts) > 20
    assert len({r["text"] for r in transcripts if r["text"]}) > 30
    assert sum(bool(s.get("words")) for r in transcripts for s in r["segments"]) > 30


BEYOND = (
    "batch_size", "progress", "cancel", "seed", "audit", "vad_filter", "vad_parameters", "languages",
    "language_detection_segments", "multilingual", "verify_language", "channels", "no_repeat_ngram_size",
    "repetition_penalty", "hotwords", "hotword_boost", "stop_loops", "audio_track", "container_time",
    "word_confidence", "token_logprobs", "audio_context", "speakers", "num_speakers", "min_speakers", "max_speakers",
    "known_speakers", "speaker_backend",
)  # fmt: skip


def test_every_option_has_a_case() -> None:
    import dataclasses
    import inspect

    named = {o for _, options in [*TRANSCRIBE.values(), *DECODE.values()] for o in options} | {"fp16"}
    keywords = {p for p in inspect.signature(whisper.transcribe).parameters if p not in ("model", "audio")}
    ours = set(BEYOND)  # the original has none of them
    keywords -= {"verbose", "decode_options"} | ours
    known = keywords | {f.name for f in dataclasses.fields(whisper.DecodingOptions)} - ours
    assert known <= named, f"no parity case for {sorted(known - named)}"


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (40, 700), (224, 1500)])
def test_dtw_and_median_filter(original: Original, tmp_path: Path, shape: tuple[int, int]) -> None:
    from whisper.timing import dtw, median_filter

    rng = np.random.default_rng(sum(shape))
    smooth, tied = rng.normal(size=shape).round(4), rng.integers(0, 3, size=shape) * 1.0
    code = (
        "import torch; from whisper.timing import dtw, median_filter\n"
        "xs = [torch.tensor(x, dtype=torch.float32) for x in arguments['xs']]\n"
        "answer = [[dtw(x).tolist(), median_filter(x, 7).tolist()] for x in xs]"
    )
    theirs = original(code, tmp_path, xs=[smooth.tolist(), tied.tolist()])
    for x, (path, filtered) in zip([smooth, tied], theirs, strict=True):
        tensor = torch.tensor(x, dtype=torch.float32)
        assert dtw(tensor).tolist() == path
        assert median_filter(tensor, 7).tolist() == filtered
