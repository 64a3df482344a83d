"""Configs whose fields are the keyword arguments of a class: names, types, bounds and defaults."""

from functools import cache
from inspect import getdoc, signature
from typing import Any, ClassVar, Literal, TypeVar, get_type_hints

from pydantic import ModelWrapValidatorHandler, create_model, model_validator

from stillwave.pipeline.config.base import Config
from stillwave.pipeline.config.classes import imported

GIVEN = ("num_layers",)  # keyword arguments that the stores determine

K = TypeVar("K", bound="Keywords")


class Keywords(Config):
    """The keyword arguments of a class, which is imported when a config is parsed.

    A field of this type is a `SerializeAsAny`.
    """

    path: ClassVar[str]  # module:Name of that class, unless a `kind` gives it
    module: ClassVar[Any] = None

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_class(cls: type[K], data: Any, handler: ModelWrapValidatorHandler[K]) -> K:
        made: type[K] = cls if cls.module else config_of(cls, imported(cls.path, "class"), None)
        return handler(data) if made is cls else made.model_validate(data)

    @model_validator(mode="after")
    def _fits(self: K) -> K:
        self.module.check(**self.options())
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self).__base__, self.module, getattr(self, "kind", None), self.model_dump())

    def options(self) -> dict[str, Any]:
        """The keyword arguments."""
        names = type(self).model_fields.keys() - {"kind", "class"}
        return {name: getattr(self, name) for name in names}


@cache
def config_of(base: type[K], module: Any, kind: str | None) -> type[K]:
    """`base` with the fields of a class; also with its `kind`, if there are several kinds."""
    types = get_type_hints(module.__init__, include_extras=True)
    fields: dict[str, Any] = {} if kind is None else {"kind": (Literal[kind], ...)}
    if kind == "custom":
        fields["class"] = (str, ...)
    for name, argument in signature(module).parameters.items():
        if argument.kind is argument.KEYWORD_ONLY and name not in GIVEN:
            default = ... if argument.default is argument.empty else argument.default
            fields[name] = (types.get(name, Any), default)
    name = f"{(kind or '').title().replace('_', '')}{base.__name__.removesuffix('Config')}"
    made = create_model(name, __base__=base, __doc__=getdoc(module), __module__=__name__, **fields)
    made.module = module
    return made


def _again(base: type[Keywords], module: Any, kind: str | None, fields: dict[str, Any]) -> Any:
    return config_of(base, module, kind).model_validate(fields)
