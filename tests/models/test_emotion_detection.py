"""EmotionDetectionModel: its description's own code on the packages' models, lengths, and fine-tuning."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from stillwave.models.emotion_detection import EmotionDetectionModel
from stillwave.pipeline.backbones.encodec import EncodecConfig
from stillwave.pipeline.backbones.encodec.models import MODELS, SIZES, draw_codebooks
from stillwave.pipeline.backbones.encodec.package import import_encodec
from stillwave.pipeline.backbones.weights import random_weights

DIM = 32


def make(model: str = "24khz", pooling: Any = "mean", **changes: Any) -> EmotionDetectionModel:
    torch.manual_seed(0)
    config = EncodecConfig(kind="encodec", model=model, weights="random", size="tiny", **changes)
    return EmotionDetectionModel(num_classes=8, config=config, pooling=pooling).eval()


def noise(*shape: int) -> Tensor:
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))


def the_packages(model: EmotionDetectionModel) -> Any:
    """The encodec package's EncodecModel around the same encoder and codebooks."""
    package = import_encodec()
    stereo = model.channels == 2
    quantizer = package.quantization.ResidualVectorQuantizer(
        dimension=DIM, n_q=len(model.quantizer.layers), bins=1024
    )
    quantizer.vq.load_state_dict(model.quantizer.state_dict())
    return package.EncodecModel(
        model.encodec.encoder, nn.Identity(), quantizer, MODELS[model.config.model]["target_bandwidths"],
        sample_rate=model.sample_rate, channels=model.channels,
        normalize=stereo, segment=1.0 if stereo else None,
    ).eval()  # fmt: skip


# The functions of the description, word for word.


def get_encoder_embeddings(model, audio):  # type: ignore[no-untyped-def]
    """Extract embeddings from EnCodec encoder."""
    with torch.no_grad():
        # Normalize if needed
        if model.normalize:
            mono = audio.mean(dim=1, keepdim=True)
            volume = mono.pow(2).mean(dim=2, keepdim=True).sqrt()
            scale = 1e-8 + volume
            audio = audio / scale

        # Get embeddings from encoder
        embeddings = model.encoder(audio)
        return embeddings


def get_quantized_embeddings(model, audio):  # type: ignore[no-untyped-def]
    """Extract embeddings after quantization."""
    with torch.no_grad():
        encoded_frames = model.encode(audio)
        quantized_embeddings = []
        for frame in encoded_frames:
            codes, scale = frame  # noqa: RUF059
            codes = codes.transpose(0, 1)
            emb = model.quantizer.decode(codes)
            quantized_embeddings.append(emb)

        if len(quantized_embeddings) > 1:
            embeddings = torch.cat(quantized_embeddings, dim=-1)
        else:
            embeddings = quantized_embeddings[0]

        return embeddings


def get_global_embeddings(embeddings, method="mean"):  # type: ignore[no-untyped-def]
    """Convert temporal embeddings to global embeddings."""
    if method == "mean":
        return embeddings.mean(dim=-1)
    elif method == "max":
        return embeddings.max(dim=-1)[0]
    elif method == "attention":
        # Simple attention mechanism
        attention_weights = torch.softmax(embeddings.mean(dim=1, keepdim=True), dim=-1)
        return (embeddings * attention_weights).sum(dim=-1)


def get_multi_scale_embeddings(model, audio):  # type: ignore[no-untyped-def]
    """Extract embeddings at different temporal resolutions."""
    embeddings = model.encoder(audio)

    # Different pooling strategies
    global_mean = embeddings.mean(dim=-1)
    global_max = embeddings.max(dim=-1)[0]
    global_std = embeddings.std(dim=-1)

    # Concatenate different representations
    multi_scale = torch.cat([global_mean, global_max, global_std], dim=1)
    return multi_scale


# Of noise, random weights make embeddings of 0.03 at 24 kHz.
close = {"rtol": 1e-4, "atol": 1e-6}


