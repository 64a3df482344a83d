"""Enrolment: a trained run learns one more speaker from a handful of labelled clips, in seconds.

All weights are frozen except an output layer for the speaker and, in a personalised run, the speaker's
vector.
Both start at those of an unknown speaker, and are regularised towards them: without a vector the problem is
convex.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stillwave.heads.enrolment import fit_speaker, speaker_logits, strangers
from stillwave.pipeline.audio.segments import read_audio, span_of
from stillwave.pipeline.corpora.table import column_names, read_table
from stillwave.pipeline.predict.clips import Clip, check_output, read_sound, warn
from stillwave.pipeline.predict.enrolled import SUFFIX, check_name, save_speaker, speaker_file
from stillwave.pipeline.predict.ensemble import Ensemble
from stillwave.pipeline.predict.reading import ClipInputs, Reader
from stillwave.pipeline.runs.model import Model
from stillwave.pipeline.runs.run import Run

PENALTY = 0.01  # from 0.001 to 10 on one held-out speaker of FSDD: more costs much, less gains little
BATCH_SIZE = 16

Labelled = tuple[str | Path | Clip, str]


@dataclass(frozen=True)
class Enrolment:
    """file: where the speaker is stored. accuracy_before: of the run as it was, on the `num_tested` clips
    that share their label with another; None if no two do. accuracy_after: on each of them, with a model that
    was given the others: an estimate for new clips of the speaker. num_seen: clips that some model of the run
    was trained on; it knows their labels, so nothing is estimated with them, and both are None.
    """

    speaker: str
    file: str
    num_clips: int
    num_tested: int
    num_seen: int
    accuracy_before: float | None
    accuracy_after: float | None


def enroll(
    run: str | Path | Run,
    name: str,
    clips: Sequence[Labelled],
    out: str | Path | None = None,
    *,
    fold: int | None = None,
    backbones: str | Path | None = None,
    device: str = "auto",
    penalty: float = PENALTY,
) -> Enrolment:
    """Personalise every model of a run to one speaker; writes RUN/speakers/<name>.safetensors, or `out`.

    clips: audio files (or Clips, with text) and their labels: at least two, better two of each label. fold:
    the one model to personalise, for a speaker held out in it; None for all. backbones: as in `Run.encoders`.
    penalty: how strongly the speaker's weights are pulled to the shared ones. Raises ValueError for a name
    that is no file name or is a training speaker's, unknown labels, clips that occur twice, cannot be read or
    give no finite features, and an `out` that is one of the files read.
    """
    trained = Run.open(run)
    folder, classes = trained.folder, trained.classes
    check_name(name)
    named = [clip if isinstance(clip, Clip) else Clip(str(clip), str(clip)) for clip, _ in clips]
    file = speaker_file(folder, name) if out is None else Path(out)
    if file.suffix != SUFFIX:
        raise ValueError(f"--out {file}: a speaker is stored in a {SUFFIX} file; use that ending")
    check_output(file, [*(clip.audio for clip in named), *folder.glob(f"fold_*/*{SUFFIX}")])
    labels = _check_labels(named, [label for _, label in clips], classes)
    if not penalty > 0:
        raise ValueError(
            f"penalty is {penalty}; it must be above 0, as a few clips are too little to fit a layer freely"
        )
    models = Ensemble(trained, fold, backbones, device)
    if name in models.speakers:
        raise ValueError(f"the run was trained on speaker {name!r}; enrol under another name")
    items = _read(named, Reader(models.encoders))
    before = after = torch.zeros(len(items), len(classes))  # probabilities, summed over the models
    folds: dict[int, dict[str, Tensor]] = {}
    for one in models.folds:
        features = _features(one.model, models, items)
        if bad := [clip.name for clip, row in zip(named, features, strict=True) if not row.isfinite().all()]:
            raise ValueError(
                f"{', '.join(bad)}: the features in fold {one.number} are not finite numbers; leave the "
                "clips out, or fix them"
            )
        head = one.model.head.cpu()
        found = fit_speaker(features, labels, head, penalty)
        if bad := [key for key, value in found.items() if not value.isfinite().all()]:
            raise ValueError(
                f"the speaker's {', '.join(bad)} of fold {one.number} are not finite numbers; nothing is "
                f"written: raise the penalty of {penalty:g}, or use other clips"
            )
        folds[one.number] = {key: value[-1] for key, value in found.items()}
        shared = {key: value[None] for key, value in strangers(head).items()}
        before = before + one.calibration.softmax(speaker_logits(features, head, shared)[0])
        # The diagonal: each clip with the model fitted without it.
        others = speaker_logits(features, head, found)[:-1].diagonal().T
        after = after + one.calibration.softmax(others)
    save_speaker(file, trained, name, folds)
    tested = labels.bincount(minlength=len(classes))[labels] > 1

    def accuracy(probabilities: Tensor) -> float | None:
        right = (probabilities.argmax(1) == labels)[tested]
        return float(right.double().mean()) if len(right) else None

    num_seen = _num_seen(trained, named) if fold is None else 0
    figures = (None, None) if num_seen else (accuracy(before), accuracy(after))
    return Enrolment(name, str(file), len(items), int(tested.sum()), num_seen, *figures)


def _num_seen(run: Run, clips: Sequence[Clip]) -> int:
    """The recordings among the clips that the run was trained on, in any fold."""
    seen, found = run.seen(), 0
    for clip in clips:
        if isinstance(clip.audio, str):
            audio, sha256 = read_audio(clip.audio, clip.span)
            row = {
                "sha256": sha256, "sample_rate": audio.sample_rate, "num_samples": len(audio.waveform),
                "decoder": audio.decoder, **(clip.span._asdict() if clip.span else {}),
            }  # fmt: skip
            found += seen.has(row)
    return found


def read_clips(table: Path, label: str) -> list[Labelled]:
    """The clips of a CSV (TSV, Parquet, JSONL) with columns file_path and `label`; perhaps text, start, end.

    Paths are relative to the table's folder. Raises ValueError naming the table and what is missing.
    """
    needs = f"a row per clip, with columns file_path and {label}, and text if the run reads it"
    if not table.is_file():
        raise ValueError(f"{table}: no such table of clips; it needs {needs}")
    there = column_names(table)
    for column in ("file_path", label):
        if column not in there:
            raise ValueError(
                f"{table}: no column {column!r}; the columns are {', '.join(there)}. The table needs {needs}"
            )
    columns = {"path": "file_path", "label": label}
    columns |= {name: name for name in ("text", "start", "end") if name in there and name != label}
    imported = read_table(table, table.parent, columns)
    if imported.rejected:
        raise ValueError(imported.rejected[0].detail)
    for number, row in enumerate(imported.rows, 1):
        if row["label"] is None:
            raise ValueError(f"{table}: row {number} has no {label}")
    clips = list[Labelled]()
    for row in imported.rows:
        path, span = str(row["path"]), span_of(row)
        name = path if span is None else f"{path}[{span}]"
        clips.append((Clip(name, path, row.get("text"), span=span), str(row["label"])))
    return clips


@torch.no_grad()
def _features(model: Model, models: Ensemble, items: Sequence[ClipInputs]) -> Tensor:
    """The features of each item before the speaker is taken into account, (items, width), on the CPU."""
    parts = []
    for first in range(0, len(items), BATCH_SIZE):
        frames = model.frames(*models.inputs(items[first : first + BATCH_SIZE]))
        parts.append(model.innermost.outputs(*frames).features.float().cpu())
    return torch.cat(parts)


def _read(clips: Sequence[Clip], reader: Reader) -> list[ClipInputs]:
    items = []
    for clip in clips:
        try:
            sound = None if clip.audio is None else read_sound(clip.audio, reader.channels, clip.span)
            if sound is not None:
                warn(clip, sound)
            items.append(reader.item(sound, clip.text, None))
        except ValueError as error:
            detail = str(error) if clip.name in str(error) else f"{clip.name}: {error}"
            raise ValueError(f"{detail}; leave the clip out, or fix it") from None
    keys = [tuple(values.tobytes() for values in item.inputs.values()) for item in items]
    for number, key in enumerate(keys):
        if (first := keys.index(key)) < number:
            raise ValueError(
                f"{clips[number].name} and {clips[first].name} are the same recording; give each once"
            )
    return items


def _check_labels(clips: Sequence[Clip], labels: Sequence[str], classes: tuple[str, ...]) -> Tensor:
    """The numbers of the labels. Raises ValueError for too few clips and labels that are not classes."""
    if len(clips) < 2:
        raise ValueError(f"{len(clips)} clips; enrolment needs at least two, to test each by the others")
    for clip, label in zip(clips, labels, strict=True):
        if label not in classes:
            raise ValueError(f"{clip.name}: the label {label!r} is not one of {', '.join(classes)}")
    return torch.from_numpy(np.array([classes.index(label) for label in labels], dtype=np.int64))
