"""Speakers enrolled after training: their files, and adapting a loaded model to them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stillwave.heads.personal import UNKNOWN_SPEAKER, Personalised
from stillwave.pipeline.runs.model import Model
from stillwave.pipeline.runs.run import Run
from stillwave.pipeline.runs.tensors import load_tensors, save_tensors

FOLDER = "speakers"  # of a run: one file per enrolled speaker
SUFFIX = ".safetensors"
_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Enrolled:
    """A speaker's changes to a run's models: tensors `weight`, `bias` and perhaps `vector`, by fold."""

    name: str
    folds: Mapping[int, Mapping[str, Tensor]]

    @torch.no_grad()
    def apply(self, model: Model, fold: int) -> None:
        """Adapt a loaded model of `fold` to the speaker, in place.

        In a personalised model the speaker replaces the unknown one, number 0. Open-set scores and
        temperature stay those of the run. ValueError for a fold that was not enrolled.
        """
        if fold not in self.folds:
            only = ", ".join(map(str, self.folds))
            raise ValueError(f"{self.name!r} was enrolled only in the models of folds {only}, not in {fold}")
        own = self.folds[fold]
        model.output.weight.copy_(own["weight"])
        model.output.bias.copy_(own["bias"])
        if "vector" in own:
            assert isinstance(model.head, Personalised)
            model.head.speakers.weight[UNKNOWN_SPEAKER].copy_(own["vector"])


def find_speaker(run: str | Path | Run, speaker: str) -> Enrolled | None:
    """The enrolled speaker with a name, or in a file that `enroll` wrote; None if nobody has the name.

    Raises ValueError, naming the file, for one that cannot be used.
    """
    run = Run.open(run)
    if _NAME.fullmatch(speaker) and speaker_file(run.folder, speaker).exists():
        return load_speaker(run, speaker)
    if not speaker.endswith(SUFFIX):
        return None
    file = Path(speaker)
    if not file.exists():
        raise ValueError(f"{file}: no such file; give the one that `stillwave enroll --out` wrote")
    return load_speaker(run, file.stem, file)


def load_speaker(run: str | Path | Run, name: str, file: str | Path | None = None) -> Enrolled:
    """Load what `enroll` wrote, by default in the run; from another `file`, the speaker's name is the one
    stored there.

    Raises ValueError if there is no such speaker, the file is damaged, or the run was trained again.
    """
    run = Run.open(run)
    path = speaker_file(run.folder, name) if file is None else Path(file)
    if not path.exists():
        there = sorted(other.stem for other in path.parent.glob(f"*{SUFFIX}"))
        raise ValueError(
            f"{run}: {name!r} is not enrolled (enrolled: {', '.join(there) or 'nobody'}); use "
            "`stillwave enroll`"
        )
    try:
        tensors, facts = load_tensors(path)
    except ValueError:
        raise ValueError(f"{path}: not a readable safetensors file; enrol {name!r} again") from None
    if "models" not in facts:
        raise ValueError(f"{path}: not a speaker's file; give the one that `stillwave enroll` wrote")
    numbers = [int(number) for number in facts["models"]]
    # An enrolment is useless with other weights.
    if facts["models"] != run.digests(numbers):
        raise ValueError(f"{path}: enrolled with models other than those of {run}; enrol {name!r} again")
    folds: dict[int, dict[str, Tensor]] = {number: {} for number in numbers}
    for key, tensor in tensors.items():
        number, _, part = key.partition(".")
        folds[int(number)][part] = tensor
    return Enrolled(name if file is None else str(facts["speaker"]), folds)


def speaker_file(run: Path, name: str) -> Path:
    """The file of a speaker in a run's folder."""
    check_name(name)
    return run / FOLDER / f"{name}{SUFFIX}"


def save_speaker(file: Path, run: Run, name: str, folds: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Write the file that `load_speaker` reads."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"{number}.{key}": t.float() for number, own in folds.items() for key, t in own.items()}
    save_tensors(file, tensors, {"speaker": name, "models": run.digests(folds)})


def check_name(name: str) -> None:
    """Raise ValueError for a name that cannot be a file's."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"speaker is {name!r}; a name has letters, digits, _, - and dots, and does not start with a dot"
        )
