"""Resemblyzer's speaker encoder: against librosa's mel and torch's LSTM, window by window."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stillwave.pipeline.backbones import Backbone, build_backbone
from stillwave.pipeline.backbones.resemblyzer import amplified


def by_hand(waveform: Tensor, checkpoint: Path, starts: list[int]) -> Tensor:
    """Vectors of windows of 160 mel frames, after Resemblyzer 0.1.4's audio.py and voice_encoder.py."""
    librosa = pytest.importorskip("librosa", reason="needs librosa, which NeMo brings")
    samples = waveform.numpy()
    samples = samples * max(1, 10 ** (-30 / 20) / np.sqrt(np.mean(samples**2)))
    samples = np.pad(samples, (0, max(0, (starts[-1] + 160) * 160 - len(samples))))
    mel = librosa.feature.melspectrogram(y=samples, sr=16000, n_fft=400, hop_length=160, n_mels=40)
    windows = torch.from_numpy(np.stack([mel.T[start : start + 160] for start in starts])).float()
    state = torch.load(checkpoint, weights_only=True)["model_state"]
    lstm, linear = nn.LSTM(40, 256, 3, batch_first=True), nn.Linear(256, 256)
    lstm.load_state_dict({n.removeprefix("lstm."): t for n, t in state.items() if n.startswith("lstm.")})
    linear.load_state_dict({n: state[f"linear.{n}"] for n in ("weight", "bias")})
    with torch.inference_mode():
        _, (hidden, _) = lstm(windows)
        raw = linear(hidden[-1]).relu()
    return raw / raw.norm(dim=1, keepdim=True)


# Windows of 25,600 samples, every 12,320: one more from the length that fills three quarters of it.
@pytest.mark.parametrize(
    ("length", "starts"),
    [(700, [0]), (25_600, [0]), (31_519, [0]), (31_520, [0, 77]), (60_000, [0, 77, 154, 231])],
)
@pytest.mark.parametrize("loudness", [1.0, 0.01])
def test_vectors_equal_those_by_hand(
    length: int,
    starts: list[int],
    loudness: float,
    configure: Callable[..., Any],
    waveform: Callable[[int], Tensor],
    alone: Callable[[Backbone, Tensor], Tensor],
) -> None:
    config = configure("resemblyzer", hop_s=0.77)
    item = loudness * waveform(length)
    found = alone(build_backbone(config), item)
    expected = by_hand(item, Path(config.weights), starts)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 1e-5
    assert torch.allclose(found.norm(dim=1), torch.ones(len(starts)))


def test_only_quiet_clips_are_amplified() -> None:
    """To -30 dB of full scale, by their own samples alone."""
    wave = torch.tensor([[0.5, -0.5, 9.0, 9.0], [0.001, -0.001, 0.001, -0.001], [0.0, 0.0, 0.0, 0.0]])
    found = amplified(wave, torch.tensor([2, 4, 4]))
    assert torch.equal(found[0], torch.tensor([0.5, -0.5, 0, 0]))
    assert found[1].abs().tolist() == pytest.approx([10**-1.5] * 4)
    assert torch.equal(found[2], torch.zeros(4))


def test_what_is_not_its_checkpoint_is_refused(
    configure: Callable[..., Any], tmp_path: Path, folders: dict[str, Path]
) -> None:
    message = r"`weights` .*lacking\.pt: No such file or directory; give the path of Resemblyzer's"
    with pytest.raises(ValueError, match=message):
        build_backbone(configure("resemblyzer", weights=str(tmp_path / "lacking.pt")))
    (tmp_path / "text.pt").write_text("no weights")
    state = torch.load(folders["ge2e"], weights_only=True)
    del state["model_state"]["linear.bias"]
    torch.save(state, tmp_path / "one_missing.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"model_state": Path("a")}, tmp_path / "pickle.pt")
    for name in ("text", "one_missing", "list", "pickle"):
        with pytest.raises(ValueError, match=rf"{name}\.pt: not a speaker encoder of Resemblyzer; give"):
            build_backbone(configure("resemblyzer", weights=str(tmp_path / f"{name}.pt")))


def test_sha256_is_of_the_file(configure: Callable[..., Any], folders: dict[str, Path]) -> None:
    own = hashlib.sha256(folders["ge2e"].read_bytes()).hexdigest()
    with_it = build_backbone(configure("resemblyzer", sha256=own))
    assert with_it.fingerprint() == build_backbone(configure("resemblyzer")).fingerprint()
    with pytest.raises(ValueError, match=r"the sha256 of ge2e is .*, not abc: this is not the file"):
        build_backbone(configure("resemblyzer", sha256="abc"))
