"""Speech synthesis: plans are reproducible, engines are called correctly, failures are reported.

A fake program replaces espeak-ng, flite and festival; the real engines are tested where they are installed.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from whisper.audio import load_audio
from whisper.errors import TrainingError
from whisper.manifests.read import read_manifest
from whisper.training import synthetic_voices
from whisper.training.synthetic_voices import Utterance, Voice, plan, speak, speak_all

VOICES = {"espeak-ng": ("en+m1", "en+f1"), "flite": ("slt", "rms"), "festival": ("kal_diphone",)}
TEXTS = ["one", "two words", "these are three more words", " ".join(f"w{i}" for i in range(40))]

# Writes a tone of 0.1 s for each letter, shorter at a higher tempo; silent for "mute", fails on "broken".
FAKE_ENGINE = """#!{python}
import math, struct, sys, wave
a = sys.argv
name, text, path = a[a.index("-voice") + 1], a[a.index("-t") + 1], a[a.index("-o") + 1]
stretch = float(a[a.index("--setf") + 1].split("=")[1])
if "broken" in text:
    sys.exit("no such phone")
n = 0 if "mute" in text else int(1600 * len(text) * stretch)
with wave.open(path, "wb") as out:
    out.setparams((1, 2, 16000, n, "NONE", ""))
    out.writeframes(struct.pack(f"<{{n}}h", *(int(9000 * math.sin(i / 5)) for i in range(n))))
"""


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        synthetic_voices, "installed", lambda language: VOICES if language == "en" else {"espeak-ng": ("fr+f2",)}
    )


@pytest.fixture
def fake_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake `flite`."""
    program = tmp_path / "bin" / "flite"
    program.parent.mkdir()
    program.write_text(FAKE_ENGINE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(synthetic_voices, "installed", lambda language: {"flite": ("slt",)})


# -- plans -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("everything_installed")
def test_a_plan_is_reproducible() -> None:
    first = plan(TEXTS, 60, 7)
    assert first == plan(TEXTS, 60, 7)
    assert first != plan(TEXTS, 60, 8)
    assert {one.voice.engine for one in first} == set(VOICES)
    assert all(one.voice.name in VOICES[one.voice.engine] for one in first)
    assert len({one.voice.tempo for one in first}) > 30
    assert all(0.5 < factor < 2 for one in first for factor in (one.voice.tempo, one.voice.pitch, one.voice.warp))


@pytest.mark.usefixtures("everything_installed")
def test_texts_are_used_in_turn_and_long_ones_cut_between_words() -> None:
    spoken = [one.text for one in plan(TEXTS, 60, 1, words=(2, 12))]
    assert spoken.count(TEXTS[1]) == spoken.count(TEXTS[2]) == 20  # the single word is left out
    excerpts = [text.split() for text in spoken if text.startswith("w")]
    assert all(4 <= len(excerpt) <= 12 for excerpt in excerpts)
    assert all(" ".join(excerpt) in TEXTS[3] for excerpt in excerpts)
    assert len({word for excerpt in excerpts for word in excerpt}) > 30
    assert {one.text for one in plan(TEXTS, 8, 1, words=None)} == set(TEXTS)
    with pytest.raises(TrainingError, match="at least 5 words"):
        plan(TEXTS[:2], 3, 1, words=(5, 9))


@pytest.mark.usefixtures("everything_installed")
def test_shares_and_languages_choose_the_engines() -> None:
    assert {one.voice.engine for one in plan(TEXTS, 20, 1, shares={"flite": 1, "festival": 0})} == {"flite"}
    [one] = plan(["bon jour"], 1, 1, "French")
    assert (one.language, one.speaker) == ("fr", "espeak-ng/fr+f2")
    with pytest.raises(TrainingError, match="no engine 'mary'"):
        plan(TEXTS, 1, 1, shares={"mary": 1})


def test_missing_engines_are_reported_with_their_packages(monkeypatch, caplog) -> None:
    monkeypatch.setattr(synthetic_voices, "installed", lambda language: {"flite": ("slt",)})
    with caplog.at_level(logging.WARNING):
        plan(TEXTS, 5, 1)
    [record] = caplog.records
    assert "espeak-ng and festival" in record.message
    assert "apt-get install espeak-ng festival festvox-kallpc16k" in record.message


def test_without_any_engine_the_packages_are_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        synthetic_voices, "installed", synthetic_voices.installed.__wrapped__
    )  # the real function, without its cache
    with pytest.raises(TrainingError, match="apt-get install espeak-ng flite festival festvox-kallpc16k"):
        plan(TEXTS, 5, 1)
    with pytest.raises(TrainingError, match="flite is not installed"):
        speak(Voice("flite", "slt"), "hello")


