"""What stored frames depend on, in addition to the backbone."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, ClassVar, Literal, Protocol

import soundfile

from stillwave.pipeline.audio.decode import AUDIO_VERSION


class Described(Protocol):
    """A backbone, or anything else whose results are stored."""

    modality: ClassVar[Literal["audio", "text"]]

    @property
    def libraries(self) -> tuple[str, ...]: ...
    def fingerprint(self) -> dict[str, Any]: ...


def fingerprint(backbone: Described) -> dict[str, Any]:
    """Everything that a backbone's stored numbers depend on, including library versions.

    Only major.minor of a version counts: patch releases do not change numbers on purpose.
    """
    fields = backbone.fingerprint()
    libraries = {name: version(name) for name in backbone.libraries}
    if backbone.modality == "audio":
        libraries |= {"soxr": version("soxr"), "libsndfile": soundfile.__libsndfile_version__}
        fields["audio_version"] = AUDIO_VERSION
    fields |= {"libraries": {name: ".".join(text.split(".")[:2]) for name, text in libraries.items()}}
    # As read back from a store or a run: a tuple would differ from the list that JSON makes of it.
    found: dict[str, Any] = json.loads(json.dumps(fields))
    return found


def layer_numbers(found: Mapping[str, Any], count: int) -> list[int]:
    """The numbers of the `count` layers of a frame, as `layers` of a backbone's config has them.

    0 to count - 1 for backbones without such a field.
    """
    layers = found.get("config", {}).get("layers")
    return list(layers) if isinstance(layers, list) and len(layers) == count else list(range(count))


def is_of_text(found: Mapping[str, Any]) -> bool:
    """Whether the fingerprint is of text frames, which do not depend on how audio is decoded."""
    return "audio_version" not in found
