"""Clusters of points whose groups are known, and the figures of a report by hand and by definition."""

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import silhouette_samples

from stillwave.analysis import clusters
from stillwave.analysis.clusters import cluster_report, dbscan, hdbscan, kmeans

SIZES = (20, 35, 10)


def blobs(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Three far clusters, the rows shuffled, and the cluster of each by its size: 0 the largest."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(np.repeat([1, 0, 2], SIZES))
    return (10 * np.eye(3)[place] + 0.3 * rng.standard_normal((65, 3))).astype(np.float32), place


@pytest.mark.parametrize(
    "method",
    [lambda x: kmeans(x, 3, 0), lambda x: hdbscan(x, 5), lambda x: dbscan(x, 2.0, 3)],
    ids=["kmeans", "hdbscan", "dbscan"],
)
def test_far_clusters_are_found_and_numbered_by_size(method: Any) -> None:
    x, place = blobs()
    found = method(x)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, place)


@pytest.mark.parametrize("method", [lambda x: hdbscan(x, 5), lambda x: dbscan(x, 2.0, 3)])
def test_what_lies_alone_is_noise(method: Any) -> None:
    x, _ = blobs()
    x[[3, 30]] = [[80, 0, 0], [0, -90, 0]]
    found = method(x)
    assert found[[3, 30]].tolist() == [-1, -1]
    assert cluster_report(x, found, {})["noise"] == 2
    assert (np.delete(found, [3, 30]) >= 0).all()


def test_kmeans_follows_from_its_seed_and_leaves_its_input() -> None:
    x = np.random.default_rng(0).standard_normal((80, 4))
    before = x.copy()
    np.testing.assert_array_equal(kmeans(x, 6, 3), kmeans(x, 6, 3))
    hdbscan(x, 5)
    np.testing.assert_array_equal(x, before)


def test_hdbscan_is_the_same_from_distances_and_from_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.concatenate([blobs(seed)[0] + seed for seed in range(4)])
    from_distances = hdbscan(x, 6)
    monkeypatch.setattr(clusters, "MATRIX_ROWS", 0)
    np.testing.assert_array_equal(hdbscan(x, 6), from_distances)
    assert len(np.unique(from_distances)) > 2


def test_equal_rows_give_fewer_clusters_without_a_warning() -> None:
    found = kmeans(np.repeat([[0.0], [1.0]], 5, axis=0), 4, 0)
    assert len(np.unique(found)) == 2


def test_numbers_do_not_depend_on_those_of_the_method() -> None:
    found = np.array([7, -1, 2, 2, 7, 5, 5, 5, -1])
    assert clusters._by_size(found).tolist() == [1, -1, 2, 2, 1, 0, 0, 0, -1]
    assert clusters._by_size(np.array([4, 0, 0, 4])).tolist() == [0, 1, 1, 0]  # equal sizes: first row first
    assert clusters._by_size(np.array([-1, -1])).tolist() == [-1, -1]


def entropy(*counts: int) -> float:
    return -sum(n / sum(counts) * math.log(n / sum(counts)) for n in counts if n)


def test_the_figures_of_a_report_by_hand() -> None:
    x = np.array([[0.0], [1.0], [10.0], [11.0], [50.0], [60.0]])
    found = np.array([0, 0, 1, 1, -1, -1])
    label = np.array(["a", "a", "b", None, "b", "b"], dtype=object)
    report = cluster_report(x, found, {"label": label})
    # Rows 0 to 3: inside a cluster 1 apart, from the other 10 on average (9.5 for the inner ones, 10.5).
    assert report["silhouette"] == pytest.approx((2 * (1 - 1 / 10.5) + 2 * (1 - 1 / 9.5)) / 4)
    assert (report["clusters"], report["noise"]) == (2, 2)
    # Labelled rows by (label, cluster): aa in 0, b in 1, bb in noise, which counts as a cluster.
    mutual = entropy(2, 3) + entropy(2, 1, 2) - entropy(2, 1, 2)
    nmi = mutual / ((entropy(2, 3) + entropy(2, 1, 2)) / 2)
    assert report["label"]["nmi"] == pytest.approx(nmi)
    pairs, rows, columns, all_pairs = 1 + 1, 1 + 3, 1 + 1, 10
    expected = rows * columns / all_pairs
    ari = (pairs - expected) / ((rows + columns) / 2 - expected)
    assert report["label"]["ari"] == pytest.approx(ari)


def test_clusters_that_are_the_labels_have_all_of_them_and_nothing_of_the_speakers() -> None:
    x, place = blobs()
    groups = {"label": np.array([f"c{i}" for i in place], dtype=object)}
    groups["speaker"] = np.random.default_rng(1).permutation(np.resize(["s1", "s2"], 65)).astype(object)
    report = cluster_report(x, kmeans(x, 3, 0), groups)
    assert report["label"] == {"nmi": pytest.approx(1), "ari": pytest.approx(1)}
    assert abs(report["speaker"]["ari"]) < 0.05
    assert report["silhouette"] > 0.9


def test_what_cannot_be_said_is_null() -> None:
    x = np.arange(4.0)[:, None]
    nothing = np.full(4, None, dtype=object)
    for found in ([0, 0, 0, 0], [-1, -1, -1, -1], [0, 1, 2, 3], [0, 1, -1, -1]):
        report = cluster_report(x, np.array(found), {"label": nothing, "speaker": np.full(4, "one")})
        assert report["silhouette"] is None
        assert report["label"] == report["speaker"] == {"nmi": None, "ari": None}
        json.dumps(report, allow_nan=False)


def test_of_many_rows_a_seeded_sample_gives_the_silhouette(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((400, 2))
    found = (x[:, 0] > 0).astype(np.int64)
    whole = cluster_report(x, found, {})["silhouette"]
    assert whole == pytest.approx(silhouette_samples(x, found).mean())
    monkeypatch.setattr(clusters, "SILHOUETTE_ROWS", 200)
    first, again, other = (cluster_report(x, found, {}, seed=seed)["silhouette"] for seed in (0, 0, 1))
    assert first == again
    assert first not in (other, whole)
    assert first == pytest.approx(whole, abs=0.05)


def test_sizes_out_of_bounds_are_errors() -> None:
    x = np.zeros((4, 2))
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"clusters is {count}; it must be between 1 and 4"):
            kmeans(x, count, 0)
    for size in (1, 5):
        with pytest.raises(ValueError, match=f"min_cluster_size is {size}; it must be between 2 and 4"):
            hdbscan(x, size)
    for eps, count in ((0, 2), (float("nan"), 2), (1, 0)):
        with pytest.raises(ValueError, match=r"dbscan\.eps is"):
            dbscan(x, eps, count)