@pytest.mark.parametrize("name", ["24khz", "48khz"])
@torch.no_grad()
def test_encoder_embeddings_are_the_descriptions(name: str) -> None:
    model = make(name, implementation="encodec")
    audio = noise(2, model.channels, 20_001)
    expected = get_encoder_embeddings(the_packages(model), audio)
    got = model.get_encoder_embeddings(audio)
    assert got.shape == expected.shape == (2, DIM, 63)
    torch.testing.assert_close(got, expected, **close)
    torch.testing.assert_close(get_encoder_embeddings(model.encodec, audio), expected, **close)
    assert torch.equal(model.get_embeddings(audio), got)


@pytest.mark.parametrize(("name", "kbps"), [("24khz", 1.5), ("24khz", 6), ("48khz", 6), ("48khz", 12)])
@torch.no_grad()
def test_quantized_embeddings_are_the_descriptions(name: str, kbps: float) -> None:
    """At 48 kHz in two segments, which the description's own loop puts side by side."""
    model = make(name, implementation="encodec", embedding="quantized", bandwidth=kbps)
    reference = the_packages(model)
    reference.set_target_bandwidth(kbps)
    audio = noise(2, model.channels, 60_000 if name == "48khz" else 9_000)
    expected = get_quantized_embeddings(reference, audio)
    got = model.get_quantized_embeddings(audio)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, **close)
    assert torch.equal(model.get_embeddings(audio), got)
    assert float((got - model.get_encoder_embeddings(audio)).abs().max()) > 1e-3


@torch.no_grad()
def test_embeddings_equal_transformers_model_of_the_same_seed() -> None:
    architecture = transformers.EncodecConfig(**MODELS["24khz"], **SIZES["tiny"])

    def build() -> Any:
        drawn = transformers.EncodecModel(architecture)
        draw_codebooks(drawn.quantizer, "24khz")
        return drawn.eval()

    reference = random_weights(0, build)
    model, audio = make(), noise(1, 1, 12_345)
    embeddings = reference.encoder(audio)
    torch.testing.assert_close(model.get_embeddings(audio), embeddings, **close)
    codes = reference.encode(audio, bandwidth=6.0).audio_codes[0]
    decoded = reference.quantizer.decode(codes.transpose(0, 1))
    torch.testing.assert_close(model.get_quantized_embeddings(audio), decoded, **close)


@pytest.mark.parametrize("method", ["mean", "max", "attention"])
@torch.no_grad()
def test_global_embeddings_are_the_descriptions(method: Any) -> None:
    model, audio = make(), noise(2, 1, 9_000)
    expected = get_global_embeddings(model.encodec.encoder(audio), method)
    torch.testing.assert_close(model.get_global_embeddings(audio, method), expected, **close)
    embeddings = model.get_embeddings(audio)
    torch.testing.assert_close(model.get_global_embeddings(embeddings, method), expected, **close)
    peaked = 100 * embeddings  # the softmax is all but flat on 0.03
    torch.testing.assert_close(
        model.get_global_embeddings(peaked, method), get_global_embeddings(peaked, method), **close
    )


@torch.no_grad()
def test_multi_scale_embeddings_are_the_descriptions() -> None:
    model, audio = make(), noise(2, 1, 9_000)
    expected = get_multi_scale_embeddings(model.encodec, audio)
    got = model.get_multi_scale_embeddings(audio)
    assert got.shape == (2, 3 * DIM)
    torch.testing.assert_close(got, expected, **close)
    torch.testing.assert_close(
        model.get_multi_scale_embeddings(model.get_embeddings(audio)), expected, **close
    )


