"""No tensor of the package takes its precision or its place from torch's defaults, which anybody may change."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "whisper"

# functions of torch whose result has the default dtype or the default device unless it is told otherwise
MAKERS = {
    "tensor", "as_tensor", "asarray", "scalar_tensor", "empty", "empty_strided", "zeros", "ones", "full", "eye",
    "arange", "range", "linspace", "logspace", "rand", "randn", "randint", "randperm", "normal", "hann_window",
    "hamming_window", "blackman_window", "bartlett_window", "kaiser_window", "fftfreq", "rfftfreq", "tril_indices",
    "triu_indices", "sparse_coo_tensor", "sparse_csr_tensor", "sparse_compressed_tensor",
}  # fmt: skip
# what is needed besides, where torch knows no such argument
NEEDED = {"frombuffer": {"dtype"}, "Generator": {"device"}}
# these take the default and cannot be told, or change it for everybody
FORBIDDEN = {
    "Tensor", "FloatTensor", "DoubleTensor", "HalfTensor", "LongTensor", "IntTensor", "set_default_dtype",
    "set_default_device", "set_default_tensor_type", "get_default_dtype", "set_grad_enabled", "set_flush_denormal",
    "set_float32_matmul_precision", "use_deterministic_algorithms", "set_autocast_enabled",
}  # fmt: skip
LAYERS = {"Linear", "Embedding", "LayerNorm", "Conv1d", "Conv2d", "LSTM", "GRU"}
# the modules of the network are torch's own kind, and as those do they follow the default of who makes them
FOLLOW = {"model.py": LAYERS | {"empty"}}


def offences(source: str, exempt: set[str] = frozenset()) -> Iterator[str]:
    """Each call in `source` that leaves something to torch's defaults."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            yield from (f"line {node.lineno}: import {a.name} with torch" for a in node.names if a.name in MAKERS)
        if not isinstance(node, ast.Call):
            continue
        *path, name = ast.unparse(node.func).split(".")
        given = {keyword.arg for keyword in node.keywords}
        if name in exempt or not path or path[0] not in ("torch", "nn"):
            continue
        needed = NEEDED.get(name, {"dtype", "device"} if name in MAKERS | LAYERS else set())
        if missing := needed - given:
            yield f"line {node.lineno}: {ast.unparse(node)} lacks {' and '.join(sorted(missing))}"
        if name in FORBIDDEN:
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_tensor_is_made_with_dtype_and_device(path: Path) -> None:
    assert not list(offences(path.read_text(encoding="utf-8"), FOLLOW.get(path.name, set())))


@pytest.mark.parametrize(
    "call",
    [
        "torch.empty(3)",
        "torch.zeros(3, dtype=torch.float32)",
        "torch.full((2, 2), 1.0, device=device)",
        "torch.tensor([1, 2])",
        "torch.hann_window(400)",
        "torch.fft.rfftfreq(8, dtype=torch.float32)",
        "[torch.as_tensor(x) for x in y]",
        "torch.arange(torch.tensor(3, dtype=torch.long, device='cpu'))",
        "torch.frombuffer(content)",
        "torch.Generator(device_of_the_logits)",
        "torch.FloatTensor(3)",
        "torch.set_default_dtype(torch.float16)",
        "nn.Linear(2, 3)",
        "torch.nn.Embedding(2, 3, device='cpu')",
        "from torch import zeros",
    ],
)
def test_what_is_left_to_a_default_is_found(call: str) -> None:
    assert list(offences(call))


@pytest.mark.parametrize(
    "call",
    [
        "torch.empty(3, dtype=torch.uint8, device='cpu')",
        "x.new_zeros(3)",
        "torch.empty_like(x)",
        "np.zeros(3)",
        "torch.from_numpy(x)",
        "torch.frombuffer(content, dtype=torch.uint8)",
        "torch.Generator(device=x.device)",
        "from torch import Tensor",
    ],
)
def test_what_states_both_or_inherits_is_not(call: str) -> None:
    assert not list(offences(call))


# where an address is compared, and never followed by a kernel
COMPARED = {"fingerprint.py", "weights.py", "stored.py", "torch_static.py"}


@pytest.mark.parametrize(
    "path", sorted({*PACKAGE.glob("*.py")} - {PACKAGE / "pointers.py"}), ids=lambda path: path.name
)
def test_no_address_passes_the_door_of_the_kernels(path: Path) -> None:
    found = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and (node.attr in ("data_ptr", "data_as", "__array_interface__") or ast.unparse(node).endswith(".ctypes.data"))
    ]
    assert not found or path.name in COMPARED
