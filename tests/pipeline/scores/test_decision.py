import math

import numpy as np

from stillwave.pipeline.scores.decision import decide, entropy


def test_entropy_is_a_part_of_the_largest() -> None:
    p = np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])
    np.testing.assert_allclose(entropy(p), [0, 1, math.log(2) / math.log(3)], atol=1e-15)
    assert str(entropy(p)[0]) == "0.0"  # not -0.0
    assert entropy(p[2]).shape == ()


def test_a_score_at_the_threshold_is_of_a_known_class() -> None:
    labels = np.array(["a", "b", "c"], dtype=object)
    found = decide(labels, np.array([0.5, 0.6, 0.1]), np.array([0.5, 0.5, np.nan]), "unknown")
    assert found.tolist() == ["a", "unknown", None]
