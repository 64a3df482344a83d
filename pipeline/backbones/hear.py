"""Any module with the HEAR API (arXiv 2203.03022) as a backbone."""

import hashlib
import importlib
import inspect
from bisect import bisect_left
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.backbones.config import BackboneConfig
from stillwave.pipeline.backbones.numerics import compute_in
from stillwave.pipeline.backbones.weights import random_weights, weights_sha256

PROBE_S = 4  # seconds of silence for finding a module's frame counts


class HearConfig(BackboneConfig):
    """A PyTorch module with `load_model` and `get_timestamp_embeddings` (arXiv 2203.03022).

    precision: always fp32, because the module controls its own arithmetic.
    module: dotted name, such as hearbaseline.wav2vec2. Importing it runs its code.
    model_file: passed to its `load_model`; empty means the module's default.
    max_batch: items of equal length to pass to it at once. Use more than 1 only for modules known not to mix
        the items of a batch; it is in the fingerprint, because this cannot be checked here.
    """

    kind: Literal["hear"]
    precision: Literal["fp32"] = "fp32"  # a third-party module controls its own arithmetic
    module: str = Field(min_length=1)
    model_file: str = ""
    max_batch: int = Field(1, ge=1)

    def imports(self) -> str:
        return f"kind hear imports {self.module}"

    # The fingerprint has the file's content instead.
    not_in_fingerprint = BackboneConfig.not_in_fingerprint | {"model_file"}


