"""FastConformer: three implementations of one encoder, and where its weights come from."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import huggingface_hub.constants
import pytest
import torch
import transformers
import yaml
from torch import Tensor

from stillwave.models.audio_branch import AudioBranch
from stillwave.pipeline.backbones import Backbone, build_backbone
from stillwave.pipeline.backbones.fastconformer.backbone import (
    FastConformer,
    FastConformerConfig,
    Implementation,
)
from stillwave.pipeline.backbones.fastconformer.nemo_file import NAMES, from_nemo, to_nemo
from tests.pipeline.backbones.nemo_files import nemo_config, nemo_weights, repacked, saved

IMPLEMENTATIONS = get_args(Implementation)
LENGTHS = (320, 1279, 1280, 5000, 24000, 48001)


def configure(weights: Path | str, implementation: str = "custom", **changes: Any) -> FastConformerConfig:
    return FastConformerConfig(
        kind="fastconformer", weights=str(weights), implementation=implementation, **changes
    )


@pytest.fixture(scope="module")
def frames(waveform: Callable[[int], Tensor], pad: Callable[..., Any]) -> Callable[[Backbone], list[Tensor]]:
    """The valid frames of six items, out of one padded batch."""

    def frames(backbone: Backbone) -> list[Tensor]:
        with torch.inference_mode():
            values, lengths = backbone(*pad([waveform(length) for length in LENGTHS]))
        return [row[:length] for row, length in zip(values, lengths.tolist(), strict=True)]

    return frames


@pytest.mark.parametrize("implementation", ["transformers", "custom"])
def test_nemo_weights_give_nemos_frames(
    implementation: str,
    nemo_file: Path,
    frames: Callable[[Backbone], list[Tensor]],
    relative_error: Callable[..., float],
) -> None:
    """Every state of every frame, to 1e-4 (measured: 1e-6)."""
    reference = frames(build_backbone(configure(nemo_file, "nemo", layers="all")))
    ours = frames(build_backbone(configure(nemo_file, implementation, layers="all")))
    assert [len(item) for item in ours] == [1, 1, 1, 4, 19, 38]
    for mine, theirs in zip(ours, reference, strict=True):
        for state in range(4):
            assert relative_error(mine[:, state], theirs[:, state]) <= 1e-5


def test_nemos_own_forward_gives_these_frames(
    nemo_file: Path,
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    """What a user of NeMo gets from the model itself, without anything of ours."""
    from stillwave.pipeline.backbones.fastconformer.nemo import import_nemo
    from stillwave.pipeline.backbones.quiet import quiet

    with quiet():
        model = import_nemo().models.ASRModel.restore_from(str(nemo_file), map_location="cpu").eval()
    item = waveform(20000)
    with torch.inference_mode():
        mels, lengths = model.preprocessor(input_signal=item[None], length=torch.tensor([len(item)]))
        encoded, lengths = model.encoder(audio_signal=mels, length=lengths)
    for implementation in IMPLEMENTATIONS:
        ours = alone(build_backbone(configure(nemo_file, implementation)), item)
        assert len(ours) == int(lengths)
        assert relative_error(ours, encoded[0, :, : int(lengths)].T) <= 1e-5


def test_transformers_own_forward_gives_these_frames(
    folders: dict[str, Path],
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
    relative_error: Callable[..., float],
) -> None:
    item = waveform(20000)
    extractor = transformers.ParakeetFeatureExtractor.from_pretrained(folders["parakeet"])
    model = transformers.ParakeetEncoder.from_pretrained(folders["parakeet"]).eval()
    with torch.inference_mode():
        expected = model(**extractor(item.numpy(), sampling_rate=16000, return_tensors="pt"))
    count = int(expected.attention_mask.sum())
    for implementation in ("transformers", "custom"):
        ours = alone(build_backbone(configure(folders["parakeet"], implementation)), item)
        assert len(ours) == count
        assert relative_error(ours, expected.last_hidden_state[0, :count]) <= 1e-5


def test_the_conversion_keeps_the_feed_forward_size(nemo_file: Path, folders: dict[str, Path]) -> None:
    """Twice d_model here, four times in the published model; transformers' default is 4096."""
    model = build_backbone(configure(nemo_file, "transformers")).encoder.model
    assert model.config.intermediate_size == 96
    assert model.config.layerdrop == 0
    by_name = model.state_dict()
    original = {k.removeprefix("encoder."): t for k, t in nemo_weights(nemo_file).items() if "encoder." in k}
    assert len(by_name) == len(original) == 132
    assert all(torch.equal(by_name[name], tensor) for name, tensor in from_nemo(original).items())
    assert to_nemo(by_name).keys() == original.keys()
    assert all(any(theirs in name for name in original) for theirs, _ in NAMES)


