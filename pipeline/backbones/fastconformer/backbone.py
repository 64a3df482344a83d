"""FastConformer frames (arXiv 2305.05084): three implementations of one encoder behind one contract."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from stillwave.pipeline.backbones.base import Backbone, Frames
from stillwave.pipeline.backbones.config import PretrainedConfig
from stillwave.pipeline.backbones.fastconformer.conformer import (
    SUBSAMPLING,
    Architecture,
    Conformer,
    subsampled,
)
from stillwave.pipeline.backbones.fastconformer.mel import LogMel, MelSettings
from stillwave.pipeline.backbones.fastconformer.nemo import build_nemo, restore_nemo
from stillwave.pipeline.backbones.fastconformer.nemo_file import encoder_of, read_nemo, to_nemo
from stillwave.pipeline.backbones.fastconformer.parakeet import build_parakeet, read_parakeet
from stillwave.pipeline.backbones.numerics import compute_in
from stillwave.pipeline.backbones.transformer import resolve_layers, select_layers
from stillwave.pipeline.backbones.weights import (
    NEMO_WEIGHTS,
    TRANSFORMERS_WEIGHTS,
    find_folder,
    random_weights,
)

# Architecture, and the size of a linear layer on top. The real geometry at every size; 'large' is published.
SIZES: dict[str, tuple[Architecture, int | None]] = {
    "tiny": (Architecture(d_model=48, num_layers=3, num_heads=4, ff_dim=96, subsampling_channels=16), 64),
    "small": (Architecture(d_model=256, num_layers=4, num_heads=4, ff_dim=1024), 512),
    "medium": (Architecture(d_model=256, num_layers=17, num_heads=4, ff_dim=1024), 512),
    "large": (Architecture(d_model=512, num_layers=18, num_heads=8, ff_dim=2048), None),
}

LIBRARIES = {"nemo": ("nemo_toolkit",), "transformers": ("transformers",), "custom": ()}
MIN_MELS = 2  # the deviation of a single mel frame is undefined

Implementation = Literal["nemo", "transformers", "custom"]


class FastConformerConfig(PretrainedConfig):
    """FastConformer with 8x subsampling: 12.5 frames per second.

    implementation: whose code runs; with the same weights, all three give the same frames. `nemo` is NVIDIA's
        (the extra `nemo`), `transformers` is ParakeetEncoder, `custom` is ours.
    weights: a .nemo file, a folder or hub id that has one, or (not `nemo`) a Parakeet folder or hub id. With
        `nemo` also a name without a slash, which NeMo looks up in its own catalogue.
    """

    kind: Literal["fastconformer"]
    implementation: Implementation = "custom"
    weights: str = Field("nvidia/stt_en_fastconformer_ctc_large", min_length=1)
    sha256: None = None
    size: Literal["tiny", "small", "medium", "large"] = "large"

    @model_validator(mode="after")
    def _nemo_is_not_compiled(self) -> "FastConformerConfig":
        if self.compile and self.implementation == "nemo":
            raise ValueError(
                "compile true with implementation nemo: torch.compile cannot trace NeMo's input checks; "
                "use implementation custom or transformers, which give the same frames"
            )
        return self

    def imports(self) -> str:
        nemo = self.implementation == "nemo" and self.weights != "random"
        return f"implementation nemo builds the classes that {self.weights} names" if nemo else ""

    local_weights = "a .nemo file, or a local folder with config.json and model.safetensors"


class Parts(NamedTuple):
    """The parts of a FastConformer.

    mel: (batch, samples), lengths -> (batch, mel frames, num_mels) and valid mel frames.
    encoder: the same two -> list of states 0.., each (batch, frames, d_model); has `layers`, a ModuleList.
    projected: size of a linear layer on top, or None.
    """

    mel: nn.Module
    encoder: nn.Module
    architecture: Architecture
    settings: MelSettings
    projected: int | None = None


class FastConformer(Backbone):
    """Hidden states of a FastConformer encoder, one frame per 1280 samples at 16 kHz.

    Mel frames are centred on multiples of 160 samples, and frame t on mel frame 8t. Items with fewer than two
    mel frames (320 samples) give no frame. Dropout acts in train mode; dither, layer drop and SpecAugment are
    not implemented. Layers above the last one kept are deleted.
    """

    config_type = FastConformerConfig
    config: FastConformerConfig
    modality = "audio"
    version = 1
    first_centre = 0.0

    def __init__(self, config: FastConformerConfig, parts: Parts | None = None) -> None:
        """parts: used instead of `config.weights`."""
        super().__init__()
        if parts is None:
            with torch.random.fork_rng(devices=[]):  # libraries draw weights before they load them
                parts = _load(config)
        self.config = config
        self.libraries = ("torch", *LIBRARIES[config.implementation])
        self.architecture = parts.architecture
        self.settings = parts.settings
        self.sample_rate = parts.settings.sample_rate
        self.hop_length = parts.settings.hop_length * SUBSAMPLING
        self.layers = resolve_layers(config.layers, parts.architecture.num_layers)
        self.num_layers = len(self.layers)
        self.mel = parts.mel
        self.encoder = parts.encoder
        del parts.encoder.layers[max(1, *self.layers) :]  # type: ignore[operator, union-attr]
        self.dim = parts.projected or parts.architecture.d_model
        self.projection = None
        if parts.projected:
            sizes = parts.architecture.d_model, parts.projected
            self.projection = random_weights(config.seed, lambda: nn.Linear(*sizes))

    def num_frames(self, length: int) -> int:
        num_mels = length // self.settings.hop_length
        return -(-num_mels // SUBSAMPLING) if num_mels >= MIN_MELS else 0

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        lengths = self.checked(lengths, batch.device)
        with compute_in("fp32", batch.device):
            mels, num_mels = self.mel(batch, lengths)
        with compute_in(self.config.precision, batch.device):
            frames = select_layers(self.encoder(mels, num_mels), self.layers)
            if self.projection is not None:
                frames = self.projection(frames).float()
        return Frames(frames, subsampled(num_mels))

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        model: Any = getattr(self.encoder, "model", self.encoder)
        front = [part for name, part in model.named_children() if name != "layers"]
        stages = [front, *([layer] for layer in model.layers[: max(self.layers)])]
        if self.projection is not None:
            stages[-1].append(self.projection)
        return stages

    def fingerprint(self) -> dict[str, Any]:
        fields = super().fingerprint()
        fields["config"] |= {"layers": self.layers}
        return fields | {"architecture": asdict(self.architecture), "preprocessing": asdict(self.settings)}


def assemble(
    implementation: Implementation,
    architecture: Architecture,
    settings: MelSettings,
    state: dict[str, Tensor],
) -> Parts:
    """The parts of an encoder with the weights `state`, under our names; RuntimeError if they do not fit."""
    mel: nn.Module = LogMel(settings)
    encoder: nn.Module
    if implementation == "nemo":
        mel, encoder = build_nemo(architecture, settings, to_nemo(state))
    elif implementation == "transformers":
        encoder = build_parakeet(architecture, state)
    else:
        encoder = Conformer(architecture)
        encoder.load_state_dict(state)
    return Parts(mel, encoder, architecture, settings)


def _load(config: FastConformerConfig) -> Parts:
    if config.weights == "random":
        # One random draw for all implementations, so that they can be compared without published weights.
        architecture, projected = SIZES[config.size]
        state = random_weights(config.seed, lambda: Conformer(architecture)).state_dict()
        parts = assemble(config.implementation, architecture, MelSettings(), state)
        return parts._replace(projected=projected)
    source = _find(config)
    if config.implementation == "nemo":
        return Parts(*restore_nemo(source))
    if isinstance(source, Path) and source.is_file():
        return fitted(config, *encoder_of(read_nemo(source)))
    return fitted(config, *read_parakeet(config))


def fitted(
    config: FastConformerConfig, architecture: Architecture, settings: MelSettings, state: dict[str, Tensor]
) -> Parts:
    """As `assemble`; ValueError naming `config.weights` if the weights do not fit."""
    try:
        return assemble(config.implementation, architecture, settings, state)
    except RuntimeError as error:
        raise ValueError(f"`weights` {config.weights}: its tensors do not fit its config: {error}") from error


def find_nemo(config: PretrainedConfig) -> Path:
    """The .nemo file that `weights` names, or the only one in the folder or under the hub id."""
    path = Path(config.weights).expanduser()
    if path.suffix == ".nemo":
        if path.is_file():
            return path
        raise ValueError(f"`weights` {config.weights}: no such file")
    files = sorted(find_folder(config, (NEMO_WEIGHTS,)).glob("*.nemo"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"`weights` {config.weights}: several .nemo files ({names}); set `weights` to one")
    return files[0]


def _find(config: FastConformerConfig) -> Path | str:
    """A .nemo file, a Parakeet folder, or a name in NeMo's catalogue."""
    path = Path(config.weights).expanduser()
    if path.suffix != ".nemo" and config.implementation != "nemo":
        folder = find_folder(config, (*TRANSFORMERS_WEIGHTS, NEMO_WEIGHTS))
        if any(folder.glob("*.safetensors")) or not any(folder.glob("*.nemo")):
            return folder
    elif path.suffix != ".nemo" and "/" not in config.weights and not path.is_dir():
        if config.download:
            return config.weights
        raise ValueError(
            f"`weights` {config.weights}: NeMo looks names without a slash up on the network, and `download` "
            f"is false; set `weights` to {config.local_weights}"
        )
    return find_nemo(config)
