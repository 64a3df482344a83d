"""The loss that makes a model say what another one says."""

from torch import Tensor, nn


class SoftTargetLoss(nn.Module):
    """Cross-entropy between the teacher's and the student's probabilities at a temperature.

    After Hinton et al., "Distilling the knowledge in a neural network" (arXiv 1503.02531): both logits are
    divided by the temperature, which shows what a sure teacher thinks of the other classes, and the loss is
    multiplied by its square, so that its gradient does not shrink with it. The teacher's entropy, which no
    student can change, is taken off: what is left is the Kullback-Leibler divergence, 0 where both agree.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0")
        self.temperature = temperature

    def forward(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """(batch, classes) each, the teacher's up to a constant per row -> scalar, the mean over rows."""
        target = (teacher / self.temperature).log_softmax(1)
        student = (logits / self.temperature).log_softmax(1)
        divergence = nn.functional.kl_div(student, target, reduction="batchmean", log_target=True)
        return self.temperature**2 * divergence
