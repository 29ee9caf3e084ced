"""What the benchmarks on real speech stand on: fair draws, results that are kept, comparisons that can fail."""

from __future__ import annotations

import json
import re
import struct
import wave
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from whisper.checkpoints.load import save_checkpoint
from whisper.evaluation.scoring import align
from whisper.manifests.read import ManifestEntry

from .models import random_model
from .test_rivals import imported


@pytest.fixture(scope="module")
def speech() -> Iterator[ModuleType]:
    yield from imported("speech")


@pytest.fixture(scope="module")
def speech_work() -> Iterator[ModuleType]:
    yield from imported("speech_work")


@pytest.fixture(scope="module")
def same() -> Iterator[ModuleType]:
    yield from imported("same")


@pytest.fixture(scope="module")
def accuracy() -> Iterator[ModuleType]:
    yield from imported("accuracy")


@pytest.fixture(scope="module")
def speed() -> Iterator[ModuleType]:
    yield from imported("speech_speed")


@pytest.fixture(scope="module")
def word_errors() -> Iterator[ModuleType]:
    yield from imported("word_errors")


def entries(group: str, n: int) -> list[ManifestEntry]:
    return [ManifestEntry(f"{group}/{i}.wav", group=group) for i in range(n)]


# ---------------------------------------------------------------------------------------------------------
# Recordings, jobs and results
# ---------------------------------------------------------------------------------------------------------


def test_groups_have_equal_shares_and_the_draw_is_always_the_same(speech):
    recordings = [*entries("many", 90), *entries("few", 4), *entries("some", 30), *entries("all", 25)]
    chosen = speech.choose(recordings, ["all"], 60)
    counts = Counter(recording.group for recording in chosen)
    assert counts["all"] == 25
    assert counts["few"] == 4
    assert {counts["many"], counts["some"]} == {15, 16}
    assert chosen == speech.choose(recordings, ["all"], 60)
    assert chosen != speech.choose(recordings, ["all"], 60, seed=1)
    assert len(set(chosen)) == 60
    assert len({recording.group for recording in chosen[:20]}) > 2  # mixed, so that half a run has seen everything
    assert len(speech.choose(recordings, [], 1000)) == len(recordings)


def test_weights_name_their_files(speech, tmp_path):
    weights = speech.Weights.parse(f"tiny.en={tmp_path}/a.pt,{tmp_path}/folder")
    assert weights.files() == {"name": "tiny.en", "pt": f"{tmp_path}/a.pt", "ct2": f"{tmp_path}/folder"}
    assert not weights.multilingual
    assert speech.Weights.parse("base=a.pt").ct2 is None
    with pytest.raises(ValueError, match=r"NAME=FILE\.pt"):
        speech.Weights.parse("a.pt")


def test_results_of_another_version_and_lines_that_were_cut_off_do_not_count(speech, tmp_path):
    path = tmp_path / "results.jsonl"
    lines = [{"version": version, "name": "a", "options": {}, "text": version} for version in ("old", "new")]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"version": "new", "na')
    assert [one["text"] for one in speech.read_results(path, "new").values()] == ["new"]
    assert speech.read_results(tmp_path / "none", "new") == {}


