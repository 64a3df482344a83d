"""Clusters in the embeddings, and how well they match the labels or the speakers.

Conventions: x is (rows, dim); found is (rows,), cluster numbers by size, 0 the largest, -1 for noise.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN, HDBSCAN, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

NOISE = -1
SILHOUETTE_ROWS = 10_000  # it compares every pair of rows
MATRIX_ROWS = 5_000  # the most rows whose distances fit in memory, 8 bytes each, a few times over

Found = NDArray[np.int64]


def kmeans(x: NDArray[Any], clusters: int, seed: int) -> Found:
    """K-means (Lloyd), the best of ten starts. Fewer clusters if there are fewer distinct rows."""
    if not 1 <= clusters <= len(x):
        raise ValueError(
            f"kmeans.clusters is {clusters}; it must be between 1 and {len(x)}, the number of rows"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Number of distinct clusters", ConvergenceWarning)
        return _by_size(KMeans(clusters, n_init=10, random_state=seed).fit_predict(x))


def hdbscan(x: NDArray[Any], min_cluster_size: int) -> Found:
    """Clusters of any shape and of differing density (Campello et al., 2013); the rest is noise.

    Over 5,000 rows its trees are slow in many dimensions: give it principal components.
    """
    if not 2 <= min_cluster_size <= len(x):
        raise ValueError(
            f"hdbscan.min_cluster_size is {min_cluster_size}; it must be between 2 and {len(x)}, the rows"
        )
    # The same clusters; for 768 dimensions, a distance matrix takes a twentieth of a tree's time.
    algorithm = "brute" if len(x) <= MATRIX_ROWS else "auto"
    return _by_size(HDBSCAN(min_cluster_size, algorithm=algorithm, copy=True).fit_predict(x))


def dbscan(x: NDArray[Any], eps: float, min_samples: int) -> Found:
    """Clusters of rows with `min_samples` rows (itself among them) within `eps`; the rest is noise."""
    if not eps > 0 or min_samples < 1:
        raise ValueError(
            f"dbscan.eps is {eps} and min_samples {min_samples}; eps must be above 0, min_samples at least 1"
        )
    return _by_size(DBSCAN(eps=eps, min_samples=min_samples).fit_predict(x))


def _by_size(found: NDArray[Any]) -> Found:
    """Number clusters by size, then by first row, so that the same clusters have the same numbers."""
    names, first, inverse, sizes = np.unique(
        found, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes, names < 0))  # noise last
    number = np.empty(len(names), np.int64)
    number[order] = np.arange(len(names))
    number[names < 0] = NOISE
    return number[inverse]


def cluster_report(
    x: NDArray[Any], found: Found, groups: Mapping[str, NDArray[Any]], *, seed: int = 0
) -> dict[str, Any]:
    """Scores of the clusters `found`, JSON-ready: clusters, noise (rows), silhouette, and per group nmi and
    ari.

    silhouette: -1 to 1, for the rows that are not noise (for 10,000 of them, drawn by `seed`, if there are
        more); null unless there are two clusters and one of them has two rows.
    groups: by name, one value per row, None or NaN if unknown. NMI (arithmetic mean) and ARI use the rows
        with a value, and noise counts as a cluster: otherwise a method that calls almost everything noise
        would look right. Null if fewer than two values occur.
    """
    inside = found != NOISE
    report: dict[str, Any] = {
        "clusters": len(np.unique(found[inside])),
        "noise": int((~inside).sum()),
        "silhouette": _silhouette(x[inside], found[inside], seed),
    }
    for name, values in groups.items():
        known = pd.notna(values)
        actual, guess = pd.factorize(values[known])[0], found[known]
        nmi = ari = None
        if len(np.unique(actual)) > 1:
            nmi = float(normalized_mutual_info_score(actual, guess))
            ari = float(adjusted_rand_score(actual, guess))
        report[name] = {"nmi": nmi, "ari": ari}
    return report


def _silhouette(x: NDArray[Any], found: Found, seed: int) -> float | None:
    if len(x) > SILHOUETTE_ROWS:
        drawn = np.random.default_rng(seed).choice(len(x), SILHOUETTE_ROWS, replace=False)
        x, found = x[drawn], found[drawn]
    if not 1 < len(np.unique(found)) < len(found):
        return None
    return float(silhouette_score(x, found))
