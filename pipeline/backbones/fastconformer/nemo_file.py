"""NVIDIA's .nemo files read without NeMo, and the names of FastConformer's parameters in them."""

import tarfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor, nn

from stillwave.pipeline.backbones.fastconformer.conformer import SUBSAMPLING, Architecture
from stillwave.pipeline.backbones.fastconformer.mel import LOG_GUARD, MelSettings

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"

# Parts of parameters' names: NeMo's, and ours, which are also transformers'.
NAMES = (
    ("pre_encode.conv.", "subsampling.layers."),
    ("pre_encode.out.", "subsampling.linear."),
    (".self_attn.linear_q.", ".self_attn.q_proj."),
    (".self_attn.linear_k.", ".self_attn.k_proj."),
    (".self_attn.linear_v.", ".self_attn.v_proj."),
    (".self_attn.linear_out.", ".self_attn.o_proj."),
    (".self_attn.linear_pos.", ".self_attn.relative_k_proj."),
    (".self_attn.pos_bias_u", ".self_attn.bias_u"),
    (".self_attn.pos_bias_v", ".self_attn.bias_v"),
    (".conv.batch_norm.", ".conv.norm."),
)

# Our fields of an encoder's sizes, and NeMo's.
SIZES = {
    "d_model": "d_model", "num_layers": "n_layers", "num_heads": "n_heads", "num_mels": "feat_in",
    "conv_kernel": "conv_kernel_size", "use_bias": "use_bias", "scale_input": "xscaling",
}  # fmt: skip

# NeMo 3.0's defaults for missing fields of a file's config that shape the encoder or the mel bands ...
ENCODER_DEFAULTS: dict[str, Any] = {
    "subsampling": "striding", "subsampling_factor": 4, "subsampling_conv_channels": -1,
    "causal_downsampling": False, "reduction": None, "feat_out": -1, "ff_expansion_factor": 4, "n_heads": 4,
    "self_attention_model": "rel_pos", "att_context_size": None, "att_context_style": "regular",
    "untie_biases": True, "xscaling": True, "use_bias": True, "conv_kernel_size": 31,
    "conv_norm_type": "batch_norm", "conv_context_size": None,
}  # fmt: skip
MEL_DEFAULTS: dict[str, Any] = {
    "sample_rate": 16000, "window_size": 0.02, "window_stride": 0.01, "n_window_size": None,
    "n_window_stride": None, "window": "hann", "normalize": "per_feature", "n_fft": None, "preemph": 0.97,
    "features": 64, "lowfreq": 0, "highfreq": None, "log": True, "log_zero_guard_type": "add",
    "log_zero_guard_value": LOG_GUARD, "frame_splicing": 1, "exact_pad": False, "mag_power": 2.0,
    "mel_norm": "slaney",
}  # fmt: skip

# ... and the supported values, for fields where only some are supported.
ENCODER_KNOWN: dict[str, tuple[Any, ...]] = {
    "subsampling": ("dw_striding",), "subsampling_factor": (SUBSAMPLING,), "causal_downsampling": (False,),
    "reduction": (None,), "feat_out": (-1, None), "self_attention_model": ("rel_pos",),
    "att_context_size": (None, [-1, -1]), "att_context_style": ("regular",), "untie_biases": (True,),
    "conv_norm_type": ("batch_norm",), "conv_context_size": (None,),
}  # fmt: skip
MEL_KNOWN: dict[str, tuple[Any, ...]] = {
    "window": ("hann",), "normalize": ("per_feature",), "lowfreq": (0, None), "highfreq": (None,),
    "log": (True,), "log_zero_guard_type": ("add",), "log_zero_guard_value": (LOG_GUARD,),
    "frame_splicing": (1,), "exact_pad": (False,), "mag_power": (2.0,), "mel_norm": ("slaney",),
}  # fmt: skip


