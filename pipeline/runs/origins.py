"""Where the rows of one modality come from: a store, or the manifest's own audio and text."""

import hashlib
from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.backbones import Backbone
from stillwave.pipeline.backbones.device import pick_device
from stillwave.pipeline.backbones.fingerprint import is_of_text
from stillwave.pipeline.config.train import Finetune
from stillwave.pipeline.corpora.quarantine import quarantine_path, quarantined_ids
from stillwave.pipeline.extract.rows import plan_rows
from stillwave.pipeline.runs.features import ABSENT, CachedFeatures, Part, RowNumbers
from stillwave.pipeline.runs.waveforms import LiveFeatures

Key = tuple[str, int]  # id and view of a row; view 0 is clean


class Origin(Protocol):
    """name: as errors call it. keys: of the rows and views that it has."""

    name: str

    @property
    def keys(self) -> Collection[Key]: ...

    def part(self, keys: Sequence[Key | None], manifest: pd.DataFrame) -> Part:
        """Rows by their keys, in that order; None is one that lacks the modality.

        manifest: what the first of them, clean, should be. Raises ValueError where they are something else.
        """
        ...


class StoredFrames:
    """The frames in a store. modality: what they stand for. ValueError where they are of the other one."""

    def __init__(self, modality: str, store: EmbeddingStore, device: str) -> None:
        self.name, self.keys = str(store.path), store.row_of()
        self.modality, self.store, self.device = modality, store, device
        _check_modality(modality, is_of_text(store.fingerprint), self.name)

    def part(self, keys: Sequence[Key | None], manifest: pd.DataFrame) -> CachedFeatures:
        rows = np.array([ABSENT if key is None else self.keys[key] for key in keys], dtype=np.int64)
        clean = rows[: len(manifest)]
        check_fresh(self.store, clean, manifest)
        _check_absent(self.modality, self.store, manifest[clean == ABSENT])
        return CachedFeatures(self.store, rows, pick_device(self.device))


class LiveInputs:
    """What a backbone reads of rows of a manifest. name: of its config. modality: as of `StoredFrames`."""

    def __init__(
        self,
        modality: str,
        name: str,
        encoder: Backbone,
        manifest: pd.DataFrame,
        device: str,
        finetune: Finetune | None,
    ) -> None:
        self.name, self.encoder = f"the backbone {name}", encoder
        self.device, self.finetune = device, finetune or Finetune()
        _check_modality(modality, encoder.modality == "text", self.name)
        rows, items, _ = plan_rows(encoder, manifest, None)
        self.keys = {(row.id, row.item.view): items[row.item] for row in rows}

    def part(self, keys: Sequence[Key | None], manifest: pd.DataFrame) -> LiveFeatures:
        sources = [None if key is None else self.keys[key] for key in keys]
        return LiveFeatures(self.encoder, sources, pick_device(self.device), self.finetune)


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


def _check_modality(name: str, is_text: bool, source: str) -> None:
    """Raise ValueError when a fusion head would be given text as audio, or audio as text."""
    if name in ("audio", "text") and is_text != (name == "text"):
        raise ValueError(
            f"{source} holds frames of {'text' if is_text else 'audio'}, and the recipe reads it as "
            f"{name}; `backbones` names the one of audio first, then the one of text"
        )


def _check_absent(name: str, store: EmbeddingStore, lacking: pd.DataFrame) -> None:
    """Raise ValueError when rows lack a modality only because it was not extracted."""
    if name not in ("audio", "text") or lacking.empty:
        return
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