@pytest.mark.parametrize("name", ["24khz", "48khz"])
@pytest.mark.parametrize("embedding", ["encoder", "quantized"])
@torch.no_grad()
def test_padding_changes_nothing(name: str, embedding: Any) -> None:
    model = make(name, pooling="multi_scale", embedding=embedding)
    lengths = torch.tensor([9_000, 321, 50_000])
    audio = noise(3, model.channels, 50_000)
    for item, length in enumerate(lengths.tolist()):
        audio[item, :, length:] = 0
    functions: dict[str, Callable[..., Tensor]] = {
        "logits": model,
        "multi-scale": model.get_multi_scale_embeddings,
        **{m: lambda a, n, m=m: model.get_global_embeddings(a, m, n) for m in ("mean", "max", "attention")},
    }
    for key, function in functions.items():
        together = function(audio, lengths)
        for item, length in enumerate(lengths.tolist()):
            alone = function(audio[item : item + 1, :, :length], None)
            torch.testing.assert_close(together[item : item + 1], alone, rtol=1e-4, atol=1e-5, msg=key)


@torch.no_grad()
def test_classification_by_hand() -> None:
    """Mean over time, then the described perceptron of 256, 128 and 8."""
    model, audio = make(), noise(2, 1, 5_000)
    layers = [layer for layer in model.classifier if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(DIM, 256), (256, 128), (128, 8)]
    x = model.encodec.encoder(audio).mean(-1)
    for layer in layers[:-1]:
        x = (x @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(model(audio), x @ layers[-1].weight.T + layers[-1].bias, **close)


def test_encodec_is_frozen_until_it_is_asked_for() -> None:
    model, audio = make().train(), noise(2, 1, 2_000)
    assert model.classifier.training
    assert not any(module.training for module in model.encodec.modules())
    model(audio).square().sum().backward()
    assert all(parameter.grad is None for parameter in model.encodec.parameters())
    assert all(parameter.grad is not None for parameter in model.classifier.parameters())
    model.unfreeze()
    assert model.encodec.training
    assert not model.eval().encodec.training


def test_fine_tuning_as_described() -> None:
    model, audio = make(), noise(2, 1, 2_000)
    # Unfreeze encoder layers
    for param in model.encodec.encoder.parameters():
        param.requires_grad = True

    # Use smaller learning rate for pre-trained parts
    optimizer = torch.optim.Adam([
        {'params': model.encodec.encoder.parameters(), 'lr': 1e-5},
        {'params': model.classifier.parameters(), 'lr': 1e-3}
    ])  # fmt: skip
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    nn.functional.cross_entropy(model.train()(audio), torch.tensor([0, 3])).backward()
    optimizer.step()
    moved = {
        name: float((parameter.detach() - before[name]).abs().max())
        for name, parameter in model.named_parameters()
    }
    assert all(0 < step <= 1.1e-3 for step in moved.values())
    assert max(step for name, step in moved.items() if name.startswith("encodec")) <= 1.1e-5


def test_gradients_pass_straight_through_the_quantizer() -> None:
    model = make(embedding="quantized").unfreeze()
    model(noise(1, 1, 2_000)).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.encodec.parameters())


def test_saved_once_and_loaded_as_it_was() -> None:
    model = make(embedding="quantized")
    state = model.state_dict()
    storages = {tensor.untyped_storage().data_ptr() for tensor in state.values() if tensor.numel()}
    assert len(storages) == len([tensor for tensor in state.values() if tensor.numel()])
    other = make(embedding="quantized", seed=5)
    audio = noise(1, 1, 3_000)
    with torch.no_grad():
        assert not torch.allclose(other(audio), model(audio), atol=1e-4)
        other.load_state_dict(state)
        assert torch.equal(other(audio), model(audio))


def test_the_default_is_the_published_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ValueError, match=r"`weights` facebook/encodec_24khz: no model found.*`weights: random`"
    ):
        EmotionDetectionModel(num_classes=8)


def test_errors_name_value_and_bound() -> None:
    model = make("48khz")
    with pytest.raises(ValueError, match=r"shape \(1, 1, 500\); EnCodec 48khz takes \(batch, 2, samples\)"):
        model(torch.zeros(1, 1, 500))
    with pytest.raises(ValueError, match="method is 'median'; choose one of mean, max, attention"):
        model.get_global_embeddings(torch.zeros(1, 2, 500), "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an item of 0 samples has no frame"):
        model(torch.zeros(2, 2, 500), torch.tensor([500, 0]))
