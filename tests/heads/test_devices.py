"""Copies that nobody waits for are made on CUDA alone, and float64 only where it exists."""

import subprocess
from pathlib import Path

import pytest
import torch

from stillwave.heads import devices
from stillwave.heads.cac import CACHead, distances
from stillwave.heads.devices import send, widened, widest

ROOT = Path(__file__).parents[2]


def test_only_apples_gpus_lack_float64() -> None:
    found = [widest(torch.device(name)) for name in ("cpu", "cuda:1", "meta", "mps")]
    assert found == [torch.float64, torch.float64, torch.float64, torch.float32]
    assert widened(torch.ones(2, dtype=torch.float16)).dtype == torch.float64


@pytest.mark.parametrize(("name", "waits"), [("cuda:1", False), ("mps", True), ("cpu", True)])
def test_only_cuda_copies_are_not_waited_for(name: str, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *place, **options: seen.append((*place, options)))
    send(torch.ones(2), torch.device(name))
    assert seen == [(torch.device(name), {"non_blocking": not waits})]


def test_nothing_else_copies_without_waiting() -> None:
    """On mps such a copy may silently be wrong. cache/ imports nothing of ours, and asks `is_cuda`."""
    command = ["git", "grep", "-n", "non_blocking=", "--", "*.py", ":!tests", ":!benchmarks"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) > 2
    others = [line for line in lines if "is_cuda" not in line and not line.startswith("heads/devices.py")]
    assert [line.partition(":")[0] for line in others] == ["pipeline/extract/transfer.py"]  # from CUDA


def test_the_anchor_loss_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
    wide = CACHead(4).loss(logits, labels)
    monkeypatch.setattr(devices, "widest", lambda device: torch.float32)
    head = CACHead(4)
    head.anchors = head.anchors.float()
    assert distances(logits, head.anchors).dtype == torch.float32
    assert head.loss(logits, labels).item() == pytest.approx(wide.item(), rel=1e-5)
