from pathlib import Path

import pytest

from stillwave.pipeline.config.base import ConfigError
from stillwave.pipeline.config.named import SHIPPED, config_names, find_config


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two backbones of its own, one of them named like one of ours."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/backbones").mkdir(parents=True)
    for name in ("fbank", "mine"):
        (tmp_path / f"configs/backbones/{name}.yaml").write_text("kind: fbank\n")
    return tmp_path


def test_a_name_is_the_projects_own_before_ours(project: Path) -> None:
    assert find_config("backbones", "fbank") == Path("configs/backbones/fbank.yaml")
    assert find_config("backbones", "mine") == Path("configs/backbones/mine.yaml")
    assert find_config("backbones", "mbert") == SHIPPED / "backbones/mbert.yaml"
    assert find_config("recipes", "fbank_demo") == SHIPPED / "recipes/fbank_demo.yaml"
    assert find_config("recipes", "fbank_demo").is_file()


@pytest.mark.parametrize("path", ["./mine", "mine.yaml", "mine.yml", "backbones/fbank", "/nowhere/fbank"])
def test_a_path_is_a_path(path: str, project: Path) -> None:
    assert find_config("backbones", path) == Path(path)


def test_names_are_of_one_kind(project: Path) -> None:
    own = {"fbank", "mine"}
    assert set(config_names("backbones")) == {file.stem for file in SHIPPED.glob("backbones/*.yaml")} | own
    assert len(config_names("backbones")) == len(set(config_names("backbones")))
    assert config_names("analysis") == ["default"]
    with pytest.raises(ConfigError, match=r"^fbank: no config of this name in configs/corpora/"):
        find_config("corpora", "fbank")


def test_an_unknown_name_lists_what_there_is_the_likely_first(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"the names are emodb, .*, crema_d, .*; .* ending: emobd\.yaml$"):
        find_config("corpora", "emobd")
