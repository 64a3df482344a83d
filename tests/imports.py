"""Imports between our modules, read from their source, those within functions included."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from stillwave import _PLACES as PLACES

ROOT = Path(__file__).parents[1]
TOPS = ("analysis", "cache", "heads", "models", "pipeline")


class Import(NamedTuple):
    """lazy: within a function, or for type checkers alone."""

    importer: str
    imported: str
    lazy: bool


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file, of all that is under `stillwave`."""
    files = [path for top in TOPS for path in (root / top).rglob("*.py")]
    files += (root / "src" / "stillwave").glob("*.py")
    found = {}
    for path in files:
        parts = path.relative_to(root).with_suffix("").parts
        parts = ("stillwave", *(parts[2:] if parts[0] == "src" else parts))
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """What a module imports of `known`; of a package's names, the module that each is."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            inside = inside or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
            if isinstance(child, ast.Import):
                targets = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                module = _absolute(child, name, path)
                places = PLACES if module == "stillwave" else {}
                parts = [f"{module}.{places.get(alias.name, alias.name)}" for alias in child.names]
                targets = [part if part in known else module for part in parts]
            else:
                yield from visit(child, inside)
                continue
            yield from (Import(name, target, lazy) for target in targets if target in known)

    yield from visit(ast.parse(path.read_text()), False)


def _absolute(node: ast.ImportFrom, name: str, path: Path) -> str:
    """The module that a relative import names."""
    if not node.level:
        return node.module or ""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def all_imports(root: Path = ROOT) -> list[Import]:
    known = modules(root)
    return [found for name, path in known.items() for found in imports_of(name, path, known)]


@cache
def files_imported_by(entry: str) -> set[str]:
    """Paths, from the root, of `entry` and all that it imports, directly or not."""
    known = modules()
    names = {path.relative_to(ROOT).as_posix(): name for name, path in known.items()}
    paths = {name: path for path, name in names.items()}
    edges: dict[str, set[str]] = {}
    for importer, imported, _ in all_imports():
        edges.setdefault(importer, set()).add(imported)
    seen, waiting = set[str](), [names[entry]]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += edges.get(name, ())
    return {paths[name] for name in seen}
