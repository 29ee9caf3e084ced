"""Options are declared once, and every value is checked at the door."""

import dataclasses
import importlib.machinery
import importlib.util
import inspect
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whisper.decoding import DecodingOptions
from whisper.errors import OptionError, UnknownOptionError
from whisper.options.transcription import GROUPS, TranscribeOptions, verify_options
from whisper.options.types import check_names, facts, idle, is_number, takes_none
from whisper.transcribe import transcribe
from whisper.transcription import recording

ROOT = Path(__file__).resolve().parent.parent.parent
FIELDS = [(kind, f) for kind in (DecodingOptions, TranscribeOptions) for f in dataclasses.fields(kind)]


def test_the_signature_of_transcribe_is_the_dataclass() -> None:
    parameters = inspect.signature(transcribe).parameters
    keywords = {n: p.default for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    declared = {f.name: f for f in dataclasses.fields(TranscribeOptions)}
    assert keywords == {name: declared[name].default for name in keywords}
    assert all(facts(declared[name]).ours for name in declared.keys() - keywords)  # they come as **decode_options


def test_transcribe_hands_on_every_keyword(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def settings(model: object, function: str, options: dict[str, Any]) -> None:
        given.update(options)
        raise OptionError("enough")

    monkeypatch.setattr(sys.modules["whisper.transcribe"], "_settings", settings)
    with pytest.raises(OptionError, match="enough"):
        transcribe(None, "a.wav", seed=1)  # type: ignore[arg-type]
    parameters = inspect.signature(transcribe).parameters.values()
    assert given == {"seed": 1, **{p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}}


def test_the_skipped_pause_is_the_same_figure_everywhere() -> None:
    (help_text,) = (facts(f).help for _, f in FIELDS if f.name == "vad_filter")
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    for text in (transcribe.__doc__ or "", help_text, guide):
        assert f"pauses longer than {recording.MAX_PAUSE} s" in " ".join(text.split())
    assert recording.MAX_PADDED_PAUSE == 1.5  # with the default padding of 0.2 s


@pytest.mark.parametrize(("options", "field"), FIELDS, ids=lambda value: getattr(value, "name", ""))
def test_every_option_is_declared_and_checked(options: type, field: "dataclasses.Field[Any]") -> None:
    known = facts(field)
    assert known.group in GROUPS
    assert known.help
    assert field.default is None or known.kind.holds(field.default)
    assert set(known.needs) <= {f.name for f in dataclasses.fields(options)}
    for wrong in (object(), b"1", math.nan, {1: 2}, *([] if takes_none(field) else [None])):
        if known.kind.words.startswith("names with values") and wrong == {1: 2}:
            continue  # `VadOptions` says which names there are
        with pytest.raises(OptionError, match=f"^{field.name} must be "):
            options(**{field.name: wrong})


def test_the_documentation_is_made_of_the_declarations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("option_docs", str(ROOT / "scripts" / "option-docs"))
    spec = importlib.util.spec_from_loader("option_docs", loader)
    assert spec is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))
    loader.exec_module(script)
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == script.text(), "run scripts/option-docs"


WRONG = [
    ({"temperature": ()}, r"temperature must be 0, or a number from .*, or a list of such, not \(\)"),
    ({"temperature": "0.2"}, "temperature.*'0.2'"),
    ({"temperature": [0, -1]}, "temperature.*-1"),
    ({"temperature": math.inf}, "temperature.*inf"),
    ({"temperature": [None]}, "temperature.*None"),
    ({"logprob_threshold": "-1"}, "logprob_threshold must be a number, or None, not '-1'"),
    ({"no_speech_threshold": True}, "no_speech_threshold.*True"),
    ({"compression_ratio_threshold": 10**400}, "compression_ratio_threshold must be a number"),
    ({"hallucination_silence_threshold": -1.0}, "hallucination_silence_threshold.*of at least 0.*-1"),
    ({"initial_prompt": 5}, "initial_prompt must be text, or None, not 5"),
    ({"condition_on_previous_text": "yes"}, "condition_on_previous_text must be True or False, not 'yes'"),
    ({"word_timestamps": 2}, "word_timestamps.*2"),
    ({"channels": "seperate"}, "channels must be one of mix, separate, not 'seperate'; did you mean 'separate'"),
    ({"channels": "SEPARATE"}, "did you mean 'separate'"),
    ({"languages": ""}, "languages must be words"),
    ({"languages": ["en", 5]}, "languages.*5"),
    ({"languages": []}, "languages"),
    ({"clip_timestamps": 5}, "clip_timestamps must be seconds"),
    ({"clip_timestamps": ["0"]}, "clip_timestamps must be seconds"),
    ({"vad_parameters": 0.5}, "vad_parameters must be names with values.*0.5"),
    ({"prepend_punctuations": None}, "prepend_punctuations must be text, not None"),
    ({"batch_size": 2.0}, "batch_size must be a whole number of at least 1, or None, not 2.0"),
    ({"language_detection_segments": 0}, "language_detection_segments.*at least 1"),
    ({"initial_prompt": ["x" * 10**6]}, "^.{,300}$"),  # nobody wants to read it all
]
WRONG_DECODING = [
    ({"task": "translat"}, "task must be one of .*; did you mean 'translate'"),
    ({"task": ["transcribe"]}, "task must be one of"),
    ({"length_penalty": 1.5}, "length_penalty must be a number from 0 to 1, or None, not 1.5"),
    ({"repetition_penalty": 0}, "repetition_penalty must be a number from 0.1 to 100, not 0"),
    ({"hotword_boost": math.inf}, "hotword_boost"),
    ({"suppress_tokens": [1, "2"]}, "suppress_tokens must be token ids"),
    ({"seed": 2**63}, "seed must be a whole number from 0"),
    ({"prompt": [1.5]}, "prompt must be text, or a list of token ids"),
]


