"""What the pictures show: the numbers drawn, and nothing cut off or on top of the data."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from stillwave.pipeline.evaluate.fonts import fonts, lettered
from stillwave.pipeline.evaluate.plots import (
    confusion_figure,
    curves_figure,
    layer_weights_figure,
    losses_figure,
    open_set_figure,
    reliability_figure,
    scores_figure,
)
from stillwave.pipeline.scores.calibration import calibration_report
from stillwave.pipeline.scores.open_set import accepted, auroc


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
    weights = layer_weights_figure({"layer_mix": mix([0, 1, 2], 10)})
    for figure in (reliability_figure(reports()), open_set_figure(curves()[0]), weights):
        png(figure)  # lays it out
        axes = figure.axes[0]
        legend, inside = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert not legend.overlaps(inside)
        assert 0 <= legend.x0 < legend.x1 <= figure.bbox.width
        assert 0 <= legend.y0 < legend.y1 <= figure.bbox.height


def trained(folds: int = 2, epochs: int = 3) -> pd.DataFrame:
    """Curves of folds; the last fold stops an epoch before the others."""
    rng = np.random.default_rng(0)
    names = ("train_loss", "loss_focal", "loss_cross_entropy", "valid_loss", "valid_uar")
    rows = [
        {"fold": fold, "epoch": epoch, **{name: rng.uniform() for name in names}}
        for fold in range(folds)
        for epoch in range(epochs - (fold == folds - 1))
    ]
    return pd.DataFrame(rows)


def test_curves_show_every_fold_and_their_mean_as_long_as_all_train() -> None:
    table = trained()
    loss, uar = curves_figure(table).axes
    for axes, names in ((loss, ("train_loss", "valid_loss")), (uar, ("valid_uar",))):
        assert len(axes.lines) == 3 * len(names)  # two folds, and their mean
        for number, name in enumerate(names):
            drawn = [axes.lines[3 * number + i].get_data() for i in range(3)]
            each = [part[name].to_numpy() for _, part in table.groupby("fold")]
            np.testing.assert_array_equal(drawn[0][0], [1, 2, 3])
            np.testing.assert_array_equal(drawn[0][1], each[0])
            np.testing.assert_array_equal(drawn[1][1][:2], each[1])
            np.testing.assert_array_equal(drawn[2][0], [1, 2])
            np.testing.assert_allclose(drawn[2][1], (each[0][:2] + each[1]) / 2)
    assert len(curves_figure(table.drop(columns=["valid_loss", "valid_uar"])).axes) == 1


def mix(layers: list[int], folds: int) -> dict[str, Any]:
    weights = np.random.default_rng(0).dirichlet(np.ones(len(layers)), folds)
    each = {str(fold): line.tolist() for fold, line in enumerate(weights)}
    return {"layers": layers, "mean": weights.mean(0).tolist(), "folds": each}


def test_layer_weights_show_every_fold_and_their_mean_under_the_layers_numbers() -> None:
    given = {"mix.audio": mix([2, 5, 11], 4), "mix.text": mix([0, 3], 4)}
    figure = layer_weights_figure(given)
    for axes, (name, one) in zip(figure.axes, given.items(), strict=True):
        assert [bar.get_height() for bar in axes.patches] == one["mean"]
        equal, points = axes.lines
        assert equal.get_ydata() == pytest.approx([1 / len(one["layers"])] * 2)
        x, y = points.get_data()
        assert y.tolist() == [weight for line in one["folds"].values() for weight in line]
        assert x.round().tolist() == 4 * list(range(len(one["layers"])))  # above the bar of their layer
        assert [int(text.get_text()) for text in axes.get_xticklabels()] == one["layers"]
        assert axes.get_xlabel() == f"layer ({name})"
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert texts == ["mean of 4 folds", f"all equal: {1 / len(one['layers']):.3f}", "a fold"]


def test_layer_weights_of_one_fold_are_bars_and_many_layers_have_fewer_numbers() -> None:
    (axes,) = layer_weights_figure({"layer_mix": mix(list(range(25)), 1)}).axes
    assert len(axes.lines) == 1  # no points
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(i) for i in range(0, 25, 2)]
    assert axes.get_xlabel() == "layer"


def test_every_loss_has_a_panel_of_its_own() -> None:
    table = trained(folds=1, epochs=2)  # one epoch
    axes = losses_figure(table).axes
    assert [axis.get_title("left") for axis in axes] == ["focal", "cross entropy"]
    for axis, name in zip(axes, ("loss_focal", "loss_cross_entropy"), strict=True):
        (line,) = axis.lines
        assert line.get_ydata() == pytest.approx(table[name])
        assert line.get_marker() == "o"  # else a single epoch is not seen


def test_a_dollar_in_a_name_is_a_dollar() -> None:
    names = ["$\\nonsense$", "costs $"]
    figures = [
        confusion_figure({"classes": names, "matrix": [[3, 1], [0, 2]]}),
        scores_figure({name: {"uar": 0.5, "n": 3} for name in names}, 0.7),
    ]
    for figure in figures:
        assert png(figure).startswith(b"\x89PNG")


def test_many_classes_have_smaller_cells_and_no_zeros_and_very_many_shades_alone() -> None:
    counts = 5 * np.eye(40, dtype=int)
    counts[3, 4] = 2
    figure = confusion_figure({"classes": [f"class {i}" for i in range(40)], "matrix": counts.tolist()})
    axes = figure.axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["2"] + 40 * ["5"]
    assert figure.get_figwidth() < 20
    figure.draw_without_rendering()
    cell = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
    assert max(text.get_window_extent().width for text in axes.texts) < cell
    assert axes.get_yticklabels()[0].get_window_extent().height < cell
    figure = confusion_figure({"classes": [str(i) for i in range(200)], "matrix": np.eye(200).tolist()})
    assert not figure.axes[0].texts
    assert figure.axes[0].get_xlabel() == "predicted, 200 classes"
    assert figure.get_figwidth() < 12


def test_letters_that_no_font_has_are_boxes_without_a_warning() -> None:
    names = ["\ue000", "b"]  # of nobody's alphabet
    figures = [
        confusion_figure({"classes": names, "matrix": [[3, 1], [0, 2]]}),
        scores_figure({name: {"uar": 0.5, "n": 3} for name in names}, 0.7),
    ]
    for figure in figures:
        with lettered():
            assert png(figure).startswith(b"\x89PNG")
        with pytest.warns(UserWarning, match="Glyph"):  # else this would show nothing
            png(figure)
        families = {name for text in figure.findobj(Text) for name in text.get_fontfamily()}
        assert families == set(fonts())


def test_many_groups_are_ordered_without_their_names() -> None:
    groups = {f"s{i:04d}": {"uar": (i * 7 % 2000) / 2000, "n": 3} for i in range(2000)}
    figure = scores_figure(groups, 0.7)
    assert figure.get_figheight() < 10
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == sorted(widths, reverse=True)
    assert figure.axes[0].get_ylabel() == "2000 of them, by UAR"


def test_every_figure_becomes_a_picture() -> None:
    confusion = {"classes": ["a", "b"], "matrix": [[3, 1], [0, 2]]}
    groups = {"s1": {"uar": 0.5, "n": 3}, "s2": {"uar": 0.9, "n": 7}}
    for figure in (confusion_figure(confusion), scores_figure(groups, 0.7), reliability_figure(reports())):
        assert png(figure).startswith(b"\x89PNG")
    (axes, _) = confusion_figure(confusion).axes
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "2"]
