"""Fixtures that every test may use."""

import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from stillwave.pipeline.corpora.manifest import read_manifest
from tests.fakes import write_speech

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that tests start; see one_thread
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which matrix products on a GPU may vary
LONGEST = (
    "test_dvc.py", "test_docs.py", "test_notebooks.py", "test_export.py", "test_finetune.py",
    "test_contract.py", "test_bare_machine.py", "test_extract_remote.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, for parallel processes to end together."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """A real S3 server on loopback, named by the environment; the environment that a child process needs."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else every request is in every failure's report
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment
    server.stop()


@pytest.fixture
def bucket(s3_server: dict[str, str]) -> str:
    """The URL of an empty S3 bucket."""
    import fsspec

    url = f"s3://{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(url)
    return url
