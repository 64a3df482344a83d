"""Reading CTranslate2's files: every type of number, and files that are not whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from stillwave.pipeline.backbones.whisper.ctranslate2 import read_variables, read_whisper
from tests.pipeline.backbones.conftest import SMALL_WHISPER
from tests.pipeline.backbones.ctranslate2_files import whisper_variables, write_variables


@pytest.fixture(scope="module")
def model(folders: dict[str, Path]) -> Any:
    return transformers.WhisperModel.from_pretrained(folders["whisper"], dtype=torch.float32)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0), ("float16", 1e-3), ("int8", 1 / 254)])
def test_every_type_of_number(dtype: str, error: float, model: Any, tmp_path: Path) -> None:
    """Decoder and all; 8-bit integers to half a step of their row's scale."""
    variables = whisper_variables(model.state_dict(), heads=4, dtype=dtype)
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    write_variables(tmp_path / "model.bin", variables, aliases)
    sizes, state = read_whisper(tmp_path / "model.bin")
    assert {name: SMALL_WHISPER[name] for name in sizes if name in SMALL_WHISPER} == {
        name: value for name, value in sizes.items() if name in SMALL_WHISPER
    }
    assert sizes["num_mel_bins"] == 80
    expected = model.state_dict()
    assert set(state) == set(expected)
    for name, tensor in state.items():
        largest = (
            expected[name].abs().amax(-1, keepdim=True) if tensor.ndim == 2 else expected[name].abs().max()
        )
        assert bool(((tensor - expected[name]).abs() <= error * largest * 1.001).all()), name


def test_an_alias_is_the_variable_that_it_names(tmp_path: Path) -> None:
    write_variables(tmp_path / "a.bin", {"x": np.arange(6, dtype=np.int16).reshape(2, 3)}, {"y": "x"})
    found = read_variables(tmp_path / "a.bin")
    assert found["y"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_file_that_is_cut_off(folders: dict[str, Path], tmp_path: Path) -> None:
    whole = (folders["whisper-ct2"] / "model.bin").read_bytes()
    for size in (0, 3, 40, len(whole) // 2, len(whole) - 3):
        (tmp_path / "part.bin").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"part\.bin: not a Whisper model of CTranslate2, or"):
            read_variables(tmp_path / "part.bin")


def test_other_models_and_versions(tmp_path: Path) -> None:
    write_variables(tmp_path / "a.bin", {}, specification="TransformerSpec")
    with pytest.raises(ValueError, match="it holds a TransformerSpec, not a WhisperSpec"):
        read_variables(tmp_path / "a.bin")
    write_variables(tmp_path / "b.bin", {}, version=9)
    with pytest.raises(ValueError, match="version 9 of the format; 5 to 6 are read"):
        read_variables(tmp_path / "b.bin")
    write_variables(tmp_path / "c.bin", {"encoder/num_heads": np.array(4, np.int16)})
    with pytest.raises(ValueError, match=r"c\.bin: not a whole Whisper model: it has no"):
        read_whisper(tmp_path / "c.bin")
