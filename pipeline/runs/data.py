"""What a recipe trains and tests on: labelled rows of the manifest, and their frames."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.backbones.device import pick_device
from stillwave.pipeline.backbones.fingerprint import is_of_text
from stillwave.pipeline.config.recipe import UNKNOWN_NAME, Recipe
from stillwave.pipeline.config.train import RecipeViews
from stillwave.pipeline.corpora.quarantine import quarantine_path, quarantined_ids
from stillwave.pipeline.runs.features import ABSENT, CachedFeatures, Features, Part, joined

RowNumbers = NDArray[np.int64]
UNKNOWN = -1  # the label of rows of an unknown class


@dataclass(frozen=True)
class Data:
    """The labelled rows that a recipe can use: a part of the manifest, and their frames or waveforms.

    The rows of `features` are the manifest's, clean, and behind them their views where the recipe uses views.
    """

    manifest: pd.DataFrame
    features: Features
    parts: Mapping[str, Part]  # of `features`, by the modality that they stand for
    classes: tuple[str, ...]
    labels: RowNumbers  # class numbers, per row of `features`; UNKNOWN for classes that are not trained
    views: tuple[RowNumbers, ...]  # of each row of the manifest: its rows of `features`, the clean one first
    missing: tuple[str, ...]  # ids with a label but without frames: quarantined by extract, or too short

    def digest(self, group: str | None = "speaker") -> str:
        """sha256 of the contents, labels, groups and folds of all rows: what a run was trained on."""
        names = dict.fromkeys(("id", "fold", "split", "speaker", group))
        columns = [name for name in names if name in self.manifest]
        keys = [part.content for part in self.parts.values()]
        content = [" ".join(key[row] for key in keys for row in views) for views in self.views]
        table = self.manifest[columns].assign(label=self.labels[: len(self.manifest)], content=content)
        return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()

    def stores(self) -> dict[str, dict[str, Any]]:
        """Of each modality, the fingerprint and the shape of its frames: JSON-ready."""
        return {
            name: {"fingerprint": part.fingerprint, "frame_shape": list(part.frame_shape)}
            for name, part in self.parts.items()
        }

    def backbones(self) -> dict[str, dict[str, Any] | None]:
        """Of each modality, the settings of its backbone, where they are known: JSON-ready."""
        return {name: part.settings for name, part in self.parts.items()}

    def recordings(self) -> list[str]:
        """What tells each row of the manifest from others: its audio file, or its text if that is all."""
        if len(self.parts) == 1:
            return next(iter(self.parts.values())).content[: len(self.manifest)]
        return self.manifest["sha256"].tolist()

    def absent(self) -> dict[str, int]:
        """Of each modality, how many rows of the manifest lack it."""
        return {name: part.content[: len(self.manifest)].count("") for name, part in self.parts.items()}


def labelled_rows(
    recipe: Recipe, manifest: pd.DataFrame, trained: Sequence[str] | None = None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows whose label the recipe knows of, and the classes. trained: as in `load_data`."""
    if recipe.label not in manifest.columns:
        raise ValueError(
            f"label {recipe.label!r} is not a column of the manifest, which has {', '.join(manifest.columns)}"
        )
    labelled = manifest[manifest[recipe.label].notna()]
    unknown = recipe.open_set.unknown
    classes = tuple(trained or recipe.classes or sorted(set(labelled[recipe.label]) - set(unknown)))
    if trained is None and (absent := sorted({*classes, *unknown} - set(labelled[recipe.label]))):
        raise ValueError(
            f"{absent}, of `classes` or `open_set.unknown`, do not occur in the manifest's column "
            f"{recipe.label!r}, which has {sorted(set(labelled[recipe.label]))}"
        )
    if unknown and UNKNOWN_NAME in classes:
        raise ValueError(
            f"the class {UNKNOWN_NAME!r} cannot be trained beside open_set.unknown {unknown}, whose rows are "
            "called that in decisions; rename it in the corpus, or list it in open_set.unknown"
        )
    return labelled[labelled[recipe.label].isin([*classes, *unknown])], classes


def check_enough(used: pd.DataFrame, classes: Sequence[str], label: str, places: str) -> None:
    """Raise ValueError when the rows that have frames in `places` do not make a classifier."""
    known = int(used[label].isin(classes).sum())
    if len(classes) < 2 or not known:
        raise ValueError(
            f"{places} has frames for {known} labelled rows of {len(classes)} classes; a head needs "
            "two. Extract with the manifest that you train with, or leave more to `classes` than to "
            "`open_set.unknown`"
        )


def label_numbers(labels: Iterable[str], classes: Sequence[str]) -> RowNumbers:
    """The number of each label in `classes`; UNKNOWN of those that are not there."""
    return np.array([classes.index(x) if x in classes else UNKNOWN for x in labels], np.int64)


