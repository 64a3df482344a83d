"""What stored frames depend on, beyond the backbone itself."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import soundfile

from stillwave.pipeline.audio.decode import AUDIO_VERSION
from stillwave.pipeline.backbones import Backbone


def fingerprint(backbone: Backbone) -> dict[str, Any]:
    """Everything that a backbone's stored numbers depend on, versions of the libraries included.

    Versions count by major.minor: patch releases do not change numbers on purpose.
    """
    fields = backbone.fingerprint()
    libraries = {name: version(name) for name in backbone.libraries}
    if backbone.modality == "audio":
        libraries |= {"soxr": version("soxr"), "libsndfile": soundfile.__libsndfile_version__}
        fields["audio_version"] = AUDIO_VERSION
    fields |= {"libraries": {name: ".".join(text.split(".")[:2]) for name, text in libraries.items()}}
    # As it is read back from a store or a run: a tuple would differ from the list that it is stored as.
    found: dict[str, Any] = json.loads(json.dumps(fields))
    return found


def is_of_text(found: Mapping[str, Any]) -> bool:
    """Whether the frames with this fingerprint are of text: how audio is decoded does not matter to them."""
    return "audio_version" not in found
