"""EnCodec frames (arXiv 2210.13438): of the encoder, or of its codebooks."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stillwave.heads.devices import send
from stillwave.heads.masks import on_host
from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.backbones.encodec_batch import cut, item_volumes, joined, take_lengths
from stillwave.pipeline.backbones.encodec_models import HOP_LENGTH, MODELS, Codec
from stillwave.pipeline.backbones.encodec_weights import load_codec
from stillwave.pipeline.backbones.numerics import compute_in
from stillwave.pipeline.backbones.weights import weights_sha256
from stillwave.pipeline.config.backbone import EncodecConfig

VOLUME_EPSILON = 1e-8
SEGMENTS_AT_ONCE = 4  # a CPU takes longer for each in a larger batch


class Encodec(Backbone):
    """Frames of 320 samples: 75 per second of 24 kHz mono, 150 of 48 kHz stereo.

    The 24 kHz model takes a recording whole and is causal from the seventh frame on: the first ones also see
    a reflection of what follows. The 48 kHz model takes segments of 1 s that begin every 0.99 s, each divided
    by the RMS of its mono mix; the segments' frames follow one another, so 1.5 of each 150 show what the
    segment before has shown. The last segment has the length that is left.

    The models reflect the ends of what they get, and the norms of the 48 kHz model average over it. So on a
    CPU only segments of one length meet in a batch, and nothing is padded. On a GPU all segments of a batch
    meet, and each is reflected at its own ends and averaged over its own length: see encodec_batch.py. Before
    a quantizer none meet: rounding that depends on the batch could change which codebook entry is nearest.

    Gradients pass a quantizer straight through (arXiv 1308.3432); the codebooks themselves have none.
    """

    modality = "audio"
    version = 1
    sample_rate: int
    hop_length = HOP_LENGTH
    first_centre = HOP_LENGTH / 2

    def __init__(self, config: EncodecConfig, codec: Codec | None = None) -> None:
        """codec: to use instead of what `config.weights` names."""
        super().__init__()
        codec = codec or load_codec(config)
        self.config = config
        self.libraries = ("torch", config.implementation)
        self.encoder = codec.encoder
        take_lengths(self._layers())
        self.quantizer = codec.quantizer if config.embedding == "quantized" else None
        self.at_once = SEGMENTS_AT_ONCE if self.quantizer is None else 1
        self.dim = codec.dim
        model = MODELS[config.model]
        self.sample_rate = model["sampling_rate"]
        self.channels = model["audio_channels"]
        self.normalize: bool = model["normalize"]
        self.segment_length: int | None = None
        if model["chunk_length_s"] is not None:
            self.segment_length = int(model["chunk_length_s"] * self.sample_rate)
            self.segment_stride = int((1 - model["overlap"]) * self.segment_length)

    def num_frames(self, length: int) -> int:
        return sum(-(-size // HOP_LENGTH) for _, size in self.segments(length))

    def segments(self, length: int) -> list[tuple[int, int]]:
        """First sample and size of each segment of `length` samples; the last may be as short as one."""
        if self.segment_length is None:
            return [(0, length)] if length > 0 else []
        starts = range(0, length, self.segment_stride)
        return [(start, min(self.segment_length, length - start)) for start in starts]

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        sizes = lengths.tolist()
        if min(sizes) < 1:
            raise ValueError("an item of 0 samples has no frame: leave out items whose num_frames is 0")
        waveforms = batch.view(*batch.shape[:2], self.channels)
        places = [(row, *segment) for row, size in enumerate(sizes) for segment in self.segments(size)]
        counts = torch.tensor([self.num_frames(size) for size in sizes])
        with compute_in(self.config.precision, batch.device):
            if on_host(batch):
                encoded = self._encode_by_size(waveforms, places)
            elif self.quantizer is None:
                encoded = self._encode_at_once(waveforms, places)
            else:
                alone = [self._encode_at_once(waveforms, [place])[0] for place in places]
                encoded = nn.utils.rnn.pad_sequence(alone, batch_first=True)
        segments = torch.tensor([-(-size // HOP_LENGTH) for _, _, size in places])
        return Frames(joined(encoded, segments, counts), send(counts, batch.device))

    def _encode_at_once(self, waveforms: Tensor, places: Sequence[tuple[int, int, int]]) -> Tensor:
        """(segments, frames of the longest, dim) fp32, from one batch of all segments.

        waveforms: (batch, samples, channels). places: row, first sample and size of each segment.
        """
        rows, starts, sizes = send(torch.tensor(places), waveforms.device).unbind(1)
        values = cut(waveforms, rows, starts, sizes, max(size for _, _, size in places))
        if self.normalize:
            values = values / (VOLUME_EPSILON + item_volumes(values, sizes))
        for layer in self._layers():
            values, sizes = layer(values, sizes)
        return self._finished(values)

    def _encode_by_size(self, waveforms: Tensor, places: Sequence[tuple[int, int, int]]) -> Tensor:
        """The same from batches of few segments, all of one size, and with a quantizer of a single one."""
        groups: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, start, size in places:
            groups[size].append((row, start))
        encoded: dict[tuple[int, int], Tensor] = {}
        for size, group in groups.items():
            for first in range(0, len(group), self.at_once):
                some = group[first : first + self.at_once]
                chunk = torch.stack([waveforms[row, start : start + size].T for row, start in some])
                encoded |= zip(some, self._encode(chunk), strict=True)
        return nn.utils.rnn.pad_sequence([encoded[row, start] for row, start, _ in places], batch_first=True)

    def _encode(self, segments: Tensor) -> Tensor:
        """(segments, channels, samples), all of them valid -> (segments, frames, dim) fp32."""
        if self.normalize:
            volume = segments.mean(1, keepdim=True).square().mean(2, keepdim=True).sqrt()
            segments = segments / (VOLUME_EPSILON + volume)
        return self._finished(self.encoder(segments))

    def _finished(self, values: Tensor) -> Tensor:
        """The encoder's (segments, dim, frames), quantized if asked for -> (segments, frames, dim) fp32."""
        if self.quantizer is not None:
            nearest = self.quantizer.decode(self.quantizer.encode(values.detach()))
            values = nearest + (values - values.detach())  # exactly `nearest`, with the gradient of `values`
        return values.transpose(1, 2).float()

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The first convolution, then every residual block, convolution and LSTM; codebooks do not train."""
        return [[layer] for layer in self._layers() if [*layer.parameters()]]

    def _layers(self) -> Any:
        return next(self.encoder.children())  # a list in one implementation, a sequence in the other

    def frame_times(self, num_frames: int) -> Tensor:
        """As for any backbone; at 48 kHz, times step back where a segment begins before the last one ends."""
        if self.segment_length is None:
            return super().frame_times(num_frames)
        per_segment = self.segment_length // HOP_LENGTH
        index = torch.arange(num_frames, dtype=torch.float64)
        segment, within = (index / per_segment).floor(), index % per_segment
        if num_frames and num_frames % per_segment == 0:  # only a segment of 149 and one of 1 end like this
            segment[-1], within[-1] = num_frames // per_segment, 0
        samples = self.first_centre + self.segment_stride * segment + HOP_LENGTH * within
        return samples / self.sample_rate

    def fingerprint(self) -> dict[str, Any]:
        return {
            "kind": self.config.kind,
            "version": self.version,
            "config": self.config.fingerprint_fields(),
            "weights": weights_sha256(self),
            "architecture": MODELS[self.config.model],
            "preprocessing": {"volume_epsilon": VOLUME_EPSILON},
        }
