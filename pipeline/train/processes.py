"""The processes that train one model together: a single one, or those started by `accelerate launch`."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stillwave.pipeline.config.packages import needed
from stillwave.pipeline.runs.inference import autocast

T = TypeVar("T")


class Processes:
    """A single process. `rank` is its number out of `count`; only the `main` one writes files."""

    rank, count = 0, 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def autocast(self, device: torch.device, precision: str) -> Any:
        """A context in which `precision` is computed on `device`."""
        return autocast(device, precision)

    def scaler(self, device: torch.device, precision: str) -> torch.amp.GradScaler:
        """Scaler of the loss, for fp16; it does nothing otherwise."""
        return torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum each gradient over all processes; one that is missing in all stays missing."""

    def sum_of(self, values: Tensor) -> Tensor:
        """The sum of these tensors over all processes."""
        return values

    def from_main(self, function: Callable[[], T]) -> T:
        """The main process's result of `function`, which only it calls."""
        return function()

    def wait(self) -> None:
        """Wait until all processes are here."""


class Launched(Processes):
    """One of the processes of `accelerate launch`.

    Every process has the whole model and a part of each batch; gradients are summed over processes. A single
    process is a group of one.
    """

    def __init__(self, precision: str, device: str = "auto") -> None:
        with needed("finetune", "accelerate"):
            from accelerate import Accelerator
            from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()  # otherwise it would refuse a second precision in one process
        cpu = device == "cpu" or not torch.cuda.is_available()
        mixed = "no" if precision == "fp32" else precision
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=cpu)
        self.rank, self.count = self.accelerator.process_index, self.accelerator.num_processes

    def device(self, wanted: str) -> str:
        """The device of this process: `wanted`, or its own GPU if several processes use GPUs."""
        return str(self.accelerator.device) if self.count > 1 and wanted in ("auto", "cuda") else wanted

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        if self.count == 1:
            return
        given = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        there = self.sum_of(
            torch.tensor([float(p.grad is not None) for p in parameters], device=given[0].device)
        )
        summed = self.sum_of(torch.cat([gradient.flatten() for gradient in given]))
        parts = summed.split([gradient.numel() for gradient in given])
        for parameter, part, count in zip(parameters, parts, there.tolist(), strict=True):
            parameter.grad = part.view_as(parameter) if count else None

    def sum_of(self, values: Tensor) -> Tensor:
        if self.count == 1:
            return values
        summed: Tensor = self.accelerator.reduce(values, reduction="sum")
        return summed

    def from_main(self, function: Callable[[], T]) -> T:
        if self.count == 1:
            return function()
        from accelerate.utils import broadcast_object_list

        held: list[Any] = [function() if self.main else None]
        found: T = broadcast_object_list(held)[0]
        return found

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()


def is_launched() -> bool:
    """Whether a launcher has started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
