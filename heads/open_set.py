"""Every open-set score by its name, and fitted ones from their tensors."""

from collections.abc import Mapping

from torch import Tensor

from stillwave.heads.cac import CACScore
from stillwave.heads.neighbours import Neighbours
from stillwave.heads.openmax import OpenMaxScore
from stillwave.heads.scores import Energy, LearnedUncertainty, MaximumLogit, MaximumProbability, Score
from stillwave.heads.vim import VirtualLogit, with_principal

SCORES: dict[str, type[Score]] = {
    "msp": MaximumProbability,
    "mls": MaximumLogit,
    "energy": Energy,
    "openmax": OpenMaxScore,
    "knn": Neighbours,
    "vim": VirtualLogit,
    "cac": CACScore,
    "learned_uncertainty": LearnedUncertainty,
}


def load_scorer(name: str, tensors: Mapping[str, Tensor]) -> Score:
    """A fitted score from its `state_dict()`.

    ValueError for an unknown name, and for missing or unexpected tensors.
    """
    if name not in SCORES:
        raise ValueError(f"score is {name!r}; choose one of {', '.join(SCORES)}")
    score = SCORES[name]()
    tensors = with_principal(tensors) if name == "vim" else tensors  # as before version 0.2
    expected = set(score.state_dict())
    if expected != set(tensors):
        raise ValueError(f"the score {name!r} has tensors {sorted(expected)}, got {sorted(tensors)}")
    for key, tensor in tensors.items():
        # Replaced, not copied into, because their sizes are known only now.
        module, _, buffer = key.rpartition(".")
        score.get_submodule(module).register_buffer(buffer, tensor)
    return score
