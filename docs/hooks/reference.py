"""The parts of the reference that are made from the code: commands, configs' fields, files in configs/."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from fields import pieces
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click

from stillwave.pipeline import backbones, config, corpora, transcribe
from stillwave.pipeline.cli import app
from stillwave.pipeline.config import heads, keywords
from stillwave.pipeline.config.base import Config
from stillwave.pipeline.config.classes import imported

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "stillwave.pipeline.corpora": "Corpora",
    "stillwave.pipeline.config.corpus": "Splits",
    "stillwave.pipeline.backbones": "Backbones",
    "stillwave.pipeline.config.views": "Views",
    "stillwave.pipeline.transcribe": "Transcribers",
    "stillwave.pipeline.config.recipe": "Recipes",
    "stillwave.pipeline.config.heads": "Heads",
    "stillwave.pipeline.config.train": "Training",
    "stillwave.pipeline.config.analysis": "Analysis",
}
SYMBOLS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "min_length": "at least {} of them"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page: fill in what is marked."""
    made = {"commands": command_reference, "configs": config_reference, "recipes": files_in_configs}
    for name, make in made.items():
        if (mark := f"<!-- {name} -->") in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def command_reference() -> str:
    """What `typer stillwave.pipeline.cli utils docs` prints, without its title."""
    command = typer.main.get_command(app)
    return get_docs_for_click(obj=command, ctx=typer.Context(command), name="stillwave").partition("\n")[2]


def config_classes() -> dict[str, list[type[Config]]]:
    """Every config class, by the section that it belongs to."""
    found: dict[str, list[type[Config]]] = {name: [] for name in SECTIONS}
    for module in (*_modules(config), *_modules(corpora), *_modules(backbones), *_modules(transcribe)):
        section = next((name for name in SECTIONS if module.__name__.startswith(name)), module.__name__)
        found.setdefault(section, [])
        found[section] += [
            keywords.config_of(kind, imported(kind.path, "class"), None) if hasattr(kind, "path") else kind
            for kind in vars(module).values()
            if inspect.isclass(kind) and issubclass(kind, Config) and kind.__module__ == module.__name__
        ]
    found[heads.__name__] += [
        keywords.config_of(heads.HeadConfig, imported(path, kind), kind) for kind, path in heads.HEADS.items()
    ]
    asides = (Config.__module__, keywords.__name__)
    return {section: kinds for section, kinds in found.items() if kinds and section not in asides}


def config_reference() -> str:
    """A heading and a table of fields for each config class."""
    parts = []
    for section, kinds in config_classes().items():
        parts += [f"## {SECTIONS.get(section, section)}", ""]
        for kind in kinds:
            parts += [*_describe(kind), ""]
    return "\n".join(parts)


def _describe(kind: type[Config]) -> Iterator[str]:
    yield f"### {kind.__name__}\n"
    said = pieces(inspect.getdoc(kind) or "")
    if "kind" in kind.model_fields:
        yield f"`kind: {get_args(kind.model_fields['kind'].annotation)[0]}`\n"
    yield "\n\n".join(piece.text for piece in said if not piece.names)
    parents = [base for base in kind.__bases__ if issubclass(base, Config) and base.model_fields]
    own = [name for name in inspect.get_annotations(kind) if name in kind.model_fields and name != "kind"]
    if parents:
        more = ", ".join(f"[{base.__name__}](#{base.__name__.lower()})" for base in parents)
        yield f"\n{'Also the' if own else 'The'} fields of {more}."
    if own:
        yield "\n| field | type | default | |\n|---|---|---|---|"
    for name in own:
        field = kind.model_fields[name]
        bounds = " ".join(filter(None, map(_bound, field.metadata)))
        wanted = ", ".join(filter(None, [_type(field.annotation), bounds]))
        yield f"| `{field.alias or name}` | {wanted} | {_default(field)} | {meaning(kind, name)} |"


def meaning(kind: type[Config], name: str) -> str:
    """What the docstrings of the class, its bases and the field's own type say of it."""
    for one in (one for one in kind.__mro__ if issubclass(one, Config)):
        for piece in pieces(inspect.getdoc(one) or ""):
            if (kind.model_fields[name].alias or name) in piece.names:
                return piece.text[:1].upper() + piece.text[1:].replace("|", "\\|")
    inner = [one for one in get_args(kind.model_fields[name].annotation) if inspect.isclass(one)]
    for one in [kind.model_fields[name].annotation, *inner]:
        if inspect.isclass(one) and issubclass(one, Config):
            return (inspect.getdoc(one) or "").partition("\n")[0]
    return ""


def _type(annotation: Any) -> str:
    """A type as a person writes it in YAML; configs link to their own table."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join(filter(None, [_type(arguments[0]), *map(_bound, arguments[1:])]))
    if origin is Literal:
        return " or ".join(f"`{_yaml(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(map(_type, arguments))
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}" if arguments else "list"
    if origin is dict:
        return f"{_type(arguments[0])}: {_type(arguments[1])}"
    if annotation is type(None):
        return "`null`"
    if inspect.isclass(annotation) and issubclass(annotation, Config):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return {str: "text", float: "number", int: "integer", bool: "`true` or `false`"}.get(annotation, "any")


def _bound(constraint: Any) -> str:
    for name, symbol in SYMBOLS.items():
        if (value := getattr(constraint, name, None)) is not None:
            return "not empty" if (name, value) == ("min_length", 1) else symbol.format(value)
    parts = getattr(constraint, "__metadata__", None) or getattr(constraint, "metadata", None) or ()
    return " ".join(filter(None, map(_bound, parts)))


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default_factory() if field.default is PydanticUndefined else field.default
    if isinstance(value, Config):
        return "its own defaults" if value == type(value).model_construct() else f"`{_yaml(value)}`"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    plain = value.model_dump(exclude_unset=True) if isinstance(value, Config) else value
    plain = list(plain) if isinstance(plain, tuple) else plain
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=1000, sort_keys=False)
    return text.removesuffix("...\n").strip()


def files_in_configs() -> str:
    """A table of the YAML files of each kind, with their first comments."""
    parts = []
    for folder in ("recipes", "backbones", "corpora", "transcribers"):
        parts += [f"## {folder.capitalize()}", "", "| file | |", "|---|---|"]
        for file in sorted((ROOT / "configs" / folder).glob("*.yaml")):
            parts.append(f"| `configs/{folder}/{file.name}` | {_comment(file)} |")
        parts.append("")
    return "\n".join(parts)


def _comment(file: Path) -> str:
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines).replace("|", "\\|")


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    """The modules below a package, in the order of their names."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)
