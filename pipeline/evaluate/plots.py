"""The pictures of a report. Figures are made without pyplot, so nothing global is kept or shown.

Names of classes and speakers are drawn literally: a `$` in them starts no formula.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from stillwave.pipeline.evaluate.fonts import lettered

BLUE, GREY = "#0072B2", "#666666"  # Okabe & Ito's colour-blind-safe palette
PALETTE = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")  # seven colours and four dashes: 28 lines before a pair repeats
INK = "#111111"  # on a shade of the data: unlike other text, which may become light
MOST_BARS = 60  # with names
FEW_CLASSES = 12  # in a confusion matrix whose cells have room for any count
MOST_CELLS = 60  # classes whose counts are written out


@lettered()
def confusion_figure(confusion: dict[str, Any]) -> Figure:
    """Share of each actual class as shades, counts as numbers; `confusion` has `classes` and `matrix`.

    Over FEW_CLASSES cells are smaller, and empty ones have no number; over MOST_CELLS there are shades only.
    """
    classes, counts = confusion["classes"], np.array(confusion["matrix"])
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few, written = len(classes) <= FEW_CLASSES, len(classes) <= MOST_CELLS
    side = 2.0 + (0.55 * len(classes) if few else 0.36 * len(classes) if written else 8.0)
    size = None if few else 7
    figure = Figure(figsize=(side + 0.6, side), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if written:
        for row, column in np.ndindex(*counts.shape):
            if few or counts[row, column]:
                colour = "w" if share[row, column] > 0.55 else INK
                number = str(counts[row, column])
                axes.text(column, row, number, ha="center", va="center", color=colour, fontsize=size)
        axes.set_xticks(
            range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor", fontsize=size
        )
        axes.set_yticks(range(len(classes)), classes, fontsize=size)
    else:
        axes.set(xticks=[], yticks=[])
    of = "" if written else f", {len(classes)} classes"
    axes.set(xlabel=f"predicted{of}", ylabel=f"actual{of}")
    figure.colorbar(image, ax=axes, label="share of the actual class", shrink=0.8)
    return figure


@lettered()
def scores_figure(groups: dict[str, Any], overall_uar: float) -> Figure:
    """UAR of each group (speaker, language) as bars with its number of rows; the pooled UAR as a line.

    More than MOST_BARS groups are ordered by UAR, without their names.
    """
    names, few = sorted(groups), len(groups) <= MOST_BARS
    if not few:
        names.sort(key=lambda name: -groups[name]["uar"])
    height = 1.2 + (0.28 * len(names) if few else 6)
    figure = Figure(figsize=(5.5, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    values = [groups[name]["uar"] for name in names]
    axes.barh(range(len(names)), values, color=BLUE, height=0.7 if few else 1.0)
    axes.axvline(overall_uar, color="k", linestyle="--", linewidth=1, label=f"all rows: {overall_uar:.3f}")
    if few:
        for position, name in enumerate(names):
            axes.text(1.01, position, f"n={groups[name]['n']}", va="center", color=GREY, fontsize=8)
        axes.set_yticks(range(len(names)), names)
    else:
        axes.set_ylabel(f"{len(names)} of them, by UAR")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="UAR")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


@lettered()
def reliability_figure(reports: dict[str, Any]) -> Figure:
    """Accuracy against confidence per bin, and below it the share of rows in each bin.

    `reports`: name -> what `calibration_report` returns, for example before and after temperature scaling.
    Below the diagonal the classifier is overconfident. The area of a point grows with its rows.
    """
    figure = Figure(figsize=(5.0, 5.4 + 0.25 * len(reports)), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot((0, 1), (0, 1), color=GREY, linestyle=":", linewidth=1, label="confidence = accuracy")
    for number, (name, report) in enumerate(reports.items()):
        colour, marker = PALETTE[number % len(PALETTE)], "os^D"[number % 4]
        table = report["reliability"]
        filled = [part for part in table if part["n"]]
        where, right = [part["confidence"] for part in filled], [part["accuracy"] for part in filled]
        sizes = [10 + 240 * part["n"] / report["n"] for part in filled]
        above.plot(where, right, color=colour, linewidth=0.8, zorder=1)
        label = f"{name}: ECE {report['ece']:.3f}"
        above.scatter(where, right, sizes, colour, marker=marker, label=label, clip_on=False, zorder=2)
        edges = [table[0]["low"], *(part["high"] for part in table)]
        below.stairs([part["n"] / report["n"] for part in table], edges, color=colour, linewidth=1.5)
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    legend = above.legend(loc="lower left", bbox_to_anchor=(0, 1.02), frameon=False)
    for points in legend.legend_handles[1:]:
        points.set_sizes([40])
    below.set(ylim=(0, None), xlabel="confidence", ylabel="share of rows")
    return figure


@lettered()
def open_set_figure(curves: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> Figure:
    """Share of unknown rows detected against share of known rows rejected, one line per score.

    `curves`: name -> (known, unknown), the accepted shares from `scores.open_set.accepted`. The area
    under a line is its AUROC, which sorts the legend.
    """
    figure = Figure(figsize=(6.6, 4.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    areas = {name: float(np.trapezoid(known, unknown)) for name, (known, unknown) in curves.items()}
    for name in sorted(curves, key=lambda name: -areas[name]):
        known, unknown = curves[name]
        number = list(curves).index(name)  # not the rank, so that a score has the same colour in every run
        colour, dash = PALETTE[number % len(PALETTE)], DASHES[number % len(DASHES)]
        axes.plot(1 - known, 1 - unknown, color=colour, linestyle=dash, label=f"{name}: {areas[name]:.3f}")
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.6, label="chance: 0.500")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="known rows rejected", ylabel="unknown rows detected")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, title="AUROC", alignment="left")
    return figure


@lettered()
def curves_figure(curves: pd.DataFrame) -> Figure:
    """Loss of training and validation over the epochs, and below it the UAR of the validation rows.

    `curves`: fold, epoch (from 0), and a column per figure, as from `stage.curves`. A thin line is a fold, a
    thick one the mean of all folds as long as all of them train.
    """
    lines = {
        "train_loss": ("training: all losses", BLUE),
        "valid_loss": ("validation: cross-entropy", PALETTE[1]),
    }
    scored = "valid_uar" in curves
    figure = Figure(figsize=(6.0, 4.8 if scored else 3.2), dpi=150, layout="constrained")
    axes = figure.subplots(1 + scored, 1, sharex=True, squeeze=False)[:, 0]
    for column, (label, colour) in lines.items():
        if column in curves:
            _folds(axes[0], curves, column, colour, label)
    axes[0].set_ylabel("loss")
    if scored:
        _folds(axes[1], curves, "valid_uar", PALETTE[1], None)
        axes[1].set(ylim=(0, 1), ylabel="validation UAR")
    axes[-1].set_xlabel("epoch")
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, ncols=2)
    return figure


@lettered()
def losses_figure(curves: pd.DataFrame) -> Figure:
    """Every loss in the sum, unweighted, over the epochs: one panel each, with its own scale.

    `curves`: as for `curves_figure`, with columns loss_<name>. Lines mean the same.
    """
    names = [str(name) for name in curves if str(name).startswith("loss_")]
    wide = min(3, len(names))
    tall = -(-len(names) // wide)
    figure = Figure(figsize=(1.0 + 2.1 * wide, 0.8 + 1.6 * tall), dpi=150, layout="constrained")
    axes = figure.subplots(tall, wide, sharex=True, squeeze=False).ravel()
    for number, name in enumerate(names):
        _folds(axes[number], curves, name, BLUE, None)
        axes[number].set_title(name.removeprefix("loss_").replace("_", " "), loc="left", fontsize=9)
    for number, axis in enumerate(axes):
        axis.set_visible(number < len(names))
        if number + wide >= len(names):
            axis.set_xlabel("epoch")
            axis.tick_params(labelbottom=True)
    return figure


@lettered()
def layer_weights_figure(mixes: dict[str, Any]) -> Figure:
    """Weight of each layer: a bar is the mean of the folds, a point is a fold, in their order from the left.

    `mixes`: name -> layers (their numbers), mean, folds (fold -> weights), as in metrics.json; a panel each.
    """
    figure = Figure(figsize=(5.5, 0.6 + 2.2 * len(mixes)), dpi=150, layout="constrained")
    panels = figure.subplots(len(mixes), squeeze=False)[:, 0]
    for axes, (name, mix) in zip(panels, mixes.items(), strict=True):
        count, folds = len(mix["layers"]), np.array([*mix["folds"].values()])
        places = np.arange(count)
        bars = axes.bar(places, mix["mean"], color=BLUE, width=0.7)
        equal = axes.axhline(1 / count, color="k", linestyle=":", linewidth=1.2)
        handles: list[Any] = [bars, equal]
        several = len(folds) > 1
        names = [f"mean of {len(folds)} folds" if several else "learned", f"all equal: {1 / count:.3f}"]
        if several:
            beside = np.linspace(-0.25, 0.25, len(folds))[:, None]
            handles += axes.plot((places + beside).ravel(), folds.ravel(), "o", color="k", markersize=3)
            names.append("a fold")
        shown = slice(None, None, -(-count // 16))
        axes.set_xticks(places[shown], mix["layers"][shown])
        of = f" ({name})" if "." in name and not name.endswith(".frames") else ""  # one of several parts
        axes.set(ylim=(0, None), xlabel=f"layer{of}", ylabel="weight")
        axes.legend(handles, names, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, ncols=3)
    return figure


def _folds(axes: Axes, curves: pd.DataFrame, column: str, colour: str, label: str | None) -> None:
    table = curves.pivot(index="epoch", columns="fold", values=column)
    table.index += 1  # epochs done
    marker = "o" if len(table) == 1 else None  # a line of one point is invisible
    if table.shape[1] > 1:
        axes.plot(table, color=colour, linewidth=0.7, alpha=0.45, marker=marker, markersize=3)
    mean = table.dropna().mean(axis=1)
    axes.plot(mean, color=colour, linewidth=2, marker=marker, markersize=5, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
