"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from pipeline.manifest import read_manifest
from tests.fakes import write_speech

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for the network


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose time to more threads, ten times over on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus of two classes and six speakers, prepared: its folder, with manifest.parquet in it."""
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture
def manifest(speech: Path) -> pd.DataFrame:
    return read_manifest(speech / "manifest.parquet")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real corpora; tests that ask for it carry the marker `corpora`."""
    folder = os.environ.get("STILLWAVE_CORPORA")
    if not folder:
        pytest.skip("needs real speech: set STILLWAVE_CORPORA to the folder that holds emodb/ and fsdd/")
    return Path(folder)
