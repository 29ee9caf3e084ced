"""Arguments of an application, as texts and as values, to settings."""

from typing import Any

import pytest

from whisper.errors import OptionError
from whisper.server.cluster.settings import ClusterOptions, read


def test_texts_and_values_mean_the_same() -> None:
    texts = read({"model": "nano,base", "replicas": "3", "gpus": "0.5", "no_auth": "True", "alias": "a=base"})
    values = read({"model": ["nano", "base"], "replicas": 3, "gpus": 0.5, "no_auth": True, "alias": ["a=base"]})
    assert texts == values
    cluster, options = texts
    assert (cluster.names, cluster.replicas, cluster.gpus, cluster.cpus) == (["nano", "base"], 3, 0.5, 1)
    assert (options.no_auth, options.aliases(), options.page) == (True, {"a": "base"}, False)
    assert options.hosts == ("*",)


def test_without_arguments_the_defaults_hold() -> None:
    assert read({})[0] == ClusterOptions()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicas": 0}, "replicas"),
        ({"replicas": "two"}, "replicas"),
        ({"replica": 2}, "unrecognized arguments: replica=2"),
        ({"data_dir": "/jobs"}, "unrecognized"),  # what one machine keeps
        ({"port": 80}, "unrecognized"),
        ({"unload_after_s": 3}, "unrecognized"),
        ({"model": []}, "model"),
        ({"model": "nano", "alias": "a=base"}, "not among the models"),
        ({"compute_type": "int3"}, "compute_type"),
    ],
)
def test_what_is_wrong_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read(arguments)
