"""Config of SANet."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillwave.pipeline.config.backbones.common import CommonConfig, Precision

Width = Annotated[int, Field(ge=1)]


class SanetConfig(CommonConfig):
    """SANet: residual convolutions of the raw waveform, and attention between them; see sanet.py.

    precision: of the forward pass. sample_rate: Hz.
    size: `base` has 512 channels in the end, `tiny` is for trying things out.
    channels, num_heads: of the four residual blocks, and of the attention; null: those of `size`.
    dropout: while training.
    clip_s: seconds that every item is cut to, from its start, or padded to with silence; null: as long as the
        item is.
    seed: of the weights; there are no others, until `finetune` has trained them.
    """

    kind: Literal["sanet"]
    precision: Precision = "fp32"
    sample_rate: int = Field(16000, ge=1000)
    size: Literal["tiny", "base"] = "base"
    channels: tuple[Width, Width, Width, Width] | None = None
    num_heads: int | None = Field(None, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    clip_s: float | None = Field(4.0, gt=0)
    seed: int = 0

    not_in_fingerprint: ClassVar[frozenset[str]] = CommonConfig.not_in_fingerprint | {"seed", "dropout"}
