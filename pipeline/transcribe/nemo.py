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
    fitted,
)
from stillwave.pipeline.backbones.fastconformer.nemo_file import ctc_decoder_of, encoder_of, read_nemo
from stillwave.pipeline.transcribe.config import NemoTranscriberConfig
from stillwave.pipeline.transcribe.ctc import WINDOW_S, GreedyCtc

SHOWN = {"<unk>": " ⁇ "}  # as SentencePiece shows it
SPACE = "▁"  # SentencePiece's mark of where a word begins


class Nemo(GreedyCtc):
    """A FastConformer, as our own backbone runs it, and the CTC decoder of its file."""

    version = 1
    libraries = ("torch",)
    config: NemoTranscriberConfig

    def __init__(self, config: NemoTranscriberConfig, device: torch.device) -> None:
        super().__init__(config, device)
        fields = {"weights": config.weights, "revision": config.revision, "download": config.download}
        settings = FastConformerConfig(kind="fastconformer", **fields)
        file = read_nemo(find_nemo(settings))
        decoder, self.vocabulary = ctc_decoder_of(file)
        self.blank = len(self.vocabulary)
        self.encoder = FastConformer(settings, fitted(settings, *encoder_of(file)))
        if decoder.in_features != self.encoder.dim:
            raise ValueError(
                f"`weights` {config.weights}: the decoder takes {decoder.in_features} numbers per frame, "
                f"and the encoder gives {self.encoder.dim}"
            )
        self.model = nn.ModuleDict({"encoder": self.encoder, "decoder": decoder})
        self.model.eval().requires_grad_(False).to(device)
        self.sample_rate = self.encoder.settings.sample_rate

    def logits(self, window: Waveform) -> Tensor:
        batch = torch.from_numpy(window)[None].to(self.device)
        frames, _ = self.encoder(batch, torch.tensor([len(window)]))
        found: Tensor = self.model["decoder"](frames[0])
        return found

    def spelled(self, ids: list[int]) -> str:
        tokens = (self.vocabulary[id_] for id_ in ids)
        return "".join(SHOWN.get(token, token) for token in tokens).replace(SPACE, " ").strip()

    def decoding(self) -> dict[str, Any]:
        return {
            "window_s": WINDOW_S,
            "architecture": asdict(self.encoder.architecture),
            "front": asdict(self.encoder.settings),
            "vocabulary": self.vocabulary,
        }
