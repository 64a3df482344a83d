"""The analysis of a store, in one folder: vectors, rows, neighbours, tables and pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillwave.analysis import measures, projections
from stillwave.analysis.embeddings import WIDTHS, pool_layers, pool_store
from stillwave.analysis.folder import building
from stillwave.analysis.notes import NAMED, fitted, left_out, on_label, on_layers, on_letters
from stillwave.analysis.pictures import draw, save
from stillwave.analysis.profiles import dimensions_figure, layers_figure
from stillwave.analysis.rows import Rows, manifest_beside, rows_of, with_predictions
from stillwave.cache import EmbeddingStore
from stillwave.pipeline.backbones.fingerprint import layer_numbers
from stillwave.pipeline.config.analysis import Analysis
from stillwave.pipeline.corpora.manifest import ManifestError, read_manifest
from stillwave.pipeline.runs.data import label_numbers
from stillwave.pipeline.runs.run import Run

OnStep = Callable[[str], None]


def analyze(
    store: str | Path,
    out: str | Path,
    config: Analysis,
    *,
    manifest: str | Path | None = None,
    run: str | Path | Run | None = None,
    embeddings: str | Path | None = None,
    device: str = "auto",
    progress: OnStep = lambda stage: None,
) -> dict[str, Any]:
    """Write the analysis folder of `store` to `out`; docs/analysis.md lists its files. Returns analysis.json.

    manifest: by default that of `run`, else `manifest.parquet` in the folder above the store's. run: its
    predictions are shown too, each from a model that has not seen the row. embeddings: the folder of the
    run's stores, if they have moved. progress: is called at each step.

    The folder appears only when it is complete; the same inputs give the same bytes. Raises ValueError for
    inputs that cannot be analyzed, and if `out` holds files that no analysis made.
    """
    with building(Path(out).resolve()) as part:
        facts = _written(store, part, config, manifest, run, embeddings, device, progress)
    progress("explorer")
    from stillwave.analysis.explorer import write_explorer

    facts["notes"] += write_explorer([Path(out)], Path(out) / "explorer.html")
    _write(facts, Path(out))
    return facts


def _written(
    store: str | Path,
    out: Path,
    config: Analysis,
    manifest: str | Path | None,
    run: str | Path | Run | None,
    embeddings: str | Path | None,
    device: str,
    progress: OnStep,
) -> dict[str, Any]:
    """`analyze`, without the explorer."""
    progress("rows")
    opened = EmbeddingStore(store)
    if opened.spec.dim * WIDTHS.get(config.pooling, 1) < 2:
        raise ValueError(
            f"{store}: its frames have 1 dimension, but a picture needs 2; -S pooling=multi_scale gives 3"
        )
    table = str(manifest or _manifest_of(run) or manifest_beside(store))
    try:
        known = read_manifest(table)
    except ManifestError as error:
        raise ManifestError(f"{error}" if manifest else f"{error}; name it with --manifest") from None
    if run is not None:
        config = _labelled_as(run, config)
    rows = rows_of(opened, known, config)
    if run is not None:
        progress("predictions")
        rows = with_predictions(rows, run, known, embeddings=embeddings, device=device)
    notes = on_label(known, config) + [left_out(why, ids) for why, ids in rows.left_out.items()]
    config, reduced = fitted(config, len(rows.numbers))
    facts = {
        "store": str(store),
        "backbone": opened.fingerprint.get("kind"),
        "manifest": table,
        "run": None if run is None else str(run),
        "config": config.model_dump(mode="json"),
        "rows": len(rows.numbers),
        "left_out": {why: {"rows": len(ids), "first": ids[:NAMED]} for why, ids in rows.left_out.items()},
    }
    facts = _look(opened, rows, config, out, facts, notes + reduced, progress)
    made = {path.name for path in out.iterdir()} | {"analysis.json", "explorer.html"}
    facts |= {"files": sorted(made)}
    _write(facts, out)
    return facts


def _write(facts: dict[str, Any], out: Path) -> None:
    (out / "analysis.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")


def _look(
    store: EmbeddingStore,
    rows: Rows,
    config: Analysis,
    out: Path,
    facts: dict[str, Any],
    notes: list[str],
    progress: OnStep,
) -> dict[str, Any]:
    """Write all files except analysis.json and the explorer; returns the content of analysis.json."""
    progress("pooling")
    pooled = pool_store(store, rows.numbers, config.pooling, config.layer)
    vectors = pooled.values
    np.save(out / "embeddings.npy", vectors)
    np.save(out / "labels.npy", label_numbers(rows.table["label"], rows.classes))
    pooled.statistics.to_csv(out / "dimensions.csv")
    undrawn = save(dimensions_figure(pooled.statistics), out / "dimensions")
    x = standardised(vectors) if config.standardise else vectors
    groups = {
        name: rows.table[name].to_numpy(object)
        for name in ("label", "speaker")
        if name in rows.table and rows.table[name].notna().any()
    }
    progress("projections")
    points, components, projected = _project(x, config)
    progress("clusters")
    clustered, cluster_reports = measures.cluster(components, config, groups)
    progress("neighbours")
    nearest, retrieval = measures.retrieve(x, config, groups)
    for metric, numbers in nearest.items():
        np.save(out / f"neighbours_{metric}.npy", numbers)
    progress("probes")
    probed, here = _probe(store, rows, config, vectors, groups, out / "layers.npy")
    lines = measures.leakage(here, retrieval, cluster_reports)
    pd.DataFrame(lines, columns=list(measures.LEAKAGE)).to_csv(out / "leakage.csv", index=False)
    if store.spec.layers > 1 and probed:
        by_layer = measures.by_layer(probed)
        pd.DataFrame(by_layer, columns=list(measures.LAYERS)).to_csv(out / "layers.csv", index=False)
        notes += on_layers(by_layer)
        undrawn |= save(layers_figure(_by_target(probed, rows.label)), out / "layers")
    table = rows.table.assign(**clustered)
    for name, xy in points.items():
        table = table.assign(**{f"{name}_x": xy[:, 0], f"{name}_y": xy[:, 1]})
    table.to_parquet(out / "rows.parquet", index=False)
    progress("pictures")
    undrawn |= draw(table, rows.label, projected, out)
    flags = pooled.statistics["flag"]
    notes += [f"probe of {line['target']}: {note}" for line in here for note in line.get("notes", ())]
    notes += [f"P@k among other speakers: {note}" for note in retrieval["notes"]]
    notes += on_letters(undrawn)
    return facts | {
        "dim": vectors.shape[1],
        "label": rows.label,
        "classes": rows.classes,
        "projections": projected,
        "clusters": cluster_reports,
        "retrieval": retrieval,
        "probes": probed,
        "leakage": lines,
        "dimensions": {flag: np.flatnonzero(flags == flag).tolist() for flag in ("dead", "exploding")},
        "notes": notes,
    }


def standardised(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every dimension with mean 0 and variance 1 over the rows; one that does not vary becomes 0."""
    mean, deviation = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    # Rounding gives a constant dimension a deviation that is tiny relative to its values, but not 0.
    varies = deviation > 1e-6 * np.abs(x).max(axis=0)
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0).astype(np.float32)
    result: NDArray[np.float32] = (x - mean.astype(np.float32)) * scale
    return result


