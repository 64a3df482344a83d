"""Scores of a run: each row predicted by a model that has not seen it, then tables and pictures."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillwave.heads.layers import layer_weights
from stillwave.pipeline.backbones.fingerprint import layer_numbers
from stillwave.pipeline.corpora.manifest import ManifestError, contents, manifest_digest, read_manifest
from stillwave.pipeline.evaluate.report import full_report, write_report
from stillwave.pipeline.runs.data import Data, check_as_trained, data_of_run
from stillwave.pipeline.runs.features import RowNumbers
from stillwave.pipeline.runs.predictions import predict_ensemble, predict_folds
from stillwave.pipeline.runs.run import HISTORY, Run


def evaluate(
    run: str | Path | Run,
    out: str | Path | None = None,
    *,
    manifest: str | Path | None = None,
    embeddings: str | Path | None = None,
    backbones: str | Path | None = None,
    ensemble: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Predict every test row of a run out of fold and write the report to `out` (default: `<run>/report`).

    manifest, embeddings: where they are now, if they have moved since training. backbones: a folder with the
    configs of a fine-tuned run's backbones, if they have changed since then.
    ensemble: instead, predict the rows of another `manifest`, which no fold was trained on, with the mean of
        all folds' models.

    Writes metrics.json (`run`: its folder and `training_digest`, whether an `ensemble` predicted, the
    `manifest`, and `rows_digest`), summary.json (its headline), predictions.parquet, the pictures in plots/
    (see `write_report`), and for `dvc plots` confusion.csv (actual, predicted) and curves.csv (fold, epoch,
    figures). Returns the metrics. Raises ValueError if the run's manifest or frames are no longer those it
    was trained on.
    """
    trained = Run.open(run)
    out = report_folder(trained.folder, out, ensemble)
    table = manifest or trained.place("manifest")
    if not trained.live:
        embeddings = embeddings or trained.place("embeddings")
    if ensemble and manifest is None:
        raise ValueError("ensemble predicts rows of another corpus; give its manifest and its embeddings")
    try:
        rows_of_table = read_manifest(table)
    except ManifestError as error:
        moved = "" if manifest else f"; {run} was trained with it: if it has moved, give it with --manifest"
        raise ManifestError(f"{error}{moved}") from None
    source = "recordings" if trained.live else f"frames in {embeddings}"
    classes = trained.classes if ensemble else None
    data = data_of_run(
        trained, rows_of_table, embeddings=embeddings, backbones=backbones, device=device, trained=classes
    )
    if ensemble:
        if data.stores() != trained.stores:
            raise ValueError(
                f"the {source} were made with other settings than those the run was trained on; extract this "
                "corpus with the same backbone configs"
            )
        predictions = predict_ensemble(trained, data, _unseen(trained, data))
    else:
        then, now = trained.config.get("manifest_sha256"), manifest_digest(rows_of_table)
        if then == now:
            what = f"the {source}"
        elif then:
            what = f"the manifest {table} (sha256 {now:.12}, then {then:.12})"
        else:
            what = f"the manifest {table} or the {source}"  # an older run
        check_as_trained(trained, data, what)
        predictions = predict_folds(trained, data)
    metrics = full_report(predictions, data.classes, trained.recipe.open_set.score)
    metrics |= {"n_missing": len(data.missing), "missing": data.missing, "absent": data.absent()}
    metrics["calibration"]["folds"] = {str(fold): _facts(trained, fold) for fold in trained.folds}
    if weights := _layer_weights(trained, data):
        metrics["layer_weights"] = weights
    metrics["run"] = {
        "folder": trained.folder.as_posix(),
        "digest": trained.training_digest(),
        "ensemble": ensemble,
        "manifest": str(table),
        "rows": rows_digest(predictions, data.manifest),
    }
    write_report(out, predictions, metrics, curves(trained))
    return metrics


def rows_digest(predictions: pd.DataFrame, manifest: pd.DataFrame) -> str:
    """sha256 of the rows predicted: ids, contents, speakers, labels, and which labels are known classes.

    Two evaluations with the same digest used the same rows, regardless of the backbones.
    """
    content = manifest[[name for name in ("id", "sha256", "text") if name in manifest]]
    content = content.assign(sha256=contents(manifest))
    table = predictions[[name for name in ("id", "speaker", "label", "known") if name in predictions]]
    rows = table.merge(content, on="id", validate="one_to_one").sort_values("id")
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


def report_folder(run: Path, out: str | Path | None, ensemble: bool) -> Path:
    """The folder of the report: `out`, or a folder in the run."""
    return Path(out) if out is not None else run / ("ensemble" if ensemble else "report")


def _facts(run: Run, fold: int) -> dict[str, Any]:
    """The results fitted after training: the temperature, and the status of OpenMax's tails, by class."""
    calibration = run.calibration(fold)
    return {"temperature": calibration.temperature, "openmax": calibration.openmax_status()}


def _layer_weights(run: Run, data: Data) -> dict[str, Any]:
    """For each weighted sum of layers in the head, by its name: `layers`, their numbers; `mean`; `folds`.

    Empty if no store has several layers. In a head of several modalities, names end in the modality.
    """
    if not any(len(store["frame_shape"]) > 1 for store in run.stores.values()):
        return {}
    folds = {str(fold): layer_weights(run.model(fold, data.encoders()).head) for fold in run.folds}
    found: dict[str, Any] = {}
    for name, first in next(iter(folds.values())).items():
        each = {fold: weights[name].tolist() for fold, weights in folds.items()}
        store = run.stores.get(name.rpartition(".")[2]) or run.stores.get("frames", {})
        layers = layer_numbers(store.get("fingerprint", {}), len(first))
        found[name] = {"layers": layers, "mean": np.mean([*each.values()], 0).tolist(), "folds": each}
    return found


def _unseen(run: Run, data: Data) -> RowNumbers:
    """All rows. Raises ValueError if the run was trained on the content of some of them."""
    seen = run.seen()
    rows = zip(data.manifest.to_dict("records"), data.recordings(), strict=True)
    ids = [row["id"] for row, key in rows if seen.has(row, key)]
    if ids:
        raise ValueError(
            f"{len(ids)} of {len(data.manifest)} rows are recordings that the run was trained on, the first "
            f"is {ids[0]!r}; an ensemble of all folds has seen them: leave them out of the manifest"
        )
    return np.arange(len(data.manifest))


def curves(run: Run) -> pd.DataFrame:
    """The training curves of all folds: fold, epoch, and a column per figure."""
    parts = []
    for fold in run.folds:
        file = run.fold_folder(fold) / HISTORY
        if not file.exists():
            raise ValueError(f"{file}: no such file; train the run again")
        parts.append(pd.read_csv(file).assign(fold=fold))
    return pd.concat(parts, ignore_index=True)
