"""Typical scripts without a pipeline: a loop over the files, and zero-padded batches of 16."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from stillwave.cache.batches import pad
from stillwave.pipeline.backbones import Backbone, BackboneConfig, build_backbone
from stillwave.pipeline.backbones.wav2vec2 import SIZES
from stillwave.pipeline.backbones.weights import random_weights
from stillwave.pipeline.extract.rows import Source, load


class Naive:
    """Such loops over `sources`, in fp32: transformers' own model for wav2vec 2.0, ours for the others."""

    def __init__(
        self,
        config: BackboneConfig,
        backbone: Backbone,
        sources: Sequence[Source],
        device: torch.device,
        out: Path,
    ) -> None:
        self.sources, self.device, self.backbone, self.out = sources, device, backbone, out
        out.mkdir(exist_ok=True)
        self.theirs = config.kind == "wav2vec2"
        if self.theirs:
            from transformers import Wav2Vec2Config, Wav2Vec2Model

            architecture = Wav2Vec2Config(**SIZES[config.size])
            self.model: Any = random_weights(0, lambda: Wav2Vec2Model(architecture)).eval().to(device)
        else:
            precise = {"precision": "fp32"} if hasattr(config, "precision") else {}
            self.model = build_backbone(config.model_copy(update=precise)).to(device)

    def one_at_a_time(self) -> float:
        """Seconds for one file at a time."""
        started = time.perf_counter()
        with torch.inference_mode():
            for i, source in enumerate(self.sources):
                np.save(self.out / f"{i}.npy", self._frames([self._item(source)])[0].cpu().numpy())
        return time.perf_counter() - started

    def padded(self) -> float:
        """Seconds for batches: shorter clips zero-padded, no mask for transformers' model."""
        started = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, len(self.sources), 16):
                items = [self._item(source) for source in self.sources[first : first + 16]]
                for row, frames in enumerate(self._frames(items).cpu().numpy()):
                    np.save(self.out / f"padded-{first + row}.npy", frames)
        return time.perf_counter() - started

    def padding_error(self) -> float:
        """Mean relative error of a clip's frames when it is zero-padded by half, in transformers' model."""
        errors = []
        with torch.inference_mode():
            for source in self.sources[:8]:
                item = self._item(source)
                (expected,) = self._frames([item])
                (frames,) = self._frames([np.pad(item, (0, len(item) // 2))])
                errors.append(float((frames[: len(expected)] - expected).norm() / expected.norm()))
        return float(np.mean(errors))

    def _item(self, source: Source) -> Any:
        if not self.theirs:
            return load(self.backbone, source)
        values, rate = soundfile.read(source.path, dtype="float32")
        values = soxr.resample(values, rate, 16_000) if rate != 16_000 else values
        return ((values - values.mean()) / np.sqrt(values.var() + 1e-7)).astype(np.float32)

    def _frames(self, items: list[Any]) -> Tensor:
        values, lengths = map(torch.from_numpy, pad(items))
        found = self.model(values.to(self.device), *(() if self.theirs else (lengths.to(self.device),)))
        return found.last_hidden_state if self.theirs else found.values
