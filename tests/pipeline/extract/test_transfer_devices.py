"""Batches to each device and back."""

import numpy as np
import pytest
import torch

from stillwave.pipeline.backbones import Frames
from stillwave.pipeline.extract.transfer import Transfer
from tests.devices import on_each_device


@on_each_device
@pytest.mark.parametrize("trailing", [(), (2,)])
def test_items_arrive_zero_padded_and_their_lengths_stay(device: str, trailing: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    items = [rng.standard_normal((n, *trailing)).astype(np.float32) for n in (3, 7, 1)]
    transfer = Transfer(torch.device(device), torch.float16)
    for _ in range(3):  # pinned blocks are used again, and what was in them must not show
        with transfer.stream():
            values, lengths = transfer.send(items)
            back = values.cpu().numpy()
        assert (values.device.type, lengths.device.type) == (device, "cpu")
        assert lengths.tolist() == [3, 7, 1]
        for row, item in zip(back, items, strict=True):
            np.testing.assert_array_equal(row[: len(item)], item)
            assert not row[len(item) :].any()


@on_each_device
def test_tokens_stay_whole_numbers(device: str) -> None:
    transfer = Transfer(torch.device(device), torch.float16)
    values, _ = transfer.send([np.array([5, 2**40]), np.array([7])])
    assert values.dtype == torch.int64
    assert values.tolist() == [[5, 2**40], [7, 0]]


@on_each_device
@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
@pytest.mark.parametrize("worst", [1.0, 1e6, float("nan"), float("inf")])
def test_frames_come_back_with_what_the_stored_type_cannot_hold(
    device: str, stored: torch.dtype, worst: float
) -> None:
    frames = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    frames[1, 4, 2] = worst
    transfer = Transfer(torch.device(device), stored)
    with transfer.stream():
        there = Frames(frames.to(device), torch.tensor([5, 4]).to(device))
        found, lengths = transfer.fetch(there)
    assert lengths == [5, 4]
    exact = device == "cpu" or stored == torch.float32 or worst == 1e6
    assert found.dtype == (np.float32 if exact else np.float16)
    np.testing.assert_array_equal(found, frames.numpy().astype(found.dtype))
