"""The planned contents of a store: rows of a manifest and their views, frame counts, and sources."""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillwave.cache import Item, Row
from stillwave.pipeline.audio.augment import Effects, apply, draw, length_after, view_key
from stillwave.pipeline.audio.decode import BadAudio, Decoder, content_key, resampled_length
from stillwave.pipeline.audio.segments import Span, content_of, load_waveform, span_of
from stillwave.pipeline.backbones import Backbone
from stillwave.pipeline.config.views import ViewsConfig
from stillwave.pipeline.corpora.quarantine import Quarantined
from stillwave.pipeline.corpora.spelling import nfc


class Source(NamedTuple):
    """The source of one distinct item, and the number of its samples or tokens.

    text: for a text backbone; then there is no audio to read. effects: for a view; None for clean audio.
    """

    id: str
    path: str
    text: str | None
    sha256: str  # of the audio file's bytes, or of the text
    length: int
    effects: Effects | None = None
    decoder: Decoder = "libsndfile"
    span: Span | None = None  # the part of the file
    content_of_span: str | None = None

    @property
    def content(self) -> str:
        """What the clean row depends on, whoever decodes it: the sha256, or that of the span."""
        return self.content_of_span or self.sha256

    @property
    def content_key(self) -> str:
        """The key of the clean row in a store."""
        return self.sha256 if self.text is not None else content_key(self.content, self.decoder)


def plan_rows(
    backbone: Backbone, manifest: pd.DataFrame, views: ViewsConfig | None
) -> tuple[list[Row], dict[Item, Source], list[Quarantined]]:
    """The frame counts of all rows and their views, before any file is read.

    Rows that cannot have frames are quarantined. Items of equal content share the source of their first row.
    """
    rows: list[Row] = []
    sources: dict[Item, Source] = {}
    quarantined: list[Quarantined] = []
    for record in manifest.to_dict("records"):
        for item, source in _sources(backbone, record, views):
            if isinstance(source, Quarantined):
                quarantined.append(source)
                continue
            sources.setdefault(item, source)
            rows.append(Row(source.id, item, backbone.num_frames(source.length)))
    return rows, sources, quarantined


def load(backbone: Backbone, source: Source) -> NDArray[Any] | str:
    """The waveform or token ids of a source, or the reason for none, as `reason: detail`."""
    if source.text is not None:
        return np.array(backbone.tokenize(source.text), dtype=np.int64)
    assert backbone.sample_rate is not None
    try:
        waveform = load_waveform(
            source.path,
            backbone.sample_rate,
            expected_sha256=source.sha256,
            channels=backbone.channels,
            decoder=source.decoder,
            span=source.span,
        )
    except BadAudio as error:
        return str(error)
    if source.effects is not None:
        waveform = apply(waveform, backbone.sample_rate, source.effects)
    if len(waveform) != source.length:
        return f"changed: {len(waveform)} samples, {source.length} planned; run prepare again"
    return waveform


def _sources(
    backbone: Backbone, record: dict[Any, Any], views: ViewsConfig | None
) -> Iterator[tuple[Item, Source | Quarantined]]:
    """The clean source of a row and, if it has frames, those of its views; or the reason for none."""
    if backbone.modality == "text":
        yield _text_source(backbone, record)
        return
    assert backbone.sample_rate is not None
    id_, path, sha256 = str(record["id"]), str(record["path"]), str(record["sha256"])
    if not path:
        yield Item("", 0), Quarantined(id_, path, "extract", "no_audio", "a row of text alone")
        return
    decoder: Decoder = "ffmpeg" if record.get("decoder") == "ffmpeg" else "libsndfile"
    span, content = span_of(record), content_of(record)
    key = content_key(content, decoder)
    clean = resampled_length(int(record["num_samples"]), int(record["sample_rate"]), backbone.sample_rate)
    for view in range(1 + (views.count if views else 0)):
        item, effects, length = Item(key, 0), None, clean
        if views and view:
            effects = draw(views, content, view)
            item, length = Item(view_key(key, view, views), view), length_after(clean, effects)
        if backbone.num_frames(length) >= 1:
            yield item, Source(id_, path, None, sha256, length, effects, decoder, span, span and content)
            continue
        detail = in_view(view, f"{length} samples at {backbone.sample_rate} Hz: less than one frame")
        yield item, Quarantined(id_, path, "extract", "too_short", detail)
        if view == 0:
            return


def in_view(view: int, detail: str) -> str:
    """The detail, with the view that it concerns."""
    return f"view {view}: {detail}" if view else detail


def _text_source(backbone: Backbone, record: dict[Any, Any]) -> tuple[Item, Source | Quarantined]:
    id_, path, text = str(record["id"]), str(record["path"]), record.get("text")
    try:
        if not isinstance(text, str) or not text.strip():
            raise ValueError("no text in the manifest's column `text`")
        text = nfc(text)  # its key, too: another form of the same text is the same text
        length = len(backbone.tokenize(text))
    except ValueError as error:
        return Item("", 0), Quarantined(id_, path, "extract", "bad_text", str(error))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Item(sha256, 0), Source(id_, path, text, sha256, length)
