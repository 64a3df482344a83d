"""Config of an analysis: how a store's frames become one vector per row, and what is looked at in them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Config

Metric = Literal["euclidean", "cosine"]


class Pca(Config):
    """Principal components.

    components: how many are kept for t-SNE to read; the first two are the picture.
    """

    components: int = Field(50, ge=2)


class Tsne(Config):
    """The fields of scikit-learn's TSNE.

    perplexity: about how many neighbours a row is kept near to. iterations: of the optimiser, at most.
    early_exaggeration: how far apart clusters begin. metric: of the distances between rows.
    """

    perplexity: float = Field(30.0, gt=0)
    iterations: int = Field(1000, ge=250)
    early_exaggeration: float = Field(12.0, ge=1)
    metric: Metric = "euclidean"


class Umap(Config):
    """The fields of umap-learn's UMAP.

    neighbours: how many make a row's surroundings; more of them show the large, fewer the small.
    min_dist: how close two rows may come in the picture. metric: of the distances between rows.
    """

    neighbours: int = Field(15, ge=2)
    min_dist: float = Field(0.1, ge=0, lt=1)
    metric: Metric = "euclidean"


class Kmeans(Config):
    """K-means.

    clusters: null for as many as there are classes.
    """

    clusters: int | None = Field(None, ge=2)


class Hdbscan(Config):
    """HDBSCAN.

    min_cluster_size: null for the larger of 5 and a hundredth of the rows.
    """

    min_cluster_size: int | None = Field(None, ge=2)


class Dbscan(Config):
    """DBSCAN.

    eps: how far a neighbour may be, in standardised units. min_samples: neighbours of a core row.
    """

    eps: float = Field(gt=0)
    min_samples: int = Field(5, ge=1)


class Neighbours(Config):
    """Nearest neighbours.

    k: nearest rows that are kept of each row. precision_at: how many of them each figure is over.
    """

    k: int = Field(10, ge=1)
    precision_at: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 10)

    @model_validator(mode="after")
    def _as_many_as_are_kept(self) -> "Neighbours":
        if too_many := tuple(k for k in self.precision_at if k > self.k):
            raise ValueError(f"precision_at {too_many} is over more neighbours than k {self.k}: raise k")
        return self


class Probe(Config):
    """A logistic regression that is cross-validated.

    folds: of the cross-validation. c: the inverse of its L2 penalty. max_iterations: of the optimiser.
    """

    folds: int = Field(5, ge=2)
    c: float = Field(1.0, gt=0)
    max_iterations: int = Field(1000, ge=1)


class Analysis(Config):
    """What `stillwave analyze` makes of a store.

    pooling: one vector per row from its frames; multi_scale is mean, maximum and deviation side by side.
    layer: of stores with several layers, the one that is looked at (-1: the last), or the mean of all.
    label: a column of the manifest; null for that of the run, else for the manifest's only one.
    standardise: dimensions get mean 0 and variance 1 over the rows before anything is measured or drawn.
    max_rows: look at a seeded sample of this many rows. seed: of the sample and of all that is drawn.
    tsne, umap, kmeans, hdbscan, dbscan, probe: null to leave it out.
    """

    pooling: Literal["mean", "max", "std", "attention", "multi_scale"] = "mean"
    layer: int | Literal["mean"] = -1
    label: str | None = None
    standardise: bool = True
    seed: int = Field(0, ge=0, lt=2**32)
    max_rows: int | None = Field(None, ge=10)
    pca: Pca = Pca()
    tsne: Tsne | None = Tsne()
    umap: Umap | None = Umap()
    kmeans: Kmeans | None = Kmeans()
    hdbscan: Hdbscan | None = Hdbscan()
    dbscan: Dbscan | None = None
    neighbours: Neighbours = Neighbours()
    probe: Probe | None = Probe()
