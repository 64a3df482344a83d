"""From a file's bytes to a waveform."""
