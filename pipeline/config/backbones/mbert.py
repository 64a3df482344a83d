"""Config of BERT."""

from typing import Literal

from pydantic import Field

from stillwave.pipeline.config.backbones.common import PretrainedConfig


class MbertConfig(PretrainedConfig):
    """BERT of any language.

    long_text: what becomes of a text of more tokens than the model has positions (512): `truncate` keeps
        [CLS], the first tokens and [SEP], and logs it; `quarantine` makes the row an error with a reason.
    """

    kind: Literal["mbert"]
    views: None = None  # a text has no waveform to change
    weights: str = Field("bert-base-multilingual-cased", min_length=1)
    size: Literal["tiny", "base"] = "base"
    long_text: Literal["truncate", "quarantine"] = "truncate"
