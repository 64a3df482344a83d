"""Whisper (arXiv 2212.04356), encoder and decoder: greedy decoding by transformers' own `generate`."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillwave.pipeline.audio.decode import Waveform
from stillwave.pipeline.backbones.numerics import compute_in
from stillwave.pipeline.backbones.weights import (
    CTRANSLATE2_WEIGHTS,
    TRANSFORMERS_WEIGHTS,
    find_folder,
    load_pretrained,
    read_json,
    weight_files,
)
from stillwave.pipeline.backbones.whisper.ctranslate2 import read_whisper
from stillwave.pipeline.backbones.whisper.mel import HOP_LENGTH, SAMPLE_RATE, WhisperMel
from stillwave.pipeline.transcribe.base import Transcriber, only_language, windows
from stillwave.pipeline.transcribe.config import WhisperTranscriberConfig

MULTILINGUAL = 51865  # tokens that a multilingual model has at least; an English-only one has 51864
SUPPRESSED = {  # generation_config.json's name, and CTranslate2's
    "suppress_tokens": "suppress_ids",
    "begin_suppress_tokens": "suppress_ids_begin",
}


class Whisper(Transcriber):
    """Whisper in windows of 30 s, as it was trained: what is shorter is followed by silence.

    No timestamps, no temperature fallback, and nothing is carried from one window to the next.
    """

    version = 1
    sample_rate = SAMPLE_RATE
    config: WhisperTranscriberConfig

    def __init__(self, config: WhisperTranscriberConfig, device: torch.device) -> None:
        from tokenizers import Tokenizer

        self.config, self.device = config, device
        folder = find_folder(config, (*TRANSFORMERS_WEIGHTS, CTRANSLATE2_WEIGHTS))
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise ValueError(
                f"`weights` {config.weights}: no tokenizer.json there; save one: "
                "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            )
        self._tokenizer_sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        self.tokenizer = Tokenizer.from_file(str(file))
        self.end = self._id("<|endoftext|>")
        self.model = _load(config, folder, self.end).eval().requires_grad_(False).to(device)
        sizes = self.model.config
        self.mel = WhisperMel(sizes.num_mel_bins).to(device)
        self.window_length = 2 * HOP_LENGTH * sizes.max_source_positions
        self.lead = round(config.lead_s * self.sample_rate)
        self.language_ids = self._language_ids() if self.multilingual else {}
        known, self.default = set(self.language_ids) or {"en"}, only_language(config)
        if self.default is not None and self.default not in known:
            takes = f"{len(known)} languages, not it" if self.multilingual else "English alone"
            raise ValueError(f"`language` {config.language}: the model {config.weights} takes {takes}")
        if not self.multilingual:
            self.default = "en"
        self.languages = {self.default} if self.default else known
        self.model.generation_config = self._generation(folder)

    @property
    def multilingual(self) -> bool:
        return int(self.model.config.vocab_size) >= MULTILINGUAL

    def transcribe(self, waveform: Waveform, language: str | None) -> str:
        texts = []
        with torch.inference_mode(), compute_in("fp32", self.device):
            for window in windows(waveform, self.window_length - self.lead):
                heard = torch.zeros(1, self.window_length)
                heard[0, self.lead : self.lead + len(window)] = torch.from_numpy(window)
                mels = self.mel(heard.to(self.device))
                if self.multilingual and language is None:
                    language = self._detect(mels)  # in the first window, for all of them
                told = {"language": language, "task": "transcribe"} if self.multilingual else {}
                ids = self.model.generate(mels, **told)[0].tolist()
                # All words are below; special tokens and times are above.
                texts.append(self.tokenizer.decode([i for i in ids if i < self.end]).strip())
        return " ".join(filter(None, texts))

    def decoding(self) -> dict[str, Any]:
        names = (*SUPPRESSED, "max_length")
        settings = {name: getattr(self.model.generation_config, name) for name in names}
        heads = [self.model.config.encoder_attention_heads, self.model.config.decoder_attention_heads]
        return {
            "lead_s": self.config.lead_s,
            "tokenizer": self._tokenizer_sha256,
            "attention_heads": heads,
            **settings,
        }

    def _detect(self, mels: torch.Tensor) -> str:
        found = int(self.model.detect_language(mels)[0])
        return next(code for code, id_ in self.language_ids.items() if id_ == found)

    def _language_ids(self) -> dict[str, int]:
        from transformers.models.whisper.tokenization_whisper import LANGUAGES

        found = {code: self.tokenizer.token_to_id(f"<|{code}|>") for code in LANGUAGES}
        return {code: id_ for code, id_ in found.items() if id_ is not None}

    def _generation(self, folder: Path) -> Any:
        """What `generate` needs to know: greedy, the prompt's tokens, and those that are never said."""
        import transformers

        config_class: Any = transformers.GenerationConfig
        said = read_json(folder / "config.json") | read_json(folder / "generation_config.json")
        never = {name: said.get(name, said.get(theirs)) or None for name, theirs in SUPPRESSED.items()}
        prompt = {
            "lang_to_id": {f"<|{code}|>": id_ for code, id_ in self.language_ids.items()},
            "task_to_id": {"transcribe": self._id("<|transcribe|>")},
        }
        return config_class(
            decoder_start_token_id=self._id("<|startoftranscript|>"),
            bos_token_id=self.end,
            eos_token_id=self.end,
            pad_token_id=self.end,
            no_timestamps_token_id=self._id("<|notimestamps|>"),
            max_length=self.model.config.max_target_positions // 2,
            is_multilingual=self.multilingual,
            **never,
            **(prompt if self.multilingual else {}),
        )

    def _id(self, token: str) -> int:
        id_: int | None = self.tokenizer.token_to_id(token)
        if id_ is None:
            raise ValueError(
                f"`weights` {self.config.weights}: its tokenizer.json has no {token}: it is not Whisper's"
            )
        return id_


def _load(config: WhisperTranscriberConfig, folder: Path, end: int) -> nn.Module:
    """transformers' model with the weights of a folder, of transformers or of CTranslate2."""
    import transformers

    model: nn.Module
    file = weight_files(folder, (*TRANSFORMERS_WEIGHTS, CTRANSLATE2_WEIGHTS))[0]
    if file.name not in CTRANSLATE2_WEIGHTS:
        model, _ = load_pretrained(config, transformers.WhisperForConditionalGeneration, ())
        return model
    sizes, state = read_whisper(file)
    # The defaults may lie beyond a small vocabulary; `generate` gets its own.
    sizes |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), end)
    architecture = transformers.WhisperConfig(**sizes, attn_implementation="sdpa")  # type: ignore[call-arg]
    with torch.device("meta"):  # nothing is drawn
        model = transformers.WhisperForConditionalGeneration(architecture)
    named = {f"model.{name}": tensor for name, tensor in state.items()}
    named["proj_out.weight"] = state["decoder.embed_tokens.weight"]  # tied below
    model.load_state_dict(named, assign=True)
    model.tie_weights()
    return model
