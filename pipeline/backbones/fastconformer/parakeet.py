"""FastConformer as transformers has it: ParakeetEncoder, and the folders that hold one."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stillwave.heads.masks import valid_mask
from stillwave.pipeline.backbones.config import PretrainedConfig
from stillwave.pipeline.backbones.fastconformer.conformer import SUBSAMPLING, Architecture
from stillwave.pipeline.backbones.fastconformer.mel import MelSettings
from stillwave.pipeline.backbones.fastconformer.recorded import RecordedEncoder
from stillwave.pipeline.backbones.weights import find_folder, load_pretrained, read_json

# Classes that are a ParakeetEncoder or have one as `encoder`, by model_type.
CLASSES = {
    "parakeet_encoder": "ParakeetEncoder",
    "parakeet_ctc": "ParakeetForCTC",
    "parakeet_rnnt": "ParakeetForRNNT",
    "parakeet_tdt": "ParakeetForTDT",
}
UNUSED = ("ctc_head.", "decoder.", "encoder_projector.", "joint.")


class ParakeetEncoder(RecordedEncoder):
    """transformers' encoder, always given its mask."""

    def run(self, mels: Tensor, lengths: Tensor) -> None:
        self.model(mels, attention_mask=valid_mask(lengths, mels.shape[1]))


def build_parakeet(architecture: Architecture, state: Mapping[str, Tensor]) -> ParakeetEncoder:
    """transformers' encoder with these weights, without layer drop; RuntimeError where they do not fit."""
    import transformers

    settings = {
        "hidden_size": architecture.d_model,
        "num_hidden_layers": architecture.num_layers,
        "num_attention_heads": architecture.num_heads,
        "intermediate_size": architecture.ff_dim,
        "attention_bias": architecture.use_bias,
        "convolution_bias": architecture.use_bias,
        "conv_kernel_size": architecture.conv_kernel,
        "subsampling_factor": SUBSAMPLING,
        "subsampling_conv_channels": architecture.subsampling_channels,
        "num_mel_bins": architecture.num_mels,
        "scale_input": architecture.scale_input,
        "layerdrop": 0.0,
        "attn_implementation": "sdpa",
    }
    config = transformers.ParakeetEncoderConfig(**settings)  # type: ignore[arg-type]
    model = transformers.ParakeetEncoder(config)
    model.load_state_dict(state)
    return ParakeetEncoder(model)


def read_parakeet(config: PretrainedConfig) -> tuple[Architecture, MelSettings, dict[str, Tensor]]:
    """Architecture, front end and encoder weights of the Parakeet folder or hub id `config.weights`.

    Raises ValueError where it holds another model, or one that ours cannot follow.
    """
    import transformers

    model_type = read_json(find_folder(config) / "config.json").get("model_type")
    if model_type not in CLASSES:
        model_type = "parakeet_encoder"  # so that the message says what is wanted
    model_class = getattr(transformers, CLASSES[model_type])
    model, folder = load_pretrained(config, model_class, model_type, UNUSED)
    encoder = model if model_type == "parakeet_encoder" else model.encoder
    sizes = encoder.config
    fixed = {
        "hidden_act": "silu", "subsampling_factor": SUBSAMPLING, "subsampling_conv_kernel_size": 3,
        "subsampling_conv_stride": 2, "convolution_bias": sizes.attention_bias,
    }  # fmt: skip
    for name, value in fixed.items():
        if getattr(sizes, name) != value:
            raise ValueError(
                f"`weights` {config.weights}: {name} is {getattr(sizes, name)!r} in its config.json; "
                f"only {value!r} is supported: use a FastConformer with 8x subsampling"
            )
    architecture = Architecture(
        d_model=sizes.hidden_size,
        num_layers=sizes.num_hidden_layers,
        num_heads=sizes.num_attention_heads,
        ff_dim=sizes.intermediate_size,
        num_mels=sizes.num_mel_bins,
        subsampling_channels=sizes.subsampling_conv_channels,
        conv_kernel=sizes.conv_kernel_size,
        use_bias=sizes.attention_bias,
        scale_input=sizes.scale_input,
    )
    front = read_json(folder / "preprocessor_config.json")
    front = front or read_json(folder / "processor_config.json").get("feature_extractor", {})
    return architecture, _mel_settings(front, architecture.num_mels), encoder.state_dict()


def _mel_settings(front: dict[str, Any], num_mels: int) -> MelSettings:
    """Of what ParakeetFeatureExtractor saves, with its own defaults."""
    defaults = MelSettings(num_mels=num_mels)
    return MelSettings(
        sample_rate=front.get("sampling_rate", defaults.sample_rate),
        num_mels=front.get("feature_size", defaults.num_mels),
        n_fft=front.get("n_fft", defaults.n_fft),
        win_length=front.get("win_length", defaults.win_length),
        hop_length=front.get("hop_length", defaults.hop_length),
        preemphasis=front.get("preemphasis", defaults.preemphasis) or 0.0,
    )
