"""New audio and text to predictions."""
