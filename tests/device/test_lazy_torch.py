"""Torch that is imported at its first use, and threads with it or without."""

import numpy as np
import pytest
import torch

from whisper.device import lazy_torch

from ..conftest import run_python


def test_torch_comes_at_its_first_use_with_the_threads_that_were_chosen() -> None:
    code = (
        "import sys\n"
        "from whisper.device.lazy_torch import Tensor, functional, is_here, n_threads, nn, set_n_threads, torch\n"
        "import numpy\n"
        "print(isinstance(numpy.zeros(1), Tensor), is_here(), n_threads())\n"
        "set_n_threads(3)\n"
        "print(n_threads(), is_here())\n"
        "x = torch.zeros(2, dtype=torch.float32, device='cpu')\n"
        "print(isinstance(x, Tensor), is_here(), n_threads(), torch.get_num_threads())\n"
        "print(functional.relu is sys.modules['torch'].nn.functional.relu, nn.Linear.__name__)"
    )
    prefix = "import os, sys; os.environ['OMP_NUM_THREADS'] = '2'; sys.argv = ['whisper']\n"  # as the command starts
    assert run_python(prefix + code).splitlines() == ["False False 2", "3 False", "True True 3 3", "True Linear"]


@pytest.mark.parametrize("text", ["", "0", "many", "-1"])
def test_without_a_number_of_threads_there_is_one_for_each_core(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setattr(lazy_torch, "is_here", lambda: False)
    monkeypatch.setattr(lazy_torch, "physical_cores", lambda: 7)
    assert lazy_torch.n_threads() == 7


def test_arrays_and_tensors_are_copied_and_shared() -> None:
    array = np.zeros(3, np.float32)
    shared, copy = lazy_torch.as_tensor(array), lazy_torch.copied(array)
    shared[0] = 1
    assert array[0] == 1
    assert copy[0] == 0
    assert lazy_torch.as_tensor(shared) is shared
    tensor = lazy_torch.copied(shared)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.data_ptr() != shared.data_ptr()
