"""`pipeline.audio_branch` under the name that its description uses."""

from pipeline.audio_branch import AudioBranch, AudioBranchConfig, SegmentAttentionPooling

__all__ = ["AudioBranch", "AudioBranchConfig", "SegmentAttentionPooling"]
