"""The fusion head: its parts composed by hand, missing modalities, and the contract that every head keeps."""

import math

import pytest
import torch
from torch import Tensor

from stillwave.heads.fusion import FusionClassifier

SMALL = {
    "shared_dim": 8,
    "num_heads": 2,
    "fused_dim": 6,
    "depth": 4,
    "base_dim": 12,
    "bottleneck": 4,
    "anchor_dim": 5,
    "checkpoint_every": 2,
}
DIMS = {"audio": 7, "text": 10}
HEADS = {
    "both": (DIMS, {}),
    "audio": ({"audio": 7}, {"mean_removal": 1.0}),
    "text": ({"text": 10}, {}),
    "layers": (DIMS, {"num_layers": {"audio": 3, "text": 2}, "mean_removal": 0.5}),
    "convolutions": (DIMS, {"channels": 8, "strides": (2, 1), "kernel_size": 3, "mean_removal": 0.5}),
}
LENGTHS = {"audio": [9, 4, 1, 0, 7, 0], "text": [3, 1, 2, 5, 0, 0]}


def make(name: str, seed: int = 0, **kwargs) -> FusionClassifier:
    dims, settings = HEADS[name]
    torch.manual_seed(seed)
    head = FusionClassifier(dims, 3, **SMALL | settings | kwargs).eval()
    for standardise in head.standardisers:
        standardise.fit([torch.randn(50, *standardise.mean.shape) * 3 + 2])
    for parameter in head.absent.values():  # zeros, as at the start, would hide mistakes
        torch.nn.init.normal_(parameter)
    return head


def batch(name: str, padding: float = math.nan, items: slice = slice(None)) -> list[Tensor]:
    dims, settings = HEADS[name]
    generator = torch.Generator().manual_seed(1)
    inputs = []
    for modality, dim in dims.items():
        lengths = LENGTHS[modality]
        layers = settings.get("num_layers", {}).get(modality, 1)
        shape = (layers, dim) if layers > 1 else (dim,)
        frames = torch.randn(len(lengths), 11, *shape, generator=generator)
        for item, length in enumerate(lengths):
            frames[item, length:] = padding
        longest = max(lengths[items])
        inputs += [frames[items, :longest], torch.tensor(lengths[items])]
    return inputs


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("padding", [0.0, 1e4, math.nan])
def test_outputs_do_not_depend_on_the_batch(name, padding):
    head = make(name)
    together = head.outputs(*batch(name, padding))
    assert [tuple(x.shape) for x in together] == [(6, 3), (6, 6), (6,)]
    for item in range(6):  # alone, an absent modality has no frames at all
        alone = head.outputs(*batch(name, padding, slice(item, item + 1)))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[item : item + 1], b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["correct", "error"])
@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_gets_a_finite_gradient(name, target):
    head = make(name, uncertainty_target=target).train()
    outputs = head.outputs(*batch(name))
    losses = head.losses(outputs, torch.arange(6) % 3)
    (outputs.logits.square().sum() + sum(losses.values())).backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", ["both", "audio"])
def test_equals_its_parts_composed_by_hand(name):
    head = make(name).double()
    inputs = [x.double() if x.is_floating_point() else x for x in batch(name, 0.0, slice(0, 1))]
    pairs = list(zip(head.modalities, inputs[::2], inputs[1::2], strict=True))
    frames = [(x - head.standardise[n].mean) / head.standardise[n].std for n, x, _ in pairs]
    if name == "both":
        frames = list(head.cross_attention(frames[0], inputs[1], frames[1], inputs[3]))
        pooled = [head.pooling[n](x, length) for x, (n, _, length) in zip(frames, pairs, strict=True)]
        fused = head.fusion_layer(*pooled)
    else:
        pooled = head.pooling["audio"](frames[0] - frames[0].mean(1), inputs[1])
        fused = (pooled @ head.fusion_layer[0].weight.T + head.fusion_layer[0].bias).tanh()
    torch.testing.assert_close(head(*inputs), head.classifier(fused)[0])
    torch.testing.assert_close(head.fused(*inputs), fused)


@pytest.mark.parametrize("name", HEADS)
def test_keeps_the_contract_of_heads(name):
    head, inputs = make(name), batch(name)
    outputs = head.outputs(*inputs)
    assert torch.equal(head(*inputs), outputs.logits)
    assert torch.equal(head.output(outputs.features), outputs.logits)
    assert head.standardisers == tuple(head.standardise[n] for n in head.modalities)
    assert list(head.losses(outputs, torch.arange(6) % 3)) == ["anchor", "uncertainty", "prototype"]
    assert len(head.state_dict()) == len({t.data_ptr() for t in head.state_dict().values()})
    other = make(name, seed=1)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(*inputs), outputs.logits)


