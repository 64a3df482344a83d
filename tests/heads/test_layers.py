"""Standardisation against NumPy, layer mixing against a loop."""

import numpy as np
import pytest
import torch
from torch import nn

from stillwave.heads.layers import LayerMix, Standardise, layer_weights


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_standardise_equals_numpy_over_all_chunks(shape):
    rng = np.random.default_rng(0)
    frames = rng.normal(loc=300, scale=0.1, size=(70, *shape)).astype(np.float32)
    chunks = [torch.from_numpy(part) for part in np.split(frames, [0, 1, 40])]  # one of them empty
    module = Standardise(*shape).fit(chunks)
    wide = frames.astype(np.float64)
    np.testing.assert_allclose(module.mean, wide.mean(0), rtol=1e-7)
    np.testing.assert_allclose(module.std, wide.std(0), rtol=1e-6)
    standard = module.double()(torch.from_numpy(wide)).numpy()
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(standard.std(0), 1, rtol=1e-5)


def test_standardise_reads_stored_half_precision_and_leaves_constants_alone():
    frames = torch.full((10, 2), 3.0, dtype=torch.float16)
    frames[:, 1] = torch.arange(10)
    module = Standardise(2).fit([frames])
    assert module.std[0] == 1
    out = module(frames)
    assert out.dtype == torch.float32
    assert torch.equal(out[:, 0], torch.zeros(10))


def test_standardise_is_the_identity_until_fitted_and_holds_no_parameter():
    module = Standardise(4)
    frames = torch.randn(3, 4)
    assert torch.equal(module(frames), frames)
    assert not list(module.parameters())
    with pytest.raises(ValueError, match="no frames"):
        module.fit([])


def test_standardise_state_dict_round_trip():
    fitted = Standardise(4).fit([torch.randn(20, 4) * 3 + 1])
    loaded = Standardise(4)
    loaded.load_state_dict(fitted.state_dict())
    frames = torch.randn(5, 4)
    assert torch.equal(fitted(frames), loaded(frames))


def test_layer_mix_equals_a_loop_and_learns_its_weights():
    module = LayerMix(3).double()
    with torch.no_grad():
        module.weights.copy_(torch.tensor([0.3, -1.0, 2.0]))
    frames = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    weights = np.exp([0.3, -1.0, 2.0]) / np.exp([0.3, -1.0, 2.0]).sum()
    expected = sum(weights[layer] * frames[:, :, layer] for layer in range(3))
    out = module(frames)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    assert module.weights.grad.abs().min() > 0


def test_layer_mix_of_one_layer_is_the_identity():
    module = LayerMix(1)
    frames = torch.randn(2, 4, 5)
    assert not list(module.parameters())
    assert torch.equal(module(frames), frames)
    assert torch.equal(module(frames[:, :, None]), frames)
    with pytest.raises(ValueError, match="3 layers"):
        LayerMix(3)(frames)


def test_layer_weights_are_found_wherever_a_head_has_them_and_sum_to_one():
    head = nn.ModuleDict(
        {"mix": nn.ModuleDict({"audio": LayerMix(2), "text": LayerMix(1)}), "inner": LayerMix(3)}
    )
    with torch.no_grad():
        head["mix"]["audio"].weights.copy_(torch.tensor([0.0, 3.0]).log1p())
    found = layer_weights(head)
    assert list(found) == ["mix.audio", "inner"]
    torch.testing.assert_close(found["mix.audio"], torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(found["inner"], torch.full((3,), 1 / 3))
    assert not found["inner"].requires_grad
    assert layer_weights(nn.Linear(2, 2)) == {}
