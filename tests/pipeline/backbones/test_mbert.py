"""BERT against transformers' own model and tokenizer, long texts, and the stand-in tokenizer."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from stillwave.pipeline.backbones.mbert import Mbert, MbertConfig, WordHashTokenizer

TEXT = "the cat sat on a mat, ja! Hauses Katze"


def mbert(weights: Path | str, **changes: Any) -> Mbert:
    return Mbert(MbertConfig(kind="mbert", weights=str(weights), **changes)).eval()


def test_equals_transformers(
    folders: dict[str, Path], alone: Callable[..., Tensor], relative_error: Callable[..., float]
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["bert"])
    model = transformers.BertModel.from_pretrained(folders["bert"], dtype=torch.float32).eval()
    inputs = tokenizer(TEXT, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs, output_hidden_states=True)
    backbone = mbert(folders["bert"], layers="all")
    ids = backbone.tokenize(TEXT)
    assert ids == inputs["input_ids"][0].tolist()
    assert tokenizer.convert_ids_to_tokens(ids)[-4:] == ["Haus", "##es", "[UNK]", "[SEP]"]
    states = alone(backbone, torch.tensor(ids))
    for index, state in enumerate(expected.hidden_states):
        assert relative_error(states[:, index], state[0]) <= 1e-5
    assert torch.equal(alone(mbert(folders["bert"]), torch.tensor(ids)), states[:, -1])


@pytest.mark.parametrize("weights", ["bert", "random"])
def test_long_text_is_cut_and_told(
    weights: str, folders: dict[str, Path], caplog: pytest.LogCaptureFixture, alone: Callable[..., Tensor]
) -> None:
    backbone = mbert(folders.get(weights, weights), size="tiny")
    assert len(backbone.tokenize("cat " * 510)) == 512
    with caplog.at_level(logging.WARNING):
        assert caplog.text == ""
        ids = backbone.tokenize("cat " * 2000)
        for _ in range(9):
            backbone.tokenize("dog " * 600)
    whole = backbone.tokenizer("cat " * 2000)
    assert ids == [*whole[:511], whole[-1]]
    assert "1 text(s) cut so far; this one of 2002 tokens keeps its first 511 and [SEP]" in caplog.text
    assert "10 text(s) cut so far; this one of 602 tokens" in caplog.text
    assert len(caplog.records) == 2
    assert backbone.num_truncated == 10
    assert alone(backbone, torch.tensor(ids)).shape == (512, backbone.dim)


def test_long_text_can_be_an_error() -> None:
    backbone = mbert("random", size="tiny", long_text="quarantine")
    with pytest.raises(ValueError, match=r"text of 602 tokens; the model takes 512.*long_text: truncate"):
        backbone.tokenize("cat " * 600)
    with pytest.raises(ValueError, match="602 tokens; the model takes 512"):
        backbone.num_frames(602)


def test_word_hash_tokenizer() -> None:
    tokenize = WordHashTokenizer(8192)
    first, second = tokenize("Ich bin da, ich!"), tokenize("ich")
    assert len(first) == 2 + 6  # four words and two marks
    assert first[0] == second[0] == tokenize.cls_id
    assert first[-1] == second[-1] == tokenize.sep_id
    assert first[5] == second[1] != first[1]  # the same word, whatever surrounds it; case counts
    assert tokenize("") == [tokenize.cls_id, tokenize.sep_id]
    urdu_and_chinese = [360, 6006, 6486, 6753]  # fixed for all time: another rule needs another `name`
    assert tokenize("میں خوش ہوں 我很高兴")[1:-1] == urdu_and_chinese
    ids = [i for n in range(3000) for i in tokenize(f"word{n}")[1:-1]]
    assert min(ids) >= tokenize.first_id
    assert max(ids) < 8192
    assert len(set(ids)) > 2400  # 3000 words in 8189 bins leave 2510 distinct on average


def test_the_tokenizer_is_in_the_fingerprint(folders: dict[str, Path], tmp_path: Path) -> None:
    original = mbert(folders["bert"]).fingerprint()
    folder = shutil.copytree(folders["bert"], tmp_path / "lower")
    vocab = transformers.AutoTokenizer.from_pretrained(folder).get_vocab()
    transformers.BertTokenizer(vocab=vocab, do_lower_case=True).save_pretrained(folder)
    changed = mbert(folder).fingerprint()
    assert changed["weights"] == original["weights"]
    assert changed["preprocessing"]["tokenizer"] != original["preprocessing"]["tokenizer"]


def test_a_tokenizer_of_another_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "foreign")
    vocab = {
        word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(99))])
    }
    transformers.BertTokenizer(vocab=vocab).save_pretrained(folder)
    with pytest.raises(ValueError, match="the tokenizer has 104 ids, the model 20"):
        mbert(folder)


def test_a_folder_without_its_tokenizer_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """transformers would continue with an empty vocabulary and make every word [UNK]."""
    folder = shutil.copytree(
        folders["bert"], tmp_path / "bare", ignore=shutil.ignore_patterns("token*", "vocab*")
    )
    with pytest.raises(ValueError, match=r"no tokenizer.json or vocab.txt there"):
        mbert(folder)


def test_older_checkpoints_load_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    """bert-base-multilingual-cased is one: a prefix, pre-training heads and gamma/beta for layer norms."""
    folder = shutil.copytree(folders["bert"], tmp_path / "older")
    weights = {"cls.predictions.bias": torch.zeros(20)}
    for name, tensor in load_file(folder / "model.safetensors").items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        weights[f"bert.{old}"] = tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert mbert(folder).fingerprint() == mbert(folders["bert"]).fingerprint()
