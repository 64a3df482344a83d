"""The pictures of a report. Figures are made without pyplot, so nothing global is kept or shown."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

BLUE, GREY = "#0072B2", "#666666"  # Okabe & Ito's colour-blind-safe palette


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
