"""AST against transformers' own extractor and model, stitching, and where its weights come from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.ast import Ast, AstConfig

# transformers says so of the fourth of its 128 filters, which the published model was trained with.
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values:UserWarning")

SAMPLES_PER_STEP, STEPS, BANDS = 1600, 12, 12  # of the small model; windows of 128 mel frames


def configure(folder: Path | str, **changes: Any) -> AstConfig:
    return AstConfig(kind="ast", weights=str(folder), **changes)


def build(folder: Path | str, **changes: Any) -> Ast:
    backbone = build_backbone(configure(folder, **changes))
    assert isinstance(backbone, Ast)
    return backbone


def theirs(folder: Path, item: Tensor) -> tuple[Tensor, list[Tensor]]:
    """transformers' last state and its list of states for one clip, each (steps, bands, size)."""
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    extractor = transformers.ASTFeatureExtractor(**settings, max_length=128)
    inputs = extractor(item.numpy(), sampling_rate=16000, return_tensors="pt")
    model = transformers.ASTModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)

    def patches(tokens: Tensor) -> Tensor:  # after [CLS] and distillation: band by band, steps in order
        return tokens[0, 2:].reshape(BANDS, STEPS, -1).transpose(0, 1)

    return patches(output.last_hidden_state), [patches(state) for state in output.hidden_states]


@pytest.mark.parametrize("num_samples", [400, 2800, 5000, 16000, 400 + 127 * 160])
def test_mel_frames_equal_transformers(num_samples: int, waveform: Callable[[int], Tensor]) -> None:
    """At the published model's own geometry and moments, padding included."""
    backbone = build("random", size="tiny")
    item = waveform(num_samples)
    extractor = transformers.ASTFeatureExtractor()
    expected = extractor(item.numpy(), sampling_rate=16000, return_tensors="pt")["input_values"]
    (ours,) = backbone._windows(backbone.mel(item[None], torch.tensor([num_samples])).values, 1)
    assert ours.shape == expected.shape == (1, 1024, 128)
    assert float((ours - expected).abs().max()) < 1e-4
    assert float(ours[0, -1, 0]) == pytest.approx(4.2677393 / (2 * 4.5689974))


@pytest.mark.parametrize("num_samples", [400, 2800, 9000, 400 + 127 * 160])
def test_one_window_equals_transformers(
    num_samples: int,
    folders: dict[str, Path],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    item = waveform(num_samples)
    last, states = theirs(folders["ast"], item)
    mean = alone(build(folders["ast"]), item)
    every = alone(build(folders["ast"], layers="all", frequency="concat"), item)
    count = len(mean)
    assert relative_error(mean, last[:count].mean(1)) <= 1e-4  # their mel frames are float64
    assert every.shape == (count, 4, BANDS * 48)
    assert relative_error(every[:, 3], last[:count].flatten(1)) <= 1e-4
    for index, state in enumerate(states[:-1]):  # theirs lacks the final norm, ours has it
        assert relative_error(every[:, index], state[:count].flatten(1)) <= 1e-4


def test_windows_are_stitched_where_they_meet(
    folders: dict[str, Path],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    """Step 12 * w + k is step k of transformers' frames for the audio from 1.2 s * w on."""
    item = waveform(4 * 16000 + 77)
    frames = alone(build(folders["ast"]), item)
    assert len(frames) == (398 - 16) // 10 + 1 == 39
    for window in range(4):
        start = window * STEPS * SAMPLES_PER_STEP
        # 128 mel frames see 127 * 160 + 400 samples: what transformers would cut to, were it given more
        expected, _ = theirs(folders["ast"], item[start : start + 127 * 160 + 400])
        part = frames[window * STEPS : (window + 1) * STEPS]
        assert relative_error(part, expected.mean(1)[: len(part)]) <= 1e-4


def test_a_click_moves_the_steps_that_see_it(
    folders: dict[str, Path], waveform: Callable[[int], Tensor], alone: Callable[..., Tensor]
) -> None:
    """Before attention, a step sees 2800 samples around its time, whichever window it is in."""
    backbone = build(folders["ast"], layers=[0])
    item = waveform(64000)
    times = backbone.frame_times(backbone.num_frames(64000))
    before = alone(backbone, item)
    for step in (0, 11, 12, 13, 24, 38):
        click = item.clone()
        click[round(16000 * float(times[step]))] += 0.5
        moved = (alone(backbone, click) - before).abs().amax(1) > 1e-3
        reach = (times - times[step]).abs() * 16000 < 1400
        assert torch.equal(moved, reach)
        assert int(moved.sum()) == 1  # patches overlap by 6 mel frames, so a centre is in one only


@pytest.mark.parametrize(
    ("num_samples", "count"),
    [(399, 0), (400, 1), (2800, 1), (4399, 1), (4400, 2), (20399, 11), (20400, 12), (21999, 12), (22000, 13)],
)
def test_whole_patches_count(
    num_samples: int,
    count: int,
    folders: dict[str, Path],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
) -> None:
    backbone = build(folders["ast"])
    assert backbone.num_frames(num_samples) == count
    if count:
        assert len(alone(backbone, waveform(num_samples))) == count


def test_published_geometry() -> None:
    backbone = build("random", size="tiny")
    assert (backbone.num_steps, backbone.num_bands, backbone.embeddings.position_embeddings.shape[1]) == (
        101, 12, 1214,
    )  # fmt: skip
    assert backbone.frame_times(2).tolist() == [0.0875, 0.1875]
    assert backbone.num_frames(10 * 16000) == 99
    assert backbone.num_frames(60 * 16000) == 599


def test_more_windows_than_fit_at_once(
    folders: dict[str, Path],
    pad: Callable[..., Any],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    backbone = build(folders["ast"])
    items = [waveform(length) for length in (200_000, 400, 90_000, 23_000)]  # 11, 1, 5 and 2 windows
    values, lengths = backbone(*pad(items))
    assert lengths.tolist() == [124, 1, 55, 13]
    for row, length, item in zip(values, lengths.tolist(), items, strict=True):
        assert relative_error(row[:length], alone(backbone, item)) <= 1e-5


def test_too_short_an_item_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="an item of 399 samples is too short for one frame"):
        build(folders["ast"])(torch.zeros(2, 500), torch.tensor([500, 399]))


def test_the_preprocessor_is_part_of_the_model(
    folders: dict[str, Path], tmp_path: Path, waveform: Callable[[int], Tensor], alone: Callable[..., Tensor]
) -> None:
    original = build(folders["ast"])
    for name, change in {"mean": {"mean": -4.0}, "std": {"std": 4.0}, "raw": {"do_normalize": False}}.items():
        folder = shutil.copytree(folders["ast"], tmp_path / name)
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps(settings | change))
        changed = build(folder)
        assert changed.fingerprint() != original.fingerprint()
        assert not torch.allclose(alone(changed, waveform(3000)), alone(original, waveform(3000)), atol=1e-3)


def test_published_checkpoints_load_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    """MIT/ast-finetuned-audioset-10-10-0.4593 is one: former names, a prefix and a classifier."""
    folder = shutil.copytree(folders["ast"], tmp_path / "published")
    former = {
        "layers.": "encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    weights = {"classifier.dense.weight": torch.zeros(3, 48)}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for new, old in former.items():
            name = name.replace(new, old)
        weights[f"audio_spectrogram_transformer.{name}"] = tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert build(folder).fingerprint() == build(folders["ast"]).fingerprint()