def from_nemo(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A NeMo encoder's state dict under our names."""
    return _renamed(state, NAMES)


def to_nemo(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's state dict under NeMo's names."""
    return _renamed(state, [(ours, theirs) for theirs, ours in NAMES])


def _renamed(state: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    for old, new in pairs:
        state = {name.replace(old, new): tensor for name, tensor in state.items()}
    return dict(state)


class NemoFile(NamedTuple):
    path: Path
    config: Any
    weights: dict[str, Tensor]


def read_nemo(path: Path) -> NemoFile:
    """The config and weights of a .nemo file; NeMo is not needed.

    The archive's two members are read in memory: nothing is unpacked, and no code in them can run.
    Raises ValueError naming the file if it cannot be read.
    """
    try:
        config = yaml.safe_load(_member(path, CONFIG))
        weights = torch.load(BytesIO(_member(path, WEIGHTS)), map_location="cpu", weights_only=True)
    except Exception as error:  # from tar, YAML or pickle: the file is at fault
        raise ValueError(f"`weights` {path}: cannot be read as a .nemo file: {error}") from error
    return NemoFile(path, config, weights)


def encoder_of(file: NemoFile) -> tuple[Architecture, MelSettings, dict[str, Tensor]]:
    """Architecture, front end and encoder weights, under our names. ValueError names what is wrong."""
    path, config, weights = file
    architecture, mel = parse_nemo_config(config, str(path))
    state = {name.removeprefix("encoder."): t for name, t in weights.items() if name.startswith("encoder.")}
    return architecture, mel, from_nemo(state)


def ctc_decoder_of(file: NemoFile) -> tuple[nn.Linear, list[str]]:
    """The CTC decoder, frames to logits, and its tokens; the last logit is the blank's.

    Also of a hybrid model, which has a transducer as well. Raises ValueError if there is none.
    """
    path, config, weights = file
    hybrid = "ctc_decoder.decoder_layers.0.weight" in weights
    prefix = ("ctc_decoder" if hybrid else "decoder") + ".decoder_layers.0"
    try:
        weight, bias = weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]
    except KeyError:
        raise ValueError(f"`weights` {path}: no CTC decoder in it; use a CTC or a hybrid model") from None
    try:
        vocabulary = [
            str(token) for token in (config["aux_ctc"] if hybrid else config)["decoder"]["vocabulary"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"`weights` {path}: {CONFIG} has no vocabulary of the CTC decoder") from error
    if len(weight) != len(vocabulary) + 1:
        raise ValueError(
            f"`weights` {path}: {len(weight)} outputs of the CTC decoder, for {len(vocabulary)} tokens and a "
            "blank"
        )
    if pieces := [token for token in vocabulary if token.startswith("##")]:
        raise ValueError(
            f"`weights` {path}: its tokens are WordPieces, such as {pieces[0]}; use a model of characters or "
            "of SentencePiece"
        )
    decoder = nn.Linear(weight.shape[1], len(weight))
    decoder.load_state_dict({"weight": weight[..., 0], "bias": bias})
    return decoder, vocabulary


def _member(path: Path, name: str) -> bytes:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and str(PurePosixPath(member.name)) == name:
                stream = archive.extractfile(member)
                assert stream is not None  # it is a file
                return stream.read()
    raise ValueError(f"there is no {name} in it")


def parse_nemo_config(config: Any, source: str) -> tuple[Architecture, MelSettings]:
    """The encoder and preprocessor settings in the config of a NeMo model.

    Raises ValueError naming source, field and value if it is no FastConformer that this backbone supports.
    """
    try:
        encoder: dict[str, Any] = ENCODER_DEFAULTS | config["encoder"]
        mel: dict[str, Any] = MEL_DEFAULTS | config["preprocessor"]
        target = str(encoder["_target_"])
        if not target.endswith(".ConformerEncoder"):
            raise ValueError(f"its encoder is a {target}, not a ConformerEncoder")
        _check_known("encoder", encoder, ENCODER_KNOWN)
        _check_known("preprocessor", mel, MEL_KNOWN)
        return _architecture(encoder), _mel_settings(mel)
    except KeyError as error:
        raise ValueError(f"`weights` {source}: {CONFIG} lacks the field {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"`weights` {source}: {CONFIG}: {error}") from error


def _check_known(part: str, fields: dict[str, Any], known: dict[str, tuple[Any, ...]]) -> None:
    for name, values in known.items():
        if fields[name] not in values:
            raise ValueError(
                f"{part}.{name} is {fields[name]!r}; only {' or '.join(map(repr, values))} is supported: "
                "use a FastConformer with 8x subsampling and full context"
            )


def _architecture(encoder: dict[str, Any]) -> Architecture:
    given = ((ours, encoder[theirs]) for ours, theirs in SIZES.items())
    sizes: dict[str, Any] = {name: v if isinstance(v, bool) else int(v) for name, v in given}
    channels = int(encoder["subsampling_conv_channels"])
    return Architecture(
        **sizes,
        ff_dim=sizes["d_model"] * int(encoder["ff_expansion_factor"]),
        subsampling_channels=sizes["d_model"] if channels == -1 else channels,
    )


def _mel_settings(mel: dict[str, Any]) -> MelSettings:
    rate = int(mel["sample_rate"])
    win_length = int(mel["n_window_size"] or mel["window_size"] * rate)
    return MelSettings(
        sample_rate=rate,
        num_mels=int(mel["features"]),
        n_fft=int(mel["n_fft"] or 1 << (win_length - 1).bit_length()),
        win_length=win_length,
        hop_length=int(mel["n_window_stride"] or mel["window_stride"] * rate),
        preemphasis=float(mel["preemph"] or 0.0),
    )
