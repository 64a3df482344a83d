"""The training, validation and test rows of a recipe's data, fold by fold."""

from dataclasses import dataclass

import numpy as np

from stillwave.pipeline.config.recipe import Recipe
from stillwave.pipeline.corpora.leaks import check_shared, keys_of
from stillwave.pipeline.corpora.manifest import withheld_from
from stillwave.pipeline.corpora.splits import holdout
from stillwave.pipeline.runs.data import UNKNOWN, Data, RowNumbers


@dataclass(frozen=True)
class Fold:
    """Row numbers of one fold; no row is in two of the three."""

    number: int
    train: RowNumbers
    valid: RowNumbers
    test: RowNumbers


def folds_of(data: Data, recipe: Recipe) -> list[Fold]:
    """The manifest's folds, each tested once; or its one train/valid/test split, as fold 0.

    Validation rows are the manifest's, or `valid_fraction` of the training rows, whole groups at a time.
    Rows of unknown classes are tested, but are in no training or validation rows; nor are rows that the
    manifest withholds from the fold.
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
                "or use another split"
            )
        listed = "modalities" if recipe.modalities else "backbones"
        for name, part in data.parts.items():
            if not part.lengths[fold.train].any():
                raise ValueError(
                    f"fold {fold.number} has no training rows with {name}, but test rows have it, so its "
                    f"layers would be untrained; remove {name} from `{listed}`"
                )
    if not any((data.labels[fold.test] != UNKNOWN).any() for fold in folds):
        raise ValueError("no test rows of known classes; split the corpus again with `stillwave prepare`")
    return folds


def check_groups(data: Data, recipe: Recipe) -> None:
    """Raise ValueError if a group of the recipe, such as a speaker, is on more than one side of the split.

    `prepare` has checked it, but the manifest may have been edited since. Rows without group are ignored, and
    so are rows that are withheld from the fold that tests their group.
    """
    if (group := recipe.train.group) is None or group not in data.manifest.columns:
        return
    check_shared(
        data.manifest, keys_of(data.manifest, group), f"{group}(s)",
        "Split the corpus again with `stillwave prepare`; or name in train.group the column that its split "
        "keeps together, or set train.group: null to accept it",
    )  # fmt: skip


def _all_folds(data: Data, recipe: Recipe) -> list[Fold]:
    known = data.labels[: len(data.manifest)] != UNKNOWN
    withheld = withheld_from(data.manifest)
    if "split" in data.manifest.columns:
        side = data.manifest["split"].to_numpy()
        free = known & np.array([0 not in folds for folds in withheld], dtype=bool)
        train, valid = np.flatnonzero((side == "train") & free), np.flatnonzero((side == "valid") & free)
        if not len(valid):
            train, valid = _hold_out(data, train, recipe, 0)
        return [Fold(0, train, valid, np.flatnonzero(side == "test"))]
    numbers = data.manifest["fold"].to_numpy()
    folds = []
    for number in np.unique(numbers).tolist():
        free = known & np.array([number not in folds for folds in withheld], dtype=bool)
        train, valid = _hold_out(data, np.flatnonzero((numbers != number) & free), recipe, number)
        folds.append(Fold(int(number), train, valid, np.flatnonzero(numbers == number)))
    return folds


def _hold_out(data: Data, rows: RowNumbers, recipe: Recipe, fold: int) -> tuple[RowNumbers, RowNumbers]:
    fraction, group = recipe.train.valid_fraction, recipe.train.group
    if fraction == 0:
        return rows, np.array([], dtype=np.int64)
    part = data.manifest.iloc[rows]
    column = "id" if group is None else group
    if column not in part or part[column].isna().any():
        raise ValueError(
            f"train.valid_fraction holds out whole groups, but the manifest has no {group!r} for every row; "
            "set train.group: null to hold out single rows"
        )
    labels = [data.classes[i] for i in data.labels[rows]]
    groups = [str(key) for key in keys_of(part, column)]
    sides = holdout(groups, 0.0, fraction, recipe.train.seed + fold, labels)
    return rows[sides == "train"], rows[sides == "test"]
