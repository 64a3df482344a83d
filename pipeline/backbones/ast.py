"""Audio Spectrogram Transformer frames (arXiv 2104.01778), stitched from windows of fixed length."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stillwave.heads.devices import send
from stillwave.heads.masks import on_host, zero_padding
from stillwave.pipeline.backbones.base import Frames
from stillwave.pipeline.backbones.config import PretrainedConfig
from stillwave.pipeline.backbones.fbank import Fbank, FbankConfig
from stillwave.pipeline.backbones.numerics import compute_in
from stillwave.pipeline.backbones.transformer import (
    TransformerBackbone,
    load_transformer,
    select_layers,
    stitched,
)
from stillwave.pipeline.backbones.weights import read_json

GPU_WINDOWS_AT_ONCE = 32
WINDOWS_AT_ONCE = 8  # a short clip fills a window, too, so limiting frames per batch would not bound memory

# The real geometry at every size: 1024 mel frames of 128 bands in 101 x 12 patches.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 192,
    },
    "base": {},
}  # fmt: skip

# The defaults of transformers' ASTFeatureExtractor, without a preprocessor_config.json: AudioSet's moments.
MEAN, STD = -4.2677393, 4.5689974


class AstConfig(PretrainedConfig):
    """Audio Spectrogram Transformer; longer audio is cut into windows of the model's length.

    frequency: a frame is a time step with 12 patches along frequency: their `mean` (768 numbers in the base
        size), or `concat`, low frequencies first (9216 numbers).
    """

    kind: Literal["ast"]
    weights: str = Field("MIT/ast-finetuned-audioset-10-10-0.4593", min_length=1)
    size: Literal["tiny", "base"] = "base"
    frequency: Literal["mean", "concat"] = "mean"


class AstFbank(Fbank):
    """What AST was trained on: Kaldi's filter bank, but samples in [-1, 1], and a plain Hann window."""

    scale = 1.0
    hann_power = 1.0
    empty_filters = True  # the fourth of 128


class Ast(TransformerBackbone):
    """Hidden states of an Audio Spectrogram Transformer, one frame per time step of its patches.

    The model takes 1024 mel frames (10.24 s) and makes 101 steps of 12 patches, each 16 mel frames wide, one
    every 10. Windows start 1010 mel frames apart, so that step k of window w is step 101 * w + k of the clip:
    one every 100 ms, none missing, none repeated. Windows share only 14 mel frames.
    The last window is padded as transformers pads a short clip, with a mel energy of 0 before normalisation
    (0.467 after), which the model attends to. A step counts when its patches lie within the clip; a clip
    shorter than a patch (2800 samples) gives one step. The two special tokens are left out.
    """

    config_type = AstConfig
    config: AstConfig
    modality = "audio"
    version = 1
    architecture_fields = (
        "num_attention_heads", "hidden_act", "layer_norm_eps",
        "frequency_stride", "time_stride", "max_length", "num_mel_bins",
    )  # fmt: skip

    def __init__(self, config: AstConfig) -> None:
        import transformers

        model, folder = load_transformer(config, transformers.ASTModel, SIZES)
        super().__init__(config, model.config)
        preprocessor = read_json(folder / "preprocessor_config.json") if folder else {}
        self.do_normalize = bool(preprocessor.get("do_normalize", True))
        self.mean = float(preprocessor.get("mean", MEAN))
        self.std = float(preprocessor.get("std", STD))
        self.sample_rate = int(preprocessor.get("sampling_rate", 16000))
        rate, num_mels = self.sample_rate, model.config.num_mel_bins
        mel = FbankConfig(kind="fbank", sample_rate=rate, num_mels=num_mels, deltas=0, kaldi=True)
        self.mel = AstFbank(mel)
        self.embeddings = model.embeddings
        self.blocks = model.layers
        self.layernorm = model.layernorm
        self.num_bands, self.num_steps = model.embeddings.get_shape(model.config)
        self.hop_length = self.mel.hop_length * model.config.time_stride
        self.first_centre = self.mel.first_centre + self.mel.hop_length * (model.config.patch_size - 1) / 2
        self.mean_over_bands = config.frequency == "mean"
        self.dim *= 1 if self.mean_over_bands else self.num_bands

    def num_frames(self, length: int) -> int:
        num_mels = self.mel.num_frames(length)
        whole = (num_mels - self.architecture.patch_size) // self.architecture.time_stride + 1
        return torch.sym_max(whole, 1) if num_mels else 0

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        if torch.compiler.is_exporting():
            return self._forward_one(batch, lengths)
        counts = [self.num_frames(length) for length in lengths.tolist()]
        most = -(-max(counts) // self.num_steps)  # the most windows of an item
        used = [most * row + i for row, n in enumerate(counts) for i in range(-(-n // self.num_steps))]
        places = send(torch.tensor(used), batch.device)
        with compute_in("fp32", batch.device):
            mels, num_mels = self.mel(batch, self.checked(lengths, batch.device))
            windows = self._windows(zero_padding(mels, num_mels), most).flatten(0, 1)[places]
        with compute_in(self.config.precision, batch.device):
            # All items' windows form one list, and each window is encoded independently.
            at_once = WINDOWS_AT_ONCE if on_host(batch) else GPU_WINDOWS_AT_ONCE
            encoded = torch.cat([self._encode(part) for part in windows.split(at_once)])
        return stitched(encoded, places, counts)

    def _forward_one(self, batch: Tensor, lengths: Tensor) -> Frames:
        """`forward` of one item without padding, without a loop: for exported graphs."""
        count = self.num_frames(batch.shape[1])
        windows = self._windows(self.mel(batch, lengths).values, (count - 1) // self.num_steps + 1)
        encoded = self._encode(windows[0])
        return Frames(encoded.flatten(0, 1)[None, :count], torch.full_like(lengths, count))

    def _windows(self, mels: Tensor, count: int) -> Tensor:
        """(batch, mel frames, bands) -> (batch, count, `max_length`, bands), normalised."""
        size = self.architecture.max_length
        hop = self.num_steps * self.architecture.time_stride
        total = size + hop * (count - 1)
        mels = nn.functional.pad(mels, (0, 0, 0, total))[:, :total]
        if self.do_normalize:
            mels = (mels - self.mean) / (2 * self.std)
        return mels.unfold(1, size, hop).transpose(2, 3)

    def _encode(self, windows: Tensor) -> Tensor:
        """(windows, `max_length`, bands) -> (windows, steps, [layers,] dim) fp32."""
        hidden = self.embeddings(windows)
        states = [self._pool(hidden)]
        for block in self.blocks[: max(self.layers)]:
            hidden = block(hidden)
            states.append(self._pool(hidden))
        if len(states) > len(self.blocks):
            states[-1] = self._pool(self.layernorm(hidden))
        return select_layers(states, self.layers)

    def _pool(self, tokens: Tensor) -> Tensor:
        """(windows, 2 + bands * steps, size) -> (windows, steps, dim): bands averaged or concatenated."""
        patches = tokens[:, 2:].float().unflatten(1, (self.num_bands, self.num_steps))
        pooled: Tensor = patches.mean(1) if self.mean_over_bands else patches.transpose(1, 2).flatten(2)
        return pooled

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        used = max(self.layers)
        blocks: list[list[nn.Module]] = [[block] for block in self.blocks[:used]]
        if used == len(self.blocks):
            blocks[-1].append(self.layernorm)
        return [[self.embeddings], *blocks]

    def preprocessing(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in ("do_normalize", "mean", "std", "sample_rate")}
        return settings | {"fbank": self.mel.version}
