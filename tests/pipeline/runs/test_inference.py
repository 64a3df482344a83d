import numpy as np
import pytest
import torch

from stillwave.heads.base import Outputs
from stillwave.heads.fusion import FusionClassifier
from stillwave.pipeline.runs.inference import outputs_of, predict
from tests.pipeline.train.test_fit import ToyFeatures


class TwoModalities(ToyFeatures):
    def batch(self, rows):  # type: ignore[no-untyped-def]
        return (*super().batch(rows), *super().batch((rows + 1) % 60))


def fusion() -> FusionClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FusionClassifier({"audio": 6, "text": 6}, 3, shared_dim=8, num_heads=2, depth=2, base_dim=16)


def test_outputs_come_in_the_order_of_the_rows_whatever_the_batches() -> None:
    head, features = fusion(), TwoModalities()
    rows = np.array([7, 3, 50, 11, 3])
    together = outputs_of(head, features, rows, batch_size=2)
    alone = [outputs_of(head, features, rows[i : i + 1]) for i in range(5)]
    for got, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(got, torch.cat(parts), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(head.output(together.features), together.logits, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(predict(head, features, rows, batch_size=2), together.logits.numpy())
    assert together.learned_uncertainty is not None
    assert together.learned_uncertainty.shape == (5,)


def test_half_precision_outputs_are_fp32_tensors_near_the_full_ones() -> None:
    head, features = fusion(), TwoModalities()
    rows = np.arange(20)
    exact, half = (outputs_of(head, features, rows, precision=p) for p in ("fp32", "bf16"))
    assert {value.dtype for value in half} == {torch.float32}
    difference = (exact.logits - half.logits).abs().max() / exact.logits.abs().max()
    assert 0 < difference < 0.05


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to predict"):
        outputs_of(fusion(), TwoModalities(), np.array([], dtype=np.int64))


def test_outputs_without_an_uncertainty_stay_without() -> None:
    outputs = Outputs(torch.ones(2, 3), torch.ones(2, 4)).each(lambda value: 2 * value)
    assert outputs.learned_uncertainty is None
    assert outputs.features.sum() == 16
