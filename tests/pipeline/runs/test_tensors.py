from pathlib import Path

import pytest
import torch

from stillwave.pipeline.runs.tensors import load_tensors, save_tensors


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    tensors = {"a": shared.reshape(2, 3).T, "b": torch.tensor(3), "c": torch.zeros(0)}
    save_tensors(tmp_path / "x.safetensors", tensors, {"epoch": 3, "history": [{"loss": 0.5}]})
    loaded, metadata = load_tensors(tmp_path / "x.safetensors")
    assert metadata == {"epoch": 3, "history": [{"loss": 0.5}]}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("content", [None, b"", b"not tensors at all"])
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x.safetensors: .*train the run again"):
        load_tensors(path)
