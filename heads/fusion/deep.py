"""A deep residual classifier of single vectors."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stillwave.heads.layers import xavier_uniform

# With fewer rows, all activations of 35 blocks take 20 MB, and recomputing them costs a third of the time.
CHECKPOINT_ROWS = 64


class DeepClassifier(nn.Module):
    """Input projection -> residual blocks -> feature layer -> logits.

    input_dim -> base_dim with LayerNorm, ReLU and dropout; `num_layers` times LayerNorm(x + f(x)), where f is
    base_dim -> bottleneck -> base_dim with ReLU and dropout between; base_dim -> base_dim / 2 with ReLU; the
    classes. With a bottleneck of 44 the default has 2.03 million parameters; without one it would have 19.

    Linear layers start Xavier uniform, the last one of every branch divided by sqrt(num_layers), as in GPT-2
    (see also DeepNet, Wang et al., arXiv 2203.00555): otherwise each of 35 branches adds 15 % of variance,
    the last block sees almost nothing of the first block's input, and training stays at chance.

    checkpoint_every: in training, only the inputs of every so many blocks are kept, and the rest is
        recomputed in the backward pass (Chen et al., arXiv 1604.06174); 0 keeps everything, as do batches of
        fewer than CHECKPOINT_ROWS rows. The gradients are the same, dropout included, because the random
        state is restored.
    """

    def __init__(
        self,
        input_dim: int = 512,
        num_classes: int = 4,
        num_layers: int = 35,
        base_dim: int = 512,
        dropout: float = 0.15,
        bottleneck: int = 44,
        checkpoint_every: int = 5,
    ) -> None:
        super().__init__()
        if checkpoint_every < 0:
            raise ValueError(
                f"checkpoint_every is {checkpoint_every}; give a number of blocks, or 0 for none"
            )
        self.feature_dim = base_dim // 2
        self.checkpoint_every = checkpoint_every
        self.input_projection = nn.Sequential(
            nn.Linear(input_dim, base_dim), nn.LayerNorm(base_dim), nn.ReLU(), nn.Dropout(dropout)
        )
        self.blocks = nn.Sequential(*(_Block(base_dim, bottleneck, dropout) for _ in range(num_layers)))
        self.feature = nn.Linear(base_dim, self.feature_dim)
        self.output = nn.Linear(self.feature_dim, num_classes)
        self.apply(xavier_uniform)
        with torch.no_grad():
            for block in self.blocks:
                assert isinstance(block, _Block)
                block.branch[-1].weight *= num_layers**-0.5

    def features(self, x: Tensor) -> Tensor:
        """(batch, input_dim) -> (batch, feature_dim), at least 0: the input of `output`."""
        x = self.input_projection(x)
        trains = self.training and torch.is_grad_enabled()
        if trains and self.checkpoint_every and len(x) >= CHECKPOINT_ROWS:
            for start in range(0, len(self.blocks), self.checkpoint_every):
                part = self.blocks[start : start + self.checkpoint_every]
                # Reentrant takes a third less time here, but sees no gradient unless its input has one.
                x = checkpoint(part, x, use_reentrant=x.requires_grad, preserve_rng_state=True)
        else:
            x = self.blocks(x)
        features: Tensor = self.feature(x).relu()
        return features

    def forward(self, x: Tensor) -> Tensor:
        """(batch, input_dim) -> logits (batch, num_classes)."""
        logits: Tensor = self.output(self.features(x))
        return logits


class _Block(nn.Module):
    def __init__(self, dim: int, bottleneck: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Linear(dim, bottleneck), nn.ReLU(), nn.Dropout(dropout), nn.Linear(bottleneck, dim)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim) -> (batch, dim)."""
        y: Tensor = self.norm(x + self.branch(x))
        return y
