"""wav2vec 2.0 against transformers' own model, layer selection, and where weights come from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from stillwave.pipeline.backbones import build_backbone, wav2vec2
from stillwave.pipeline.backbones.wav2vec2 import Wav2Vec2Config

KINDS = ("group", "layer")


def configure(folder: Path | str, **changes: Any) -> Wav2Vec2Config:
    return Wav2Vec2Config(kind="wav2vec2", weights=str(folder), **changes)


def theirs(folder: Path, items: list[Tensor]) -> Any:
    """transformers' extractor and model on a padded batch, with attention mask and hidden states."""
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    inputs = extractor([i.numpy() for i in items], sampling_rate=16000, padding=True, return_tensors="pt")
    model = transformers.Wav2Vec2Model.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(**inputs, output_hidden_states=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_samples", [400, 5000, 16000])
def test_single_item_equals_transformers(
    kind: str,
    num_samples: int,
    folders: dict[str, Path],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    item = waveform(num_samples)
    expected = theirs(folders[kind], [item])
    last = alone(build_backbone(configure(folders[kind])), item)
    states = alone(build_backbone(configure(folders[kind], layers="all")), item)
    assert relative_error(last, expected.last_hidden_state[0]) <= 1e-5
    assert torch.equal(states[:, -1], last)
    for index, state in enumerate(expected.hidden_states[:-1]):  # the last one is checked above
        assert relative_error(states[:, index], state[0]) <= 1e-5


def test_why_the_loop_is_ours(
    folders: dict[str, Path], waveform: Callable[[int], Tensor], relative_error: Callable[..., float]
) -> None:
    """transformers' padded batch is wrong for group norm, mask or no mask, and right for layer norm."""
    items = [waveform(4000), waveform(40000)]
    errors = {}
    for kind in KINDS:
        single = theirs(folders[kind], items[:1]).last_hidden_state[0]
        padded = theirs(folders[kind], items).last_hidden_state[0, : len(single)]
        errors[kind] = relative_error(padded, single)
    assert errors["group"] > 1e-2
    assert errors["layer"] < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["group", "layer"])
def test_the_convolutions_of_a_gpu_are_transformers(
    name: str,
    precision: str,
    configure: Callable[..., Any],
    waveform: Callable[[int], Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They run on a GPU alone; here, on the CPU."""
    backbone = build_backbone(configure(f"wav2vec2-{name}", precision=precision)).eval()
    batch, lengths = torch.stack([waveform(16_000), waveform(16_001)[1:]]), torch.tensor([16_000, 9_000])
    with torch.inference_mode():
        expected = backbone(batch, lengths).values
        calls = []
        monkeypatch.setattr(wav2vec2, "frozen_on_a_gpu", lambda hidden: calls.append(hidden.shape) or True)
        found = backbone(batch, lengths).values
    assert len(calls) == (1 if precision == "fp32" else 7 if name == "group" else 8)
    for row, other, frames in zip(found.float(), expected.float(), (49, 27), strict=True):
        if precision == "fp32":
            torch.testing.assert_close(row[:frames], other[:frames], rtol=1e-4, atol=1e-5)
        cosine = torch.cosine_similarity(row[:frames], other[:frames], dim=-1)
        assert float(cosine.min()) > 0.9998


def test_layers_are_picked_in_order(
    folders: dict[str, Path], waveform: Callable[[int], Tensor], alone: Callable[..., Tensor]
) -> None:
    every = alone(build_backbone(configure(folders["layer"], layers="all")), waveform(2000))
    assert every.shape == (6, 4, 48)
    some = build_backbone(configure(folders["layer"], layers=[2, 0, -1]))
    assert some.num_layers == 3
    assert torch.equal(alone(some, waveform(2000)), every[:, [2, 0, 3]])
    one = build_backbone(configure(folders["layer"], layers=[-3]))
    assert one.num_layers == 1
    assert torch.equal(alone(one, waveform(2000)), every[:, 1])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        pytest.param([4], r"`layers` 4: the model has states 0\.\.3", id="above"),
        pytest.param([0, -5], r"`layers` -5: .* or -4\.\.-1 counted from the end", id="below"),
        pytest.param([3, -1], r"`layers` \[3, -1\]: these name a state twice", id="twice"),
    ],
)
def test_layers_out_of_range(layers: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(configure("random", size="tiny", layers=layers))


def test_normalisation_follows_the_preprocessor(
    folders: dict[str, Path],
    tmp_path: Path,
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    folder = shutil.copytree(folders["layer"], tmp_path / "plain")
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    normalised, plain = (build_backbone(configure(f)) for f in (folders["layer"], folder))
    item = waveform(3000)
    louder = 3 * item + 0.1
    assert relative_error(alone(normalised, louder), alone(normalised, item)) < 1e-4
    assert relative_error(alone(plain, louder), alone(plain, item)) > 1e-3
    assert normalised.fingerprint() != plain.fingerprint()


def test_too_short_an_item_is_refused() -> None:
    backbone = build_backbone(configure("random", size="tiny"))
    with pytest.raises(ValueError, match="an item of 399 samples is too short for one frame"):
        backbone(torch.zeros(2, 500), torch.tensor([500, 399]))


def test_the_fingerprint_is_of_the_model_not_of_its_place(folders: dict[str, Path], tmp_path: Path) -> None:
    original = build_backbone(configure(folders["group"])).fingerprint()
    moved = shutil.copytree(folders["group"], tmp_path / "moved")
    assert build_backbone(configure(moved)).fingerprint() == original

    weights = load_file(moved / "model.safetensors")
    weights["encoder.layer_norm.bias"][3] += 1e-3
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    assert build_backbone(configure(moved)).fingerprint()["weights"] != original["weights"]

    heads = shutil.copytree(folders["group"], tmp_path / "heads")
    settings = json.loads((heads / "config.json").read_text())
    (heads / "config.json").write_text(json.dumps(settings | {"num_attention_heads": 2}))
    changed = build_backbone(configure(heads)).fingerprint()
    assert changed["weights"] == original["weights"]
    assert changed != original


def test_older_checkpoints_load_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    """facebook/wav2vec2-base is one: a pickle, pre-training heads, a prefix and former weight-norm names."""
    folder = shutil.copytree(folders["group"], tmp_path / "older")
    former = {
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
    }
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for new, old in former.items():
            name = name.replace(new, old)
        weights[f"wav2vec2.{name}"] = tensor
    (folder / "model.safetensors").unlink()
    torch.save(weights | {"project_q.weight": torch.zeros(3, 3)}, folder / "pytorch_model.bin")
    older, original = (build_backbone(configure(f)).fingerprint() for f in (folder, folders["group"]))
    assert older == original


def test_absent_weights_are_named_with_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set") as caught:
        build_backbone(configure("nobody/no-such-model", revision="v2"))
    for part in (
        "`weights` nobody/no-such-model",
        "not in the local Hugging Face cache",
        "hf download nobody/no-such-model --revision v2",
        "a local folder",
        "weights: random",
    ):
        assert part in str(caught.value)


def test_download_false_never_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda *args, local_files_only, **kwargs: asked.append(local_files_only) or 1 / 0,
    )
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    with pytest.raises(ValueError, match="`download` is false"):
        build_backbone(configure("nobody/no-such-model", download=False))
    assert set(asked) == {True}
    with pytest.raises(ValueError, match="the hub said: ZeroDivisionError"):
        build_backbone(configure("nobody/no-such-model"))
    assert False in asked


def test_a_cached_hub_id_needs_no_network(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--some--model"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folders["group"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cached = build_backbone(configure("some/model")).fingerprint()
    assert cached == build_backbone(configure(folders["group"])).fingerprint()


def test_damaged_or_foreign_folders_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config.json says model_type 'bert', .* loads 'wav2vec2'"):
        build_backbone(configure(folders["bert"]))
    with pytest.raises(ValueError, match=r"there is no folder \./no/such"):
        build_backbone(configure("./no/such"))
    with pytest.raises(ValueError, match=r"lacks config.json or model.safetensors"):
        build_backbone(configure(tmp_path))
    partial = shutil.copytree(folders["group"], tmp_path / "partial")
    weights = load_file(partial / "model.safetensors")
    weights.pop("encoder.layers.1.attention.k_proj.weight")
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"1 parameters are not in the file, such as encoder\.layers\.1\.attention"
    ):
        build_backbone(configure(partial))
    broken = shutil.copytree(folders["group"], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="cannot be loaded from"):
        build_backbone(configure(broken))


def test_the_first_layer_without_float64(
    folders: dict[str, Path],
    waveform: Callable[[int], Tensor],
    relative_error: Callable[..., float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Apple's GPUs: the norm is taken of what the convolution gave, in fp32."""
    backbone = build_backbone(configure(folders["group"])).eval()
    items = [waveform(9_000), waveform(16_001)]
    batch, lengths = torch.nn.utils.rnn.pad_sequence(items, batch_first=True), torch.tensor([9_000, 16_001])
    wide, there = backbone(batch, lengths)
    calls = []
    in_turn = wav2vec2._normed_in_turn
    monkeypatch.setattr(wav2vec2, "widest", lambda device: torch.float32)
    monkeypatch.setattr(wav2vec2, "_normed_in_turn", lambda *a: calls.append(1) or in_turn(*a))
    narrow, _ = backbone(batch, lengths)
    assert calls
    for one, other, length in zip(narrow, wide, there.tolist(), strict=True):
        assert relative_error(one[:length], other[:length]) <= 1e-5
