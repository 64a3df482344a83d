"""HEAR modules as backbones: how their frames are counted, told apart and refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.fbank import FbankConfig
from stillwave.pipeline.backbones.hear import Hear, HearConfig
from tests.pipeline.backbones import hear_mel

MEL = "tests.pipeline.backbones.hear_mel"
FBANK = Path(__file__).parents[3] / "configs" / "backbones" / "fbank.yaml"

# What a module consists of, for those that a test breaks in one place.
SOURCE = """
import torch

class Model(torch.nn.Module):
    sample_rate, timestamp_embedding_size, scene_embedding_size = 16000, 2, 2

def load_model(path=""):
    return Model()

def get_timestamp_embeddings(audio, model):
    starts = torch.arange(0, audio.shape[1] - 799, 800)
    return audio[:, starts][..., None].repeat(1, 1, 2), (starts / 16 + 25).expand(len(audio), -1)
"""


def build(module: str, **changes: Any) -> Hear:
    backbone = build_backbone(HearConfig(kind="hear", module=module, **changes))
    assert isinstance(backbone, Hear)
    return backbone


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`write(name, old, new)`: SOURCE with one part replaced, as a module to import under that name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, old: str = "", new: str = "") -> str:
        assert old in SOURCE
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(SOURCE.replace(old, new) if old else SOURCE)
        return name

    return write


def test_frames_are_the_modules_own(waveform: Callable[[int], Tensor], alone: Callable[..., Tensor]) -> None:
    ours = build_backbone(FbankConfig(kind="fbank"))
    through_hear = build("stillwave.pipeline.backbones.hear_api", model_file=str(FBANK))
    assert through_hear.dim == 240
    assert torch.equal(alone(through_hear, waveform(9000)), alone(ours, waveform(9000)))
    assert [through_hear.num_frames(n) for n in range(400, 5000)] == [
        ours.num_frames(n) for n in range(400, 5000)
    ]
    torch.testing.assert_close(through_hear.frame_times(99), ours.frame_times(99), atol=1e-6, rtol=1e-6)


def test_counts_are_learnt_where_they_are_regular() -> None:
    backbone = build(MEL)
    assert backbone.regular
    tried = len(backbone.counts)
    assert [backbone.num_frames(n) for n in (512, 513, 800, 801, 1600, 1601, 16000, 16001, 10**7)] == [
        0, 1, 1, 2, 2, 3, 20, 21, 12500,
    ]  # fmt: skip
    assert len(backbone.counts) == tried  # no run for any of these


def test_counts_are_tried_where_they_are_not(
    waveform: Callable[[int], Tensor], pad: Callable[..., Any]
) -> None:
    """50 ms are 1102.5 samples at 22050 Hz: 1102 and 1103 in turn."""
    backbone = build(MEL, model_file="22050")
    assert not backbone.regular
    for count, step in enumerate([1103, 2206, 3308, 4411, 5513, 6616], start=2):
        assert (backbone.num_frames(step - 1), backbone.num_frames(step)) == (count - 1, count)
    assert backbone.num_frames(100 * 22050) == 2000
    assert backbone.hop_length == pytest.approx(1102.5)
    values, lengths = backbone(*pad([waveform(5000), waveform(2000)]))
    assert lengths.tolist() == [5, 2]
    assert values.shape == (2, 5, 12)


def test_items_are_kept_apart_unless_told(
    waveform: Callable[[int], Tensor], pad: Callable[..., Any], alone: Callable[..., Tensor]
) -> None:
    items = [waveform(3000), 9 * waveform(3000), waveform(4000)]
    one_by_one, together = build(MEL), build(MEL, max_batch=2)
    expected = [alone(one_by_one, item) for item in items]
    apart, _ = one_by_one(*pad(items))
    mixed, _ = together(*pad(items))
    assert all(torch.equal(row[: len(e)], e) for row, e in zip(apart, expected, strict=True))
    assert not torch.allclose(mixed[0, :4], expected[0], atol=1e-2)  # this module mixes those it is given
    torch.testing.assert_close(mixed[2], expected[2])  # the only one of its length


def test_weights_that_a_module_draws_are_the_same_each_time() -> None:
    before = torch.get_rng_state()
    first, second = build(MEL), build(MEL)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.model.linear.weight, second.model.linear.weight)
    assert isinstance(first.model, hear_mel.Spectra)


def test_the_fingerprint_follows_code_weights_and_file(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = build(write("hear_a")).fingerprint()
    commented = build(write("hear_b", "import torch", "import torch  # changed")).fingerprint()
    assert original["preprocessing"]["source"] != commented["preprocessing"]["source"]
    assert original["weights"] == commented["weights"]

    (tmp_path / "model.bin").write_bytes(b"one")
    path = str(tmp_path / "model.bin")
    one = build("hear_a", model_file=path).fingerprint()
    (tmp_path / "model.bin").rename(tmp_path / "moved.bin")
    assert build("hear_a", model_file=str(tmp_path / "moved.bin")).fingerprint() == one
    (tmp_path / "model.bin").write_bytes(b"two")
    two = build("hear_a", model_file=path).fingerprint()
    assert len({one["model_file"], two["model_file"], original["model_file"]}) == 3

    monkeypatch.setitem(sys.modules, "torch.hear_of_ours", hear_mel)  # as if torch's wheel had it
    mel = build(MEL)
    before = mel.fingerprint()
    mel.model.linear.bias[0] += 1
    assert mel.fingerprint()["weights"] != before["weights"]
    packages = build("torch.hear_of_ours").fingerprint()["preprocessing"]["packages"]
    assert packages == {"torch": torch.__version__}


def test_a_model_that_is_no_torch_module_is_hashed_by_its_file(write: Callable[..., str]) -> None:
    name = write("hear_plain", "class Model(torch.nn.Module)", "class Model")
    assert build(name).fingerprint()["weights"] is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "def load_model",
            "def load",
            "`module` hear_broken: has no load_model, so it is not a HEAR module",
        ),
        ("return audio", "return 0, 0 #", "it returns int, not torch.Tensor"),
        ("1, 1, 2)", "1, 1, 3)", r"embeddings of shape \(1, 80, 3\), but .* say \(1, 80, 2\)"),
        ("799, 800)", "799, 32000)", r"2 timestamps in 4 s; frames need at least 4"),
    ],
    ids=["functions", "tensors", "size", "sparse"],
)
def test_what_is_not_a_hear_module_is_refused(
    old: str, new: str, message: str, write: Callable[..., str]
) -> None:
    with pytest.raises(ValueError, match=message):
        build(write("hear_broken", old, new))


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="`module` no_such_module: cannot be imported: No module named"):
        build("no_such_module")


def test_a_count_other_than_planned_is_refused(
    write: Callable[..., str], waveform: Callable[[int], Tensor]
) -> None:
    """A module that leaves the last frame out when there is sound in it."""
    name = write("hear_content", "799, 800)", "799, 800)[: None if audio[0, -1] == 0 else -1]")
    backbone = build(name)
    assert backbone.num_frames(2400) == 3
    with pytest.raises(
        ValueError, match=r"hear_content: 2 timestamps for an item of 2400 samples; 3 were planned"
    ):
        backbone(waveform(2400)[None], torch.tensor([2400]))
