"""What vectors reveal about the label and the speaker: clusters, neighbours and probes, in one table.

Conventions: x is (rows, dim); groups are names for each row, None if unknown: `label`, and `speaker` if the
corpus has it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import normalized_mutual_info_score

from stillwave.analysis import clusters, neighbours, probes
from stillwave.pipeline.config.analysis import Analysis, Probe

Groups = Mapping[str, NDArray[Any]]
METRICS: tuple[neighbours.Metric, ...] = ("cosine", "euclidean")
SHUFFLES = 20  # number of random shufflings for NMI's chance level
LEAKAGE = ("measure", "label", "speaker", "chance_label", "chance_speaker")
LAYERS = (
    "layer", "index", "label", "label_std", "chance_label", "speaker", "speaker_std", "chance_speaker",
)  # fmt: skip
MANY_CLUSTERS = 8  # for K-means, if there are no classes to count
NO_SPEAKERS = "no speakers: rows were held out at random, so that a speaker may be on both sides"


def cluster(
    x: NDArray[Any], config: Analysis, groups: Groups
) -> tuple[dict[str, NDArray[np.int64]], list[dict[str, Any]]]:
    """Cluster numbers by method, and each method's `cluster_report`, with NMI's chance level per group."""
    found = {}
    if config.kmeans is not None:
        classes = pd.Series(groups["label"]).nunique() if "label" in groups else MANY_CLUSTERS
        count = config.kmeans.clusters or max(classes, 2)
        found["kmeans"] = clusters.kmeans(x, min(count, len(x)), config.seed)
    if config.hdbscan is not None:
        found["hdbscan"] = clusters.hdbscan(x, config.hdbscan.min_cluster_size or max(5, len(x) // 100))
    if config.dbscan is not None:
        found["dbscan"] = clusters.dbscan(x, config.dbscan.eps, config.dbscan.min_samples)
    reports = []
    for method, numbers in found.items():
        report = clusters.cluster_report(x, numbers, groups, seed=config.seed)
        for name, names in groups.items():
            report[name]["chance_nmi"] = _chance_nmi(numbers, names, config.seed)
        reports.append({"method": method, **report})
    return found, reports


def retrieve(
    x: NDArray[Any], config: Analysis, groups: Groups
) -> tuple[dict[str, NDArray[np.int32]], dict[str, Any]]:
    """The nearest rows by metric, and how often they are in the same group, with chance levels.

    `label_apart` is the label's share among rows of other speakers: what is left without the help of the
    voice. Only rows with a speaker are used for it; `notes` says how many are not.
    """
    found: dict[str, NDArray[np.int32]] = {}
    report: dict[str, Any] = {}
    label, speaker = groups.get("label"), groups.get("speaker")
    k, ks = config.neighbours.k, config.neighbours.precision_at
    report["chance"] = {name: neighbours.chance(of) for name, of in groups.items()}
    report["notes"] = []
    for metric in METRICS:
        apart = {}
        if label is None or speaker is None:
            found[metric] = neighbours.nearest(x, k, metric)
        else:
            found[metric], others = neighbours.nearest_and_apart(x, k, metric, speaker)
            apart = {"label_apart": neighbours.precision_at(others, label, ks)}
        own = {name: neighbours.precision_at(found[metric], of, ks) for name, of in groups.items()}
        report[metric] = own | apart
    if label is not None and speaker is not None:
        report["chance"]["label_apart"] = neighbours.chance(label, apart=speaker)
        if nobody := int(pd.isna(speaker).sum()):
            report["notes"].append(f"{nobody} rows without a speaker are left out")
    return found, report


def probe(x: NDArray[Any], config: Probe, seed: int, groups: Groups) -> list[dict[str, Any]]:
    """A linear probe of each group. Labels are predicted for unheard speakers."""
    found = []
    for name, names in groups.items():
        held_out = groups.get("speaker") if name == "label" else None
        figures = probes.probe(
            x,
            names,
            held_out,
            folds=config.folds,
            seed=seed,
            c=config.c,
            max_iterations=config.max_iterations,
        )
        if name == "label" and held_out is None:
            figures["notes"].insert(0, NO_SPEAKERS)
        found.append({"target": name, **figures})
    return found


def leakage(
    probed: list[dict[str, Any]], retrieval: dict[str, Any], clustered: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The values that LEAKAGE names, for each measure; None if there is none."""
    lines = []
    if probed:
        found = {str(line["target"]): line for line in probed}
        lines.append(_line("linear probe, UAR", _each(found, "uar"), _each(found, "chance")))
    chance = retrieval["chance"]
    for metric in METRICS:
        figures = retrieval[metric]
        for k in next(iter(figures.values()), {}):
            lines.append(_line(f"{metric} P@{k}", _each(figures, k), chance))
            if "label_apart" in figures:
                apart = {"label": figures["label_apart"][k]}
                lines.append(
                    _line(
                        f"{metric} P@{k} among other speakers",
                        apart,
                        {"label": chance["label_apart"]},
                    )
                )
    for report in clustered:
        groups = {str(name): report[name] for name in ("label", "speaker") if name in report}
        method = report["method"]
        lines.append(_line(f"{method} NMI", _each(groups, "nmi"), _each(groups, "chance_nmi")))
        lines.append(_line(f"{method} ARI", _each(groups, "ari"), dict.fromkeys(groups, 0.0)))
    return lines


def by_layer(probed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The values that LAYERS names, for each layer: UAR of its probes, with deviation over folds and chance.

    layer: its number, as the backbone's config has it. index: its place in the store.
    """
    lines: dict[int, dict[str, Any]] = {}
    for line in probed:
        name, empty = line["target"], dict.fromkeys(LAYERS)
        found = lines.setdefault(line["index"], empty | {key: line[key] for key in ("layer", "index")})
        found |= {name: line["uar"], f"{name}_std": line["uar_std"], f"chance_{name}": line["chance"]}
    return list(lines.values())


def _each(figures: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, Any]:
    return {name: part[key] for name, part in figures.items()}


def _line(measure: str, found: Mapping[str, Any], chance: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "measure": measure,
        "label": found.get("label"),
        "speaker": found.get("speaker"),
        "chance_label": chance.get("label"),
        "chance_speaker": chance.get("speaker"),
    }


def _chance_nmi(found: NDArray[np.int64], names: NDArray[Any], seed: int) -> float | None:
    """The NMI of random clusters of the same sizes: it is above 0, and grows with the number of groups."""
    known = pd.notna(names)
    actual, numbers = pd.factorize(names[known])[0], found[known]
    if len(np.unique(actual)) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = [normalized_mutual_info_score(actual, rng.permutation(numbers)) for _ in range(SHUFFLES)]
    return float(np.mean(drawn))