def load_data(
    recipe: Recipe,
    manifest: pd.DataFrame,
    embeddings: str | Path,
    device: str = "auto",
    *,
    trained: Sequence[str] | None = None,
) -> Data:
    """The rows of `manifest` that have the recipe's label and frames. ValueError when they are too few.

    trained: the classes of a run that is there already; this manifest need not have rows of all of them.
    """
    labelled, classes = labelled_rows(recipe, manifest, trained)
    stores = {name: EmbeddingStore(f"{embeddings}/{file}.zarr") for name, file in recipe.stores().items()}
    for name, store in stores.items():
        check_modality(name, is_of_text(store.fingerprint), str(store.path))
    tables = [store.row_of() for store in stores.values()]
    has_frames = np.array([any((id_, 0) in table for table in tables) for id_ in labelled["id"]], dtype=bool)
    used = labelled[has_frames].reset_index(drop=True)
    paths = " and ".join(str(store.path) for store in stores.values())
    check_enough(used, classes, recipe.label, paths)
    labels = label_numbers(used[recipe.label], classes)
    ids = used["id"].tolist()
    owner, views = _views(list(stores.values()), ids, recipe)
    parts = {}
    for name, store in stores.items():
        clean = np.array([store.row_of().get((id_, 0), ABSENT) for id_ in ids], dtype=np.int64)
        check_fresh(store, clean, used)
        _check_absent(name, store, clean, used)
        augmented = [
            store.row_of().get((ids[number], view), clean[number])
            for number, view in zip(owner.tolist(), views.tolist(), strict=True)
        ]
        rows = np.concatenate([clean, np.array(augmented, dtype=np.int64)])
        parts[name] = CachedFeatures(store, rows, pick_device(device))
    split = np.split(len(used) + np.arange(len(owner)), np.searchsorted(owner, np.arange(1, len(used))))
    return Data(
        manifest=used,
        features=joined(list(parts.values())),
        parts=parts,
        classes=classes,
        labels=np.concatenate([labels, labels[owner]]),
        views=tuple(np.concatenate([[row], part]) for row, part in enumerate(split)),
        missing=tuple(labelled["id"][~has_frames]),
    )


def _views(stores: list[EmbeddingStore], ids: list[str], recipe: Recipe) -> tuple[RowNumbers, RowNumbers]:
    """The augmented views that the recipe uses: numbers in `ids`, ascending, and the views' own numbers."""
    if recipe.views == RecipeViews():
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    number = {id_: i for i, id_ in enumerate(ids)}
    found = sorted(
        {(number[id_], view) for store in stores for id_, view in store.row_of() if view and id_ in number}
    )
    if not found:
        raise ValueError(
            f"{' and '.join(str(store.path) for store in stores)} has no views of these rows, but the "
            "recipe's `views` asks for them: extract with `views` in the backbone's config, or take `views` "
            "out of the recipe"
        )
    table = np.array(found, dtype=np.int64)
    return table[:, 0], table[:, 1]


def check_modality(name: str, is_text: bool, source: str) -> None:
    """Raise ValueError when a fusion head would be given text as audio, or audio as text."""
    if name in ("audio", "text") and is_text != (name == "text"):
        raise ValueError(
            f"{source} holds frames of {'text' if is_text else 'audio'}, and the recipe reads it as "
            f"{name}; `backbones` names the one of audio first, then the one of text"
        )


def _check_absent(name: str, store: EmbeddingStore, rows: RowNumbers, manifest: pd.DataFrame) -> None:
    """Raise ValueError when rows lack a modality only because it was not extracted."""
    if name not in ("audio", "text") or (rows != ABSENT).all():
        return
    lacking = manifest[rows == ABSENT]
    if name == "text":
        texts = lacking["text"] if "text" in lacking else pd.Series(None, index=lacking.index, dtype=object)
        lacking = lacking[[isinstance(text, str) and bool(text.strip()) for text in texts]]
    known = quarantined_ids(quarantine_path(store.path))
    if forgotten := [id_ for id_ in lacking["id"] if id_ not in known]:
        raise ValueError(
            f"{store.path} has no frames of {len(forgotten)} rows that have {name}, the first is "
            f"{forgotten[0]!r}, and its quarantine does not list them; extract again with the manifest that "
            "you train with"
        )


def check_fresh(store: EmbeddingStore, rows: RowNumbers, manifest: pd.DataFrame) -> None:
    """Raise ValueError when frames are of other audio or text than the manifest's rows of the same id."""
    texts = manifest["text"] if "text" in manifest else [None] * len(manifest)
    for row, id_, sha256, text in zip(rows.tolist(), manifest["id"], manifest["sha256"], texts, strict=True):
        key = str(store.content_key[row]) if row != ABSENT else sha256
        if key != sha256 and (text is None or key != hashlib.sha256(str(text).encode()).hexdigest()):
            raise ValueError(
                f"{store.path}: the frames of {id_!r} are of other content than the manifest's; "
                "extract again with this manifest: only what changed is redone"
            )
