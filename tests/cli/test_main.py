"""The command: its options to the letter, and what becomes of files, errors and Ctrl-C. Needs no weights."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import models
from tests.conftest import Original
from whisper.audit.report import Report
from whisper.cli import main as cli_module
from whisper.cli.main import build_parser, cli
from whisper.errors import AudioError, CheckpointError, DownloadError
from whisper.output.writers import OUTPUT_FORMATS
from whisper.subtitles.formats.names import EXTENSIONS
from whisper.subtitles.rules import RuleOptions

SPOKEN = {
    "text": " Hello you.",
    "language": "en",
    "segments": [
        {
            "start": 0.0, "end": 2.0, "text": " Hello you.",
            "words": [{"word": " Hello", "start": 0.0, "end": 1.0}, {"word": " you.", "start": 1.0, "end": 2.0}],
        },
    ],
}  # fmt: skip


class Fakes:
    """Stands for the models and for `transcribe`, and notes how they are called."""

    def __init__(self) -> None:
        self.loaded: list[dict[str, Any]] = []
        self.transcribed: list[tuple[str, dict[str, Any]]] = []
        self.model = SimpleNamespace(is_multilingual=True)
        self.failing: dict[str, BaseException] = {}  # by name, of a model or a recording

    def load_model(self, name: str, **options: Any) -> Any:
        self.loaded.append({"name": name, **options})
        if name in self.failing:
            raise self.failing[name]
        return self.model

    def transcribe(self, model: Any, audio: str, **options: Any) -> dict[str, Any]:
        assert model is self.model
        self.transcribed.append((audio, options))
        if audio in self.failing:
            raise self.failing[audio]
        return SPOKEN

    @property
    def options(self) -> dict[str, Any]:
        return self.transcribed[-1][1]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fakes:
    """Fakes in the place of what needs weights, in a folder with recordings a.wav, a.mp3, b.wav."""
    fakes = Fakes()
    monkeypatch.setattr(sys.modules["whisper.transcribe"], "transcribe", fakes.transcribe)
    monkeypatch.setattr(sys.modules["whisper.checkpoints"], "load_model", fakes.load_model)
    monkeypatch.delenv(cli_module.DEBUG_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "a.mp3", "b.wav"):
        Path(name).touch()
    return fakes


def files(folder: str = "out") -> list[str]:
    return sorted(os.listdir(folder))


# ---------------------------------------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------------------------------------

DEFAULTS = {
    "model": "turbo", "model_dir": None, "output_dir": ".", "output_format": ("all",), "verbose": True,
    "task": "transcribe", "language": None, "temperature": 0, "best_of": 5, "beam_size": 5, "patience": None,
    "length_penalty": None, "suppress_tokens": "-1", "initial_prompt": None, "carry_initial_prompt": False,
    "condition_on_previous_text": True, "fp16": True, "temperature_increment_on_fallback": 0.2,
    "compression_ratio_threshold": 2.4, "logprob_threshold": -1.0, "no_speech_threshold": 0.6,
    "word_timestamps": False, "prepend_punctuations": "\"'“¿([{-",
    "append_punctuations": "\"'.。,，!！?？:：”)]}、", "highlight_words": False, "max_line_width": None,
    "max_line_count": None, "max_words_per_line": None, "threads": 0, "clip_timestamps": "0",
    "hallucination_silence_threshold": None,
}  # fmt: skip


OURS = {  # options that openai-whisper does not have
    "compute_type": "auto", "quantized": False, "report": False, "batch_size": None, "seed": None, "audit": None,
    "word_confidence": False,
    "token_logprobs": False,
    "vad_filter": None,
    "vad_parameters": None, "languages": None, "language_detection_segments": 1, "multilingual": False,
    "verify_language": None,
    "speakers": None, "num_speakers": None, "min_speakers": None, "max_speakers": None, "known_speakers": None,
    "speaker_backend": "light",
    "channels": "mix", "no_repeat_ngram_size": None, "repetition_penalty": 1.0, "hotwords": None, "hotword_boost": 2.0,
    "stop_loops": False, "sample_len": None, "suppress_blank": True, "without_timestamps": False,
    "max_initial_timestamp": 1.0, "audio_track": None, "container_time": False, "escape_cues": None,
    "audio_context": "auto", "embed": False, "karaoke": False, "cue_settings": None, "frame_rate": "25",
    "server": None, "server_key": None,
    "subtitle_preset": None, "max_cps": None, "min_duration": None, "max_duration": None, "min_gap": None, "fps": None,
    "close_gaps": None, "max_lead_out": None, "max_pause": None, "line_shape": None, "speaker_style": None,
    "sounds": None, "cuts": None,
}  # fmt: skip


def test_defaults_are_openai_whispers() -> None:
    found = vars(build_parser().parse_args(["a.wav"]))
    assert found.pop("audio") == ["a.wav"]
    assert found.pop("device") == "auto"  # there: what torch finds when the parser is made
    assert {name: found.pop(name) for name in OURS} == OURS
    assert found == DEFAULTS
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in DEFAULTS.items()}
    assert cli_module.openai_flags() == {*DEFAULTS, "device"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--lang", {"language": "de"}),  # not --languages
        ("--no", {"no_speech_threshold": 0.5}),  # not --no_repeat_ngram_size
        ("--suppress", {"suppress_tokens": "5"}),  # not --suppress_blank
        ("--hot", None),  # two options of ours
        ("--be", None),  # two of openai-whisper's
    ],
)
def test_abbreviations_mean_what_they_mean_in_openai_whisper(given: str, meant: dict[str, Any] | None) -> None:
    value = str(next(iter(meant.values()))) if meant else "5"
    if meant is None:
        with pytest.raises(SystemExit):
            build_parser().parse_args(["a.wav", given, value])
    else:
        assert meant.items() <= vars(build_parser().parse_args(["a.wav", given, value])).items()


SAMPLES = ["None", "True", "true", "1", "-1", "0.5", "x", "1e-3", ""]

PARSER_FACTS = """
def facts(parser, samples):
    def read(action, text):
        try:
            return repr(action.type(text) if action.type else text)
        except Exception:
            return 'refused'
    return {action.dest: {
        'options': list(action.option_strings), 'nargs': action.nargs, 'metavar': action.metavar,
        'default': action.default, 'choices': action.choices and list(action.choices),
        'required': action.required, 'kind': type(action).__name__,
        'reads': [read(action, text) for text in samples],
    } for action in parser._actions}
