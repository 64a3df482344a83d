"""The 35-layer classifier: memory and time of checkpointing, and whether gradients reach its first block.

    python benchmarks/deep.py [--rows 8192] [--steps 3] [--epochs 10] [--plot deep.png]

Memory: training steps on a batch of `--rows` vectors, once keeping every activation and once only those of
every fifth block, each in its own process; its peak resident memory minus that before the first step.
Training: scikit-learn's 1,797 digits, 64 pixels through a fixed random projection to 512; ten classes. For
every block: gradient norm of its parameters over their norm, on one batch, before the first epoch and after
the last. Ends with one line of JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from stillwave.heads.fusion.deep import DeepClassifier
from stillwave.pipeline.evaluate.plots import PALETTE
from stillwave.pipeline.extract.memory import flat_memory

BATCH_SIZE, RATE = 64, 1e-3
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)  # checkpoint_every
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(child(arguments.child, arguments.rows, arguments.steps)))
        return
    kept, checkpointed = (in_child(every, arguments.rows, arguments.steps) for every in (0, 5))
    for name, found in {"all kept": kept, "every 5": checkpointed}.items():
        print(f"{name:10} {found['mib']:8.0f} MiB {found['seconds']:8.2f} s a step of {arguments.rows} rows")
    losses, norms = train(arguments.epochs)
    shown = ", ".join(f"{loss:.3f}" for loss in losses[:: max(1, len(losses) // 6)])
    print(f"digits, {arguments.epochs} epochs: loss {shown}, ..., {losses[-1]:.3f}")
    for name, values in norms.items():
        print(f"relative gradient {name}: block 1 {values[0]:.2e}, 18 {values[17]:.2e}, 35 {values[-1]:.2e}")
    if arguments.plot:
        plot(norms, arguments.plot)
    figures = {
        "rows": arguments.rows,
        "mib_all_kept": round(kept["mib"]),
        "mib_checkpointed": round(checkpointed["mib"]),
        "memory_saved": round(1 - checkpointed["mib"] / kept["mib"], 3),
        "time_over_all_kept": round(checkpointed["seconds"] / kept["seconds"], 3),
        "first_loss": round(losses[0], 4),
        "last_loss": round(losses[-1], 4),
        "first_over_last_block_at_start": round(norms["at the start"][0] / norms["at the start"][-1], 3),
        "first_over_last_block_at_end": round(norms["at the end"][0] / norms["at the end"][-1], 3),
    }
    print(json.dumps(figures))


def in_child(checkpoint_every: int, rows: int, steps: int) -> dict[str, float]:
    """Peak memory (MiB) and fastest step (s) of a separate process."""
    options = ["--child", str(checkpoint_every), "--rows", str(rows), "--steps", str(steps)]
    command = [sys.executable, __file__, *options]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(shown.splitlines()[-1])
    return found


def child(checkpoint_every: int, rows: int, steps: int) -> dict[str, float]:
    torch.manual_seed(0)
    model = DeepClassifier(checkpoint_every=checkpoint_every)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    inputs, labels = torch.randn(rows, 512), torch.randint(4, (rows,))
    step(model, optimizer, inputs[:8], labels[:8])  # the optimizer's state and the library's buffers
    before = peak_mib()
    seconds = []
    with flat_memory():  # otherwise freed activations stay in the heap, and count
        for _ in range(steps):
            started = time.perf_counter()
            step(model, optimizer, inputs, labels)
            seconds.append(time.perf_counter() - started)
    return {"mib": peak_mib() - before, "seconds": min(seconds)}


def peak_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor) -> float:
    loss = nn.functional.cross_entropy(model(inputs), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def train(epochs: int) -> tuple[list[float], dict[str, list[float]]]:
    """Mean training loss of every epoch; relative gradient norms per block, at the start and at the end."""
    inputs, labels = digits()
    torch.manual_seed(0)
    model = DeepClassifier(num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    norms = {"at the start": gradient_norms(model, inputs, labels)}
    losses = []
    for _ in range(epochs):
        batches = torch.randperm(len(labels)).split(BATCH_SIZE)
        sums = [step(model, optimizer, inputs[rows], labels[rows]) * len(rows) for rows in batches]
        losses.append(sum(sums) / len(labels))
    norms["at the end"] = gradient_norms(model, inputs, labels)
    return losses, norms


def digits() -> tuple[Tensor, Tensor]:
    """(1797, 512) inputs of unit variance, on average, and their labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = torch.from_numpy(found.data).float()
    pixels = (pixels - pixels.mean(0)) / pixels.std()
    projection = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)) / 8
    return pixels @ projection, torch.from_numpy(found.target).long()


def gradient_norms(model: DeepClassifier, inputs: Tensor, labels: Tensor) -> list[float]:
    """Gradient norm over parameter norm of every block, first to last, on the first 512 rows."""
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(inputs[:512]), labels[:512]).backward()
    norms = []
    for block in model.blocks:
        parameters = list(block.parameters())
        gradient = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norms.append(float(gradient / nn.utils.get_total_norm(parameters)))
    model.zero_grad(set_to_none=True)
    return norms


def plot(norms: dict[str, list[float]], file: Path) -> None:
    """Relative gradient norm against the block's number, on a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), colour in zip(norms.items(), PALETTE, strict=False):
        axes.plot(range(1, len(values) + 1), values, color=colour, marker=".", label=name)
    axes.set(yscale="log", xlabel="block", ylabel="gradient / parameters")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, ncols=2)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
