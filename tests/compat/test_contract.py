"""What programs written for openai-whisper rely on: names, signatures, hooks, subclasses, replaced functions."""

from __future__ import annotations

import importlib
import inspect
import json
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import whisper
from whisper.errors import WhisperError
from whisper.model import Whisper

from ..conftest import Original, is_same, run_python
from ..models import random_model

# every public name of openai-whisper 20250625, by module
NAMES = {
    "": "available_models load_model load_audio log_mel_spectrogram pad_or_trim DecodingOptions DecodingResult decode "
    "detect_language ModelDimensions Whisper transcribe __version__ _MODELS _ALIGNMENT_HEADS _download",
    "audio": "SAMPLE_RATE N_FFT HOP_LENGTH CHUNK_LENGTH N_SAMPLES N_FRAMES N_SAMPLES_PER_TOKEN FRAMES_PER_SECOND "
    "TOKENS_PER_SECOND load_audio pad_or_trim mel_filters log_mel_spectrogram",
    "decoding": "detect_language DecodingOptions DecodingResult Inference PyTorchInference SequenceRanker "
    "MaximumLikelihoodRanker TokenDecoder GreedyDecoder BeamSearchDecoder LogitFilter SuppressBlank SuppressTokens "
    "ApplyTimestampRules DecodingTask decode",
    "model": "ModelDimensions LayerNorm Linear Conv1d sinusoids disable_sdpa MultiHeadAttention "
    "ResidualAttentionBlock AudioEncoder TextDecoder Whisper SDPA_AVAILABLE scaled_dot_product_attention",
    "timing": "median_filter backtrace dtw_cpu dtw_cuda dtw WordTiming find_alignment merge_punctuations "
    "add_word_timestamps",
    "tokenizer": "LANGUAGES TO_LANGUAGE_CODE Tokenizer get_encoding get_tokenizer",
    "transcribe": "transcribe cli",
    "utils": "exact_div str2bool optional_int optional_float compression_ratio format_timestamp get_start get_end "
    "make_safe ResultWriter WriteTXT SubtitlesWriter WriteVTT WriteSRT WriteTSV WriteJSON get_writer system_encoding",
    "normalizers": "BasicTextNormalizer EnglishTextNormalizer",
    "normalizers.basic": "ADDITIONAL_DIACRITICS remove_symbols_and_diacritics remove_symbols BasicTextNormalizer",
    "normalizers.english": "EnglishNumberNormalizer EnglishSpellingNormalizer EnglishTextNormalizer",
    "version": "__version__",
}


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(2)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return np.random.default_rng(0).normal(size=16000 * 4).astype(np.float32) * 0.1


OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0, "sample_len": 12, "fp16": False}


@pytest.mark.parametrize("module", NAMES)
def test_every_name_is_where_it_was(module: str) -> None:
    found = importlib.import_module(f"whisper.{module}" if module else "whisper")
    missing = [name for name in NAMES[module].split() if not hasattr(found, name)]
    assert not missing


def test_submodules_are_modules_and_transcribe_is_the_function() -> None:
    code = (
        "import whisper, types\n"
        "names = 'audio decoding model timing tokenizer utils'.split()\n"
        "assert all(isinstance(getattr(whisper, n), types.ModuleType) for n in names)\n"
        "assert isinstance(whisper.transcribe, types.FunctionType)\n"
        "from whisper.transcribe import cli, transcribe\n"
        "assert whisper.transcribe is transcribe and callable(cli)"
    )
    run_python(code)


def test_version_is_the_interface_s() -> None:
    assert whisper.__version__ == "20250625"


SIGNATURES = """
import importlib, inspect, json
answer = {}
for module, names in arguments["names"].items():
    m = importlib.import_module(f"whisper.{module}" if module else "whisper")
    for name in names.split():
        thing = getattr(m, name)
        members = vars(thing).items() if inspect.isclass(thing) else ()
        for key, f in [(name, thing), *((f"{name}.{k}", v) for k, v in members)]:
            if inspect.isfunction(f) and getattr(f, "__module__", "").startswith("whisper"):
                answer[f"{module}:{key}"] = [
                    [p.name, str(p.kind), "-" if p.default is p.empty else repr(p.default)]
                    for p in inspect.signature(f).parameters.values()
                ]
        if inspect.isclass(thing) and hasattr(thing, "__dataclass_fields__"):
            answer[f"{module}:{name} fields"] = [[f, "", ""] for f in thing.__dataclass_fields__]
"""


