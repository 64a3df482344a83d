"""CTC's greedy decoding against transformers' own processor."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from stillwave.pipeline.transcribe.config import CtcTranscriberConfig
from stillwave.pipeline.transcribe.ctc import Ctc, collapsed
from tests.pipeline.transcribe.conftest import noise


def build(folder: Path, **changes: Any) -> Ctc:
    return Ctc(CtcTranscriberConfig(kind="ctc", weights=str(folder), **changes), torch.device("cpu"))


def test_repetitions_become_one_unless_a_blank_is_between() -> None:
    assert collapsed([0, 3, 3, 0, 0, 3, 4, 4, 4, 0], blank=0) == [3, 3, 4]
    assert collapsed([0, 0], blank=0) == []


def test_texts_equal_those_of_transformers(ctc_folder: Path) -> None:
    processor: Any = transformers.Wav2Vec2Processor.from_pretrained(ctc_folder)
    model: Any = transformers.Wav2Vec2ForCTC.from_pretrained(ctc_folder, dtype=torch.float32).eval()
    ctc, found = build(ctc_folder), set()
    for seed in range(4):
        item = noise(9000 + 4000 * seed, seed)
        with torch.inference_mode():
            given = processor(item, sampling_rate=16000, return_tensors="pt")
            ids = model(**given).logits.argmax(-1)
        # Without blanks, as skip_special_tokens has it, theirs would make one of a double letter.
        expected = re.sub("</?s>|<unk>", "", processor.batch_decode(ids)[0]).strip()
        assert ctc.transcribe(item, None) == expected
        found.add(expected)
    assert len(found) > 1
    assert max(map(len, found)) > 3


def test_longer_audio_is_cut_into_equal_windows(ctc_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctc, item = build(ctc_folder), noise(30_000, seed=2)
    whole = ctc.transcribe(item, None)
    monkeypatch.setattr("stillwave.pipeline.transcribe.ctc.WINDOW_S", 1.0)
    halves = [ctc.transcribe(part, None) for part in np.split(item, 2)]
    assert ctc.transcribe(item, None) == " ".join(filter(None, halves)) != whole


def test_a_model_has_the_language_that_its_config_says(ctc_folder: Path) -> None:
    assert (build(ctc_folder).languages, build(ctc_folder).default) == (None, None)
    assert build(ctc_folder, language="en").languages == {"en"}


def test_folders_without_a_ctc_head_or_a_vocabulary(
    ctc_folder: Path, whisper_folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"model_type 'whisper', which has no CTC head .*; kind ctc takes .*wav2"
    ):
        build(whisper_folders["english"])
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((ctc_folder / name).read_bytes())
    with pytest.raises(ValueError, match="no feature extractor or tokenizer that can be read"):
        build(tmp_path)
