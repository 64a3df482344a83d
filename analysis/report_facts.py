"""What a report says of a run beside its scores: how it was configured, and how and where it was trained."""

import json
from typing import Any

import pandas as pd
import yaml

from stillwave.analysis.report_blocks import Block, Collapsible, Table, Text, number
from stillwave.analysis.report_runs import Shown


def configuration(shown: Shown) -> list[Block]:
    """What was trained on what: the recipe, the sizes, the fingerprints of the frames."""
    config, recipe = shown.config, shown.config["recipe"]
    facts = {
        "run": str(shown.run),
        "evaluation": str(shown.report),
        "manifest": config["manifest"],
        "frames": config["embeddings"] or "none stored: the backbone is trained too",
        "backbones": ", ".join(recipe["backbones"]),
        "head": recipe["head"]["kind"],
        "numbers per model": _numbers(shown),
        "training": _digest(shown.metrics["run"]["digest"]),
        "rows": _digest(config["rows"]),
        "Stillwave": config["stillwave"],
    }
    if shown.metrics["run"]["ensemble"]:
        facts["evaluated on"] = f"{shown.metrics['run']['manifest']}, by the ensemble of all folds"
    folds = [f"fold {fold}" for fold in config["folds"]]
    for role in ("start", "teacher"):
        if role in config:
            facts[role] = config[role]["run"]
    parts = [
        [name, *(f"{sizes.get(name, 0):,}" for sizes in shown.sizes)]
        for name in dict.fromkeys(name for sizes in shown.sizes for name in sizes)
    ]
    blocks: list[Block] = [
        _facts("What the run is", facts),
        Collapsible("The recipe", [Text(yaml.safe_dump(recipe, sort_keys=False), code=True)]),
        Collapsible("Numbers per model", [Table("Parameters and buffers", ("part", *folds), parts)]),
    ]
    for name, store in config["stores"].items():
        text = yaml.safe_dump(store, sort_keys=False)
        title = "Fingerprint of the frames" + ("" if name == "frames" else f" of {name}")
        blocks.append(Collapsible(title, [Text(text, code=True)]))
    return blocks


def training(shown: Shown) -> Table:
    """How long each fold trained, and which of its epochs was kept."""
    heads = ["fold", "epochs", "seconds", "last training loss", "epoch kept"]
    scored = "valid_uar" in shown.curves
    if scored:
        heads += ["its validation UAR", "its validation loss"]
    stopping = shown.config["recipe"]["train"]["early_stopping"]
    rows = []
    for fold in shown.config["folds"]:
        part = shown.curves[shown.curves["fold"] == fold]
        kept = part.loc[kept_epoch(part, stopping and stopping["metric"])]
        cells = [
            str(fold),
            str(len(part)),
            f"{part['seconds'].sum():.1f}",
            number(part["train_loss"].iloc[-1]),
            str(int(kept["epoch"]) + 1),
        ]
        if scored:
            cells += [number(kept["valid_uar"]), number(kept["valid_loss"])]
        rows.append(cells)
    return Table("Training of each fold", heads, rows)


def kept_epoch(curve: pd.DataFrame, metric: str | None) -> Any:
    """The index in a fold's curve of the epoch whose weights were kept, as training keeps them.

    metric: what early stopping looked at, whose first best epoch was kept; None where all epochs were
    trained, and the last one kept. Figures of a moving average of weights are of that average.
    """
    if metric is None or curve[f"valid_{metric}"].isna().all():
        return curve.index[-1]
    values = curve[f"valid_{metric}"]
    return values.idxmin() if metric == "loss" else values.idxmax()


def environment(shown: Shown) -> list[Block]:
    """A table for each environment that the run was trained in."""
    if not shown.environments:
        return [Text("Not noted: the run is older than environment.json.")]
    blocks: list[Block] = []
    count = len(shown.environments)
    if count > 1:
        blocks.append(Text(f"Training was interrupted, and resumed in {count} environments, in this order."))
    for i, one in enumerate(shown.environments):
        flat = {name: value for name, value in one.items() if name not in ("libraries", "git", "gpu")}
        flat["gpu"] = one["gpu"] and f"{one['gpu']['name']}, {one['gpu']['memory_gib']} GiB"
        git = one["git"]
        flat["commit"] = git and git["commit"] + (", and changes not committed" if git["dirty"] else "")
        flat |= {name: value for name, value in one["libraries"].items() if value is not None}
        caption = "Trained on" if count == 1 else f"Trained on, {i + 1} of {count}"
        blocks.append(_facts(caption, flat))
    return blocks


def _numbers(shown: Shown) -> str:
    """How large a model is; folds differ where each training speaker has a vector."""
    totals = sorted(sum(sizes.values()) for sizes in shown.sizes)
    each = f"{totals[0]:,}" + (f" to {totals[-1]:,} (by fold)" if totals[0] != totals[-1] else "")
    if shown.config["live"]:
        return f"{each}, with what was trained of the backbone; what stayed frozen is needed besides"
    backbones = " and ".join(shown.config["recipe"]["backbones"])
    return f"{each} of the head; for new audio or text the frozen backbone, {backbones}, is needed besides"


def _facts(caption: str, facts: dict[str, Any]) -> Table:
    rows = [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in facts.items()]
    return Table(caption, ("", ""), [[k, "none" if v == "null" else v] for k, v in rows], words=True)


def _digest(sha256: str) -> str:
    return f"sha256 {sha256[:16]}..."
