"""From new audio and text to predictions."""
