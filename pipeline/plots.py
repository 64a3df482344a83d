"""The pictures of a report. Figures are made without pyplot, so nothing global is kept or shown."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

BLUE, GREY = "#0072B2", "#666666"  # Okabe & Ito's colour-blind-safe palette
PALETTE = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")  # seven colours and four dashes: 28 lines before a pair comes again


def confusion_figure(confusion: dict[str, Any]) -> Figure:
    """Share of each actual class as shades, counts as numbers; `confusion` has `classes` and `matrix`."""
    classes, counts = confusion["classes"], np.array(confusion["matrix"])
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.0 + 0.55 * len(classes)
    figure = Figure(figsize=(side + 0.6, side), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        dark = share[row, column] > 0.55
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color="w" if dark else "k")
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="actual")
    figure.colorbar(image, ax=axes, label="share of the actual class", shrink=0.8)
    return figure


def scores_figure(groups: dict[str, Any], overall_uar: float) -> Figure:
    """UAR of each group (speaker, language) as bars with its number of rows; the pooled UAR as a line."""
    names = sorted(groups)
    figure = Figure(figsize=(5.5, 1.2 + 0.28 * len(names)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    values = [groups[name]["uar"] for name in names]
    axes.barh(range(len(names)), values, color=BLUE, height=0.7)
    for position, name in enumerate(names):
        axes.text(1.01, position, f"n={groups[name]['n']}", va="center", color=GREY, fontsize=8)
    axes.axvline(overall_uar, color="k", linestyle="--", linewidth=1, label=f"all rows: {overall_uar:.3f}")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="UAR")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def reliability_figure(reports: dict[str, Any]) -> Figure:
    """Accuracy against confidence per bin, and below it the share of rows in each bin.

    `reports`: name -> what `calibration_report` returns, for example before and after temperature scaling.
    Under the diagonal the classifier is surer than it is right. The area of a point grows with its rows.
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


def open_set_figure(curves: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> Figure:
    """Share of unknown rows detected against share of known rows rejected, a line per score.

    `curves`: name -> (known, unknown), the shares accepted that `open_set_metrics.accepted` gives. The area
    under a line is its AUROC, by which the legend is sorted.
    """
    figure = Figure(figsize=(6.6, 4.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    areas = {name: float(np.trapezoid(known, unknown)) for name, (known, unknown) in curves.items()}
    for name in sorted(curves, key=lambda name: -areas[name]):
        known, unknown = curves[name]
        number = list(curves).index(name)  # not the rank: a score keeps its colour from run to run
        colour, dash = PALETTE[number % len(PALETTE)], DASHES[number % len(DASHES)]
        axes.plot(1 - known, 1 - unknown, color=colour, linestyle=dash, label=f"{name}: {areas[name]:.3f}")
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.6, label="chance: 0.500")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="known rows rejected", ylabel="unknown rows detected")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, title="AUROC", alignment="left")
    return figure
