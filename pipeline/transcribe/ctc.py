"""Models trained with CTC (Graves et al., ICML 2006): greedy decoding of transformers' AutoModelForCTC."""

from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from stillwave.pipeline.audio.decode import Waveform
from stillwave.pipeline.backbones.numerics import compute_in
from stillwave.pipeline.backbones.weights import find_folder, load_pretrained, read_json
from stillwave.pipeline.transcribe.base import Transcriber, only_language, windows
from stillwave.pipeline.transcribe.config import BaseTranscriberConfig, CtcTranscriberConfig

WINDOW_S = 30.0  # attention takes memory by the square of the length


class GreedyCtc(Transcriber):
    """The likeliest token of each frame; repetitions become one, and blanks are dropped."""

    blank: int

    def __init__(self, config: BaseTranscriberConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.default = only_language(config)
        self.languages = {self.default} if self.default else None

    def transcribe(self, waveform: Waveform, language: str | None) -> str:
        with torch.inference_mode(), compute_in("fp32", self.device):
            texts = [
                self.spelled(collapsed(self.logits(window).argmax(-1).tolist(), self.blank))
                for window in windows(waveform, round(WINDOW_S * self.sample_rate))
            ]
        return " ".join(filter(None, texts))

    def logits(self, window: Waveform) -> Tensor:
        """(samples,) -> (frames, tokens)."""
        raise NotImplementedError

    def spelled(self, ids: list[int]) -> str:
        """The text of tokens, stripped."""
        raise NotImplementedError


class Ctc(GreedyCtc):
    """A model of transformers."""

    version = 1
    config: CtcTranscriberConfig

    def __init__(self, config: CtcTranscriberConfig, device: torch.device) -> None:
        super().__init__(config, device)
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES as CLASSES

        folder = find_folder(config)
        model_type = str(read_json(folder / "config.json").get("model_type"))
        if model_type not in CLASSES:
            raise ValueError(
                f"`weights` {config.weights}: its config.json says model_type {model_type!r}, which has no "
                f"CTC head in transformers; kind ctc takes {', '.join(sorted(CLASSES))}"
            )
        model, _ = load_pretrained(config, getattr(transformers, CLASSES[model_type]), ("masked_spec_embed",))
        self.model = model.eval().requires_grad_(False).to(device)
        self.blank = self.model.config.pad_token_id
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            front: Any = transformers.AutoFeatureExtractor
            self.front = front.from_pretrained(folder, **local)
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **local)
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(
                f"`weights` {config.weights}: no feature extractor or tokenizer that can be read: {error}"
            ) from error
        self.sample_rate = int(self.front.sampling_rate)

    def logits(self, window: Waveform) -> Tensor:
        given = self.front(window, sampling_rate=self.sample_rate, return_tensors="pt")
        found: Tensor = self.model(**given.to(self.device)).logits[0]
        return found

    def spelled(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, group_tokens=False, skip_special_tokens=True)
        return text.strip()

    def decoding(self) -> dict[str, Any]:
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return {
            "window_s": WINDOW_S,
            "architecture": _numbers(self.model.config.to_dict()),
            "front": _numbers(self.front.to_dict()),
            "vocabulary": [token for token, _ in vocabulary],
        }


def collapsed(ids: list[int], blank: int) -> list[int]:
    """One id for each run of equal ones, without blanks: a blank in between keeps a double letter."""
    return [id_ for id_, _ in groupby(ids) if id_ != blank]


def _numbers(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the names of places and versions, which differ between copies of one model."""
    return {
        name: value
        for name, value in settings.items()
        if name not in ("_name_or_path", "name_or_path", "transformers_version", "processor_class")
    }
