"""`pipeline.audio_dataset.AudioDataset` under the name that its description uses."""

from pipeline.audio_dataset import AudioDataset

__all__ = ["AudioDataset"]
