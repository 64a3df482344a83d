"""One page about runs: what they score, how they were trained, and whether one is better than another."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stillwave.analysis.report_comparison import comparison
from stillwave.analysis.report_runs import read_shown
from stillwave.analysis.report_sections import sections
from stillwave.pipeline.audio.files import write_if_changed

PAGE = Path(__file__).parent / "report_page"


def write_page(runs: Sequence[str | Path], out: str | Path, reports: str | Path | None = None) -> None:
    """Write `out`, one HTML file that needs no other and no network: the runs, the first as the baseline.

    reports: the folder in which the evaluations of the runs lie, each under its run's name; default: that of
    `out`. See `read_shown` for where else they are looked for. The same runs give the same bytes. Raises
    ValueError when a run is not complete, or has no evaluation of its present training.
    """
    out = Path(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out names the page, for example {out / 'index.html'}")
    shown = read_shown([Path(run) for run in runs], Path(reports) if reports is not None else out.parent)
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        title="Stillwave: " + (shown[0].name if len(shown) == 1 else f"{len(shown)} runs"),
        style=Markup((PAGE / "report.css").read_text()),
        comparison=comparison(shown) if len(shown) > 1 else [],
        runs=[
            {"name": one.name, "anchor": f"run-{i}", "sections": sections(one, f"run-{i}")}
            for i, one in enumerate(shown)
        ],
    )
    write_if_changed(out.absolute(), html.encode())
