"""CTranslate2's files of published models read without torch, as `StoredArrays`.

Takes the exact ones alone, in float16 or float32, and only by the name of their model, from which dimensions and
alignment heads are known. Whatever else a file is, `reader` reads it or says what is wrong.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np

from ....errors import CheckpointError
from ....network.dimensions import ModelDimensions, expected_shapes
from ...finding.stored import Parts, Variable, ctranslate2_variables
from ...published import _ALIGNMENT_HEADS
from ...stored_arrays import Place, Source, StoredArrays, heads_of, read_array
from .layout import EMBEDDING, MODEL_FILE, NEWEST_REVISION, NEWEST_VERSION, PROJECTION, SETTINGS, SPEC_NAME, layout

_TYPES = {"float16": np.float16, "float32": np.float32}
_OTHER_WEIGHTS = (".safetensors", ".npz", "pytorch_model.bin")  # which a folder may be read for
_SCALARS = {"int8": "b", "int16": "h", "int32": "i", "float32": "f", "float16": "e"}
_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error, CheckpointError)


def read(source: Source, dims: ModelDimensions) -> StoredArrays | None:
    """Read where the tensors of a published model lie; None where that is not plain.

    Parameters
    ----------
    source
        The file, perhaps in parts, or its folder.
    dims
        Of the model that is meant by the name of the source.
    """
    try:
        with ExitStack() as opened:
            parts = Parts([opened.enter_context(open(path, "rb")) for path in source.files])
            version = int.from_bytes(parts.take(4), "little")
            is_known = 3 <= version <= NEWEST_VERSION and parts.string() == SPEC_NAME
            if not is_known or parts.number("I") > NEWEST_REVISION:
                return None
            variables, aliases = ctranslate2_variables(parts, version)
            settings = {name: _scalar(parts, found) for name, found in variables.items() if not found.shape}
        if not (_are_published(settings, dims) and _fits_its_folder(source, dims)):
            return None
        places = _places(source, {name: found for name, found in variables.items() if found.shape}, aliases, dims)
        return StoredArrays(source, dims, heads_of(_ALIGNMENT_HEADS[source.name], dims), places)
    except _ERRORS:
        return None


def _scalar(parts: Parts, variable: Variable) -> float:
    parts.position = variable.offset
    return float(struct.unpack("<" + _SCALARS[variable.type], parts.take(variable.n_bytes))[0])


def _are_published(settings: Mapping[str, float], dims: ModelDimensions) -> bool:
    n_heads = {"encoder/num_heads": dims.n_audio_head, "decoder/num_heads": dims.n_text_head}
    return all(settings.get(name, allowed[0]) in allowed for name, allowed in SETTINGS.items()) and all(
        settings[name] == n for name, n in n_heads.items()
    )


def _fits_its_folder(source: Source, dims: ModelDimensions) -> bool:
    """Whether what `reader` looks at beside a ``model.bin`` belongs to it."""
    folder, name = os.path.split(source.files[0])
    config = os.path.join(folder, "config.json")
    if name != MODEL_FILE:
        return True
    if any(other.endswith(_OTHER_WEIGHTS) for other in os.listdir(folder)):
        return False
    if os.path.isfile(config):
        with open(config, encoding="utf-8") as file:
            if json.load(file).get("quantization_type"):
                return False
    for name in ("vocabulary.json", "vocabulary.txt"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, encoding="utf-8", newline="\n") as file:
                return len(json.load(file) if name.endswith(".json") else list(file)) == dims.n_vocab
    return True


def _places(
    source: Source, variables: Mapping[str, Variable], aliases: Mapping[str, str], dims: ModelDimensions
) -> dict[str, Place]:
    """Return where our tensors lie, each in the variable in which it is stacked with others."""
    expected, shapes = layout(dims.n_audio_layer, dims.n_text_layer), expected_shapes(dims)
    if variables.keys() != expected.keys() or any(pair != (PROJECTION, EMBEDDING) for pair in aliases.items()):
        raise ValueError("other variables")
    places = {}
    for name, parts in expected.items():
        variable = variables[name]
        dtype = _TYPES[variable.type]
        shape = next(shapes[ours] for ours in parts if ours is not None)  # equal for all parts
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        is_whole = variable.n_bytes == n_bytes * len(parts)
        if not is_whole or variable.shape != (shape[0] * len(parts), *shape[1:]):
            raise ValueError("other shapes")
        for i, ours in enumerate(parts):
            place = Place(variable.offset + i * n_bytes, dtype, shape)
            if ours is not None:
                places[ours] = place
            elif read_array(source.files, place).any():
                raise ValueError("a bias of keys")
    if places.keys() != shapes.keys():
        raise ValueError("other tensors")
    return places
