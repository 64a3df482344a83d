"""EnCodec as on a GPU, items of unequal length in one batch, against its own code on each: on the CPU."""

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stillwave.pipeline.backbones import Backbone, Frames, build_backbone
from stillwave.pipeline.backbones.encodec import EncodecConfig
from stillwave.pipeline.backbones.encodec import backbone as encodec
from stillwave.pipeline.config.train import Finetune
from stillwave.pipeline.runs.unfreeze import unfreeze

CODECS = [*itertools.product(("24khz", "48khz"), ("transformers", "encodec"))]
# Shorter than every padding, about a whole stride and a whole frame, and at 48 kHz a tail behind 149 frames.
LENGTHS = [*range(1, 14), 319, 320, 321, 2003, 9601, 47521, 47999, 48001, 60000]


@pytest.fixture(scope="session")
def build(folders: dict[str, Path]) -> Callable[..., Any]:
    """`build(model, implementation, **changes)`: the backbone with the implementation's small weights."""

    def build(model: str, implementation: str, **changes: Any) -> Any:
        folder = folders[f"encodec-{model}" + ("-package" if implementation == "encodec" else "")]
        fields = {"weights": str(folder), "model": model, "implementation": implementation} | changes
        return build_backbone(EncodecConfig(kind="encodec", **fields))

    return build


@pytest.fixture(scope="session")
def make_items(waveform: Callable[[int], Tensor]) -> Callable[..., list[Tensor]]:
    """`make_items(backbone, lengths)`: a waveform of each length, of two differing channels at 48 kHz."""

    def make_item(n: int, channels: int) -> Tensor:
        return waveform(n) if channels == 1 else torch.stack([waveform(n), waveform(n + 100)[100:]], dim=1)

    return lambda backbone, lengths: [make_item(n, backbone.channels) for n in lengths]


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodec, "on_host", lambda _: False)
        yield


def batched(backbone: Backbone, batch: Tensor, lengths: Tensor) -> Frames:
    with torch.inference_mode(), as_on_a_gpu():
        frames: Frames = backbone(batch, lengths)
    assert frames.lengths.tolist() == [backbone.num_frames(length) for length in lengths.tolist()]
    return frames


@pytest.fixture(scope="session")
def worst_error(
    make_items: Callable[..., list[Tensor]],
    pad: Callable[..., Any],
    alone: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> Callable[..., float]:
    """`worst_error(backbone, lengths)`: of the items of one batch, against the encoder's own code on each."""

    def worst_error(backbone: Backbone, lengths: list[int]) -> float:
        items = make_items(backbone, lengths)
        rows = zip(*batched(backbone, *pad(items)), items, strict=True)
        return max(relative_error(values[:count], alone(backbone, item)) for values, count, item in rows)

    return worst_error


@pytest.mark.parametrize(("model", "implementation"), CODECS)
def test_items_are_as_if_alone(
    model: str, implementation: str, build: Callable[..., Any], worst_error: Callable[..., float]
) -> None:
    backbone = build(model, implementation)
    for lengths in (LENGTHS, LENGTHS[:13], [9601] * 3, [1, 1], [95521], [1]):
        assert worst_error(backbone, lengths) <= 1e-5


@settings(max_examples=4, deadline=None)
@given(lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=4), longer=st.integers(1, 60_000))
@pytest.mark.parametrize(("model", "implementation"), CODECS)
def test_items_of_any_length_are_as_if_alone(
    model: str,
    implementation: str,
    lengths: list[int],
    longer: int,
    build: Callable[..., Any],
    worst_error: Callable[..., float],
) -> None:
    assert worst_error(build(model, implementation), [*lengths, longer]) <= 1e-5


@pytest.mark.parametrize("size", ["tiny", "base"])
@pytest.mark.parametrize(("model", "implementation"), CODECS)
def test_items_are_as_if_alone_with_the_published_architecture(
    model: str, implementation: str, size: str, worst_error: Callable[..., float]
) -> None:
    config = EncodecConfig(
        kind="encodec", model=model, implementation=implementation, weights="random", size=size
    )
    assert worst_error(build_backbone(config), [5, 9601, 1, 4000]) <= 1e-5


