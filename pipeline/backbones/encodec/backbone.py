"""EnCodec frames (arXiv 2210.13438), from the encoder or from its codebooks."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from stillwave.heads.devices import send
from stillwave.heads.masks import on_host
from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.backbones.config import PretrainedConfig
from stillwave.pipeline.backbones.encodec.batch import cut, item_volumes, joined, take_lengths
from stillwave.pipeline.backbones.encodec.models import (
    HOP_LENGTH,
    MODELS,
    SIZES,
    Codec,
    draw_codebooks,
    fold_weight_norm,
    num_codebooks,
)
from stillwave.pipeline.backbones.encodec.package import PACKAGE_FILES, PACKAGE_URL, from_package
from stillwave.pipeline.backbones.numerics import compute_in
from stillwave.pipeline.backbones.weights import load_pretrained, random_weights

VOLUME_EPSILON = 1e-8
SEGMENTS_AT_ONCE = 4  # on a CPU, larger batches take longer per segment


class EncodecConfig(PretrainedConfig):
    """EnCodec's encoder: the 24 kHz mono or the 48 kHz stereo model.

    model: which of the two. implementation: whose code runs; with the same weights the frames are the same.
    weights: `published` (facebook/encodec_24khz or _48khz on the hub, or the file that the package
        downloads), a local folder in the implementation's own format, a hub id (transformers only), `random`.
    embedding: `encoder`, the frames before the quantizer, or `quantized`, the sum of their codebook entries.
    bandwidth: kbps, which sets the number of codebooks; for `quantized` only.
    """

    kind: Literal["encodec"]
    model: Literal["24khz", "48khz"] = "24khz"
    implementation: Literal["transformers", "encodec"] = "transformers"
    weights: str = Field("published", min_length=1)
    sha256: None = None
    size: Literal["tiny", "base"] = "base"
    layers: Literal["last"] = "last"
    compile: Literal[False] = False  # breaks the graph at every convolution: minutes, with no gain
    embedding: Literal["encoder", "quantized"] = "encoder"
    bandwidth: float = 6.0

    @model_validator(mode="after")
    def _bandwidth_of_the_model(self) -> "EncodecConfig":
        allowed = MODELS[self.model]["target_bandwidths"]
        if self.bandwidth not in allowed:
            names = ", ".join(f"{kbps:g}" for kbps in allowed)
            raise ValueError(f"bandwidth {self.bandwidth:g} kbps: model {self.model} has {names}")
        if self.embedding == "quantized" and self.precision != "fp32":
            raise ValueError(
                f"precision {self.precision} with embedding `quantized`: rounding would change which "
                "codebook entry is nearest; use precision fp32, or embedding `encoder`"
            )
        return self

    @property
    def source(self) -> str:
        if self.weights != "published":
            return self.weights
        if self.implementation == "encodec":
            return PACKAGE_URL + PACKAGE_FILES[self.model]
        return f"facebook/encodec_{self.model}"

    def fingerprint_fields(self) -> dict[str, Any]:
        unused = {"bandwidth": None} if self.embedding == "encoder" else {}
        return super().fingerprint_fields() | unused


class Encodec(Backbone):
    """Frames of 320 samples: 75 per second of 24 kHz mono, 150 of 48 kHz stereo.

    The 24 kHz model takes a whole recording and is causal from the seventh frame on: the first frames also
    see a reflection of what follows. The 48 kHz model takes segments of 1 s that start every 0.99 s, each
    divided by the RMS of its mono mix; the segments' frames are concatenated, so 1.5 of each 150 repeat what
    the segment before has shown. The last segment has the remaining length.

    The models reflect the ends of their input, and the norms of the 48 kHz model average over it. So on a CPU
    only segments of equal length share a batch, and nothing is padded. On a GPU all segments of a batch are
    computed together, and each is reflected at its own ends and averaged over its own length: see batch.py.
    Before a quantizer none share a batch: rounding that depends on the batch could change which codebook
    entry is nearest.

    Gradients pass a quantizer straight through (arXiv 1308.3432); the codebooks themselves have none.
    """

    config_type = EncodecConfig
    config: EncodecConfig
    modality = "audio"
    version = 1
    sample_rate: int
    hop_length = HOP_LENGTH
    first_centre = HOP_LENGTH / 2

    def __init__(self, config: EncodecConfig, codec: Codec | None = None) -> None:
        """codec: used instead of `config.weights`."""
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
        longest = max(size for _, _, size in places)
        return self._encode(cut(waveforms, rows, starts, sizes, longest), sizes)

    def _encode_by_size(self, waveforms: Tensor, places: Sequence[tuple[int, int, int]]) -> Tensor:
        """The same, from small batches of segments of one size; with a quantizer, one segment at a time."""
        groups: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, start, size in places:
            groups[size].append((row, start))
        encoded: dict[tuple[int, int], Tensor] = {}
        for size, group in groups.items():
            for first in range(0, len(group), self.at_once):
                some = group[first : first + self.at_once]
                chunk = torch.stack([waveforms[row, start : start + size].T for row, start in some])
                encoded |= zip(some, self._encode(chunk, None), strict=True)
        return nn.utils.rnn.pad_sequence([encoded[row, start] for row, start, _ in places], batch_first=True)

    def _encode(self, values: Tensor, sizes: Tensor | None) -> Tensor:
        """(segments, channels, samples), their sizes or None for all -> (segments, frames, dim) fp32."""
        if self.normalize:
            values = values / (VOLUME_EPSILON + item_volumes(values, sizes))
        if sizes is None:
            values = self.encoder(values)
        else:
            for layer in self._layers():
                values, sizes = layer(values, sizes)
        if self.quantizer is not None:
            nearest = self.quantizer.decode(self.quantizer.encode(values.detach()))
            values = nearest + (values - values.detach())  # exactly `nearest`, with the gradient of `values`
        return values.transpose(1, 2).float()

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The first convolution, then every residual block, convolution and LSTM; codebooks do not train."""
        return [[layer] for layer in self._layers() if [*layer.parameters()]]

    def _layers(self) -> Any:
        return next(self.encoder.children())  # a ModuleList in one implementation, a Sequential in the other

    def frame_times(self, num_frames: int) -> Tensor:
        """As for any backbone; at 48 kHz, times step back where a segment starts before the last one ends."""
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
        preprocessing = {"volume_epsilon": VOLUME_EPSILON}
        more = {"architecture": MODELS[self.config.model], "preprocessing": preprocessing}
        return super().fingerprint() | more