@pytest.mark.parametrize(("options", "message"), WRONG + WRONG_DECODING)
def test_wrong_values_name_the_option_the_value_and_what_would_be_right(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        (TranscribeOptions if (options, message) in WRONG else DecodingOptions)(**options)


def test_numbers_and_arrays_of_numpy_and_torch_are_python_s() -> None:
    options = TranscribeOptions(
        word_timestamps=np.bool_(True), batch_size=np.int64(4), no_speech_threshold=np.float32(0.5),
        temperature=np.array([0.0, 0.5]), clip_timestamps=torch.tensor([1.0, 2.0]), verbose=0,
    )  # fmt: skip
    assert (options.word_timestamps, options.batch_size, options.no_speech_threshold) == (True, 4, 0.5)
    assert (options.temperatures(), options.clip_timestamps) == ((0.0, 0.5), [1.0, 2.0])
    assert type(options.batch_size) is int
    assert DecodingOptions(suppress_tokens=torch.tensor([1, 2])).suppress_tokens == [1, 2]


def test_what_can_be_read_once_is_kept_and_text_is_taken_apart() -> None:
    assert DecodingOptions(suppress_tokens=iter([1, 2])).suppress_tokens == (1, 2)
    assert DecodingOptions(hotwords=" Ada, Grace Hopper").hotwords == ("Ada", "Grace Hopper")
    assert TranscribeOptions(languages=["en", "Swiss, German"]).languages == ["en", "Swiss, German"]
    assert dataclasses.replace(TranscribeOptions(languages="en,de")).languages == ("en", "de")


@pytest.mark.parametrize(("given", "ladder"), [(0, (0.0,)), (0.5, (0.5,)), ([0, 1], (0.0, 1.0))])
def test_temperatures(given: Any, ladder: tuple[float, ...]) -> None:
    assert TranscribeOptions(temperature=given).temperatures() == ladder


def test_options_that_need_others() -> None:
    words = TranscribeOptions(append_punctuations="!", carry_initial_prompt=True, vad_parameters={})
    needed = {"append_punctuations": "word_timestamps", "carry_initial_prompt": "initial_prompt"}
    assert dict(idle(words)) == {**needed, "vad_parameters": "vad_filter or audit or batch_size"}
    assert idle(TranscribeOptions(append_punctuations="!", word_timestamps=True, vad_parameters={}, audit=True)) == []
    with pytest.raises(OptionError, match="hotword_boost requires hotwords to be given"):
        verify_options(DecodingOptions(hotword_boost=3.0))


def test_beams_belong_to_temperature_0_and_samples_to_the_others() -> None:
    options = DecodingOptions(beam_size=3, best_of=4, patience=2.0)
    cold, hot = options.at(0.0), options.at(0.5, seed=7)
    assert (cold.beam_size, cold.best_of, cold.patience, cold.temperature) == (3, None, 2.0, 0.0)
    assert (hot.beam_size, hot.best_of, hot.patience, hot.seed) == (None, 4, None, 7)
    for alone, message in [(options, "can't be given together"), (DecodingOptions(best_of=2), "best_of with greedy")]:
        with pytest.raises(OptionError, match=message):
            verify_options(alone)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="'langauge'; did you mean 'language'"):
        check_names({"langauge": "en"}, "transcribe", DecodingOptions)
    with pytest.raises(UnknownOptionError, match="there are task, language"):
        check_names({"xyzzy": 1}, "transcribe", DecodingOptions)
    check_names({"language": "en", "beam_size": 5}, "transcribe", DecodingOptions)


def test_numbers() -> None:
    assert all(is_number(x) for x in (0, -1.5, np.float32(2), np.int64(3), math.inf))
    assert not any(is_number(x) for x in (None, "1", True, math.nan, [1], b"1", 1j, 10**400))
