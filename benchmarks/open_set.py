"""Open-set scores on scikit-learn's handwritten digits: which one detects digits that were never trained on.

    python benchmarks/open_set.py [--splits 10]

In each split, 6 digits drawn by the split's seed are known and the other 4 unknown. An MLP 64-128-64 learns
70 % of the known digits' images; the scores see the other 30 % (stratified), and all images of the unknown.
It is trained twice: on cross-entropy, and on the anchor loss of `CACHead`. `uncertainty` is a head on its 64
features, trained with it: "error" on detached features, which does not change the network; "correct", the
regulariser with its usual weight of 0.05, in a separate network.

Every setting is the default of its module, and training is the same in all splits and for both losses: no
setting is tuned. But OpenMax's handling of negative logits, and its score not being just the unknown's
probability, were chosen by comparison on these digits: its figure is not blind.

AUROC: the fraction of (known, unknown) pairs in the right order. FPR95: the fraction of unknown rows accepted
when 95 % of the known are. Mean and standard deviation over splits, in percent. Ends with one line of JSON.
"""

import argparse
import json
import time
from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.heads.cac import CACHead
from stillwave.heads.fusion.uncertainty import UncertaintyHead, UncertaintyTarget
from stillwave.heads.open_set import SCORES
from stillwave.pipeline.backbones.weights import random_weights

KNOWN = 6
EPOCHS, BATCH, RATE = 100, 64, 1e-3
UNCERTAINTY_WEIGHT = 0.05
LOSSES = ("cross_entropy", "cac")


class Network(nn.Module):
    """64 pixels -> 128 -> 64 features -> logits, and an uncertainty from the features."""

    def __init__(self, target: UncertaintyTarget) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.output = nn.Linear(64, KNOWN)
        self.uncertainty = UncertaintyHead(64, target=target)

    def forward(self, pixels: Tensor) -> Outputs:
        """(batch, 64) -> the head's outputs."""
        features = self.body(pixels)
        return Outputs(self.output(features), features, self.uncertainty(features)[:, 0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--splits", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    # loss -> name -> one value per split
    figures: dict[str, dict[str, list[float]]] = {loss: defaultdict(list) for loss in LOSSES}
    for split in range(arguments.splits):
        for loss in LOSSES:
            for name, value in run(split, loss).items():
                figures[loss][name].append(100 * value)
    seconds = time.monotonic() - started
    report(figures, seconds)


def run(split: int, loss: str) -> dict[str, float]:
    """Accuracy on known digits, AUROC and FPR95 of every score, for one split and loss; fractions."""
    pixels, digits = load_digits(return_X_y=True)
    known = np.sort(np.random.default_rng(split).permutation(10)[:KNOWN])
    is_known = np.isin(digits, known)
    rows = np.flatnonzero(is_known)
    train, test = train_test_split(rows, test_size=0.3, stratify=digits[rows], random_state=split)
    images = torch.from_numpy(pixels / 16).float()
    labels = torch.from_numpy(np.searchsorted(known, digits))  # of known digits

    def scores_of(scores: Tensor) -> tuple[float, float]:
        """AUROC and FPR95, from scores of all images."""
        inside, outside = scores[test].numpy(), scores[~is_known].numpy()
        return auroc(inside, outside), float((outside <= np.quantile(inside, 0.95)).mean())

    figures: dict[str, float] = {}
    network = fit(images[train], labels[train], split, loss, "error")
    outputs = look(network, images)
    figures["accuracy"] = float((outputs.logits[test].argmax(1) == labels[test]).double().mean())
    training = look(network, images[train])
    for name, score in SCORES.items():
        fitted = score().fit(training, labels[train], network.output)
        key = "uncertainty (error)" if name == "learned_uncertainty" else name
        figures[f"{key} auroc"], figures[f"{key} fpr95"] = scores_of(fitted(outputs))
    regularised = look(fit(images[train], labels[train], split, loss, "correct"), images)
    key = "uncertainty (correct)"
    figures[f"{key} auroc"], figures[f"{key} fpr95"] = scores_of(SCORES["learned_uncertainty"]()(regularised))
    return figures


def fit(images: Tensor, labels: Tensor, seed: int, loss: str, target: UncertaintyTarget) -> Network:
    """A trained network; the seed determines initial weights and the order of rows."""
    network = random_weights(seed, lambda: Network(target))
    criterion = CACHead(KNOWN).loss if loss == "cac" else nn.functional.cross_entropy
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            outputs: Outputs = network(images[batch])
            extra = network.uncertainty.loss(outputs.learned_uncertainty, outputs.logits, labels[batch])
            optimizer.zero_grad()
            (criterion(outputs.logits, labels[batch]) + UNCERTAINTY_WEIGHT * extra).backward()
            optimizer.step()
    return network


@torch.no_grad()
def look(network: Network, images: Tensor) -> Outputs:
    """The outputs of a trained network for (rows, 64)."""
    outputs: Outputs = network(images)
    return outputs


def auroc(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """The fraction of pairs in which the unknown scores higher; ties count half."""
    return float(roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), np.append(inside, outside)))


def report(figures: dict[str, dict[str, list[float]]], seconds: float) -> None:
    """Prints the table, best AUROC first, and the line of JSON."""
    for loss in LOSSES:
        accuracy = figures[loss]["accuracy"]
        print(f"{loss}: {np.mean(accuracy):.1f} ± {np.std(accuracy):.1f} % of the known digits are correct")
    names = [name.removesuffix(" auroc") for name in figures[LOSSES[0]] if name.endswith(" auroc")]
    best = {name: max(float(np.mean(figures[loss][f"{name} auroc"])) for loss in LOSSES) for name in names}
    names.sort(key=lambda name: -best[name])
    columns = [(loss, figure) for loss in LOSSES for figure in ("auroc", "fpr95")]
    width = max(map(len, names))
    print(" " * width + "".join(f"  {f'{loss} {figure}':>20}" for loss, figure in columns))
    for name in names:
        cells = [figures[loss][f"{name} {figure}"] for loss, figure in columns]
        print(f"{name:{width}}" + "".join(f"  {np.mean(cell):13.1f} ± {np.std(cell):4.1f}" for cell in cells))
    means = {
        loss: {
            name: [round(float(np.mean(cell)), 2), round(float(np.std(cell)), 2)] for name, cell in of.items()
        }
        for loss, of in figures.items()
    }
    splits = len(figures[LOSSES[0]]["accuracy"])
    print(json.dumps({"splits": splits, "seconds": round(seconds), "mean_and_std": means}))


if __name__ == "__main__":
    main()
