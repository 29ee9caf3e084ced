"""The import order of the package, and what importing it may load.

The order is also what `docs/architecture.md` shows. Every import counts, at the top of a file or inside a function,
relative or absolute; those under ``TYPE_CHECKING`` do not, as nothing is loaded by them.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, run_python

PACKAGE = ROOT / "whisper"

# A name imports only from lines above its own, or from names left of it.
LAYERS = """
    errors version results spans files storage compat triton_ops
    utils options tokenizer normalizers subtitles output
    device media audio speech manifests
    network lazy_modules model checkpoints
    runtime speakers sampling engine
    decoding timing
    audit transcription transcribe alignment
    evaluation training live jobs server
    cli
    __init__ __main__
"""
ORDER = LAYERS.split()
# What openai-whisper's modules must hand on from rooms to their right; no chain counts it.
CONTRACT = {
    ("utils", "output"),
    ("transcribe", "cli"),
    ("model", "decoding"),
    ("model", "transcribe"),
    ("model", "runtime"),
}
# These handle text and numbers; a tensor has no business there.
WITHOUT_TORCH = [
    "tokenizer",
    "options",
    "results",
    "spans",
    "subtitles",
    "output",
    "manifests",
    "engine.scheduler",
    "transcription.windows",
    "transcription.segments",
]
MOST_MODULES = 16  # in one folder: what a reader takes in at a glance
LONGEST_CHAIN = 12


def modules() -> dict[str, Path]:
    """Every module by its dotted name below the package; a package under its own name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@functools.cache
def imports_of(module: str, when_loaded: bool = False) -> frozenset[str]:
    """The modules of the package that `module` imports; perhaps only those that are loaded with it, at its top."""
    path = MODULES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = {
        target
        for node in (tree.body if when_loaded else ast.walk(tree))
        if id(node) not in for_types
        for name in _imported(node, path.relative_to(PACKAGE).parent.parts)
        if (target := _nearest_module(name)) is not None
    }
    return frozenset(found - {module})


def _imported(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """The dotted names below the package that a statement imports."""
    if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "whisper"):
        base = list(package[: len(package) - node.level + 1]) if node.level else []
        name = node.module or ""
        base += (name if node.level else name.removeprefix("whisper").lstrip(".")).split(".") if name else []
        yield from (".".join(filter(None, [*base, alias.name])) for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (a.name.removeprefix("whisper.") for a in node.names if a.name.startswith("whisper."))


def _nearest_module(name: str) -> str | None:
    """The module that a dotted name is, or lies in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or "__init__"


def room_of(module: str) -> str:
    return module.split(".")[0]


def test_the_architecture_page_shows_this_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## The import order")[2].split("```text\n")[1].split("```")[0]
    assert [line.split() for line in table.splitlines()] == [line.split() for line in LAYERS.split("\n")[1:-2]]


def test_the_architecture_page_shows_every_module() -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "architecture-docs", "--check"], check=True)


def test_every_module_has_a_place_in_the_order() -> None:
    assert {room_of(module) for module in MODULES} == set(ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_from_above_and_from_its_left(room: str) -> None:
    allowed = {room, *ORDER[: ORDER.index(room)]} | {to for at, to in CONTRACT if at == room}
    broken = {
        f"{module} > {target}"
        for module in MODULES
        if room_of(module) == room
        for target in imports_of(module)
        if room_of(target) not in allowed
    }
    assert not broken


def test_the_test_of_the_order_sees_every_kind_of_import(tmp_path: Path) -> None:
    source = (
        "from ..cli import main\n"
        "from whisper.cli.main import cli\n"
        "import whisper.cli.main\n"
        "def f():\n    from .. import cli\n"
    )
    found = [list(_imported(node, ("audio_room",))) for node in ast.walk(ast.parse(source))]
    assert [names for names in found if names] == [["cli.main"], ["cli.main.cli"], ["cli.main"], ["cli"]]


def longest_chain(graph: dict[str, frozenset[str]]) -> list[str]:
    """The longest path through imports; raises where they form a circle."""

    @functools.cache
    def below(module: str) -> tuple[str, ...]:
        if module in walking:
            raise AssertionError(f"a circle of imports: {' > '.join([*walking[walking.index(module) :], module])}")
        walking.append(module)
        longest = max(map(below, sorted(graph[module])), key=len, default=())
        walking.pop()
        return (module, *longest)

    walking: list[str] = []
    return list(max(map(below, graph), key=len))


def graph_of_imports(when_loaded: bool = False) -> dict[str, frozenset[str]]:
    """What each module imports, but for what it only hands on."""
    return {
        module: frozenset(t for t in imports_of(module, when_loaded) if (room_of(module), room_of(t)) not in CONTRACT)
        for module in MODULES
    }


def test_imports_form_no_circle() -> None:
    assert longest_chain(graph_of_imports())


def test_imports_form_no_long_chain() -> None:
    """Of those at the top of a file: what a reader must know first."""
    chain = longest_chain(graph_of_imports(when_loaded=True))
    assert len(chain) <= LONGEST_CHAIN, " > ".join(chain)


def test_no_folder_is_too_full_to_read() -> None:
    folders: dict[Path, int] = {}
    for path in MODULES.values():
        folders[path.parent] = folders.get(path.parent, 0) + (path.name != "__init__.py")
    assert max(folders.values()) <= MOST_MODULES, folders


@pytest.mark.parametrize("module", [m for m in MODULES if m in WITHOUT_TORCH or room_of(m) in WITHOUT_TORCH])
def test_what_handles_text_and_numbers_imports_no_torch(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert "torch" not in {name.split(".")[0] for name in imported}


def test_tests_lie_where_the_code_lies() -> None:
    """``tests/engine/test_scheduler.py`` is for ``whisper/engine/scheduler.py``."""
    tests = ROOT / "tests"
    stray = [
        str(path.relative_to(tests))
        for path in tests.rglob("test_*.py")
        if path.parent != tests and path.parent.name not in ("compat", "fuzzing")
        and ".".join([*path.parent.relative_to(tests).parts, path.stem.removeprefix("test_")]) not in MODULES
    ]  # fmt: skip
    assert not stray


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
        "heavy = 'av numba matplotlib starlette uvicorn ray transformers tiktoken regex'\n"
        "heavy += ' prometheus_client safetensors huggingface_hub jiwer whisper.server'\n"
        "heavy += ' whisper.alignment whisper.audit.hallucinations whisper.sampling.hotwords whisper.cli'\n"
        "heavy += ' whisper.speakers'\n"
        "bad = [m for m in heavy.split() if m in sys.modules]\n"
        "print(*bad)"
    )
    assert run_python(code).split() == []
