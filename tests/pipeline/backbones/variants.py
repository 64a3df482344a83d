"""Every kind and variant of backbone that the contract is checked on."""

from pathlib import Path
from typing import Any

from stillwave.pipeline.backbones import Backbone

WAV2VEC2_TINY = Path(__file__).parents[3] / "configs" / "backbones" / "wav2vec2_tiny.yaml"
HEAR_API = "stillwave.pipeline.backbones.hear_api"
TINY = {"weights": "random", "size": "tiny"}
BANDS, WINDOW = 8, 2  # of the front end's frames
FRONT = {
    "front": "front.onnx",
    "front_window": 400,
    "front_hop": 160,
    "front_scale": 0.5,
    "front_offset": 1.0,
}
WINDOWS = {"graph": "window.onnx", "window": WINDOW, "hop": 3, **FRONT}
CLIPS = {"graph": "clip.onnx", "sees": "clip", "window": 400, "hop": 320, "input_scale": 4.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "fbank": {"kind": "fbank"},
    "fbank-kaldi": {"kind": "fbank", "kaldi": True, "deltas": 0},
    "fbank-8k": {"kind": "fbank", "sample_rate": 8000, "num_mels": 40, "deltas": 1},
    "wav2vec2-tiny": {"kind": "wav2vec2", **TINY},
    "wav2vec2-group": {"kind": "wav2vec2", "weights": "group"},
    "wav2vec2-group-all": {"kind": "wav2vec2", "weights": "group", "layers": "all"},
    "wav2vec2-layer": {"kind": "wav2vec2", "weights": "layer"},
    "wav2vec2-layer-some": {"kind": "wav2vec2", "weights": "layer", "layers": [0, -1]},
    "ast-tiny": {"kind": "ast", **TINY},
    "ast-short": {"kind": "ast", "weights": "ast"},
    "ast-short-all": {"kind": "ast", "weights": "ast", "layers": "all"},
    "whisper-tiny": {"kind": "whisper", **TINY},
    "whisper-small": {"kind": "whisper", "weights": "whisper"},
    "whisper-clip-all": {"kind": "whisper", "weights": "whisper", "layers": "all", "window": "clip"},
    "whisper-ctranslate2": {"kind": "whisper", "weights": "whisper-ct2", "layers": [0, -1]},
    "onnx-windows": {"kind": "onnx", **WINDOWS},
    "onnx-windows-padded": {"kind": "onnx", **WINDOWS, "pad": 280},
    "onnx-clip": {"kind": "onnx", **CLIPS},
    "encodec-tiny": {"kind": "encodec", **TINY, "embedding": "quantized"},
    "encodec-tiny-48": {"kind": "encodec", **TINY, "model": "48khz"},
    "encodec-24": {"kind": "encodec", "weights": "encodec-24khz"},
    "encodec-24-quantized": {"kind": "encodec", "weights": "encodec-24khz", "embedding": "quantized"},
    "encodec-48": {"kind": "encodec", "weights": "encodec-48khz", "model": "48khz"},
    "encodec-package-24": {
        "kind": "encodec",
        "weights": "encodec-24khz-package",
        "implementation": "encodec",
    },
    "encodec-package-48-quantized": {
        "kind": "encodec",
        "weights": "encodec-48khz-package",
        "implementation": "encodec",
        "model": "48khz",
        "embedding": "quantized",
        "bandwidth": 24,
    },
    "hear": {"kind": "hear", "module": HEAR_API},
    "hear-trainable": {
        "kind": "hear",
        "module": HEAR_API,
        "model_file": str(WAV2VEC2_TINY),
    },
    "hear-mel": {"kind": "hear", "module": "tests.pipeline.backbones.hear_mel"},
    "resemblyzer": {"kind": "resemblyzer", "weights": "ge2e", "hop_s": 0.4},
    "fastconformer-tiny": {"kind": "fastconformer", **TINY},
    "fastconformer-custom-all": {"kind": "fastconformer", "weights": "small.nemo", "layers": "all"},
    "fastconformer-transformers": {
        "kind": "fastconformer",
        "weights": "parakeet",
        "implementation": "transformers",
        "layers": [0, -1],
    },
    "fastconformer-nemo": {"kind": "fastconformer", "weights": "small.nemo", "implementation": "nemo"},
    "mbert-tiny": {"kind": "mbert", **TINY},
    "mbert-folder": {"kind": "mbert", "weights": "bert"},
    "mbert-all": {"kind": "mbert", "weights": "bert", "layers": "all"},
    # With a clip_s every item has the same number of frames: test_cnn1d.py, sanet/test_backbone.py.
    "cnn1d": {"kind": "cnn1d", "clip_s": None},
    "sanet": {"kind": "sanet", "size": "tiny", "clip_s": None},
}


def mixed_lengths(backbone: Backbone) -> list[int]:
    least = backbone.shortest()
    if backbone.modality == "text":
        return [least, 10 * least, 2, 77, 400]
    return [least, 10 * least, least + 1, 719, 16000, 48001]
