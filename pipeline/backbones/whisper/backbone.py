"""Whisper's encoder (arXiv 2212.04356): one frame per 20 ms of speech, whatever the batch."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stillwave.heads.devices import send
from stillwave.heads.masks import on_host, valid_mask, zero_padding
from stillwave.pipeline.backbones.base import Frames
from stillwave.pipeline.backbones.config import PretrainedConfig
from stillwave.pipeline.backbones.numerics import compute_in
from stillwave.pipeline.backbones.transformer import (
    TransformerBackbone,
    load_transformer,
    select_layers,
    stitched,
)
from stillwave.pipeline.backbones.weights import (
    CTRANSLATE2_WEIGHTS,
    TRANSFORMERS_WEIGHTS,
    find_folder,
    load_pretrained,
    read_json,
    weight_files,
)
from stillwave.pipeline.backbones.whisper.ctranslate2 import read_whisper
from stillwave.pipeline.backbones.whisper.mel import HOP_LENGTH, SAMPLE_RATE, WhisperMel

MARGIN_S = 1.0  # of silence behind a clip, which the model was trained to see there
GPU_WINDOWS_AT_ONCE = 32
WINDOWS_AT_ONCE = 8  # a short clip may fill a window too, so frames per batch alone would not bound memory

# True geometry at every size: windows of 30 s, 1500 frames of 20 ms.
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 96, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 192},
    "base": {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048},
}


class WhisperConfig(PretrainedConfig):
    """Whisper's encoder, from a folder of transformers or of faster-whisper, or from the hub.

    window: what the model sees of a clip. `30s` is as it was trained: silence up to 30 s; `clip` is the
        clip and one second of silence, many times faster for short clips; the frames differ a little.
        Longer audio is cut into windows of 30 s either way.
    """

    kind: Literal["whisper"]
    weights: str = Field("openai/whisper-base", min_length=1)
    size: Literal["tiny", "base"] = "base"
    window: Literal["30s", "clip"] = "30s"


class Whisper(TransformerBackbone):
    """Hidden states of Whisper's encoder, one frame per 320 samples at 16 kHz: those of the clip only.

    Frame j is centred on sample 320 * j. A window is seen and normalised alone, as transformers does it: what
    is fainter than its loudest band by 80 dB is cut off. Audio beyond 30 s is cut into windows that share
    nothing. The silence behind a clip is attended to, but its frames are left out.
    """

    config_type = WhisperConfig
    config: WhisperConfig
    modality = "audio"
    version = 1
    sample_rate = SAMPLE_RATE
    architecture_fields = ("encoder_attention_heads", "activation_function", "scale_embedding")

    def __init__(self, config: WhisperConfig) -> None:
        encoder = _load(config)
        super().__init__(config, encoder.config)
        self.encoder = encoder
        self.mel = WhisperMel(self.architecture.num_mel_bins)
        self.stride = encoder.conv2.stride[0]  # mel frames from one frame to the next
        self.hop_length: int = HOP_LENGTH * self.stride
        self.first_centre = 0.0
        self.frames_of_window: int = self.architecture.max_source_positions
        self.window_length = self.frames_of_window * self.hop_length

    def num_frames(self, length: int) -> int:
        return -(-length // self.hop_length)

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        counts = [self.num_frames(length) for length in lengths.tolist()]
        most = -(-max(counts) // self.frames_of_window)  # windows of an item
        # Of each window: its place among `most` for every item, and how many frames the model sees of it.
        windows = [
            (most * row + number, self._seen(count - number * self.frames_of_window))
            for row, count in enumerate(counts)
            for number in range(-(-count // self.frames_of_window))
        ]
        places = send(torch.tensor([place for place, _ in windows]), batch.device)
        waveforms = zero_padding(batch, self.checked(lengths, batch.device))
        size = self.window_length if most > 1 else self.hop_length * max(seen for _, seen in windows)
        missing = most * size - waveforms.shape[1]
        waveforms = nn.functional.pad(waveforms, (0, missing)).unflatten(1, (most, size))
        waveforms = waveforms.flatten(0, 1).index_select(0, places)
        at_once = WINDOWS_AT_ONCE if on_host(batch) else GPU_WINDOWS_AT_ONCE
        encoded = []
        for start in range(0, len(windows), at_once):
            part = [seen for _, seen in windows[start : start + at_once]]
            frames = self._encode(waveforms[start : start + at_once, : self.hop_length * max(part)], part)
            behind = (0, 0) * (frames.ndim - 2) + (0, size // self.hop_length - max(part))
            encoded.append(nn.functional.pad(frames, behind))
        found = torch.cat(encoded)
        return stitched(found, places, counts)

    def _seen(self, count: int) -> int:
        """The frames of a window of which `count`, or more, are the clip's."""
        if self.config.window == "30s":
            return self.frames_of_window
        return min(count + round(MARGIN_S * self.sample_rate / self.hop_length), self.frames_of_window)

    def _encode(self, waveforms: Tensor, seen: list[int]) -> Tensor:
        """(windows, samples), frames that count of each -> (windows, frames, [layers,] dim) fp32."""
        encoder, device = self.encoder, waveforms.device
        mask = None
        with compute_in("fp32", device):
            mels = self.mel(waveforms)
        with compute_in(self.config.precision, device):
            if min(seen) < max(seen):
                # What lies behind a window is 0 to the convolutions, as if the window ended there.
                counts = send(torch.tensor(seen), device)
                mask = valid_mask(counts, max(seen))
                mels = mels * valid_mask(counts * self.stride, mels.shape[2])[:, None]
            hidden = nn.functional.gelu(encoder.conv1(mels))
            if mask is not None:
                hidden = hidden * valid_mask(counts * self.stride, mels.shape[2])[:, None]
            hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
            hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
            states = [nn.functional.dropout(hidden, encoder.dropout, self.training)]
            keys = None if mask is None else mask[:, None, None, :]
            for layer in encoder.layers[: max(self.layers)]:
                states.append(layer(states[-1], keys))
            if len(states) > len(encoder.layers):
                states[-1] = encoder.layer_norm(states[-1])
        return select_layers(states, self.layers)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        encoder, used = self.encoder, max(self.layers)
        layers: list[list[nn.Module]] = [[layer] for layer in encoder.layers[:used]]
        if used == len(encoder.layers):
            layers[-1].append(encoder.layer_norm)
        return [[encoder.conv1, encoder.conv2, encoder.embed_positions], *layers]

    def preprocessing(self) -> dict[str, Any]:
        return {"margin_s": MARGIN_S} if self.config.window == "clip" else {}


def _load(config: WhisperConfig) -> Any:
    """transformers' encoder."""
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    if config.weights == "random":
        encoder, _ = load_transformer(config, WhisperEncoder, SIZES)
        return encoder
    wanted = (*TRANSFORMERS_WEIGHTS, CTRANSLATE2_WEIGHTS)
    file = weight_files(find_folder(config, wanted), wanted)[0]
    if file.name in CTRANSLATE2_WEIGHTS:
        sizes, state = read_whisper(file)
        encoder = WhisperEncoder(transformers.WhisperConfig(**sizes, attn_implementation="sdpa"))  # type: ignore[call-arg]
        own = {name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")}
        encoder.load_state_dict(own)
        return encoder
    model, folder = load_pretrained(config, transformers.WhisperModel, ("decoder.",))
    front = read_json(folder / "preprocessor_config.json")
    if front.get("dither"):
        where = f"`weights` {config.weights}: preprocessor_config.json"
        raise ValueError(f"{where}: `dither` {front['dither']}: only 0 is supported; set it to 0")
    return model.encoder
