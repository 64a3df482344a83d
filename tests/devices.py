"""The devices that a test runs on: the CPU in every run, a GPU where there is one."""

import pytest
import torch

_GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
)
on_each_device = pytest.mark.parametrize("device", ["cpu", _GPU])
on_a_gpu = pytest.mark.parametrize("device", [_GPU])
