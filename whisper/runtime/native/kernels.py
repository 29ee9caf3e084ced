"""Finds and loads the library of compiled kernels for this processor, and declares its C interface.

Without a library, PyTorch is used. ``python -m whisper.runtime.native`` compiles the kernels in place, where no
installation did. ``SOTTO_KERNELS`` in the environment chooses a library by name, or none ("off").

The structs and functions below mirror ``native/abi.h`` and ``src/kernels.cpp``. A library that does not match
them (ABI number, sizes of the structs, a missing function) is refused when it is loaded. Nothing happens at import.
"""

from __future__ import annotations

import ctypes
import functools
import os

from ...device import processes
from ...device.hardware import machine, processor
from ...errors import OptionError
from .build import SOURCES, VARIANTS, Variant, build_all, variants_for

ABI = 8  # raise it with every change of a function or a struct, here and in src/kernels.cpp
VARIABLE = "SOTTO_KERNELS"
HOW_TO_BUILD = "python -m whisper.runtime.native compiles them"

_int, _size, _pointer = ctypes.c_int32, ctypes.c_size_t, ctypes.c_void_p


def _fields(kind: type, names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class EncoderDims(ctypes.Structure):
    """Shape of an encoder."""

    _fields_ = _fields(_int, "n_mels n_ctx n_state n_head n_layer dtype padding_stride")


class DecoderDims(ctypes.Structure):
    """Shape of a decoder."""

    _fields_ = _fields(_int, "n_vocab n_ctx n_state n_head n_layer n_audio_ctx dtype padding_stride")


class Batch(ctypes.Structure):
    """One call of the decoder; shapes and dtypes stand in ``native/abi.h``."""

    _fields_ = [
        *_fields(_int, "n_items n_logits n_threads n_heads qk_stride"),
        *_fields(_pointer, "tokens rows positions row_table kv_rows cross_kv n_positions"),
        *_fields(_pointer, "logit_indices logits heads qk"),
    ]


class TokenSelection(ctypes.Structure):
    """One call of the token selection; shapes and dtypes stand in ``native/abi.h``."""

    _fields_ = [
        *_fields(_int, "n_rows n_vocab n_best n_threads timestamp_begin"),
        *_fields(_pointer, "logits suppressed n_suppressed suppressed_by"),
        *_fields(_pointer, "text_from timestamps_from timestamps_to timestamp_mass ids logprobs"),
    ]


STRUCTS: tuple[type[ctypes.Structure], ...] = (EncoderDims, DecoderDims, Batch, TokenSelection)

# result and parameters of every function; a status is 0, 1 where memory ran out, or as kernels.cpp says
_status = _int
FUNCTIONS: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "sotto_abi": (_int, ()),
    "sotto_struct_size": (_size, (ctypes.c_char_p,)),
    "sotto_prepare": (_status, ()),
    "sotto_unquantized_dtype": (_int, (_int,)),
    "sotto_sensitive_dtype": (_int, (_int,)),
    # weights
    "sotto_arena_new": (_pointer, ()),
    "sotto_arena_free": (None, (_pointer,)),
    "sotto_arena_region": (_pointer, (_pointer, _int, ctypes.POINTER(_size))),
    "sotto_linear_new": (_pointer, (_pointer, _int, _int, _int, _int)),
    "sotto_linear_pack": (None, (_pointer, _int, _int, _pointer, _pointer, _int)),
    # encoder
    "sotto_encoder_new": (_pointer, (ctypes.POINTER(EncoderDims), _pointer, _pointer)),
    "sotto_encoder_free": (None, (_pointer,)),
    "sotto_encode": (_status, (_pointer, _pointer, _pointer, _int, _int)),
    # decoder
    "sotto_decoder_new": (_pointer, (ctypes.POINTER(DecoderDims), _pointer, _pointer)),
    "sotto_decoder_free": (None, (_pointer,)),
    "sotto_kv_row_bytes": (_size, (_pointer,)),
    "sotto_cross_kv_bytes": (_size, (_pointer, _int)),
    "sotto_project_cross_kv": (_status, (_pointer, _pointer, _int, _pointer, _int)),
    "sotto_forward": (_status, (_pointer, ctypes.POINTER(Batch))),
    # token selection
    "sotto_select_tokens": (None, (ctypes.POINTER(TokenSelection),)),
    "sotto_token_logprobs": (None, (_pointer, _int, _int, _int, _pointer, _pointer, _int)),
    # whether weights have changed
    "sotto_digests": (_status, (_pointer, _pointer, _int, _pointer, _int)),
    # voices
    "sotto_voices_new": (_pointer, (_pointer,)),
    "sotto_voices_free": (None, (_pointer,)),
    "sotto_embed_voices": (_status, (_pointer, _pointer, _pointer, _int, _pointer, _int)),
    # speakers
    "sotto_segmentation_new": (_pointer, (_pointer,)),
    "sotto_segmentation_free": (None, (_pointer,)),
    "sotto_segment": (_status, (_pointer, _pointer, _pointer, _int, _int, _pointer, _int)),
    # word times
    "sotto_median_filter": (_status, (_pointer, _pointer, _int, _int, _int)),
    "sotto_normalize_attention": (
        _status,
        (_pointer, _int, _int, _int, _int, ctypes.c_float, _pointer, _pointer, _int),
    ),
    "sotto_dtw": (_status, (_pointer, _int, _int, _pointer, _pointer, ctypes.POINTER(_int))),
}


def load() -> ctypes.CDLL | None:
    """Return the kernels for this processor, loaded once; None where there are none (`why_not`).

    Raises
    ------
    OptionError
        Where ``SOTTO_KERNELS`` names kernels that do not exist, are not built or cannot run here.
    """
    return _loaded(os.environ.get(VARIABLE, ""))[0]


def which() -> str | None:
    """Return the name of the library that `load` returns."""
    return _loaded(os.environ.get(VARIABLE, ""))[1]


def why_not() -> str | None:
    """Return why there are no kernels, or no faster ones, and what to do about it; None if there is no reason."""
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
        raise OptionError(f"{VARIABLE} is {choice!r}, and this processor {lacks}; unset {VARIABLE}")
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
        if (found := int(library.sotto_abi())) != ABI:
            mismatch = f"ABI {found}, and {ABI} is needed"
            return f"{path} was built from other sources ({mismatch}); {HOW_TO_BUILD} anew"
        _declare(library)
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded ({error}); {HOW_TO_BUILD} anew"
    if mismatch := _size_mismatch(library):
        return f"{path} was built from other sources ({mismatch}); {HOW_TO_BUILD} anew"
    if library.sotto_prepare():
        return "the system does not let this process use its instructions"
    processes.computes_with(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Give every function its result and parameters; an AttributeError where one is missing."""
    for name, (result, parameters) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, parameters


def _size_mismatch(library: ctypes.CDLL) -> str:
    """Return which struct has another size in the library, or nothing."""
    for struct in STRUCTS:
        found, needed = library.sotto_struct_size(struct.__name__.encode()), ctypes.sizeof(struct)
        if found != needed:
            return f"{struct.__name__} has {found} bytes, and {needed} are needed"
    return ""


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def main() -> int:
    """Compile the kernels in place; the exit code is 1 where none could be built."""
    built = build_all(SOURCES, machine())
    for path in built:
        print(path)
    return 0 if built else 1
