"""The whole head: against its parts composed by hand, and the contract that every head keeps."""

import pytest
import torch

from stillwave.heads.classifier import SegmentClassifier
from stillwave.heads.masks import valid_mask, zero_padding

HEADS = {
    "plain": {},
    "max": {"pooling_type": "max", "use_temporal_encoding": False},
    "layers": {"num_layers": 4, "mean_removal": 1.0},
    "convolutions": {"mean_removal": 0.5, "channels": 16, "strides": (2, 1), "kernel_size": 3},
}


def make(name: str, seed: int = 0) -> SegmentClassifier:
    torch.manual_seed(seed)
    head = SegmentClassifier(8, 3, **HEADS[name]).eval()
    head.standardise.fit([torch.randn(50, *head.standardise.mean.shape) * 3 + 2])
    return head


def batch(name: str, lengths: list[int], padding: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    layers = HEADS[name].get("num_layers", 1)
    generator = torch.Generator().manual_seed(1)
    shape = (len(lengths), max(lengths), layers, 8) if layers > 1 else (len(lengths), max(lengths), 8)
    frames = torch.randn(shape, generator=generator)
    for item, length in enumerate(lengths):
        frames[item, length:] = padding
    return frames, torch.tensor(lengths)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("padding", [0.0, 1e4, float("nan")])
def test_logits_do_not_depend_on_the_batch(name, padding):
    head = make(name)
    frames, lengths = batch(name, [1, 2, 5, 8, 9, 30], padding)
    together = head(frames, lengths)
    assert together.shape == (6, 3)
    for item, length in enumerate(lengths):
        alone = head(frames[item : item + 1, :length], lengths[item : item + 1])
        torch.testing.assert_close(together[item : item + 1], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_gets_a_finite_gradient(name):
    head = make(name).train()
    frames, lengths = batch(name, [1, 4, 20])
    head(frames, lengths).square().sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", HEADS)
def test_state_dict_round_trip_carries_the_statistics(name):
    first, second = make(name, seed=0), make(name, seed=1)
    second.load_state_dict(first.state_dict())
    frames, lengths = batch(name, [12, 3])
    assert torch.equal(first(frames, lengths), second(frames, lengths))


def test_equals_its_parts_composed_by_hand():
    head = make("convolutions").double()
    frames = torch.randn(11, 8, dtype=torch.float64)
    standard = (frames - head.standardise.mean) / head.standardise.std
    centred = standard - 0.5 * standard.mean(0)
    encoded, lengths = head.encoder(centred[None], torch.tensor([11]))
    segments = head.pooling(encoded, lengths)[0]
    deviation = (segments.var(0, unbiased=False) + 1e-6).sqrt()
    expected = head.mlp(torch.cat([segments.mean(0), deviation])[None])
    torch.testing.assert_close(head(frames[None], torch.tensor([11])), expected)


def test_full_mean_removal_ignores_a_constant_offset():
    head = make("layers")
    frames, lengths = batch("layers", [10, 4])
    torch.testing.assert_close(head(frames + 5, lengths), head(frames, lengths), rtol=1e-4, atol=1e-5)


def test_reads_half_precision_frames_as_stored():
    head = make("convolutions")
    frames, lengths = batch("convolutions", [10, 4])
    half = frames.half()
    torch.testing.assert_close(head(half, lengths), head(half.float(), lengths))


def test_mean_removal_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"mean_removal is 1\.5"):
        SegmentClassifier(8, 3, mean_removal=1.5)


def test_masks():
    lengths = torch.tensor([3, 1])
    assert valid_mask(lengths, 3).tolist() == [[True, True, True], [True, False, False]]
    frames = torch.full((2, 3, 2), torch.nan)
    frames[0], frames[1, 0] = 1.0, 2.0
    assert zero_padding(frames, lengths).sum() == 10


@pytest.mark.parametrize("name", HEADS)
def test_padding_reaches_no_gradient(name):
    gradients = []
    for padding in (0.0, float("nan")):
        head = make(name)
        head(*batch(name, [2, 9, 30], padding)).square().sum().backward()
        gradients.append({key: p.grad for key, p in head.named_parameters() if p.grad is not None})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, msg=key)


def test_outputs_are_what_the_logits_come_from():
    head = make("convolutions")
    outputs = head.outputs(*batch("convolutions", [4, 9]))
    assert outputs.features.shape == (2, 128)
    assert outputs.learned_uncertainty is None
    torch.testing.assert_close(head.output(outputs.features), outputs.logits)
    torch.testing.assert_close(head(*batch("convolutions", [4, 9])), outputs.logits)
