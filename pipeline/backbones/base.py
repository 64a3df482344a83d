"""The contract of every backbone: items in, frames out, independent of the batch."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from stillwave.heads.devices import send
from stillwave.heads.masks import on_host
from stillwave.pipeline.backbones.config import BackboneConfig
from stillwave.pipeline.backbones.numerics import hold_weights
from stillwave.pipeline.backbones.weights import weights_sha256


class Frames(NamedTuple):
    """Frame-level embeddings of a batch.

    values: (batch, frames, dim), or (batch, frames, layers, dim) when several layers are kept.
    lengths: (batch,) int64 on the same device, valid frames per item. Values beyond are unspecified.
    """

    values: Tensor
    lengths: Tensor


class Backbone(nn.Module):
    """A frozen or trainable encoder of waveforms or token ids.

    Batch invariance is part of the contract: the valid frames of an item do not depend on what else
    is in its batch (worst relative error 1e-5 in fp32).
    """

    config_type: ClassVar[type[BackboneConfig]]  # with the fields of its YAML
    config: BackboneConfig  # an object of `config_type`, the only argument of the constructor
    modality: ClassVar[Literal["audio", "text"]]
    libraries: tuple[str, ...] = ("torch",)  # installed packages whose versions the numbers depend on
    version: ClassVar[int]  # increase it if a code change alters the numbers: it is in the fingerprint
    concurrent: ClassVar[bool] = True  # whether several threads may use it at once
    dim: int
    num_layers: int = 1  # layers stored per frame; 1 means frames are (frames, dim)
    sample_rate: int | None = None  # Hz; None for text
    channels: int = 1  # for audio: 1, or 2 for waveforms (samples, 2)
    hop_length: float  # samples between the centres of two frames; audio only
    first_centre: float  # the sample at the centre of frame 0; audio only

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame: (dim,), or (layers, dim) if several layers are kept."""
        return (self.num_layers, self.dim) if self.num_layers > 1 else (self.dim,)

    def num_frames(self, length: int) -> int:
        """Number of frames for `length` samples (audio) or tokens (text); 0 if that is too short for one."""
        raise NotImplementedError

    def shortest(self, num_frames: int = 1) -> int:
        """The fewest samples or tokens that give `num_frames` frames.

        For a backbone that makes a fixed clip of every item, with fewer frames: what gives all of them.
        """
        length = 1
        while (found := self.num_frames(length)) < num_frames and length < 2**24:
            length *= 2
        return bisect_left(range(length), min(found, num_frames), key=self.num_frames)

    def frame_times(self, num_frames: int) -> Tensor:
        """(num_frames,) float64 seconds: the centre of each frame. Audio backbones only."""
        if self.sample_rate is None:
            raise ValueError(f"{type(self).__name__} encodes text: its frames have no times")
        samples = self.first_centre + self.hop_length * torch.arange(num_frames, dtype=torch.float64)
        return samples / self.sample_rate

    def tokenize(self, text: str) -> list[int]:
        """Token ids of one text, special tokens included. Text backbones only.

        ValueError, worded as a reason, for a text that the config excludes.
        """
        raise NotImplementedError

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        """Encode a zero-padded batch.

        batch: (batch, samples) float32 in [-1, 1] at `sample_rate`, with `channels` 2 (batch, samples, 2);
            or (batch, tokens) int64.
        lengths: (batch,) int64, valid samples (per channel) or tokens per item, each enough for a frame. They
            are on the host, even if the batch is on a GPU, so that the backbone can use them for planning
            without waiting for the GPU. On the GPU they work as well.
        """
        raise NotImplementedError

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """Modules from input to frames: the front end first, then one stage per layer, the last one on top.

        Fine-tuning counts layers by these. Every parameter that the frames depend on is in exactly one stage;
        parameters of layers above the last one kept are in none.
        """
        return [[*self.children()]]

    def checked(self, lengths: Tensor, device: torch.device) -> Tensor:
        """The lengths on `device`. ValueError if the host can see that an item is too short for a frame."""
        if on_host(lengths) and self.num_frames(least := int(lengths.min())) < 1:
            raise ValueError(
                f"an item of {least} samples is too short for one frame: leave out items "
                "whose num_frames is 0"
            )
        return send(lengths, device)

    def hold_weights(self, precision: str) -> None:
        """Prepare the weights for many frozen batches; frames do not change: see numerics.hold_weights."""
        hold_weights(self, precision)

    def fingerprint(self) -> dict[str, Any]:
        """What the numbers depend on, JSON-ready and the same in every process.

        kind, version, config (fields that change numbers) and weights (sha256 of what is loaded, or None);
        a subclass adds more, such as `preprocessing`. Hashes the weights at each call.
        """
        return {
            "kind": self.config.kind,
            "version": self.version,
            "config": self.config.fingerprint_fields(),
            "weights": weights_sha256(self) if self.state_dict() else None,
        }
