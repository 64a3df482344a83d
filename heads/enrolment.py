"""Fitting a head to one more speaker: an output layer, and a vector, regularised towards the shared ones."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stillwave.heads.base import Head
from stillwave.heads.personal import UNKNOWN_SPEAKER, Personalised

ITERATIONS = 100


def strangers(head: Head) -> dict[str, Tensor]:
    """The tensors of an unknown speaker, float64: the output's weight and bias, and the vector, if any."""
    found = {"weight": head.output.weight, "bias": head.output.bias}
    if isinstance(head, Personalised):
        found["vector"] = head.speakers.weight[UNKNOWN_SPEAKER]
    return {name: tensor.detach().double() for name, tensor in found.items()}


def fit_speaker(features: Tensor, labels: Tensor, head: Head, penalty: float) -> dict[str, Tensor]:
    """The speaker's tensors, with a first axis of clips + 1: fitted without clip 0, 1, ..., and on all clips.

    features (clips, width): the input of the head's last layer; in a personalised head, that of the wrapped
    head. labels (clips,). Minimises the summed cross-entropy plus penalty / 2 times the squared distance of
    each tensor from the strangers', where the weights' distance is multiplied by the mean squared length of
    the given features, so that their scale does not matter. L-BFGS solves all the problems as one; without a
    vector it is convex.
    """
    clips, start = len(labels), strangers(head)
    given = torch.cat([1 - torch.eye(clips), torch.ones(1, clips)]).to(start["weight"])
    units: dict[str, Tensor | float] = dict.fromkeys(start, 1.0)
    with torch.no_grad():
        read = _moved(features, head, {name: tensor[None] for name, tensor in start.items()})[0]
        lengths = given @ read.square().sum(1) / given.sum(1)
        units["weight"] = lengths.clamp(min=1e-12).rsqrt()[:, None, None]
    changes = {name: t.new_zeros(clips + 1, *t.shape).requires_grad_() for name, t in start.items()}
    optimizer = torch.optim.LBFGS(
        list(changes.values()), max_iter=ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def changed() -> dict[str, Tensor]:
        return {name: start[name] + units[name] * change for name, change in changes.items()}

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = speaker_logits(features, head, changed())
        each = nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.repeat(clips + 1), reduction="none"
        ).view_as(given)
        far = torch.stack([change.square().sum() for change in changes.values()]).sum()
        total: Tensor = (given * each).sum() + penalty / 2 * far
        total.backward(inputs=list(changes.values()))  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return {name: tensor.detach() for name, tensor in changed().items()}


def speaker_logits(features: Tensor, head: Head, own: Mapping[str, Tensor]) -> Tensor:
    """(clips, width), and the tensors of several speakers -> (speakers, clips, classes), float64."""
    return torch.einsum("snd,scd->snc", _moved(features, head, own), own["weight"]) + own["bias"][:, None]


def _moved(features: Tensor, head: Head, own: Mapping[str, Tensor]) -> Tensor:
    """(clips, width) -> (speakers, clips, width), float64: moved by the vectors, if there are any."""
    many = features.expand(len(own["weight"]), *features.shape)
    if "vector" not in own:
        return many.double()
    vectors = own["vector"].float()[:, None].expand(*many.shape[:2], -1)
    assert isinstance(head, Personalised)
    moved = head.moved(many.flatten(0, 1), vectors.flatten(0, 1))
    return moved.view_as(many).double()
