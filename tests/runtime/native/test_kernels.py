"""Kernels are compiled where there is a compiler, loaded where the processor can run them, and optional elsewhere."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from whisper.device import hardware
from whisper.errors import OptionError
from whisper.runtime.native import build, kernels

from ...conftest import ROOT, run_python

HERE = hardware.machine()

needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="there is no C++ compiler")


def interface(
    abi: int = kernels.ABI, sizes: Mapping[str, int] | None = None, missing: str = "", prepared: int = 0
) -> str:
    """Return the source of a library that has the interface of the kernels, and computes nothing."""
    expected = {struct.__name__: ctypes.sizeof(struct) for struct in kernels.STRUCTS}
    cases = "".join(
        f'    if (!strcmp(name, "{name}")) return {size};\n' for name, size in (expected | (sizes or {})).items()
    )
    functions = {
        "sotto_abi": f"int sotto_abi() {{ return {abi}; }}\n",
        "sotto_prepare": f"int sotto_prepare() {{ return {prepared}; }}\n",
        "sotto_struct_size": f"size_t sotto_struct_size(const char* name) {{\n{cases}    return 0;\n}}\n",
    }
    for name in kernels.FUNCTIONS:
        functions.setdefault(name, f"void {name}() {{}}\n")
    functions.pop(missing, None)
    return '#include <cstring>\nextern "C" {\n' + "".join(functions.values()) + "}\n"


@pytest.fixture
def native(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of sources that have the interface and compute nothing."""
    folder = tmp_path / "native"
    folder.mkdir()
    (folder / build.MAIN_SOURCE).write_text(interface())
    for module in (build, kernels):
        monkeypatch.setattr(module, "SOURCES", folder)
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    kernels._loaded.cache_clear()
    yield folder
    kernels._loaded.cache_clear()


def processor_has(monkeypatch: pytest.MonkeyPatch, *names: str, machine: str = "x86_64") -> None:
    monkeypatch.setattr(kernels, "processor", lambda: frozenset(names))
    monkeypatch.setattr(kernels, "machine", lambda: machine)
    kernels._loaded.cache_clear()


