"""Waveforms and token ids for the training loop, instead of stored frames: the inputs of a live backbone."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillwave.cache.batches import pad
from stillwave.pipeline.audio.augment import apply, draw
from stillwave.pipeline.backbones import Backbone
from stillwave.pipeline.backbones.device import to_device
from stillwave.pipeline.backbones.fingerprint import fingerprint
from stillwave.pipeline.config.train import Finetune
from stillwave.pipeline.config.views import ViewsConfig
from stillwave.pipeline.extract.rows import Source, load
from stillwave.pipeline.runs.features import RESIDENT_BYTES, Part

READERS = 8  # threads that decode or augment


class _Kept:
    """Decoded rows, as long as there is room; all epochs share it."""

    def __init__(self) -> None:
        self.items: dict[int, NDArray[Any]] = {}
        self._bytes, self._lock = 0, threading.Lock()

    def add(self, row: int, item: NDArray[Any]) -> None:
        with self._lock:
            if row not in self.items and self._bytes + item.nbytes <= RESIDENT_BYTES:
                self.items[row] = item
                self._bytes += item.nbytes


class _Epoch(NamedTuple):
    """Its number, the seed of its random draws, and the effects, if any."""

    number: int
    seed: int
    effects: ViewsConfig | None


class LiveFeatures(Part):
    """Rows in a backbone's input form: decoded once and kept, as long as there is room.

    sources: for each row; None for a row that lacks the modality, whose length is 0. lengths: in frames, from
    the backbone. epoch, seed: with an epoch, rows are cut to `crop_s` and changed by `finetune.augment`,
    again in every epoch, and the same for any batch and process.
    """

    encoder: Backbone

    def __init__(
        self,
        encoder: Backbone,
        sources: list[Source | None],
        device: torch.device,
        finetune: Finetune | None,
    ) -> None:
        """ValueError if the crop is too short for a frame."""
        self.encoder, self.sources, self.device = encoder, sources, device
        self.finetune = finetune or Finetune()
        self.fingerprint, self.settings = fingerprint(encoder), encoder.config.model_dump(mode="json")
        counts = [encoder.num_frames(source.length) if source else 0 for source in sources]
        self.lengths = np.array(counts, dtype=np.int64)
        self.frame_shape = encoder.frame_shape
        self.content = [source.content_key if source else "" for source in sources]
        self._kept = _Kept()
        self._epoch: _Epoch | None = None
        crop_s, rate = self.finetune.crop_s, encoder.sample_rate
        if crop_s is not None and rate and not encoder.num_frames(round(crop_s * rate)):
            raise ValueError(
                f"finetune.crop_s {crop_s:g}: {round(crop_s * rate)} samples at {rate} Hz are too few for "
                "one frame; give a longer piece"
            )

    def of_epoch(self, epoch: int, seed: tuple[int, ...]) -> "LiveFeatures":
        """The same rows, cut and augmented for one epoch."""
        if self.encoder.modality == "text" or not (self.finetune.augment or self.finetune.crop_s):
            return self
        changed = copy.copy(self)  # shares what was read
        drawn = int(np.random.SeedSequence(seed).generate_state(1)[0])
        effects = self.finetune.augment
        view = None if effects is None else ViewsConfig(count=1, seed=drawn, **dict(effects))
        changed._epoch = _Epoch(epoch, drawn, view)
        return changed

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """(batch, samples[, 2]) float32 or (batch, tokens) int64, zero-padded; lengths (batch,) on the host.

        The length of a row that lacks the modality is 0.

        Raises ValueError naming a file that cannot be read as it was prepared.
        """
        with ThreadPoolExecutor(READERS) as pool:
            items = list(pool.map(self._item, rows.tolist()))
        values, lengths = map(torch.from_numpy, pad(items))
        return to_device(values, self.device), lengths

    def read(self) -> None:
        """Read every row, and keep what fits. Raises ValueError like `batch`."""
        with ThreadPoolExecutor(READERS) as pool:
            for _ in pool.map(self._clean, range(len(self.sources))):
                pass

    def _item(self, row: int) -> NDArray[Any]:
        source = self.sources[row]
        item = self._clean(row)
        return item if source is None or self._epoch is None else self._changed(item, row, source)

    def _clean(self, row: int) -> NDArray[Any]:
        source = self.sources[row]
        if source is None:
            kind = np.int64 if self.encoder.modality == "text" else np.float32
            return np.zeros((0, 2) if self.encoder.channels == 2 else 0, dtype=kind)
        item = self._kept.items.get(row)
        if item is None:
            loaded = load(self.encoder, source)
            if isinstance(loaded, str):
                raise ValueError(
                    f"{source.path or source.id}: {loaded}; `stillwave prepare` could read it: run that "
                    "again, and then this"
                )
            item = loaded
            self._kept.add(row, item)
        return item

    def _changed(self, waveform: NDArray[Any], row: int, source: Source) -> NDArray[Any]:
        assert self._epoch is not None
        epoch, seed, effects = self._epoch
        rate = self.encoder.sample_rate
        assert rate is not None
        if self.finetune.crop_s and (over := len(waveform) - round(self.finetune.crop_s * rate)) > 0:
            start = int(np.random.default_rng([seed, epoch, row]).integers(over + 1))
            waveform = waveform[start : len(waveform) - over + start]
        if effects is not None:
            changed = apply(waveform, rate, draw(effects, source.content, epoch + 1))
            # Speed can leave less than a frame of a very short clip, which is then not changed.
            waveform = changed if self.encoder.num_frames(len(changed)) else waveform
        return waveform
