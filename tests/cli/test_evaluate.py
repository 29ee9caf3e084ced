"""``whisper eval``: from arguments to tables and files, with a fake model."""

from __future__ import annotations

import json
import sys
import wave
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_main import DEFAULTS
from tests.evaluation.test_run import FakeModel
from whisper.cli.evaluate import build_parser
from whisper.cli.main import cli
from whisper.evaluation.results import Evaluation, Hypothesis, ScoredClip
from whisper.evaluation.tables import clip_lines, columns, describe
from whisper.manifests.read import ManifestEntry
from whisper.output.layout import Layout

ROWS = ("file\ttext\tlanguage\tset\tspeaker", "1.wav\tred blue\ten\tcolours\tann", "2.wav\tgreen\ten\tcolours\tbob",
        "3.wav\t\tnone\tnoise\t", "gone.wav\tgray\ten\tcolours\tbob")  # fmt: skip


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeModel]:
    """Fake models for nano and tiny, in a folder with a manifest of three recordings and a missing one."""
    for seconds in (1, 2, 3):
        with wave.open(str(tmp_path / f"{seconds}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(b"\1\0" * 16000 * seconds)
    (tmp_path / "dev.tsv").write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    models = {
        "nano": FakeModel({1: "red blew", 2: "green", 3: ""}),
        "tiny": FakeModel({1: "red blue", 2: "green", 3: "Oh"}),
    }
    monkeypatch.setattr(sys.modules["whisper.checkpoints"], "load_model", lambda name, **_: models[name])
    monkeypatch.chdir(tmp_path)
    return models


def test_every_option_of_decoding_is_there_with_its_default() -> None:
    found = vars(build_parser().parse_args(["dev.tsv"]))
    ours = set(found)
    layout = {field.name for field in fields(Layout)}
    of_files = {"output_dir", "output_format", "verbose", "model"}  # the model's default is filled in later
    assert set(DEFAULTS) - ours == of_files | layout
    changed = {name for name in set(DEFAULTS) & ours if found[name] != DEFAULTS[name]}
    assert changed == {"word_timestamps"}  # None: where the manifest has times


def test_a_table_a_file_and_a_page(models: dict[str, FakeModel], capsys: pytest.CaptureFixture[str]) -> None:
    code = cli(["eval", "dev.tsv", "--model", "nano", "--beam_size", "None", "--json", "a.json", "--html", "a.html"])
    out, err = capsys.readouterr()
    assert code == 0
    assert "word error rate       33.3 %" in out
    assert "1 substitutions, 0 deletions, 0 insertions" in out
    assert "hallucinated clips    0.0 %" in out
    assert "gone.wav" in out  # the skipped entry
    assert "wrote a.json" in err
    (evaluation,) = json.loads(Path("a.json").read_text(encoding="utf-8"))["evaluations"]
    assert evaluation["model"] == "nano"
    assert evaluation["options"]["beam_size"] is None
    assert evaluation["load_seconds"] >= 0
    assert [row["line"] for row in evaluation["skipped"]] == [5]
    assert evaluation["scores"]["total"]["words"]["errors"] == 1
    assert Path("a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    _, *calls = models["nano"].calls
    assert [call["seconds"] for call in calls] == [1, 2, 3]
    assert calls[0]["temperature"] == pytest.approx((0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    assert calls[0]["best_of"] == 5
    assert "verbose" not in calls[0]


def test_two_models_are_compared_at_once_and_from_files(
    models: dict[str, FakeModel], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["eval", "dev.tsv", "--model", "nano", "--model", "tiny", "--json", "both.json"]) == 0
    at_once = capsys.readouterr().out.split("tiny against nano")[1]
    assert "clips better 1, worse 0, equal 1" in at_once
    assert json.loads(Path("both.json").read_text())["comparison"]["words"]["value"] == pytest.approx(-1 / 3)
    for name in ("nano", "tiny"):
        assert cli(["eval", "dev.tsv", "--model", name, "--json", f"{name}.json"]) == 0
    capsys.readouterr()
    assert cli(["eval", "--compare", "nano.json", "tiny.json", "--html", "c.html"]) == 0
    assert capsys.readouterr().out.split("tiny against nano")[1] == at_once
    assert "tiny against nano" in Path("c.html").read_text(encoding="utf-8")
    assert cli(["eval", "--compare", "nano.json"]) == 1
    assert "takes two evaluations, and there are 1" in capsys.readouterr().err
    Path("other.json").write_text("{}")
    assert cli(["eval", "--compare", "nano.json", "other.json"]) == 1
    assert "other.json is not a result" in capsys.readouterr().err


def test_a_part_of_the_manifest(models: dict[str, FakeModel], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["eval", "dev.tsv", "--model", "nano", "--groups", "colours", "--limit", "1"]) == 0
    assert "nano: 1 recording," in capsys.readouterr().out
    assert cli(["eval", "dev.tsv", "--model", "nano", "--groups", "colors"]) == 1
    assert "did you mean 'colours'" in capsys.readouterr().err


def test_the_second_run_uses_the_cache(models: dict[str, FakeModel], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert cli(["eval", "dev.tsv", "--model", "nano", "--cache", "kept.jsonl"]) == 0
    warm_ups = [call for call in models["nano"].calls if "beam_size" not in call]
    assert len(models["nano"].calls) == 3 + len(warm_ups)


def test_no_transcript_is_a_failure(models: dict[str, FakeModel], capsys: pytest.CaptureFixture[str]) -> None:
    Path("1.wav").write_bytes(b"no sound")
    Path("bad.tsv").write_text("file\ttext\n1.wav\tred\n", encoding="utf-8")
    assert cli(["eval", "bad.tsv", "--model", "nano"]) == 1
    assert "1.wav: " in capsys.readouterr().out
    assert cli(["eval", "missing.tsv", "--model", "nano"]) == 1
    assert "missing.tsv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a manifest"),
        (["dev.tsv", "--compare", "a.json"], "give a manifest"),
        (["dev.tsv", "--language", "en", "--detect_language"], "--detect_language"),
        (["dev.tsv", "--limit", "-1"], "limit must be a whole number of at least 0, not -1"),
        (["dev.tsv", "--json", "no/where.json"], "--json: there is no folder 'no'"),
        (["dev.tsv", "--no_speech_threshold", "nan"], "no_speech_threshold"),
        (["dev.tsv", "--beam_sise", "3"], "--beam_sise"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, models: dict[str, FakeModel], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli(["eval", *arguments])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def test_a_model_that_does_not_load_is_one_line(
    models: dict[str, FakeModel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(name: str, **_: Any) -> Any:
        raise RuntimeError("no such device")

    monkeypatch.setattr(sys.modules["whisper.checkpoints"], "load_model", load)
    assert cli(["eval", "dev.tsv", "--model", "nano"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("whisper: error: eval: RuntimeError: no such device")


def test_help_names_the_extra_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli(["eval", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "by default the manifest's, detected where it has none" in out


def test_without_matplotlib_nothing_is_transcribed(
    models: dict[str, FakeModel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli(["eval", "dev.tsv", "--model", "nano", "--html", "a.html"]) == 1
    assert "sotto[eval]" in capsys.readouterr().err
    assert models["nano"].calls == []


def one_clip(text: str, said: str, **fields: Any) -> ScoredClip:
    return ScoredClip(ManifestEntry("a.wav", text, **fields), Hypothesis(said, "en", False, 1.0, 0.1))


def test_aligned_words_stand_below_each_other() -> None:
    clip = one_clip("the quick brown fox ran", "the quack fox ran away", language="en")
    heading, text, read, marks = clip_lines(clip)
    assert heading == "a.wav: 3 errors in 5 words"
    for word, said, mark in (("quick", "quack", "S"), ("brown", "*****", "D")):
        assert text.index(word) == read.index(said) == marks.index(mark)
    assert text.index("****") == read.index("away") == marks.index("I")
    many = clip_lines(one_clip("red " * 100, "blue " * 100, language="en"), width=60)
    assert max(map(len, many)) <= 60
    assert many[-1].strip() == "and 40 more words"


def test_letters_of_double_width_keep_the_columns() -> None:
    _, text, read, _ = clip_lines(one_clip("你好世界", "你坏世界", language="zh"))
    assert columns(text) == columns(read) == 6 + 4 * 2 + 3


def test_tables_of_many_groups_are_cut_and_say_so() -> None:
    clips = tuple(one_clip("red", "red", speaker=f"speaker {i}", language="en") for i in range(20))
    text = describe(Evaluation("nano", clips))
    assert text.count("speaker ") == 15
    assert "and 5 more" in text
