"""Config of any module that speaks the HEAR API."""

from typing import ClassVar, Literal

from pydantic import Field

from stillwave.pipeline.config.backbones.common import CommonConfig


class HearConfig(CommonConfig):
    """A PyTorch module with `load_model` and `get_timestamp_embeddings` (arXiv 2203.03022).

    precision: always fp32, for the module sees to its own arithmetic.
    module: its dotted name, such as hearbaseline.wav2vec2. Importing it runs its code.
    model_file: what is passed to its `load_model`; empty means its own default.
    max_batch: items of equal length that it may be given at once. More than 1 is for modules known not to
        mix the items of a batch; the fingerprint has it, for nothing here can tell.
    """

    kind: Literal["hear"]
    precision: Literal["fp32"] = "fp32"  # a foreign module sees to its own arithmetic
    module: str = Field(min_length=1)
    model_file: str = ""
    max_batch: int = Field(1, ge=1)

    # The fingerprint has the file's content in its place.
    not_in_fingerprint: ClassVar[frozenset[str]] = CommonConfig.not_in_fingerprint | {"model_file"}
