"""The kernels for ARM compute what those for x86-64 compute: cross-compiled, and run on an emulated processor.

Integers are exact on both, and so are numbers that are only chosen or moved. Sums of float32 over the lanes of a vector
are added in another order where vectors have another width (4 numbers on NEON, 8 on AVX2): float32 may differ by its
last bits, bfloat16 and int8 by less than they differ from float32 anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from whisper.device import hardware
from whisper.model import Whisper
from whisper.runtime.native import build

from .models import random_model
from .runtime.native.emulation import TARGETS, Calls, Results, write_job
from .runtime.short_windows import encode_by_modules, in_full, repeats

HERE, ARM = TARGETS["x86_64"], TARGETS["aarch64"]
AVX2 = next(variant for variant in build.VARIANTS if variant.name == "avx2")
COMPUTE_TYPES = ("float32", "bfloat16", "int8")
EXACT = ("digest", "median", "path rows", "path columns")
# of each variant the oldest processor that it is for, and one with everything
PROCESSORS = [("generic", "cortex-a57"), ("generic", "max"), ("dotprod", "neoverse-n1"), ("dotprod", "max")]
N_OWN = 204  # no multiple of a vector or of a block
N_POSITIONS = len(repeats(N_OWN))  # with those of the padding

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the compilers take a minute on one quiet core
    pytest.mark.skipif(bool(ARM.missing() or HERE.missing()), reason=ARM.missing() or HERE.missing()),
    pytest.mark.skipif(hardware.machine() != "x86_64", reason="the kernels to compare with are those for x86-64"),
    pytest.mark.skipif(not hardware.processor() >= AVX2.needs, reason="the kernels to compare with need AVX2"),
]

Run = Callable[..., Results]


@pytest.fixture(scope="module")
def model() -> Whisper:
    """Heads of 64, whose keys and values are held in int8, and a vocabulary that is small and odd."""
    model = random_model(3, n_state=128, n_head=2)
    model.dims.n_vocab = 3001
    model.decoder.token_embedding.weight = torch.nn.Parameter(model.decoder.token_embedding.weight[:3001].clone())
    return model


@pytest.fixture(scope="module")
def calls(model: Whisper) -> Calls:
    """A prefill of two rows in one batch, then three steps of both, the heads of all layers recorded."""
    random = np.random.default_rng(0)
    mel = random.normal(size=(model.dims.n_mels, 2 * N_OWN)).astype(np.float32)
    prompts = [random.integers(0, 3001, n).tolist() for n in (7, 18)]
    items = [(token, row, position) for row, prompt in enumerate(prompts) for position, token in enumerate(prompt)]
    batches = [(*zip(*items, strict=True), range(len(items)))]
    for step in range(3):
        positions = [len(prompt) + step for prompt in prompts]
        batches.append((random.integers(0, 3001, 2).tolist(), [0, 1], positions, [1, 0]))
    return Calls(mel, 2, range(4), batches, timestamp_begin=2000)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("emulated")
    return {
        "x86_64": HERE.build(folder / "x86_64", [AVX2]),
        "aarch64": ARM.build(folder / "aarch64", build.variants_for(ARM.machine)),
    }


@pytest.fixture(scope="module")
def run(model: Whisper, calls: Calls, built: dict[str, dict[str, Path]], tmp_path_factory) -> Run:
    """Call ``run(target, variant, compute_type, cpu=, n_threads=)`` for the results of the job."""
    folder = tmp_path_factory.mktemp("jobs")

    def run(target: str, variant: str, compute_type: str, cpu: str = "max", n_threads: int = 1) -> Results:
        job = folder / f"{compute_type}-{n_threads}.job"
        if not job.exists():
            write_job(job, model, compute_type, calls, n_threads)
        return TARGETS[target].run(built[target][variant], job, folder / "results", cpu)

    return run


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, in standard deviations of what is expected."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max() / expected.std())


def spread(found: np.ndarray, expected: np.ndarray) -> float:
    """The root mean square of the differences."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return float(np.sqrt(np.square(found - expected).mean()))


def centred(name: str, values: np.ndarray) -> np.ndarray:
    """Scores without their mean over the positions, which int8 does not keep, as the softmax cancels it."""
    if not name.startswith("qk"):
        return values
    rows = values.reshape(-1, N_POSITIONS)
    return rows - rows.mean(axis=1, keepdims=True)


@pytest.mark.parametrize(("variant", "cpu"), PROCESSORS)
def test_arm_computes_what_x86_computes(run: Run, variant: str, cpu: str) -> None:
    expected = run("x86_64", "avx2", "float32")
    found = run("aarch64", variant, "float32", cpu)
    assert found.keys() == expected.keys()
    for name in EXACT:
        assert (found[name] == expected[name]).all(), name
    distances = {name: distance(found[name], expected[name]) for name in expected if name not in EXACT}
    print(variant, cpu, {name: f"{far:.1e}" for name, far in distances.items()})
    assert max(distances.values()) < 2e-5


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
@pytest.mark.parametrize("variant", ["generic", "dotprod"])
def test_low_precision_on_arm_is_as_good_as_on_x86(run: Run, variant: str, compute_type: str) -> None:
    exact = run("x86_64", "avx2", "float32")
    expected = run("x86_64", "avx2", compute_type)
    found = run("aarch64", variant, compute_type)
    for name in EXACT:
        assert (found[name] == expected[name]).all(), name
    for name in (name for name in exact if name.startswith(("features", "logits ", "qk "))):
        at_arm, at_x86, in_float32 = (centred(name, results[name]) for results in (found, expected, exact))
        usual = spread(at_x86, in_float32)  # what this precision costs
        between, own = spread(at_arm, at_x86), spread(at_arm, in_float32)
        print(variant, compute_type, f"{name}: {between / usual:.2f} and {own / usual:.3f} of what the precision costs")
        assert between < 0.8 * usual
        assert own < 1.1 * usual


@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
def test_all_variants_for_arm_agree_to_the_bit_on_any_number_of_threads(run: Run, compute_type: str) -> None:
    one = run("aarch64", "generic", compute_type, "cortex-a57")
    for found in (
        run("aarch64", "dotprod", compute_type),
        run("aarch64", "generic", compute_type, n_threads=3),
        run("aarch64", "dotprod", compute_type, n_threads=2),
    ):
        assert found.keys() == one.keys()
        for name in one:
            assert found[name].tobytes() == one[name].tobytes(), name


@torch.no_grad()
def test_arm_computes_what_the_modules_compute(run: Run, model: Whisper, calls: Calls) -> None:
    found = run("aarch64", "dotprod", "float32")
    features = encode_by_modules(model, torch.from_numpy(calls.mel))
    assert distance(found["features"].reshape(N_POSITIONS, -1), features.numpy()) < 1e-4
    tokens = torch.tensor([calls.batches[0][0][7:]])  # the second row
    logits = model.decoder(tokens, in_full(features, N_OWN)[None])[0].numpy()
    assert distance(found["logits 0"].reshape(-1, 3001)[7:], logits) < 1e-4
