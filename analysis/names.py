"""Names of classes and speakers for people: natural order, and shortening."""

import re
from collections.abc import Sequence

LONGEST = 30  # characters


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts s2 before s10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part) if part.isascii() and part.isdigit() else -1, part) for part in parts]


def shortened(name: str) -> str:
    """A name on one line of at most LONGEST characters: keeps its start and its end."""
    name = _on_one_line(name)
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[1 - half :]}"


def distinct(names: Sequence[str]) -> list[str]:
    """Each of several names `shortened`; ones that would become equal are cut around where they differ.

    Names that are still equal are numbered.
    """
    short = [shortened(name) for name in names]
    for look in {name for name in short if short.count(name) > 1}:
        same = [number for number, name in enumerate(short) if name == look]
        for number, name in zip(same, _around([_on_one_line(names[number]) for number in same]), strict=True):
            short[number] = name
    taken: set[str] = set()
    for number, name in enumerate(short):
        again = 1
        while short[number] in taken:
            again += 1
            short[number] = f"{name} ({again})"
        taken.add(short[number])
    return short


def _around(names: Sequence[str]) -> list[str]:
    """The part of each name that the others do not share, with as much around it as fits."""
    start = _shared(names)
    tail = _shared([name[start:][::-1] for name in names])
    found = []
    for name in names:
        end = len(name) - tail
        if (room := LONGEST - 2 - (end - start)) < 0:
            found.append(shortened(name[start:end]))
            continue
        low = max(0, min(start - room // 2, len(name) - (LONGEST - 2)))
        high = min(len(name), low + LONGEST - 2)
        found.append(f"{'…' if low else ''}{name[low:high]}{'…' if high < len(name) else ''}")
    return found


def _shared(names: Sequence[str]) -> int:
    """How many letters all names begin with."""
    alike = (len(set(letters)) == 1 for letters in zip(*names, strict=False))
    return next((number for number, same in enumerate(alike) if not same), min(map(len, names)))


def _on_one_line(name: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
