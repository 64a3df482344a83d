"""Which device is picked. There is no Mac here: whether Metal is there is made up, and nothing runs on it."""

import pytest
import torch
from torch import nn

from stillwave.heads.cac import CACHead
from stillwave.heads.openmax import OpenMax
from stillwave.pipeline.backbones.device import pick_device, place, to_device


@pytest.mark.parametrize(
    ("cuda", "mps", "found"),
    [(True, True, "cuda"), (False, True, "mps"), (True, False, "cuda"), (False, False, "cpu")],
)
def test_auto_is_cuda_then_mps_then_cpu(
    cuda: bool, mps: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto") == torch.device(found)


def test_a_device_that_is_not_there_says_what_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"'mps' cannot be used \(Apple's Metal.*choose auto, cpu, mps"):
        pick_device("mps")
    with pytest.raises(ValueError, match=r"'tpu9' cannot be used .*choose auto, cpu, mps or a CUDA device"):
        pick_device("tpu9")


def test_mps_by_name_is_taken_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda size, device: None)
    assert pick_device("mps") == torch.device("mps")


class Placed(nn.Module):
    """Parts with buffers of float64, and the types that they have when they are moved."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([CACHead(3), OpenMax(3)])
        self.half = nn.Linear(2, 2).half()

    def to(self, device: torch.device) -> "Placed":  # type: ignore[override]
        self.moved = {name: tensor.dtype for name, tensor in self.state_dict().items()}
        return self


def test_float64_stays_at_home() -> None:
    wide = {"parts.0.anchors", "parts.1.means", "parts.1.shift", "parts.1.shape", "parts.1.scale"}
    for device, dtype in (("cpu", torch.float64), ("cuda", torch.float64), ("mps", torch.float32)):
        moved = place(Placed(), torch.device(device)).moved
        assert {moved[name] for name in wide} == {dtype}
        assert (moved["half.weight"], moved["parts.1.codes"]) == (torch.float16, torch.int64)
    module = nn.Linear(2, 2)
    assert place(module, torch.device("meta")) is module
    assert module.weight.is_meta


def test_to_device_keeps_the_numbers() -> None:
    assert torch.equal(to_device(torch.arange(3), torch.device("cpu")), torch.arange(3))