def load_codec(config: EncodecConfig) -> Codec:
    """The model of `config`, weight norm folded, with the codebooks of `bandwidth`; ValueError if none."""
    if config.implementation == "transformers":
        codec = _from_transformers(config)
    else:
        codec = from_package(config.model, config.weights, config.size, config.seed, config.download)
    fold_weight_norm(codec.encoder)
    # By default, both implementations encode with all their codebooks.
    codec.quantizer.layers = codec.quantizer.layers[: num_codebooks(config.model, config.bandwidth)]
    return codec


def _from_transformers(config: EncodecConfig) -> Codec:
    import transformers

    expected = MODELS[config.model]
    if config.weights == "random":
        architecture = transformers.EncodecConfig(**expected, **SIZES[config.size])
        model: Any = random_weights(
            config.seed, lambda: draw_codebooks(transformers.EncodecModel(architecture), config.model)
        )
    else:
        model, _ = load_pretrained(config, transformers.EncodecModel, ("decoder.",), attention="eager")
        for field, value in expected.items():
            found = getattr(model.config, field)
            if (list(found) if isinstance(found, tuple) else found) != value:
                raise ValueError(
                    f"`weights` {config.source}: its config.json says {field} {found!r}, but EnCodec "
                    f"{config.model} has {value!r}: check that `model` fits these weights"
                )
    return Codec(model.encoder, model.quantizer, model.config.hidden_size)