@pytest.mark.parametrize(("model", "implementation"), CODECS)
def test_what_lies_beyond_an_item_has_no_influence(
    model: str,
    implementation: str,
    build: Callable[..., Any],
    make_items: Callable[..., list[Tensor]],
    pad: Callable[..., Any],
) -> None:
    backbone = build(model, implementation)
    batch, lengths = pad(make_items(backbone, [2000, 4, 50_001]))
    clean, counts = batched(backbone, batch, lengths)
    for row, length in enumerate(lengths):
        batch[row, length:] = torch.nan
    values, _ = batched(backbone, batch, lengths)
    for row, count in enumerate(counts):
        assert torch.equal(values[row, :count], clean[row, :count])


def gradients(backbone: Any, batch: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    values, counts = backbone(batch, lengths)
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    rows = zip(values * weights, counts.tolist(), strict=True)  # so that nothing cancels behind a norm
    torch.stack([row[:count].sum() for row, count in rows]).sum().backward()
    return {name: parameter.grad for name, parameter in backbone.named_parameters()}


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize(("model", "implementation"), CODECS)
def test_gradients_are_those_of_items_alone(
    model: str,
    implementation: str,
    recomputed: bool,
    build: Callable[..., Any],
    make_items: Callable[..., list[Tensor]],
    pad: Callable[..., Any],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    """Also with activations computed again; and training a copy leaves the backbone alone."""
    backbone = build(model, implementation)
    inputs = pad(make_items(backbone, [2000, 4, 9601, 48_300]))
    trained = copy.deepcopy(backbone).train()
    unfreeze(trained, Finetune(unfreeze="all", gradient_checkpointing=recomputed))
    convolutions = [part for part in trained.modules() if isinstance(part, nn.Conv1d)]
    computed: list[nn.Module] = []
    for convolution in convolutions:
        convolution.register_forward_hook(lambda module, *_: computed.append(module))
    with as_on_a_gpu():
        found = gradients(trained, *inputs)
    assert (len(computed) > len(convolutions)) == recomputed
    expected = gradients(backbone.requires_grad_(True), *inputs)
    assert len(found) == len(expected) > 20
    for name, gradient in expected.items():
        assert relative_error(found[name], gradient) <= 1e-4, name


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("model", "implementation"), CODECS)
def test_half_precision_is_close(
    model: str,
    implementation: str,
    precision: str,
    build: Callable[..., Any],
    make_items: Callable[..., list[Tensor]],
    pad: Callable[..., Any],
) -> None:
    exact, half = (build(model, implementation, precision=name) for name in ("fp32", precision))
    half.hold_weights(precision)
    inputs = pad(make_items(exact, [2000, 50_000]))
    (values, counts), (expected, _) = batched(half, *inputs), batched(exact, *inputs)
    assert values.dtype == torch.float32
    for row, count in enumerate(counts):
        cosine = nn.functional.cosine_similarity(values[row, :count], expected[row, :count], dim=-1)
        assert float(cosine.min()) >= 0.999


@pytest.mark.parametrize(("model", "implementation"), CODECS)
def test_the_device_is_asked_nothing(model: str, implementation: str, build: Callable[..., Any]) -> None:
    """Torch's meta device, which has no numbers, stands for one that is still computing them."""
    backbone = build(model, implementation).to("meta")
    batch = torch.empty(3, 3000, *[2] * (model == "48khz"), device="meta")
    values, lengths = backbone(batch, torch.tensor([3000, 1, 700]))
    assert values.shape == (3, backbone.num_frames(3000), 16)
    assert (values.device.type, lengths.device.type) == ("meta", "meta")
    assert (values.dtype, lengths.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize(("model", "implementation"), CODECS)
def test_before_a_quantizer_items_are_alone(
    model: str,
    implementation: str,
    build: Callable[..., Any],
    make_items: Callable[..., list[Tensor]],
    pad: Callable[..., Any],
    alone: Callable[..., Tensor],
) -> None:
    backbone = build(model, implementation, embedding="quantized")
    items = make_items(backbone, [9600, 9601, 9600, 700])
    values, counts = batched(backbone, *pad(items))
    for row, count, item in zip(values, counts, items, strict=True):
        assert torch.equal(row[:count], alone(backbone, item))
