"""NVIDIA's FastConformer models trained with CTC: greedy decoding of a .nemo file, without NeMo."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from stillwave.pipeline.audio.decode import Waveform
from stillwave.pipeline.backbones.fastconformer.backbone import (
    FastConformer,
    FastConformerConfig,
    find_nemo,
)
from stillwave.pipeline.backbones.fastconformer.nemo_file import read_ctc_decoder
from stillwave.pipeline.backbones.numerics import compute_in
from stillwave.pipeline.transcribe.base import Transcriber, only_language, windows
from stillwave.pipeline.transcribe.config import NemoTranscriberConfig
from stillwave.pipeline.transcribe.ctc import WINDOW_S, collapsed

SHOWN = {"<unk>": " ⁇ "}  # as SentencePiece shows it
SPACE = "▁"  # SentencePiece's mark of where a word begins


class Nemo(Transcriber):
    """The likeliest token of each frame of the encoder; repetitions become one, and blanks are dropped."""

    version = 1
    libraries = ("torch",)
    config: NemoTranscriberConfig

    def __init__(self, config: NemoTranscriberConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        fields = {"weights": config.weights, "revision": config.revision, "download": config.download}
        file = find_nemo(FastConformerConfig(kind="fastconformer", **fields))
        decoder, self.vocabulary = read_ctc_decoder(file)
        self.encoder = FastConformer(FastConformerConfig(kind="fastconformer", weights=str(file)))
        if decoder.in_features != self.encoder.dim:
            raise ValueError(
                f"`weights` {config.weights}: the decoder takes {decoder.in_features} numbers per frame, "
                f"and the encoder gives {self.encoder.dim}"
            )
        self.model = nn.ModuleDict({"encoder": self.encoder, "decoder": decoder})
        self.model.eval().requires_grad_(False).to(device)
        self.sample_rate = self.encoder.settings.sample_rate
        self.default = only_language(config)
        self.languages = {self.default} if self.default else None

    def transcribe(self, waveform: Waveform, language: str | None) -> str:
        texts = []
        with torch.inference_mode(), compute_in("fp32", self.device):
            for window in windows(waveform, round(WINDOW_S * self.sample_rate)):
                batch = torch.from_numpy(window)[None].to(self.device)
                frames, _ = self.encoder(batch, torch.tensor([len(window)]))
                texts.append(self.text(self.model["decoder"](frames[0])))
        return " ".join(filter(None, texts))

    def text(self, logits: Tensor) -> str:
        """The text of (frames, tokens + 1); the last token is the blank."""
        ids = collapsed(logits.argmax(-1).tolist(), blank=len(self.vocabulary))
        tokens = (self.vocabulary[id_] for id_ in ids)
        return "".join(SHOWN.get(token, token) for token in tokens).replace(SPACE, " ").strip()

    def decoding(self) -> dict[str, Any]:
        return {
            "window_s": WINDOW_S,
            "architecture": asdict(self.encoder.architecture),
            "front": asdict(self.encoder.settings),
            "vocabulary": self.vocabulary,
        }
