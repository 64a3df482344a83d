"""The output of the command line: progress on stderr, results on stdout."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import progress as bars
from rich.console import Console
from rich.table import Table

from stillwave.cache import EmbeddingStore
from stillwave.cache.places import open_storage
from stillwave.pipeline.corpora.quarantine import Quarantined
from stillwave.pipeline.extract.stage import ExtractResult, Progress
from stillwave.pipeline.run import Watcher
from stillwave.pipeline.transcribe.stage import TranscribeResult

# no markup: file names may hold brackets
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
console = Console(highlight=False, markup=False, soft_wrap=True)


MOST_FOLDS = 10  # that `prepare` counts one by one


class Watch(Watcher):
    """Progress bars of the stages; use as a context manager."""

    def __init__(self) -> None:
        text, remaining = bars.TextColumn, bars.TimeRemainingColumn(elapsed_when_finished=True)
        columns = (
            text("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            text("ETA"),
            remaining,
        )
        self._progress = bars.Progress(*columns, text("{task.fields[note]}"), console=err, transient=True)
        self._task: bars.TaskID | None = None

    def __enter__(self) -> "Watch":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=None, note="")

    def files(self, done: int, total: int) -> None:
        self._update(completed=done, total=total, note="files")

    def items(self, progress: Progress) -> None:
        self._update(completed=progress.done.items, total=progress.items, note=_rate(progress))

    def epoch(self, fold: int, epoch: int, figures: dict[str, float]) -> None:
        shown = {name: value for name, value in figures.items() if name in ("train_loss", "valid_uar")}
        note = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
        self._update(description=f"train fold {fold}, epoch", completed=epoch, note=note)

    def prepared(self, result: Any) -> None:
        labels = _counted(result.labels)
        err.print(f"prepare: {result.rows} rows, {result.hours:.2f} h, {result.speakers} speakers: {labels}")
        if result.excluded:
            err.print(f"prepare: left out: {_counted(result.excluded)}")
        if result.ignored:
            err.print(f"prepare: not audio by their names, ignored: {_counted(result.ignored)}")
        for fold, size in list(result.folds.items())[:MOST_FOLDS]:
            err.print(
                f"prepare: fold {fold}: {size.test} test rows, {size.train} training rows, "
                f"{size.withheld} left out"
            )
        if len(result.folds) > MOST_FOLDS:
            err.print(f"prepare: and {len(result.folds) - MOST_FOLDS} more folds")
        for note, count in result.noted.items():
            files = "file" if count == 1 else "files"
            err.print(f"prepare: {count} {files}: the file {note}", style="yellow")
        for warning in result.warnings:
            err.print(f"prepare: warning: {warning}", style="yellow")
        if result.quarantined:
            reasons = _counted(result.quarantined)
            err.print(f"prepare: quarantined: {reasons}; see {result.quarantine}", style="yellow")

    def extracted(self, name: str, result: ExtractResult) -> None:
        for difference in result.rebuilt:
            err.print(f"extract {name}: rebuilt: {difference}", style="yellow")
        err.print(
            f"extract {name}: {result.rows} rows, {result.forwards} computed in {result.batches} batches, "
            f"padding {100 * result.padding:.0f} %, {result.units} units written{_took(result)}"
        )
        _show_quarantined(f"extract {name}", result.quarantined, f"{name}.zarr.quarantine.csv")

    def transcribed(self, name: str, result: TranscribeResult) -> None:
        known = f" ({result.known} of them known from an earlier run)" if result.known else ""
        err.print(
            f"transcribe {name}: {result.rows} rows: {result.kept} kept their text, {result.transcribed} "
            f"were transcribed{known}, in {result.silent} no word was heard"
        )
        if result.items:
            err.print(
                f"transcribe {name}: {result.items} recordings in {result.seconds:.1f} s: "
                f"{result.seconds_per_hour:.0f} s per hour of audio"
            )
        _show_quarantined(f"transcribe {name}", result.quarantined, result.quarantine)

    def _update(self, **fields: Any) -> None:
        if self._task is None:
            self.stage("")
        assert self._task is not None
        self._progress.update(self._task, **fields)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _show_quarantined(stage: str, rows: Sequence[Quarantined], file: str) -> None:
    """The first rows that were left out, and the file that lists all of them."""
    for row in rows[:5]:
        err.print(f"{stage}: quarantined {row.id}: {row.reason}: {row.detail}", style="yellow")
    if len(rows) > 5:
        err.print(f"{stage}: and {len(rows) - 5} more, see {file}")


def _rate(progress: Progress) -> str:
    """Audio-hours, speed relative to real time, and quarantined rows, if any."""
    done, seconds = progress.done, max(progress.seconds, 1e-9)
    parts = [f"{done.audio_s / 3600:.2f} h  {done.audio_s / seconds:.0f}x real time"] if done.audio_s else []
    if progress.quarantined:
        parts.append(f"{progress.quarantined} quarantined")
    return "  ".join(parts)


def _took(result: ExtractResult) -> str:
    """How long a run took, and how its threads spent the time."""
    if not result.forwards:
        return ""
    seconds = result.seconds
    rate = seconds["wall"] - seconds["plan"]
    speed = f", {result.audio_s / rate:.0f}x real time" if result.audio_s else ""
    stages = ", ".join(f"{name} {seconds[name]:.1f} s" for name in ("plan", "load", "forward", "write"))
    return f" in {seconds['wall']:.1f} s{speed} ({stages})"


def show_metrics(metrics: dict[str, Any], report: Path) -> None:
    """The headline scores of a report, and its path."""
    folds = metrics["folds"]
    table = Table("metric", "all rows", "95 % interval", f"mean of {len(folds['each'])} folds", "deviation")
    for name in ("accuracy", "uar", "weighted_f1", "macro_f1"):
        low, high = metrics["intervals"]["rows"][name]
        mean, deviation = folds["mean"][name], folds["std"][name]
        table.add_row(
            name, f"{metrics[name]:.3f}", f"{low:.3f} to {high:.3f}", f"{mean:.3f}", f"{deviation:.3f}"
        )
    console.print(table)
    before, after = metrics["calibration"]["before"], metrics["calibration"]["after"]
    scaled = "" if before == after else f" ({before['ece']:.3f} before temperature scaling)"
    console.print(f"calibration error {after['ece']:.3f}{scaled}")
    if "open_set" in metrics:
        _show_open_set(metrics["open_set"])
    for name, count in metrics["absent"].items():
        if count:
            console.print(f"{count} rows without {name}")
    missing = f", {metrics['n_missing']} without frames left out" if metrics["n_missing"] else ""
    console.print(f"{metrics['n']} rows{missing}; report in {report}")


def _show_open_set(report: dict[str, Any]) -> None:
    """How well each score detects unknown classes, the recipe's own score first."""
    table = Table("score", "AUROC", "FPR at 95 % TPR", "AUPR", "OSCR", title_justify="left")
    table.title = f"unknown: {', '.join(report['unknown'])}"
    for name in sorted(report["scores"], key=lambda name: name != report["score"]):
        one = report["scores"][name]
        table.add_row(name, *(f"{one[key]:.3f}" for key in ("auroc", "fpr_at_95_tpr", "aupr", "oscr")))
    console.print(table)


