"""Docstrings as this project writes them: prose, then `name: text`. As an extension of griffe: as lists."""

import re
from typing import Any, NamedTuple

from griffe import Extension

_NAME = r"[a-z_]\w*(?: \([^)]*\))?"
_ENTRY = re.compile(rf"(?:^|(?<=\. ))({_NAME}(?:(?:, | and | x ){_NAME})*): (?=\S)")


class Piece(NamedTuple):
    """A paragraph, or what is said of the fields that are named."""

    names: tuple[str, ...]
    text: str


def pieces(docstring: str) -> list[Piece]:
    """The paragraphs and entries of a docstring, in its order, each of them one line.

    An entry begins a line, or follows another one's full stop. Its further lines are indented, or continue
    an unfinished sentence.
    """
    found: list[Piece] = []
    for line in _logical_lines(docstring):
        if not _ENTRY.match(line):
            found.append(Piece((), line))
            continue
        starts = list(_ENTRY.finditer(line))
        ends = [*(match.start() for match in starts[1:]), len(line)]
        for match, end in zip(starts, ends, strict=True):
            names = tuple(re.findall(r"\b(?!and\b|x\b)[a-z_]\w*", re.sub(r"\([^)]*\)", "", match[1])))
            found.append(Piece(names, line[match.end() : end].strip()))
    return found


def _logical_lines(docstring: str) -> list[str]:
    """Lines with those that continue them; a blank line and the beginning of an entry end a paragraph."""
    lines: list[str] = []
    going_on = in_entry = False
    for line in docstring.splitlines():
        text = line.strip()
        begins = bool(_ENTRY.match(line))
        belongs = not in_entry or line.startswith(" ") or not lines[-1].endswith(".")
        if text and going_on and not begins and belongs:
            lines[-1] += f" {text}"
        elif text:
            lines.append(text)
            in_entry = begins
        going_on = bool(text)
    return lines


def as_markdown(docstring: str) -> str:
    """The docstring with its entries as list items."""
    lines: list[str] = []
    in_list = False
    for names, text in pieces(docstring):
        if not names:
            lines += ["", text]
        else:
            lines += [] if in_list else [""]
            lines.append(f"- {', '.join(f'`{name}`' for name in names)}: {text}")
        in_list = bool(names)
    return "\n".join(lines).strip()


class Lists(Extension):
    """Entries of every docstring become items of a list; blocks of code stay as they are."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring and "```" not in obj.docstring.value and "\n    " not in _first_paragraph(obj):
            obj.docstring.value = as_markdown(obj.docstring.value)


def _first_paragraph(obj: Any) -> str:
    return str(obj.docstring.value).partition("\n\n")[0]
