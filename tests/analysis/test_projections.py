"""Projections: the numbers of PCA, neighbourhoods that are kept, and the same points again for a seed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stillwave.analysis.projections import pca, tsne, umap
from stillwave.pipeline.config.analysis import Tsne, Umap

ROOT = Path(__file__).parents[2]


def islands(rows: int = 60, dim: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three far islands of points, and which one each is on."""
    rng = np.random.default_rng(seed)
    where = np.arange(rows) % 3
    centres = 8 * rng.standard_normal((3, dim))
    return (centres[where] + rng.standard_normal((rows, dim))).astype(np.float32), where


def kept(points: np.ndarray, where: np.ndarray) -> float:
    """The share of points whose nearest one is on the same island."""
    distance = np.square(points[:, None] - points[None]).sum(-1)
    np.fill_diagonal(distance, np.inf)
    return float((where[distance.argmin(1)] == where).mean())


def test_pca_is_the_singular_value_decomposition() -> None:
    x, _ = islands()
    points, explained = pca(x, 5, seed=0)
    centred = x.astype(np.float64) - x.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(left * values)[:, :5], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(explained, (values**2 / (values**2).sum())[:5], rtol=1e-5)
    # A sign that does not hang on the order of the rows: the largest loading is positive.
    loadings = np.linalg.lstsq(points.astype(np.float64), centred, rcond=None)[0]
    assert (loadings[np.arange(5), np.abs(loadings).argmax(axis=1)] > 0).all()
    turned, _ = pca(x[::-1], 5, seed=0)
    np.testing.assert_allclose(turned[::-1], points, atol=1e-3)
    assert pca(x[:6], 50, seed=0)[0].shape == (6, 6)


def test_t_sne_keeps_neighbours_together() -> None:
    x, where = islands()
    points, divergence = tsne(x, Tsne(perplexity=10, iterations=300), seed=0)
    assert points.shape == (60, 2)
    assert kept(points, where) == 1
    assert 0 < divergence < 1
    assert kept(np.random.default_rng(0).random((60, 2)), where) < 0.7


def quick(seed: int) -> list[list[list[float]]]:
    x, _ = islands()
    found = (pca(x, 5, seed)[0], tsne(x, Tsne(perplexity=10, iterations=250), seed)[0])
    return [points.tolist() for points in found]


def compiled(seed: int) -> list[list[float]]:
    found: list[list[float]] = umap(islands()[0], Umap(neighbours=8), seed).tolist()
    return found


@pytest.mark.slow
def test_a_seed_gives_the_same_points_again_and_in_another_process() -> None:
    """UMAP is compiled for ten seconds: in the other process alone, where its seed is tried twice."""
    code = """if True:
        import json
        from tests.analysis.test_projections import compiled, quick
        print(json.dumps([quick(3), compiled(3), compiled(3), compiled(4)]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    both, first, again, other = json.loads(done)
    assert both == quick(3)
    assert first == again
    assert kept(np.array(first), islands()[1]) == 1
    assert other != first  # the other two hardly need chance for so few rows


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pca(x[:4], 2, 0), "PCA of 4 rows: at least 5 are needed"),
        (
            lambda x: tsne(x, Tsne(perplexity=20), 0),
            r"tsne.perplexity 20 is too large for 60 rows.*below 20.0",
        ),
        (lambda x: umap(x, Umap(neighbours=60), 0), r"umap.neighbours 60 is too large for 60 rows.*below 60"),
        (lambda x: umap(0 * x, Umap(), 0), "UMAP: all 60 rows are alike"),
        (lambda x: pca(np.where(np.arange(60)[:, None] == 7, np.nan, x), 2, 0), "PCA: row 7 is not finite"),
    ],
)
def test_what_cannot_be_drawn_is_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(islands()[0])  # type: ignore[operator]
