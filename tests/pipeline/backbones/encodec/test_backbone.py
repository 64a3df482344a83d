"""EnCodec against the package's own model: frames, segments, codebooks; and where its weights come from."""

import hashlib
import importlib.util
import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillwave.pipeline.backbones import build_backbone
from stillwave.pipeline.backbones.encodec import EncodecConfig
from stillwave.pipeline.backbones.encodec import package as encodec_package
from stillwave.pipeline.backbones.encodec.models import fold_weight_norm
from stillwave.pipeline.backbones.encodec.package import import_encodec

MODELS = ("24khz", "48khz")
EMBEDDINGS = ("encoder", "quantized")
# Partial frames; at 48 kHz also a last segment of 1 or of 480 samples, and two whole ones before a short one.
LENGTHS = {"24khz": (1, 5, 319, 320, 321, 2000, 9601), "48khz": (1, 5, 321, 47521, 48000, 95521, 110000)}
BANDWIDTHS = {"24khz": (1.5, 3, 6, 12, 24), "48khz": (3, 6, 12, 24)}


@pytest.fixture
def build(folders: dict[str, Path]) -> Callable[..., Any]:
    """`build(model, **changes)`: the backbone with the small weights of its implementation."""

    def build(model: str, implementation: str = "transformers", **changes: Any) -> Any:
        folder = folders[f"encodec-{model}" + ("-package" if implementation == "encodec" else "")]
        settings = {"weights": str(folder), "model": model, "implementation": implementation}
        return build_backbone(EncodecConfig(kind="encodec", **(settings | changes)))

    return build


@pytest.fixture
def item(waveform: Callable[[int], Tensor]) -> Callable[..., Tensor]:
    """`item(model, n)`: n samples, of two differing channels at 48 kHz."""

    def item(model: str, n: int) -> Tensor:
        return waveform(n) if model == "24khz" else torch.stack([waveform(n), waveform(n + 100)[100:]], dim=1)

    return item


@pytest.fixture
def theirs(folders: dict[str, Path]) -> Callable[..., Any]:
    """`theirs(model)`: the package's own EncodecModel with the small weights, weight norms in place."""

    def theirs(model: str) -> Any:
        package = import_encodec()
        state = load_file(folders[f"encodec-{model}-package"] / "model.safetensors")
        stereo = model == "48khz"
        settings: dict[str, Any] = {
            "channels": 1 + stereo,
            "dimension": 16,
            "n_filters": 4,
            "causal": not stereo,
        }
        with warnings.catch_warnings(
            action="ignore", category=FutureWarning
        ):  # of torch's former weight norm
            norm = "time_group_norm" if stereo else "weight_norm"
            encoder = package.modules.SEANetEncoder(norm=norm, **settings)
        quantizer = package.quantization.ResidualVectorQuantizer(dimension=16, n_q=16 if stereo else 32)
        reference = package.EncodecModel(
            encoder, nn.Identity(), quantizer, list(BANDWIDTHS[model]),
            sample_rate=48000 if stereo else 24000, channels=1 + stereo,
            normalize=stereo, segment=1.0 if stereo else None,
        )  # fmt: skip
        reference.load_state_dict(state)
        return reference.eval()

    return theirs


