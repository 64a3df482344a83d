"""A small .nemo file, saved by NeMo itself; its members, and copies in which they are replaced."""

import io
import tarfile
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from stillwave.pipeline.backbones.fastconformer.nemo import import_nemo
from stillwave.pipeline.backbones.fastconformer.nemo_file import to_nemo
from stillwave.pipeline.backbones.quiet import quiet
from stillwave.pipeline.backbones.weights import random_weights


def save_nemo(path: Path, labels: list[str], encoder: dict[str, Tensor], decoder_scale: float = 1.0) -> None:
    """A character CTC model with these weights in its encoder, named as ours."""
    config = {
        "sample_rate": 16000,
        "labels": labels,
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01,
            "window": "hann", "features": 80, "n_fft": 512, "frame_splicing": 1, "dither": 1e-5, "pad_to": 0,
        },
        "spec_augment": {
            "_target_": "nemo.collections.asr.modules.SpectrogramAugmentation",
            "freq_masks": 0, "time_masks": 0, "freq_width": 1, "time_width": 0.05,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": 80, "feat_out": -1, "n_layers": 3, "d_model": 48, "n_heads": 4,
            "ff_expansion_factor": 2, "subsampling": "dw_striding", "subsampling_factor": 8,
            "subsampling_conv_channels": 16, "self_attention_model": "rel_pos",
            "att_context_size": [-1, -1], "xscaling": True,
            "untie_biases": True, "conv_kernel_size": 9, "conv_norm_type": "batch_norm",
        },
        "decoder": {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
            "feat_in": 48, "num_classes": len(labels), "vocabulary": labels,
        },
        "optim": {"name": "adamw", "lr": 0.001},
    }  # fmt: skip
    with quiet():
        from omegaconf import OmegaConf

        model = random_weights(0, lambda: import_nemo().models.EncDecCTCModel(OmegaConf.create(config)))
        model.encoder.load_state_dict(to_nemo(encoder))
        with torch.no_grad():
            model.decoder.decoder_layers[0].weight.mul_(decoder_scale)
        model.save_to(str(path))


def repacked(source: Path, target: Path, **members: bytes | None) -> Path:
    """A copy of a .nemo file with `config` or `weights` replaced, or left out where None."""
    names = {"config": "model_config.yaml", "weights": "model_weights.ckpt"}
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for key, name in names.items():
            stream = old.extractfile(f"./{name}")
            assert stream is not None
            content = members.get(key, stream.read())
            if content is not None:
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(content)
                new.addfile(info, io.BytesIO(content))
    return target


def nemo_config(source: Path) -> dict[str, Any]:
    with tarfile.open(source) as archive:
        stream = archive.extractfile("./model_config.yaml")
        assert stream is not None
        config: dict[str, Any] = yaml.safe_load(stream)
    return config


def nemo_weights(source: Path) -> dict[str, Tensor]:
    with tarfile.open(source) as archive:
        stream = archive.extractfile("./model_weights.ckpt")
        assert stream is not None
        weights: dict[str, Tensor] = torch.load(io.BytesIO(stream.read()), weights_only=True)
    return weights


def saved(weights: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(weights, stream)
    return stream.getvalue()
