"""The explorer: analysis folders as one HTML page that needs nothing else, not even a network.

The page consists of the files in explorer_page/, Bokeh's scripts, and one block of JSON. Names, texts and
paths of a corpus go only into that block, and the page shows them as text: nothing from a corpus is ever
parsed as HTML. A Content-Security-Policy allows only the scripts written here, by their hashes, and forbids
every connection. It has to allow those scripts `eval`, with which Bokeh makes its WebGL programs.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from bokeh.palettes import Cividis256
from bokeh.resources import Resources
from jinja2 import Environment
from markupsafe import Markup

from stillwave.analysis.explorer_rows import Columns, read_folder
from stillwave.analysis.recordings import AUDIO, Recording, embedded, links, recordings_of
from stillwave.pipeline.audio.files import write_if_changed
from stillwave.pipeline.evaluate.plots import PALETTE

NEIGHBOURS = 10  # listed for the selected row
PAGE = files("stillwave.analysis") / "explorer_page"
SCRIPTS = ("data.js", "symbols.js", "plot.js", "panels.js", "explorer.js")  # in loading order


def write_explorer(folders: Sequence[Path], out: Path, audio: str = "link") -> list[str]:
    """Write one page with an embedding for each of `folders`, which `analyze` wrote.

    audio: how to play a selected row. `link`: the file in its place, by its path relative to the page.
    `embed`: a copy inside the page (mono, 16 kHz, FLAC), for small corpora. `none`: not at all. The folders
    may be of different corpora: each has its own rows. The same folders give the same bytes.

    Returns what the page leaves out, one sentence each; the page shows them too. Raises ValueError for a
    folder that is not an analysis, for an unknown `audio`, and for recordings that are too large to embed.
    """
    if audio not in AUDIO:
        raise ValueError(f"audio is {audio!r}; choose one of {', '.join(AUDIO)}")
    if not folders:
        raise ValueError("no analysis folders given; `stillwave analyze STORE --out DIR` makes one")
    columns, notices, embeddings = Columns(), [], []
    clips: dict[Recording, str] = {}
    read = [read_folder(folder) for folder in folders]
    names = _names(folders, [facts for _, facts, _ in read])
    for folder, name, (rows, facts, neighbours) in zip(folders, names, read, strict=True):
        recordings = recordings_of(rows)
        if audio == "link":
            playable, missing = links(recordings, out.parent)
            rows["audio"] = playable
        elif audio == "embed":
            found, missing = embedded(recordings, known=clips)
            clips |= found
            rows["audio"] = [one.path + one.fragment if one in clips else None for one in recordings]
        else:
            missing = []
        if missing:
            notices.append(
                f"{name}: {len(missing)} of {len(rows)} recordings are not where the manifest says, or cannot"
                f" be read, {missing[0]} first: no sound; relative paths count from the working directory"
            )
        nearest = neighbours[:, :NEIGHBOURS]
        embeddings.append(
            {
                "name": name,
                "rows": len(rows),
                "columns": columns.add_all(rows, facts.get("classes") or []),
                "neighbours": {"k": nearest.shape[1], "rows": columns.integers(nearest)},
                **_facts(folder, facts),
            }
        )
    data = {
        "embeddings": embeddings,
        "columns": columns.encoded,
        "audio": audio,
        "clips": {one.path + one.fragment: clip for one, clip in clips.items()},
        "notices": notices,
        "palette": list(PALETTE),
        "cividis": list(Cividis256),
    }
    write_if_changed(out.absolute(), _page(", ".join(e["name"] for e in embeddings), data).encode())
    return notices


def _names(folders: Sequence[Path], facts: Sequence[dict[str, Any]]) -> list[str]:
    """The page's name for each folder: its last part, or its path if two are the same.

    A single folder is named after its store: `analysis` or `out` says nothing, and there is no other folder
    to distinguish it from.
    """
    if len(folders) == 1 and (store := PurePosixPath(str(facts[0].get("store") or "")).stem):
        return [store]
    short = [folder.absolute().name for folder in folders]
    return [
        name if short.count(name) == 1 else str(folder) for name, folder in zip(short, folders, strict=True)
    ]


def _facts(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The page's facts about an embedding, other than its rows."""
    explained = facts.get("projections", {}).get("pca", {}).get("explained", [])
    table = folder / "leakage.csv"
    leakage = pd.read_csv(table) if table.exists() else pd.DataFrame()
    records = leakage.astype(object).where(leakage.notna(), None).to_dict("records")
    return {
        "store": str(facts.get("store", "")),
        "dim": facts.get("dim"),
        "label": facts.get("label"),
        "explained": explained[:2],
        "leakage": records,
        "notes": [str(note) for note in facts.get("notes", [])],
    }


def _page(title: str, data: dict[str, Any]) -> str:
    bokeh = Resources(mode="inline", components=["bokeh", "bokeh-gl", "bokeh-api"], log_level="warn")
    scripts = [script.replace("\r", "") for script in bokeh.js_raw]
    ours = "\n".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    template = Environment(autoescape=True).from_string((PAGE / "page.html").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        style=Markup((PAGE / "explorer.css").read_text(encoding="utf-8")),
        bokeh=[Markup(script) for script in scripts],
        script=Markup(ours),
        # no "<" can end the block or start a comment in it
        data=Markup(json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")),
        hashes=Markup(" ".join(f"'sha256-{_sha256(script)}'" for script in [*scripts, ours])),
    )


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