def test_jobs_that_are_done_are_not_done_again_and_a_death_is_an_error(speech, tmp_path, monkeypatch):
    weights = speech.Weights.parse(f"base={tmp_path}/no.pt")
    path = speech.results_of("sotto float32", weights, tmp_path)
    job = {"name": "a.wav", "path": "none", "options": {"temperature": 0}}
    path.write_text(json.dumps({"version": speech.code_of_ours(), "text": "one", **job}) + "\n")
    (told,) = speech.run("sotto float32", weights, [job], tmp_path)
    assert told["text"] == "one"
    other = {**job, "options": {"temperature": 1}}
    assert speech.run("sotto float32", weights, [job, other], tmp_path, only_read=True) == [told, None]
    monkeypatch.setattr(speech, "python_of", lambda name: "false")
    with pytest.raises(RuntimeError, match="1 of 2 jobs"):
        speech.run("sotto float32", weights, [job, other], tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_jobs_with_the_same_options_run_side_by_side_and_an_error_is_told(speech_work, tmp_path):
    calls = []

    class Fake(speech_work.Implementation):
        def __init__(self) -> None:
            pass

        def transcribe_all(self, recordings: list[np.ndarray], options: dict[str, Any]) -> list[dict[str, Any]]:
            calls.append([len(samples) for samples in recordings])
            if options:
                raise LookupError("no such thing")
            return [{"text": str(len(samples))} for samples in recordings]

    for n in (1, 2, 3, 4):
        np.save(tmp_path / f"{n}.npy", np.zeros(n, np.float32))
    jobs = [
        {"version": "", "name": str(n), "path": str(tmp_path / f"{n}.npy"), "options": {"best_of": 2} if n == 4 else {}}
        for n in (1, 2, 3, 4)
    ]
    speech_work.work(Fake(), jobs, tmp_path / "results.jsonl", 2)
    assert calls == [[1, 2], [3], [4]]
    told = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [one.get("text") for one in told] == ["1", "2", "3", None]
    assert told[3]["error"] == "LookupError: no such thing"
    assert told[0]["cpu"] >= 0


def test_segments_of_recordings_that_faster_whisper_gets_joined_go_back_to_theirs(speech_work, monkeypatch):
    kind = speech_work.FasterWhisperBatched
    asked = {}

    def transcribe(self: Any, samples: np.ndarray, options: dict[str, Any]) -> dict[str, Any]:
        asked.update(options)
        segments = [
            {"start": start, "text": text} for start, text in [(0.0, " a"), (1.0, " b"), (1.5, " c"), (3.0, " d")]
        ]
        return {"segments": segments}

    monkeypatch.setattr(kind, "__init__", lambda self: None)
    monkeypatch.setattr(kind, "transcribe", transcribe)
    recordings = [np.zeros(n * speech_work.RATE, np.float32) for n in (1, 2, 3)]
    told = kind().transcribe_all(recordings, {"language": "en"})
    assert [one["text"] for one in told] == [" a", " b c", " d"]
    assert asked["clip_timestamps"] == [{"start": 0, "end": 1}, {"start": 1, "end": 3}, {"start": 3, "end": 6}]


# ---------------------------------------------------------------------------------------------------------
# The same
# ---------------------------------------------------------------------------------------------------------


def transcript(text: str = " a b", **changed: Any) -> dict[str, Any]:
    words = [{"word": f" {word}", "start": i * 0.5, "end": i * 0.5 + 0.3, "probability": 0.5}
             for i, word in enumerate(text.split())]  # fmt: skip
    segment = {
        "id": 0, "seek": 0, "start": 0.0, "end": 2.0, "text": text, "tokens": list(text.encode()), "temperature": 0.0,
        "avg_logprob": -0.5, "compression_ratio": 0.9, "no_speech_prob": 0.01, "words": words, **changed,
    }  # fmt: skip
    return {"text": text, "language": "en", "segments": [segment], "seconds": 1.0}


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({}, set()),
        ({"avg_logprob": -0.5009, "start": 0.02, "no_speech_prob": 0.0105}, set()),
        ({"avg_logprob": -0.502}, {"avg_logprob"}),
        ({"end": 2.03, "seek": 1}, {"end", "seek"}),
        ({"tokens": [1]}, {"tokens"}),
        ({"temperature": 0.2}, {"temperature"}),
        ({"words": []}, {"words"}),
        ({"words": [{"word": " a", "start": 0.0, "end": 0.4, "probability": 0.5},
                    {"word": " c", "start": 0.5, "end": 0.8, "probability": 0.6}]}, {"end", "word", "probability"}),
    ],
)  # fmt: skip
def test_every_kind_of_difference_is_found(same, changed, kinds):
    assert {kind for kind, _ in same.differences(same.plain(transcript()), same.plain(transcript(**changed)))} == kinds


