"""Comparing what made a store with what would be added to it."""

from typing import Any


def differences(stored: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two fingerprints, field by field: ["config.layers: stored 'last', now 'all'"]."""
    result = []
    for key in sorted(stored.keys() | wanted.keys()):
        old, new = stored.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            result += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            result.append(f"{prefix}{key}: stored {_short(old)}, now {_short(new)}")
    return result


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
