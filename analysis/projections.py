"""Vectors to 2-D points: PCA, t-SNE and UMAP, each reproducible for the same seed."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillwave.pipeline.config.analysis import Tsne, Umap
from stillwave.pipeline.config.packages import needed

FEWEST = 5  # rows; with fewer, neighbourhoods say nothing


def pca(x: NDArray[Any], components: int, seed: int) -> tuple[NDArray[np.float32], list[float]]:
    """The first principal components, (rows, components), and the share of the variance that each explains.

    As many as rows and dimensions allow, at most `components`. Each axis points to where its largest
    loading is positive. Exact up to 1,000 dimensions, randomised above (Halko et al., 2011).
    """
    from sklearn.decomposition import PCA

    _check(x, "PCA")
    model = PCA(min(components, *x.shape), svd_solver="auto", random_state=seed)
    coordinates = model.fit_transform(x).astype(np.float32)
    return coordinates, model.explained_variance_ratio_.tolist()


def tsne(x: NDArray[Any], config: Tsne, seed: int) -> tuple[NDArray[np.float32], float]:
    """t-SNE (van der Maaten, 2014), (rows, 2), and the remaining divergence. x: best PCA's output, 50
    dimensions.

    It starts from the first two principal components, which keeps the global structure.
    """
    from sklearn.manifold import TSNE

    _check(x, "t-SNE")
    if config.perplexity >= (bound := len(x) / 3):
        raise ValueError(
            f"tsne.perplexity {config.perplexity:g} is too large for {len(x)} rows: it must be below "
            f"{bound:.1f}"
        )
    model = TSNE(
        perplexity=config.perplexity,
        max_iter=config.iterations,
        early_exaggeration=config.early_exaggeration,
        metric=config.metric,
        init="pca",
        random_state=seed,
    )
    return model.fit_transform(x).astype(np.float32), float(model.kl_divergence_)


def umap(x: NDArray[Any], config: Umap, seed: int) -> NDArray[np.float32]:
    """UMAP (McInnes et al., 2018), (rows, 2). On one thread; otherwise a seed does not determine it."""
    _check(x, "UMAP")
    if config.neighbours >= len(x):
        raise ValueError(
            f"umap.neighbours {config.neighbours} is too large for {len(x)} rows: it must be below {len(x)}"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        with needed("umap", "umap-learn"):
            import umap  # takes seconds to compile
    model = umap.UMAP(
        n_neighbors=config.neighbours,
        min_dist=config.min_dist,
        metric=config.metric,
        random_state=seed,
        transform_seed=seed,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        # Disconnected groups: each is laid out separately, as it should be.
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        return np.asarray(model.fit_transform(x), dtype=np.float32)


def _check(x: NDArray[Any], what: str) -> None:
    if len(x) < FEWEST:
        raise ValueError(f"{what} of {len(x)} rows: at least {FEWEST} are needed")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise ValueError(f"{what}: row {row} is not finite")
    if (x == x[0]).all():
        raise ValueError(f"{what}: all {len(x)} rows are alike; there is nothing to draw")
