"""Fields common to backbones; each kind's own are in its module."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from stillwave.pipeline.config.base import Config
from stillwave.pipeline.config.views import ViewsConfig

Precision = Literal["fp32", "bf16", "fp16"]
Layers = Literal["last", "all"] | Annotated[tuple[int, ...], Field(min_length=1)]


class BackboneConfig(Config):
    """Fields of every backbone.

    storage_dtype: type of the frames on disk.
    max_batch_frames: frames per batch, including padding; limits memory. `auto` suits the device. Numbers
        change only as much as an item differs between batches: 1e-5 in fp32, more in half precision.
    max_bad_fraction: extraction fails if more than this fraction of the rows cannot be encoded.
    views: augmented versions to store in addition to the clean one; for speech only.
    """

    storage_dtype: Literal["float16", "float32"] = "float16"
    max_batch_frames: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    max_bad_fraction: float = Field(0.05, ge=0, le=1)
    views: ViewsConfig | None = None
    if TYPE_CHECKING:
        kind: str  # each class declares these itself: stores have their fields in this order
        precision: Precision

    # Fields that do not change the frames, or that the sha256 of the weights covers; and views, which enter
    # the key of each view's row instead, so that adding views to a store keeps its clean rows.
    not_in_fingerprint: ClassVar[frozenset[str]] = frozenset(
        {"max_batch_frames", "max_bad_fraction", "views"}
    )

    def fingerprint_fields(self) -> dict[str, Any]:
        """The fields that the stored numbers depend on, JSON-ready."""
        return self.model_dump(mode="json", exclude=set(self.not_in_fingerprint))

    def imports(self) -> str:
        """How the backbone runs code that its config names, in words; empty if it does not."""
        return ""


class CustomConfig(BackboneConfig):
    """Fields of your own backbone; its class adds more. See `Use your own backbone`.

    class: class of the backbone, as package.module:Name, importable by Python. Importing it runs its code.
    precision: for the forward pass; fp32, unless the class declares more.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    kind: Literal["custom"]
    class_path: str = Field(alias="class")
    precision: Literal["fp32"] = "fp32"


class PretrainedConfig(BackboneConfig):
    """Fields of a backbone with weights.

    precision: for the forward pass; frames are fp32 either way.
    weights: a hub id, a local folder written by `save_pretrained`, `package:name/folder` for a folder in an
        installed package, or `random` (seeded, for offline use).
    sha256: of the only weights file; any other file of that name is refused.
    revision: branch, tag or commit of the hub id.
    download: whether the network may be used if the hub id is not in the local cache.
    layers: `last`, `all`, or indexes; 0 is the input of the first transformer layer, negatives count
        from the end. Several layers give (frames, layers, dim).
    compile: whether to use torch.compile: takes minutes at first, and last bits may differ.
    seed, size: for `random` weights only.
    """

    precision: Precision = "fp32"
    weights: str = Field(min_length=1)
    sha256: str | None = None
    revision: str | None = None
    download: bool = True
    layers: Layers = "last"
    compile: bool = False
    seed: int = 0

    local_weights: ClassVar[str] = "a local folder with config.json and model.safetensors"
    not_in_fingerprint = BackboneConfig.not_in_fingerprint | {
        "weights", "sha256", "revision", "download", "seed", "size",
    }  # fmt: skip

    @model_validator(mode="after")
    def _nothing_to_check(self) -> Self:
        if self.weights == "random" and self.sha256 is not None:
            raise ValueError("sha256: random weights have no file; remove it, or name the weights")
        return self

    @property
    def source(self) -> str:
        """Where the weights are looked up: a path, a hub id, or a URL."""
        return self.weights

    def fingerprint_fields(self) -> dict[str, Any]:
        fields = super().fingerprint_fields()
        return fields if self.compile else {name: fields[name] for name in fields if name != "compile"}
