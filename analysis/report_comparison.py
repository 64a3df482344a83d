"""Several runs side by side: what each scores, and whether it differs from the first by more than luck."""

from typing import Any

from stillwave.analysis.report_blocks import Block, Table, Text, interval, number, p_value
from stillwave.analysis.report_runs import Shown
from stillwave.pipeline.evaluate.compare import compare
from stillwave.pipeline.scores.classification import HEADLINE

NAMES = {"accuracy": "accuracy", "uar": "UAR", "weighted_f1": "weighted F1", "macro_f1": "macro F1"}


def comparison(shown: list[Shown]) -> list[Block]:
    """A table of all runs, and every run against the first, where both have predicted the same rows."""
    rows = []
    for one in shown:
        metrics, open_set = one.metrics, one.metrics.get("open_set")
        auroc = open_set and open_set["scores"][open_set["score"]]["auroc"]
        rows.append(
            [
                one.name,
                "ensemble" if metrics["run"]["ensemble"] else "each fold's own",
                f"{len(one.config['classes'])}",
                str(metrics["n"]),
                *(number(metrics[name]) for name in HEADLINE[:2]),
                interval(metrics["intervals"]["rows"]["uar"]),
                number(metrics["macro_f1"]),
                number(metrics["calibration"]["after"]["ece"]),
                number(auroc),
                interval(open_set and open_set["intervals"]["rows"]["auroc"]),
            ]
        )
    heads = (
        "run", "rows by", "classes", "rows", "accuracy", "UAR", "95 % by rows", "macro F1", "ECE",
        "AUROC unknown", "95 % by rows",
    )  # fmt: skip
    return [Table("All runs", heads, rows), *_against_first(shown)]


def _against_first(shown: list[Shown]) -> list[Block]:
    first, others = shown[0], shown[1:]
    reasons = {one.name: _difference(first, one) for one in others}
    paired = [one for one in others if reasons[one.name] is None]
    by_rows = {one.name: compare(first.report, one.report) for one in paired}
    by_speakers = {
        one.name: compare(first.report, one.report, group="speaker")
        for one in paired
        if _has_speakers(first) and _has_speakers(one)
    }
    blocks: list[Block] = []
    for score, shown_as in (("uar", "UAR"), ("auroc", "AUROC of the unknown")):
        rows = []
        for name, found in by_rows.items():
            if score not in found["metrics"]:
                continue
            last = p_value(found["mcnemar"])
            rows.append([name, *_line(found, score), *_line(by_speakers.get(name), score)[1:]])
            rows[-1] += [last] if score == "uar" else []
        heads = ["run", shown_as, "95 % by rows", "p", "95 % by speakers", "p"]
        heads += ["p of accuracy"] if score == "uar" else []
        if rows:
            caption = f"Difference to {first.name}, on the same rows"
            blocks.append(Table(caption + (": AUROC" if score == "auroc" else ""), heads, rows))
    if paired:
        blocks.append(
            Text(
                "All of it is of these trained models: another seed may move UAR as much, so train several "
                "before a recipe is called better. Intervals are paired bootstraps, p of UAR a randomisation "
                "test, p of accuracy McNemar's exact test by rows; none is corrected for the number of "
                "comparisons. Those by speakers hold for new speakers; with few speakers their p cannot be "
                "small, whatever the difference."
            )
        )
    if lacking := [one for one in paired if one.name not in by_speakers]:
        names = ", ".join(one.name for one in lacking)
        blocks.append(
            Text(f"Not by speakers: {names}; that needs two speakers, and one for every row, of unknown too.")
        )
    blocks += [Text(f"Not compared with {first.name}: {name} {why}.") for name, why in reasons.items() if why]
    return blocks


def _line(found: dict[str, Any] | None, score: str) -> list[str]:
    if found is None:
        return 3 * ["–"]
    line = found["metrics"][score]
    return [number(line["difference"], True), interval(line["interval"], True), p_value(line["p"])]


def _has_speakers(shown: Shown) -> bool:
    """Whether speakers can be drawn: every row has one, of known classes and of unknown ones."""
    table = shown.predictions
    return "speaker" in table and bool(table["speaker"].notna().all()) and table["speaker"].nunique() > 1


def _difference(first: Shown, other: Shown) -> str | None:
    """Why two runs cannot be paired row by row, or None."""
    if first.metrics["run"]["rows"] == other.metrics["run"]["rows"]:
        return None
    ours, theirs = first.predictions.set_index("id"), other.predictions.set_index("id")
    both = ours.index.intersection(theirs.index)
    if not len(both):
        return "has other rows, none in common"
    common = f"`stillwave compare {first.report} {other.report} --common` compares what they share"
    if len(both) < max(len(ours), len(theirs)):
        return f"has {len(theirs)} rows to {len(ours)}, {len(both)} in common ({common})"
    ours, theirs = ours.loc[both], theirs.loc[both]
    if (ours["label"] != theirs["label"]).any():
        return "has the same rows with other labels"
    if (ours["known"] != theirs["known"]).any():
        return f"has the same rows with other classes unknown ({common})"
    return "has rows of the same names, of other recordings, texts or speakers"
