"""Cross-modal attention against a loop over items, heads and frames, and against nn.MultiheadAttention."""

import math

import pytest
import torch
from torch import Tensor, nn

from stillwave.heads.fusion import CrossModalAttention

AUDIO_LENGTHS, TEXT_LENGTHS = [5, 1, 4, 0, 0], [3, 1, 0, 2, 0]


def make(seed: int = 0) -> CrossModalAttention:
    torch.manual_seed(seed)
    module = CrossModalAttention(6, 10, shared_dim=8, num_heads=2).double()
    for parameter in module.parameters():  # biases of zero, as at the start, would hide mistakes
        nn.init.normal_(parameter, std=0.5)
    return module


def inputs(padding: float = math.nan, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(5, 6, 6, dtype=torch.float64, generator=generator)
    text = torch.randn(5, 4, 10, dtype=torch.float64, generator=generator)
    for item, (audio_length, text_length) in enumerate(zip(AUDIO_LENGTHS, TEXT_LENGTHS, strict=True)):
        audio[item, audio_length:] = padding
        text[item, text_length:] = padding
    return audio, torch.tensor(AUDIO_LENGTHS), text, torch.tensor(TEXT_LENGTHS)


def naive(reader: nn.Module, frames: Tensor, shared: Tensor, other: Tensor) -> Tensor:
    """One item, one direction, only valid frames: (frames, dim) -> (frames, dim)."""
    rows = []
    for frame, query in zip(frames, shared, strict=True):
        heads = []
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            if not len(other):
                heads.append(torch.zeros(4, dtype=torch.float64))
                continue
            scores = torch.stack([query[part] @ key[part] / math.sqrt(4) for key in other])
            weights = scores.exp() / scores.exp().sum()
            values = [(reader.value.weight @ key + reader.value.bias)[part] for key in other]
            heads.append(sum(w * v for w, v in zip(weights, values, strict=True)))
        x = frame + reader.back.weight @ torch.cat(heads)
        x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
        rows.append(x * reader.norm.weight + reader.norm.bias)
    return torch.stack(rows) if rows else frames


def test_equals_a_naive_loop_whatever_the_padding():
    module = make()
    audio, audio_lengths, text, text_lengths = inputs()
    audio_out, text_out = module(audio, audio_lengths, text, text_lengths)
    assert audio_out.shape == audio.shape
    assert text_out.shape == text.shape
    for item, (n, m) in enumerate(zip(AUDIO_LENGTHS, TEXT_LENGTHS, strict=True)):
        a, t = audio[item, :n], text[item, :m]
        a_shared = a @ module.audio_shared.weight.T + module.audio_shared.bias
        t_shared = t @ module.text_shared.weight.T + module.text_shared.bias
        expected = naive(module.audio_reader, a, a_shared, t_shared)
        torch.testing.assert_close(audio_out[item, :n], expected, rtol=1e-10, atol=1e-12)
        expected = naive(module.text_reader, t, t_shared, a_shared)
        torch.testing.assert_close(text_out[item, :m], expected, rtol=1e-10, atol=1e-12)
    assert audio_out.isfinite().all()
    assert text_out.isfinite().all()


def test_equals_multihead_attention_with_the_same_weights():
    module = make()
    audio, audio_lengths, text, text_lengths = (x[:2] for x in inputs(padding=0.0))
    reference = nn.MultiheadAttention(8, 2, batch_first=True).double()
    reader, eye = module.audio_reader, torch.eye(8, dtype=torch.float64)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([eye, eye, reader.value.weight]))
        reference.in_proj_bias.copy_(torch.cat([torch.zeros(16), reader.value.bias]))
        reference.out_proj.weight.copy_(eye)
        reference.out_proj.bias.zero_()
    audio_shared, text_shared = module.audio_shared(audio), module.text_shared(text)
    padding = torch.arange(4) >= text_lengths[:, None]
    context, _ = reference(audio_shared, text_shared, text_shared, key_padding_mask=padding)
    expected = reader.norm(audio + reader.back(context))
    audio_out, _ = module(audio, audio_lengths, text, text_lengths)
    torch.testing.assert_close(audio_out[0, :5], expected[0, :5])
    torch.testing.assert_close(audio_out[1, :1], expected[1, :1])


def test_an_absent_modality_is_no_context_at_all():
    module = make()
    audio, audio_lengths, text, _ = inputs(padding=0.0)
    out, _ = module(audio, audio_lengths, text, torch.zeros(5, dtype=torch.int64))
    assert torch.equal(out, module.audio_reader.norm(audio))
    empty, _ = module(audio, audio_lengths, text[:, :0], torch.zeros(5, dtype=torch.int64))
    assert torch.equal(empty, out)


def test_gradients_are_finite_and_reach_valid_frames_only():
    module = make()
    audio, audio_lengths, text, text_lengths = inputs()
    audio.requires_grad_()
    text.requires_grad_()
    weights = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    audio_out, text_out = module(audio, audio_lengths, text, text_lengths)
    loss = sum((audio_out[i, :n] @ weights).sum() for i, n in enumerate(AUDIO_LENGTHS))
    loss = loss + sum(text_out[i, :m].square().sum() for i, m in enumerate(TEXT_LENGTHS))
    loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    for x, lengths in ((audio, AUDIO_LENGTHS), (text, TEXT_LENGTHS)):
        assert x.grad is not None
        for item, length in enumerate(lengths):
            assert x.grad[item, :length].isfinite().all()
            assert x.grad[item, :length].abs().sum(-1).gt(0).all()
            assert x.grad[item, length:].abs().sum() == 0


def test_half_precision_autocast_stays_close():
    module = make().float()
    arguments = [x.float() if x.is_floating_point() else x for x in inputs()]
    exact = module(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        rough = module(*arguments)
    for a, b in zip(exact, rough, strict=True):
        torch.testing.assert_close(b.float(), a, rtol=0.05, atol=0.05)


def test_num_heads_must_divide_the_shared_dimension():
    with pytest.raises(ValueError, match=r"divide shared_dim; 10 % 4 = 2"):
        CrossModalAttention(shared_dim=10, num_heads=4)