"""

THEIR_PARSER = """
import argparse, importlib
found = []
class Found(Exception): pass
def capture(self, *_):
    found.append(self)
    raise Found
argparse.ArgumentParser.parse_args = capture
try:
    importlib.import_module('whisper.transcribe').cli()
except Found:
    pass
answer = facts(found[0], arguments['samples'])
"""


@pytest.mark.peers
def test_every_option_is_the_originals(original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(PARSER_FACTS, space)
    ours = space["facts"](build_parser(), SAMPLES)
    theirs = original(PARSER_FACTS + THEIR_PARSER, tmp_path, samples=SAMPLES)
    assert set(ours) - set(theirs) == {"version", "doctor", *OURS}
    assert set(theirs) - {"help", "audio"} == cli_module.openai_flags()
    for name in ("version", "doctor", *OURS):
        assert ours.pop(name)["options"] == [f"--{name}"]
    assert (ours["device"].pop("default"), theirs["device"].pop("default")) in [("auto", "cpu"), ("auto", "cuda")]
    theirs_of_files = theirs.pop("output_format")
    assert ours.pop("output_format")["default"] == (theirs_of_files["default"],)
    assert {*OUTPUT_FORMATS} > {*theirs_of_files["choices"]}  # theirs, and more
    assert ours == theirs


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "--version"):
        with pytest.raises(SystemExit) as leaving:
            cli([flag])
        assert leaving.value.code == 0
    out = capsys.readouterr().out
    assert all(f"--{name} " in out for name in DEFAULTS)
    assert out.endswith("sotto 0.1.0 (openai-whisper interface 20250625)\n")


def test_a_preset_lays_subtitles_out_by_rules(fakes: Fakes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    run = [str(tmp_path / "a.wav"), "--output_dir", str(tmp_path), "--subtitle_preset", "social"]
    assert cli([*run, "--max_words_per_line", "1", "--highlight_words", "True"]) == 0
    assert fakes.options["word_timestamps"] is True
    assert "subtitle_preset" not in fakes.options
    assert (tmp_path / "a.vtt").read_text(encoding="utf-8") == (
        "WEBVTT\n\n00:00.000 --> 00:01.000\n<u>Hello</u>\n\n00:01.000 --> 00:02.000\n<u>you.</u>\n\n"
    )


def test_a_translation_is_written_as_english(fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPOKEN, "language", "ja")
    run = [str(tmp_path / "a.wav"), "--subtitle_preset", "netflix", "-f", "ttml,json"]
    for task, language in (("transcribe", "ja"), ("translate", "en")):
        assert cli([*run, "--task", task]) == 0
        assert f'xml:lang="{language}"' in (tmp_path / "a.ttml").read_text(encoding="utf-8")
        assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["language"] == "ja"


USAGE_ERRORS = [
    (["--model", "nonsense"], "there is no model 'nonsense'"),
    (["--compute_type", "int4"], "invalid choice: 'int4'"),
    (["--batch_size", "0"], "batch_size must be a whole number of at least 1"),
    (["--seed", "-1"], "seed must be a whole number from 0"),
    (["--beam_size", "None", "--patience", "2"], "patience requires beam_size"),
    (["--vad_parameters", "treshold=0.4"], "did you mean 'threshold'"),
    (["--audti", "True"], "unrecognized arguments: --audti True; did you mean --audit?"),
    (["--batchsize=4"], "did you mean --batch_size?"),
    (["--audit", "yes"], "argument --audit"),
    (["--languages", "en,Klingon"], "Unsupported language: 'Klingon'"),
    (["--channels", "both"], "invalid choice: 'both' (choose from"),
    (["--hotwords", "one,,two"], "hotwords must be words"),
    (["--output_format", "doc"], "output_format must be one or more of txt, vtt"),
    (["--output_format", "srt,doc"], "output_format must be one or more of txt, vtt"),
    (["--output_format", "srt,ctm"], "--output_format ctm requires --word_timestamps True"),
    (["--karaoke", "True"], "--karaoke requires --word_timestamps True"),
    (["--cue_settings", "below"], "cue_settings must be settings of WebVTT"),
    (["--frame_rate", "26"], "invalid choice: '26'"),
    (["--highlight_words", "True"], "--highlight_words requires --word_timestamps True"),
    (["--max_line_width", "42"], "--max_line_width requires --word_timestamps True"),
    (["--max_cps", "12", "--cuts", "a.txt"], "--max_cps and --cuts require --subtitle_preset"),
    (["--subtitle_preset", "bbc", "--min_duration", "9"], "max_duration must be more than min_duration"),
    (["--subtitle_preset", "bbc", "--cuts", "/no/such/list"], "the list of cuts /no/such/list cannot be read"),
    (["--word_timestamps", "True", "--max_words_per_line", "-2"], "max_words_per_line must be a whole number"),
    (["--temperature_increment_on_fallback", "0"], "must be a number of at least 0.001, or None, not 0.0"),
    (["--temperature", "-1"], "temperature must be"),
    (["--clip_timestamps", "1,x"], "clip_timestamps must be"),
    (["--threads", "-1"], "threads must be a whole number of at least 0, or None, not -1"),
    (["--beam_size", "x"], "argument --beam_size: must be a whole number of at least 1, or None, not 'x'"),
    (["--output_dir", "a.wav"], "--output_dir"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE_ERRORS, ids=lambda value: str(value)[:40])
def test_usage_errors_come_before_the_model(
    arguments: list[str], message: str, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli(["a.wav", *arguments])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err
    assert fakes.loaded == []


def test_models_by_path_and_hub_name(fakes: Fakes) -> None:
    Path("mine.pt").touch()
    for name in ("tiny", "nano", "mine.pt", "openai/whisper-tiny"):
        asked = ["--model", name, "--model_dir", "m", "--device", "cpu", "--compute_type", "int8", "-o", "out"]
        assert cli(["a.wav", *asked]) == 0
    assert fakes.loaded == [
        {"name": name, "device": "cpu", "download_root": "m", "compute_type": "int8", "quantized": False}
        for name in ("tiny", "nano", "mine.pt", "openai/whisper-tiny")
    ]


def test_further_formats_are_written_under_their_endings(fakes: Fakes) -> None:
    words = ["--word_timestamps", "True", "--karaoke", "True"]
    for name, ending in EXTENSIONS.items():
        if name == "docx" and importlib.util.find_spec("docx") is None:
            continue
        assert cli(["a.wav", "-o", name, "-f", name, *words]) == 0
        assert files(name) == [f"a.{ending}"]
    assert "Hello <00:00:01.000>you." in Path("vtt", "a.vtt").read_text()
    assert "{\\k100}Hello{\\k100} you." in Path("ass", "a.ass").read_text()


def test_what_transcribe_is_given(fakes: Fakes) -> None:
    """All options of the command that are not its own, with their defaults."""
    own = {
        "model", "model_dir", "output_dir", "output_format", "threads", "temperature_increment_on_fallback",
        "highlight_words", "max_line_width", "max_line_count", "max_words_per_line", "compute_type", "quantized",
        "report", "escape_cues", "server", "server_key", "embed", "karaoke", "cue_settings", "frame_rate",
        *(f.name for f in fields(RuleOptions)),
    }  # fmt: skip
    assert cli(["a.wav", "-o", "out"]) == 0
    expected = {name: value for name, value in {**DEFAULTS, **OURS}.items() if name not in own}
    # three times 0.2 is 0.6000000000000001: it stands so in the JSON of openai-whisper
    assert fakes.options == {**expected, "temperature": (0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0)}
    (loaded,) = fakes.loaded
    assert loaded == {
        "name": "turbo", "device": None, "download_root": None, "compute_type": "auto", "quantized": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "increment", "expected"),
    [("0.5", "0.25", (0.5, 0.75, 1.0)), ("0", "None", (0.0,)), ("1.5", "0.2", (1.5,)), ("1", "0.2", (1.0,))],
)
def test_temperatures(first: str, increment: str, expected: tuple[float, ...], fakes: Fakes) -> None:
    cli(["a.wav", "--temperature", first, "--temperature_increment_on_fallback", increment, "-o", "out"])
    assert fakes.options["temperature"] == expected


def test_threads(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", given.append)
    for threads in ("3", "0", "None"):
        assert cli(["a.wav", "--threads", threads, "-o", "out"]) == 0
    assert given == [3]


@pytest.mark.parametrize(
    ("model", "multilingual", "given", "used", "warned"),
    [
        ("tiny.en", False, ["--language", "German"], "en", True),
        ("tiny.en", False, [], "en", False),
        ("tiny.en", False, ["--language", "English"], "English", False),
        ("mine.pt", False, ["--language", "de"], "en", True),  # the name does not tell, the model does
        ("tiny", True, ["--language", "de"], "de", False),
    ],
)
def test_models_that_know_only_english(
    model: str, multilingual: bool, given: list[str], used: str, warned: bool,
    fakes: Fakes, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Path("mine.pt").touch()
    fakes.model.is_multilingual = multilingual
    assert cli(["a.wav", "--model", model, "-o", "out", *given]) == 0
    assert fakes.options["language"] == used
    assert (f"whisper: warning: {model} is an English-only model" in capsys.readouterr().err) == warned


# ---------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------


def test_formats_and_layout_reach_the_writer(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["a.wav", "--output_dir", "new/out"]) == 0
    assert files("new/out") == ["a.json", "a.srt", "a.tsv", "a.txt", "a.vtt"]
    assert json.loads(Path("new/out/a.json").read_text()) == SPOKEN
    layout = ["--word_timestamps", "True", "--max_line_width", "6", "--max_line_count", "2"]
    assert cli(["a.wav", "-o", "out", "-f", "srt", *layout]) == 0
    assert files() == ["a.srt"]
    assert Path("out/a.srt").read_text() == "1\n00:00:00,000 --> 00:00:02,000\nHello\nyou.\n\n"
    assert capsys.readouterr() == ("", "")  # one recording, nothing wrong: nothing to say


@pytest.mark.parametrize(
    ("given", "escaped"),
    [
        ([], False), (["--audit", "True"], True), (["--vad_filter", "True"], True), (["--batch_size", "4"], True),
        (["--multilingual", "True"], True), (["--channels", "separate"], True), (["--escape_cues", "True"], True),
        (["--audit", "True", "--escape_cues", "False"], False), (["--batch_size", "1"], False),
    ],
)  # fmt: skip
def test_our_own_modes_escape_cues(
    given: list[str], escaped: bool, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"text": " R&D", "language": "en", "segments": [{"start": 0.0, "end": 2.0, "text": " R&D"}]}
    monkeypatch.setattr(sys.modules["whisper.transcribe"], "transcribe", lambda *_, **__: said)
    assert cli(["a.wav", "-o", "out", "-f", "vtt", *given]) == 0
    assert ("R&amp;D" in Path("out/a.vtt").read_text()) == escaped


@pytest.mark.parametrize(
    ("given", "warned"), [("auto", False), ("en-US", False), ("eng", False), ("deu", True), ("English (US)", False)]
)
def test_names_of_languages_on_a_model_that_knows_only_english(
    given: str, warned: bool, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.model.is_multilingual = False
    assert cli(["a.wav", "-o", "out", "--language", given]) == 0
    assert ("English-only model" in capsys.readouterr().err) == warned
    assert fakes.options["language"] in ("en", given)


def test_a_report(fakes: Fakes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def with_report(*arguments: Any, **options: Any) -> Any:
        report = Report(duration=2.0, speech=((0.0, 1.0),), method="energy", language="en")
        return fakes.transcribe(*arguments, **options), report

    monkeypatch.setattr(sys.modules["whisper.transcribe"], "transcribe_with_report", with_report)
    assert cli(["a.wav", "-o", "out", "-f", "txt", "--report", "True"]) == 0
    assert fakes.options["audit"] is True
    assert files() == ["a.report.json", *["a.report.png"] * bool(importlib.util.find_spec("matplotlib")), "a.txt"]
    assert json.loads(Path("out/a.report.json").read_text(encoding="utf-8"))["speech"] == [[0.0, 1.0]]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("2.0 s, 1.0 s of speech (energy)")
    assert cli(["b.wav", "-o", "out", "--report", "True", "--audit", "False"]) == 0
    assert fakes.options["audit"] is False


def test_layout_options_without_effect_are_said(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--word_timestamps", "True", "-o", "out"]
    assert cli(["a.wav", *words, "--max_line_count", "2"]) == 0
    assert cli(["a.wav", *words, "--max_line_width", "42", "--max_words_per_line", "3"]) == 0
    assert capsys.readouterr().err == (
        "whisper: warning: --max_line_count has no effect without --max_line_width\n"
        "whisper: warning: --max_words_per_line has no effect with --max_line_width\n"
    )


def test_recordings_of_one_name_do_not_overwrite_each_other(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x").mkdir()
    Path("x/a.mp3").touch()
    assert cli(["a.wav", "a.mp3", "x/a.mp3", "b.wav", "-o", "out", "-f", "srt"]) == 0
    assert files() == ["a.mp3.2.srt", "a.mp3.srt", "a.srt", "b.srt"]
    err = capsys.readouterr().err
    assert "whisper: warning: another recording is called 'a': the files of a.mp3 are named a.mp3.*\n" in err
    assert err.count("another recording") == 2


def test_one_bad_recording_does_not_cost_the_others(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    fakes.failing = {"a.wav": AudioError("no sound\nin here"), "a.mp3": KeyError("odd")}
    assert cli(["gone.wav", "a.wav", "a.mp3", "b.wav", "-o", "out", "-f", "txt"]) == 1
    assert files() == ["b.txt"]
    assert len(fakes.loaded) == 1
    assert capsys.readouterr().err.splitlines() == [
        "whisper: error: gone.wav: there is no such file",
        "whisper: warning: another recording is called 'a': the files of a.mp3 are named a.mp3.*",
        "whisper: a.wav",
        "whisper: error: a.wav: no sound in here",
        "whisper: a.mp3",
        "whisper: error: a.mp3: KeyError: 'odd' (SOTTO_DEBUG=1 shows where)",
        "whisper: b.wav",
        "whisper: 1 of 4 recordings transcribed",
    ]


def test_no_model_is_loaded_for_nothing(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["gone.wav"]) == 1
    assert fakes.loaded == []
    assert cli(["https://example.org/talk.mp3", "-o", "out"]) == 0  # an address may hold a recording


def test_a_traceback_for_who_asks(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.failing = {"a.wav": KeyError("odd")}
    assert cli(["a.wav", "-o", "out"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv(cli_module.DEBUG_VARIABLE, "1")
    assert cli(["a.wav", "-o", "out"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (DownloadError("cannot reach example.org"), True),
        (CheckpointError("turbo.pt is truncated"), False),
        (RuntimeError("no such device"), False),
    ],
)
def test_a_model_that_does_not_load(
    error: Exception,
    hint: bool,
    fakes: Fakes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    fakes.failing = {"turbo": error}
    assert cli(["a.wav", "b.wav", "-o", "out"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(error) in line
    assert line.count("no other model is in the cache, and SOTTO_FIND=0") == hint
    assert line.count("model turbo") == 1
    assert fakes.transcribed == []


def test_the_best_model_on_this_machine_is_named_where_one_cannot_be_had(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "whisper").mkdir()
    for name in ("tiny", "small.en", "base"):
        models.save_model(models.random_model(0, n_state=8, n_head=1), tmp_path / "whisper" / f"{name}.pt")
    (tmp_path / "whisper" / "medium.pt").write_bytes(b"PK half of it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fakes.failing = {"turbo": DownloadError("cannot reach example.org")}
    assert cli(["a.wav", "-o", "out"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("whisper: error: model turbo is not on this machine and cannot be downloaded: cannot reach")
    assert line.endswith("on this machine small.en, base, tiny are: --model small.en")


@pytest.mark.parametrize("flags", [[], ["--quantized", "True"]])
def test_quantized_copies_are_taken_on_request(fakes: Fakes, flags: list[str]) -> None:
    assert cli(["a.wav", "-o", "out", *flags]) == 0
    assert fakes.loaded[0]["quantized"] is bool(flags)


@pytest.mark.filterwarnings("default")
def test_warnings_are_plain_lines(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warns(*_: Any, **__: Any) -> dict[str, Any]:
        warnings.warn("something to know", stacklevel=1)
        return SPOKEN

    monkeypatch.setattr(sys.modules["whisper.transcribe"], "transcribe", warns)
    assert cli(["a.wav", "-o", "out"]) == 0
    assert capsys.readouterr().err == "whisper: warning: something to know\n"


# ---------------------------------------------------------------------------------------------------------
# Interrupted
# ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_keeps_what_is_done(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    fakes.failing = {"a.mp3": KeyboardInterrupt()}
    assert cli(["b.wav", "a.mp3", "a.wav", "-o", "out"]) == 130
    assert files() == ["b.json", "b.srt", "b.tsv", "b.txt", "b.vtt"]
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "whisper: 1 of 3 recordings transcribed",
        "whisper: interrupted",
    ]


def child(body: str, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
    """Run the command in a process of its own, with `body` as `transcribe`."""
    code = (
        "import sys, time, types, whisper\n"
        f"def transcribe(model, audio, **options):\n    {body}\n"
        "sys.modules['whisper.transcribe'].transcribe = transcribe\n"
        "model = types.SimpleNamespace(is_multilingual=True)\n"
        "sys.modules['whisper.checkpoints'].load_model = lambda *_, **__: model\n"
        "from whisper.cli import cli\n"
        "sys.exit(cli())\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_real_interrupt_ends_without_a_traceback(fakes: Fakes) -> None:
    process = child("print('working', flush=True); time.sleep(60)", "a.wav", "-o", "out")
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - started < 20
    assert (process.returncode, err) == (130, "whisper: interrupted\n")
    assert files() == []


@pytest.mark.slow
def test_a_console_without_the_letters(fakes: Fakes) -> None:
    """A console that knows ASCII only shows question marks; the file has the text."""
    body = "print('\\u4f60'); return {'text': '', 'language': 'zh', 'segments': [{'text': '\\u4f60'}]}"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = child(body, "a.wav", "-o", "out", "-f", "txt", env=environment)
    assert process.communicate(timeout=60) == ("?\n", "")
    assert process.returncode == 0
    assert Path("out/a.txt").read_text(encoding="utf-8") == "你\n"


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_command_quietly(fakes: Fakes) -> None:
    body = "time.sleep(0.2); [print('x' * 1000, flush=True) for _ in range(1000)]"
    process = child(body, "a.wav", "-o", "out")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_python_m_whisper(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["whisper", "--version"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_module("whisper", run_name="__main__")
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith("sotto ")


# ---------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "there", "command"),
    [
        (["eval", "dev.tsv"], False, "eval"),
        (["eval"], False, "eval"),
        (["train", "--help"], False, "train"),
        (["models", "--json"], False, "models"),
        (["models"], True, None),
        (["models", "get", "base"], True, "models"),
        (["eval"], True, None),
        (["eval", "--model", "nano"], True, None),
        (["eval", "b.wav"], True, None),
        (["eval", "dev.TSV", "--model", "nano"], True, "eval"),
        (["eval", "--compare", "a.json", "b.json"], True, "eval"),
        (["eval", "folder"], True, "eval"),
        (["./eval", "dev.tsv"], True, None),
        (["b.wav", "eval"], False, None),
        ([], False, None),
    ],
)
def test_a_command_or_a_recording_of_its_name(
    arguments: list[str], there: bool, command: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    if there:
        Path(arguments[0]).touch()
    assert cli_module.command_of(arguments) == command


def test_a_recording_called_eval_is_transcribed(fakes: Fakes) -> None:
    Path("eval").touch()
    assert cli(["eval", "-o", "out", "-f", "txt"]) == 0
    assert files() == ["eval.txt"]