def test_a_learned_vector_stands_for_an_absent_modality():
    head = make("both")
    audio, text = head.pooled(*batch("both"))
    for item in range(6):
        for name, pooled in (("audio", audio), ("text", text)):
            absent = LENGTHS[name][item] == 0
            assert torch.equal(pooled[item], head.absent[name]) == absent
    with torch.no_grad():
        head.absent["text"].add_(1)
    changed = (head(*batch("both")) != make("both")(*batch("both"))).any(1)
    assert changed.tolist() == [length == 0 for length in LENGTHS["text"]]


def test_a_batch_without_any_text():
    head = make("both")
    audio, audio_lengths, *_ = batch("both")
    expected = head(audio, audio_lengths, torch.full((6, 4, 10), math.nan), torch.zeros(6).long())
    nothing = head(audio, audio_lengths, torch.zeros(6, 0, 10), torch.zeros(6).long())
    torch.testing.assert_close(nothing, expected)
    assert nothing.isfinite().all()


def test_modality_dropout_takes_one_of_two():
    head = make("both", modality_dropout=0.4).train()
    torch.manual_seed(3)
    audio, text = head._drop_modality(torch.full((4000,), 9), torch.full((4000,), 3))
    assert set(audio.tolist()) == {0, 9}
    assert set(text.tolist()) == {0, 3}
    assert not ((audio == 0) & (text == 0)).any()
    # four standard deviations of a mean over 4000 draws of probability 0.2: 0.025
    assert (audio == 0).float().mean().item() == pytest.approx(0.2, abs=0.025)
    assert (text == 0).float().mean().item() == pytest.approx(0.2, abs=0.025)
    alone, none = head._drop_modality(torch.full((500,), 9), torch.zeros(500).long())
    assert (alone == 9).all()
    assert (none == 0).all()


def test_modality_dropout_is_absence_and_acts_in_training_only():
    head = make("both", modality_dropout=1.0, dropout=0.0)
    audio, audio_lengths, text, text_lengths = (x[:3] for x in batch("both"))
    none = torch.zeros(3).long()
    whole = head(audio, audio_lengths, text, text_lengths)
    torch.testing.assert_close(whole, make("both")(audio, audio_lengths, text, text_lengths))
    without_text = head(audio, audio_lengths, text, none)
    without_audio = head(audio, none, text, text_lengths)
    torch.manual_seed(0)
    trained = head.train()(audio, audio_lengths, text, text_lengths)
    for item in range(3):
        is_either = [torch.allclose(trained[item], x[item], atol=1e-6) for x in (without_text, without_audio)]
        assert sum(is_either) == 1


def test_draws_nothing_without_modality_dropout():
    head = make("both", dropout=0.0).train()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    head(*batch("both"))
    assert torch.equal(torch.rand(1), expected)


def test_reads_half_precision_frames_and_autocast_stays_close():
    head, inputs = make("both"), batch("both")
    half = [x.half() if x.is_floating_point() else x for x in inputs]
    torch.testing.assert_close(head(*half), head(*(x.float() if x.is_floating_point() else x for x in half)))
    with torch.autocast("cpu", torch.bfloat16):
        rough = head(*inputs)
    torch.testing.assert_close(rough.float(), head(*inputs), rtol=0.1, atol=0.1)


def test_the_flagship_has_the_documented_shapes_and_size():
    head = FusionClassifier({"audio": 768, "text": 768}, 4)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in head.named_children()}
    attention = 2 * (768 * 256 + 256) + 2 * (256 * 256 + 256 + 256 * 768 + 2 * 768)
    assert parts["cross_attention"] == attention
    assert parts["pooling"] == 2 * (768 * 128 + 128 + 128)
    assert parts["fusion_layer"] == 2 * (1536 * 512 + 512) + 1024 * 512 + 512
    others = (256 * 128 + 128 + 4 * 128 + 1) + (256 * 64 + 64 + 64 + 1) + 4 * 256
    assert parts["classifier"] == 2_028_296 + others
    assert parts["absent"] == 2 * 1536


def test_errors_name_value_and_remedy():
    with pytest.raises(ValueError, match=r"dims name \['video'\]; name some of audio, text"):
        FusionClassifier({"video": 3}, 4)
    with pytest.raises(ValueError, match=r"dims name \[\]"):
        FusionClassifier({}, 4)
    with pytest.raises(ValueError, match=r"mean_removal is 2"):
        FusionClassifier(DIMS, 4, mean_removal=2)
    with pytest.raises(ValueError, match=r"modality_dropout is -0\.1"):
        FusionClassifier(DIMS, 4, modality_dropout=-0.1)
    with pytest.raises(
        ValueError, match=r"got 2 tensors; this head reads frames and lengths of audio and of text"
    ):
        make("both")(*batch("audio"))