def test_a_difference_counts_for_its_recording_and_is_listed(same):
    jobs = [("words", {"name": name}) for name in "abcd"]
    theirs = [transcript(), transcript(temperature=0.4), transcript(" a c"), None]
    ours = [transcript(avg_logprob=-0.5001, end=2.01), transcript(temperature=0.4), transcript(" a b"), transcript()]
    found = same.compare(jobs, theirs, ours)["words"]
    assert (found.recordings, found.equal, found.drawn, found.segments, found.words) == (3, 2, 1, 3, 6)
    assert found.score == pytest.approx(1e-4)
    assert found.time == pytest.approx(0.01)
    assert found.kinds == {"tokens": 1, "text": 1}
    assert "' a c' and ' a b'" in found.listed["c"][0]
    assert json.dumps(found.to_dict())
    assert same.compare(jobs, theirs, ours, draws=False)["words"].recordings == 2


def test_an_error_of_one_alone_is_a_difference(same):
    assert list(same.differences(same.plain(transcript()), same.plain({"error": "died", "seconds": 1})))


def test_the_place_where_two_texts_part_is_found(same):
    def told(*windows: tuple[int, list[int]]) -> dict[str, Any]:
        return {"segments": [{"seek": seek, "tokens": tokens} for seek, tokens in windows]}

    theirs = told((0, [1, 2]), (0, [3]), (3000, [4, 5, 6]))
    find = same.near_ties.first_parting
    assert find(theirs, theirs) is None
    assert find(theirs, told((0, [1, 2]), (0, [3]), (3000, [4, 7]))) == same.near_ties.Parting(
        3000, [1, 2, 3], [4], 5, 7
    )
    assert find(theirs, told((0, [1, 2]))) == same.near_ties.Parting(0, [], [1, 2], 3, None)
    assert find(theirs, told((0, [1, 2, 3]), (2900, [4]))) == same.near_ties.Parting(2900, [1, 2, 3], [], None, 4)


def test_the_gap_is_that_of_the_tokens_which_the_model_was_to_choose_from(same):
    model = random_model(1)
    samples = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    result = model.transcribe(
        samples, language="en", temperature=0, fp16=False, sample_len=4, without_timestamps=False,
        suppress_tokens="", logprob_threshold=None, no_speech_threshold=None,
    )  # fmt: skip
    (tokens,) = same.near_ties.windows_of(result).values()
    place = next(i for i, token in enumerate(tokens) if token < 50257)  # where no rule about timestamps chose
    at = same.near_ties.Parting(0, [], tokens[:place], tokens[place], 440)
    forth = same.near_ties.gap(model, samples, "en", {}, at)
    back = same.near_ties.gap(model, samples, "en", {}, replace(at, theirs=440, ours=tokens[place]))
    assert forth == pytest.approx(-back)
    assert forth > 0  # the chosen token was the likeliest
    assert same.near_ties.gap(model, samples, "en", {"initial_prompt": "one two"}, at) != pytest.approx(forth)


# ---------------------------------------------------------------------------------------------------------
# Accuracy
# ---------------------------------------------------------------------------------------------------------


def test_errors_are_told_alone_and_beside_the_baseline(accuracy):
    recordings = [
        ManifestEntry(f"{i}.wav", text="cats and dogs sleep", language="en", group="vctk", duration=2.0)
        for i in range(8)
    ] + [ManifestEntry("ja.wav", text="春が来た", language="ja", group="multilingual", duration=2.0)]

    def evaluation(name: str, texts: list[str | None]) -> Any:
        told = [None if text is None else {"text": text, "language": "en", "seconds": 0.1} for text in texts]
        return accuracy.evaluation_of(name, recordings, told, "detected")

    right, half = ["Cats and dogs, sleep."] * 8 + ["春が来た。"], ["cats and dogs"] * 8 + ["春が来"]
    evaluations = {
        "sotto float32": evaluation("sotto float32", right),
        "faster-whisper int8": evaluation("faster-whisper int8", half[:4] + [None] * 4 + [half[-1]]),
        "sotto int8": evaluation("sotto int8", half),
    }
    found = accuracy.score(evaluations)
    english, others = found["English"], found["22 languages"]
    assert english["sotto float32"]["words"]["rate"] == 0
    assert english["sotto int8"]["words"]["rate"] == 0.25
    assert english["sotto int8"]["difference"]["value"] == 0.25
    assert english["sotto int8"]["changed"] == 1
    assert english["sotto int8"]["against"]["faster-whisper int8"]["clips"] == 4
    assert english["sotto int8"]["against"]["faster-whisper int8"]["value"] == 0
    assert others["sotto int8"]["words"]["total"] == 4  # characters
    assert others["sotto int8"]["wrong language"]["rate"] == 1
    assert "difference" not in english["sotto float32"]
    lines = "\n".join(accuracy.lines_of("base", "detected", found))
    assert "+25.0 [" in lines
    assert json.dumps(found)


