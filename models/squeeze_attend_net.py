"""`pipeline.squeeze_attend_net` under the name that its description uses."""

from pipeline.squeeze_attend_net import (
    SE1D,
    AttentionEncoder,
    AttentivePool,
    DownsampledAttentionBlockDecoupled,
    ResBlock1D,
    SqueezeAttendNet,
)

__all__ = [
    "SE1D",
    "AttentionEncoder",
    "AttentivePool",
    "DownsampledAttentionBlockDecoupled",
    "ResBlock1D",
    "SqueezeAttendNet",
]
