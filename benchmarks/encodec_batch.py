"""EnCodec over clips of unequal length: one after the other, or all in one batch as on a GPU.

    python benchmarks/encodec_batch.py [--clips 8] [--size base] [--code-clips 64] [--device auto]

Seeded weights; clips of 2 to 6 s of harmonics and noise. Both models, fp32:
  alone, batched   seconds for all clips; on a CPU with one thread, the fastest of three turns
  error            worst max |a - b| / max |b| over the clips, `a` from the batch and `b` from the single clip
For 24 kHz also why items are not batched before the quantizer: for `--code-clips` clips, how many codes
differ if the encoder's frames come from batches of 8, and how far a frame then moves. Ends with one line of
JSON.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from synthetic import sound  # next to this file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import stillwave.pipeline.backbones.encodec.backbone as encodec
from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.device import pick_device
from stillwave.pipeline.backbones.encodec import EncodecConfig

ENCODE = Callable[[list[Tensor]], list[Tensor]]  # clips to the frames of each


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--size", choices=("tiny", "base"), default="base")
    parser.add_argument("--code-clips", type=int, default=64)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = pick_device(arguments.device)
    figures: dict[str, Any] = {}
    with torch.inference_mode():
        for model in ("24khz", "48khz"):
            backbone = made(model, arguments.size, device)
            alone, batched = sides(backbone, device)
            items = clips(backbone, arguments.clips)
            pairs = zip(batched(items), alone(items), strict=True)
            error = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
            seconds = {name: min(timed(side, items) for _ in range(3)) for name, side in
                       (("alone", alone), ("batched", batched))}  # fmt: skip
            figures[model] = {f"{name}_s": round(value, 3) for name, value in seconds.items()}
            figures[model] |= {"error": float(f"{error:.2g}")}
            print(model, figures[model], flush=True)
        figures["codes"] = codes(arguments.size, arguments.code_clips, device)
        print("codes", figures["codes"])
    print(json.dumps(figures))


def made(model: Any, size: Any, device: torch.device, **fields: Any) -> Any:
    config = EncodecConfig(kind="encodec", model=model, weights="random", size=size, **fields)
    return build_backbone(config).to(device)


def clips(backbone: Any, count: int) -> list[Tensor]:
    """Clips of 2 to 6 s at the backbone's rate, with its channels."""
    rng = np.random.default_rng(0)
    long = torch.from_numpy(sound(30.0, backbone.sample_rate, rng)).float()
    lengths = rng.integers(2 * backbone.sample_rate, 6 * backbone.sample_rate, count).tolist()
    starts = rng.integers(0, 24 * backbone.sample_rate, count).tolist()
    items = [long[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    return items if backbone.channels == 1 else [torch.stack([item, item.flip(0)], 1) for item in items]


def sides(backbone: Any, device: torch.device) -> tuple[ENCODE, ENCODE]:
    """One clip after the other, and all of them at once by the GPU's code path, on any device."""

    def together(items: list[Tensor]) -> list[Tensor]:
        lengths = torch.tensor([len(item) for item in items])
        values, counts = backbone(pad_sequence(items, batch_first=True).to(device), lengths)
        return [row[:count] for row, count in zip(values, counts.tolist(), strict=True)]

    def batched(items: list[Tensor]) -> list[Tensor]:
        kept, encodec.on_host = encodec.on_host, lambda tensor: False
        try:
            return together(items)
        finally:
            encodec.on_host = kept

    return lambda items: [together([item])[0] for item in items], batched


def timed(side: ENCODE, items: list[Tensor]) -> float:
    started = time.perf_counter()
    frames = side(items)
    float(frames[-1][-1, -1])  # waits for a GPU
    return time.perf_counter() - started


def codes(size: str, count: int, device: torch.device) -> dict[str, Any]:
    """The effect on a quantizer of rounding that depends on the batch."""
    backbone = made("24khz", size, device, embedding="quantized", bandwidth=24)
    quantizer, backbone.quantizer = backbone.quantizer, None  # to see its input
    alone, batched = sides(backbone, device)
    items = clips(backbone, count)
    given = [(b, a) for i in range(0, count, 8) for b, a in
             zip(batched(items[i : i + 8]), alone(items[i : i + 8]), strict=True)]  # fmt: skip
    found = [[quantizer.encode(frames.T[None]) for frames in pair] for pair in given]
    differ, total = sum(int((b != a).sum()) for b, a in found), sum(a.numel() for _, a in found)
    decoded = [[quantizer.decode(side) for side in pair] for pair in found]
    moved = max(float((b - a).abs().max() / a.abs().max()) for b, a in decoded)
    return {"codes": total, "differ": differ, "worst_frame": float(f"{moved:.3g}")}


if __name__ == "__main__":
    main()
