"""The rows to analyze: those of a store that are in the manifest, and a run's predictions for them."""

import posixpath
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillwave.analysis.labels import label_column
from stillwave.analysis.names import natural
from stillwave.cache import EmbeddingStore
from stillwave.pipeline.config.analysis import Analysis
from stillwave.pipeline.config.recipe import UNKNOWN_NAME
from stillwave.pipeline.runs.data import check_as_trained, data_of_run
from stillwave.pipeline.runs.origins import check_fresh
from stillwave.pipeline.runs.predictions import predict_folds
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.scores.decision import entropy

# Columns of the manifest, if it has them.
KEPT = (
    "id", "path", "speaker", "language", "text", "duration_s", "start", "end",
)  # fmt: skip
MIN_ROWS = 10


@dataclass(frozen=True)
class Rows:
    """Rows of a store and what is known about them.

    table: one line per row, in the store's order: KEPT, and `label` (None if there is none), `num_frames`.
    numbers: their row numbers in the store. label: the column of the manifest that `label` is, if any.
    left_out: reason -> ids of rows left out.
    """

    table: pd.DataFrame
    numbers: NDArray[np.int64]
    label: str | None
    left_out: dict[str, list[str]]

    @property
    def classes(self) -> list[str]:
        """The labels that occur, in natural order."""
        return sorted(set(self.table["label"].dropna()), key=natural)


def manifest_beside(store: str | Path) -> str:
    """Where the manifest of `<folder>/embeddings/<name>.zarr` usually is: `<folder>/manifest.parquet`."""
    scheme, mark, path = str(store).rpartition("://")
    return f"{scheme}{mark}{posixpath.normpath(f'{path}/../../manifest.parquet')}"


def rows_of(store: EmbeddingStore, manifest: pd.DataFrame, config: Analysis) -> Rows:
    """The clean rows (view 0) of `store` that `manifest` has, or `config.max_rows` of them, drawn by seed.

    Raises ValueError if they are fewer than MIN_ROWS, if frames were made from other content than the
    manifest's rows with the same id, or if the label cannot be found.
    """
    label = label_column(manifest, config.label)
    clean = np.flatnonzero(store.view == 0)
    known = manifest.set_index("id", drop=False)
    there = pd.Index(store.ids[clean]).isin(known.index)
    left_out = {
        "not in the manifest": store.ids[clean[~there]].tolist(),
        "without frames": known.index[~known.index.isin(store.ids[clean])].tolist(),
    }
    numbers = clean[there]
    if len(numbers) < MIN_ROWS:
        raise ValueError(
            f"{store.path}: {len(numbers)} of its {len(clean)} clean rows are in the manifest; at least "
            f"{MIN_ROWS} are needed: give the manifest that it was extracted with (--manifest)"
        )
    check_fresh(store, numbers, known.loc[store.ids[numbers]])
    if config.max_rows is not None and config.max_rows < len(numbers):
        drawn = np.random.default_rng(config.seed).choice(len(numbers), config.max_rows, replace=False)
        left = np.setdiff1d(np.arange(len(numbers)), drawn)
        left_out["not drawn (max_rows)"] = store.ids[numbers[left]].tolist()
        numbers = numbers[np.sort(drawn)]
    found = known.loc[store.ids[numbers]].reset_index(drop=True)
    table = pd.DataFrame({name: _plain(found[name]) for name in KEPT if name in found})
    values = _plain(found[label]) if label else pd.Series(None, index=table.index, dtype=object)
    table.insert(2, "label", values)
    table = table.assign(num_frames=store.lengths[numbers])
    return Rows(table, numbers, label, {why: ids for why, ids in left_out.items() if ids})


def _plain(values: pd.Series) -> pd.Series:
    """Texts as objects, and None for missing ones; numbers as they are."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        return values
    return values.astype(object).where(values.notna(), None)


def with_predictions(
    rows: Rows,
    run: str | Path | Run,
    manifest: pd.DataFrame,
    *,
    embeddings: str | Path | None = None,
    device: str = "auto",
) -> Rows:
    """`rows` with the run's predictions, each by a model that has not seen the row.

    Further columns: predicted, a trained class; decision, if the run decides: that class, or `unknown`;
    confidence (the largest probability); entropy (of the probabilities, 0 to 1); learned_uncertainty, for
    heads that have it; correct; fold. Missing in rows that the run does not test. A row of a trained class is
    correct if its class is predicted, as in accuracy; a row of another class if the decision is `unknown`, or
    None without a decision.

    Raises ValueError if it tests none of them, or was trained on another manifest or other frames.
    """
    predictions = out_of_fold(Run.open(run), manifest, embeddings, device).set_index("id")
    ids = rows.table["id"]
    if not ids.isin(predictions.index).any():
        raise ValueError(
            f"{run}: tests none of these {len(ids)} rows, the first of which is {ids[0]!r}; give a run on "
            "the same manifest"
        )
    probabilities = predictions.filter(regex="^p_")
    found = pd.DataFrame(
        {
            "predicted": predictions["predicted"],
            "decision": predictions["decision"],
            "confidence": probabilities.max(axis=1),
            "entropy": entropy(probabilities.to_numpy()),
        }
    )
    if "score_learned_uncertainty" in predictions:
        found["learned_uncertainty"] = predictions["score_learned_uncertainty"]
    rejected = (predictions["decision"] == UNKNOWN_NAME).astype(object)
    rejected = rejected.where(predictions["decision"].notna(), None)
    right = (predictions["predicted"] == predictions["label"]).astype(object)
    found["correct"] = right.where(predictions["known"], rejected)
    found["fold"] = predictions["fold"]
    found = found.reindex(ids).reset_index(drop=True)
    # None, not NaN, for a missing text or truth value.
    for name in ("predicted", "decision", "correct"):
        found[name] = found[name].astype(object).where(found[name].notna(), None)
    found["fold"] = found["fold"].astype("Int64")
    if found["decision"].isna().all():
        found = found.drop(columns="decision")
    return replace(rows, table=pd.concat([rows.table, found], axis=1))


def out_of_fold(run: Run, manifest: pd.DataFrame, embeddings: str | Path | None, device: str) -> pd.DataFrame:
    """The run's predictions of its test rows. Raises ValueError if its rows or frames have changed."""
    data = data_of_run(run, manifest, embeddings=embeddings, device=device)
    check_as_trained(run, data)
    return predict_folds(run, data)
