"""Small seeded models of the real architectures, written by `save_pretrained`: nothing is downloaded."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from stillwave.pipeline.backbones import Backbone, build_backbone, parse_backbone
from stillwave.pipeline.backbones.fastconformer.conformer import Architecture, Conformer
from stillwave.pipeline.backbones.fastconformer.parakeet import build_parakeet
from stillwave.pipeline.backbones.weights import random_weights
from tests.pipeline.backbones.ctranslate2_files import whisper_variables, write_variables
from tests.pipeline.backbones.nemo_files import save_nemo
from tests.pipeline.backbones.variants import VARIANTS

SMALL_WAV2VEC2 = {
    "conv_dim": (24,) * 7,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
}
SMALL_AST = {  # windows of 128 mel frames: 12 steps of 12 patches, 1.2 s from one window to the next
    "max_length": 128,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
SMALL_WHISPER = {  # windows of 2 s: 100 frames
    "d_model": 48,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "max_source_positions": 100,
    "max_target_positions": 20,
    "vocab_size": 60,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
}
SMALL_ENCODEC = {"num_filters": 4, "hidden_size": 16}
ENCODEC_48KHZ = {  # transformers' defaults are the 24 kHz model
    "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
    "sampling_rate": 48000,
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
}
PACKAGE_NAMES = {  # transformers' names in EnCodec's encoder and quantizer, and the encodec package's
    "encoder.layers.": "encoder.model.",
    ".conv.": ".conv.conv.",
    ".norm.": ".conv.norm.",
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
    "quantizer.layers.": "quantizer.vq.layers.",
    ".codebook.": "._codebook.",
}
SMALL_CONFORMER = Architecture(d_model=48, num_layers=3, num_heads=4, ff_dim=96, subsampling_channels=16)
PARAKEET_FRONT = {  # what ParakeetFeatureExtractor, which needs librosa, saves
    "feature_extractor_type": "ParakeetFeatureExtractor",
    "feature_size": 80,
    "hop_length": 160,
    "n_fft": 512,
    "preemphasis": 0.97,
    "sampling_rate": 16000,
    "win_length": 400,
}
WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "ja", "nein", "Haus", "##es", "##en", ",", ".", "!"]


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """`build()` with noise on every parameter: biases of 0 and norm weights of 1 would hide errors."""
    generator = torch.Generator().manual_seed(7)
    model = random_weights(7, build).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.add_(spread)
    return model


def _save_encodec(root: Path, model: str, **settings: Any) -> list[str]:
    """One small EnCodec in two folders, as transformers and as the encodec package name its weights."""
    config = transformers.EncodecConfig(**SMALL_ENCODEC, **settings)
    codec = _seeded(lambda: random_weights(7, lambda: transformers.EncodecModel(config)))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if name.endswith("weight.original0"):  # untrained, the sound fades from layer to layer
                parameter.mul_(2.5)
    for name, buffer in codec.quantizer.named_buffers():
        if name.endswith(".embed"):  # zeros until they are trained
            buffer.normal_(std=0.3, generator=generator)
    names = [f"encodec-{model}", f"encodec-{model}-package"]
    codec.save_pretrained(root / names[0])
    package = {}
    for name, tensor in codec.state_dict().items():
        for ours, theirs in PACKAGE_NAMES.items():
            name = name.replace(ours, theirs)
        if not name.startswith("decoder."):
            package[name] = tensor
    (root / names[1]).mkdir()
    save_file(package, root / names[1] / "model.safetensors")
    return names


def speaker_encoder(seed: int) -> dict[str, Any]:
    """A checkpoint as Resemblyzer's, with seeded weights."""
    parts = nn.ModuleDict({"lstm": nn.LSTM(40, 256, 3), "linear": nn.Linear(256, 256)})
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in parts.state_dict().items()
    }
    return {"step": 1, "model_state": state | {"similarity_weight": torch.ones(1)}, "optimizer_state": {}}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> folder, or only file, of a saved model."""
    root = tmp_path_factory.mktemp("models")
    transformers.utils.logging.disable_progress_bar()
    layer_norm = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    for name, extra in (("group", {}), ("layer", layer_norm)):
        config = transformers.Wav2Vec2Config(**SMALL_WAV2VEC2, **extra)
        _seeded(lambda config=config: transformers.Wav2Vec2Model(config)).save_pretrained(root / name)
        (root / name / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    config = transformers.ASTConfig(**SMALL_AST)
    _seeded(lambda: transformers.ASTModel(config)).save_pretrained(root / "ast")
    (root / "ast" / "preprocessor_config.json").write_text(json.dumps({"mean": -6.5, "std": 5.5}))
    config = transformers.WhisperConfig(**SMALL_WHISPER)
    whisper = _seeded(lambda: transformers.WhisperModel(config))
    whisper.save_pretrained(root / "whisper")
    (root / "whisper-ct2").mkdir()
    (root / "whisper-ct2" / "config.json").write_text("{}")
    write_variables(root / "whisper-ct2" / "model.bin", whisper_variables(whisper.state_dict(), heads=4))
    parakeet = build_parakeet(SMALL_CONFORMER, small_conformer().state_dict())
    parakeet.model.save_pretrained(root / "parakeet")
    (root / "parakeet" / "preprocessor_config.json").write_text(json.dumps(PARAKEET_FRONT))
    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = transformers.BertTokenizer(vocab=vocab, do_lower_case=False)
    tokenizer.save_pretrained(root / "bert")
    config = transformers.BertConfig(
        vocab_size=len(vocab),
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
    )
    _seeded(lambda: transformers.BertModel(config)).save_pretrained(root / "bert")
    ge2e = ("ge2e", "ge2e-other")
    for seed, name in enumerate(ge2e):
        torch.save(speaker_encoder(seed), root / name)
    encodec = [*_save_encodec(root, "24khz"), *_save_encodec(root, "48khz", **ENCODEC_48KHZ)]
    names = ("group", "layer", "ast", "whisper", "whisper-ct2", "parakeet", "bert", *ge2e, *encodec)
    return {name: root / name for name in names}


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small ONNX graphs."""
    pytest.importorskip("onnx", reason="needs onnx and onnxruntime: pip install 'stillwave[onnx]'")
    from tests.pipeline.backbones.onnx_files import write_graphs

    folder = tmp_path_factory.mktemp("graphs")
    write_graphs(folder)
    return folder


