"""Compiles the kernels while the package is built or installed; where that fails, the package does without.

A wheel with kernels is tagged for its platform, one without for all. An editable installation gets them in place.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def load_builds(root: str) -> ModuleType:
    """Load ``whisper/runtime/native/build.py`` alone: the package needs torch, which is not there while it is built."""
    path = Path(root) / "whisper" / "runtime" / "native" / "build.py"
    spec = importlib.util.spec_from_file_location("kernel_builds", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernel_builds"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def machine() -> str:
    """Return the kind of processor that is built for."""
    target = sysconfig.get_platform()  # with ARCHFLAGS, a build on one kind of Mac is for the other
    name = os.environ.get("ARCHFLAGS", "").removeprefix("-arch ").strip() if "macosx" in target else ""
    name = (name or platform.machine()).lower()
    return {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}.get(name, name)


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg, misc]
    """Adds the libraries to a wheel."""

    scratch: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, into the checkout for an editable installation and into the wheel otherwise."""
        builds = load_builds(self.root)
        if self.target_name != "wheel" or os.environ.get(builds.SKIP_VARIABLE, "") not in ("", "0"):
            return
        if version == "editable":
            builds.build_all(builds.SOURCES, machine(), self.app.display_warning)
            return
        self.scratch = tempfile.mkdtemp(prefix="sotto-kernels-")
        built = builds.build_all(Path(self.scratch), machine(), self.app.display_warning)
        for path in built:
            build_data["force_include"][str(path)] = f"whisper/runtime/native/src/{path.name}"
        if built:
            build_data["pure_python"] = False
            best = self.build_config.builder.get_best_matching_tag()  # cp312-cp312-linux_x86_64
            build_data["tag"] = "py3-none-" + best.rpartition("-")[2]  # no Python ABI is in there

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Take away what was compiled: it lies in the wheel."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
