"""The rooms of the program keep their order, and importing the package stays cheap."""

import ast
from pathlib import Path

import pytest

from .conftest import run_python

PACKAGE = Path(__file__).resolve().parent.parent / "whisper"

# from left to right: a room imports only from rooms to its left (the same order stands in CONTRIBUTING.md)
ROOMS = [
    "version", "errors", "language_names", "places", "console", "processes", "utils", "writers", "results", "declaring",
    "options", "tokenizer", "normalizers", "spool", "sources", "finite", "tracks", "container_clock", "unread",
    "containers", "media", "torch_state", "audio", "silero", "vad",
    "kv_cache", "capabilities", "compute_types", "deferred", "stored", "model", "triton_ops", "weights", "formats",
    "download", "huggingface", "bundled", "checkpoints",
    "runner", "kernel_builds", "kernels", "pointers", "fingerprint", "quantize", "cuda_graphs", "loops", "token_rules",
    "torch_layers", "torch_caches", "torch_static", "torch_runner", "native_runner", "fast_path",
    "windows", "segments", "hotwords", "logit_filters", "search", "sampling", "decoding", "timing", "snapping",
    "matching",
    "pauses", "features", "scheduler", "work", "engine", "hearing", "languages", "channels",
    "inventions", "coverage", "timeline", "audit", "progress", "plan", "stretch", "audited",
    "transcribe", "alignment",
    "manifests", "scoring", "outcomes", "evaluation", "sentences", "voices", "aligner", "datasets", "augment",
    "composing", "targets", "learner", "lora", "optimisers", "loop", "fit_options", "curves", "listener",
    "run_folder", "training", "tables", "report_plots", "report", "doctor", "arguments", "eval_command",
    "train_command", "cli",
    "__init__", "__main__",
]  # fmt: skip
# names that programs look for in a room where they do not live
RE_EXPORTS = {("utils", "writers"), ("transcribe", "cli")}


def imports_of(path: Path) -> set[str]:
    """The rooms that a file imports from, at its top or inside functions; not those for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and id(node) not in for_types:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


def test_every_file_has_a_room() -> None:
    names = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert names <= set(ROOMS), f"no room in the order for {sorted(names - set(ROOMS))}"
    described = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    missing = [n for n in names - {"__init__", "__main__"} if n not in described]
    assert not missing, f"CONTRIBUTING.md does not name {missing}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_its_left(room: str) -> None:
    path = PACKAGE / f"{room}.py"
    if not path.is_file():
        path = PACKAGE / room / "__init__.py"
        assert path.is_file(), f"there is no {room}"
        return
    allowed = set(ROOMS[: ROOMS.index(room)]) | {to for at, to in RE_EXPORTS if at == room}
    assert imports_of(path) <= allowed


def test_segments_windows_and_tokenizer_touch_no_tensors() -> None:
    for room in ("tokenizer", "windows", "segments", "scheduler", "options", "results", "writers", "utils"):
        tree = ast.parse((PACKAGE / f"{room}.py").read_text(encoding="utf-8"))
        modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        assert "torch" not in modules, room


def test_loading_and_transcribing_imports_no_compiler() -> None:
    """Torch's compiler takes over a second to import, and drawing weights on the meta device would import it."""
    code = (
        "import sys, numpy, whisper\n"
        "model = whisper.load_model('nano', device='cpu')\n"
        "model.transcribe(numpy.zeros(16000, 'float32'), language='en', word_timestamps=True)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    assert run_python(code).split() == ["False"]


def test_importing_loads_nothing_heavy_and_does_nothing() -> None:
    code = (
        "import sys, logging, torch; before = torch.get_num_threads(), len(logging.root.handlers)\n"
        "import whisper\n"
        "assert (torch.get_num_threads(), len(logging.root.handlers)) == before\n"
        "heavy = 'av numba matplotlib fastapi ray transformers tiktoken regex safetensors huggingface_hub jiwer'\n"
        "plain = set(sys.modules); bad = [m for m in heavy.split() if m in plain]\n"
        "print(*bad)"
    )
    assert run_python(code).split() == []