def small_conformer() -> Conformer:
    """A seeded Conformer, with statistics in its batch norms that are not those of a new one."""
    model = _seeded(lambda: random_weights(6, lambda: Conformer(SMALL_CONFORMER)))
    generator = torch.Generator().manual_seed(8)
    for layer in model.layers:
        layer.conv.norm.running_mean.normal_(0, 0.2, generator=generator)
        layer.conv.norm.running_var.uniform_(0.5, 2, generator=generator)
    return model


@pytest.fixture(scope="session")
def nemo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .nemo file of NeMo's own saving: a character CTC model with the small Conformer's weights."""
    if importlib.util.find_spec("nemo") is None:
        pytest.skip("needs NeMo: pip install 'stillwave[nemo]'")
    path = tmp_path_factory.mktemp("nemo") / "small.nemo"
    save_nemo(path, list("abc "), small_conformer().state_dict())
    return path


@pytest.fixture(scope="session")
def pad() -> Callable[[list[Tensor]], tuple[Tensor, Tensor]]:
    """Items of one dtype -> zero-padded batch and lengths."""

    def pad(items: list[Tensor]) -> tuple[Tensor, Tensor]:
        return nn.utils.rnn.pad_sequence(items, batch_first=True), torch.tensor([len(item) for item in items])

    return pad


@pytest.fixture(scope="session")
def alone(pad: Callable[[list[Tensor]], tuple[Tensor, Tensor]]) -> Callable[[Backbone, Tensor], Tensor]:
    """The frames of one item in a batch of its own: (frames, [layers,] dim)."""

    def alone(backbone: Backbone, item: Tensor) -> Tensor:
        with torch.inference_mode():
            return backbone(*pad([item])).values[0]

    return alone


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """max |a - b| / max |b|: the worst deviation from b, in units of b's largest value."""
    return lambda a, b: float((a - b).abs().max() / b.abs().max())


@pytest.fixture(scope="session")
def waveform() -> Callable[[int], Tensor]:
    """`waveform(n)`: n samples of a seeded, speech-like mixture: gliding harmonics, an envelope, noise."""

    def waveform(num_samples: int) -> Tensor:
        generator = torch.Generator().manual_seed(num_samples)
        time = torch.arange(num_samples) / 16000
        phase = 2 * torch.pi * (120 * time + 15 * torch.sin(5 * time))
        voice = sum(torch.sin(k * phase) / k for k in range(1, 12))
        noise = torch.randn(num_samples, generator=generator)
        return 0.1 * (1 + torch.sin(20 * time)) * voice + 0.01 * noise + 0.02

    return waveform


@pytest.fixture(scope="session")
def configure(folders: dict[str, Path], request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`configure(variant, **changes)`: its config, with folder names made paths."""

    def configure(variant: str, **changes: Any) -> Any:
        raw = VARIANTS[variant] | changes
        if raw.get("weights") in folders:
            raw = raw | {"weights": str(folders[raw["weights"]])}
        named = [name for name in ("graph", "front") if raw.get(name) and "/" not in raw[name]]
        if named:
            graphs = request.getfixturevalue("graphs")
            raw = raw | {name: str(graphs / raw[name]) for name in named}
        if raw.get("weights") == "small.nemo":  # written when first asked for: NeMo takes seconds to import
            raw = raw | {"weights": str(request.getfixturevalue("nemo_file"))}
        return parse_backbone(raw, variant, trusted=True)

    return configure


@pytest.fixture(scope="session", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def backbone(variant: str, configure: Callable[..., Any]) -> Backbone:
    return build_backbone(configure(variant))


@pytest.fixture(scope="session")
def make_item(backbone: Backbone, waveform: Callable[[int], Tensor]) -> Callable[[int], Tensor]:
    """`make_item(n)`: n samples, of two differing channels where there are two, or n token ids."""

    def tokens(length: int) -> Tensor:
        return torch.tensor(backbone.tokenize("the cat sat on a mat , ja nein Haus ! " * length)[:length])

    def stereo(length: int) -> Tensor:
        return torch.stack([waveform(length), waveform(length + 100)[100:]], dim=1)

    if backbone.modality == "text":
        return tokens
    return waveform if backbone.channels == 1 else stereo
