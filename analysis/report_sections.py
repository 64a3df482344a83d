"""The account of one run: its sections, in the order in which they are read."""

from typing import Any

from stillwave.analysis.report_blocks import (
    Block,
    Collapsible,
    Section,
    Table,
    Text,
    interval,
    number,
    picture,
)
from stillwave.analysis.report_comparison import NAMES
from stillwave.analysis.report_facts import configuration, environment, training
from stillwave.analysis.report_runs import Shown
from stillwave.pipeline.evaluate.report import report_figures
from stillwave.pipeline.scores.classification import HEADLINE

MISSING_SHOWN = 20
FEW = 20  # speakers, under which intervals by speakers are too short


def sections(shown: Shown, prefix: str) -> list[Section]:
    """All of a run's sections; `prefix` makes their anchors unique on the page."""
    metrics = shown.metrics
    figures = report_figures(shown.predictions, metrics, shown.curves)

    def drawn(name: str, alt: str, caption: str) -> list[Block]:
        if name not in figures:
            return []
        return [picture(figures[name], f"{shown.name}: {alt}", caption, f"{prefix}-{name}")]

    tested = [item for item in metrics["per_class"].items() if item[1]["n"]]
    worst = min(tested, key=lambda item: item[1]["recall"])
    found = {
        "Scores": _scores(shown),
        "Confusion": [
            *drawn(
                "confusion",
                f"confusion matrix; the smallest recall is {number(worst[1]['recall'])}, of {worst[0]}",
                "Rows by actual and predicted class; shades are shares of the actual class.",
            ),
            _groups("class", "Scores of each class", metrics["per_class"], ("precision", "recall", "f1")),
        ],
        "Reliability": [
            *drawn(
                "reliability",
                f"reliability diagram; expected calibration error {number(_ece(metrics))}",
                "How often the classifier is right, by how sure it is. Under the diagonal it is too sure.",
            ),
            *_calibration(metrics),
        ],
        "Speakers and languages": [
            *drawn(
                "per_speaker",
                f"UAR of each of {len(metrics['per_speaker'])} speakers",
                "UAR of each speaker, and how many rows it is of.",
            ),
            *_people(shown),
        ],
        "Unknown classes": [
            *drawn(
                "open_set",
                "unknown rows detected against known rows rejected, a line per score",
                "Unknown rows detected against known rows rejected; the area under a line is its AUROC.",
            ),
            *drawn(
                "decisions", "confusion matrix with the unknown as a class", "Decisions at the threshold."
            ),
            *_open_set(metrics),
        ],
        "Training": [
            *drawn(
                "curves",
                "loss over the epochs of training",
                "Thin lines are folds, thick ones their mean as long as all of them train.",
            ),
            *drawn(
                "losses",
                "each loss over the epochs of training",
                "The losses that are added up, each before its weight and on its own scale.",
            ),
            training(shown),
        ],
        "Configuration": configuration(shown),
        "Environment": environment(shown),
    }
    return [
        Section(title, f"{prefix}-{title.split()[0].lower()}", blocks)
        for title, blocks in found.items()
        if blocks
    ]


def _scores(shown: Shown) -> list[Block]:
    metrics, config = shown.metrics, shown.config
    intervals, folds = metrics["intervals"], metrics["folds"]
    several = len(folds["each"]) > 1  # a single split has no spread, and an ensemble no folds
    rows = [
        [
            NAMES[name],
            number(metrics[name]),
            interval(intervals["rows"][name]),
            interval(intervals.get("speakers", {}).get(name)),
            *([f"{number(folds['mean'][name])} ± {number(folds['std'][name])}"] if several else []),
        ]
        for name in HEADLINE
    ]
    heads = ["score", "all rows", "95 % by rows", "95 % by speakers"]
    heads += [f"mean of {len(folds['each'])} folds ± their standard deviation"] if several else []
    each = Table(
        "Scores of each fold",
        ("fold", *NAMES.values(), "rows"),
        [[str(f["fold"]), *(number(f[name]) for name in HEADLINE), str(f["n"])] for f in folds["each"]],
    )
    left_out = "none is left out"
    if metrics["n_missing"]:
        first = ", ".join(metrics["missing"][:MISSING_SHOWN])
        more = ", ..." if metrics["n_missing"] > MISSING_SHOWN else ""
        left_out = f"{metrics['n_missing']} labelled rows without frames are left out: {first}{more}"
    absent = "".join(f" {count} rows have no {name}." for name, count in metrics["absent"].items() if count)
    by = "each predicted by a model that has not seen it"
    if metrics["run"]["ensemble"]:
        by = (
            f"of {metrics['run']['manifest']}, on which no model was trained, predicted by the ensemble of "
            f"the {len(config['folds'])} models: not by the run's own folds"
        )
    said = (
        f"{config['recipe']['label']}: {', '.join(config['classes'])}. {metrics['n']} rows, {by}; "
        f"{left_out}.{absent}"
    )
    blocks: list[Block] = [Text(said), Table("Scores", heads, rows)]
    blocks += [Text(_speakers_said(shown))]
    return [*blocks, Collapsible("Each fold", [each])] if several else blocks


