"""YAML to a typed, frozen object, with `-S key=value` overrides and errors that name file and field."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from unicodedata import normalize

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError


class Config(BaseModel):
    """Base of every config: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_text(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | date):
        raise ValueError(f"YAML reads this as {value!r}, not as text; put it in quotes")
    return normalize("NFC", value) if isinstance(value, str) else value


# A label, or another value of a corpus.
Text = Annotated[str, BeforeValidator(_as_text)]


class ConfigError(ValueError):
    """A config file or override that cannot be used; the message names file, field, value and remedy."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML keeps the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in first:
                problem = f"the key {key.value!r} is given twice, first in line {first[key.value]}; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            first[str(key.value)] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """The contents of a YAML text. Raises yaml.YAMLError, also for a key that is given twice."""
    return yaml.load(text, _Loader)


def load_config(path: str | Path, kind: Any, overrides: Sequence[str] = ()) -> Any:
    """Read `path` (YAML), apply `overrides` ("a.b=value", values parsed as YAML) and validate as `kind`.

    `kind` is a Config class or a discriminated union of them. Raises ConfigError.
    """
    return parse_config(read_config(path, overrides), kind, source=str(path), trusted=True)


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """`path` (YAML) with `overrides`, not yet validated. Raises ConfigError."""
    path = Path(path)
    try:
        raw = load_yaml(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such config file; give its path, or the name of a config, such as fbank"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of field: value, got {type(raw).__name__}")
    return apply_overrides(raw, overrides)


def parse_config(raw: Mapping[str, Any], kind: Any, source: str, *, trusted: bool = False) -> Any:
    """Validate `raw` as `kind` (see load_config); `source` is its name in errors.

    trusted: whether the user wrote it, or trusts it. Other configs, such as those that came with a run,
    may name no classes outside the package: importing one runs its code.
    """
    try:
        return TypeAdapter(kind).validate_python(raw, context={"trusted": trusted})
    except ValidationError as error:
        lines = [_describe(problem, raw) for problem in error.errors()]
        raise ConfigError(f"{source}: " + f"\n{source}: ".join(lines)) from None


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `raw` with each "a.b=value" set; missing mappings are created."""
    result = deepcopy(dict(raw))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"-S {override}: expected key=value, for example -S train.epochs=5")
        *parents, last = key.strip().split(".")
        node = result
        for parent in parents:
            if node.get(parent) is None:
                node[parent] = {}
            node = node[parent]
            if not isinstance(node, dict):
                raise ConfigError(f"-S {override}: {parent!r} is a value, not a group of fields")
        try:
            node[last] = load_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"-S {override}: value is not valid YAML: {error}") from None
    return result


def overrides_of(overrides: Sequence[str], group: str, groups: Sequence[str]) -> list[str]:
    """The "group.a.b=value" overrides of `group`, as "a.b=value"; an unknown group is an error."""
    for override in overrides:
        if not any(override.startswith(f"{name}.") for name in groups):
            raise ConfigError(
                f"-S {override}: say which config it is for: {', '.join(f'{g}.' for g in groups)}"
            )
    return [text.removeprefix(f"{group}.") for text in overrides if text.startswith(f"{group}.")]


def _describe(problem: Any, raw: Any) -> str:
    field = ".".join(_path(problem["loc"], raw))
    if not field:
        return str(problem["msg"])
    value = "" if problem["type"] == "missing" else f" (got {problem['input']!r})"
    return f"`{field}`: {problem['msg']}{value}"


def _path(location: Sequence[Any], raw: Any) -> list[str]:
    """The field as written in YAML, without the kinds that pydantic adds to its path."""
    path = []
    for part in location:
        if isinstance(raw, Mapping) and part not in raw and raw.get("kind") == part:
            continue
        raw = raw.get(part) if isinstance(raw, Mapping) else None
        path.append(str(part))
    return path
