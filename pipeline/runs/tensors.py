"""Training state on disk: tensors as safetensors, the rest as JSON, replaced in one step."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
    """Write tensors, and JSON-ready metadata in the same file's header, atomically."""
    temporary = path.with_name(f"{path.name}.partial")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, temporary, metadata={"json": json.dumps(metadata or {})})
    temporary.replace(path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load what save_tensors wrote. Raises ValueError naming the file if it is not such a file."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _facts(file)  # noqa: SIM118


def load_facts(path: Path) -> dict[str, Any]:
    """Only the metadata of what save_tensors wrote. Raises ValueError like `load_tensors`."""
    with _opened(path) as file:
        return _facts(file)


def load_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that save_tensors wrote, from the header. Raises like `load_tensors`."""
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; train the run again") from None
    except Exception as error:  # safetensors raises its own error type, which it does not export
        raise ValueError(f"{path}: not a readable safetensors file ({error}); train the run again") from None


def _facts(file: Any) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((file.metadata() or {}).get("json", "{}"))
    return facts


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model that training may change: all but its `frozen_names`, if it has any."""
    frozen: frozenset[str] = getattr(model, "frozen_names", frozenset())
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def load_state(model: nn.Module, state: dict[str, Tensor], source: Path | str = "") -> None:
    """Restore a `state_of` of such a model. Raises ValueError naming `source` if it is from another model."""
    try:
        missing, _ = model.load_state_dict(state, strict=False)
        there = model.state_dict().keys()
        others = sorted((set(missing) - getattr(model, "frozen_names", frozenset())) | (state.keys() - there))
        reason = f"tensors {others[:3]}" if others else ""
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()[:200]
    if reason:
        raise ValueError(f"{source}: the weights belong to another head ({reason}...); train the run again")


def training_state(
    head: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Weights, their moving average and the optimizer's moments, under prefixed names."""
    state = {f"head.{name}": tensor for name, tensor in state_of(head).items()}
    state |= {f"average.{name}": tensor for name, tensor in average.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    return state


def restore_training(
    state: dict[str, Tensor], head: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Restore a training_state in `head` and `optimizer`; returns the moving average, on their device."""
    load_state(head, tensors_under("head.", state))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors_under("optimizer.", state).items():
        number, _, key = name.partition(".")
        moments.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    device = next(head.parameters()).device
    return {name: tensor.to(device) for name, tensor in tensors_under("average.", state).items()}


def tensors_under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
