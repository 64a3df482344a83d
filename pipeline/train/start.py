"""Beginning where another run ended: a head from its stored frames, a personalised one from a basic one."""

from pathlib import Path
from typing import Any

from stillwave.cache.fingerprint import differences
from stillwave.pipeline.runs.head import model_digests, read_run, read_weights
from stillwave.pipeline.runs.tensors import load_state, state_of

PERSONAL = ("speakers.", "down.", "up.")  # what a personalised head has of its own


def check_start(start: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Raise ValueError when a run that will have `config` cannot begin with the models of `start`.

    Else a JSON-ready description of them. Each fold begins with the weights of the same fold, so the rows,
    their folds and the held-out validation rows have to be the same: else it would have seen its test rows.
    """
    other = read_run(start)
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
    for fold in other["folds"]:
        read_weights(start, fold)  # what is lost or broken is refused now, before it costs an old run
    return {"run": str(start), "sha256": model_digests(start, other["folds"])}


def load_start(model: Any, start: Path, fold: int) -> None:
    """Put the weights of a fold of `start` into `model`; what only `model` has stays as it is."""
    state, _ = read_weights(start, fold)
    live, was_live = hasattr(model, "encoders"), any(name.startswith("encoders.") for name in state)
    head = model.head if live else model
    given = {name.removeprefix("head.") if was_live else name: tensor for name, tensor in state.items()}
    inner = hasattr(head, "speakers") and not any(name.startswith(PERSONAL) for name in given)
    prefix = ("head." if live else "") + ("head." if inner else "")
    named = {
        name if name.startswith("encoders.") else f"{prefix}{name}": tensor for name, tensor in given.items()
    }
    own = {name: tensor for name, tensor in state_of(model).items() if name not in named}
    if strangers := [n for n in own if not n.startswith("encoders.") and not (inner and _personal(n))]:
        raise ValueError(f"{start}: it lacks {strangers[:3]} of this model's head; train it again")
    load_state(model, own | named, start / f"fold_{fold}")
    if live:  # what the start had trained is no longer what the backbone's config gives: it is saved, too
        model.frozen_names -= named.keys()


def _personal(name: str) -> bool:
    return name.removeprefix("head.").startswith(PERSONAL)