def _project(
    x: NDArray[np.float32], config: Analysis
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32], dict[str, Any]]:
    """Points (rows, 2) by projection, the principal components, and the entry of each in analysis.json."""
    components, explained = projections.pca(x, config.pca.components, config.seed)
    points = {"pca": components[:, :2]}
    said: dict[str, Any] = {"pca": {"explained": explained}}
    if config.tsne is not None:
        points["tsne"], divergence = projections.tsne(components, config.tsne, config.seed)
        said["tsne"] = {"kl": divergence, "perplexity": config.tsne.perplexity}
    if config.umap is not None:
        points["umap"] = projections.umap(x, config.umap, config.seed)
        said["umap"] = {"neighbours": config.umap.neighbours, "min_dist": config.umap.min_dist}
    return points, components, said


def _probe(
    store: EmbeddingStore,
    rows: Rows,
    config: Analysis,
    vectors: NDArray[np.float32],
    groups: measures.Groups,
    scratch: Path,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Probes of every stored layer, and of the analyzed vectors. scratch: a temporary file."""
    if config.probe is None:
        return [], []
    layers = store.spec.layers
    if not layers:
        here = [
            {"layer": None, **line} for line in measures.probe(vectors, config.probe, config.seed, groups)
        ]
        return here, here
    numbers = layer_numbers(store.fingerprint, layers)
    pooled = pool_layers(store, rows.numbers, config.pooling, file=scratch)
    each = [
        {"layer": number, "index": index, **line}
        for index, (number, values) in enumerate(zip(numbers, pooled, strict=True))
        for line in measures.probe(values, config.probe, config.seed, groups)
    ]
    scratch.unlink()
    if config.layer == "mean":
        found = measures.probe(vectors, config.probe, config.seed, groups)
        return each, [{"layer": "mean", **line} for line in found]
    return each, [line for line in each if line["index"] == config.layer % layers]


def _by_target(probed: list[dict[str, Any]], label: str | None) -> dict[str, list[dict[str, Any]]]:
    """Probes per layer, by target, the label under its own name; without those that have no score."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in probed:
        if line["uar"] is not None:
            name = label if label and line["target"] == "label" else line["target"]
            found.setdefault(name, []).append(line)
    return found


def _manifest_of(run: str | Path | Run | None) -> Any:
    return None if run is None else Run.open(run).place("manifest")


def _labelled_as(run: str | Path | Run, config: Analysis) -> Analysis:
    """`config` with the label that the run predicts. ValueError if another one was requested."""
    label = Run.open(run).recipe.label
    if config.label not in (None, label):
        raise ValueError(
            f"the label is {config.label!r}, but {run} predicts {label!r}: leave out -S label, or --run"
        )
    return config.model_copy(update={"label": label})
