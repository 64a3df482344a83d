"""Beginning where another run ended: a head from its stored frames, a personalised one from a basic one."""

from typing import Any

from stillwave.cache.differences import differences
from stillwave.heads.personal import Personalised
from stillwave.pipeline.runs.model import Model
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.runs.tensors import load_state, state_of

PERSONAL = ("speakers.", "down.", "up.")  # what a personalised head has of its own


def check_start(start: Run, config: dict[str, Any]) -> dict[str, Any]:
    """Raise ValueError when a run that will have `config` cannot begin with the models of `start`.

    Else a JSON-ready description of them. Each fold begins with the weights of the same fold, so the rows,
    their folds and the held-out validation rows have to be the same: else it would have seen its test rows.
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
                f"{start}: its {name} are not those of this run{detail}, so its models cannot be the start: "
                "train it with the same manifest and settings"
            )
    if differing := differences(other["stores"], config["stores"]):
        raise ValueError(f"{start}: it was trained on other frames: {'; '.join(differing)}")
    if other["live"] and not config["live"]:
        raise ValueError(f"{start}: its backbone was trained, too; begin a `stillwave finetune` with it")
    if theirs["personalise"] and theirs["personalise"] != ours["personalise"]:
        raise ValueError(
            f"{start}: a personalised run, and not with these settings ({theirs['personalise']} there, "
            f"{ours['personalise']} here); begin with the basic one"
        )
    for fold in start.folds:
        start.weights(fold)  # what is lost or broken is refused now, before it costs an old run
    return {"run": str(start), "sha256": start.digests()}


def load_start(model: Model, start: Run, fold: int) -> None:
    """Put the weights of a fold of `start` into `model`; what only `model` has stays as it is."""
    given = start.weights(fold)
    # A basic run's head goes inside a personalised one's.
    inner = isinstance(model.head, Personalised) and not any(map(_personal, given))
    named = {f"head.{name}" if inner and _of_head(name) else name: tensor for name, tensor in given.items()}
    own = {name: tensor for name, tensor in state_of(model).items() if name not in named}
    if strangers := [name for name in own if _of_head(name) and not (inner and _personal(name))]:
        raise ValueError(f"{start}: it lacks {strangers[:3]} of this model's head; train it again")
    load_state(model, own | named, start.fold_folder(fold))
    model.frozen_names -= named.keys()  # no longer what the backbone's config gives: they are saved, too


def _of_head(name: str) -> bool:
    return name.startswith("head.")


def _personal(name: str) -> bool:
    return name.removeprefix("head.").startswith(PERSONAL)
