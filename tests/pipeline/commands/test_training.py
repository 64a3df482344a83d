from pathlib import Path

import pytest

from stillwave.pipeline.commands.training import _backbone_configs
from stillwave.pipeline.config.base import ConfigError, load_config
from stillwave.pipeline.config.named import find_config
from stillwave.pipeline.config.recipe import Recipe

RECIPE = load_config(find_config("recipes", "fbank_demo"), Recipe)


def write(folder: Path, deltas: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "fbank.yaml").write_text(f"kind: fbank\ndeltas: {deltas}\n")
    return folder


def test_where_the_backbones_of_a_recipe_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In --backbones; else beside the recipe's file; else in the working folder; else in Stillwave."""
    monkeypatch.chdir(tmp_path)
    theirs = "elsewhere/recipes/fbank_demo.yaml"

    def deltas(recipe: str, folder: Path | None = None) -> int:
        return int(_backbone_configs(recipe, RECIPE, folder)["fbank"].deltas)

    assert deltas("fbank_demo") == deltas(theirs) == 2
    write(tmp_path / "configs/backbones", 1)
    assert deltas("fbank_demo") == deltas(theirs) == 1
    write(tmp_path / "elsewhere/backbones", 0)
    assert (deltas("fbank_demo"), deltas(theirs)) == (1, 0)
    given = write(tmp_path / "given", 2)
    assert deltas("fbank_demo", given) == deltas(theirs, given) == 2
    with pytest.raises(ConfigError, match=r"empty/fbank\.yaml: no such config file"):
        deltas("fbank_demo", tmp_path / "empty")