def frames_of(reference: Any, item: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    """What the package's `encode` makes of one item: the encoder's frames, and those of the codes."""
    encoded: list[Tensor] = []
    hook = reference.encoder.register_forward_hook(lambda *call: encoded.append(call[-1]))
    reference.set_target_bandwidth(bandwidth)
    with torch.inference_mode():
        segments = reference.encode(item.view(1, len(item), -1).transpose(1, 2))
        quantized = [reference.quantizer.decode(codes.transpose(0, 1)) for codes, _ in segments]
    hook.remove()
    return torch.cat(encoded, dim=-1)[0].T, torch.cat(quantized, dim=-1)[0].T


@pytest.mark.parametrize("model", MODELS)
def test_both_implementations_are_the_packages_own_model(
    model: str,
    build: Callable[..., Any],
    item: Callable[..., Tensor],
    theirs: Callable[..., Any],
    alone: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    reference = theirs(model)
    fold_weight_norm(reference.encoder)  # rounding must not move a code: the next test is about folding
    for bandwidth in BANDWIDTHS[model]:
        expected = {
            n: dict(zip(EMBEDDINGS, frames_of(reference, item(model, n), bandwidth), strict=True))
            for n in (LENGTHS[model] if bandwidth == 6 else LENGTHS[model][-1:])
        }
        for embedding in EMBEDDINGS:
            ours, other = (
                build(model, implementation, embedding=embedding, bandwidth=bandwidth)
                for implementation in ("transformers", "encodec")
            )
            for n, frames in expected.items():
                values = alone(ours, item(model, n))
                assert values.shape == frames[embedding].shape == (ours.num_frames(n), 16)
                assert float((values - alone(other, item(model, n))).abs().max()) <= 1e-6
                assert relative_error(values, frames[embedding]) <= 1e-6
        assert len(frames["quantized"].unique(dim=0)) > ours.num_frames(n) / 3  # codes are put to use


@pytest.mark.parametrize("implementation", ["transformers", "encodec"])
def test_folding_weight_norm_leaves_frames(
    implementation: str,
    build: Callable[..., Any],
    item: Callable[..., Tensor],
    theirs: Callable[..., Any],
    alone: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    # In float64: at 32 bits the two differ by rounding, on some processors by more than the bound.
    backbone = build("24khz", implementation).double()
    names = [name for name, _ in backbone.named_parameters()]
    assert names
    assert not [name for name in names if "original" in name or "weight_g" in name]
    one = item("24khz", 9601).double()
    expected, _ = frames_of(theirs("24khz").double(), one, 6)
    assert relative_error(alone(backbone, one), expected) <= 1e-6


def test_fewer_codebooks_are_a_coarser_copy(
    build: Callable[..., Any], item: Callable[..., Tensor], alone: Callable[..., Tensor]
) -> None:
    exact = alone(build("48khz"), item("48khz", 48000))
    quantized = [build("48khz", embedding="quantized", bandwidth=kbps) for kbps in BANDWIDTHS["48khz"]]
    errors = [
        float((alone(backbone, item("48khz", 48000)) - exact).square().mean()) for backbone in quantized
    ]
    assert errors == sorted(errors, reverse=True)
    assert [len(backbone.quantizer.layers) for backbone in quantized] == [2, 4, 8, 16]


def test_segments_of_48_khz(build: Callable[..., Any]) -> None:
    backbone = build("48khz")
    assert backbone.segments(0) == []
    assert backbone.segments(47520) == [(0, 47520)]
    assert backbone.segments(47521) == [(0, 47521), (47520, 1)]
    assert backbone.segments(100000) == [(0, 48000), (47520, 48000), (95040, 4960)]
    for n in (0, 1, 320, 321, 47520, 47521, 47681, 48000, 48001, 95041, 1_000_000):
        starts = range(0, n, 47520)
        assert backbone.num_frames(n) == sum(math.ceil(min(48000, n - start) / 320) for start in starts)


def test_frame_times_of_48_khz(build: Callable[..., Any]) -> None:
    """Each segment's frames are 1 / 150 s apart from where it begins, and the next begins 0.99 s later."""
    backbone = build("48khz")
    for n in (320, 47521, 47681, 48000, 95041, 100000):
        expected = torch.tensor(
            [
                start + 320 * frame + 160
                for start, size in backbone.segments(n)
                for frame in range(math.ceil(size / 320))
            ],
            dtype=torch.float64,
        )
        torch.testing.assert_close(backbone.frame_times(backbone.num_frames(n)), expected / 48000)


def test_padding_is_not_harmless(
    build: Callable[..., Any],
    item: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    """Why zeros would not do: at 24 kHz the last partial frame would change, at 48 kHz every one."""
    for model in MODELS:
        encoder = build(model).encoder
        one = item(model, 4000).view(1, 4000, -1).transpose(1, 2)
        with torch.inference_mode():
            short, long = encoder(one)[0].T, encoder(nn.functional.pad(one, (0, 4000)))[0, :, :13].T
        errors = [relative_error(a, b) for a, b in zip(long, short, strict=True)]
        assert errors[-1] > 1e-2
        assert (max(errors[:-1]) < 1e-5) == (model == "24khz")


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("model", MODELS)
def test_frames_do_not_depend_on_the_batch_and_codes_not_by_a_bit(
    model: str,
    embedding: str,
    build: Callable[..., Any],
    item: Callable[..., Tensor],
    pad: Callable[..., Any],
    alone: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    backbone = build(model, embedding=embedding, bandwidth=24)
    items = [item(model, n) for n in (9600, 9601, 9600, 100000, 48000, 150001)]
    values, lengths = backbone(*pad(items))
    for row, length, one in zip(values, lengths.tolist(), items, strict=True):
        frames = alone(backbone, one)
        assert relative_error(row[:length], frames) <= (1e-5 if embedding == "encoder" else 0)


def test_24_khz_is_causal(
    build: Callable[..., Any], item: Callable[..., Tensor], alone: Callable[..., Tensor]
) -> None:
    changed = item("24khz", 6400)
    changed[3200:] += 0.1
    before, after = (alone(build("24khz"), one) for one in (item("24khz", 6400), changed))
    torch.testing.assert_close(after[:10], before[:10], rtol=0, atol=1e-6)
    assert (after[10:] - before[10:]).abs().amax(1).min() > 1e-4


def test_volume_is_divided_out_at_48_khz_alone(
    build: Callable[..., Any],
    item: Callable[..., Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    for model in MODELS:
        backbone, one = build(model), item(model, 60000)
        change = relative_error(alone(backbone, 3 * one), alone(backbone, one))
        assert (change < 1e-4) == (model == "48khz")
    swapped = relative_error(alone(backbone, one.flip(1)), alone(backbone, one))
    assert swapped > 1e-3  # left is not right
    opposed = torch.stack([one[:, 0], -one[:, 0]], dim=1)  # a mono mix of nothing
    assert alone(backbone, opposed).isfinite().all()


def test_gradients_pass_straight_through_the_quantizer(
    build: Callable[..., Any], item: Callable[..., Tensor], pad: Callable[..., Any]
) -> None:
    gradients = []
    for embedding in EMBEDDINGS:
        backbone = build("24khz", embedding=embedding).requires_grad_(True)
        values = backbone(*pad([item("24khz", 2000)])).values
        (values * torch.linspace(-1, 1, values.numel()).view_as(values)).sum().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    for ours, straight in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, straight)


@pytest.mark.parametrize("implementation", ["transformers", "encodec"])
@pytest.mark.parametrize("model", MODELS)
def test_bf16_is_close(
    model: str,
    implementation: str,
    build: Callable[..., Any],
    item: Callable[..., Tensor],
    alone: Callable[..., Tensor],
) -> None:
    exact, half = (build(model, implementation, precision=precision) for precision in ("fp32", "bf16"))
    values = alone(half, item(model, 50000))
    assert values.dtype == torch.float32
    cosine = nn.functional.cosine_similarity(values, alone(exact, item(model, 50000)), dim=-1)
    assert float(cosine.min()) >= 0.999
    assert half.fingerprint() != exact.fingerprint()


def test_bandwidth_counts_only_where_codes_are_taken(build: Callable[..., Any]) -> None:
    six, three = (build("24khz", bandwidth=kbps).fingerprint() for kbps in (6, 3))
    assert six == three
    six, three = (build("24khz", bandwidth=kbps, embedding="quantized").fingerprint() for kbps in (6, 3))
    assert six["config"] != three["config"]


def test_what_the_config_refuses() -> None:
    with pytest.raises(ValueError, match=r"bandwidth 1\.5 kbps: model 48khz has 3, 6, 12, 24"):
        EncodecConfig(kind="encodec", model="48khz", bandwidth=1.5)
    with pytest.raises(ValueError, match=r"precision bf16 with embedding `quantized`.* use precision fp32"):
        EncodecConfig(kind="encodec", embedding="quantized", precision="bf16")
    with pytest.raises(ValueError, match="layers"):
        EncodecConfig(kind="encodec", layers="all")


def test_an_empty_item_is_refused(build: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="an item of 0 samples has no frame"):
        build("24khz")(torch.zeros(2, 500), torch.tensor([500, 0]))


def test_older_checkpoints_load_the_same(
    build: Callable[..., Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    """Those on the hub have torch's former names of a weight norm."""
    folder = shutil.copytree(folders["encodec-24khz"], tmp_path / "older")
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        weights[name.replace("parametrizations.weight.original1", "weight_v")] = tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert build("24khz", weights=str(folder)).fingerprint() == build("24khz").fingerprint()


@pytest.mark.parametrize("implementation", ["transformers", "encodec"])
def test_weights_of_the_other_model_are_refused(
    implementation: str, build: Callable[..., Any], folders: dict[str, Path]
) -> None:
    suffix = "-package" if implementation == "encodec" else ""
    for model, other in (MODELS, MODELS[::-1]):
        with pytest.raises(ValueError, match=r"check that `model` fits these weights|not a state dict"):
            build(model, implementation, weights=str(folders[f"encodec-{other}{suffix}"]))


def test_a_changed_setting_of_the_model_is_refused(
    build: Callable[..., Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["encodec-48khz"], tmp_path / "changed")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"overlap": 0.5}))
    with pytest.raises(ValueError, match=r"its config\.json says overlap 0\.5, but EnCodec 48khz has 0\.01"):
        build("48khz", weights=str(folder))


def test_the_packages_file_is_checked_and_never_unpickled(
    build: Callable[..., Any], folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = load_file(folders["encodec-24khz-package"] / "model.safetensors")
    file = tmp_path / "small.th"
    torch.save(state | {"decoder.model.0.conv.conv.bias": torch.zeros(3)}, file)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(encodec_package.PACKAGE_FILES, "24khz", f"small-{digits}.th")
    file = file.rename(tmp_path / f"small-{digits}.th")
    expected = build("24khz", "encodec").fingerprint()
    assert build("24khz", "encodec", weights=str(tmp_path)).fingerprint() == expected

    monkeypatch.setitem(encodec_package.PACKAGE_FILES, "24khz", "small-01234567.th")
    file = file.rename(tmp_path / "small-01234567.th")
    with pytest.raises(ValueError, match=f"its sha256 begins with {digits}, but its name says 01234567"):
        build("24khz", "encodec", weights=str(tmp_path))

    monkeypatch.setitem(encodec_package.PACKAGE_FILES, "24khz", "small.th")
    torch.save({"encoder.model.0.conv.conv.bias": Path("an object")}, tmp_path / "small.th")
    with pytest.raises(ValueError, match=r"small\.th: cannot be loaded"):
        build("24khz", "encodec", weights=str(tmp_path))
    torch.save({"bias": torch.zeros(3)}, tmp_path / "small.th")
    with pytest.raises(ValueError, match="not a state dict of the encodec package"):
        build("24khz", "encodec", weights=str(tmp_path))
    state.pop("quantizer.vq.layers.31._codebook.embed")
    torch.save(state, tmp_path / "small.th")
    with pytest.raises(
        ValueError, match=r"1 parameters .* such as quantizer\.vq\.layers\.31\._codebook\.embed"
    ):
        build("24khz", "encodec", weights=str(tmp_path))
    (tmp_path / "small.th").unlink()
    with pytest.raises(ValueError, match=r"has neither small\.th nor model\.safetensors.*`weights: random`"):
        build("24khz", "encodec", weights=str(tmp_path))


def test_the_published_file_is_looked_for_before_the_network(
    build: Callable[..., Any], folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(url: str, file: str, sha256_prefix: str, progress: bool) -> None:
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        build("48khz", "encodec", weights="published")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    with pytest.raises(ValueError, match="`download` is false"):
        build("48khz", "encodec", weights="published", download=False)
    assert asked == []
    with pytest.raises(ValueError, match="cannot be downloaded: no route to host"):
        build("48khz", "encodec", weights="published")
    assert asked == ["https://dl.fbaipublicfiles.com/encodec/v0/encodec_48khz-7e698e3e.th"]

    cached = tmp_path / "hub" / "checkpoints" / "small.th"
    torch.save(load_file(folders["encodec-48khz-package"] / "model.safetensors"), cached)
    monkeypatch.setitem(encodec_package.PACKAGE_FILES, "48khz", "small.th")
    found = build("48khz", "encodec", weights="published").fingerprint()
    assert found == build("48khz", "encodec").fingerprint()


def test_published_is_the_hubs_name_with_transformers(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="hf download facebook/encodec_48khz"):
        build("48khz", weights="published")


@pytest.mark.skipif(importlib.util.find_spec("torchaudio") is not None, reason="torchaudio is installed")
def test_torchaudio_has_a_stand_in_during_the_import_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "encodec"]:
            monkeypatch.delitem(sys.modules, name)

    forget()
    import_encodec()
    assert "torchaudio" not in sys.modules

    forget()
    (tmp_path / "torchaudio.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    import_encodec()
    assert sys.modules.pop("torchaudio").__file__ == str(tmp_path / "torchaudio.py")
