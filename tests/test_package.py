"""`import stillwave`: its names, and that it loads nothing until they are used."""

import subprocess
import sys

import pytest

import stillwave

LOADED = """
import sys
before = set(sys.modules)
import stillwave
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


@pytest.mark.parametrize("name", stillwave.__all__)
def test_every_name_is_there_and_listed(name: str) -> None:
    assert getattr(stillwave, name) is not None
    assert name in dir(stillwave)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'stillwave' has no attribute 'embeddings'"):
        stillwave.embeddings  # noqa: B018 - the attribute is what is tested


def test_importing_it_loads_the_standard_library_alone() -> None:
    shown = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout
    assert set(shown.split()) - sys.stdlib_module_names == {"stillwave"}
