"""How values are spelled: blanks, forms of Unicode, missing values, and labels that are no classes."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

# What pandas reads as a missing value; not `null` in lower case, the German word for zero.
MISSING = frozenset(
    {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan"}
)
MANY_NUMBERS = 20  # more distinct numbers than this are more likely a quantity than classes
NUMBER = re.compile(r"[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?")
SHOWN = 3
LISTED = 20  # columns


def nfc(text: str) -> str:
    """In Unicode's composed form, in which a letter and its accent are one character."""
    return unicodedata.normalize("NFC", text)


def clean(text: str) -> str | None:
    """In composed form, without blanks around it; None if nothing is left."""
    return nfc(text).strip() or None


def listed(columns: Collection[str]) -> str:
    """The names of columns for a message, which a table of thousands of them does not fill."""
    more = f", ... ({len(columns)} in all)" if len(columns) > LISTED else ""
    return ", ".join([*columns][:LISTED]) + more


def same_text(text: str) -> str:
    """What two spellings of one text have in common: neither case nor blanks count."""
    return " ".join(nfc(nfc(text).casefold()).split())


def alike(column: str, values: Iterable[str], remedy: str) -> list[str]:
    """A warning for each set of values that differ only in case, blanks or compatible characters."""
    spellings: dict[str, list[str]] = defaultdict(list)
    counts = Counter(values)
    for value in sorted(counts):
        spellings[_skeleton(value)].append(value)
    warnings = []
    for same in spellings.values():
        if len(same) > 1:
            each = " and ".join(f"{value!r} ({counts[value]} rows)" for value in same)
            warnings.append(f"{column}: {each} differ only in case or blanks, but are not one: {remedy}")
    return warnings


def doubtful(label: str, values: Iterable[str]) -> list[str]:
    """Warnings for labels that seem to be quantities, or several labels in one cell."""
    counts, warnings = Counter(values), []
    numbers = [float(value.replace(",", ".")) for value in counts if NUMBER.fullmatch(value)]
    whole = all(number.is_integer() for number in numbers)
    if len(numbers) == len(counts) > 2 and (len(counts) > MANY_NUMBERS or not whole):
        warnings.append(
            f"{label}: its {len(counts)} distinct values are all numbers, from {min(numbers):g} to "
            f"{max(numbers):g}, and each becomes a class of its own; ratings and other quantities cannot be "
            "predicted yet. If they are classes, list them in `classes`"
        )
    cells = {value: [part.strip() for part in re.split(r"[;|,/+&]", value)] for value in counts}
    parts = Counter(part for split in cells.values() for part in set(split))
    several = [
        value for value, split in cells.items()
        if not NUMBER.fullmatch(value) and len(split) > 1 and all(split) and any(parts[x] > 1 for x in split)
    ]  # fmt: skip
    if several:
        shown = ", ".join(f"{value!r} ({counts[value]} rows)" for value in several[:SHOWN])
        warnings.append(
            f"{label}: {len(several)} values seem to hold several labels, such as {shown}, and each becomes "
            "a class of its own; several labels for one row cannot be predicted yet. Give each row one, with "
            "`labels: {...}`, or list in `classes` what to keep"
        )
    return warnings


def _skeleton(value: str) -> str:
    """What is left of a value without case, blanks and invisible characters."""
    text = unicodedata.normalize("NFKC", value).casefold()
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c) != "Cf")
