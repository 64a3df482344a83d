"""The data of a recipe: labelled rows of the manifest, and their frames, stored or live."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.backbones import Backbone
from stillwave.pipeline.backbones.device import pick_device
from stillwave.pipeline.config.recipe import UNKNOWN_NAME, Recipe
from stillwave.pipeline.config.train import RecipeViews
from stillwave.pipeline.corpora.manifest import contents
from stillwave.pipeline.runs.features import Features, Part, RowNumbers, joined
from stillwave.pipeline.runs.origins import Origin, live, stored
from stillwave.pipeline.runs.run import Run

UNKNOWN = -1  # the label of rows of an unknown class


@dataclass(frozen=True)
class Data:
    """The labelled rows that a recipe can use: a part of the manifest, and their frames or waveforms.

    The rows of `features` are the manifest's clean rows, followed by their views if the recipe uses views.
    """

    manifest: pd.DataFrame
    features: Features
    parts: Mapping[str, Part]  # of `features`, by modality
    classes: tuple[str, ...]
    labels: RowNumbers  # class numbers, per row of `features`; UNKNOWN for classes that are not trained
    views: tuple[RowNumbers, ...]  # for each row of the manifest: its rows of `features`, the clean one first
    missing: tuple[str, ...]  # ids with a label but without frames: quarantined by extract, or too short

    def digest(self, group: str | None = "speaker") -> str:
        """sha256 of the contents, labels, groups and folds of all rows: what a run was trained on."""
        names = dict.fromkeys(("id", "fold", "split", "withheld", "speaker", group))
        columns = [name for name in names if name in self.manifest]
        keys = [part.content for part in self.parts.values()]
        content = [" ".join(key[row] for key in keys for row in views) for views in self.views]
        table = self.manifest[columns].assign(label=self.labels[: len(self.manifest)], content=content)
        return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()

    def stores(self) -> dict[str, dict[str, Any]]:
        """The fingerprint and the frame shape of each modality: JSON-ready."""
        return {
            name: {"fingerprint": part.fingerprint, "frame_shape": list(part.frame_shape)}
            for name, part in self.parts.items()
        }

    def backbones(self) -> dict[str, dict[str, Any] | None]:
        """The backbone settings of each modality, if known: JSON-ready."""
        return {name: part.settings for name, part in self.parts.items()}

    def encoders(self) -> dict[str, Backbone]:
        """The backbone of each modality that is not stored."""
        return {name: part.encoder for name, part in self.parts.items() if part.encoder is not None}

    def recordings(self) -> list[str]:
        """What identifies each row of the manifest: its audio file, or its text if it has only that."""
        if len(self.parts) == 1:
            return next(iter(self.parts.values())).content[: len(self.manifest)]
        return contents(self.manifest)

    def absent(self) -> dict[str, int]:
        """How many rows of the manifest lack each modality."""
        return {name: part.content[: len(self.manifest)].count("") for name, part in self.parts.items()}


def labelled_rows(
    recipe: Recipe, manifest: pd.DataFrame, trained: Sequence[str] | None = None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows whose label the recipe uses, and the classes. trained: as in `load_data`."""
    if recipe.label not in manifest.columns:
        raise ValueError(
            f"label {recipe.label!r} is not a column of the manifest, which has {', '.join(manifest.columns)}"
        )
    labelled = manifest[manifest[recipe.label].notna()]
    unknown = recipe.open_set.unknown
    classes = tuple(trained or recipe.classes or sorted(set(labelled[recipe.label]) - set(unknown)))
    if trained is None and (absent := sorted({*classes, *unknown} - set(labelled[recipe.label]))):
        raise ValueError(
            f"{absent}, from `classes` or `open_set.unknown`, do not occur in the manifest's column "
            f"{recipe.label!r}, which has {sorted(set(labelled[recipe.label]))}"
        )
    if unknown and UNKNOWN_NAME in classes:
        raise ValueError(
            f"the class {UNKNOWN_NAME!r} has the name that decisions give to the rows of open_set.unknown "
            f"{unknown}; rename it in the corpus, or list it in open_set.unknown"
        )
    return labelled[labelled[recipe.label].isin([*classes, *unknown])], classes


