"""The personalised head: it starts as the head that it wraps, and what it learns follows the speaker."""

import pytest
import torch
from torch import nn

from stillwave.heads.classifier import SegmentClassifier
from stillwave.heads.fusion import FusionClassifier
from stillwave.heads.personal import Personalised
from stillwave.heads.pooled import PooledClassifier
from stillwave.heads.statistics_classifier import StatisticsClassifier

SEGMENT = {"channels": 16, "strides": (2,), "num_segments": 4, "num_heads": 2, "hidden": 12}
FUSION = {"shared_dim": 8, "num_heads": 2, "fused_dim": 16, "depth": 2, "base_dim": 16, "bottleneck": 4}
HEADS = {
    "segment": lambda: SegmentClassifier(8, 3, **SEGMENT),
    "pooled": lambda: PooledClassifier(8, 3, pooling="attentive", hidden=(12,)),
    "fusion": lambda: FusionClassifier({"audio": 8, "text": 6}, 3, **FUSION),
    "statistics": lambda: StatisticsClassifier({"a": 8, "b": 6}, 3),
}
LENGTHS = [1, 3, 9, 20]


def make(name: str, seed: int = 0, started: bool = True, **options: float) -> Personalised:
    """A personalised head of five speakers; `started`: as built, else as training might leave it."""
    torch.manual_seed(seed)
    head = Personalised(HEADS[name](), 5, dim=4, hidden=6, **options)
    if not started:
        nn.init.normal_(head.up.weight)
        nn.init.normal_(head.output.weight)  # that of a statistics head starts at zero
    return head.eval()


def batch(name: str, items: slice = slice(None)) -> list[torch.Tensor]:
    """Frames and lengths of each modality, without speakers."""
    generator = torch.Generator().manual_seed(1)
    inputs = []
    for dim in (8, 6) if name in ("fusion", "statistics") else (8,):
        lengths = torch.tensor(LENGTHS)[items]
        frames = torch.randn(len(LENGTHS), max(LENGTHS), dim, generator=generator)[items]
        inputs += [frames[:, : int(lengths.max())], lengths]
    return inputs


@pytest.mark.parametrize("name", HEADS)
def test_starts_as_the_head_that_it_wraps_whoever_speaks(name):
    head = make(name)
    plain = head.head.outputs(*batch(name))
    for speakers in ([0, 0, 0, 0], [1, 5, 3, 2]):
        outputs = head.outputs(*batch(name), torch.tensor(speakers))
        assert torch.equal(outputs.logits, plain.logits)
        assert torch.equal(outputs.features, plain.features)
        assert (outputs.learned_uncertainty is None) == (plain.learned_uncertainty is None)
    assert head.output is head.head.output
    assert head.standardisers == head.head.standardisers


def test_features_are_moved_as_written():
    head = make("segment", started=False)
    plain = head.head.outputs(*batch("segment"))
    speakers = torch.tensor([0, 2, 2, 5])
    joined = torch.cat([plain.features, head.speakers.weight[speakers]], 1)
    hidden = (joined @ head.down.weight.T + head.down.bias).clamp(min=0)
    features = plain.features + hidden @ head.up.weight.T + head.up.bias
    outputs = head.outputs(*batch("segment"), speakers)
    torch.testing.assert_close(outputs.features, features)
    torch.testing.assert_close(outputs.logits, features @ head.output.weight.T + head.output.bias)
    torch.testing.assert_close(head(*batch("segment"), speakers), outputs.logits)


@pytest.mark.parametrize("name", HEADS)
def test_an_item_depends_on_its_own_speaker_and_not_on_the_batch(name):
    head = make(name, started=False)
    speakers = torch.tensor([3, 0, 1, 3])
    together = head(*batch(name), speakers)
    for item in range(len(LENGTHS)):
        part = slice(item, item + 1)
        alone = head(*batch(name, part), speakers[part])
        torch.testing.assert_close(together[part], alone, rtol=1e-4, atol=1e-5)
    other = head(*batch(name), torch.tensor([3, 2, 1, 3]))
    changed = (other - together).abs().amax(1) > 1e-3
    assert changed.tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_gets_a_finite_gradient(name):
    head = make(name, started=False, unknown=0.0).train()
    outputs = head.outputs(*batch(name), torch.tensor([0, 1, 2, 3]))
    labels = torch.tensor([0, 1, 2, 0])
    own = sum(head.losses(outputs, labels).values())
    (outputs.logits.square().sum() + own).backward()
    for key, parameter in head.named_parameters():
        if "absent" not in key:  # the fusion head's stand-in for a modality, which no item lacks here
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
    moved = head.speakers.weight.grad.abs().amax(1) > 0
    assert moved.tolist() == [True, True, True, True, False, False]


def test_the_first_step_reaches_the_speakers_only_through_what_moves():
    """`up` is zero: it learns first, and vectors follow."""
    head = make("segment").train()
    head(*batch("segment"), torch.tensor([1, 2, 3, 4])).square().sum().backward()
    assert head.up.weight.grad.abs().max() > 0
    assert head.speakers.weight.grad.abs().max() == 0


@pytest.mark.parametrize(("unknown", "low", "high"), [(0.0, 0, 0), (0.3, 0.25, 0.35), (0.9, 0.85, 0.95)])
def test_rows_are_shown_as_unknown_while_training(unknown, low, high):
    torch.manual_seed(0)
    head = Personalised(PooledClassifier(2, 2, hidden=(3,), dropout=0.0), 1, unknown=unknown)
    nn.init.normal_(head.up.weight)
    frames, lengths = torch.ones(2000, 1, 2), torch.ones(2000, dtype=torch.int64)
    speakers = torch.ones(2000, dtype=torch.int64)
    head.eval()
    known = head(frames, lengths, speakers)[0]
    stranger = head(frames, lengths, 0 * speakers)[0]
    assert not torch.allclose(known, stranger)
    shown = head.train()(frames, lengths, speakers)
    as_unknown = (shown - stranger).abs().amax(1) < 1e-5
    as_known = (shown - known).abs().amax(1) < 1e-5
    assert bool((as_known ^ as_unknown).all())
    assert low <= as_unknown.float().mean().item() <= high


def test_training_tells_speakers_apart_who_say_the_same_with_opposite_labels():
    torch.manual_seed(0)
    head = Personalised(PooledClassifier(4, 2, hidden=(8,), dropout=0.0), 2, unknown=0.0)
    frames, lengths = torch.randn(40, 3, 4), torch.full((40,), 3)
    speakers = torch.arange(40) % 2 + 1
    labels = (frames.mean((1, 2)) > 0).long() ^ (speakers == 2).long()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(frames, lengths, speakers), labels).backward()
        optimizer.step()
    accuracy = (head.eval()(frames, lengths, speakers).argmax(1) == labels).float().mean()
    assert accuracy > 0.9  # without speakers 0.5 is all there is


def test_settings_out_of_range_are_refused():
    head = SegmentClassifier(8, 3)
    with pytest.raises(ValueError, match="num_speakers is 0"):
        Personalised(head, 0)
    with pytest.raises(ValueError, match=r"unknown is 1\.0"):
        Personalised(head, 2, unknown=1.0)
