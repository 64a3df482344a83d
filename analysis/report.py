"""One page about runs: their scores, how they were trained, and whether one is better than another.

The page's text and order are in report_page/: one template per section.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from stillwave.analysis.pages import environment, number
from stillwave.analysis.report_comparison import comparison
from stillwave.analysis.report_facts import facts
from stillwave.analysis.report_runs import Shown, read_shown
from stillwave.pipeline.audio.files import write_if_changed


def write_page(runs: Sequence[str | Path], out: str | Path, reports: str | Path | None = None) -> None:
    """Write `out`, one self-contained HTML file about the runs, the first being the baseline.

    reports: the folder in which the evaluations of the runs are, each under its run's name; by default the
    folder of `out`. See `read_shown` for where else they are looked for. The same runs give the same bytes.
    Raises ValueError if a run is not complete, or has no evaluation of its current training.
    """
    out = Path(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out names a file, for example {out / 'index.html'}")
    shown = read_shown([Path(run) for run in runs], Path(reports) if reports is not None else out.parent)
    write_if_changed(out.absolute(), render(shown).encode())


def render(shown: list[Shown]) -> str:
    """The page of these runs."""
    made = environment(
        interval=interval,
        p_value=p_value,
        plain=plain,
        yaml=lambda value: yaml.safe_dump(value, sort_keys=False),
    )
    return made.get_template("page.html").render(
        runs=[facts(one, f"run-{i}") for i, one in enumerate(shown)],
        against_first=comparison(shown),
    )


def interval(bounds: Sequence[float] | None, signed: bool = False) -> str:
    """`low to high`."""
    return "–" if bounds is None else f"{number(bounds[0], signed)} to {number(bounds[1], signed)}"


def p_value(p: float) -> str:
    """As `stillwave compare` prints it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def plain(value: Any) -> str:
    """Text as it is, `none` for null, and everything else as JSON."""
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
