"""A page of HTML, parsed."""

from collections.abc import Iterator
from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would make of a page: its elements, their text, its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._text: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._cell: list[str] | None = None
        self._rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th", "caption"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if self._cell is not None and tag in ("td", "th", "caption"):
            if tag == "caption":
                self.tables[_shown(self._cell)] = self._rows
            else:
                self._rows[-1].append(_shown(self._cell))
            self._cell = None

    def handle_data(self, data: str) -> None:
        self._text.append(data)
        if self._cell is not None:
            self._cell.append(data)

    @property
    def text(self) -> str:
        return _shown(self._text)

    def attributes(self, name: str) -> Iterator[str]:
        return (value for _, found in self.elements if (value := found.get(name)) is not None)


def _shown(parts: list[str]) -> str:
    """Text with its white space as a browser shows it."""
    return " ".join("".join(parts).split())
