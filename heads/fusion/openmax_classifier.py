"""The classifier of the fusion head: a deep classifier, and the layers that judge its features."""

from torch import Tensor, nn

from stillwave.heads.base import Outputs
from stillwave.heads.fusion.anchors import ClassAnchorClustering, PrototypeMemory
from stillwave.heads.fusion.deep import DeepClassifier
from stillwave.heads.fusion.uncertainty import UncertaintyHead, UncertaintyTarget
from stillwave.heads.openmax import OpenMax


class OpenMaxClassifier(nn.Module):
    """Fused vectors -> logits; uncertainty, class anchors and prototypes on the same features; OpenMax.

    input_dim ... checkpoint_every: as in `DeepClassifier`, whose features the other parts read.
    anchor_dim: as in `ClassAnchorClustering`. uncertainty_target: as in `UncertaintyHead`.
    `openmax` is fitted on the logits of training rows when training is done; its state is in the state_dict.
    """

    def __init__(
        self,
        input_dim: int = 512,
        num_classes: int = 4,
        *,
        num_layers: int = 35,
        base_dim: int = 512,
        dropout: float = 0.15,
        bottleneck: int = 44,
        checkpoint_every: int = 5,
        anchor_dim: int = 128,
        uncertainty_target: UncertaintyTarget = "correct",
    ) -> None:
        super().__init__()
        self.deep_classifier = DeepClassifier(
            input_dim, num_classes, num_layers, base_dim, dropout, bottleneck, checkpoint_every
        )
        feature_dim = self.deep_classifier.feature_dim
        self.anchor_clustering = ClassAnchorClustering(feature_dim, num_classes, anchor_dim)
        self.uncertainty_head = UncertaintyHead(feature_dim, target=uncertainty_target)
        self.prototypes = PrototypeMemory(feature_dim, num_classes)
        self.openmax = OpenMax(num_classes)

    def forward(
        self,
        fused: Tensor,
        labels: Tensor | None = None,
        use_openmax: bool = False,
        return_uncertainty: bool = True,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """(batch, input_dim) -> logits (batch, classes), uncertainty (batch, 1) or None, anchor loss ().

        Without labels (batch,) the anchor loss uses each item's predicted class.
        use_openmax: return OpenMax's revised logits, (batch, classes + 1), with the unknown class last; a
            ValueError if it was not fitted.
        """
        logits, features, uncertainty = self.outputs(fused)
        assert uncertainty is not None
        anchor_loss = self.anchor_clustering.loss(features, logits.argmax(-1) if labels is None else labels)
        if use_openmax:
            logits = self.openmax.revise(logits).to(logits)  # its buffers are float64
        return logits, uncertainty[:, None] if return_uncertainty else None, anchor_loss

    def outputs(self, fused: Tensor) -> Outputs:
        """(batch, input_dim) -> logits, features (batch, base_dim / 2), uncertainty (batch,)."""
        features = self.deep_classifier.features(fused)
        uncertainty = self.uncertainty_head(features).squeeze(-1)
        return Outputs(self.deep_classifier.output(features), features, uncertainty)

    def losses(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """The scalar losses of the parts, unweighted: anchor, uncertainty, prototype."""
        logits, features, uncertainty = outputs
        assert uncertainty is not None
        return {
            "anchor": self.anchor_clustering.loss(features, labels),
            "uncertainty": self.uncertainty_head.loss(uncertainty, logits, labels),
            "prototype": self.prototypes.prototype_loss(features, labels),
        }