# ---------------------------------------------------------------------------------------------------------
# Speed
# ---------------------------------------------------------------------------------------------------------


def test_recordings_are_joined_whole_with_short_pauses(speed):
    parts = [np.full(n * speed.RATE, n, np.float32) for n in (1, 2, 3)]
    sound, used = speed.joined(parts, 4.5)
    assert 4.5 <= len(sound) / speed.RATE < 9
    for n in (1, 2, 3):
        assert np.count_nonzero(sound == n) == (n * speed.RATE if n - 1 in used else 0)
    assert np.array_equal(sound, speed.joined(parts, 4.5)[0])


def test_rounds_are_kept_and_ratios_are_taken_within_them(speed, tmp_path):
    path = tmp_path / "speed.jsonl"
    seconds = {("openai-whisper", 0): 8.0, ("sotto", 0): 2.0, ("openai-whisper", 1): 30.0, ("sotto", 1): 10.0}
    with open(path, "w") as file:
        for (name, number), value in seconds.items():
            one = {"seconds": value, "peak": 100.0 * value, "words": 7, "first": value / 4, "texts": ["Some, words!"]}
            told = {"load": 1.0, "short": one, "4 min": one}
            file.write(json.dumps({"round": number, "model": "base", "name": name, "told": told}) + "\n")
    assert speed.read_rounds(path, "tiny.en") == []
    rounds = speed.read_rounds(path, "base")
    del rounds[1]["sotto"]["short"]  # a set that is missing counts for nobody
    expected = {"short": ["some words are missing"], "4 min": ["Some words."]}
    found = speed.figures(rounds, {"short": 60.0, "4 min": 240.0}, expected)
    assert found["word error"]["openai-whisper"] == {"short": 50.0, "4 min": 0.0}
    assert found["times faster"]["openai-whisper / sotto"] == {"short": [4.0, 4.0, 4.0], "4 min": [3.5, 3.0, 4.0]}
    assert found["realtime"]["sotto"]["4 min"] == 40.0
    assert found["first"]["sotto"] == 1.5
    assert found["peak"]["sotto"] == 600
    lines = "\n".join(speed.lines_of("base", found, 2))
    assert "3.5 (3.0-4.0)" in lines
    assert re.search(r"word error, %\n  openai-whisper +50\.0 +0\.0 *\n", lines)


@pytest.mark.parametrize(("n_vocab", "n_texts"), [(51865, 50257), (51864, 50256)])
def test_the_file_for_whisper_cpp_has_its_head_vocabulary_and_every_tensor(speed, tmp_path, n_vocab, n_texts):
    models = speed.rival_models
    model = random_model(1, n_vocab=n_vocab)
    save_checkpoint(model, tmp_path / "a.pt", half=True)
    models.write_ggml_of(tmp_path / "a.pt", tmp_path / "a.bin", "f16")
    content = (tmp_path / "a.bin").read_bytes()
    magic, vocab, *_, n_mels, kind, rows, columns = struct.unpack("<14i", content[:56][: 14 * 4])
    assert (magic, vocab, n_mels, kind) == (0x67676D6C, n_vocab, model.dims.n_mels, 1)
    at = 14 * 4 + rows * columns * 4
    (n,) = struct.unpack_from("<i", content, at)
    assert n == n_texts
    at += 4
    for _ in range(n):
        at += 4 + struct.unpack_from("<i", content, at)[0]
    found = {}
    while at < len(content):
        n_dims, length, code = struct.unpack_from("<3i", content, at)
        shape = struct.unpack_from(f"<{n_dims}i", content, at + 12)[::-1]
        at += 12 + 4 * n_dims
        name = content[at : at + length].decode()
        at += length
        data = np.frombuffer(content, {0: "<f4", 1: "<f2"}[code], int(np.prod(shape)), at)
        found[name] = torch.from_numpy(data.astype(np.float32)).reshape(shape)
        at += data.nbytes
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name].squeeze(), tensor.half().float().squeeze()), name


