"""Config of the heads: which module stands between stored frames and logits.

The fields of a head are the keyword arguments of its constructor: names, types, bounds and defaults.
"""

from collections.abc import Mapping
from functools import cache
from inspect import getdoc, isclass, signature
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_type_hints

from pydantic import (
    PlainValidator,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from stillwave.pipeline.config.base import Config
from stillwave.pipeline.config.classes import UNTRUSTED, imported

# By kind; the module of one is imported when a recipe asks for it.
HEADS = {
    "segment": "stillwave.heads.classifier:SegmentClassifier",
    "pooled": "stillwave.heads.pooled:PooledClassifier",
    "fusion_openmax": "stillwave.heads.fusion:FusionClassifier",
}
GIVEN = ("num_layers",)  # keyword arguments that follow from the stores


class HeadConfig(Config):
    """Of each kind, its fields; of `kind: custom`, the keyword arguments of `class: package.module:Name`.

    kind: segment, pooled, fusion_openmax, or custom, for a class of your own. Importing it runs its code.
    """

    if TYPE_CHECKING:
        kind: str
    module: ClassVar[Any]  # the class that is built

    @model_validator(mode="after")
    def _fits(self) -> "HeadConfig":
        self.module.check(**self.options())
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.kind, self.module, self.model_dump())

    def options(self) -> dict[str, Any]:
        """The keyword arguments of the head's constructor."""
        names = type(self).model_fields.keys() - {"kind", "class"}
        return {name: getattr(self, name) for name in names}


@cache
def config_of(kind: str, head: Any) -> type[HeadConfig]:
    """The config class of a head."""
    types = get_type_hints(head.__init__, include_extras=True)
    fields: dict[str, Any] = {"kind": (Literal[kind], ...)}
    if kind == "custom":
        fields["class"] = (str, ...)
    for name, argument in signature(head).parameters.items():
        if argument.kind is argument.KEYWORD_ONLY and name not in GIVEN:
            default = ... if argument.default is argument.empty else argument.default
            fields[name] = (types.get(name, Any), default)
    name = f"{kind.title().replace('_', '')}Head"
    made = create_model(name, __base__=HeadConfig, __doc__=getdoc(head), __module__=__name__, **fields)
    made.module = head
    return made


def _again(kind: str, head: Any, fields: dict[str, Any]) -> HeadConfig:
    return config_of(kind, head).model_validate(fields)


def _parsed(data: Any, info: ValidationInfo) -> HeadConfig:
    if isinstance(data, HeadConfig):
        return data
    if not isinstance(data, Mapping):
        raise ValueError("give the fields of a head, its `kind` among them")
    kind, path = data.get("kind"), data.get("class")
    if kind != "custom":
        ours = HEADS.get(str(kind))
        if ours is None:
            known = ", ".join(repr(name) for name in (*HEADS, "custom"))
            raise _wrong("kind", kind, f"must be one of {known}")
        return config_of(str(kind), imported(ours, "kind")).model_validate(data)
    if info.context is not None and not info.context["trusted"]:  # importing the class would already run it
        raise _wrong("class", path, f"kind custom imports it, {UNTRUSTED}")
    try:
        head = imported(str(path), "class")
    except ValueError as error:
        raise _wrong("class", path, str(error).partition(": ")[2]) from error
    base = imported("stillwave.heads.base:Head", "class")  # torch is loaded only here
    is_head = isclass(head) and issubclass(head, base)
    if not is_head:
        raise _wrong("class", path, "not a subclass of Head; see docs/howto/head.md")
    return config_of(kind, head).model_validate(data)


def _wrong(field: str, value: Any, message: str) -> ValidationError:
    problem = PydanticCustomError("head", "{message}", {"message": message})
    return ValidationError.from_exception_data("head", [{"type": problem, "loc": (field,), "input": value}])


Head = Annotated[SerializeAsAny[HeadConfig], PlainValidator(_parsed)]
