"""Imported rows to those that can be used: their spelling, their labels, their classes."""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field

from stillwave.pipeline.corpora.base import MEASURED, CorpusBase, Imported, Rejected, Row
from stillwave.pipeline.corpora.manifest import RESERVED
from stillwave.pipeline.corpora.quarantine import Quarantined
from stillwave.pipeline.corpora.spans import same_span, where
from stillwave.pipeline.corpora.spelling import MISSING, alike, clean, doubtful
from stillwave.pipeline.corpora.splits import side_of


@dataclass
class Usable:
    """Rows that have one of the config's labels and an id of their own, and what became of the others.

    excluded: rows left out, by label, or as "no label" or "repeated row". warnings: on spelling and labels.
    """

    rows: list[Row]
    quarantined: list[Quarantined] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)


def usable_rows(imported: Imported, config: CorpusBase) -> Usable:
    """The rows of a corpus that its config keeps.

    Raises ValueError for a column or a class that is absent, and for a file, or a span of one, that has two
    labels.
    """
    label = config.label
    if imported.rows and (taken := sorted(MEASURED & imported.rows[0].keys())):
        raise ValueError(
            f"{', '.join(taken)}: measured from the audio; give the corpus's column another name"
        )
    if imported.rows and label not in imported.rows[0]:
        there = ", ".join(name for name in imported.rows[0] if name not in RESERVED)
        raise ValueError(f"label: the corpus has no column {label!r}; it has {there}")
    found = Usable([], excluded=Counter(imported.excluded))
    named = {*config.labels, *(config.classes or ())}
    missing, theirs, ours = Counter[str](), Counter[str](), Counter[str]()
    first, spans, rejected = dict[str, Row](), dict[Hashable, tuple[Row, str]](), list(imported.rejected)
    for raw, place in zip(imported.rows, imported.places or [""] * len(imported.rows), strict=True):
        row = {name: value if name == "path" else clean(value or "") for name, value in raw.items()}
        name, value = str(row["id"]), row[label]
        if value is None or (value in MISSING and value not in named):
            found.excluded["no label"] += 1
            missing[value or ""] += 1
            continue
        row[label] = mapped = config.labels.get(value, value)
        theirs[value] += 1
        ours[mapped] += 1
        twin, its_place = spans.setdefault(same_span(row), (row, place))
        if twin[label] != mapped:
            raise ValueError(
                f"{label}: two labels for {where(row)}: {its_place or twin['id']} says {twin[label]!r}, "
                f"{place or name} says {mapped!r}; remove one, or join the two with `labels`. For labels of "
                "parts of the file, give `start` and `end` in seconds"
            )
        if config.classes is not None and mapped not in config.classes:
            found.excluded[mapped] += 1
        elif twin is not row and twin == {**row, "id": twin["id"]}:
            found.excluded["repeated row"] += 1
        elif first.setdefault(name, row) is row:
            found.rows.append(row)
        else:
            detail = f"id {name!r} is taken by {first[name]['path']}"
            rejected.append(Rejected(name, str(row["path"]), "duplicate_id", detail))
    found.quarantined = [Quarantined(it.id, it.path, "import", it.reason, it.detail) for it in rejected]
    found.warnings = imported.warnings + [
        f"{label}: {count} rows have {value!r}, which is read as no label; if it is one, list it in `classes`"
        for value, count in sorted(missing.items())
        if value
    ]
    if theirs:
        _check_there("labels", config.labels, theirs, label)
        _check_there("classes", config.classes or (), ours, label)
    labels = [str(row[label]) for row in found.rows]
    if config.classes is None:
        found.warnings += doubtful(label, labels)
        if {"train"} < {side_of(value) for value in labels} - {""}:
            sides = ", ".join(sorted({value for value in labels if side_of(value)}))
            found.warnings.append(
                f"{label}: {sides} seem to be the sides of a split, not classes; if they are classes, list "
                "them in `classes`"
            )
        if len({*labels}) == 1:
            side = ", the name of a side of a split" if side_of(labels[0]) else ""
            remedy = (
                "; if the classes are the folders in it, set `root` to it" if config.kind == "folder" else ""
            )
            found.warnings.append(
                f"{label}: all rows have {labels[0]!r}{side}, so there is only one class{remedy}"
            )
    found.warnings += alike(label, labels, "if they are one, map one to the other with `labels`")
    grouped = {"speaker", config.split.group or "speaker", *config.split.disjoint}
    for column in sorted(grouped - {label, "text"}):  # texts that differ only in case are one to the split
        values = [value for row in found.rows if (value := row.get(column)) is not None]
        found.warnings += alike(column, values, "if they are one, spell them alike in the corpus")
    return found


def _check_there(field: str, wanted: Iterable[str], values: Collection[str], label: str) -> None:
    """Raise ValueError naming `field` of the config if a label that it names does not occur."""
    if absent := [name for name in wanted if name not in values]:
        raise ValueError(
            f"{field}: no row has {label} {', '.join(map(repr, absent))}; "
            f"the labels are {', '.join(sorted(set(values)))}"
        )