def _speakers_said(shown: Shown) -> str:
    """What the interval by speakers is worth, or why there is none."""
    count = len(shown.metrics["per_speaker"])
    if "speakers" not in shown.metrics["intervals"]:
        few = "no speakers" if not count else "one speaker" if count == 1 else "rows without a speaker"
        return f"There is no interval by speakers: there are {few}. Those by rows say nothing about new ones."
    said = f"By rows says how well these {count} speakers were measured, by speakers what to expect of others"
    if count < FEW:
        said += f", but too surely: of under about {FEW} speakers, that interval is too short"
    return f"{said}. Both are of these trained models: another seed may move the scores as much."


def _groups(unit: str, caption: str, groups: dict[str, Any], columns: tuple[str, ...] = HEADLINE) -> Table:
    heads = (
        unit,
        *(NAMES.get(name, name.upper() if name in ("f1", "ece") else name) for name in columns),
        "rows",
    )
    rows = [
        [name, *(number(group[column] if group["n"] else None) for column in columns), str(group["n"])]
        for name, group in groups.items()
    ]
    return Table(caption, heads, rows)


def _people(shown: Shown) -> list[Block]:
    metrics, blocks = shown.metrics, list[Block]()
    known = shown.predictions[shown.predictions["known"]]
    for name in ("speaker", "language"):
        lacking = int(known[name].isna().sum()) if name in known else 0
        if 0 < lacking < len(known):
            said = f"{lacking} of {len(known)} rows have no {name}: they are in no bar or row of a {name}"
            blocks.append(
                Text(f"{said}{', and there is no interval by speakers' if name == 'speaker' else ''}.")
            )
    if metrics["per_speaker"]:
        speakers = _groups("speaker", "Each speaker", metrics["per_speaker"])
        blocks.append(Collapsible("Table of speakers", [speakers]))
    if metrics["per_language"]:
        blocks.append(_groups("language", "Each language", metrics["per_language"], (*HEADLINE, "ece")))
    return blocks


def _ece(metrics: dict[str, Any]) -> float:
    return float(metrics["calibration"]["after"]["ece"])


def _calibration(metrics: dict[str, Any]) -> list[Block]:
    found = metrics["calibration"]
    columns = ("ece", "nll", "brier")
    scaled = found["before"] != found["after"]
    whens = {"before": "as trained", "after": "after scaling"} if scaled else {"after": "as trained"}
    table = Table(
        "Calibration: lower is better",
        ("probabilities", "ECE", "NLL", "Brier"),
        [[shown, *(number(found[when][name]) for name in columns)] for when, shown in whens.items()],
    )
    rows = []
    for fold, facts in found["folds"].items():
        counts = {status: facts["openmax"].count(status) for status in sorted(set(facts["openmax"]))}
        tails = ", ".join(f"{status}: {count}" for status, count in counts.items())
        rows.append([fold, number(facts["temperature"]), tails])
    fitted = Table(
        "Fitted after training", ("fold", "temperature", "OpenMax's tails, classes"), rows, words=True
    )
    why = "" if scaled else " No temperature was fitted: there were no validation rows."
    said = "Over 1, a temperature makes a classifier less sure; – means that none was fitted."
    return [table, Collapsible("Fitted after training", [Text(said + why), fitted])]


def _open_set(metrics: dict[str, Any]) -> list[Block]:
    if "open_set" not in metrics:
        return []
    found = metrics["open_set"]
    ranked = sorted(found["scores"].items(), key=lambda item: (item[0] != found["score"], -item[1]["auroc"]))
    columns = ("auroc", "auroc_mean_of_folds", "fpr_at_95_tpr", "aupr", "oscr")
    scores = Table(
        "Every score; the recipe's own is first",
        ("score", "AUROC", "mean of folds", "FPR at 95 % TPR", "AUPR", "OSCR"),
        [[name, *(number(one[column]) for column in columns)] for name, one in ranked],
    )
    thresholds = Table(
        "Thresholds, as means over the folds",
        ("score", "threshold", "value", "known rejected", "unknown rejected"),
        [
            [name, kind, *(number(one[key]) for key in ("mean", "known_rejected", "unknown_rejected"))]
            for name, scored in ranked
            for kind, one in scored["thresholds"].items()
        ],
    )
    first = next(iter(found["scores"].values()))
    said = (
        f"Never trained: {', '.join(found['unknown'])}, {first['n_unknown']} rows beside {first['n_known']} "
        "of known classes. 0.5 is chance for AUROC; OSCR cannot exceed the accuracy."
    )
    intervals = [
        [unit, interval(found["intervals"][unit]["auroc"])]
        for unit in ("rows", "speakers")
        if unit in found["intervals"]
    ]
    blocks: list[Block] = [
        Text(said),
        scores,
        Table(f"AUROC of {found['score']}: 95 % interval", ("drawn", "from to"), intervals),
    ]
    if found["per_language"]:
        languages = [[name, number(value)] for name, value in found["per_language"].items()]
        caption = f"AUROC of {found['score']}, each language"
        blocks.append(Table(caption, ("language", "AUROC"), languages))
    return [*blocks, Collapsible("Thresholds", [thresholds])] if thresholds.rows else blocks
