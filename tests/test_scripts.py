"""The scripts that make the bundled model: a toy from end to end, and what is taken of which folder."""

from __future__ import annotations

import gzip
import importlib.machinery
import importlib.util
import subprocess
import sys
import wave
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from whisper.errors import TrainingError
from whisper.manifests.read import NON_SPEECH, read_manifest

GROUPS = ("commonvoice_en", "wakeword", "debian_en", "debian_fr", "sounds")
SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture(scope="module")
def nano_sources() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("nano_sources", str(SCRIPTS / "nano-sources"))
    spec = importlib.util.spec_from_loader("nano_sources", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module


def put(path: Path, text: str | None = None) -> Path:
    """A file with `text`, or a sound of half a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is not None:
        path.write_text(text, encoding="utf-8")
        return path
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"\1\0" * 8000)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Unpacked packages: one list of prompts, stamps, and sounds of two."""
    share = tmp_path / "cache" / "x" / "usr" / "share"
    prompts = share / "asterisk" / "sounds" / "fr_CA_f_June"
    for name in ("activated", "beeperr", "digits/1", "letters/a", "vm-2"):
        put(prompts / f"{name}.g722")
    listed = (
        "; heading\nactivated: activé\nbeeperr: (ahooga)\ndigits/1: un\nletters/a: a\nvm-2: faites 2\ngone: parti\n"
    )
    put(share / "doc" / "asterisk-core-sounds-fr" / "x", "")
    with gzip.open(share / "doc" / "asterisk-core-sounds-fr" / "core-sounds-fr.txt.gz", "wt") as file:
        file.write(listed)
    stamps = share / "tuxpaint" / "stamps"
    put(stamps / "animals" / "cat.txt", "A cat.\nfr.utf8=Un chat.\nde.utf8=Eine Katze.\n")
    put(stamps / "animals" / "dog.txt", "A dog (big).\n")
    put(stamps / "symbols" / "a.txt", "A letter.\n")
    for name in ("animals/cat_desc", "animals/cat_desc_fr", "animals/cat", "animals/dog_desc", "symbols/a_desc"):
        put(stamps / f"{name}.ogg")
    put(stamps / "people" / "singer.ogg")
    put(share / "games" / "heroes" / "sfx" / "bang.wav")
    put(share / "games" / "heroes" / "sfx" / "README", "no sound")
    put(share / "sounds" / "freedesktop" / "stereo" / "bell.oga")
    put(share / "sounds" / "freedesktop" / "stereo" / "audio-channel-front-left.oga")
    for package in ("asterisk-core-sounds-fr", "asterisk-core-sounds-fr-g722", "tuxpaint-stamps-default",
                    "heroes-sound-effects", "sound-theme-freedesktop"):  # fmt: skip
        put(tmp_path / "cache" / "deb" / f"{package}.unpacked", "")
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Real recordings of a talkative speaker, and sentences."""
    rows = ["file\tlanguage\ttranscript\tspeaker"]
    for number in range(130):
        put(tmp_path / "data" / "train" / "commonvoice_en" / f"{number}.wav")
        rows.append(f"commonvoice_en/{number}.wav\ten\tSentence, by “one”.\tspeaker")
    put(tmp_path / "data" / "train" / "wakeword" / "1.wav")
    rows += ["wakeword/1.wav\ten\tsnowboy\tx", "wakeword/1.wav\tnone\t\t", "wakeword/1.wav\ten\t\t"]
    put(tmp_path / "data" / "train" / "manifest.tsv", "\n".join(rows))
    return tmp_path / "data"


@pytest.fixture
def nothing_available(nano_sources, monkeypatch) -> None:
    """Neither packages nor voices are available."""

    def refuse(*arguments: object, **options: object) -> None:
        raise TrainingError("no voice")

    def fail(program: str, *arguments: str, folder: Path) -> None:
        raise subprocess.CalledProcessError(100, program, stderr=f"E: Unable to locate {arguments[-1]}")

    monkeypatch.setattr(nano_sources, "plan", refuse)
    monkeypatch.setattr(nano_sources, "read_texts", lambda *_: ["la"])
    monkeypatch.setattr(nano_sources, "run", fail)


@pytest.mark.usefixtures("nothing_available")
def test_sources_are_taken_as_far_as_they_can_be_had(nano_sources, cache, data, tmp_path, caplog):
    found = nano_sources.sources(data, tmp_path / "out", cache)
    nano_sources.write_manifest(found, tmp_path / "manifest.jsonl")
    manifest = read_manifest(tmp_path / "manifest.jsonl")
    assert manifest.skipped == []
    texts = {group: Counter(r.text for r in manifest.recordings if r.group == group) for group in GROUPS}
    assert texts == {
        "commonvoice_en": {"sentence by one": 120},
        "wakeword": {"snowboy": 1},
        "debian_en": {"a cat": 1},
        "debian_fr": {"activé": 1, "un": 1, "un chat": 1},
        "sounds": {"": 3},
    }
    sounds = [r for r in manifest.recordings if r.group == "sounds"]
    assert {Path(r.path).name for r in sounds} == {"cat.ogg", "bang.wav", "bell.oga"}
    assert all((r.language, r.end) == (NON_SPEECH, 60.0) for r in sounds)
    assert "without wesnoth-1.16-data, which cannot be downloaded: E: Unable to locate wesnoth-1.16-data" in caplog.text
    assert "without the synthetic speech of spoken_fr: no voice" in caplog.text


@pytest.mark.usefixtures("nothing_available")
def test_a_limit_takes_a_share_of_each_source(nano_sources, cache, data, tmp_path):
    found = nano_sources.sources(data, tmp_path / "out", cache, limit=2)
    assert Counter(r.group for r in found) == {
        "commonvoice_en": 2, "wakeword": 1, "debian_en": 1, "debian_fr": 2, "sounds": 2,
    }  # fmt: skip


def test_short_texts_are_digits_and_wake_phrases(nano_sources):
    texts = nano_sources.short_texts(2000, 1)
    assert texts == nano_sources.short_texts(2000, 1)
    phrases = [text for text in texts if text in nano_sources.WAKE_PHRASES]
    assert abs(len(phrases) / len(texts) - 0.2) < 0.03
    digits = [text.split() for text in texts if text not in nano_sources.WAKE_PHRASES]
    assert {len(words) for words in digits} == {1, 2, 3, 4}
    assert {word for words in digits for word in words} == set(nano_sources.DIGITS)


def test_a_half_written_manifest_does_not_stand(nano_sources, tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text("old")
    with pytest.raises(AttributeError):
        nano_sources.write_manifest([None], path)
    assert path.read_text() == "old"


@pytest.mark.slow
def test_train_nano_trains_a_toy_in_seconds(tmp_path):
    script = [sys.executable, str(SCRIPTS / "train-nano"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "nano.safetensors").stat().st_size < 25_000_000
    assert done.stdout.endswith("after 20 steps\n")
