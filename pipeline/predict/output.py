"""The output of `stillwave predict`, clip by clip: JSON lines, CSV, or a table to read."""

import csv
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, TextIO

from stillwave.pipeline.predict.results import Answer, Failure, Prediction

Format = Literal["json", "csv", "table"]
Show = Callable[[Prediction | Failure], None]

FACTS = ("label", "decision", "entropy", "learned_uncertainty", "score", "threshold")  # in this order
WIDTHS = {"clip": 40, "time": 17, "label": 12, "p": 6, "entropy": 7, "decision": 12, "score": 9}


def shower(kind: Format, file: TextIO, classes: Sequence[str]) -> Show:
    """A function that immediately writes one result to `file`.

    json: one object per line, with `clip` and `error` for a failure. csv: a row per clip, with an empty
    `segment`, followed by one per segment, numbered from 0; `p_<class>` as in the tables of `evaluate`.
    table: for reading, also a line per segment.
    """
    if kind == "json":
        return lambda result: print(json.dumps(result.to_dict()), file=file, flush=True)
    return _csv(file, classes) if kind == "csv" else _table(file)


def _csv(file: TextIO, classes: Sequence[str]) -> Show:
    names = [
        "clip",
        "segment",
        "start_s",
        "end_s",
        *FACTS,
        *(f"p_{name}" for name in classes),
        "note",
        "error",
    ]
    table = csv.DictWriter(file, names, lineterminator="\n")
    table.writeheader()

    def show(result: Prediction | Failure) -> None:
        if isinstance(result, Failure):
            table.writerow({"clip": result.clip, "error": result.error})
        else:
            start_s = None if result.duration_s is None else result.start_s or 0.0
            spans = [("", start_s, result.end_s, result), *_numbered(result)]
            for number, start_s, end_s, answer in spans:
                row: dict[str, Any] = {
                    "clip": result.clip,
                    "segment": number,
                    "start_s": start_s,
                    "end_s": end_s,
                }
                row |= {name: getattr(answer, name) for name in FACTS}
                if answer is result:
                    row["note"] = result.note
                table.writerow(row | {f"p_{name}": p for name, p in answer.probabilities.items()})
        file.flush()

    return show


def _numbered(result: Prediction) -> list[tuple[str, float | None, float | None, Answer]]:
    return [(str(n), one.start_s, one.end_s, one) for n, one in enumerate(result.segments)]


def _table(file: TextIO) -> Show:
    from rich.console import Console  # here: other formats do not need it

    console = Console(file=file, highlight=False, markup=False, soft_wrap=True)
    console.print(_line({name: name for name in WIDTHS}), style="bold")

    def show(result: Prediction | Failure) -> None:
        if isinstance(result, Failure):
            console.print(f"{_cut(result.clip):{WIDTHS['clip']}}  {result.error}", style="red")
            return
        time = "" if result.duration_s is None else f"{result.duration_s:.2f} s"
        console.print(_answer(_cut(result.clip), time, result), style=_style(result))
        for one in result.segments:
            console.print(_answer("", f"{one.start_s:.2f} to {one.end_s:.2f}", one), style=_style(one))

    return show


def _answer(clip: str, time: str, answer: Answer) -> str:
    shown = {"clip": clip, "time": time, "label": answer.label, "decision": answer.decision or "-"}
    shown |= {"p": f"{answer.probabilities[answer.label]:.3f}", "score": f"{answer.score:.4g}"}
    return _line(shown | {"entropy": f"{answer.entropy:.3f}"})


def _line(shown: dict[str, str]) -> str:
    return "  ".join(f"{shown[name]:{width}}" for name, width in WIDTHS.items()).rstrip()


def _cut(name: str) -> str:
    """The end of a long name, which distinguishes files in one folder."""
    width = WIDTHS["clip"]
    return name if len(name) <= width else f"...{name[3 - width :]}"


def _style(answer: Answer) -> str:
    return "yellow" if answer.decision not in (None, answer.label) else ""
