"""The settings of the server on a cluster: what the replicas are, and which settings of the server count there."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from ...device.precision import COMPUTE_TYPES
from ...errors import OptionError
from ...options.flags import add_flags, take
from ...options.types import FINITE, NAMES, TEXT, check_values, facts, number, one_of, option, whole
from ..settings import ACCESS, LIMITS, MODELS, ServeOptions

ACCEPTED = "accepted"  # the type of the first message of an answer: the request has reached a replica
REPLICAS = "replicas on a Ray cluster"
ANY_ADDRESS = "0.0.0.0"  # where Ray listens is not ours to know, so keys are needed


@dataclass(frozen=True)
class ClusterOptions:
    """What each replica on a Ray cluster is.

    Raises
    ------
    OptionError
        A value is wrong.
    """

    model: Sequence[str] = option(
        REPLICAS, ("turbo",), NAMES, "models by name, path or owner/name, with commas; the first is the default"
    )
    replicas: int = option(
        REPLICAS, 1, whole(1, 4096), "processes with the models, among which requests are shared out"
    )
    cpus: float = option(
        REPLICAS, 1, number(0, FINITE), "cores that each replica takes of the cluster, and computes with"
    )
    gpus: float = option(REPLICAS, 0, number(0, FINITE), "GPUs that each takes; half a GPU lets two share one")
    device: str = option(REPLICAS, "auto", TEXT, "where the models run; auto is cuda where the replica has a GPU")
    compute_type: str = option(
        REPLICAS, "auto", one_of(*COMPUTE_TYPES), "precision; auto is the fastest that does well"
    )
    model_dir: str | None = option(REPLICAS, None, TEXT, "folder for downloaded models, on each machine")

    def __post_init__(self) -> None:
        check_values(self)
        if not self.model:
            raise OptionError("model: there is none; name one, such as model=base")

    @property
    def names(self) -> list[str]:
        """Return the models, each once."""
        return list(dict.fromkeys(self.model))


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would end the process for."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(message.replace("--", ""))


def read(arguments: Mapping[str, Any]) -> tuple[ClusterOptions, ServeOptions]:
    """Return the settings that the arguments of an application give.

    Parameters
    ----------
    arguments
        By name: texts, as ``serve run`` passes them, or values of a YAML file.

    Raises
    ------
    OptionError
        A name or a value is wrong.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_flags(parser, ClusterOptions)
    # the rest is about one machine: its address, its folders, and what is kept in its memory
    groups = (ACCESS, LIMITS, MODELS)
    served = [f for f in fields(ServeOptions) if facts(f).group in groups and f.name != "unload_after_s"]
    add_flags(parser, served)
    given = vars(parser.parse_args([f"--{name}={_text(value)}" for name, value in arguments.items()]))
    cluster = take(ClusterOptions, given)
    options = take(ServeOptions, given, host=ANY_ADDRESS, page=False)
    for alias, name in options.aliases().items():
        if name not in cluster.names:
            raise OptionError(f"alias {alias}={name}: {name} is not among the models, {', '.join(cluster.names)}")
    return cluster, options


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
