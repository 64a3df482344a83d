"""Every backbone at its real size: do its frames depend on the batch, and what does bf16 cost?

    python benchmarks/invariance.py [--only NAME ...]

Random weights, so nothing is downloaded, except for the shipped configs of TRAINED, whose weights are in
packages that `make setup` installs. error: worst max |a - b| / max |b| over the items of a padded batch
of mixed lengths, `a` from the batch and `b` from the single item, fp32. cosine: for the worst frame of 3 s of
noise, bf16 against fp32. Prints rows for docs/backbones.md, and ends with one line of JSON.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from stillwave.pipeline.backbones import Backbone, build_backbone, parse_backbone

CONFIGS = Path(__file__).parents[1] / "configs/backbones"
TRAINED = ("whisper_tiny", "speech_embedding", "resemblyzer", "minilm")
RANDOM = {"weights": "random"}
MODELS: dict[str, dict[str, Any]] = {
    "fbank": {"kind": "fbank"},
    "fbank, Kaldi": {"kind": "fbank", "kaldi": True, "deltas": 0},
    "encodec 24 kHz, transformers": {"kind": "encodec", **RANDOM},
    "encodec 24 kHz, encodec": {"kind": "encodec", "implementation": "encodec", **RANDOM},
    "encodec 48 kHz, transformers": {"kind": "encodec", "model": "48khz", **RANDOM},
    "encodec 48 kHz, encodec": {"kind": "encodec", "model": "48khz", "implementation": "encodec", **RANDOM},
    "wav2vec2 base, group norm": {"kind": "wav2vec2", **RANDOM},
    "wav2vec2 large, layer norm (XLS-R)": {"kind": "wav2vec2", "size": "large", **RANDOM},
    "mbert": {"kind": "mbert", **RANDOM},
    "fastconformer large, nemo": {"kind": "fastconformer", "implementation": "nemo", **RANDOM},
    "fastconformer large, transformers": {
        "kind": "fastconformer",
        "implementation": "transformers",
        **RANDOM,
    },
    "fastconformer large, custom": {"kind": "fastconformer", "implementation": "custom", **RANDOM},
    "ast": {"kind": "ast", **RANDOM},
    **{name: yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in TRAINED},
    "cnn1d": {"kind": "cnn1d", "clip_s": None},
    "sanet": {"kind": "sanet", "clip_s": None},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", help="Parts of names.")
    wanted = parser.parse_args().only or [""]
    figures = {}
    for name, raw in MODELS.items():
        if any(part in name for part in wanted):
            figures[name] = row = measure(raw)
            cells = (f"{row['frames_per_s']:g}", f"{row['parameters']:.2f} M", f"{row['error']:.1e}")
            print(
                "|",
                name,
                "|",
                row["dim"],
                "|",
                *(f"{cell} |" for cell in cells),
                row["cosine"],
                "|",
                flush=True,
            )
    print(json.dumps(figures))


def measure(raw: dict[str, Any]) -> dict[str, Any]:
    """Size, rate, and both errors of one backbone."""
    model = build_backbone(parse_backbone(raw, "benchmark", trusted=True))
    items = [noise(model, length) for length in mixed_lengths(model)]
    lengths = torch.tensor([len(item) for item in items])
    with torch.inference_mode():
        batch = model(nn.utils.rnn.pad_sequence(items, batch_first=True), lengths)
        alone = [frames_of(model, item) for item in items]
        errors = [
            float((row[: len(b)] - b).abs().max() / b.abs().max())
            for row, b in zip(batch.values, alone, strict=True)
        ]
        cosine: float | str = "fp32 only"
        if raw["kind"] not in ("fbank", "onnx", "resemblyzer"):
            half = build_backbone(parse_backbone({**raw, "precision": "bf16"}, "benchmark", trusted=True))
            a, b = frames_of(half, items[-1]), alone[-1]
            cosine = round(float(nn.functional.cosine_similarity(a, b, dim=-1).min()), 5)
    audio = model.modality == "audio"
    return {
        "dim": model.dim,
        "frames_per_s": round(model.sample_rate / model.hop_length, 2) if audio and model.sample_rate else 0,
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "error": max(errors),
        "cosine": cosine,
    }


def mixed_lengths(model: Backbone) -> list[int]:
    """The shortest possible item, ten times that, 1 s and 3 s; or tokens."""
    least = model.shortest()
    if model.sample_rate is None:
        return [least, 10 * least, 77, 400]
    return [least, 10 * least, model.sample_rate, 3 * model.sample_rate + 1]


def noise(model: Backbone, length: int) -> Tensor:
    """Quiet noise, or token ids."""
    generator = torch.Generator().manual_seed(length)
    if model.modality == "text":
        return torch.tensor(model.tokenize("the cat sat on a mat and so on " * length)[:length])
    shape = (length, 2) if model.channels == 2 else (length,)
    return 0.1 * torch.randn(shape, generator=generator)


def frames_of(model: Backbone, item: Tensor) -> Tensor:
    """The frames of an item in a batch of one."""
    frames = model(item[None], torch.tensor([len(item)]))
    return frames.values[0, : frames.lengths[0]]


if __name__ == "__main__":
    main()