# ---------------------------------------------------------------------------------------------------------
# The audio context
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts() -> Iterator[ModuleType]:
    yield from imported("audio_context")


def test_a_run_over_audio_contexts_goes_on_where_it_stopped(contexts, tmp_path, monkeypatch, capsys):
    model = random_model(1, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1, end=100.0)  # it says little
    save_checkpoint(model, tmp_path / "a.pt")
    lines = ["file\tduration_s\tlanguage\ttranscript"]
    for i in range(2):
        path = tmp_path / "set" / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            noise = np.random.default_rng(i).normal(size=16000 * (i + 2)) * 3000
            file.writeframes(noise.astype("<i2").tobytes())
        lines.append(f"set/{i}.wav\t{i + 2}\ten\tsome words {i}")
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.jsonl"
    command = ["audio_context.py", "--manifest", str(tmp_path), "--models", str(tmp_path / "a.pt"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", [*command, "--compute_type", "float32", "--variants", "full", "1 raw"])
    before = contexts.audio_context.AudioContext
    contexts.main()
    table, written = capsys.readouterr().out, out.read_text().splitlines()
    assert len(written) == 4
    assert contexts.audio_context.AudioContext is before
    out.write_text("\n".join(written[:3]) + '\n{"model": "a", "vari')  # killed
    contexts.main()
    assert len(out.read_text().splitlines()) == 5
    again = capsys.readouterr().out
    assert again.count("1 raw") == table.count("1 raw") == 4  # rows: a set, two lengths, all
    rows = {row.variant: row for row in contexts.make_rows("all", *given_texts(contexts))}
    assert (rows["full"].difference, rows["3"].difference, rows["3"].capped) == (0.0, 150.0, 75.0)
    assert (rows["3"].changed, rows["3"].doubted, rows["3"].heated) == (100.0, 50.0, 0.0)


def given_texts(contexts: ModuleType) -> Any:
    """Two clips of two words, of which a short context reads one in a loop and loses one word of the other."""
    clips = [ManifestEntry(f"{i}.wav", text="two words", language="en", duration=3.0) for i in range(2)]
    texts = {
        ("full", 0): "two words",
        ("full", 1): "two words",
        ("3", 0): "two two words" + " words" * 4,
        ("3", 1): "two",
    }
    found = {
        (variant, f"{i}.wav"): contexts.Transcript(
            "a", variant, f"{i}.wav", text, "en", 0.0, i * (variant == "3"), 3.0, 1.0
        )
        for (variant, i), text in texts.items()
    }
    return clips, ["full", "3"], found


# ---------------------------------------------------------------------------------------------------------
# Kinds of word errors
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "heard", "kinds"),
    [
        ("so everyone came", "so every one came", {"split": 1}),
        ("living quickeneth me", "living quick and at me", {"misread": 2}),
        ("and i say yes then", "and i say yes yes then", {"twice": 1}),
        ("let me see how", "let me let me see how", {"twice": 2}),
        ("his wealth or position", "his wealth the or position", {"added": 1}),
        ("all is lost", "it is", {}),
    ],
)
def test_inserted_words_are_told_apart_by_the_errors_around_them(word_errors, said, heard, kinds):
    assert word_errors.insertions(align(said.split(), heard.split())) == kinds


def test_errors_are_counted_in_blocks_of_the_reference(word_errors):
    said = [str(i) for i in range(2 * word_errors.BLOCK_WORDS + 10)]
    heard = ["other", *said[1:60], "more", *said[60:-1]]
    assert word_errors.errors_in_blocks(align(said, heard)) == ([1, 1, 1], [50, 50, 10])
