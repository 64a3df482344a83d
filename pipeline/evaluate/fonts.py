"""Letters of any script in figures: installed fonts for what matplotlib's own font lacks."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import matplotlib as mpl
from matplotlib.font_manager import fontManager

FONT = "DejaVu Sans"
# Fonts with letters that FONT lacks, on Linux, macOS and Windows.
FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP",
    "Noto Sans KR", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "Noto Sans", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Bengali",
    "Noto Sans Tamil", "Noto Sans Thai", "Noto Sans Ethiopic", "Nirmala UI", "Leelawadee UI", "Ebrima",
    "Arial Unicode MS",
)  # fmt: skip


@cache
def fonts() -> tuple[str, ...]:
    """FONT, then the installed ones of FALLBACKS."""
    installed = {font.name for font in fontManager.ttflist}
    return (FONT, *(name for name in FALLBACKS if name in installed))


@contextmanager
def lettered() -> Iterator[None]:
    """For making and saving figures: letters come from the first of `fonts` that has them, and a `$` starts
    no formula.

    Letters that no font has are drawn as boxes, without a warning for each.
    """
    with mpl.rc_context({"font.family": list(fonts()), "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield
