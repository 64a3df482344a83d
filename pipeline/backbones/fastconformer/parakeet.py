"""FastConformer in transformers: ParakeetEncoder, and the folders that hold one."""

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
# Our fields, and transformers' of ParakeetEncoderConfig and ParakeetFeatureExtractor.
SIZES = {
    "d_model": "hidden_size", "num_layers": "num_hidden_layers", "num_heads": "num_attention_heads",
    "ff_dim": "intermediate_size", "num_mels": "num_mel_bins", "conv_kernel": "conv_kernel_size",
    "subsampling_channels": "subsampling_conv_channels", "use_bias": "attention_bias",
    "scale_input": "scale_input",
}  # fmt: skip
FRONT = {
    "sample_rate": "sampling_rate", "num_mels": "feature_size", "n_fft": "n_fft", "win_length": "win_length",
    "hop_length": "hop_length", "preemphasis": "preemphasis",
}  # fmt: skip


def build_parakeet(architecture: Architecture, state: Mapping[str, Tensor]) -> RecordedEncoder:
    """transformers' encoder with these weights, without layer drop; RuntimeError if they do not fit."""
    import transformers

    settings: dict[str, Any] = {theirs: getattr(architecture, ours) for ours, theirs in SIZES.items()}
    settings |= {"convolution_bias": architecture.use_bias, "subsampling_factor": SUBSAMPLING}
    settings |= {"layerdrop": 0.0, "attn_implementation": "sdpa"}
    config = transformers.ParakeetEncoderConfig(**settings)
    model = transformers.ParakeetEncoder(config)
    model.load_state_dict(state)
    return RecordedEncoder(model, _run)


def _run(model: Any, mels: Tensor, lengths: Tensor) -> object:
    return model(mels, attention_mask=valid_mask(lengths, mels.shape[1]))


def read_parakeet(config: PretrainedConfig) -> tuple[Architecture, MelSettings, dict[str, Tensor]]:
    """Architecture, front end and encoder weights of the Parakeet folder or hub id `config.weights`.

    Raises ValueError if it holds another model, or one with unsupported settings.
    """
    import transformers

    model_type = read_json(find_folder(config) / "config.json").get("model_type")
    if model_type not in CLASSES:
        model_type = "parakeet_encoder"  # so that the message says what is expected
    model_class = getattr(transformers, CLASSES[model_type])
    model, folder = load_pretrained(config, model_class, UNUSED)
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
    architecture = Architecture(**{ours: getattr(sizes, theirs) for ours, theirs in SIZES.items()})
    front = read_json(folder / "preprocessor_config.json")
    front = front or read_json(folder / "processor_config.json").get("feature_extractor", {})
    # Its saved settings, with its own defaults; null means no pre-emphasis.
    found: dict[str, Any] = {ours: front[theirs] or 0.0 for ours, theirs in FRONT.items() if theirs in front}
    return architecture, MelSettings(**{"num_mels": architecture.num_mels} | found), encoder.state_dict()
