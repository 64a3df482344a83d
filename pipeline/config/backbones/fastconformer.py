"""Config of FastConformer."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.backbones.common import PretrainedConfig

Implementation = Literal["nemo", "transformers", "custom"]


class FastConformerConfig(PretrainedConfig):
    """FastConformer with 8x subsampling: 12.5 frames per second.

    implementation: whose code runs; all three give the same frames from the same weights. `nemo` is NVIDIA's
        (the extra `nemo`), `transformers` is ParakeetEncoder, `custom` is ours.
    weights: a .nemo file, a folder or hub id that has one, or (not `nemo`) a Parakeet folder or hub id. With
        `nemo` also a name without a slash, which NeMo looks up in its own catalogue.
    """

    kind: Literal["fastconformer"]
    implementation: Implementation = "custom"
    weights: str = Field("nvidia/stt_en_fastconformer_ctc_large", min_length=1)
    size: Literal["tiny", "small", "medium", "large"] = "large"

    @model_validator(mode="after")
    def _nemo_is_not_compiled(self) -> "FastConformerConfig":
        if self.compile and self.implementation == "nemo":
            raise ValueError(
                "compile true with implementation nemo: torch.compile cannot trace NeMo's input checks; "
                "use implementation custom or transformers, which give the same frames"
            )
        return self

    local_weights: ClassVar[str] = "a .nemo file, or a local folder with config.json and model.safetensors"
