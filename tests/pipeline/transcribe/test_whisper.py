"""Whisper's greedy decoding against a loop over transformers' own model; prompts, windows, wrong folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from stillwave.pipeline.transcribe.config import WhisperTranscriberConfig
from stillwave.pipeline.transcribe.whisper import MULTILINGUAL, Whisper
from tests.pipeline.transcribe.conftest import SPECIAL, SUPPRESSED, noise

LEAD = 1600  # samples
WINDOW = 2 * 16000 - LEAD


def build(folder: Path, **changes: Any) -> Whisper:
    fields = {"lead_s": LEAD / 16000} | changes
    return Whisper(
        WhisperTranscriberConfig(kind="whisper", weights=str(folder), **fields), torch.device("cpu")
    )


def by_hand(
    folder: Path, waveform: NDArray[np.float32], *prompt: str, only: slice = slice(None)
) -> list[int]:
    """Token by token, the likeliest that may be said; `only`: the ids that are considered."""
    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    extractor = transformers.WhisperFeatureExtractor(chunk_length=2)
    heard = np.concatenate([np.zeros(LEAD, np.float32), waveform])
    features = extractor(heard, sampling_rate=16000, return_tensors="pt")["input_features"]
    first = model.config.vocab_size - len(SPECIAL)
    ids = [first + SPECIAL.index(token) for token in prompt]
    said: list[int] = []
    while len(ids) + len(said) < 10 + len(prompt):
        with torch.no_grad():
            logits = model.eval()(features, decoder_input_ids=torch.tensor([ids + said])).logits[0, -1]
        logits[SUPPRESSED["suppress_tokens"]] = -torch.inf
        if not said:
            logits[SUPPRESSED["begin_suppress_tokens"]] = -torch.inf
        allowed = torch.full_like(logits, -torch.inf)
        allowed[only] = logits[only]
        said.append(int(allowed.argmax()))
        if said[-1] == first:
            break
    return said


def words(ids: list[int], vocab_size: int) -> str:
    return " ".join(f"w{i}" for i in ids if i < vocab_size - len(SPECIAL))


@pytest.mark.parametrize("name", ["english", "english-ct2"])
@pytest.mark.parametrize("num_samples", [3000, 16000, WINDOW])
def test_an_english_model_equals_a_loop_by_hand(
    name: str, num_samples: int, whisper_folders: dict[str, Path]
) -> None:
    """Its prompt is start and no timestamps; words that are suppressed are never said."""
    whisper, item = build(whisper_folders[name]), noise(num_samples, seed=num_samples % 7)
    said = by_hand(whisper_folders["english"], item, "<|startoftranscript|>", "<|notimestamps|>")
    assert len(said) > 2
    assert whisper.transcribe(item, "en") == words(said, 200)
    assert (whisper.languages, whisper.default) == ({"en"}, "en")


def test_what_is_heard_depends_on_the_waveform_alone(whisper_folders: dict[str, Path]) -> None:
    whisper = build(whisper_folders["english"])
    texts = [whisper.transcribe(noise(16000, seed), "en") for seed in range(4)]
    assert len(set(texts)) > 1
    assert [whisper.transcribe(noise(16000, seed), "en") for seed in (3, 0)] == [texts[3], texts[0]]


def test_a_multilingual_model_is_told_the_language_or_detects_it(whisper_folders: dict[str, Path]) -> None:
    folder, item = whisper_folders["multilingual"], noise(16000, seed=1)
    whisper = build(folder)
    assert (whisper.languages, whisper.default) == ({"en", "de", "fr"}, None)
    rest = ("<|transcribe|>", "<|notimestamps|>")
    told = {
        code: words(by_hand(folder, item, "<|startoftranscript|>", f"<|{code}|>", *rest), MULTILINGUAL)
        for code in ("en", "de", "fr")
    }
    assert {code: whisper.transcribe(item, code) for code in told} == told
    first = MULTILINGUAL - len(SPECIAL)
    languages = slice(first + 2, first + 5)
    detected = by_hand(folder, item, "<|startoftranscript|>", only=languages)[0]
    assert whisper.transcribe(item, None) == told[SPECIAL[detected - first].strip("<|>")]
    only = build(folder, language="German")
    assert (only.languages, only.default) == ({"de"}, "de")


def test_longer_audio_is_cut_into_equal_windows(whisper_folders: dict[str, Path]) -> None:
    whisper, item = build(whisper_folders["english"]), noise(WINDOW + 2000, seed=2)
    halves = np.split(item, 2)
    assert whisper.transcribe(item, "en") == " ".join(whisper.transcribe(half, "en") for half in halves)


def test_the_fingerprint_covers_weights_and_settings(whisper_folders: dict[str, Path]) -> None:
    whisper = build(whisper_folders["english"]).fingerprint()
    assert whisper == build(whisper_folders["english"]).fingerprint() == json.loads(json.dumps(whisper))
    assert whisper["decoding"]["suppress_tokens"] == SUPPRESSED["suppress_tokens"]
    assert build(whisper_folders["english"], lead_s=0).fingerprint() != whisper
    assert build(whisper_folders["english-ct2"]).fingerprint() == whisper


def test_folders_that_cannot_be_used(whisper_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(whisper_folders["english"], tmp_path / "other")
    with pytest.raises(ValueError, match=r"`language` de: the model .*other takes English alone"):
        build(folder, language="de")
    with pytest.raises(
        ValueError, match="`language` klingon: not one that Whisper knows; write an ISO 639-1"
    ):
        build(folder, language="klingon")
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<|notimestamps|>", "<|other|>"))
    with pytest.raises(
        ValueError, match=r"its tokenizer\.json has no <\|notimestamps\|>: it is not Whisper's"
    ):
        build(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer\.json there; save one: .*save_pretrained\(FOLDER\)"):
        build(folder)
    with pytest.raises(
        ValueError, match=r"\(2\) set `weights` to a local folder with .* and tokenizer\.json$"
    ):
        build(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="random weights transcribe nothing"):
        WhisperTranscriberConfig(kind="whisper", weights="random")
