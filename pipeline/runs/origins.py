"""Where the rows of one modality come from: a store, or the manifest's own audio and text."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from stillwave.cache import EmbeddingStore
from stillwave.pipeline.audio.decode import content_key
from stillwave.pipeline.backbones import Backbone
from stillwave.pipeline.backbones.fingerprint import is_of_text
from stillwave.pipeline.config.train import Finetune
from stillwave.pipeline.corpora.manifest import contents
from stillwave.pipeline.corpora.quarantine import quarantine_path, quarantined_ids
from stillwave.pipeline.corpora.spelling import nfc
from stillwave.pipeline.extract.rows import plan_rows
from stillwave.pipeline.runs.features import ABSENT, CachedFeatures, Part, RowNumbers
from stillwave.pipeline.runs.waveforms import LiveFeatures

Key = tuple[str, int]  # id and view of a row; view 0 is clean


class Origin(NamedTuple):
    """name: its name in errors. rows: by id and view, what stands for each row that it has.

    part: the features of such rows, in their order, where None means that a row lacks the modality. The
    first, clean ones are those of the manifest: ValueError if they are something else.
    """

    name: str
    rows: Mapping[Key, Any]
    part: Callable[[list[Any], pd.DataFrame], Part]


def stored(modality: str, store: EmbeddingStore, device: torch.device) -> Origin:
    """The frames in a store, by row number. ValueError if they are not of the modality."""
    is_text = is_of_text(store.fingerprint)
    _check_modality(modality, is_text, str(store.path))

    def part(found: list[int | None], manifest: pd.DataFrame) -> Part:
        rows = np.array([ABSENT if row is None else row for row in found], dtype=np.int64)
        clean = rows[: len(manifest)]
        check_fresh(store, clean, manifest)
        if modality != "frames":
            _check_absent(is_text, store, manifest[clean == ABSENT])
        return CachedFeatures(store, rows, device)

    return Origin(str(store.path), store.row_of(), part)


def live(
    modality: str,
    name: str,
    encoder: Backbone,
    manifest: pd.DataFrame,
    finetune: Finetune | None,
    device: torch.device,
) -> Origin:
    """The inputs of a backbone, whose config is called `name`, from a manifest. ValueError as in `stored`."""
    name = f"the backbone {name}"
    _check_modality(modality, encoder.modality == "text", name)
    rows, items, _ = plan_rows(encoder, manifest, None)
    sources = {(row.id, row.item.view): items[row.item] for row in rows}
    return Origin(name, sources, lambda found, _: LiveFeatures(encoder, found, device, finetune))


def check_fresh(store: EmbeddingStore, rows: RowNumbers, manifest: pd.DataFrame) -> None:
    """Raise ValueError if frames were made from other audio or text than the manifest's rows of that id."""
    texts = manifest["text"] if "text" in manifest else [None] * len(manifest)
    decoders = manifest["decoder"] if "decoder" in manifest else [None] * len(manifest)
    expected = map(content_key, contents(manifest), decoders)
    for row, id_, wanted, text in zip(rows.tolist(), manifest["id"], expected, texts, strict=True):
        key = str(store.content_key[row]) if row != ABSENT else wanted
        if key != wanted and (text is None or key != hashlib.sha256(nfc(str(text)).encode()).hexdigest()):
            raise ValueError(
                f"{store.path}: the frames of {id_!r} were made from other content than the manifest's; "
                "extract again with this manifest: only what changed is redone"
            )


def _check_modality(name: str, is_text: bool, source: str) -> None:
    """Raise ValueError if a fusion head would get text as audio, or audio as text."""
    if name in ("audio", "text") and is_text != (name == "text"):
        raise ValueError(
            f"{source} holds frames of {'text' if is_text else 'audio'}, but the recipe reads it as "
            f"{name}; list the audio backbone first in `backbones`, then the text one"
        )


def _check_absent(is_text: bool, store: EmbeddingStore, lacking: pd.DataFrame) -> None:
    """Raise ValueError if rows lack text, or audio, only because it was not extracted."""
    if lacking.empty:
        return
    if is_text:
        texts = lacking["text"] if "text" in lacking else pd.Series(None, index=lacking.index, dtype=object)
        lacking = lacking[[isinstance(text, str) and bool(text.strip()) for text in texts]]
    known = quarantined_ids(quarantine_path(store.path))
    if forgotten := [id_ for id_ in lacking["id"] if id_ not in known]:
        what = "text" if is_text else "audio"
        raise ValueError(
            f"{store.path} has no frames of {len(forgotten)} rows that have {what}, the first is "
            f"{forgotten[0]!r}, and its quarantine does not list them; extract again with the manifest that "
            "you train with"
        )