class Hear(Backbone):
    """Timestamp embeddings of a HEAR module, unchanged.

    Items are passed one by one and without padding, so its handling of batches does not matter. The API does
    not say how many frames a length gives, so that is measured at loading, on silence of up to 4 s: the
    lengths at which the 1st to 4th frame appear. If these are evenly spaced, all further ones are assumed to
    be, and every forward checks it; if not, each new length costs a run on silence of that length. Weights
    that the module draws at random are drawn under a fixed seed.
    """

    config_type = HearConfig
    config: HearConfig
    modality = "audio"
    version = 1
    concurrent = False  # a third-party module may not be thread-safe

    def __init__(self, config: HearConfig) -> None:
        super().__init__()
        self.config = config
        self.module = _import(config.module)
        arguments = (config.model_file,) if config.model_file else ()
        self.model: Any = random_weights(0, lambda: self.module.load_model(*arguments))
        if isinstance(self.model, nn.Module):
            self.model.eval()  # before it is probed: batch norm in training mode would learn from silence
        self.sample_rate: int = int(self.model.sample_rate)
        self.dim = int(self.model.timestamp_embedding_size)
        self.counts: dict[int, int] = {0: 0}  # samples -> frames, for the lengths tried
        with torch.no_grad():
            embeddings, times = self._run(self._silence(PROBE_S * self.sample_rate))
        self.counts[PROBE_S * self.sample_rate] = count = embeddings.shape[1]
        if count < 4:
            raise ValueError(
                f"HEAR module {config.module}: {count} timestamps in {PROBE_S} s; "
                f"frames need at least 4, which is one per {PROBE_S / 4} s"
            )
        first_ms, last_ms = float(times[0, 0]), float(times[0, -1])
        self.first_centre = first_ms * self.sample_rate / 1000
        self.hop_length = (last_ms - first_ms) * self.sample_rate / 1000 / (count - 1)
        # The fewest samples that give 1, 2, 3 and 4 frames.
        self.steps = [
            bisect_left(range(PROBE_S * self.sample_rate), k, key=self._count) for k in (1, 2, 3, 4)
        ]
        self.regular = self.steps[3] - self.steps[2] == self.steps[2] - self.steps[1] > 0
        self.regular = self.regular and self.num_frames(PROBE_S * self.sample_rate) == count

    def num_frames(self, length: int) -> int:
        first, second, third, _ = self.steps
        if length < second:
            return int(length >= first)
        if self.regular:
            return 2 + (length - second) // (third - second)
        return self._count(length)

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        sizes = lengths.tolist()
        frames: dict[int, Tensor] = {}
        for length in sorted(set(sizes)):
            rows = [row for row, size in enumerate(sizes) if size == length]
            for start in range(0, len(rows), self.config.max_batch):
                part = rows[start : start + self.config.max_batch]
                embeddings, _ = self._run(batch[part, :length])
                if embeddings.shape[1] != self.num_frames(length):
                    raise ValueError(
                        f"HEAR module {self.config.module}: {embeddings.shape[1]} timestamps for an item of "
                        f"{length} samples; {self.num_frames(length)} were planned, from its counts for "
                        "silence: they must depend on the length alone"
                    )
                frames.update(zip(part, embeddings, strict=True))
        values = nn.utils.rnn.pad_sequence([frames[row] for row in range(len(sizes))], batch_first=True)
        counts = [len(frames[row]) for row in range(len(sizes))]
        return Frames(values, torch.tensor(counts, device=values.device))

    def _run(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, samples) -> the module's embeddings (batch, frames, dim) and timestamps, checked."""
        with compute_in("fp32", waveforms.device):
            embeddings, times = self.module.get_timestamp_embeddings(waveforms, self.model)
        if not isinstance(embeddings, Tensor) or not isinstance(times, Tensor):
            raise ValueError(
                f"HEAR module {self.config.module}: it returns {type(embeddings).__name__}, not "
                "torch.Tensor; modules of other frameworks cannot be used"
            )
        expected = (len(waveforms), times.shape[-1], self.dim)
        if embeddings.shape != expected:
            raise ValueError(
                f"HEAR module {self.config.module}: embeddings of shape {tuple(embeddings.shape)}, but its "
                f"timestamps and `timestamp_embedding_size` say {expected}"
            )
        return embeddings.float(), times

    def _count(self, length: int) -> int:
        """Frames for `length` samples of silence; 0 if the module fails on less than 4 s."""
        if length not in self.counts:
            try:
                with torch.no_grad():
                    embeddings, _ = self._run(self._silence(length))
                self.counts[length] = embeddings.shape[1]
            except Exception:  # modules raise different errors for too little audio
                if length > PROBE_S * self.sample_rate:
                    raise
                self.counts[length] = 0
        return self.counts[length]

    def _silence(self, length: int) -> Tensor:
        """(1, length) zeros on the model's device."""
        tensors = self.model.state_dict().values() if isinstance(self.model, nn.Module) else ()
        return torch.zeros(1, length, device=next((tensor.device for tensor in tensors), None))

    def hold_weights(self, precision: str) -> None:
        """Do nothing: a third-party module controls its own arithmetic."""

    def fingerprint(self) -> dict[str, Any]:
        """The model, the module's file, and its package's version, which stands in for its other imports."""
        return {
            "kind": self.config.kind,
            "version": self.version,
            "config": self.config.fingerprint_fields(),
            "weights": weights_sha256(self.model) if isinstance(self.model, nn.Module) else None,
            "model_file": _content(self.config.model_file),
            "preprocessing": {
                "sample_rate": self.sample_rate,
                "packages": _packages(self.config.module.partition(".")[0]),
                "source": _content(inspect.getsourcefile(self.module) or ""),
            },
        }


def _import(name: str) -> ModuleType:
    """The module `name`; ValueError if there is none, or it is not a HEAR module."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"`module` {name}: cannot be imported: {error}; install its package, or put its folder "
            "on PYTHONPATH"
        ) from error
    missing = [part for part in ("load_model", "get_timestamp_embeddings") if not hasattr(module, part)]
    if missing:
        raise ValueError(f"`module` {name}: has no {' and no '.join(missing)}, so it is not a HEAR module")
    return module


@cache
def _packages(top: str) -> dict[str, str]:
    """Installed packages that have the module `top`, and their versions; the search takes half a second."""
    return {name: version(name) for name in sorted(set(packages_distributions().get(top, [])))}


def _content(path: str) -> str:
    """sha256 of the file at `path`; if there is none (a folder, a hub id, nothing), `path` itself."""
    file = Path(path)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else path