def test_random_weights_are_the_same_in_every_implementation(
    frames: Callable[[Backbone], list[Tensor]], relative_error: Callable[..., float]
) -> None:
    first, *others = (
        frames(build_backbone(configure("random", implementation, size="tiny", seed=3)))
        for implementation in IMPLEMENTATIONS
    )
    assert first[0].shape == (1, 64)
    for other in others:
        assert all(relative_error(a, b) <= 1e-5 for a, b in zip(other, first, strict=True))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_layers_are_picked_in_order_and_the_rest_given_up(
    implementation: str,
    nemo_file: Path,
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
) -> None:
    every = alone(build_backbone(configure(nemo_file, implementation, layers="all")), waveform(9000))
    assert every.shape == (7, 4, 48)
    last = build_backbone(configure(nemo_file, implementation))
    assert torch.equal(alone(last, waveform(9000)), every[:, 3])
    some = build_backbone(configure(nemo_file, implementation, layers=[2, 0]))
    assert torch.equal(alone(some, waveform(9000)), every[:, [2, 0]])
    assert len(some.encoder.layers) == 2 < len(last.encoder.layers)
    first = build_backbone(configure(nemo_file, implementation, layers=[0]))
    assert torch.equal(alone(first, waveform(9000)), every[:, 0])
    with pytest.raises(ValueError, match=r"`layers` 4: the model has states 0\.\.3"):
        build_backbone(configure(nemo_file, implementation, layers=[4]))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_training_step_lowers_the_loss(
    implementation: str, nemo_file: Path, waveform: Callable[[int], Tensor], pad: Callable[..., Any]
) -> None:
    backbone = build_backbone(configure(nemo_file, implementation)).requires_grad_(True)
    batch, lengths = pad([waveform(9000), waveform(16000)])
    optimizer = torch.optim.SGD(backbone.parameters(), lr=1e-4)
    losses = []
    for _ in range(3):
        values, counts = backbone(batch, lengths)
        loss = sum(row[:count].square().sum() for row, count in zip(values, counts, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_dither_in_train_mode(
    implementation: str, nemo_file: Path, waveform: Callable[[int], Tensor], pad: Callable[..., Any]
) -> None:
    backbone = build_backbone(configure(nemo_file, implementation))
    batch = pad([waveform(9000), waveform(700)])
    expected, counts = backbone.mel(*batch)
    values, _ = backbone.train().mel(*batch)
    assert torch.equal(values, expected)
    assert values.shape == (2, 56, 80)
    assert counts.tolist() == [56, 4]


def test_too_short_an_item_is_refused(nemo_file: Path) -> None:
    """One mel frame has no deviation: NeMo refuses it on a GPU and gives zeros on a CPU."""
    backbone = build_backbone(configure(nemo_file))
    with pytest.raises(ValueError, match="an item of 319 samples is too short for one frame"):
        backbone(torch.zeros(2, 500), torch.tensor([500, 319]))


def test_a_whole_parakeet_gives_its_encoder(
    folders: dict[str, Path],
    tmp_path: Path,
    waveform: Callable[[int], Tensor],
    alone: Callable[..., Tensor],
) -> None:
    """A model with its CTC head, as the hub's parakeet-ctc are."""
    encoder = transformers.ParakeetEncoder.from_pretrained(folders["parakeet"])
    config = transformers.ParakeetCTCConfig(encoder_config=encoder.config, vocab_size=12, pad_token_id=11)
    model = transformers.ParakeetForCTC(config)
    model.encoder.load_state_dict(encoder.state_dict())
    model.save_pretrained(tmp_path / "ctc")
    for implementation in ("transformers", "custom"):
        whole = build_backbone(configure(tmp_path / "ctc", implementation))
        part = build_backbone(configure(folders["parakeet"], implementation))
        assert torch.equal(alone(whole, waveform(4000)), alone(part, waveform(4000)))
        assert whole.fingerprint() == part.fingerprint()


def test_fingerprint_is_of_the_model_not_of_its_place(nemo_file: Path, tmp_path: Path) -> None:
    original = build_backbone(configure(nemo_file)).fingerprint()
    moved = repacked(nemo_file, tmp_path / "moved.nemo")
    assert build_backbone(configure(moved)).fingerprint() == original
    config = nemo_config(nemo_file)
    for part, field, value in (
        ("encoder", "xscaling", False),
        ("preprocessor", "window_size", 0.02),
        ("preprocessor", "preemph", 0.9),
    ):
        changed = config | {part: config[part] | {field: value}}
        file = repacked(nemo_file, tmp_path / f"{field}.nemo", config=yaml.safe_dump(changed).encode())
        assert build_backbone(configure(file)).fingerprint() != original, field


def test_files_that_cannot_be_followed_are_refused(nemo_file: Path, tmp_path: Path) -> None:
    config, weights = nemo_config(nemo_file), nemo_weights(nemo_file)

    def message(implementation: str = "custom", **members: bytes | None) -> str:
        file = repacked(nemo_file, tmp_path / "changed.nemo", **members)
        with pytest.raises(ValueError, match=r"`weights` .*changed\.nemo: ") as caught:
            build_backbone(configure(file, implementation))
        return str(caught.value)

    def with_field(part: str, field: str, value: Any) -> bytes:
        return yaml.safe_dump(config | {part: config[part] | {field: value}}).encode()

    assert "there is no model_config.yaml in it" in message(config=None)
    assert "there is no model_weights.ckpt in it" in message(weights=None)
    assert "model_config.yaml: list indices must be integers" in message(config=b"[1, 2]")
    assert "lacks the field 'preprocessor'" in message(config=yaml.safe_dump({"encoder": {}}).encode())
    assert "invalid literal for int()" in message(config=with_field("encoder", "d_model", "x"))
    causal = message(config=with_field("encoder", "att_context_size", [70, 13]))
    assert "encoder.att_context_size is [70, 13]; only None or [-1, -1] is supported" in causal
    assert "encoder.subsampling is 'striding'" in message(
        config=with_field("encoder", "subsampling", "striding")
    )
    other = message(config=with_field("encoder", "_target_", "nemo.collections.asr.modules.RNNEncoder"))
    assert "is a nemo.collections.asr.modules.RNNEncoder, not a ConformerEncoder" in other
    bands = message(config=with_field("preprocessor", "normalize", "all_features"))
    assert "preprocessor.normalize is 'all_features'; only 'per_feature' is supported" in bands
    weights.pop("encoder.layers.1.conv.batch_norm.running_var")
    for implementation in ("custom", "transformers"):
        lacking = message(implementation, weights=saved(weights))
        assert "layers.1.conv.norm.running_var" in lacking
    with pytest.raises(ValueError, match="NeMo cannot restore it"):
        build_backbone(configure(tmp_path / "changed.nemo", "nemo"))
    (tmp_path / "text.nemo").write_text("no archive")
    with pytest.raises(ValueError, match=r"text\.nemo: cannot be read as a \.nemo file"):
        build_backbone(configure(tmp_path / "text.nemo"))
    with pytest.raises(ValueError, match=r"absent\.nemo: no such file"):
        build_backbone(configure(tmp_path / "absent.nemo"))


class Touch:
    """Unpickled, it would make a file: what a malicious checkpoint does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_code_in_a_file_runs(implementation: str, nemo_file: Path, tmp_path: Path) -> None:
    bad = saved(nemo_weights(nemo_file) | {"extra": Touch(tmp_path / "owned")})
    file = repacked(nemo_file, tmp_path / "bad.nemo", weights=bad)
    with pytest.raises(ValueError, match=r"bad\.nemo: "):
        build_backbone(configure(file, implementation))
    assert not (tmp_path / "owned").exists()


def test_a_cached_hub_id_needs_no_network(
    nemo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository with nothing but a .nemo file, as stt_en_fastconformer_ctc_large is."""
    repository = tmp_path / "models--some--model"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    shutil.copy(nemo_file, repository / "snapshots" / commit / "model.nemo")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for implementation in IMPLEMENTATIONS:
        cached = build_backbone(configure("some/model", implementation)).fingerprint()
        assert cached == build_backbone(configure(nemo_file, implementation)).fingerprint()


def test_nemo_is_not_compiled() -> None:
    with pytest.raises(ValueError, match=r"compile true .* nemo: .* use implementation custom"):
        configure("random", "nemo", compile=True)
    assert configure("random", "custom", compile=True).compile


def test_a_folder_may_hold_the_file(nemo_file: Path, tmp_path: Path) -> None:
    shutil.copy(nemo_file, tmp_path / "one.nemo")
    (tmp_path / "config.json").write_text("{}")  # some repositories of .nemo files have one, to be counted
    expected = build_backbone(configure(nemo_file)).fingerprint()
    assert build_backbone(configure(tmp_path)).fingerprint() == expected
    shutil.copy(nemo_file, tmp_path / "two.nemo")
    with pytest.raises(ValueError, match=r"several \.nemo files \(one\.nemo, two\.nemo\)"):
        build_backbone(configure(tmp_path))


def test_absent_weights_are_named_with_remedies(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for implementation in IMPLEMENTATIONS:
        with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set") as caught:
            build_backbone(configure("nobody/no-such-model", implementation))
        assert "set `weights` to a .nemo file, or a local folder" in str(caught.value)
        with pytest.raises(ValueError, match=r"lacks a \.nemo file"):
            build_backbone(configure(tmp_path, implementation))
    with pytest.raises(ValueError, match="names without a slash up on the network, and `download` is false"):
        build_backbone(configure("stt_en_fastconformer_ctc_large", "nemo", download=False))
    with pytest.raises(ValueError, match=r"model_type 'bert', .* loads 'parakeet_encoder'"):
        build_backbone(configure(folders["bert"], "transformers"))


def test_without_nemo_there_is_a_remedy(nemo_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "nemo" or name.startswith("nemo.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nemo", None)
    with pytest.raises(ValueError, match=r"pip install 'stillwave\[nemo\]', or set `implementation`"):
        build_backbone(configure(nemo_file, "nemo"))
    for implementation in ("transformers", "custom"):
        assert isinstance(build_backbone(configure(nemo_file, implementation)), FastConformer)


@pytest.mark.parametrize("use_nemo", [True, False])
def test_audio_branch_on_a_pretrained_encoder(
    use_nemo: bool, nemo_file: Path, waveform: Callable[[int], Tensor], pad: Callable[..., Any]
) -> None:
    """Its frames reach the pooling, and of it only the new layers learn."""
    branch = AudioBranch(
        pretrained_model=str(nemo_file),
        feature_dim=32,
        freeze_encoder=True,
        use_nemo=use_nemo,
        num_segments=2,
    ).train()
    assert branch.encoder.config.implementation == ("nemo" if use_nemo else "transformers")
    audio, lengths = pad([waveform(9000), waveform(16000)])
    before = {name: tensor.clone() for name, tensor in branch.encoder.state_dict().items()}
    output = branch(audio, lengths)["segment_features"]
    assert output.shape == (2, 2, 32)
    output.square().sum().backward()
    assert {name.split(".")[0] for name, p in branch.named_parameters() if p.grad is not None} == {
        "projection",
        "pooling",
    }
    after = branch.encoder.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    branch.eval()
    frames, counts = build_backbone(configure(nemo_file))(audio, lengths)
    expected = branch.pooling(branch.projection(frames), counts)
    torch.testing.assert_close(branch(audio, lengths)["segment_features"], expected, rtol=1e-4, atol=1e-5)
