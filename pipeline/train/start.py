"""Starting from another run: a head from one on stored frames, a personalised run from a basic one."""

from typing import Any

from stillwave.cache.differences import differences
from stillwave.heads.personal import Personalised
from stillwave.pipeline.runs.model import Model
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.runs.tensors import load_state, state_of

PERSONAL = ("speakers.", "down.", "up.")  # what a personalised head has of its own


def check_start(start: Run, config: dict[str, Any]) -> dict[str, Any]:
    """Raise ValueError if a run with `config` cannot start from the models of `start`.

    Otherwise returns a JSON-ready description of them. Each fold starts from the same fold's weights, so the
    rows, their folds and the held-out validation rows must be the same: otherwise it would have seen its test
    rows.
    """
    other = start.config
    ours, theirs = config["recipe"], other["recipe"]
    held_out = ("valid_fraction", "group", "seed")
    for name, a, b in (
        ("rows, labels or folds", config["rows"], other["rows"]),
        ("classes", config["classes"], other["classes"]),
        ("head", ours["head"], theirs["head"]),
        *((f"train.{key}", ours["train"][key], theirs["train"][key]) for key in held_out),
    ):
        if a != b:
            detail = "" if name.startswith("rows") else f" ({b} there, {a} here)"
            raise ValueError(
                f"{start}: its {name} differ from this run's{detail}, so this run cannot start from its "
                "models: train it with the same manifest and settings"
            )
    if differing := differences(other["stores"], config["stores"]):
        raise ValueError(f"{start}: it was trained on other frames: {'; '.join(differing)}")
    if other["live"] and not config["live"]:
        raise ValueError(f"{start}: its backbone was trained, too; start a `stillwave finetune` from it")
    if theirs["personalise"] and theirs["personalise"] != ours["personalise"]:
        raise ValueError(
            f"{start}: a personalised run with other settings ({theirs['personalise']} there, "
            f"{ours['personalise']} here); start from the basic one"
        )
    for fold in start.folds:
        start.weights(fold)  # refuse missing or broken files now, before an old run is replaced
    return {"run": str(start), "sha256": start.digests()}


def load_start(model: Model, start: Run, fold: int) -> None:
    """Put the weights of a fold of `start` into `model`; parameters that only `model` has do not change."""
    given = start.weights(fold)
    # A basic run's head goes inside a personalised one's.
    inner = isinstance(model.head, Personalised) and not any(map(_personal, given))
    named = {f"head.{name}" if inner and _of_head(name) else name: tensor for name, tensor in given.items()}
    own = {name: tensor for name, tensor in state_of(model).items() if name not in named}
    if strangers := [name for name in own if _of_head(name) and not (inner and _personal(name))]:
        raise ValueError(f"{start}: it lacks {strangers[:3]} of this model's head; train it again")
    load_state(model, own | named, start.fold_folder(fold))
    model.frozen_names -= named.keys()  # no longer those of the backbone's config: save them, too


def _of_head(name: str) -> bool:
    return name.startswith("head.")


def _personal(name: str) -> bool:
    return name.removeprefix("head.").startswith(PERSONAL)
