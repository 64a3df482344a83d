"""Multilingual BERT frames (arXiv 1810.04805): one per token of the transcript."""

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from stillwave.heads.devices import send
from stillwave.heads.masks import on_host, valid_mask
from stillwave.pipeline.backbones.base import Frames
from stillwave.pipeline.backbones.config import PretrainedConfig
from stillwave.pipeline.backbones.numerics import compute_in
from stillwave.pipeline.backbones.transformer import TransformerBackbone, load_transformer, select_layers

log = logging.getLogger(__name__)

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 8192, "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 192,
    },
    "base": {"vocab_size": 119547},  # bert-base-multilingual-cased
}  # fmt: skip


class MbertConfig(PretrainedConfig):
    """Multilingual BERT.

    long_text: what to do with a text of more tokens than the model has positions (512): `truncate` keeps
        [CLS], the first tokens and [SEP], and logs it; `quarantine` lists the row with a reason.
    """

    kind: Literal["mbert"]
    views: None = None  # a text has no waveform to change
    weights: str = Field("bert-base-multilingual-cased", min_length=1)
    size: Literal["tiny", "base"] = "base"
    long_text: Literal["truncate", "quarantine"] = "truncate"


class WordHashTokenizer:
    """A stand-in for a missing vocabulary: words and punctuation marks, hashed into the id range.

    A word's id is its sha256 modulo the ids above the special ones: the same in every process,
    case-sensitive. Distinct words may collide; with random weights there is nothing to look up anyway.
    """

    cls_id, sep_id, first_id = 1, 2, 3  # 0 pads
    name = "word-hash-1"
    pattern = re.compile(r"\w+|[^\w\s]")

    def __init__(self, vocab_size: int) -> None:
        self.num_word_ids = vocab_size - self.first_id

    def __call__(self, text: str) -> list[int]:
        words = (hashlib.sha256(word.encode()).digest()[:8] for word in self.pattern.findall(text))
        ids = [self.first_id + int.from_bytes(word, "big") % self.num_word_ids for word in words]
        return [self.cls_id, *ids, self.sep_id]


class HubTokenizer:
    """The fast tokenizer saved with the weights; its name is the sha256 of its whole state."""

    def __init__(self, folder: Path, num_embeddings: int) -> None:
        from transformers import AutoTokenizer

        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
            # transformers would continue with an empty vocabulary, and every word would be [UNK]
            raise ValueError(
                f"`weights` {folder}: no tokenizer.json or vocab.txt there; save the tokenizer too"
            )
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not self.tokenizer.is_fast:
            raise ValueError(
                f"`weights` {folder}: no fast tokenizer there; save tokenizer.json next to the weights"
            )
        if len(self.tokenizer) > num_embeddings:
            raise ValueError(
                f"`weights` {folder}: the tokenizer has {len(self.tokenizer)} ids, the model {num_embeddings}"
            )
        self.sep_id: int = self.tokenizer.sep_token_id
        state = self.tokenizer.backend_tokenizer.to_str()
        self.name = hashlib.sha256(state.encode()).hexdigest()

    def __call__(self, text: str) -> list[int]:
        # Not verbose: its own advice about long texts would contradict `long_text`.
        ids: list[int] = self.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return ids


class Mbert(TransformerBackbone):
    """Hidden states of a BERT encoder, one frame per token, [CLS] and [SEP] included."""

    config_type = MbertConfig
    config: MbertConfig
    modality = "text"
    version = 1
    architecture_fields = ("num_attention_heads", "hidden_act", "layer_norm_eps")

    def __init__(self, config: MbertConfig) -> None:
        import transformers

        model, folder = load_transformer(
            config, transformers.BertModel, SIZES, unused=("pooler.",), add_pooling_layer=False
        )
        super().__init__(config, model.config)
        model.pooler = None
        self.model = model
        vocab_size: int = model.config.vocab_size
        self.tokenizer = HubTokenizer(folder, vocab_size) if folder else WordHashTokenizer(vocab_size)
        self.max_tokens: int = model.config.max_position_embeddings
        self.num_truncated = 0

    def tokenize(self, text: str) -> list[int]:
        """Token ids with [CLS] and [SEP], at most `max_tokens`. ValueError for more under `quarantine`."""
        ids = self.tokenizer(text)
        if len(ids) <= self.max_tokens:
            return ids
        if self.config.long_text == "quarantine":
            raise ValueError(
                f"text of {len(ids)} tokens; the model takes {self.max_tokens}: "
                "shorten it, or set `long_text: truncate`"
            )
        self.num_truncated += 1
        if str(self.num_truncated).strip("0") == "1":  # log the 1st, 10th, 100th, ...
            log.warning(
                "%d text(s) cut so far; this one of %d tokens keeps its first %d and [SEP]",
                self.num_truncated, len(ids), self.max_tokens - 1,
            )  # fmt: skip
        return [*ids[: self.max_tokens - 1], self.tokenizer.sep_id]

    def num_frames(self, length: int) -> int:
        """`length` itself; ValueError for more than `max_tokens`, which `tokenize` never returns."""
        if length > self.max_tokens:
            raise ValueError(f"{length} tokens; the model takes {self.max_tokens}: use tokenize()")
        return max(0, length)

    def forward(self, batch: Tensor, lengths: Tensor) -> Frames:
        lengths = send(lengths, batch.device)
        mask = valid_mask(lengths, batch.shape[1])
        if not on_host(mask):
            # In the form attention takes: for a plain mask, transformers would check whether all of it is
            # True.
            mask = mask[:, None, None]
        with compute_in(self.config.precision, batch.device):
            output = self.model(input_ids=batch, attention_mask=mask, output_hidden_states=True)
        return Frames(select_layers(output.hidden_states, self.layers), lengths)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        return [[self.model.embeddings], *([layer] for layer in self.model.encoder.layer[: max(self.layers)])]

    def preprocessing(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.name, "max_tokens": self.max_tokens}
