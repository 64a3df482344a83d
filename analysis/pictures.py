"""Figures for a column (3.5 in) or a page (7 in): 8 pt text, legends outside the data, no pyplot.

The same data give the same bytes, as PNG and as SVG. Names are drawn literally: `$` starts no formula.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray

from stillwave.analysis.names import distinct, natural, shortened
from stillwave.pipeline.evaluate.fonts import fonts, lettered
from stillwave.pipeline.evaluate.plots import PALETTE

MARKERS = "o^Pd"  # seven classes each; small markers of one colour must be distinguishable
MOST = len(PALETTE) * len(MARKERS)  # categories with their own look
PALE, OTHER = "#BBBBBB", "#808080"  # rows without a value, and rows of further categories
NARROW, WIDE = 3.5, 7.0  # inches
MANY = 5000  # with more points, an SVG holds them as pixels
TITLES = {"pca": "PC", "tsne": "t-SNE", "umap": "UMAP"}
COLOURS = ("label", "speaker", "language", "predicted", "entropy")
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "svg.hashsalt": "stillwave",
}


def by_category(
    xy: NDArray[Any],
    values: Sequence[Any],
    name: str,
    axes_names: tuple[str, str],
    looks_of: Sequence[str] | None = None,
) -> Figure:
    """Points (rows, 2) coloured by `values`, where None is grey and underneath; `name` heads the legend.

    looks_of: at most MOST categories with their own colour and marker, by their position here, whether they
    occur or not: the same categories look the same in two pictures. Default: `foremost`. All others are one,
    "n others".
    """
    counts = Counter(str(value) for value in values if not pd.isna(value))
    kept = list(looks_of) if looks_of is not None else foremost(values)
    place = {key: number for number, key in enumerate(kept)}
    others, missing = len(kept), len(kept) + 1
    numbers = np.array([missing if pd.isna(v) else place.get(str(v), others) for v in values], dtype=np.int64)
    looks = [(PALETTE[i % len(PALETTE)], MARKERS[i // len(PALETTE)]) for i in range(len(kept))]
    looks += [(OTHER, "s"), (PALE, "o")]
    names = [*kept, f"{len(counts.keys() - place.keys())} others", "(none)"]
    shown = [number for number in range(len(names)) if (numbers == number).any()]
    with styled():
        handles = [
            Line2D([], [], linestyle="", marker=looks[i][1], markersize=4.5, color=looks[i][0]) for i in shown
        ]
        figure, axes = _square(handles, distinct([names[i] for i in shown]), name)
        colours = np.array([colour for colour, _ in looks])[numbers]
        markers = np.array([marker for _, marker in looks])[numbers]
        drawn = [((numbers < others) & (markers == marker), marker) for marker in MARKERS]
        for here, marker in [(numbers == missing, "o"), (numbers == others, "s"), *drawn]:
            _points(axes, xy[here], colours[here], marker, len(xy))
        _frame(axes, xy, axes_names)
    return figure


def foremost(values: Iterable[Any]) -> list[str]:
    """The MOST most frequent categories, in natural order."""
    counts = Counter(str(value) for value in values if not pd.isna(value))
    # By frequency, then by name: the choice must not depend on the order of the rows.
    return sorted(sorted(counts, key=lambda key: (-counts[key], key))[:MOST], key=natural)


def by_value(xy: NDArray[Any], values: NDArray[Any], name: str, axes_names: tuple[str, str]) -> Figure:
    """Points (rows, 2) coloured by numbers, where NaN is grey and underneath, with a colour bar."""
    with styled():
        figure = Figure(figsize=(NARROW, 2.95))
        axes = figure.add_axes((0.2 / NARROW, 0.2 / 2.95, 2.65 / NARROW, 2.65 / 2.95))
        there = np.isfinite(values)
        _points(axes, xy[~there], np.full((~there).sum(), PALE), "o", len(xy))
        points = _points(axes, xy[there], values[there], "o", len(xy), cmap="cividis")
        bar_axes = figure.add_axes((2.95 / NARROW, 0.2 / 2.95, 0.1 / NARROW, 2.65 / 2.95))
        bar = figure.colorbar(points, cax=bar_axes)
        bar.solids.set_alpha(1)  # type: ignore[union-attr]
        bar.outline.set_linewidth(0.6)
        bar.set_label(shortened(name))
        _frame(axes, xy, axes_names)
    return figure


@contextmanager
def styled() -> Iterator[None]:
    """The style of all figures, for making and saving them."""
    with mpl.rc_context(STYLE), lettered():
        yield


def save(figure: Figure, stem: Path) -> set[str]:
    """`stem`.png at 200 dots per inch, and `stem`.svg. Returns the letters that no installed font has."""
    with styled():
        figure.savefig(stem.with_suffix(".png"), dpi=200, metadata={"Software": None})
        figure.savefig(stem.with_suffix(".svg"), dpi=200, metadata={"Date": None, "Creator": None})
    letters = {letter for text in figure.findobj(Text) for letter in text.get_text()}
    there = [get_font(findfont(name)) for name in fonts()]
    return {x for x in letters if not x.isspace() and not any(font.get_char_index(ord(x)) for font in there)}


def draw(table: pd.DataFrame, label: str | None, projected: dict[str, Any], out: Path) -> set[str]:
    """A picture of each projection, coloured by each column with two or more values, as PNG and SVG.

    Returns the letters that no font has.
    """
    undrawn: set[str] = set()
    classes = foremost([*table["label"], *table.get("predicted", ())])
    for name in projected:
        xy = table[[f"{name}_x", f"{name}_y"]].to_numpy()
        axes = (f"{TITLES[name]} 1", f"{TITLES[name]} 2")
        if name == "pca":
            shares = projected["pca"]["explained"]
            axes = (f"PC 1 ({shares[0]:.0%} of variance)", f"PC 2 ({shares[1]:.0%} of variance)")
        for colour in COLOURS:
            if colour not in table or table[colour].nunique() < 2:
                continue
            if colour == "entropy":
                figure = by_value(xy, table[colour].to_numpy(float), colour, axes)
            else:
                heading = label if label and colour == "label" else colour
                looks_of = classes if colour in ("label", "predicted") else None
                figure = by_category(xy, table[colour].tolist(), heading, axes, looks_of)
            undrawn |= save(figure, out / f"{name}_{colour}")
    return undrawn


def _square(handles: list[Line2D], names: list[str], title: str) -> tuple[Figure, Axes]:
    """A figure with square axes on the left and a legend on the right, as wide and high as needed."""
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    # What fits next to a readable plot: in a column, on a page, or on a page in two columns.
    legend, width, side = None, NARROW, 0.0
    for width, columns, least in ((NARROW, 1, 2.0), (WIDE, 1, 4.2), (WIDE, 2, 3.2), (WIDE, 1, 3.2)):
        if legend is not None:
            legend.remove()
        legend = _legend(figure, handles, names, title, columns)
        extent = legend.get_window_extent()
        taken, high = extent.width / figure.dpi, extent.height / figure.dpi
        side = width - taken - 0.35
        if side >= least and high <= max(side, 1.25 * least):
            break
    side = min(side, 4.6)
    height = max(side, high) + 0.3
    width = width if width == NARROW else min(width, side + taken + 0.35)
    figure.set_size_inches(width, height)
    axes.set_position((0.2 / width, (height - side - 0.1) / height, side / width, side / height))
    assert legend is not None
    legend.set_bbox_to_anchor(((0.25 + side) / width, (height - 0.06) / height), figure.transFigure)
    return figure, axes


def _legend(figure: Figure, handles: list[Line2D], names: list[str], title: str, columns: int) -> Legend:
    # Numbers first: a label that starts with _ would be left out.
    legend = figure.legend(
        handles,
        [str(number) for number in range(len(names))],
        title=" ",
        loc="upper left",
        ncols=columns,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handletextpad=0.2,
        labelspacing=0.35,
        columnspacing=1.0,
        alignment="left",
    )
    for text, name in zip([*legend.get_texts(), legend.get_title()], [*names, shortened(title)], strict=True):
        text.set_text(name)
    return legend


def _points(
    axes: Axes, xy: NDArray[Any], colours: NDArray[Any], marker: str, rows: int, cmap: str | None = None
) -> PathCollection:
    """Points in an order that favours no colour; smaller and paler with more rows."""
    order = np.random.default_rng(0).permutation(len(xy))
    return axes.scatter(
        xy[order, 0],
        xy[order, 1],
        s=float(np.clip(8000 / max(rows, 1), 1.5, 14)),
        c=colours[order],
        cmap=cmap,
        marker=marker,
        alpha=float(np.clip(1.1 - 0.15 * np.log10(max(rows, 1)), 0.4, 0.9)),
        linewidths=0,
        rasterized=rows > MANY,
    )


def _frame(axes: Axes, xy: NDArray[Any], names: tuple[str, str]) -> None:
    """Both axes in the same units, around the middle of the points; no ticks, as the units mean nothing."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    middle, half = (low + high) / 2, 0.53 * float((high - low).max()) or 1.0
    axes.set_aspect("equal")
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(names[0], labelpad=2)
    axes.set_ylabel(names[1], labelpad=2)
