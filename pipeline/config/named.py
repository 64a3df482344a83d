"""Configs by name: a project's own in the working folder, else those that ship with Stillwave."""

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Literal

from stillwave.pipeline.config.base import ConfigError

Kind = Literal["analysis", "backbones", "corpora", "recipes"]
SHIPPED = Path(str(files("stillwave"))) / "configs"
OWN = Path("configs")  # of the working folder


def find_config(kind: Kind, name: str) -> Path:
    """The file that `name` means, for load_config: a path as it is, else a config of `kind` by its name.

    What has a slash or ends in .yaml or .yml is a path. A name is looked up in `configs/<kind>/` of the
    working folder, then among those that ship with Stillwave. Raises ConfigError listing the names there are.
    """
    if is_path(name):
        return Path(name)
    file = _named(kind).get(name)
    if file is None:
        names = config_names(kind)
        close = get_close_matches(name, names)
        raise ConfigError(
            f"{name}: no config of this name in {OWN / kind}/ or shipped with Stillwave; there are "
            f"{', '.join([*close, *(other for other in names if other not in close)])}; "
            f"a file is named with its ending: {name}.yaml"
        )
    return file


def config_names(kind: Kind) -> list[str]:
    """The names that find_config knows here."""
    return sorted(_named(kind))


def is_path(name: str) -> bool:
    """Whether `name` is a path, and not a config's name."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def _named(kind: Kind) -> dict[str, Path]:
    folders = (SHIPPED / kind, OWN / kind)  # the later one counts
    return {file.stem: file for folder in folders for file in folder.glob("*.yaml")}
