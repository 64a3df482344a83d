"""Figures as SVG for a page, in the colours of the page."""

import io
import re
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from stillwave.pipeline.evaluate.fonts import lettered

# Colours of the figures that become light on a dark page; see report_page/report.css.
COLOURS = {
    "#000000": "var(--ink)",
    "#666666": "var(--grey)",
    "#0072b2": "var(--mark)",
    "#56b4e9": "var(--sky)",
}
WIDE = 9.0  # inches that fit on the page; wider figures scroll instead of shrinking


@dataclass(frozen=True)
class Picture:
    """All of an <svg> after `<svg `, where its template puts a label. wide: wider than the page."""

    svg: Markup
    wide: bool


def picture(figure: Figure, prefix: str) -> Picture:
    """A figure as inline SVG; the same figure gives the same bytes.

    prefix: put before its ids, which must be unique on a page.
    """
    buffer = io.StringIO()
    with lettered(), matplotlib.rc_context({"svg.hashsalt": "stillwave"}):
        figure.savefig(buffer, format="svg", transparent=True, dpi=200, metadata={"Date": None})
    text = buffer.getvalue().partition("<svg ")[2]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub("|".join(COLOURS), lambda found: COLOURS[found[0]], text)
    return Picture(Markup(text), figure.get_figwidth() > WIDE)  # matplotlib escapes names
