"""CTC models of .nemo files, read without NeMo, against NeMo's own decoding."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from stillwave.pipeline.backbones.fastconformer.nemo import import_nemo
from stillwave.pipeline.backbones.quiet import quiet
from stillwave.pipeline.transcribe.config import NemoTranscriberConfig
from stillwave.pipeline.transcribe.ctc import collapsed
from stillwave.pipeline.transcribe.nemo import Nemo
from tests.pipeline.backbones.conftest import small_conformer
from tests.pipeline.backbones.nemo_files import nemo_config, nemo_weights, repacked, save_nemo, saved
from tests.pipeline.transcribe.conftest import noise

LETTERS = [" ", *"etaonihsrdl"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("nemo") is None:
        pytest.skip("needs NeMo: pip install 'stillwave[nemo]'")
    path = tmp_path_factory.mktemp("nemo") / "letters.nemo"
    # Scaled, or the same letter is likeliest everywhere.
    save_nemo(path, LETTERS, small_conformer().state_dict(), decoder_scale=50)
    return path


def build(weights: Path, **changes: Any) -> Nemo:
    return Nemo(NemoTranscriberConfig(kind="nemo", weights=str(weights), **changes), torch.device("cpu"))


def hybrid(file: Path, target: Path) -> Path:
    """The same decoder where a model with a transducer has it."""
    weights: dict[str, Tensor] = {
        name.replace("decoder.", "ctc_decoder.") if name.startswith("decoder.") else name: tensor
        for name, tensor in nemo_weights(file).items()
    }
    config = nemo_config(file)
    config["aux_ctc"] = {"decoder": config.pop("decoder")}
    return repacked(file, target, config=yaml.safe_dump(config).encode(), weights=saved(weights))


def test_texts_equal_those_of_nemo(file: Path, tmp_path: Path) -> None:
    with quiet():
        model: Any = import_nemo().models.ASRModel.restore_from(str(file), map_location="cpu").eval()
    model.preprocessor.featurizer.dither = 0.0
    ours, both, found = build(file), build(hybrid(file, tmp_path / "hybrid.nemo")), set()
    for seed in range(4):
        item = noise(30_000 + 9000 * seed, seed)
        with quiet(), torch.inference_mode():
            signal, lengths = torch.from_numpy(item)[None], torch.tensor([len(item)])
            log_probs, frames, _ = model(input_signal=signal, input_signal_length=lengths)
            (decoded,) = model.decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=frames)
        text = ours.transcribe(item, None)
        assert text == decoded.text.strip()
        assert both.transcribe(item, None) == text
        found.add(text)
    assert len(found) > 1
    assert max(map(len, found)) > 3
    assert ours.fingerprint() == both.fingerprint()


def test_pieces_become_words_as_in_sentencepiece(file: Path, tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    texts = ["the tide is in", "one in ten is lost", "it is done", "a line of stones"] * 20
    (tmp_path / "texts").write_text("\n".join(texts))
    options = {"input": str(tmp_path / "texts"), "model_prefix": str(tmp_path / "pieces"), "vocab_size": 24}
    sentencepiece.SentencePieceTrainer.train(**options, minloglevel=2)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "pieces.model"))
    model = build(file)
    model.vocabulary = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    blank = len(model.vocabulary)
    for text in {*texts, "one zebra"}:  # no token has a z
        ids = [id_ for piece in pieces.encode(text) for id_ in (piece, piece, blank)]
        assert model.spelled(collapsed(ids, blank)) == pieces.decode(pieces.encode(text)).strip()


def test_longer_audio_is_cut_into_equal_windows(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, item = build(file), noise(60_000, seed=2)
    whole = model.transcribe(item, None)
    monkeypatch.setattr("stillwave.pipeline.transcribe.ctc.WINDOW_S", 2.0)
    halves = [model.transcribe(part, None) for part in np.split(item, 2)]
    assert model.transcribe(item, None) == " ".join(filter(None, halves)) != whole


def test_a_model_has_the_language_that_its_config_says(file: Path) -> None:
    assert (build(file).languages, build(file).default) == (None, None)
    assert build(file, language="English").languages == {"en"}


def test_files_without_a_decoder_that_fits(file: Path, tmp_path: Path) -> None:
    config, weights = nemo_config(file), nemo_weights(file)

    def message(**members: bytes) -> str:
        changed = repacked(file, tmp_path / "changed.nemo", **members)
        with pytest.raises(ValueError, match=r"`weights` .*changed\.nemo: ") as caught:
            build(changed)
        return str(caught.value)

    def with_vocabulary(tokens: list[str]) -> bytes:
        return yaml.safe_dump(config | {"decoder": config["decoder"] | {"vocabulary": tokens}}).encode()

    encoder = {name: tensor for name, tensor in weights.items() if name.startswith("encoder.")}
    assert "no CTC decoder in it; use a CTC or a hybrid model" in message(weights=saved(encoder))
    bare = yaml.safe_dump({name: part for name, part in config.items() if name != "decoder"}).encode()
    assert "model_config.yaml has no vocabulary of the CTC decoder" in message(config=bare)
    assert "13 outputs of the CTC decoder, for 2 tokens and a blank" in message(
        config=with_vocabulary(["a", "b"])
    )
    pieces = with_vocabulary(["##ing", *LETTERS[1:]])
    assert "WordPieces, such as ##ing; use a model of characters or of SentencePiece" in message(
        config=pieces
    )
    name = "decoder.decoder_layers.0.weight"
    narrow = saved(weights | {name: weights[name][:, :40]})
    assert "the decoder takes 40 numbers per frame, and the encoder gives 48" in message(weights=narrow)


def test_the_file_is_found_beside_weights_of_transformers(
    file: Path, ctc_folder: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((ctc_folder / name).read_bytes())
    with pytest.raises(ValueError, match=r"lacks a \.nemo file"):
        build(tmp_path)
    (tmp_path / "model.nemo").write_bytes(file.read_bytes())
    assert build(tmp_path).fingerprint() == build(file).fingerprint()
