"""A real browser for the pages that analysis/ writes, folders to write them of, and a machine of one font."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillwave.pipeline.evaluate import fonts
from tests.analysis.browser import start_chromium
from tests.analysis.folders import rows_of, write_analysis

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A selenium driver of headless Chromium, with a profile of its own; skips where there is none."""
    browsers = [path for path in map(shutil.which, BROWSERS) if path is not None]
    driver = shutil.which("chromedriver")
    if not browsers or driver is None:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    profile = tmp_path_factory.mktemp("chromium")
    with warnings.catch_warnings():
        # selenium leaves the pipes of its driver to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        made = start_chromium(browsers[0], driver, profile)
        yield made
        made.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of 60 rows, three labels and four speakers, and two embeddings of them."""
    root = tmp_path_factory.mktemp("explorer")
    rows = rows_of(root)
    write_analysis(root / "one", rows, notes=["3 rows have no label"])
    write_analysis(root / "two", rows.iloc[::-1].reset_index(drop=True), seed=1)
    return root


@pytest.fixture
def one_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No font but matplotlib's own, which lacks Chinese letters."""
    monkeypatch.setattr(fonts, "FALLBACKS", ())
    fonts.fonts.cache_clear()
    yield
    fonts.fonts.cache_clear()