def _same_or_wider(ours: str, theirs: str) -> bool:
    """Whether a default is the same, or options with further fields at the end."""
    further = theirs.startswith("DecodingOptions(") and ours.startswith(theirs[:-1] + ", ")
    return ours == theirs or further or "object at" in theirs


@pytest.mark.peers
def test_signatures_are_the_original_s_or_wider(original: Original, tmp_path: Path) -> None:
    theirs = original(SIGNATURES, tmp_path, names=NAMES)
    space: dict[str, Any] = {"arguments": {"names": NAMES}}
    exec(compile(SIGNATURES, "ours", "exec"), space)
    ours = space["answer"]
    problems = []
    for key, parameters in theirs.items():
        last = key.split(".")[-1]
        if last.startswith("_") and last not in ("__init__", "_get_audio_features", "_main_loop"):
            continue  # private
        if key not in ours:
            problems.append(f"{key} is no function here")
            continue
        mine = {name: (i, kind, default) for i, (name, kind, default) in enumerate(ours[key])}
        for i, (name, kind, default) in enumerate(parameters):
            if name not in mine:
                problems.append(f"{key} has no parameter {name}")
            elif mine[name][1] != kind or (kind not in ("KEYWORD_ONLY", "VAR_KEYWORD") and mine[name][0] != i):
                problems.append(f"{key}: {name} is {mine[name]} and was {(i, kind, default)}")
            elif not _same_or_wider(mine[name][2], default):
                problems.append(f"{key}: {name}={mine[name][2]} and was {default}")
    assert len(theirs) > 120
    assert not problems, "\n".join(problems)


# -- hooks --------------------------------------------------------------------------------------------------


def test_hooks_fire_while_a_model_transcribes(model: Whisper, sound: np.ndarray) -> None:
    calls: dict[str, list[Any]] = {"conv1": [], "embedding": [], "cross": [], "ln": []}
    cross = model.decoder.blocks[1].cross_attn
    handles = [
        model.encoder.conv1.register_forward_hook(lambda m, i, o: calls["conv1"].append(o.shape)),
        model.decoder.token_embedding.register_forward_hook(lambda m, i, o: calls["embedding"].append(i[0].shape)),
        cross.register_forward_hook(lambda m, i, o: calls["cross"].append(o)),  # type: ignore[union-attr]
        model.decoder.ln.register_forward_hook(lambda m, i, o: calls["ln"].append(o.shape)),
    ]
    try:
        result = model.transcribe(sound, **OPTIONS)
    finally:
        for handle in handles:
            handle.remove()
    assert len(calls["conv1"]) == 1  # one window, one run of the encoder
    steps = calls["embedding"]
    assert steps[0] == (1, 3)  # the start sequence
    assert set(steps[1:]) == {(1, 1)}  # then one call per token
    assert len(calls["cross"]) == len(calls["ln"]) == len(steps) >= 3
    assert all(isinstance(o, tuple) and len(o) == 2 for o in calls["cross"])
    assert result["segments"]


def test_attention_scores_can_be_seen(model: Whisper, sound: np.ndarray) -> None:
    seen = []
    cross = model.decoder.blocks[0].cross_attn
    handle = cross.register_forward_hook(lambda m, i, o: seen.append(o[1]))  # type: ignore[union-attr]
    with whisper.model.disable_sdpa():
        model.transcribe(sound, **OPTIONS)
    handle.remove()
    assert all(qk.shape[:2] == (1, 2) and qk.shape[3] == 1500 for qk in seen)