def show_analysis(facts: dict[str, Any], out: Path) -> None:
    """What a store's frames reveal about labels and speakers, and what was left out of the analysis."""
    label = f"label: {facts['label']}" if facts["label"] else "label"
    table = Table("measure", label, "chance", "speaker", "chance")
    names = ("label", "chance_label", "speaker", "chance_speaker")
    for line in facts["leakage"]:
        table.add_row(line["measure"], *("" if line[name] is None else f"{line[name]:.3f}" for name in names))
    console.print(table)
    for note in facts["notes"]:
        err.print(note, style="yellow")
    console.print(f"{facts['rows']} rows of {facts['dim']} numbers; look around in {out / 'explorer.html'}")


def show_comparison(result: dict[str, Any], as_json: bool) -> None:
    """What `stillwave compare` prints."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    table = Table("metric", "A", "B", "B - A", f"{result['level']:.0%} interval", "p")
    for name, line in result["metrics"].items():
        low, high = line["interval"]
        values = (f"{line['a']:.3f}", f"{line['b']:.3f}", f"{line['difference']:+.3f}")
        table.add_row(name, *values, f"{low:+.3f} to {high:+.3f}", _p(line["p"]))
    console.print(f"A: {result['a']}\nB: {result['b']}")
    console.print(table)
    unknown = f" and {result['unknown_rows']} of unknown classes" if result["unknown_rows"] else ""
    drawn = "rows" if result["group"] is None else f"{result['groups']} groups by {result['group']}"
    console.print(
        f"{result['rows']} rows{unknown}; {drawn} drawn {result['resamples']} times; "
        f"McNemar's exact test of accuracy, by rows: p {_p(result['mcnemar'])}"
    )
    if result["group"] is not None and (least := 2.0 ** (1 - result["groups"])) > 0.01:
        console.print(f"p for {result['groups']} groups is never below {least:.3f}; look at the interval")
    if any(left := result["left_out"].values()):
        console.print("left out: {} rows of A, {} of B".format(*left))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def show_store(path: str, as_json: bool) -> None:
    """What `stillwave info` prints."""
    store = EmbeddingStore(path)
    size = sum(open_storage(path).sizes().values())
    facts = {
        "rows": len(store),
        "distinct": len({(int(o), int(n)) for o, n in zip(store.offsets, store.lengths, strict=True)}),
        "frames": int(store.lengths.sum()),
        "shortest": int(store.lengths.min()) if len(store) else 0,
        "longest": int(store.lengths.max(initial=0)),
        "bytes": size,
        "layout": asdict(store.spec),
        "fingerprint": store.fingerprint,
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table("field", "value", title=str(path), title_justify="left")
    for name, value in _flat(facts):
        table.add_row(name, value)
    console.print(table)


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        rows += (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", str(value))]
        )
    return rows
