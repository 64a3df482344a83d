"""A run's folder during training: starting or resuming, and its training curves."""

import json
import logging
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from stillwave.cache.folders import discard
from stillwave.pipeline.runs.run import COMPLETE, CONFIG, HISTORY

PARTIAL = "config.partial"
log = logging.getLogger(__name__)


def _is_run(file: Path) -> bool:
    """True for a config.json of a run: other folders are never replaced."""
    try:
        return bool({"recipe", "rows", "stillwave"} <= json.loads(file.read_text()).keys())
    except (OSError, ValueError, AttributeError):
        return False


def begin(out: Path, config: dict[str, Any]) -> None:
    """Prepare a run folder for this config: the interrupted one, or an empty one."""
    text = json.dumps(config, indent=1, sort_keys=True)
    file = out / CONFIG
    if file.exists() and file.read_text() == text and not (out / COMPLETE).exists():
        return
    if out.exists():
        ours = {PARTIAL}  # left by a run that was killed before it started
        if {path.name for path in out.iterdir()} - ours and not _is_run(file):
            raise ValueError(f"{out}: the folder is not empty and holds no run; give another --out")
        discard(out)
    out.mkdir(parents=True)
    temporary = out / PARTIAL
    temporary.write_text(text)
    temporary.replace(file)


@cache
def _say_once(note: str) -> None:
    log.info(note)


def write_curves(folder: Path, history: list[dict[str, float]]) -> None:
    """The training curves, as history.csv and, with dvclive, in its format, which the DVC views show."""
    table = pd.DataFrame(history).rename_axis("epoch").reset_index()
    table.to_csv(folder / HISTORY, index=False)
    try:
        from dvclive import Live
        from scmrepo.exceptions import SCMError
    except ImportError as error:
        _say_once(f"runs have no folder live/ for the DVC views ({error}): `pip install dvclive` for one")
        return
    try:
        with Live(dir=str(folder / "live"), report=None, save_dvc_exp=False, dvcyaml=None) as live:
            for figures in history:
                for name, value in figures.items():
                    live.log_metric(name, value)
                live.next_step()
    except SCMError as error:  # dvclive 3.49 stops at a Git repository without a commit
        warnings.warn(f"no dvclive log in {folder}: {error}; `git commit` first to get one", stacklevel=2)
