"""A head made of a global pooling and a multi-layer perceptron."""

from torch import Tensor, nn

from stillwave.heads.base import Head, Outputs
from stillwave.heads.bounds import Count, Dropout
from stillwave.heads.global_pooling import GlobalPooling, GlobalPoolingType
from stillwave.heads.layers import LayerMix, Standardise
from stillwave.heads.masks import zero_padding


class PooledClassifier(Head):
    """Standardise -> layer mix -> global pooling -> [layer norm] -> MLP.

    dim, num_layers: frames are (frames, dim) if num_layers is 1, else (frames, layers, dim).
    standardise: if False, frames are not standardised: for a backbone trained from scratch, whose frames
        change completely.
    pooling, bins: as in `GlobalPooling`.
    norm: layer normalisation of the pooled vector, so that its scale does not matter.
    hidden: widths of the hidden layers, each a linear layer, ReLU and dropout; empty for a linear classifier.
    dropout: after each hidden layer.

    Padding changes nothing: the logits of an item do not depend on its batch.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        num_layers: int = 1,
        standardise: bool = True,
        pooling: GlobalPoolingType = "mean",
        bins: Count = 8,
        norm: bool = False,
        hidden: tuple[Count, ...] = (256, 128),
        dropout: Dropout = 0.3,
    ) -> None:
        super().__init__()
        self.fits_standardise = standardise
        self.standardise = Standardise(num_layers, dim) if num_layers > 1 else Standardise(dim)
        self.layer_mix = LayerMix(num_layers)
        self.pooling = GlobalPooling(dim, pooling, bins)
        self.norm = nn.LayerNorm(self.pooling.dim) if norm else nn.Identity()
        layers: list[nn.Module] = []
        width = self.pooling.dim
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        self.mlp = nn.Sequential(*layers, nn.Linear(width, num_classes))

    @property
    def standardisers(self) -> tuple[Standardise, ...]:
        """The standardiser to fit on the training rows' frames, or none with `standardise` off."""
        return (self.standardise,) if self.fits_standardise else ()

    @property
    def output(self) -> nn.Linear:
        """The last layer: features to logits."""
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        return last

    def outputs(self, frames: Tensor, lengths: Tensor) -> Outputs:  # type: ignore[override]
        """Lengths are 1 or more. The features are the last hidden layer's; without one, the pooled vector."""
        if self.layer_mix.num_layers > 1:
            frames = zero_padding(frames, lengths)  # 0 * NaN would enter the weights' gradient
        mixed: Tensor = self.layer_mix(self.standardise(frames))
        features: Tensor = self.mlp[:-1](self.norm(self.pooling(mixed, lengths)))
        return Outputs(self.output(features), features)
