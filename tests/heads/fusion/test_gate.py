"""The gated multimodal unit, one dimension at a time."""

import math

import torch

from stillwave.heads.fusion import FusionLayer


def make() -> FusionLayer:
    torch.manual_seed(0)
    layer = FusionLayer(5, 3, 4).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def test_equals_the_equations_by_loop():
    layer = make()
    audio, text = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    fused, gate = layer(audio, text), layer.gate(audio, text)
    for item in range(3):
        p_a = layer.audio_projection.weight @ audio[item] + layer.audio_projection.bias
        p_t = layer.text_projection.weight @ text[item] + layer.text_projection.bias
        both = [*p_a.tolist(), *p_t.tolist()]
        for k in range(4):
            row = layer.gate_projection.weight[k].tolist()
            score = sum(w * x for w, x in zip(row, both, strict=True)) + layer.gate_projection.bias[k].item()
            z = 1 / (1 + math.exp(-score))
            torch.testing.assert_close(gate[item, k].item(), z, rtol=1e-10, atol=0)
            expected = z * math.tanh(both[k]) + (1 - z) * math.tanh(both[4 + k])
            torch.testing.assert_close(fused[item, k].item(), expected, rtol=1e-9, atol=1e-12)


def test_an_open_gate_lets_one_modality_through():
    layer = make()
    audio, text = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.gate_projection.bias.fill_(1000)
    torch.testing.assert_close(layer(audio, text), layer.audio_projection(audio).tanh())
    with torch.no_grad():
        layer.gate_projection.bias.fill_(-1000)
    torch.testing.assert_close(layer(audio, text), layer.text_projection(text).tanh())


def test_every_parameter_gets_a_gradient_and_the_defaults_their_shapes():
    layer = make()
    layer(torch.randn(2, 5).double(), torch.randn(2, 3).double()).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
    assert FusionLayer()(torch.randn(2, 1536), torch.randn(2, 1536)).shape == (2, 512)