def check_enough(used: pd.DataFrame, classes: Sequence[str], label: str, places: str) -> None:
    """Raise ValueError if the rows that have frames in `places` cannot train a classifier."""
    known = int(used[label].isin(classes).sum())
    if len(classes) < 2 or not known:
        raise ValueError(
            f"{places} has frames for {known} labelled rows of {len(classes)} classes; a head needs "
            "two. Extract with the manifest that you train with, or list more in `classes` than in "
            "`open_set.unknown`"
        )


def label_numbers(labels: Iterable[str], classes: Sequence[str]) -> RowNumbers:
    """The number of each label in `classes`; UNKNOWN for others."""
    return np.array([classes.index(x) if x in classes else UNKNOWN for x in labels], np.int64)


def load_data(
    recipe: Recipe,
    manifest: pd.DataFrame,
    embeddings: str | Path | None = None,
    device: str = "auto",
    *,
    encoders: Mapping[str, Backbone] | None = None,
    trained: Sequence[str] | None = None,
) -> Data:
    """The rows of `manifest` that have the recipe's label and frames. ValueError if they are too few.

    embeddings: the folder of their stores. encoders: instead of it, backbones by modality, which read
    waveforms and texts. trained: the classes of an existing run; this manifest need not have rows of all of
    them.
    """
    labelled, classes = labelled_rows(recipe, manifest, trained)
    place = pick_device(device)
    origins = {
        name: live(name, store, encoders[name], labelled, recipe.finetune, place)
        if encoders
        else stored(name, EmbeddingStore(f"{embeddings}/{store}.zarr"), place)
        for name, store in recipe.stores().items()
    }
    found = [any((id_, 0) in origin.rows for origin in origins.values()) for id_ in labelled["id"]]
    has_frames = np.array(found, dtype=bool)
    used = labelled[has_frames].reset_index(drop=True)
    places = " and ".join(origin.name for origin in origins.values())
    check_enough(used, classes, recipe.label, places)
    ids = used["id"].tolist()
    added = [] if recipe.views == RecipeViews() else _views(origins.values(), ids, places)
    parts = {}
    for name, origin in origins.items():
        rows = [origin.rows.get((id_, 0)) for id_ in ids]  # None: absent
        rows += [origin.rows.get((ids[row], view), rows[row]) for row, view in added]
        parts[name] = origin.part(rows, used)
    views = [[row] for row in range(len(used))]
    for number, (row, _) in enumerate(added, len(used)):
        views[row].append(number)
    labels = label_numbers(used[recipe.label], classes)
    return Data(
        manifest=used,
        features=joined(list(parts.values())),
        parts=parts,
        classes=classes,
        labels=np.concatenate([labels, labels[[row for row, _ in added]]]),
        views=tuple(np.array(rows, np.int64) for rows in views),
        missing=tuple(labelled["id"][~has_frames]),
    )


def data_of_run(
    run: Run,
    manifest: pd.DataFrame,
    *,
    embeddings: str | Path | None = None,
    backbones: str | Path | None = None,
    device: str = "auto",
    trained: Sequence[str] | None = None,
) -> Data:
    """The inputs of a run from the rows of `manifest`: stored frames, or waveforms if its backbone was
    trained.

    embeddings: folder of the stores, if they have moved since training. backbones: as of `Run.encoders`.
    """
    if run.live:
        encoders = run.encoders(backbones)
        return load_data(run.recipe, manifest, device=device, encoders=encoders, trained=trained)
    return load_data(run.recipe, manifest, embeddings or run.place("embeddings"), device, trained=trained)


def check_as_trained(run: Run, data: Data, what: str = "the manifest or the frames") -> None:
    """Raise ValueError unless `data` holds the rows and the frames that the run was trained on.

    what: their name in the error.
    """
    if data.digest(run.recipe.train.group) != run.rows or data.stores() != run.stores:
        raise ValueError(
            f"{run}: {what} changed since training, or this is another manifest: give the one that it was "
            "trained with, or train it again"
        )


def _views(origins: Iterable[Origin], ids: Sequence[str], places: str) -> list[tuple[int, int]]:
    """The existing augmented views of rows: (number in `ids`, ascending, number of the view)."""
    number = {id_: row for row, id_ in enumerate(ids)}
    found = {(number[id_], view) for one in origins for id_, view in one.rows if view and id_ in number}
    if not found:
        raise ValueError(
            f"{places} has no views of these rows, but the recipe's `views` asks for them: extract with "
            "`views` in the backbone's config, or remove `views` from the recipe"
        )
    return sorted(found)
