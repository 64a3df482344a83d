"""AudioBranch: its description's own code, its sizes, and what it learns."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from stillwave.models.audio_branch import AudioBranch, AudioBranchConfig, SegmentAttentionPooling

TINY: dict[str, Any] = {
    "feature_dim": 32, "num_layers": 2, "d_model": 24, "num_heads": 4, "num_segments": 3,
}  # fmt: skip


def tiny(seed: int = 0, **changes: Any) -> AudioBranch:
    torch.manual_seed(seed)
    return AudioBranch(**(TINY | changes))


def clips(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise whose loudness rises and falls, zero-padded."""
    generator = torch.Generator().manual_seed(seed)
    items = [0.1 * torch.randn(n, generator=generator) * torch.linspace(0, 9, n).sin() for n in lengths]
    return torch.nn.utils.rnn.pad_sequence(items, batch_first=True), torch.tensor(lengths)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_basic_usage_as_described() -> None:
    audio_branch = AudioBranch(
        pretrained_model=None,
        feature_dim=512,
        num_segments=8,
        pooling_type="attention",
        use_nemo=False,
    )
    audio = torch.randn(4, 48000)
    output = audio_branch(audio, return_all_segments=True)
    assert output["segment_features"].shape == (4, 8, 512)
    assert output["segment_features"].isfinite().all()


def test_configuration_as_described() -> None:
    config = AudioBranchConfig(
        feature_dim=512, num_segments=8, num_layers=17, d_model=512, num_heads=8, pooling_type="attention"
    )
    with torch.device("meta"):  # its size, not its numbers: 109 M of them
        audio_branch = AudioBranch(**config.to_dict())
    assert config == AudioBranchConfig()
    assert len(audio_branch.encoder.encoder.layers) == 17
    assert count(audio_branch.encoder) == 108_762_112
    assert count(audio_branch) == 109_295_624


def test_pooling_and_segments_as_described() -> None:
    pooling = SegmentAttentionPooling(
        dim=512, num_segments=8, pooling_type="attention", num_heads=8, dropout=0.1
    )
    assert pooling(torch.randn(2, 37, 512), torch.tensor([37, 5])).shape == (2, 8, 512)
    with torch.device("meta"):
        audio_branch = AudioBranch(num_segments=16, feature_dim=512)
    assert audio_branch.pooling.num_segments == 16


@pytest.mark.parametrize(("num_layers", "described", "exact"), [(4, 8e6, 7_793_416), (17, 30e6, 28_377_096)])
def test_statistics_as_described(num_layers: int, described: float, exact: int) -> None:
    """The described totals are those of 256 dimensions inside, 512 outside; the pooling is about 0.5 M."""
    with torch.device("meta"):
        branch = AudioBranch(num_layers=num_layers, d_model=256)
    assert count(branch) == exact
    assert abs(exact / described - 1) < 0.1
    assert count(branch.pooling) == 533_512


@pytest.mark.parametrize("pooling_type", ["attention", "max", "avg", "learnable"])
def test_a_clip_does_not_depend_on_its_batch(pooling_type: str) -> None:
    branch = tiny(pooling_type=pooling_type).eval()
    audio, lengths = clips(16000, 320, 7001)
    with torch.inference_mode():
        together = branch(audio, lengths)
        for index, length in enumerate(lengths.tolist()):
            alone = branch(audio[index : index + 1, :length])
            for name, value in together.items():
                torch.testing.assert_close(value[index], alone[name][0], rtol=1e-4, atol=1e-5)
    assert together["segment_features"].shape == (3, 3, 32)


def test_features_are_the_mean_over_segments() -> None:
    branch = tiny().eval()
    audio, lengths = clips(9000, 5000)
    every = branch(audio, lengths)
    short = branch(audio, lengths, return_all_segments=False)
    assert short.keys() == {"features"}
    assert short["features"].shape == (2, 32)
    torch.testing.assert_close(short["features"], every["segment_features"].mean(1))


def test_gradients_reach_all_of_it() -> None:
    branch = tiny().train()
    (branch(*clips(16000, 9000))["segment_features"] * torch.randn(2, 3, 32)).sum().backward()
    assert [n for n, p in branch.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    reached = branch.encoder.encoder.subsampling.layers[0].weight.grad
    assert reached is not None
    assert float(reached.abs().max()) > 0


def test_a_frozen_encoder_stays_as_it_is() -> None:
    branch = tiny(freeze_encoder=True).train()
    before = {name: tensor.clone() for name, tensor in branch.encoder.state_dict().items()}
    branch(*clips(16000, 9000))["segment_features"].square().sum().backward()
    assert {n.split(".")[0] for n, p in branch.named_parameters() if p.requires_grad} == {
        "projection",
        "pooling",
    }
    assert all(p.grad is None for p in branch.encoder.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in branch.encoder.state_dict().items())
    assert branch.training
    assert not any(module.training for module in branch.encoder.modules())


def test_it_learns_to_tell_low_from_high() -> None:
    time = torch.arange(8000) / 16000
    pitches = torch.tensor([150.0, 170.0, 190.0, 600.0, 650.0, 700.0])
    generator = torch.Generator().manual_seed(0)
    audio = 0.3 * torch.sin(2 * torch.pi * pitches[:, None] * time)
    audio = audio * (1 + torch.sin(30 * time)) + 0.01 * torch.randn(6, 8000, generator=generator)
    target = torch.tensor([0.0, 0, 0, 1, 1, 1])
    branch, head = tiny(), torch.nn.Linear(32, 1)
    optimizer = torch.optim.Adam([*branch.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for _ in range(30):
        logits = head(branch(audio, return_all_segments=False)["features"])[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 < 0.5 < losses[0]


def test_errors_name_value_and_bound() -> None:
    with pytest.raises(ValidationError, match=r"num_segment\n.*Extra inputs are not permitted"):
        AudioBranch(num_segment=8)
    with pytest.raises(ValueError, match=r"d_model 512 must be even and a multiple of num_heads 7"):
        AudioBranch(num_heads=7)
    with pytest.raises(ValueError, match=r"audio has shape \(48000,\); it must be \(batch, samples\)"):
        tiny()(torch.randn(48000))
    with pytest.raises(ValueError, match="an item of 100 samples is too short"):
        tiny()(torch.randn(1, 100))
