"""What samples say about their recording: silence that is none, an offset, clipping."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# The bounds of the notes; full scale is 1.
SOFTEST = 2.0**-16  # half a step of 16 bits: what stays below it is no sound
CANCELLED = 0.1  # RMS of the mix by that of the channels: 20 dB; 100 unrelated channels lose as much
OFFSET = 0.05  # of the mean, as a share of full scale, or of the peak if that is beyond it
FULL_SCALE = 0.999  # 16 bits reach 0.99997
CLIPPED = 1e-4  # of the samples, see `Levels.add`

CHANNELS_CANCEL = "has channels that cancel out: their mix is at least 20 dB below them"
SILENT = "is digital silence"
CONSTANT = "has one constant value, and no sound"
HAS_OFFSET = "has a DC offset: the mean of its samples is beyond 0.05 of full scale"
IS_CLIPPED = "is clipped: samples stay at full scale"
OF_SAMPLES = (CHANNELS_CANCEL, SILENT, CONSTANT, HAS_OFFSET, IS_CLIPPED)


class Levels:
    """Figures of a recording that comes block by block: see `notes`.

    peak: the largest absolute value in any channel so far; NaN or infinite if any sample is.
    """

    def __init__(self) -> None:
        self.peak = 0.0
        self._low, self._high = np.inf, -np.inf  # of the mix, as are sum and count
        self._sum, self._count = 0.0, 0
        self._clipped, self._length = 0, 0  # in samples per channel
        self._power = self._mixed_power = 0.0  # sums over what was mixed
        self._values = self._mixed_values = 0

    def add(self, block: Floats, mixed: Floats) -> None:
        """Count (samples, channels of the file), and the mix of these channels, (samples[, 2]).

        Clipped is a sample at full scale or beyond with two neighbours of the same value, in any channel. A
        peak that only just reaches full scale is one or two samples wide.
        """
        values, mix = block.reshape(-1), mixed.reshape(-1)
        low, high = _range(values)
        peak = max(abs(low), abs(high)) if low == low else low  # NaN, which max() would lose
        self.peak = peak if not self.peak >= peak else self.peak
        if high >= FULL_SCALE:
            self._clipped += _held(values, values >= FULL_SCALE, block.shape[1])
        if low <= -FULL_SCALE:
            self._clipped += _held(values, values <= -FULL_SCALE, block.shape[1])
        if len(mix) < len(values):
            self._power += float(np.einsum("i,i->", values, values))
            self._mixed_power += float(np.einsum("i,i->", mix, mix))
            self._values += len(values)
            self._mixed_values += len(mix)
            low, high = _range(mix)
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._sum += float(np.einsum("i->", mix))  # faster than sum(), and exact enough
        self._count += len(mix)
        self._length += len(block)

    def notes(self) -> list[str]:
        """What is unusual, in words that complete "the file ..."; none holds a semicolon."""
        if self._values:
            power, mixed_power = self._power / self._values, self._mixed_power / self._mixed_values
            if power > SOFTEST**2 and mixed_power <= CANCELLED**2 * power:
                return [CHANNELS_CANCEL]
        if max(-self._low, self._high) < SOFTEST:
            return [SILENT]
        if self._high - self._low < SOFTEST:
            return [CONSTANT]
        found = []
        if abs(self._sum) > OFFSET * max(1.0, self.peak) * self._count:
            found.append(HAS_OFFSET)
        if self._clipped > CLIPPED * self._length:
            found.append(IS_CLIPPED)
        return found


def _range(values: Floats) -> tuple[float, float]:
    return float(np.minimum.reduce(values)), float(np.maximum.reduce(values))


def _held(values: Floats, loud: npt.NDArray[np.bool_], channels: int) -> int:
    """How many of the loud samples, channels interleaved, have the values of those before and after.

    None if they are too few in any case: the usual one, of files with a peak of 1.
    """
    if np.count_nonzero(loud) <= CLIPPED * len(values) / channels:
        return 0
    at = np.flatnonzero(loud)
    at = at[(at >= channels) & (at < len(values) - channels)]
    same = (values[at - channels] == values[at]) & (values[at] == values[at + channels])
    return int(np.count_nonzero(same))
