"""One page about a corpus: what a manifest holds, what was left out, and what its split leaks.

The page's text and order are in corpus_page/: one template per section.
"""

import csv
import hashlib
import io
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from markupsafe import Markup

from stillwave.analysis.corpus_facts import by_reason, corpus_facts
from stillwave.analysis.corpus_leaks import leaks, tested
from stillwave.analysis.labels import CUSTOMARY, MAX_CLASSES, PERSONAL, label_candidates
from stillwave.analysis.pages import environment
from stillwave.analysis.recordings import embedded, recordings_of
from stillwave.pipeline.audio.files import beside, is_url, read_file, write_if_changed
from stillwave.pipeline.corpora.manifest import REQUIRED, RESERVED, contents, read_manifest
from stillwave.pipeline.corpora.quarantine import Quarantined

PAGE = Path(__file__).parent / "corpus_page"
CLIPS, LONGEST_CLIP_S = 10, 8.0  # so that all of them are less than 3.5 MB on the page


def write_corpus(
    manifest: str | Path,
    out: str | Path | None = None,
    *,
    label: str | None = None,
    group: str | None = "speaker",
) -> str:
    """Write `out`, one self-contained HTML file about the manifest; returns its path or URL.

    out: by default corpus.html beside the manifest, where quarantine.csv is looked for too. label: the column
    of the classes; by default the usual one (emotion or word), else the first that may be it. group: the
    column whose values the split should keep on one side. The same manifest, quarantine and recordings give
    the same bytes. Raises ValueError for a manifest, a quarantine or a label that cannot be used.
    """
    out = beside(manifest, "corpus.html") if out is None else str(out)
    if not is_url(out) and Path(out).is_dir():
        raise ValueError(f"{out} is a folder; --out names a file, for example {Path(out, 'corpus.html')}")
    rows = read_manifest(manifest)
    quarantined = read_quarantine(beside(manifest, "quarantine.csv"))
    page = render(rows, quarantined, label=label, group=group, about=_about(manifest))
    write_if_changed(out, page.encode())
    return out


def render(
    manifest: pd.DataFrame,
    quarantined: list[Quarantined] | None,
    *,
    label: str | None = None,
    group: str | None = "speaker",
    about: dict[str, str] | None = None,
) -> str:
    """The page. quarantined: None if there is no such file. about: further facts, by name."""
    column = label_of(manifest, label)
    made = environment(PAGE, duration=duration, share=share, plain="{:,g}".format)
    return made.get_template("corpus.html").render(
        more_style=Markup((PAGE / "corpus.css").read_text(encoding="utf-8")),
        about=about or {},
        corpus=corpus_facts(manifest, column),
        quarantine=None if quarantined is None else by_reason(quarantined),
        tested=tested(manifest),
        leaks=leaks(manifest, group),
        clips=clips(manifest, column),
        longest=LONGEST_CLIP_S,
    )


def label_of(manifest: pd.DataFrame, wanted: str | None) -> str | None:
    """The column of the classes; None if no column of text may be it. Raises ValueError."""
    if wanted is not None:
        if wanted not in manifest.columns or wanted in REQUIRED:
            there = ", ".join(str(name) for name in manifest.columns if name not in RESERVED)
            raise ValueError(f"label {wanted!r} is not a label of the manifest; it has {there}")
        return wanted
    texts = [str(name) for name in manifest.columns if name not in (*RESERVED, *PERSONAL)]
    customary = [name for name in CUSTOMARY if name in texts]
    alone = [name for name in texts if 1 <= manifest[name].nunique() <= MAX_CLASSES]
    return next(iter([*customary, *label_candidates(manifest), *alone]), None)


def clips(manifest: pd.DataFrame, label: str | None) -> list[dict[str, Any]]:
    """A few short recordings in random order, one of each class in turn; `audio` is None if unreadable.

    The order is that of the sha256 of the recordings, which says nothing of who speaks.
    """
    short = manifest[(manifest["path"] != "") & (manifest["duration_s"] <= LONGEST_CLIP_S)]
    short = short.assign(sha256=contents(short)).sort_values(["sha256", "id"]).drop_duplicates("sha256")
    labels = short[label].fillna("").map(str) if label is not None else pd.Series("", index=short.index)
    turns = short.assign(label=labels, turn=labels.groupby(labels).cumcount())
    drawn = turns.sort_values(["turn", "label"], kind="stable").head(CLIPS)
    recordings = recordings_of(drawn)
    found, _ = embedded(recordings, known={})
    return [
        {
            "id": row["id"],
            "label": row["label"],
            "speaker": row.get("speaker"),
            "text": row.get("text"),
            "seconds": row["duration_s"],
            "audio": found.get(recording),
        }
        for row, recording in zip(drawn.to_dict("records"), recordings, strict=True)
    ]


def read_quarantine(path: str) -> list[Quarantined] | None:
    """The lines of a quarantine.csv; None if there is no such file. Raises ValueError for another table."""
    try:
        text = read_file(path).decode()
    except FileNotFoundError:
        return None
    lines = csv.DictReader(io.StringIO(text, newline=""))
    if missing := set(Quarantined._fields) - set(lines.fieldnames or ()):
        raise ValueError(
            f"{path}: no column {', '.join(sorted(missing))}: not the file that `stillwave prepare` writes; "
            "run it again, or delete the file"
        )
    return [Quarantined(**{name: line[name] or "" for name in Quarantined._fields}) for line in lines]


def _about(manifest: str | Path) -> dict[str, str]:
    name = PurePosixPath(str(manifest).replace("\\", "/")).name
    return {"manifest": name, "its sha256": hashlib.sha256(read_file(manifest)).hexdigest()[:16] + "..."}


def duration(seconds: float | None) -> str:
    """`2.50 s`, `12.3 min` or `1.25 h`; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.2f} h"


def share(part: int, whole: int) -> str:
    """`12 (3.4 %)`."""
    return f"{part:,}" + (f" ({100 * part / whole:.1f} %)" if part and whole else "")