def test_the_encoder_runs_once_however_often_a_window_is_decoded(
    model: Whisper, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    decodings: list[int] = []
    windows: list[int] = []
    real_decode, real_next = Whisper.decode, importlib.import_module("whisper.transcription.window_loop").next_window

    def counted_next(*args: Any) -> Any:
        window = real_next(*args)
        windows.extend([1] if window else [])
        return window

    monkeypatch.setattr(Whisper, "decode", lambda *a, **k: (decodings.append(1), real_decode(*a, **k))[1])
    monkeypatch.setattr(importlib.import_module("whisper.transcription.window_loop"), "next_window", counted_next)
    handle = model.encoder.register_forward_hook(lambda *_: runs.append(1))
    options = {**OPTIONS, "temperature": (0, 0.5, 1.0), "logprob_threshold": 0.0, "word_timestamps": True}
    model.transcribe(sound, **options)
    handle.remove()
    assert len(runs) == len(windows)  # and not again for fallbacks and word times
    assert len(decodings) == 3 * len(windows)


def test_what_the_language_was_detected_on_is_not_encoded_again(model: Whisper) -> None:
    runs: list[int] = []
    handle = model.encoder.register_forward_hook(lambda *_: runs.append(1))
    minute = np.random.default_rng(0).normal(size=16000 * 60).astype(np.float32) * 0.1
    options = {**OPTIONS, "language": None, "without_timestamps": True}
    result = model.transcribe(minute, **options)
    n_runs = len(runs)
    assert result == model.transcribe(minute, **{**options, "language": result["language"]})
    handle.remove()
    assert len(runs) == 2 * n_runs


# -- subclasses and replacements ----------------------------------------------------------------------------


def test_functions_are_looked_up_when_they_are_called(
    model: Whisper, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def spy(module: Any, name: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: (called.append(name), real(*a, **k))[1])

    monkeypatch.setattr(whisper.audio, "load_audio", lambda *a, **k: (called.append("load_audio"), sound)[1])
    spy(whisper.timing, "dtw")
    spy(whisper.timing, "find_alignment")
    spy(whisper.decoding, "DecodingTask")
    spy(whisper.model.AudioEncoder, "forward")
    model.transcribe("anything.wav", word_timestamps=True, **OPTIONS)
    assert set(called) == {"load_audio", "dtw", "find_alignment", "DecodingTask", "forward"}


def test_a_replaced_decode_is_used(model: Whisper, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Whisper.decode

    def mine(self: Whisper, mel: Tensor, options: Any, **kwargs: Any) -> Any:
        result = real(self, mel, options, **kwargs)
        return type(result)(**{**result.__dict__, "tokens": [50364, 440, 50464]})

    monkeypatch.setattr(Whisper, "decode", mine)
    (segment,) = model.transcribe(sound, **OPTIONS)["segments"]
    assert (segment["tokens"], segment["start"], segment["end"]) == ([50364, 440, 50464], 0.0, 2.0)


def test_inference_of_their_own(model: Whisper) -> None:
    """A cache made of hooks, as the original's inference has it, still decodes the same."""
    from whisper.decoding import DecodingOptions, DecodingTask, PyTorchInference

    class Hooked(PyTorchInference):
        hooks: list[Any]

        def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
            if not self.kv_cache:
                self.kv_cache, self.hooks = self.model.install_kv_cache_hooks()  # type: ignore[assignment]
            if tokens.shape[-1] > self.initial_token_length:
                tokens = tokens[:, -1:]
            return self.model.decoder(tokens, audio_features, kv_cache=self.kv_cache)  # type: ignore[no-any-return]

        def cleanup_caching(self) -> None:
            for hook in self.hooks:
                hook.remove()

    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    options = DecodingOptions(language="en", sample_len=10, fp16=False)
    (expected,) = DecodingTask(model, options).run(mel)
    task = DecodingTask(model, options)
    task.inference = Hooked(model, len(task.initial_tokens))
    (result,) = task.run(mel)
    assert result.tokens == expected.tokens
    assert not any(m._forward_hooks for m in model.modules())


def test_tasks_have_the_attributes_that_subclasses_read(model: Whisper) -> None:
    task = whisper.decoding.DecodingTask(model, whisper.DecodingOptions(language="en", beam_size=2))
    assert task.n_ctx == 448
    assert task.sample_len == 224
    assert task.sot_sequence == (50258, 50259, 50359)
    assert (task.sot_index, task.sample_begin, task.n_group) == (0, 3, 2)
    assert task.tokenizer.language == "en"
    names = ["SuppressBlank", "SuppressTokens", "ApplyTimestampRules"]
    assert [type(f).__name__ for f in task.logit_filters] == names
    assert isinstance(task.decoder, whisper.decoding.BeamSearchDecoder)
    assert isinstance(task.inference, whisper.decoding.PyTorchInference)


# -- results ------------------------------------------------------------------------------------------------

SEGMENT = {
    "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio",
    "no_speech_prob",
}  # fmt: skip


@pytest.mark.parametrize("words", [False, True])
def test_the_result_has_these_keys_and_goes_through_json(model: Whisper, sound: np.ndarray, words: bool) -> None:
    result = model.transcribe(sound, word_timestamps=words, **OPTIONS)
    assert list(result) == ["text", "segments", "language"]
    assert json.loads(json.dumps(result)) == result
    spoken = [s for s in result["segments"] if s["text"]]
    assert spoken
    for segment in spoken:
        assert set(segment) == SEGMENT | ({"words"} if words else set())
        assert all(set(w) == {"word", "start", "end", "probability"} for w in segment.get("words", ()))
    assert [s["id"] for s in result["segments"]] == list(range(len(result["segments"])))


def test_state_dict_keys_are_those_of_the_checkpoints(model: Whisper) -> None:
    keys = set(model.state_dict())
    block = "attn.query.weight attn.query.bias attn.key.weight attn.value.weight attn.value.bias attn.out.weight "
    block += "attn.out.bias attn_ln.weight attn_ln.bias mlp.0.weight mlp.0.bias mlp.2.weight mlp.2.bias mlp_ln.weight "
    block += "mlp_ln.bias"
    cross = [f"cross_{name}" for name in block.split() if name.startswith("attn")]
    expected = {f"encoder.blocks.{i}.{name}" for i in range(2) for name in block.split()}
    expected |= {f"decoder.blocks.{i}.{name}" for i in range(2) for name in [*block.split(), *cross]}
    expected |= {f"encoder.{n}" for n in ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "ln_post.weight"]}
    expected |= {"encoder.ln_post.bias", "encoder.positional_embedding", "decoder.positional_embedding"}
    expected |= {"decoder.token_embedding.weight", "decoder.ln.weight", "decoder.ln.bias"}
    assert keys == expected


def test_errors_are_the_classes_that_the_original_raised(model: Whisper, tmp_path: Path) -> None:
    def raised(call: Any, *args: Any, **kwargs: Any) -> list[type]:
        with pytest.raises(WhisperError) as e:
            call(*args, **kwargs)
        return [c for c in (RuntimeError, ValueError, TypeError) if isinstance(e.value, c)]

    assert raised(whisper.load_model, "no-such-model") == [RuntimeError]
    assert raised(whisper.load_audio, str(tmp_path / "missing.wav")) == [RuntimeError]
    assert raised(model.transcribe, np.zeros(10, np.float32), language="xx") == [ValueError]
    assert raised(model.transcribe, np.zeros(10, np.float32), beams=3) == [ValueError, TypeError]
    assert raised(model.decode, torch.zeros(80, 3000), best_of=3) == [ValueError]
    assert raised(whisper.utils.str2bool, "maybe") == [ValueError]


# -- one model, many threads --------------------------------------------------------------------------------


def test_transcriptions_interleaved_on_one_model_give_what_each_gives_alone(model: Whisper, sound: np.ndarray) -> None:
    jobs = [
        (sound, {**OPTIONS, "word_timestamps": True}),
        (sound[::-1].copy() * 0.3, {**OPTIONS, "beam_size": 2}),
        (sound[:20000], {**OPTIONS, "language": None}),
    ]
    alone = [model.transcribe(audio, **options) for audio, options in jobs]
    together: dict[int, Any] = {}
    start = threading.Barrier(len(jobs))

    def run(i: int) -> None:
        start.wait()
        together[i] = model.transcribe(jobs[i][0], **jobs[i][1])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert is_same([together[i] for i in range(len(jobs))], alone)


def test_a_call_returns_plain_functions_of_this_package() -> None:
    assert isinstance(whisper.transcribe, types.FunctionType)
    parameters = inspect.signature(whisper.load_model).parameters
    assert list(parameters)[:4] == ["name", "device", "download_root", "in_memory"]
    assert all(parameters[ours].kind is inspect.Parameter.KEYWORD_ONLY for ours in list(parameters)[4:])
