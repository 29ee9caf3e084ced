"""The models of the server: names, aliases, loading once, and unloading when nobody uses them."""

import gc
import threading
import weakref

import pytest

from whisper.server.errors import RequestError
from whisper.server.metrics import Metrics
from whisper.server.models import OPENAI_NAMES, Models

from ..models import random_model
from .serving import load_nano


def test_names() -> None:
    models = Models(["base", "nano"], load_nano, Metrics(), aliases={"mine": "nano"})
    assert models.resolve("base") == "base"
    assert models.resolve("mine") == "nano"
    assert all(models.resolve(name) == "base" for name in OPENAI_NAMES)
    with pytest.raises(RequestError, match="did you mean 'base'") as error:
        models.resolve("bass")
    assert (error.value.status, error.value.code) == (404, "model_not_found")
    with pytest.raises(RequestError):
        Models(["base"], load_nano, Metrics(), strict=True).resolve("whisper-1")
    with pytest.raises(RequestError, match="not served"):
        Models(["base"], load_nano, Metrics(), aliases={"mine": "nano"})


def test_a_name_of_the_network_is_never_loaded() -> None:
    loaded: list[str] = []
    models = Models(["nano"], lambda name: loaded.append(name) or load_nano(name), Metrics())  # type: ignore[func-returns-value]
    for name in ("openai/whisper-tiny", "/etc/passwd", "tiny"):
        with pytest.raises(RequestError):
            models.resolve(name)
    assert loaded == []


def test_a_model_is_loaded_once_by_many_threads() -> None:
    loaded: list[str] = []
    models = Models(["nano"], lambda name: loaded.append(name) or load_nano(name), Metrics())  # type: ignore[func-returns-value]

    def use() -> None:
        with models.use("nano"):
            pass

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == ["nano"]


def test_idle_models_are_freed_and_come_back() -> None:
    metrics = Metrics()
    alive: list[weakref.ref[object]] = []

    def load(name: str) -> object:
        model = random_model(0, n_state=16, n_audio_layer=1, n_text_layer=1)
        alive.append(weakref.ref(model))
        return model

    models = Models(["a"], load, metrics)  # type: ignore[arg-type]
    with models.use("a"):
        assert models.unload_idle(0) == []  # somebody uses it
    assert models.unload_idle(3600) == []
    assert metrics.registry.get_sample_value("sotto_model_loaded", {"model": "a"}) == 1
    assert models.unload_idle(0) == ["a"]
    gc.collect()
    assert (models.loaded, alive[0]()) == ([], None)
    assert metrics.registry.get_sample_value("sotto_model_loaded", {"model": "a"}) == 0
    with models.use("a") as model:
        assert model is alive[1]()
