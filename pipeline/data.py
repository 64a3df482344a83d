"""What a recipe trains and tests on: labelled rows of the manifest, their frames, and their folds."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cache import EmbeddingStore
from pipeline.config.recipe import Recipe, Views
from pipeline.device import pick_device
from pipeline.features import CachedFeatures
from pipeline.splits import holdout

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """Row numbers of one fold; no row stands in two of the three."""

    number: int
    train: Rows
    valid: Rows
    test: Rows


@dataclass(frozen=True)
class Data:
    """The labelled rows that a recipe can use: a part of the manifest, and their frames.

    The rows of `features` are the manifest's, clean, and behind them their views where the recipe uses views.
    """

    manifest: pd.DataFrame
    features: CachedFeatures
    classes: tuple[str, ...]
    labels: Rows  # class numbers, per row of `features`
    views: tuple[Rows, ...]  # of each row of the manifest: its rows of `features`, the clean one first
    missing: tuple[str, ...]  # ids with a label but without frames: quarantined by extract

    def digest(self) -> str:
        """sha256 of the contents, labels, speakers and folds of all rows: what a run was trained on."""
        columns = [name for name in ("id", "fold", "split", "speaker") if name in self.manifest]
        keys = self.features.store.content_key[self.features.rows].tolist()
        table = self.manifest[columns].assign(
            label=self.labels[: len(self.manifest)],
            content=[" ".join(keys[row] for row in views) for views in self.views],
        )
        return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def load_data(recipe: Recipe, manifest: pd.DataFrame, embeddings: str | Path, device: str = "auto") -> Data:
    """The rows of `manifest` that have the recipe's label and frames. ValueError when they are too few."""
    if recipe.label not in manifest.columns:
        raise ValueError(
            f"label {recipe.label!r} is not a column of the manifest, which has {', '.join(manifest.columns)}"
        )
    labelled = manifest[manifest[recipe.label].notna()]
    classes = tuple(recipe.classes or sorted(labelled[recipe.label].unique()))
    if unknown := sorted(set(classes) - set(labelled[recipe.label])):
        raise ValueError(f"classes {unknown} do not occur in the manifest's column {recipe.label!r}")
    labelled = labelled[labelled[recipe.label].isin(classes)]
    store = EmbeddingStore(f"{embeddings}/{recipe.backbones[0]}.zarr")
    there = store.row_of()
    has_frames = np.array([(id_, 0) in there for id_ in labelled["id"]], dtype=bool)
    used = labelled[has_frames].reset_index(drop=True)
    if len(classes) < 2 or used.empty:
        raise ValueError(
            f"{store.path} has frames for {len(used)} labelled rows of {len(classes)} classes; a head needs "
            "two. Extract with the manifest that you train with"
        )
    clean = store.rows(used["id"])
    _check_fresh(store, clean, used)
    labels = np.array([classes.index(label) for label in used[recipe.label]], dtype=np.int64)
    owner, augmented = _views(store, used["id"].tolist(), recipe)
    features = CachedFeatures(store, np.concatenate([clean, augmented]), pick_device(device))
    parts = np.split(len(clean) + np.arange(len(owner)), np.searchsorted(owner, np.arange(1, len(clean))))
    views = tuple(np.concatenate([[row], part]) for row, part in enumerate(parts))
    missing = tuple(labelled["id"][~has_frames])
    return Data(used, features, classes, np.concatenate([labels, labels[owner]]), views, missing)


def _views(store: EmbeddingStore, ids: list[str], recipe: Recipe) -> tuple[Rows, Rows]:
    """The augmented views that the recipe uses: numbers in `ids`, ascending, and rows of the store."""
    if recipe.views == Views():
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    number = {id_: i for i, id_ in enumerate(ids)}
    found = sorted(
        (number[id_], view, row) for (id_, view), row in store.row_of().items() if view and id_ in number
    )
    if not found:
        raise ValueError(
            f"{store.path} has no views of these rows, but the recipe's `views` asks for them: extract with "
            "`views` in the backbone's config, or take `views` out of the recipe"
        )
    table = np.array(found, dtype=np.int64)
    return table[:, 0], table[:, 2]


def _check_fresh(store: EmbeddingStore, rows: Rows, manifest: pd.DataFrame) -> None:
    """Raise ValueError when frames are of other audio or text than the manifest's rows of the same id."""
    texts = manifest["text"] if "text" in manifest else [None] * len(manifest)
    for key, id_, sha256, text in zip(
        store.content_key[rows].tolist(), manifest["id"], manifest["sha256"], texts, strict=True
    ):
        if key != sha256 and (text is None or key != hashlib.sha256(str(text).encode()).hexdigest()):
            raise ValueError(
                f"{store.path}: the frames of {id_!r} are of other content than the manifest's; "
                "extract again with this manifest: only what changed is redone"
            )


def folds_of(data: Data, recipe: Recipe) -> list[Fold]:
    """The manifest's folds, each tested once; or its one train/valid/test split, as fold 0.

    Validation rows are the manifest's, or `valid_fraction` of the training rows, whole groups at a time.
    """
    folds = _all_folds(data, recipe)
    for fold in folds:
        if not len(fold.train) or not any(len(other.test) for other in folds):
            empty = "training" if not len(fold.train) else "test"
            raise ValueError(
                f"fold {fold.number} has no {empty} rows; split the corpus again with `stillwave prepare`"
            )
        if absent := set(range(len(data.classes))) - set(data.labels[fold.train].tolist()):
            names = [data.classes[i] for i in sorted(absent)]
            raise ValueError(
                f"fold {fold.number} has no training rows of {names}; leave them out with `classes`, "
                "or split the corpus otherwise"
            )
    return folds


def _all_folds(data: Data, recipe: Recipe) -> list[Fold]:
    if "split" in data.manifest.columns:
        train, valid, test = (
            np.flatnonzero(data.manifest["split"] == side) for side in ("train", "valid", "test")
        )
        if not len(valid):
            train, valid = _hold_out(data, train, recipe, 0)
        return [Fold(0, train, valid, test)]
    numbers = data.manifest["fold"].to_numpy()
    folds = []
    for number in np.unique(numbers).tolist():
        train, valid = _hold_out(data, np.flatnonzero(numbers != number), recipe, number)
        folds.append(Fold(int(number), train, valid, np.flatnonzero(numbers == number)))
    return folds


def _hold_out(data: Data, rows: Rows, recipe: Recipe, fold: int) -> tuple[Rows, Rows]:
    fraction, group = recipe.train.valid_fraction, recipe.train.group
    if fraction == 0:
        return rows, np.array([], dtype=np.int64)
    part = data.manifest.iloc[rows]
    groups = part["id"] if group is None else part.get(group)
    if groups is None or groups.isna().any():
        raise ValueError(
            f"train.valid_fraction holds out whole groups, but the manifest has no {group!r} for every row; "
            "set train.group: null to hold out single rows"
        )
    labels = [data.classes[i] for i in data.labels[rows]]
    sides = holdout(groups.tolist(), 0.0, fraction, recipe.train.seed + fold, labels)
    return rows[sides == "train"], rows[sides == "test"]
