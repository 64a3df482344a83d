"""Configs by name: a project's own, in the working directory, or those shipped with Stillwave."""

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Literal

from stillwave.pipeline.config.base import ConfigError

Kind = Literal["analysis", "backbones", "corpora", "recipes", "transcribers"]
SHIPPED = Path(str(files("stillwave"))) / "configs"
OWN = Path("configs")  # in the working directory


def find_config(kind: Kind, name: str) -> Path:
    """The file for `name`: a path is returned as it is; otherwise a config of `kind` by its name.

    A name that has a slash or ends in .yaml or .yml is a path. Others are looked up in `configs/<kind>/` in
    the working directory, then in Stillwave. Raises ConfigError listing the known names.
    """
    if is_path(name):
        return Path(name)
    file = _named(kind).get(name)
    if file is None:
        names = config_names(kind)
        close = get_close_matches(name, names)
        raise ConfigError(
            f"{name}: no config of this name in {OWN / kind}/ or shipped with Stillwave; the names are "
            f"{', '.join([*close, *(other for other in names if other not in close)])}; "
            f"for a file, add the ending: {name}.yaml"
        )
    return file


def config_names(kind: Kind) -> list[str]:
    """The names that find_config knows here."""
    return sorted(_named(kind))


def is_path(name: str) -> bool:
    """Whether `name` is a path, not a config's name."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def _named(kind: Kind) -> dict[str, Path]:
    folders = (SHIPPED / kind, OWN / kind)  # the later one wins
    return {file.stem: file for folder in folders for file in folder.glob("*.yaml")}
