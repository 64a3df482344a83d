"""Config of an analysis: how a store's frames become one vector per row, and what is measured and drawn."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Config

Metric = Literal["euclidean", "cosine"]


class Pca(Config):
    """Principal components.

    components: how many t-SNE gets; the first two are drawn.
    """

    components: int = Field(50, ge=2)


class Tsne(Config):
    """The fields of scikit-learn's TSNE.

    perplexity: about how many neighbours a row stays close to. iterations: the most optimiser iterations.
    early_exaggeration: how far apart clusters start. metric: distance between rows.
    """

    perplexity: float = Field(30.0, gt=0)
    iterations: int = Field(1000, ge=250)
    early_exaggeration: float = Field(12.0, ge=1)
    metric: Metric = "euclidean"


class Umap(Config):
    """The fields of umap-learn's UMAP.

    neighbours: size of a row's neighbourhood; larger shows global structure, smaller shows local structure.
    min_dist: how close two points may be. metric: distance between rows.
    """

    neighbours: int = Field(15, ge=2)
    min_dist: float = Field(0.1, ge=0, lt=1)
    metric: Metric = "euclidean"


class Kmeans(Config):
    """K-means.

    clusters: how many; null means the number of classes.
    """

    clusters: int | None = Field(None, ge=2)


class Hdbscan(Config):
    """HDBSCAN.

    min_cluster_size: in rows; null means 5 or a hundredth of the rows, whichever is larger.
    """

    min_cluster_size: int | None = Field(None, ge=2)


class Dbscan(Config):
    """DBSCAN.

    eps: the largest distance of a neighbour, standardised. min_samples: neighbours that make a core row.
    """

    eps: float = Field(gt=0)
    min_samples: int = Field(5, ge=1)


class Neighbours(Config):
    """Nearest neighbours.

    k: number of nearest rows kept per row. precision_at: the numbers of neighbours to compute precision for.
    """

    k: int = Field(10, ge=1)
    precision_at: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 10)

    @model_validator(mode="after")
    def _as_many_as_are_kept(self) -> "Neighbours":
        if too_many := tuple(k for k in self.precision_at if k > self.k):
            raise ValueError(f"precision_at {too_many} is over more neighbours than k {self.k}: raise k")
        return self


class Probe(Config):
    """A cross-validated logistic regression.

    folds: how many. c: the inverse of the L2 penalty. max_iterations: the most solver iterations.
    """

    folds: int = Field(5, ge=2)
    c: float = Field(1.0, gt=0)
    max_iterations: int = Field(1000, ge=1)


class Analysis(Config):
    """Settings of `stillwave analyze`.

    pooling: how a row's frames become one vector; mean_std concatenates mean and deviation,
        multi_scale mean, maximum and deviation.
    layer: for stores with several layers, which one to use (-1: the last), or the mean of all.
    label: a column of the manifest; null means that of the run, else the manifest's only label.
    standardise: whether dimensions get mean 0 and variance 1 over the rows before all analyses.
    max_rows: analyze a seeded sample of this many rows. seed: of the sample and of every method.
    tsne, umap, kmeans, hdbscan, dbscan, probe: null leaves it out.
    """

    pooling: Literal["mean", "max", "std", "attention", "mean_std", "multi_scale"] = "mean"
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
