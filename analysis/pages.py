"""What pages made of report_page/'s layout and macros share: they are self-contained and run no scripts."""

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

SHARED = Path(__file__).parent / "report_page"


def environment(*folders: Path, **filters: Any) -> Environment:
    """Templates of `folders`, then of report_page/, with these filters; `style` is report.css."""
    made = Environment(
        loader=FileSystemLoader([*folders, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "thousands": "{:,}".format, **filters}
    made.globals["style"] = Markup((SHARED / "report.css").read_text(encoding="utf-8"))
    return made


def number(value: float | None, signed: bool = False) -> str:
    """Three digits; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:+.3f}" if signed else f"{value:.3f}"
