"""What every backbone promises, checked on every kind and variant. Relative error: max |a-b| / max |b|."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stillwave.pipeline.backbones import BACKBONES, Backbone, build_backbone, load_backbone
from stillwave.pipeline.backbones.fingerprint import fingerprint
from tests.pipeline.backbones.variants import VARIANTS, WAV2VEC2_TINY, mixed_lengths

LONGEST_S = 12  # AST's window is 10.24 s, a segment of EnCodec 1 s


def test_every_kind_has_a_variant_and_a_yaml(request: pytest.FixtureRequest) -> None:
    files = sorted((request.config.rootpath / "configs" / "backbones").glob("*.yaml"))
    kinds = {load_backbone(file).kind for file in files}
    assert set(BACKBONES) == {raw["kind"] for raw in VARIANTS.values()} == kinds


def test_batch_invariance(
    backbone: Backbone,
    make_item: Callable[[int], Tensor],
    pad: Callable[..., Any],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    items = [make_item(length) for length in mixed_lengths(backbone)]
    with torch.inference_mode():
        values, lengths = backbone(*pad(items))
    for row, length, item in zip(values, lengths.tolist(), items, strict=True):
        expected = alone(backbone, item)
        assert length == backbone.num_frames(len(item)) == len(expected)
        assert relative_error(row[:length], expected) <= 1e-5


def test_neighbours_do_not_matter(
    backbone: Backbone,
    make_item: Callable[[int], Tensor],
    pad: Callable[..., Any],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    """Row, neighbour's loudness and surplus padding leave an item's frames alone; silence stays finite."""
    audio = backbone.modality == "audio"
    item = make_item(4000 if audio else 20)
    loud = make_item(9000 if audio else 60) * (50 if audio else 1)
    batch, lengths = pad([loud, item, torch.zeros_like(item)])
    surplus = torch.zeros_like(batch[:, :1]).repeat_interleave(1234 if audio else 5, dim=1)
    batch = torch.cat([batch, surplus], dim=1)
    with torch.inference_mode():
        values, lengths = backbone(batch, lengths)
    assert relative_error(values[1, : lengths[1]], alone(backbone, item)) <= 1e-5
    assert all(bool(row[:length].isfinite().all()) for row, length in zip(values, lengths, strict=True))


def test_threads_do_not_meet(
    backbone: Backbone, make_item: Callable[[int], Tensor], alone: Callable[..., Tensor]
) -> None:
    """Several threads may be in one backbone: each gets, bit by bit, what it would get alone."""
    items = [make_item(length) for length in mixed_lengths(backbone)]
    with torch.inference_mode():
        expected = [alone(backbone, item) for item in items]
    with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in range(3):
            frames = list(pool.map(lambda item: _inference(alone, backbone, item), items))
            assert all(torch.equal(a, b) for a, b in zip(frames, expected, strict=True))


def _inference(alone: Callable[..., Tensor], backbone: Backbone, item: Tensor) -> Tensor:
    with torch.inference_mode():  # a thread's own setting
        return alone(backbone, item)


def test_shapes(backbone: Backbone, make_item: Callable[[int], Tensor], pad: Callable[..., Any]) -> None:
    values, lengths = backbone(*pad([make_item(length) for length in mixed_lengths(backbone)]))
    layers = (backbone.num_layers,) if backbone.num_layers > 1 else ()
    assert values.shape == (len(lengths), int(lengths.max()), *layers, backbone.dim)
    assert values.dtype == torch.float32
    assert lengths.dtype == torch.int64


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_num_frames_is_exact(
    backbone: Backbone,
    make_item: Callable[[int], Tensor],
    pad: Callable[..., Any],
    alone: Callable[..., Tensor],
    data: st.DataObject,
) -> None:
    least, most = backbone.shortest(), 3000 if backbone.modality == "audio" else 512
    sizes = data.draw(st.lists(st.integers(least, most), min_size=1, max_size=3))
    if backbone.modality == "audio":  # and sometimes a second segment or window
        sizes += data.draw(st.lists(st.integers(most, LONGEST_S * backbone.sample_rate), max_size=1))
    _, lengths = backbone(*pad([make_item(size) for size in sizes]))
    assert lengths.tolist() == [backbone.num_frames(size) for size in sizes]
    assert len(alone(backbone, make_item(sizes[0]))) == backbone.num_frames(sizes[0])


def test_num_frames_at_its_boundaries(
    backbone: Backbone, make_item: Callable[[int], Tensor], alone: Callable[..., Tensor]
) -> None:
    counts = [backbone.num_frames(n) for n in range(2000 if backbone.modality == "audio" else 100)]
    steps = [n for n in range(1, len(counts)) if counts[n] != counts[n - 1]]
    assert all(counts[n] == counts[n - 1] + 1 for n in steps)
    for n in steps[:4]:
        assert len(alone(backbone, make_item(n))) == counts[n]
        assert counts[n - 1] == 0 or len(alone(backbone, make_item(n - 1))) == counts[n - 1]


def test_too_short_gives_no_frames(backbone: Backbone) -> None:
    least = backbone.shortest()
    assert {backbone.num_frames(n) for n in range(least)} == {0}
    assert backbone.num_frames(least) == 1
    assert backbone.num_frames(backbone.shortest(5) - 1) < 5 <= backbone.num_frames(backbone.shortest(5))


def test_one_clip_of_every_item_has_all_its_frames_at_once(configure: Callable[..., Any]) -> None:
    backbone = build_backbone(configure("cnn1d", clip_s=1.0))
    assert backbone.num_frames(1) < 128
    assert backbone.shortest() == backbone.shortest(128) == 1


def test_frame_times(backbone: Backbone) -> None:
    """Centres span the clip; where they are even, longer audio gives more frames at their rate."""
    if backbone.modality == "text":
        with pytest.raises(ValueError, match="its frames have no times"):
            backbone.frame_times(1)
        return
    assert backbone.sample_rate is not None
    length = 3 * backbone.sample_rate
    count = backbone.num_frames(length)
    times = backbone.frame_times(count)
    assert len(times) == count
    assert 0 <= float(times.min()) <= float(times.max()) <= 3 < times[-1] + 2 * (times[1] - times[0])
    if type(backbone).frame_times is Backbone.frame_times:
        assert backbone.num_frames(length + round(200 * backbone.hop_length)) == count + 200


def test_frozen_until_asked(
    variant: str, configure: Callable[..., Any], make_item: Callable[[int], Tensor], pad: Callable[..., Any]
) -> None:
    backbone = build_backbone(configure(variant))
    batch = pad([make_item(n) for n in mixed_lengths(backbone)[:3]])
    assert not backbone.training
    assert not backbone(*batch).values.requires_grad
    parameters = dict(backbone.requires_grad_(True).named_parameters())
    if not parameters:
        return
    values, lengths = backbone(*batch)
    sum(row[:length].square().mean() for row, length in zip(values, lengths, strict=True)).backward()
    assert [name for name, p in parameters.items() if p.grad is None or not p.grad.isfinite().all()] == []


def staged(stage: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [parameter for part in stage for parameter in part.parameters()]


def test_every_parameter_is_in_one_stage(backbone: Backbone) -> None:
    found = [id(parameter) for stage in backbone.stages() for parameter in staged(stage)]
    assert len(found) == len(set(found))
    assert set(found) == {id(parameter) for parameter in backbone.parameters()}


# What is in the front end and what is not, and how many stages there are.
STAGES: dict[str, tuple[int, str, str]] = {
    "wav2vec2-group": (5, "feature_extractor", "feature_projection"),
    "wav2vec2-layer-some": (5, "feature_extractor", "encoder.pos_conv_embed"),
    "ast-tiny": (3, "embeddings", "blocks.0"),
    "whisper-small": (4, "encoder.conv1", "encoder.layers.0"),
    "encodec-24": (11, "encoder.layers.0", "encoder.layers.1"),
    "encodec-package-24": (11, "encoder.model.0", "encoder.model.1"),
    "fastconformer-tiny": (4, "encoder.subsampling", "encoder.layers.0"),
    "fastconformer-transformers": (4, "encoder.model.subsampling", "encoder.model.layers.0"),
    "fastconformer-nemo": (4, "encoder.model.pre_encode", "encoder.model.layers.0"),
    "mbert-tiny": (4, "model.embeddings", "model.encoder.layer.0"),
    "hear-trainable": (1, "model", ""),
    "cnn1d": (3, "layers.0", "layers.1"),
    "sanet": (6, "encoder.blocks.0", "encoder.attention.0"),
}


@pytest.mark.parametrize("variant", STAGES)
def test_the_front_end_is_the_first_stage(variant: str, configure: Callable[..., Any]) -> None:
    count, front, behind = STAGES[variant]
    backbone = build_backbone(configure(variant))
    stages = backbone.stages()
    own = {id(parameter) for parameter in staged(stages[0])}
    assert len(stages) == count
    assert own >= {id(parameter) for parameter in backbone.get_submodule(front).parameters()}
    if behind:
        assert own.isdisjoint(id(parameter) for parameter in backbone.get_submodule(behind).parameters())


@pytest.mark.parametrize(
    "variant", ["wav2vec2-group", "wav2vec2-layer", "ast-tiny", "fastconformer-tiny", "mbert-tiny"]
)
def test_layers_above_the_last_one_kept_are_in_no_stage(
    variant: str, configure: Callable[..., Any], waveform: Callable[[int], Tensor], pad: Callable[..., Any]
) -> None:
    """The stages are exactly what gets a gradient."""
    backbone = build_backbone(configure(variant, layers=[1])).requires_grad_(True)
    text = backbone.modality == "text"
    values, lengths = backbone(*pad([torch.tensor([1, 5, 2]) if text else waveform(9000)]))
    values[0, : lengths[0]].square().sum().backward()
    found = {id(parameter) for stage in backbone.stages() for parameter in staged(stage)}
    assert found == {id(parameter) for parameter in backbone.parameters() if parameter.grad is not None}


def test_every_stage_trains(
    variant: str, configure: Callable[..., Any], make_item: Callable[[int], Tensor], pad: Callable[..., Any]
) -> None:
    """In train mode, on items of unequal length."""
    backbone = build_backbone(configure(variant)).train().requires_grad_(True)
    if not [*backbone.parameters()]:
        return
    least = backbone.shortest()
    values, lengths = backbone(*pad([make_item(n) for n in (3 * least, 20 * least, 7 * least)]))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(values.shape, generator=generator)  # so that nothing cancels behind a norm
    rows = zip(values * noise, lengths.tolist(), strict=True)
    torch.stack([row[:length].sum() for row, length in rows]).sum().backward()
    for stage in backbone.stages():
        gradients = [parameter.grad for parameter in staged(stage)]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.abs().max() > 0 for gradient in gradients)


FINGERPRINTS = """
import json, sys
from stillwave.pipeline.backbones import build_backbone, parse_backbone
raws = json.load(sys.stdin)
print(json.dumps([build_backbone(parse_backbone(raw, "test", trusted=True)).fingerprint() for raw in raws]))
"""


def test_fingerprint_is_the_same_in_another_process(
    configure: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    configs = [configure(variant) for variant in VARIANTS]
    done = subprocess.run(
        [sys.executable, "-c", FINGERPRINTS],
        input=json.dumps([config.model_dump(mode="json") for config in configs]),
        capture_output=True,
        text=True,
        check=True,
        cwd=request.config.rootpath,
        env=os.environ | {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"},
    )
    built = [build_backbone(config) for config in configs]
    here = [json.loads(json.dumps(backbone.fingerprint())) for backbone in built]
    for backbone in built:  # a store keeps it as JSON, in which a tuple comes back as a list
        whole = fingerprint(backbone)
        assert json.loads(json.dumps(whole)) == whole
    assert json.loads(done.stdout) == here
    assert len({json.dumps(fields) for fields in here}) == len(here)


CHANGES: dict[str, dict[str, list[Any]]] = {
    "fbank": {
        "storage_dtype": ["float32"], "sample_rate": [8000], "num_mels": [40], "window_s": [0.02],
        "hop_s": [0.02], "low_hz": [50], "high_hz": [7000], "deltas": [0, 1], "kaldi": [True],
    },
    "wav2vec2-tiny": {
        "storage_dtype": ["float32"], "precision": ["bf16", "fp16"], "layers": ["all", [1]],
        "compile": [True], "seed": [1], "size": ["base"], "weights": ["group", "layer"],
    },
    "ast-tiny": {
        "storage_dtype": ["float32"], "precision": ["bf16", "fp16"], "layers": ["all", [1]],
        "compile": [True], "seed": [1], "size": ["base"], "weights": ["ast"], "frequency": ["concat"],
    },
    "whisper-tiny": {
        "storage_dtype": ["float32"], "precision": ["bf16", "fp16"], "layers": ["all", [1]],
        "compile": [True], "seed": [1], "size": ["base"], "weights": ["whisper"], "window": ["clip"],
    },
    "onnx-windows": {
        "storage_dtype": ["float32"], "graph": ["other.onnx"], "front": ["other_front.onnx"],
        "sample_rate": [8000], "input_scale": [2.0], "front_scale": [1.0], "front_offset": [0.0],
        "hop": [5], "pad": [80],
    },
    "encodec-tiny": {
        "storage_dtype": ["float32"], "seed": [1], "size": ["base"], "weights": ["encodec-24khz"],
        "model": ["48khz"], "implementation": ["encodec"], "embedding": ["encoder"], "bandwidth": [3, 24],
    },
    "hear": {
        "storage_dtype": ["float32"], "module": ["tests.pipeline.backbones.hear_mel"],
        "model_file": [str(WAV2VEC2_TINY)], "max_batch": [2],
    },
    "resemblyzer": {"storage_dtype": ["float32"], "hop_s": [0.77], "weights": ["ge2e-other"]},
    "fastconformer-tiny": {
        "storage_dtype": ["float32"], "precision": ["bf16", "fp16"], "layers": ["all", [1]],
        "compile": [True], "seed": [1], "size": ["small"], "weights": ["parakeet"],
        "implementation": ["transformers", "nemo"],
    },
    "mbert-tiny": {
        "storage_dtype": ["float32"], "precision": ["bf16", "fp16"], "layers": ["all", [1]],
        "compile": [True], "seed": [1], "size": ["base"], "weights": ["bert"], "long_text": ["quarantine"],
    },
    "cnn1d": {
        "storage_dtype": ["float32"], "precision": ["bf16", "fp16"], "sample_rate": [8000], "seed": [1],
        "channels": [(64, 128, 64)], "kernel_sizes": [(80, 9, 5)], "strides": [(8, 2, 1)],
        "pools": [(4, 2, 1)], "clip_s": [1.0], "filters": ["mel"],
    },
    "sanet": {
        "storage_dtype": ["float32"], "precision": ["bf16", "fp16"], "sample_rate": [8000], "seed": [1],
        "size": ["base"], "channels": [(8, 16, 24, 40)], "num_heads": [4], "clip_s": [4.0],
    },
}  # fmt: skip
KNOBS: dict[str, Any] = {
    "dropout": 0.5, "max_batch_frames": 7, "max_bad_fraction": 0.5, "download": False, "revision": "main",
    "views": {"count": 1, "gaussian": {"probability": 1}}, "sha256": None, "front_sha256": None,
}  # fmt: skip
ONE_VALUE = {
    "fbank": {"kind", "precision"},
    "wav2vec2": {"kind"},
    "ast": {"kind"},
    "cnn1d": {"kind"},
    "encodec": {"kind", "layers", "compile", "precision"},  # with `encoder` it is free: see encodec/
    "hear": {"kind", "precision"},
    "resemblyzer": {"kind", "precision"},
    "whisper": {"kind"},
    # The rest must be as the graphs are: see test_onnx.py.
    "onnx": {"kind", "precision", "sees", "window", "front_window", "front_hop"},
    "fastconformer": {"kind"},
    "mbert": {"kind", "views"},
    "sanet": {"kind"},
}


@pytest.mark.parametrize("variant", CHANGES)
def test_fingerprint_follows_the_numbers(
    variant: str, configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillwave.pipeline.backbones import ast, mbert, wav2vec2

    for module in (ast, mbert, wav2vec2):  # a stand-in, for the true base takes seconds to draw
        monkeypatch.setitem(module.SIZES, "base", module.SIZES["tiny"] | {"intermediate_size": 96})

    def fingerprint(**changes: Any) -> dict[str, Any]:
        return build_backbone(configure(variant, **changes)).fingerprint()

    kind = VARIANTS[variant]["kind"]
    fields = set(type(configure(variant)).model_fields) - ONE_VALUE[kind]
    knobs = {field: value for field, value in KNOBS.items() if field in fields}
    assert fields == set(CHANGES[variant]) | set(knobs)
    original = fingerprint()
    for field, values in CHANGES[variant].items():
        for value in values:
            assert fingerprint(**{field: value}) != original, f"{field}={value}"
    assert fingerprint(**knobs) == original


@pytest.mark.parametrize(
    "variant", ["wav2vec2-tiny", "ast-tiny", "encodec-tiny", "fastconformer-tiny", "mbert-tiny", "cnn1d"]
)
def test_random_weights_leave_the_global_generator_alone(variant: str, configure: Callable[..., Any]) -> None:
    before = torch.get_rng_state()
    first, second = (build_backbone(configure(variant)).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


FP32_ONLY = {
    "fbank",
    "hear",
    "onnx",
    "resemblyzer",
}  # and a quantizer, where rounding would pick another codebook entry


@pytest.mark.parametrize(
    "variant",
    [v for v, raw in VARIANTS.items() if raw["kind"] not in FP32_ONLY and "embedding" not in raw],
    indirect=True,
)
def test_bf16_is_close(
    variant: str,
    backbone: Backbone,
    configure: Callable[..., Any],
    make_item: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
) -> None:
    item = make_item(16000 if backbone.modality == "audio" else 20)
    half = build_backbone(configure(variant, precision="bf16"))
    values = alone(half, item)
    half.hold_weights("bf16")
    held = alone(half, item)  # as extraction runs it
    assert float(torch.nn.functional.cosine_similarity(held, values, dim=-1).min()) >= 0.9999
    assert values.dtype == torch.float32
    assert float(torch.nn.functional.cosine_similarity(values, alone(backbone, item), dim=-1).min()) >= 0.999
