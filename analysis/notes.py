"""Notes of an analysis: what was chosen, reduced, left out, or could not be drawn."""

from typing import Any

import pandas as pd

from stillwave.analysis.labels import MAX_CLASSES, label_candidates, label_column
from stillwave.pipeline.config.analysis import Analysis

NAMED, LETTERS = 5, 20  # the most ids of left-out rows, and undrawn letters, in a note


def fitted(config: Analysis, rows: int) -> tuple[Analysis, list[str]]:
    """`config` with sizes that are too large for so few rows reduced, and a note on each."""
    notes: list[str] = []
    changed: dict[str, Any] = {}

    def at_most(group: str, field: str, bound: float) -> None:
        settings = changed.get(group, getattr(config, group))
        value = getattr(settings, field) if settings is not None else None
        if value is not None and value > bound:
            changed[group] = settings.model_copy(update={field: bound})
            notes.append(f"{group}.{field} {value:g} is too large for {rows} rows: {bound:g} was taken")

    # A perplexity must be below a third of the rows.
    at_most("tsne", "perplexity", (rows - 1) / 3)
    at_most("umap", "neighbours", rows - 1)
    at_most("kmeans", "clusters", rows)
    at_most("hdbscan", "min_cluster_size", rows)
    at_most("neighbours", "k", rows - 1)
    kept = changed.get("neighbours", config.neighbours)
    if max(kept.precision_at) > kept.k:
        at = tuple(sorted({min(k, kept.k) for k in kept.precision_at}))
        changed["neighbours"] = kept.model_copy(update={"precision_at": at})
    return config.model_copy(update=changed), notes


def on_label(manifest: pd.DataFrame, config: Analysis) -> list[str]:
    """A note if the label was chosen from several, or if there is none."""
    candidates = label_candidates(manifest)
    if config.label is None and not candidates:
        return [f"no label: the manifest has no column of text with 2 to {MAX_CLASSES} values for it"]
    if config.label is None and len(candidates) > 1:
        chosen = label_column(manifest, None)
        return [f"label: {chosen}, of {', '.join(candidates)}; -S label= for another"]
    return []


def on_layers(by_layer: list[dict[str, Any]]) -> list[str]:
    """A note that the layer with the best probe of the label is not thereby a result."""
    scored = [line for line in by_layer if line["label"] is not None]
    if not scored:
        return []
    best = max(scored, key=lambda line: line["label"])
    return [
        f"layers.csv: the label's probe is best on layer {best['layer']}, UAR {best['label']:.3f}, but that "
        f"layer was picked from {len(scored)} on the rows that test it: a hint, not a result; "
        f"-S layer={best['index']} analyzes it"
    ]


def on_letters(undrawn: set[str]) -> list[str]:
    """A note on letters that the pictures could not draw."""
    if not undrawn:
        return []
    shown = " ".join(sorted(undrawn)[:LETTERS]) + (" ..." if len(undrawn) > LETTERS else "")
    return [
        f"pictures: no installed font has {len(undrawn)} letters, drawn as boxes: {shown}; install one that "
        "has them, such as Noto Sans CJK"
    ]


def left_out(why: str, ids: list[str]) -> str:
    shown = ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
    return f"{len(ids)} rows left out, {why}: {shown}"
