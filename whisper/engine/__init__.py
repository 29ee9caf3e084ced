"""Many requests on one runner, as one batch that changes with every step."""

from .engine import Engine as Engine
from .engine import busy_seconds as busy_seconds
from .engine import configure as configure
from .priorities import Priority as Priority
from .priorities import claiming as claiming
