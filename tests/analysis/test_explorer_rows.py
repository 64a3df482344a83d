"""Columns of the explorer: a class has one code, and so one look, wherever it occurs."""

import pandas as pd

from stillwave.analysis.explorer_rows import Columns


def test_a_class_has_the_same_code_as_a_label_and_as_a_prediction() -> None:
    classes = ["angry", "class 2", "class 10", "sad"]
    rows = pd.DataFrame({"label": classes, "predicted": ["angry", "class 10", "class 10", "sad"]})
    rows["decision"] = ["angry", "unknown", "class 10", "sad"]
    columns = Columns()
    places = columns.add_all(rows, classes)
    label, predicted, decision = (columns.encoded[places[name]] for name in rows)
    assert label["names"] == predicted["names"] == classes
    assert decision["names"] == [*classes, "unknown"]


def test_noise_is_named_where_there_is_some() -> None:
    columns = Columns()
    places = columns.add_all(pd.DataFrame({"kmeans": [1, 0, 10], "hdbscan": [-1, 2, 0]}), [])
    assert columns.encoded[places["kmeans"]]["names"] == ["cluster 0", "cluster 1", "cluster 10"]
    assert columns.encoded[places["hdbscan"]]["names"] == ["cluster 0", "cluster 2", "noise"]
