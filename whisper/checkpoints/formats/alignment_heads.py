"""Alignment heads for files that do not name them: those of the published model that has the same dimensions."""

from __future__ import annotations

import re
import warnings

from torch import Tensor

from ...model import ModelDimensions
from ..published import _ALIGNMENT_HEADS, published_with
from ..weights import parse_alignment_heads


def published_heads(dims: ModelDimensions, source: str) -> Tensor | None:
    """Return the alignment heads of the published model of these dimensions, as booleans; None where there is none.

    large-v1 and large-v2 have equal dimensions and different heads: there the path decides, which as a rule names the
    version. Where it does not, a warning says so.

    Parameters
    ----------
    dims
        The dimensions of the checkpoint.
    source
        Its path.
    """
    names = published_with(dims)
    if len(names) > 1:
        found = re.findall(r"large[-_.]?(v[12])", source.lower())
        names = tuple(name for name in names if found and name.endswith(found[-1]))
        if not names:
            warnings.warn(
                f"{source} can be large-v1 or large-v2, and does not say which cross-attention heads follow the audio; "
                "word times use the upper layers",
                stacklevel=4,
            )
    return parse_alignment_heads(_ALIGNMENT_HEADS[names[0]], dims, source) if names else None
