"""Bytes of a file to a waveform."""
