"""What a report page is made of: tables, notes, and figures as SVG in the colours of the page."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from stillwave.pipeline.evaluate.fonts import lettered

# Colours of the figures that turn light where the page is dark; see report_page/report.css.
COLOURS = {
    "#000000": "var(--ink)",
    "#666666": "var(--grey)",
    "#0072b2": "var(--mark)",
    "#56b4e9": "var(--sky)",
}
WIDE = 9.0  # inches that fit on the page; wider figures are scrolled, not shrunk until nobody can read them


@dataclass(frozen=True)
class Table:
    """Rows of text under heads; the first cell of a row is its name. words: cells are words, not numbers."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Picture:
    """An <svg> and what it shows. wide: it is scrolled where the page is narrower."""

    caption: str
    svg: Markup
    wide: bool = False
    kind: str = "picture"


@dataclass(frozen=True)
class Text:
    """A sentence or two; `code` is set as it is, in a box of its own."""

    text: str
    code: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Collapsible:
    """Blocks that are shown when they are asked for."""

    title: str
    blocks: Sequence["Block"]
    kind: str = "fold"


Block = Table | Picture | Text | Collapsible


@dataclass(frozen=True)
class Section:
    """A part of a run's account, with an anchor."""

    title: str
    anchor: str
    blocks: Sequence[Block] = field(default_factory=list)


def picture(figure: Figure, alt: str, caption: str, prefix: str) -> Picture:
    """A figure as inline SVG; `alt` is what it says to those who do not see it.

    The same figure gives the same bytes. prefix: put before its ids, which must be unique on a page.
    """
    buffer = io.StringIO()
    with lettered(), matplotlib.rc_context({"svg.hashsalt": "stillwave"}):
        figure.savefig(buffer, format="svg", transparent=True, dpi=200, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub("|".join(COLOURS), lambda found: COLOURS[found[0]], text)
    label = Markup('<svg role="img" aria-label="{}" ').format(alt)
    svg = Markup(text.replace("<svg ", str(label), 1))  # matplotlib escapes names
    return Picture(caption, svg, figure.get_figwidth() > WIDE)


def number(value: float | None, signed: bool = False) -> str:
    """Three digits; a dash for none, and for NaN."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def interval(bounds: Sequence[float] | None, signed: bool = False) -> str:
    """`low to high`."""
    return "–" if bounds is None else f"{number(bounds[0], signed)} to {number(bounds[1], signed)}"


def p_value(p: float) -> str:
    """As `stillwave compare` prints it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
