"""The composed classifier: its usage as documented, and that it says what its parts say."""

import pytest
import torch

from stillwave.heads.fusion import OpenMaxClassifier


def make(**kwargs) -> OpenMaxClassifier:
    torch.manual_seed(0)
    settings = {"num_layers": 3, "base_dim": 12, "bottleneck": 4, "anchor_dim": 5, "dropout": 0.0} | kwargs
    return OpenMaxClassifier(6, 3, **settings)


def rows(count: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 3
    return torch.randn(count, 6, generator=generator) + 3 * torch.eye(3, 6)[labels], labels


def fitted(model: OpenMaxClassifier) -> OpenMaxClassifier:
    x, labels = rows()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x)[0], labels).backward()
        optimizer.step()
    model.eval().openmax.fit(model(x)[0].detach(), labels)
    return model


def test_returns_logits_uncertainty_and_anchor_loss():
    model, (x, labels) = make().eval(), rows(6)
    logits, uncertainty, anchor_loss = model(x, labels)
    features = model.deep_classifier.features(x)
    torch.testing.assert_close(logits, model.deep_classifier(x))
    torch.testing.assert_close(uncertainty, model.uncertainty_head(features))
    assert uncertainty.shape == (6, 1)
    torch.testing.assert_close(anchor_loss, model.anchor_clustering.loss(features, labels))
    _, none, own = model(x, return_uncertainty=False)
    assert none is None
    torch.testing.assert_close(own, model.anchor_clustering.loss(features, logits.argmax(1)))
    assert not torch.equal(own, anchor_loss)


def test_openmax_adds_the_unknown_class_once_it_is_fitted():
    model, (x, _) = make().eval(), rows(6)
    with pytest.raises(ValueError, match="not fitted"):
        model(x, use_openmax=True)
    model = fitted(model.train())
    logits, _, _ = model(x)
    revised, uncertainty, _ = model(x, use_openmax=True, return_uncertainty=True)
    assert revised.shape == (6, 4)
    assert revised.dtype == logits.dtype
    torch.testing.assert_close(revised, model.openmax.revise(logits).to(logits.dtype))
    assert uncertainty.shape == (6, 1)
    other = make()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x, use_openmax=True)[0], revised)


def test_outputs_are_those_of_forward_and_do_not_depend_on_the_batch():
    model, (x, _) = make().eval(), rows(6)
    outputs = model.outputs(x)
    logits, uncertainty, _ = model(x)
    assert torch.equal(outputs.logits, logits)
    assert torch.equal(outputs.learned_uncertainty, uncertainty[:, 0])
    assert torch.equal(model.deep_classifier.output(outputs.features), logits)
    for item in range(6):
        for together, alone in zip(outputs, model.outputs(x[item : item + 1]), strict=True):
            torch.testing.assert_close(together[item : item + 1], alone)


@pytest.mark.parametrize("target", ["correct", "error"])
def test_losses_are_those_of_the_parts_and_reach_them_all(target):
    model, (x, labels) = make(uncertainty_target=target).train(), rows(6)
    outputs = model.outputs(x)
    losses = model.losses(outputs, labels)
    assert list(losses) == ["anchor", "uncertainty", "prototype"]
    torch.testing.assert_close(losses["anchor"], model.anchor_clustering.loss(outputs.features, labels))
    expected = model.uncertainty_head.loss(outputs.learned_uncertainty, outputs.logits, labels)
    torch.testing.assert_close(losses["uncertainty"], expected)
    torch.testing.assert_close(losses["prototype"], model.prototypes.prototype_loss(outputs.features, labels))
    (outputs.logits.square().sum() + sum(losses.values())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
