"""Shapes that follow from dimensions, and where programs find those."""

import pickle

from whisper import model
from whisper.checkpoints.weights import skeleton
from whisper.network.dimensions import ModelDimensions, expected_shapes

from ..runtime.test_fingerprint import DIMS


def test_shapes_are_those_of_the_network() -> None:
    found = {name: tuple(tensor.shape) for name, tensor in skeleton(DIMS).state_dict().items()}
    assert expected_shapes(DIMS) == found


def test_pickles_name_the_module_that_openai_whisper_has() -> None:
    assert model.ModelDimensions is ModelDimensions
    assert b"whisper.model" in pickle.dumps(DIMS)
    assert pickle.loads(pickle.dumps(DIMS)) == DIMS
