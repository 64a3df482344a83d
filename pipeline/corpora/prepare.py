"""Stage `prepare`: from a corpus to a manifest of checked, split utterances, and a quarantine."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import pandas as pd

from stillwave.pipeline.audio.decode import BadAudio, joined_notes
from stillwave.pipeline.audio.files import beside, write_if_changed
from stillwave.pipeline.audio.segments import read_audio, span_of
from stillwave.pipeline.config import corpus as config_module
from stillwave.pipeline.corpora import CorpusConfig, splits
from stillwave.pipeline.corpora.base import Row
from stillwave.pipeline.corpora.leaks import (
    Size,
    check_shared,
    keys_of,
    leak_warnings,
    leaking_rows,
    sizes,
    withhold,
)
from stillwave.pipeline.corpora.manifest import write_manifest
from stillwave.pipeline.corpora.quarantine import Quarantined, check_bad_fraction, quarantine_csv
from stillwave.pipeline.corpora.spans import check_labels, in_seconds, sharing, without_empty
from stillwave.pipeline.corpora.usable import usable_rows

log = logging.getLogger(__name__)

OnFile = Callable[[int, int], None]  # (files done, all files)

_DECODERS = 2  # threads; libsndfile and hashing release the interpreter lock


@dataclass(frozen=True)
class PrepareResult:
    """Counts of what `prepare` did. Everything found under the root is counted."""

    manifest: str
    quarantine: str
    rows: int
    hours: float
    speakers: int
    labels: dict[str, int]  # rows per label
    quarantined: dict[str, int]  # files per reason
    excluded: dict[str, int]  # rows left out, per label (or "song", "no label", "repeated row")
    ignored: dict[str, int]  # files that are not audio, per suffix
    noted: dict[str, int]  # files that are used, per thing that is unusual about them
    changed: bool  # False if the manifest on disk already had these bytes
    warnings: tuple[str, ...]  # about spellings, labels and leaks
    leaks: dict[str, int]  # test rows that share their speaker or text with rows to train on; those above 0
    folds: dict[int, Size]  # with `split.disjoint`: the sizes of each fold


def prepare(
    config: CorpusConfig, root: Path | None, out: str | Path, progress: OnFile | None = None
) -> PrepareResult:
    """Import, decode, filter and split the corpus of `config`; write the manifest to `out`, a path or URL.

    `root` overrides `config.root`. `quarantine.csv` is always written next to `out`, before any failure
    that it explains. The same input gives byte-identical files. Raises ValueError for a folder, column, class
    or split that cannot be used, and if more than `max_bad_fraction` of the files are unusable.
    """
    if (folder := root or config.root) is None:
        raise ValueError(
            f"corpus {config.kind}: its folder is not known; give --root DIR, or `root:` in its config"
        )
    imported = config.read(Path(folder).expanduser())
    if not imported.rows and not imported.rejected:
        raise ValueError(
            f"corpus {config.kind}: the config leaves out everything found: {dict(imported.excluded)}"
        )
    found = usable_rows(imported, config)
    by_file = sorted(found.rows, key=lambda row: str(row["path"]))  # spans of a file cost one reading
    decoded, bad_audio, noted = _decode_all(by_file, config, progress)
    quarantined = sorted(found.quarantined + bad_audio)

    quarantine_path = beside(out, "quarantine.csv")
    write_if_changed(quarantine_path, quarantine_csv(quarantined))
    check_bad_fraction(quarantined, len(decoded), config.max_bad_fraction, quarantine_path)

    decoded.sort(key=lambda row: str(row["id"]))
    check_labels(decoded, config.label)
    frame = split_rows(without_empty(pd.DataFrame(decoded)), config)
    changed = write_manifest(frame, out)
    speakers = frame["speaker"].nunique() if "speaker" in frame.columns else 0
    leaks, folds = leaking_rows(frame, config.label), sizes(frame)
    test_rows = sum(fold.test for fold in folds.values())
    return PrepareResult(
        manifest=str(out),
        quarantine=quarantine_path,
        rows=len(frame),
        hours=float(frame["duration_s"].sum()) / 3600,
        speakers=int(speakers),
        labels=_counts(frame[config.label].tolist()),
        quarantined=_counts(item.reason for item in quarantined),
        excluded=dict(sorted(found.excluded.items())),
        ignored=dict(sorted(imported.ignored.items())),
        noted=dict(sorted(noted.items())),
        changed=changed,
        warnings=(*found.warnings, *leak_warnings(leaks, test_rows, split_of(frame, config))),
        leaks=leaks,
        folds=folds if config.split.disjoint else {},
    )


def split_of(frame: pd.DataFrame, config: CorpusConfig) -> config_module.SplitConfig:
    """The split of a corpus: if its config asks for nothing, its own column `split`, if it has one."""
    if "split" not in frame.columns or "split" in config.model_fields_set:
        return config.split
    group = "speaker" if "speaker" in frame.columns else None
    return config_module.Predefined(kind="predefined", group=group)


def split_rows(frame: pd.DataFrame, config: CorpusConfig) -> pd.DataFrame:
    """`frame` with the `fold` or `split` column that `config.split` asks for, checked for leaks.

    With `split.disjoint` it has `withheld`, too, if there is anything to leave out.
    """
    split = split_of(frame, config)
    groups = _groups(frame, split.group)
    keys = {name: _groups(frame, name, "split.disjoint") for name in split.disjoint}
    labels = frame[config.label].astype(str).tolist()
    match split:
        case config_module.Predefined():
            if split.column not in frame.columns:
                raise ValueError(
                    f"predefined split: the corpus has no column {split.column!r}; "
                    f"it has {', '.join(map(str, frame.columns))}"
                )
            values = [None if pd.isna(value) else str(value) for value in frame[split.column]]
            column = "fold" if split.folds else "split"
            sides = splits.predefined_folds(values) if split.folds else splits.predefined(values, split.names)
        case config_module.Holdout():
            by = labels if split.stratify else None
            column, sides = "split", splits.holdout(groups, split.valid, split.test, split.seed, by)
        case config_module.KFold():
            by = labels if split.stratify else None
            column, sides = "fold", splits.kfold(groups, split.folds, split.seed, by)
        case config_module.LeaveOneGroupOut():
            column, sides = "fold", splits.leave_one_group_out(groups)
        case _:
            assert_never(split)
    done = frame.drop(columns=["fold", "split", "withheld"], errors="ignore").assign(**{column: sides})
    if keys:
        done = withhold(done, keys, config.label)
    if not split.allow_leak:
        remedy = "Use a split that keeps each of them on one side, or accept it with split.allow_leak: true."
        if split.group is not None:
            check_shared(done, groups, f"{split.group} group(s)", remedy)
        remedy = (
            "Other rows have the same samples as these, in files with the same bytes, or in spans that "
            "overlap: remove them, keep each file on one side with split.group: sha256, or set "
            "split.allow_leak: true."
        )
        check_shared(done, sharing(frame), "duplicated recording(s)", remedy)
    return done


def _decode_all(
    rows: list[Row], config: CorpusConfig, progress: OnFile | None
) -> tuple[list[dict[str, object]], list[Quarantined], Counter[str]]:
    """Rows with what is measured from their audio; rows with bad audio; counts of notes.

    A text-only row has the sha256 of its text, and its numbers are 0.
    """

    noted: Counter[str] = Counter()

    def measure(row: Row) -> tuple[dict[str, object], tuple[str, ...]] | BadAudio:
        if row["path"] == "":
            text = hashlib.sha256(str(row["text"]).encode()).hexdigest()
            return {"sha256": text, "sample_rate": 0, "num_samples": 0, "duration_s": 0.0}, ()
        try:
            span = span_of(row)
            limits = config.min_duration_s, config.max_duration_s
            audio, sha256 = read_audio(str(row["path"]), span, *limits)
        except BadAudio as error:
            return error
        for note in audio.notes:
            log.info("%s: %s", row["path"], note)
        measured: dict[str, object] = {
            "sha256": sha256,
            "sample_rate": audio.sample_rate,
            "num_samples": len(audio.waveform),
            "duration_s": len(audio.waveform) / audio.sample_rate,
            **in_seconds(row, len(audio.waveform), audio.sample_rate),
        }
        if audio.decoder == "ffmpeg":
            measured["decoder"] = audio.decoder
        if audio.notes:
            measured["note"] = joined_notes(audio.notes)
        return measured, audio.notes

    good: list[dict[str, object]] = []
    bad: list[Quarantined] = []
    pool = ThreadPoolExecutor(_DECODERS)
    try:
        for done, (row, result) in enumerate(zip(rows, pool.map(measure, rows), strict=True), start=1):
            if isinstance(result, BadAudio):
                path = str(row["path"])
                bad.append(Quarantined(str(row["id"]), path, "decode", result.reason, result.detail))
            else:
                good.append({**row, **result[0]})
                noted.update(result[1])
            if progress is not None:
                progress(done, len(rows))
    finally:
        # After Ctrl-C, do not first decode the rest of a large corpus.
        pool.shutdown(cancel_futures=True)
    return good, bad, noted


def _groups(frame: pd.DataFrame, group: str | None, field: str = "split.group") -> list[str]:
    """The group of each row: the value of column `group`, or else the row itself."""
    if group is None:
        return frame["id"].tolist()
    otherwise = (
        "set split.group: null for a split row by row"
        if field == "split.group"
        else f"leave {group} out of split.disjoint"
    )
    if group not in frame.columns:
        raise ValueError(
            f"{field}: the corpus has no column {group!r}; it has {', '.join(map(str, frame.columns))}. "
            f"Name one of them, or {otherwise}"
        )
    keys = keys_of(frame, group)
    if unknown := [name for name, key in zip(frame["id"], keys, strict=True) if key is None]:
        raise ValueError(
            f"{field}: {len(unknown)} of {len(frame)} rows have no {group} "
            f"(the first is {unknown[0]!r}); fill it in, or {otherwise}"
        )
    return [str(key) for key in keys]


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
