"""ONNX graphs as a backbone, against onnxruntime called by hand, and graphs that do not fit their config."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.onnx import Onnx
from tests.pipeline.backbones.onnx_files import write_encoder
from tests.pipeline.backbones.variants import BANDS, WINDOW


def run(file: Path, values: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: values})[0]
    return found


@pytest.mark.parametrize("silence", [0, 280])
def test_windows_equal_onnxruntime_by_hand(
    silence: int, graphs: Path, configure: Callable[..., Any], waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
) -> None:  # fmt: skip
    item = waveform(9000)
    mels = 0.5 * run(graphs / "front.onnx", np.pad(item.numpy(), silence)[None]).reshape(-1, BANDS) + 1
    windows = [mels[start : start + WINDOW] for start in range(0, len(mels) - WINDOW + 1, 3)]
    expected = run(graphs / "window.onnx", np.stack(windows)[..., None].astype(np.float32)).reshape(-1, 16)
    found = alone(build_backbone(configure("onnx-windows", pad=silence)), item)
    assert float(np.abs(found.numpy() - expected).max()) < 1e-6


def test_clips_equal_onnxruntime_by_hand(
    graphs: Path,
    configure: Callable[..., Any],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
) -> None:
    item = waveform(9000)
    expected = run(graphs / "clip.onnx", 4 * item.numpy()[None])[0]
    found = alone(build_backbone(configure("onnx-clip")), item)
    assert float(np.abs(found.numpy() - expected).max()) < 1e-6


def test_padding_by_half_a_window_centres_the_first_frame_on_the_start(configure: Callable[..., Any]) -> None:
    backbone = build_backbone(configure("onnx-windows-padded"))
    assert backbone.frame_times(3).tolist() == [0.0, 0.03, 0.06]
    assert [backbone.num_frames(n) for n in (0, 1, 479, 480, 481)] == [0, 1, 1, 2, 2]


def test_a_graph_that_mixes_windows_gets_them_one_by_one(
    configure: Callable[..., Any], tmp_path: Path, waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor], pad: Callable[..., Any],
) -> None:  # fmt: skip
    write_encoder(tmp_path / "mixes.onnx", mixes=True)
    backbone = build_backbone(configure("onnx-windows", graph=str(tmp_path / "mixes.onnx")))
    assert isinstance(backbone, Onnx)
    assert backbone.at_once == 1
    items = [waveform(3000), 100 * waveform(9000)]
    values, lengths = backbone(*pad(items))
    for row, length, item in zip(values, lengths, items, strict=True):
        assert torch.equal(row[:length], alone(backbone, item))


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("onnx-windows", {"front_hop": 200}, "`front` .* samples give .* frames; of front_window 400 and"),
        ("onnx-windows", {"front_window": 300}, "`front` .*: 460 samples give 1 frames; .* would be 2"),
        ("onnx-windows", {"window": 3}, r"`graph` .*: its input is \['windows', 2, 8, 1\]"),
        ("onnx-windows", {"front": None, "window": 560}, r"`graph` .*: its input is .* and a window of 560"),
        ("onnx-clip", {"hop": 300}, "`graph` .* frames; of window 400 and hop 300 they would be"),
        ("onnx-clip", {"sees": "window", "window": 720}, "wanted is one frame for each: set `sees: clip`"),
        ("onnx-clip", {"graph": "none.onnx"}, "`graph` .*none.onnx: there is no such file"),
        ("onnx-clip", {"graph": "package:nopackage/a.onnx"}, "no package nopackage is installed; shipped"),
        ("onnx-clip", {"graph": "package:onnx/none.onnx"}, "the installed onnx has no none.onnx"),
        ("onnx-windows", {"sha256": "abc"}, "`graph` .*: the sha256 of window.onnx is .*, not abc"),
        ("onnx-windows", {"front_sha256": "abc"}, "`front` .*: the sha256 of front.onnx is .*, not abc"),
    ],
)
def test_graphs_that_do_not_fit_the_config(
    variant: str, changes: dict[str, Any], message: str, configure: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(configure(variant, **changes))


def test_what_is_no_graph(configure: Callable[..., Any], tmp_path: Path, graphs: Path) -> None:
    (tmp_path / "a.onnx").write_bytes((graphs / "front.onnx").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"a\.onnx: not a whole ONNX model"):
        build_backbone(configure("onnx-clip", graph=str(tmp_path / "a.onnx")))


def test_tensors_in_another_file(
    configure: Callable[..., Any],
    tmp_path: Path,
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
) -> None:
    """They are read from the graph's own folder and no other, and they count in the fingerprint."""
    write_encoder(tmp_path / "graph.onnx", external="weights.bin")
    backbone = build_backbone(configure("onnx-windows", graph=str(tmp_path / "graph.onnx")))
    item = waveform(3000)
    assert torch.equal(alone(backbone, item), alone(build_backbone(configure("onnx-windows")), item))
    before = backbone.fingerprint()
    raw = bytearray((tmp_path / "weights.bin").read_bytes())
    raw[1000] ^= 1
    (tmp_path / "weights.bin").write_bytes(raw)
    after = build_backbone(configure("onnx-windows", graph=str(tmp_path / "graph.onnx"))).fingerprint()
    assert before["weights"]["front"] == after["weights"]["front"]
    assert before["weights"]["graph"] != after["weights"]["graph"]
    inner = tmp_path / "inner"
    inner.mkdir()
    content = (tmp_path / "graph.onnx").read_bytes()
    assert content.count(b"\x0bweights.bin") == len(content.split(b"weights.bin")) - 1 >= 1
    (inner / "graph.onnx").write_bytes(content.replace(b"weights.bin", b"../weig.bin"))
    shutil.copy(tmp_path / "weights.bin", tmp_path / "weig.bin")
    with pytest.raises(ValueError, match=r"graph\.onnx: not a whole ONNX model: "):
        build_backbone(configure("onnx-windows", graph=str(inner / "graph.onnx")))
    (inner / "graph.onnx").write_bytes(content)
    (inner / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ValueError, match=r"graph\.onnx: not a whole ONNX model: "):
        build_backbone(configure("onnx-windows", graph=str(inner / "graph.onnx")))
