"""The 35-layer classifier: its equations, its size, how it starts, and checkpointing without consequences."""

import math

import pytest
import torch
from torch import Tensor, nn

from stillwave.heads.fusion.deep import CHECKPOINT_ROWS, DeepClassifier


def make(seed: int = 0, **kwargs) -> DeepClassifier:
    torch.manual_seed(seed)
    return DeepClassifier(6, 3, **{"num_layers": 4, "base_dim": 8, "bottleneck": 3} | kwargs)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return (x - x.mean()) / (x.var(unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias


def test_equals_its_equations_one_item_at_a_time():
    model = make().double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    batch = torch.randn(5, 6, dtype=torch.float64)
    logits, features = model(batch), model.features(batch)
    for item, x in enumerate(batch):
        linear, norm = model.input_projection[:2]
        x = layer_norm(linear.weight @ x + linear.bias, norm).clamp(min=0)
        for block in model.blocks:
            down, up = block.branch[0], block.branch[3]
            hidden = (down.weight @ x + down.bias).clamp(min=0)
            x = layer_norm(x + up.weight @ hidden + up.bias, block.norm)
        x = (model.feature.weight @ x + model.feature.bias).clamp(min=0)
        torch.testing.assert_close(features[item], x, rtol=1e-10, atol=1e-12)
        expected = model.output.weight @ x + model.output.bias
        torch.testing.assert_close(logits[item], expected, rtol=1e-10, atol=1e-12)


def test_the_default_has_two_million_parameters():
    model = DeepClassifier()
    block = 512 * 44 + 44 + 44 * 512 + 512 + 2 * 512
    rest = 512 * 512 + 512 + 2 * 512 + 512 * 256 + 256 + 256 * 4 + 4
    assert sum(p.numel() for p in model.parameters()) == 35 * block + rest == 2_028_296
    assert len(model.blocks) == 35
    assert model.features(torch.randn(2, 512)).shape == (2, 256)
    assert model(torch.randn(2, 512)).shape == (2, 4)


def test_linear_layers_start_xavier_uniform():
    for name, module in DeepClassifier().named_modules():
        if isinstance(module, nn.Linear):
            bound = math.sqrt(6 / (module.in_features + module.out_features))
            if name.endswith("branch.3"):  # what a branch adds: the sum of all 35 has the size of one
                bound /= math.sqrt(35)
            assert 0.98 * bound < module.weight.abs().max() <= bound
            # torch's own start has another spread in every one of these shapes but the square ones
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert not module.bias.any()


def test_the_first_block_gets_as_much_gradient_as_the_last():
    torch.manual_seed(0)
    model = DeepClassifier().eval()
    logits = model(torch.randn(32, 512))
    nn.functional.cross_entropy(logits, torch.arange(32) % 4).backward()

    def norm(block: nn.Module) -> float:
        return math.hypot(*(p.grad.norm().item() for p in block.parameters()))

    # A branch adds little variance to what passes by, forward and backward alike, and the norm takes it off
    # again: the gradient's size should be that of the last block, within a small factor. Were it to lose a
    # tenth per block, 0.9 ** 34 = 0.03 would be left.
    ratio = norm(model.blocks[0]) / norm(model.blocks[-1])
    assert 0.3 < ratio < 3


def test_what_enters_the_blocks_is_still_seen_behind_them():
    """Of two inputs' features, the one that is nearer before 35 blocks is nearer behind them."""
    torch.manual_seed(0)
    model = DeepClassifier().eval()
    with torch.no_grad():
        x = model.input_projection(torch.randn(40, 512))
        before, after = torch.pdist(x), torch.pdist(model.blocks(x))
    # 0.81 so; 0.12 when each branch adds 15 % of variance
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.7


def test_35_layers_learn():
    torch.manual_seed(0)
    model = DeepClassifier(6, 3, base_dim=32, bottleneck=4, checkpoint_every=0, dropout=0.0)
    x, labels = torch.randn(24, 6), torch.arange(24) % 3
    x[:, :3] += 2 * nn.functional.one_hot(labels, 3)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("every", [1, 3, 10])  # 3 does not divide the 4 blocks, 10 exceeds them
def test_checkpointing_changes_no_gradient(dropout, every):
    x = torch.randn(CHECKPOINT_ROWS, 6)
    results = []
    for checkpoint_every in (0, every):
        model = make(dropout=dropout, checkpoint_every=checkpoint_every).train()
        torch.manual_seed(5)
        loss = model(x).square().sum()
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        assert torch.equal(plain, checkpointed)
        assert plain.abs().sum() > 0


def test_checkpointing_keeps_fewer_activations():
    def kept(every: int, rows: int = CHECKPOINT_ROWS) -> int:
        model, count = make(num_layers=20, checkpoint_every=every).train(), 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(rows, 6))
        return count

    assert kept(5) < 0.5 * kept(0)
    assert kept(5, rows=CHECKPOINT_ROWS - 1) == kept(0, rows=CHECKPOINT_ROWS - 1)


def test_evaluation_neither_drops_nor_checkpoints():
    model = make(dropout=0.5).eval()
    x = torch.randn(3, 6)
    torch.testing.assert_close(model(x)[:1], model(x[:1]))
    assert torch.equal(model(x), model.output(model.features(x)))
    assert not torch.equal(model.train()(x), model(x))


def test_a_negative_number_of_blocks_to_checkpoint_is_refused():
    with pytest.raises(ValueError, match="checkpoint_every is -1"):
        DeepClassifier(checkpoint_every=-1)