# -- synthesis ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake_engine")
def test_warp_raises_the_frequencies_and_keeps_the_tempo() -> None:
    plain, faster, warped = (speak(Voice("flite", "slt", *how), "ten  chars") for how in ((), (2.0,), (1.0, 1.0, 1.25)))
    assert plain.dtype == np.float32
    assert len(plain) == 16000
    assert len(faster) == 8000
    assert abs(len(warped) - 16000) < 20

    def hertz(samples: np.ndarray) -> float:
        return float(np.abs(np.fft.rfft(samples[:8000] * np.hanning(8000), 16000)).argmax())

    assert hertz(warped) == pytest.approx(1.25 * hertz(plain), rel=0.01)


@pytest.mark.usefixtures("fake_engine")
def test_failures_are_reported_and_the_rest_is_in_order(caplog) -> None:
    voice = Voice("flite", "slt")
    utterances = [
        Utterance(text, "en", voice) for text in ("aa", "broken", "bbbb", "mute", "c") * 11
    ]  # more than a batch
    results = [(one.text, len(samples)) for one, samples in speak_all(utterances, threads=2)]
    assert results == [("aa", 3200), ("bbbb", 6400), ("c", 1600)] * 11
    assert "failed on 'broken': no such phone" in caplog.text
    assert "failed on 'mute': its output is silent" in caplog.text
    with pytest.raises(TrainingError, match="no such phone"):
        speak(voice, "broken")


@pytest.mark.usefixtures("fake_engine")
def test_the_command_makes_a_folder_that_can_be_trained_on(tmp_path, capsys) -> None:
    (tmp_path / "texts.txt").write_text("Good day to you.\nAnother day\n")
    arguments = ["--texts", str(tmp_path / "texts.txt"), "--count", "3", "--numbers", "2", "--engines", "flite"]
    for kind in ("wav", "flac"):
        synthetic_voices.main([*arguments, "--format", kind, "--out", str(tmp_path / kind)])
    assert "5 utterances planned" in capsys.readouterr().out
    kinds = [read_manifest(tmp_path / kind, require_text=True) for kind in ("wav", "flac")]
    assert [r.text for r in kinds[0].recordings] == [r.text for r in kinds[1].recordings]
    assert not kinds[0].skipped
    assert len(kinds[0].recordings) == 5
    for wav, flac in zip(kinds[0].recordings, kinds[1].recordings, strict=True):
        assert (wav.language, wav.speaker, wav.group) == ("en", "flite/slt", "synthetic")
        assert np.array_equal(load_audio(wav.path), load_audio(flac.path))
        assert wav.duration == pytest.approx(len(load_audio(wav.path)) / 16000, abs=0.001)
    with pytest.raises(SystemExit, match="already holds a manifest"):
        synthetic_voices.main([*arguments, "--out", str(tmp_path / "wav")])


def test_texts_are_escaped_for_festival() -> None:
    script = synthetic_voices._scheme(Voice("festival", "kal_diphone"), 'he said "\\no"', "/x.wav")
    assert '(Utterance Text "he said   no ")' in script
    assert script.count("(") == script.count(")")


@pytest.mark.parametrize(
    ("engine", "name"),
    [("espeak-ng", "en+m1"), ("espeak-ng", "fr+f2"), ("flite", "slt"), ("festival", "kal_diphone"),
     ("festival", "cmu_us_slt_arctic_hts")],
)  # fmt: skip
def test_the_real_engines(engine: str, name: str) -> None:
    if name not in synthetic_voices.installed("fr" if name.startswith("fr") else "en").get(engine, ()):
        package = synthetic_voices.DEBIAN_PACKAGES[engine]
        pytest.skip(f"{engine} with the voice {name} is not installed (apt-get install {package})")
    texts = ("madame", "madame madame madame madame")
    short, long, fast = (speak(Voice(engine, name, *how), texts[i]) for i, how in ((0, ()), (1, ()), (1, (1.5,))))
    assert 0.1 < len(short) / 16000 < 2
    assert len(short) < len(fast) < 0.85 * len(long)
    assert 0.01 < np.abs(long).max() <= 1
