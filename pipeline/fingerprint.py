"""What stored frames depend on, beyond the backbone itself."""

from importlib.metadata import version
from typing import Any

import soundfile

from pipeline.audio import AUDIO_VERSION
from pipeline.backbones import Backbone


def fingerprint(backbone: Backbone) -> dict[str, Any]:
    """Everything that a backbone's stored numbers depend on, versions of the libraries included.

    Versions count by major.minor: patch releases do not change numbers on purpose.
    """
    fields = backbone.fingerprint()
    libraries = {name: version(name) for name in backbone.libraries}
    if backbone.modality == "audio":
        libraries |= {"soxr": version("soxr"), "libsndfile": soundfile.__libsndfile_version__}
        fields["audio_version"] = AUDIO_VERSION
    return fields | {"libraries": {name: ".".join(text.split(".")[:2]) for name, text in libraries.items()}}
