"""Small seeded models that transcribe, with tokenizers: what they hear is no word, but always the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from stillwave.pipeline.transcribe.whisper import MULTILINGUAL
from tests.pipeline.backbones.conftest import SMALL_WAV2VEC2, SMALL_WHISPER, _seeded
from tests.pipeline.backbones.ctranslate2_files import whisper_variables, write_variables

SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|fr|>", "<|transcribe|>",
    "<|notimestamps|>",
)  # fmt: skip
SUPPRESSED = {"suppress_tokens": [1, 2, 3], "begin_suppress_tokens": [4]}
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLU"]


def write_tokenizer(folder: Path, words: int) -> None:
    """Words w0, w1, ... and, behind them, Whisper's special tokens."""
    vocabulary = {name: i for i, name in enumerate([*(f"w{i}" for i in range(words)), *SPECIAL])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="session")
def whisper_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """english and multilingual: folders of transformers; english-ct2: the first one's weights."""
    root = tmp_path_factory.mktemp("whisper")
    transformers.utils.logging.disable_progress_bar()
    found = {}
    for name, vocab_size in (("english", 200), ("multilingual", MULTILINGUAL)):
        found[name] = root / name
        end = vocab_size - len(SPECIAL)
        ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), end)
        config = transformers.WhisperConfig(**SMALL_WHISPER | {"vocab_size": vocab_size} | ids)
        model: Any = _seeded(lambda config=config: transformers.WhisperForConditionalGeneration(config))
        model.save_pretrained(found[name])
        (found[name] / "generation_config.json").write_text(json.dumps(SUPPRESSED))
        write_tokenizer(found[name], end)
        if name == "english":
            found["english-ct2"] = folder = root / "english-ct2"
            folder.mkdir()
            variables = whisper_variables(model.model.state_dict(), heads=4)
            write_variables(folder / "model.bin", variables)
            names = {"suppress_ids": "suppress_tokens", "suppress_ids_begin": "begin_suppress_tokens"}
            settings = {name: SUPPRESSED[theirs] for name, theirs in names.items()}
            (folder / "config.json").write_text(json.dumps(settings))
            write_tokenizer(folder, end)
    return found


@pytest.fixture(scope="session")
def ctc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav2vec 2.0 with a CTC head of letters."""
    folder = tmp_path_factory.mktemp("ctc")
    transformers.utils.logging.disable_progress_bar()
    config = transformers.Wav2Vec2Config(**SMALL_WAV2VEC2, vocab_size=len(LETTERS), pad_token_id=0)
    model: Any = _seeded(lambda: transformers.Wav2Vec2ForCTC(config))
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # or the same letter is likeliest everywhere
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
    transformers.Wav2Vec2CTCTokenizer(folder / "vocab.json").save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def noise(num_samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise whose loudness changes, so that what is heard does."""
    rng = np.random.default_rng(seed)
    swell = np.abs(np.sin(np.arange(num_samples) / (1000 + 300 * seed)))
    return (0.3 * swell * rng.standard_normal(num_samples)).astype(np.float32)
