"""Which models may run on a fast path, and on which runner: asked by all that computes.

A model that consists of packed weights alone has its runner; of all others `select` knows it, and imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .packed_model import PackedModel

if TYPE_CHECKING:
    from ..model import Whisper
    from .interface import Runner


def usable(model: Whisper | PackedModel) -> bool:
    """Whether `model` may run on a fast path; see `select.usable`."""
    if isinstance(model, PackedModel):
        return True
    from . import select

    return select.usable(model)


def runner_for(model: Whisper | PackedModel, fp16: bool) -> Runner:
    """Return the runner of a model that is `usable`; see `select.runner_for`."""
    if isinstance(model, PackedModel):
        return model.runner if fp16 else model.exact_runner()
    from . import select

    return select.runner_for(model, fp16)
