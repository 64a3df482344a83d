"""Small seeded models of the real architectures, written by `save_pretrained`: nothing is downloaded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from pipeline.backbones import Backbone

SMALL_WAV2VEC2 = {
    "conv_dim": (24,) * 7,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
}
WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "ja", "nein", "Haus", "##es", "##en", ",", ".", "!"]


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """`build()` with noise on every parameter: biases of 0 and norm weights of 1 would hide errors."""
    generator = torch.Generator().manual_seed(7)
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.add_(spread)
    return model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> folder of a saved model: group and layer norm wav2vec2, and a BERT with its tokenizer."""
    root = tmp_path_factory.mktemp("models")
    transformers.utils.logging.disable_progress_bar()
    layer_norm = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    for name, extra in (("group", {}), ("layer", layer_norm)):
        config = transformers.Wav2Vec2Config(**SMALL_WAV2VEC2, **extra)
        _seeded(lambda config=config: transformers.Wav2Vec2Model(config)).save_pretrained(root / name)
        (root / name / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
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
    return {name: root / name for name in ("group", "layer", "bert")}


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
