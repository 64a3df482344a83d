"""Classes that a config names by package.module:Name."""

from pathlib import Path

import pytest

from stillwave.pipeline.config.base import Config
from stillwave.pipeline.config.classes import imported


def test_a_class_is_found_by_its_name() -> None:
    assert imported("stillwave.pipeline.config.base:Config", "class") is Config


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("base.Config", "^`class` base.Config: write package.module:Name$"),
        (":Config", "^`class` :Config: write package.module:Name$"),
        ("no_such_package.base:Config", "No module named 'no_such_package'; install .* on PYTHONPATH$"),
        (
            "stillwave.pipeline.config.base:Nothing",
            r"the module stillwave\.pipeline.* has no Nothing$",
        ),
    ],
)
def test_a_wrong_name_says_what_to_do(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imported(path, "class")


def test_a_module_that_fails_by_itself_is_not_taken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        imported("broken_module:Name", "class")