@needs_compiler
def test_the_best_that_is_built_and_can_run_is_loaded(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.load() is None
    assert "python -m whisper.runtime.native" in kernels.why_not() or not build.variants_for(HERE)
    said: list[str] = []
    built = build.build_all(native, HERE, said.append)
    assert [path.name for path in built] == [v.file_name for v in build.variants_for(HERE)], said
    assert not list(native.glob(".build-*"))
    kernels._loaded.cache_clear()
    library = kernels.load()
    assert library is kernels.load()
    best = next(v for v in build.variants_for(HERE) if v.needs <= hardware.processor())
    assert (kernels.which(), kernels.why_not()) == (best.name, None)
    assert library.sotto_abi() == kernels.ABI

    monkeypatch.setenv(kernels.VARIABLE, "off")
    assert kernels.load() is None
    assert "SOTTO_KERNELS=off" in kernels.why_not()


def test_a_choice_that_cannot_be_had_is_an_error(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor_has(monkeypatch, "avx2", "fma", "f16c", "bmi2")
    for value, says in (
        ("fast", r"SOTTO_KERNELS is 'fast'; it can be amx, avx512, vnni, avx2 or off"),
        ("avx512", "this processor has no avx512_bf16, avx512_vnni, avx512bw"),
        ("dotprod", "this processor is x86_64"),
        ("avx2", "not built; python -m whisper.runtime.native"),
    ):
        monkeypatch.setenv(kernels.VARIABLE, value)
        with pytest.raises(OptionError, match=says):
            kernels.load()


def test_a_poorer_processor_gets_no_library_that_it_cannot_run(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor_has(monkeypatch, "sse4_2", "avx")
    assert kernels.load() is None
    assert "avx2: this processor has no avx2, bmi2, f16c, fma" in kernels.why_not()
    opened: list[str] = []
    monkeypatch.setattr(kernels, "_open", lambda variant: opened.append(variant.name) or "not built")
    for names, machine, tried in (
        (build._AVX512, "x86_64", ["vnni", "avx2"]),
        (("asimd",), "arm64", ["generic"]),
        (("asimd", "asimddp"), "arm64", ["dotprod", "generic"]),
        ((), "riscv64", ["generic"]),
    ):
        opened.clear()
        processor_has(monkeypatch, *names, machine=machine)
        assert kernels.load() is None
        assert opened == tried


BATCH = ctypes.sizeof(kernels.Batch)
SELECTION = ctypes.sizeof(kernels.TokenSelection)


@needs_compiler
@pytest.mark.parametrize(
    ("source", "says"),
    [
        (interface(abi=kernels.ABI + 1), f"other sources (ABI {kernels.ABI + 1}, and {kernels.ABI} is needed)"),
        (interface(sizes={"Batch": BATCH + 8}), f"(Batch has {BATCH + 8} bytes, and {BATCH} are needed)"),
        (interface(sizes={"TokenSelection": 0}), f"(TokenSelection has 0 bytes, and {SELECTION} are needed)"),
        (interface(missing="sotto_dtw"), "cannot be loaded"),
        (interface(missing="sotto_struct_size"), "cannot be loaded"),
        (interface(prepared=1), "does not let this process use"),
    ],
    ids=["ABI", "size", "unknown struct", "missing function", "no sizes", "not permitted"],
)
def test_a_library_of_other_sources_or_without_permission_is_not_used(native: Path, source: str, says: str) -> None:
    (native / build.MAIN_SOURCE).write_text(source)
    build.build_all(native, HERE)
    assert kernels.load() is None
    assert says in kernels.why_not()


def test_the_interface_is_declared_as_the_sources_have_it() -> None:
    source = (build.SOURCES / build.MAIN_SOURCE).read_text(encoding="utf-8")
    header = (build.SOURCES / "abi.h").read_text(encoding="utf-8")
    defined = dict(re.findall(r"^[\w* ]+[ *](sotto_\w+)\(([^)]*)\)", source, re.MULTILINE))
    parameters = {name: len([p for p in listed.split(",") if p.strip()]) for name, listed in defined.items()}
    assert parameters == {name: len(types) for name, (_, types) in kernels.FUNCTIONS.items()}
    bodies = dict(re.findall(r"^struct (\w+) \{\n(.*?)^\};", header, re.MULTILINE | re.DOTALL))
    fields = {name: re.findall(r"^ {4}[\w* ]+[ *](\w+);", body, re.MULTILINE) for name, body in bodies.items()}
    assert fields == {struct.__name__: [field[0] for field in struct._fields_] for struct in kernels.STRUCTS}


def test_a_broken_library_is_not_used(native: Path) -> None:
    for variant in build.variants_for(HERE):
        (native / variant.file_name).write_bytes(b"nothing")
    assert kernels.load() is None
    assert "cannot be loaded" in kernels.why_not()


@pytest.mark.parametrize(
    ("compiler", "says"),
    [("false", "are not built: false exited with 1"), ("nonsense", "no C++ compiler (nonsense)")],
)
def test_a_compiler_that_is_missing_or_fails_is_reported_in_one_line(
    native: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, says: str
) -> None:
    monkeypatch.setenv("CXX", compiler)
    said: list[str] = []
    assert build.build_all(native, "x86_64", said.append) == []
    assert said
    assert all(says in line and "\n" not in line for line in said)


def test_importing_the_package_loads_no_kernels() -> None:
    code = "import whisper; from whisper.runtime.native import kernels; print(kernels._loaded.cache_info().currsize)"
    assert run_python(code).split() == ["0"]


def test_they_can_be_compiled_later() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "whisper.runtime.native"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "CXX": "nonsense"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("sotto: no C++ compiler (nonsense)")


@needs_compiler
@pytest.mark.parametrize("compiler", ["", "nonsense"])
def test_a_wheel_is_for_one_platform_only_where_it_holds_kernels(tmp_path: Path, compiler: str) -> None:
    pytest.importorskip("hatchling")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    native = Path("whisper", "runtime", "native")
    (source / native / "src").mkdir(parents=True)
    (source / "whisper" / "assets").mkdir()
    shutil.copy(ROOT / "whisper" / "assets" / "LICENSE.openai-whisper", source / "whisper" / "assets")
    for path in (Path("whisper", "version.py"), native / "build.py"):
        shutil.copy(ROOT / path, source / path)
    (source / native / "src" / build.MAIN_SOURCE).write_text(interface())

    environment = {key: value for key, value in os.environ.items() if key not in ("CXX", "SOTTO_NO_KERNELS")}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=source, capture_output=True, text=True,
        env={**environment, **({"CXX": compiler} if compiler else {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [wheel] = (source / "dist").glob("*.whl")
    libraries = [n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("whisper/runtime/native/src/kernels-")]
    if compiler:
        assert libraries == []
        assert wheel.name.endswith("-py3-none-any.whl")
        assert "no C++ compiler (nonsense)" in done.stdout + done.stderr
        return
    assert {Path(name).name for name in libraries} == {v.file_name for v in build.variants_for(HERE)}
    assert not wheel.name.endswith("-any.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "out")
    for variant in build.variants_for(HERE):
        if variant.needs <= hardware.processor():
            ctypes.CDLL(str(tmp_path / "out" / native / "src" / variant.file_name))
