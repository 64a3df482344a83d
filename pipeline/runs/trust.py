"""What a run of unknown origin may not ask for: docs/security.md says why."""

from collections.abc import Mapping
from typing import Any

CODE = ("custom", "hear")  # kinds of backbone that name a Python module to import


def without_consequences(settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A backbone's settings from somebody else's config.json: nothing is imported or downloaded for them.

    Weights that are in a local folder or in the Hugging Face cache are still found. Raises ValueError, naming
    `source`, for settings that cannot be followed without running somebody else's code.
    """
    asks = None
    if settings.get("kind") in CODE:
        module = settings.get("class") or settings.get("module")
        asks = f"kind {settings['kind']} imports {module}"
    elif settings.get("implementation") == "nemo":
        asks = f"implementation nemo builds the classes that {settings.get('weights')} names"
    if asks:
        raise ValueError(
            f"{source}: {asks}, which runs code that the run's author chose. If you trust where the run "
            "comes from, give --trust-run (from Python: Run.open(folder, trusted=True)); else name a folder "
            "of your own configs with --backbones"
        )
    return dict(settings) | ({"download": False} if "download" in settings else {})
