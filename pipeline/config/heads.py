"""Config of the heads: which module turns stored frames into logits.

The fields of a head are the keyword arguments of its constructor.
"""

from collections.abc import Mapping
from inspect import isclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator, SerializeAsAny, ValidationInfo

from stillwave.pipeline.config.classes import UNTRUSTED, imported, of_kind, wrong
from stillwave.pipeline.config.keywords import Keywords, config_of

# By kind; the module of one is imported when a recipe asks for it.
HEADS = {
    "segment": "stillwave.heads.classifier:SegmentClassifier",
    "pooled": "stillwave.heads.pooled:PooledClassifier",
    "statistics": "stillwave.heads.statistics_classifier:StatisticsClassifier",
    "fusion_openmax": "stillwave.heads.fusion:FusionClassifier",
}


class HeadConfig(Keywords):
    """The fields of each kind; for `kind: custom`, the keyword arguments of `class: package.module:Name`.

    kind: segment, pooled, statistics, fusion_openmax, or custom, for your own class. Importing it runs its
        code.
    """

    if TYPE_CHECKING:
        kind: str


def _parsed(data: Any, info: ValidationInfo) -> HeadConfig:
    if isinstance(data, HeadConfig):
        return data
    if not isinstance(data, Mapping):
        raise ValueError("give the fields of a head, including its `kind`")
    kind = data.get("kind")
    head = _own(data.get("class"), info) if kind == "custom" else of_kind(HEADS, kind, "custom")
    config: HeadConfig = config_of(HeadConfig, head, kind).model_validate(data)
    return config


def _own(path: Any, info: ValidationInfo) -> Any:
    """The class of a user's own head."""
    if info.context is not None and not info.context["trusted"]:  # importing the class would already run it
        raise wrong("class", path, f"kind custom imports it, {UNTRUSTED}")
    try:
        head = imported(str(path), "class")
    except ValueError as error:
        raise wrong("class", path, str(error).partition(": ")[2]) from error
    base = imported("stillwave.heads.base:Head", "class")  # torch is loaded only here
    if not (isclass(head) and issubclass(head, base)):
        raise wrong("class", path, "not a subclass of Head; see docs/howto/head.md")
    return head


Head = Annotated[SerializeAsAny[HeadConfig], PlainValidator(_parsed)]
