"""What the pictures show: the numbers drawn, and nothing cut off or on top of the data."""

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipeline.open_set_metrics import accepted, auroc
from pipeline.plots import confusion_figure, open_set_figure, reliability_figure, scores_figure
from pipeline.probabilities import calibration_report


def reports() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 4))
    labels = np.array([rng.choice(4, p=row) for row in softmax(logits)])
    return {
        name: calibration_report(softmax(f * logits), labels) for name, f in (("before", 4), ("after", 1))
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits)
    return odds / odds.sum(1, keepdims=True)


def curves(count: int = 8) -> tuple[dict[str, Any], dict[str, float]]:
    rng = np.random.default_rng(0)
    known = rng.random(200) < 0.5
    drawn, areas = {}, {}
    for number in range(count):
        scores = rng.normal(size=200) - number / 4 * known
        curve = accepted(scores, known)
        drawn[f"score{number}"] = (curve.known, curve.unknown)
        areas[f"score{number}"] = auroc(scores, known)
    return drawn, areas


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return buffer.getvalue()


def test_reliability_shows_accuracy_confidence_and_the_share_of_rows() -> None:
    given = reports()
    figure = reliability_figure(given)
    above, below = figure.axes
    assert [text.get_text() for text in above.get_legend().get_texts()] == [
        "confidence = accuracy",
        *(f"{name}: ECE {report['ece']:.3f}" for name, report in given.items()),
    ]
    for points, stairs, report in zip(above.collections, below.patches, given.values(), strict=True):
        filled = [part for part in report["reliability"] if part["n"]]
        shown = [[part["confidence"], part["accuracy"]] for part in filled]
        np.testing.assert_allclose(points.get_offsets(), shown)
        values, edges, _ = stairs.get_data()
        assert values.sum() == pytest.approx(1)
        assert (len(edges), edges[0], edges[-1]) == (16, 0, 1)


def test_open_set_shows_every_score_and_its_area_the_best_first() -> None:
    given, areas = curves()
    (axes,) = open_set_figure(given).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    ranked = sorted(areas, key=lambda name: -areas[name])
    assert labels == [*(f"{name}: {areas[name]:.3f}" for name in ranked), "chance: 0.500"]
    for line, name in zip(axes.lines, ranked, strict=False):
        known_rejected, unknown_detected = line.get_data()
        assert -np.trapezoid(unknown_detected, known_rejected) == pytest.approx(areas[name])  # from 1 to 0
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == 9


def test_a_score_keeps_its_look_when_it_ranks_otherwise() -> None:
    given, _ = curves(3)
    worse = {"score0": given["score2"], "score1": given["score1"], "score2": given["score0"]}
    looks = []
    for drawn in (given, worse):
        lines = open_set_figure(drawn).axes[0].lines
        looks.append(
            {line.get_label().split(":")[0]: (line.get_color(), line.get_linestyle()) for line in lines}
        )
    assert looks[0] == looks[1]


def test_legends_lie_outside_the_data_and_inside_the_picture() -> None:
    for figure in (reliability_figure(reports()), open_set_figure(curves()[0])):
        png(figure)  # lays it out
        axes = figure.axes[0]
        legend, inside = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert not legend.overlaps(inside)
        assert 0 <= legend.x0 < legend.x1 <= figure.bbox.width
        assert 0 <= legend.y0 < legend.y1 <= figure.bbox.height


def test_every_figure_becomes_a_picture() -> None:
    confusion = {"classes": ["a", "b"], "matrix": [[3, 1], [0, 2]]}
    groups = {"s1": {"uar": 0.5, "n": 3}, "s2": {"uar": 0.9, "n": 7}}
    for figure in (confusion_figure(confusion), scores_figure(groups, 0.7), reliability_figure(reports())):
        assert png(figure).startswith(b"\x89PNG")
    (axes, _) = confusion_figure(confusion).axes
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "2"]
