"""Figures of a store as a whole: its layers compared, and its dimensions. In the style of pictures.py."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from stillwave.analysis.names import distinct
from stillwave.analysis.pictures import MARKERS, NARROW, styled
from stillwave.pipeline.evaluate.plots import BLUE, GREY, PALETTE


def layers_figure(probes: dict[str, list[dict[str, Any]]]) -> Figure:
    """UAR of a linear probe on each stored layer, with its deviation over the folds; chance as a dotted line.

    probes: target (label, speaker) -> per layer {layer, uar, uar_std, chance}.
    """
    with styled():
        figure = Figure(figsize=(NARROW, 2.6), layout="constrained")
        axes = figure.add_subplot()
        layers = sorted({line["layer"] for lines in probes.values() for line in lines})
        for number, (name, lines) in enumerate(probes.items()):
            colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
            where = [line["layer"] + 0.06 * number for line in lines]  # bars of two lines side by side
            axes.errorbar(
                where,
                [line["uar"] for line in lines],
                [line["uar_std"] for line in lines],
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1,
                elinewidth=0.8,
                label=name,
            )
            axes.axhline(lines[0]["chance"], color=colour, linestyle=":", linewidth=0.8)
        axes.set(xlabel="layer", ylabel="UAR of a linear probe", ylim=(0, 1.02))
        axes.set_xticks(layers[:: max(1, len(layers) // 12)])
        handles, labels = axes.get_legend_handles_labels()
        handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=0.8))
        names = distinct([*labels, "chance"])
        for columns in (3, 1):
            legend = figure.legend(handles, names, loc="outside upper left", ncols=columns, frameon=False)
            wide = legend.get_window_extent().width / figure.dpi + 0.2
            if wide <= NARROW or columns == 1:
                break
            legend.remove()
        figure.set_figwidth(max(NARROW, wide))
    return figure


def dimensions_figure(statistics: pd.DataFrame) -> Figure:
    """The standard deviation of every dimension over the frames, sorted; dead and exploding ones marked.

    statistics: `std` and `flag` ("", "dead" or "exploding") per dimension. A deviation of 0 is drawn at the
    bottom of the logarithmic axis.
    """
    order = np.argsort(-statistics["std"].to_numpy(), kind="stable")
    deviations, flags = statistics["std"].to_numpy()[order], statistics["flag"].to_numpy()[order]
    positive = deviations[deviations > 0]
    foot = float(positive.min()) / 2 if len(positive) else 1e-3
    height, rank = np.maximum(deviations, foot), np.arange(len(order))
    with styled():
        figure = Figure(figsize=(NARROW, 2.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(rank, height, color=BLUE, linewidth=1.2)
        handles, names = [Line2D([], [], color=BLUE, linewidth=1.2)], [f"{len(order)} dimensions"]
        for flag, colour, marker in (("dead", "#000000", "s"), ("exploding", PALETTE[1], "^")):
            here = flags == flag
            handles += axes.plot(
                rank[here], height[here], marker, color=colour, markersize=4, zorder=3, clip_on=False
            )
            names.append(f"{int(here.sum())} {flag}")
        # Few decades need ticks between the powers of ten.
        between = (1.0, 2.0, 5.0) if height.max() < 300 * height.min() else (1.0,)
        axes.set_yscale("log", subs=())
        axes.yaxis.set_major_locator(LogLocator(subs=between))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="dimension, by rank", ylabel="standard deviation of frames")
        axes.margins(x=0.02)
        figure.legend(handles, names, loc="outside upper left", ncols=3, frameon=False, columnspacing=1)
    return figure
