"""Our own FastConformer encoder and log-mel front end, part by part, against loops and other libraries."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import transformers
from torch import Tensor

from stillwave.pipeline.backbones.fastconformer.backbone import SIZES
from stillwave.pipeline.backbones.fastconformer.conformer import (
    Architecture,
    Conformer,
    RelativeAttention,
    relative_positions,
    subsampled,
)
from stillwave.pipeline.backbones.fastconformer.mel import LogMel, MelSettings
from stillwave.pipeline.backbones.fastconformer.nemo import build_nemo
from stillwave.pipeline.backbones.fastconformer.nemo_file import to_nemo
from stillwave.pipeline.backbones.fastconformer.parakeet import build_parakeet
from stillwave.pipeline.backbones.mel_filters import slaney_filters
from stillwave.pipeline.backbones.weights import random_weights

SMALL = Architecture(
    d_model=24, num_layers=2, num_heads=3, ff_dim=48, num_mels=40, subsampling_channels=8, conv_kernel=5
)


def noisy(architecture: Architecture, seed: int = 0) -> Conformer:
    """A Conformer in eval mode whose biases and statistics are not those of a new one."""
    generator = torch.Generator().manual_seed(seed)
    model = random_weights(seed, lambda: Conformer(architecture)).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return model


def mels(*lengths: int, num_mels: int = 40, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(lengths), max(lengths), num_mels, generator=generator)
    return values, torch.tensor(lengths)


@pytest.mark.parametrize("num_mels", [80, 128])
def test_slaney_filters_are_librosas(num_mels: int) -> None:
    theirs = transformers.audio_utils.mel_filter_bank(
        num_frequency_bins=257, num_mel_filters=num_mels, min_frequency=0.0, max_frequency=8000.0,
        sampling_rate=16000, norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    ours = slaney_filters(num_mels, 512, 16000)
    torch.testing.assert_close(ours, torch.from_numpy(theirs.T).float(), rtol=1e-5, atol=1e-8)


def test_mel_is_transformers_and_nemos(
    waveform: Callable[[int], Tensor], pad: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    """To 1e-5 in units of a standard deviation, at every frame of a padded batch; and 0 beyond."""
    items = [waveform(n) for n in (320, 479, 3217, 16000, 48001)]
    batch, lengths = pad(items)
    ours, num_frames = LogMel(MelSettings())(batch, lengths)
    assert num_frames.tolist() == [2, 2, 20, 100, 300]
    extractor = transformers.ParakeetFeatureExtractor()
    theirs = extractor([item.numpy() for item in items], sampling_rate=16000, return_tensors="pt")
    nemo, nemo_frames = build_nemo(SMALL, MelSettings(), to_nemo(noisy(SMALL).state_dict()))[0](
        batch, lengths
    )
    assert theirs.attention_mask.sum(1).tolist() == nemo_frames.tolist() == num_frames.tolist()
    assert float((ours - theirs.input_features[:, :300]).abs().max()) <= 1e-5
    assert float((ours - nemo).abs().max()) <= 1e-5
    for row, length in zip(ours, num_frames, strict=True):
        assert not row[length:].any()
        torch.testing.assert_close(row[:length].mean(0), torch.zeros(80), rtol=0, atol=1e-4)


def test_mel_of_silence_is_finite() -> None:
    values, _ = LogMel(MelSettings())(torch.zeros(2, 4000), torch.tensor([4000, 320]))
    assert not values.any()


def test_subsampled_counts_what_three_convolutions_leave() -> None:
    for count in range(1, 100):
        expected = count
        for _ in range(3):
            expected = (expected + 2 * 1 - 3) // 2 + 1  # padding 1, kernel 3, stride 2
        assert int(subsampled(torch.tensor(count))) == expected


def test_attention_is_the_published_formula() -> None:
    """Item by item, head by head and pair by pair, in float64, with one frame of padding."""
    attention = RelativeAttention(SMALL, dropout=0.0).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    hidden = torch.randn(2, 5, 24, generator=generator, dtype=torch.float64)
    lengths = [5, 4]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    positions = relative_positions(5, 24, hidden.device).double()
    ours = attention(hidden, mask, positions)
    size = 24 // 3
    for item, length in enumerate(lengths):
        heads = []
        for head in range(3):
            part = slice(head * size, (head + 1) * size)
            query, key, value = (
                layer(hidden[item, :length])[:, part]
                for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            scores = torch.empty(length, length, dtype=torch.float64)
            for i in range(length):
                for j in range(length):
                    angle = [(i - j) / 10000 ** (2 * (k // 2) / 24) for k in range(24)]
                    sines = [math.cos(a) if k % 2 else math.sin(a) for k, a in enumerate(angle)]
                    distant = attention.relative_k_proj(torch.tensor(sines, dtype=torch.float64))[part]
                    content = (query[i] + attention.bias_u[head]) @ key[j]
                    place = (query[i] + attention.bias_v[head]) @ distant
                    scores[i, j] = (content + place) / math.sqrt(size)
            heads.append(scores.softmax(-1) @ value)
        torch.testing.assert_close(
            ours[item, :length], attention.o_proj(torch.cat(heads, dim=-1)), rtol=1e-5, atol=1e-6
        )


def test_one_frame_attends_to_itself() -> None:
    attention = RelativeAttention(SMALL, dropout=0.0).eval()
    hidden = torch.randn(1, 1, 24)
    out = attention(hidden, torch.ones(1, 1, dtype=torch.bool), relative_positions(1, 24, hidden.device))
    torch.testing.assert_close(out, attention.o_proj(attention.v_proj(hidden)))


@pytest.mark.parametrize("changes", [{}, {"use_bias": False}, {"scale_input": False}, {"num_mels": 64}])
def test_encoder_is_transformers(changes: dict[str, object], relative_error: Callable[..., float]) -> None:
    architecture = replace(SMALL, **changes)  # type: ignore[arg-type]
    ours = noisy(architecture)
    theirs = build_parakeet(architecture, ours.state_dict()).eval()
    batch = mels(70, 33, 2, num_mels=architecture.num_mels)
    values = torch.where(torch.arange(70)[:, None] < batch[1][:, None, None], batch[0], 0)
    with torch.inference_mode():
        pairs = list(zip(ours(values, batch[1]), theirs(values, batch[1]), strict=True))
    assert len(pairs) == 3
    for mine, other in pairs:
        for row, reference, length in zip(mine, other, subsampled(batch[1]), strict=True):
            assert relative_error(row[:length], reference[:length]) <= 1e-5


def test_padding_is_never_read() -> None:
    model = noisy(SMALL)
    values, lengths = mels(64, 17, 3)
    padded = torch.where(torch.arange(64)[:, None] < lengths[:, None, None], values, torch.nan)
    with torch.inference_mode():
        states, expected = model(padded, lengths), model(torch.nan_to_num(padded), lengths)
    for state, other in zip(states, expected, strict=True):
        for row, reference, length in zip(state, other, subsampled(lengths), strict=True):
            assert torch.equal(row[:length], reference[:length])


def test_batch_norm_learns_from_valid_frames_only() -> None:
    """Running statistics after a training pass move, and the same with 200 more frames of padding."""
    values, lengths = mels(64, 17)
    models = [noisy(SMALL).train() for _ in range(2)]
    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout | RelativeAttention):
                module.eval()
    models[0](values, lengths)
    models[1](torch.nn.functional.pad(values, (0, 0, 0, 200)), lengths)
    for first, second in zip(*(model.state_dict().items() for model in models), strict=True):
        torch.testing.assert_close(first[1], second[1], rtol=1e-4, atol=1e-5)
    before = noisy(SMALL).layers[0].conv.norm.running_mean
    assert float((models[0].layers[0].conv.norm.running_mean - before).abs().max()) > 1e-3


def test_gradients_reach_every_parameter_in_training() -> None:
    model = noisy(SMALL).train()
    values, lengths = mels(64, 17)
    states = model(values, lengths)
    (states[-1] * torch.randn(states[-1].shape)).sum().backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert lacking == []


def test_parameter_counts() -> None:
    """Published FastConformer large has 115.6 M with its CTC head of 1025 x 512; seeds of 256 are its kin."""
    counts = {}
    for size, (architecture, projected) in SIZES.items():
        with torch.device("meta"):
            counts[size] = sum(p.numel() for p in Conformer(architecture).parameters())
        counts[size] += (architecture.d_model + 1) * (projected or 0)
    assert counts == {"tiny": 127_808, "small": 7_259_904, "medium": 27_843_584, "large": 115_074_560}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"num_heads": 5}, "d_model 24 must be even and a multiple of num_heads 5", id="heads"),
        pytest.param({"conv_kernel": 4}, "conv_kernel 4 must be odd", id="kernel"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)
