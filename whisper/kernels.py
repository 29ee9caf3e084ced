"""The compiled kernels: finds the library for this processor and loads it; without one, PyTorch alone computes.

``python -m whisper.native`` compiles them in place, where no installation did. ``SOTTO_KERNELS`` in the environment
chooses one by name, or none ("off"). What is in them knows `native_runner`; nothing happens at import.
"""

from __future__ import annotations

import ctypes
import functools
import os

from . import processes
from .capabilities import machine, processor
from .errors import OptionError
from .kernel_builds import SOURCES, VARIANTS, Variant, build_all, variants_for

ABI = 2  # raise it with every change of a function's parameters, here and in native/kernels.cpp
VARIABLE = "SOTTO_KERNELS"
HOW_TO_BUILD = "python -m whisper.native compiles them"


def load() -> ctypes.CDLL | None:
    """Return the kernels for this processor, loaded once; None where there are none (`why_not`).

    Raises
    ------
    OptionError
        Where ``SOTTO_KERNELS`` asks for kernels that do not exist, are not built or cannot run here.
    """
    return _loaded(os.environ.get(VARIABLE, ""))[0]


def which() -> str | None:
    """Return the name of the kernels that `load` gives."""
    return _loaded(os.environ.get(VARIABLE, ""))[1]


def why_not() -> str | None:
    """Return why there are no kernels, or none better, and what to do about it; None where all is well."""
    return _loaded(os.environ.get(VARIABLE, ""))[2]


@functools.lru_cache(maxsize=8)
def _loaded(choice: str) -> tuple[ctypes.CDLL | None, str | None, str | None]:
    if choice:
        return _chosen(choice)
    reasons = []
    for variant in variants_for(machine()):
        if lacking := variant.needs - processor():
            reasons.append(f"{variant.name}: this processor has no {_listed(lacking)}")
            continue
        library = _open(variant)
        if isinstance(library, ctypes.CDLL):
            return library, variant.name, "; ".join(r for r in reasons if HOW_TO_BUILD in r) or None
        reasons.append(f"{variant.name}: {library}")
    return None, None, "; ".join(reasons) or f"there are none for {machine()}"


def _chosen(choice: str) -> tuple[ctypes.CDLL | None, str | None, str | None]:
    if choice == "off":
        return None, None, f"{VARIABLE}=off switches them off"
    variant = next((v for v in VARIANTS if v.name == choice), None)
    if variant is None:
        known = ", ".join(v.name for v in variants_for(machine()))
        raise OptionError(f"{VARIABLE} is {choice!r}; it can be {known or 'nothing here'} or off")
    if variant not in variants_for(machine()) or (lacking := variant.needs - processor()):
        lacks = f"has no {_listed(lacking)}" if variant in variants_for(machine()) else f"is {machine()}"
        raise OptionError(f"{VARIABLE} is {choice!r}, and this processor {lacks}; leave {VARIABLE} away")
    library = _open(variant)
    if isinstance(library, str):
        raise OptionError(f"{VARIABLE} is {choice!r}, and these kernels are not usable: {library}")
    return library, variant.name, None


def _open(variant: Variant) -> ctypes.CDLL | str:
    """Return the library, or what is wrong with it."""
    path = SOURCES / variant.file_name
    if not path.is_file():
        return f"not built; {HOW_TO_BUILD}"
    try:
        library = ctypes.CDLL(str(path))
        library.sotto_abi.restype = ctypes.c_int
        found = int(library.sotto_abi())
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded ({error}); {HOW_TO_BUILD} anew"
    if found != ABI:
        return f"{path} was built from other sources (form {found}, and {ABI} is needed); {HOW_TO_BUILD} anew"
    processes.computes_with(library)
    return library


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def main() -> int:
    """Compile the kernels in place; the exit code is 1 where none came out."""
    built = build_all(SOURCES, machine())
    for path in built:
        print(path)
    return 0 if built else 1
