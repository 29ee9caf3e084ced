"""Programs that are built on openai-whisper, unmodified, give the same words and times on our package.

Each runs twice in its own environment (`scripts/peers stable-ts whisper-timestamped`), with real weights: once on the
openai-whisper there, once with this checkout before it on the path. They replace and hook much of the package: forward
hooks on attention and on the token embedding, `DecodingTask` subclassed, functions of `timing` and `transcribe` called
with arguments of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..conftest import ROOT

pytestmark = [pytest.mark.peers, pytest.mark.shared, pytest.mark.timeout(1500)]

SOUNDS = {
    "english": "misc/jfk_16k.wav",
    "french": "multilingual/leopard_test_fr.wav",
    "short": "misc/new-home-in-the-stars-16k.wav",
}
SETUP = """
import json, sys, warnings
warnings.simplefilter("ignore")
arguments = json.load(sys.stdin)
import torch, whisper
torch.set_num_threads(1)
sounds = {name: whisper.load_audio(path) for name, path in arguments["sounds"].items()}
given = {"fp16": False}
def words_of(segments, probability):
    return [[(w.get("word") or w["text"]).strip(), w["start"], w["end"], w[probability]]
            for segment in segments for w in segment["words"]]
"""
FINISH = """
json.dump({"package": whisper.__file__, "answer": answer}, open(sys.argv[1], "w"), default=float)
"""
PROGRAMS = {
    "stable-ts": """
import stable_whisper
model = stable_whisper.load_model(arguments["weights"], device="cpu")
def words(result):
    return words_of(result.to_dict()["segments"], "probability")
said = "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
short = model.transcribe(sounds["short"], language="en", verbose=None, **given)
answer = {
    "transcribe": words(model.transcribe(sounds["english"], verbose=None, **given)),
    "beams": words(model.transcribe(sounds["french"], beam_size=3, temperature=0, verbose=None, **given)),
    "by the package's own loop": words(model.transcribe_minimal(sounds["english"], verbose=None, **given)),
    "align": words(model.align(sounds["english"], said, language="en", verbose=None)),
    "refine": words(model.refine(sounds["short"], short, precision=0.2, verbose=None)),
}
""",
    "whisper-timestamped": """
import whisper_timestamped
model = whisper_timestamped.load_model(arguments["weights"], device="cpu")
def words(name, **options):
    return words_of(whisper_timestamped.transcribe(model, sounds[name], **given, **options)["segments"], "confidence")
answer = {
    "transcribe": words("english"),
    "language detected": words("french"),
    "beams and fallback": words("english", language="en", beam_size=3, best_of=3, temperature=(0.0, 0.2)),
    "naive": words("french", language="fr", naive_approach=True),
    "disfluencies": words("short", language="en", detect_disfluencies=True),
}
""",
}


@pytest.fixture(scope="module")
def job(shared_data: Path) -> dict[str, Any]:
    """What the programs read: real weights and recordings."""
    weights = os.environ.get("SOTTO_BASE_PT", "")
    if not Path(weights).is_file():
        pytest.skip("real weights are not here; set SOTTO_BASE_PT to a checkpoint of OpenAI's base")
    return {"weights": weights, "sounds": {name: str(shared_data / "dev" / path) for name, path in SOUNDS.items()}}


def run(program: str, job: dict[str, Any], folder: Path, path: str) -> dict[str, Any]:
    """Run a program where it is installed, with `path` as PYTHONPATH; return the package it found, and its answer."""
    python = ROOT / ".venv-peers" / program / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{program} has no environment here ({python}); run scripts/peers {program}")
    out = folder / "answer.json"
    done = subprocess.run(
        [python, "-W", "ignore", "-c", SETUP + PROGRAMS[program] + FINISH, str(out)],
        input=json.dumps(job), text=True, capture_output=True, timeout=900, cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(out.read_text()))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_gives_the_same_words_and_times(program: str, job: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours = (run(program, job, tmp_path, path) for path in ("", str(ROOT)))
    assert not theirs["package"].startswith(str(ROOT / "whisper"))
    assert ours["package"].startswith(str(ROOT / "whisper"))
    assert theirs["answer"].keys() == ours["answer"].keys()
    for way, expected in theirs["answer"].items():
        found = ours["answer"][way]
        assert len(expected) > 5, way
        assert [word for word, *_ in found] == [word for word, *_ in expected], way
        for word, other in zip(found, expected, strict=True):
            assert word[1:3] == pytest.approx(other[1:3], abs=0.02 + 1e-9), (way, other)
            assert word[3] == pytest.approx(other[3], abs=2e-3), (way, other)  # told with three digits
