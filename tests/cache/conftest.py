"""Places where a store may lie."""

import uuid

import pytest


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """A local folder, a prefix in memory, a bucket: `f"{place}/a.zarr"` is a store in it."""
    if request.param == "folder":
        return str(request.getfixturevalue("tmp_path"))
    return str(request.getfixturevalue("bucket")) if request.param == "s3" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture(params=["memory", "s3"])
def remote(request: pytest.FixtureRequest) -> str:
    """The remote ones of `place`."""
    return str(request.getfixturevalue("bucket")) if request.param == "s3" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of seconds. S3 tells times in whole seconds: an age may be one second too high."""
    monkeypatch.setattr("stillwave.cache.locks.REFRESH_S", 0.2)
    monkeypatch.setattr("stillwave.cache.locks.EXPIRE_S", 2.0)
    monkeypatch.setattr("stillwave.cache.locks.SETTLE_S", 0.05)
