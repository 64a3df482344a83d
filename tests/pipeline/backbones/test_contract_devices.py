"""What every backbone promises on a GPU, and that its forward pass asks a GPU for no number."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from stillwave.pipeline import backbones
from stillwave.pipeline.backbones import Backbone, build_backbone
from stillwave.pipeline.config.base import ConfigError
from tests.devices import on_a_gpu
from tests.pipeline.backbones.variants import VARIANTS, mixed_lengths

Make = Callable[[int], Tensor]
# Worst relative error (max |a - b| / max |b|) or worst cosine of a frame, by precision.
ALONE = {"fp32": 1e-5, "bf16": 0.9999, "fp16": 0.9999}
THE_CPUS = {"fp32": 1e-4, "bf16": 0.999, "fp16": 0.999}
# cuDNN takes another algorithm for another shape; the norm of EnCodec 48 kHz, over time, makes most of it.
ALONE_ENCODEC_48 = ALONE | {"bf16": 0.9998}
# Their own code, or that of a library, asks for numbers on the way: HEAR modules and NeMo.
WAITING = ("hear", "onnx", "fastconformer-nemo")
ENCODECS_QUANTIZER = "encodec-package-48-quantized"  # copies a 0.0 to the GPU for each batch


def agree(precision: str, frames: Tensor, expected: Tensor, bounds: dict[str, float]) -> None:
    """Frames of half precision by their direction, those of fp32 by their worst value."""
    frames, expected = frames.float().cpu(), expected.float().cpu()
    assert frames.shape == expected.shape
    if precision == "fp32":
        assert float((frames - expected).abs().max() / expected.abs().max()) <= bounds[precision]
    else:
        cosine = torch.nn.functional.cosine_similarity(frames.double(), expected.double(), dim=-1)
        assert float(cosine.min()) >= bounds[precision]


def configured(configure: Callable[..., Any], variant: str, precision: str) -> Any:
    """The variant's config in a precision; None where it has fp32 alone."""
    try:
        return configure(variant, **({} if precision == "fp32" else {"precision": precision}))
    except ConfigError:
        return None


def test_what_has_no_other_precision_than_fp32(configure: Callable[..., Any]) -> None:
    names = [name for name in VARIANTS if "nemo" not in name and "custom" not in name]
    alone = {name for name in names if configured(configure, name, "bf16") is None}
    assert alone == {name for name in names if configured(configure, name, "fp16") is None}
    quantized = {name for name in names if VARIANTS[name].get("embedding") == "quantized"}
    assert alone == quantized | {
        name for name in names if VARIANTS[name]["kind"] in ("fbank", "hear", "onnx", "resemblyzer")
    }


@pytest.fixture(params=["fp32", "bf16", "fp16"])
def precision(request: pytest.FixtureRequest, variant: str, configure: Callable[..., Any]) -> str:
    if configured(configure, variant, request.param) is None:
        pytest.skip("computes in fp32 alone")
    return str(request.param)


@pytest.fixture
def there(variant: str, configure: Callable[..., Any], precision: str, device: str) -> Backbone:
    """The variant on the device, held in the precision as extraction holds it."""
    backbone = build_backbone(configured(configure, variant, precision)).to(device)
    backbone.hold_weights(precision)
    return backbone


@on_a_gpu
def test_frames_do_not_depend_on_the_batch(
    there: Backbone, variant: str, device: str, precision: str, make_item: Make, pad: Callable[..., Any]
) -> None:
    bounds = ALONE_ENCODEC_48 if variant == "encodec-48" else ALONE
    items = [make_item(length) for length in mixed_lengths(there)]
    batch, lengths = pad(items)
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        values, counts = there(batch.to(device), lengths)
        assert counts.device == values.device
        for row, count, item in zip(values, counts.tolist(), items, strict=True):
            expected = there(item[None].to(device), torch.tensor([len(item)])).values[0]
            assert count == there.num_frames(len(item)) == len(expected)
            agree(precision, row[:count], expected, bounds)


@on_a_gpu
def test_frames_are_the_cpus(
    there: Backbone, backbone: Backbone, device: str, precision: str, make_item: Make, pad: Callable[..., Any]
) -> None:
    items = [make_item(length) for length in mixed_lengths(there)]
    batch, lengths = pad(items)
    with torch.inference_mode():
        expected, counts = backbone(batch, lengths)
        values, _ = there(batch.to(device), lengths)
    rows = [
        (row[:n].cpu(), other[:n]) for row, other, n in zip(values, expected, counts.tolist(), strict=True)
    ]
    if precision == "fp32" and getattr(backbone, "quantizer", None) is not None:
        # Rounding picks another codebook entry occasionally, and such a frame is another.
        far = torch.cat([(a - b).abs().amax(1) > 1e-4 * b.abs().max() for a, b in rows])
        assert float(far.float().mean()) < 0.02
        return
    for frames, other in rows:
        agree(precision, frames, other, THE_CPUS)


@on_a_gpu
def test_a_forward_pass_never_waits_for_the_gpu(
    there: Backbone, variant: str, device: str, make_item: Make, pad: Callable[..., Any]
) -> None:
    if variant.startswith((*WAITING, ENCODECS_QUANTIZER)):
        pytest.skip("a library's own code asks")
    batch, lengths = pad([make_item(length) for length in mixed_lengths(there)])
    batch = batch.to(device)
    with torch.inference_mode():
        there(batch, lengths)  # what is made at the first call may wait
        torch.cuda.set_sync_debug_mode("error")
        try:
            there(batch, lengths)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_forward_pass_asks_for_no_number(
    variant: str, configure: Callable[..., Any], make_item: Make, pad: Callable[..., Any]
) -> None:
    """On torch's meta device, which has shapes and no numbers: a GPU's path, without a GPU."""
    if variant.startswith(WAITING):
        pytest.skip("a library's own code asks")
    nothing = build_backbone(configure(variant)).to("meta")
    # There an LSTM runs step by step in Python: 3 s are for the one that cuts its audio into seconds.
    longest = 48001 if "48" in variant or nothing.modality == "text" else 16000
    batch, lengths = pad([make_item(length) for length in mixed_lengths(nothing) if length <= longest])
    nothing.train()(batch.to("meta"), lengths)
    with torch.inference_mode():
        values, counts = nothing.eval()(batch.to("meta"), lengths)
    assert values.device.type == counts.device.type == "meta"
    assert values.shape[1] == max(nothing.num_frames(length) for length in lengths.tolist())
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        values.max().item()  # what the test relies on


def test_the_path_of_a_gpu_gives_the_same_frames(
    backbone: Backbone, make_item: Make, pad: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With masks in place of loops over items, here on the CPU."""
    batch, lengths = pad([make_item(length) for length in mixed_lengths(backbone)])
    with torch.inference_mode():
        expected, counts = backbone(batch, lengths)
        for module in pkgutil.walk_packages(backbones.__path__, "stillwave.pipeline.backbones."):
            if hasattr(found := importlib.import_module(module.name), "on_host"):
                monkeypatch.setattr(found, "on_host", lambda tensor: False)
        values, same = backbone(batch, lengths)
    assert torch.equal(same, counts)
    for row, other, count in zip(values, expected, counts.tolist(), strict=True):
        agree("fp32", row[:count], other[:count], ALONE)
