"""Views: seeded changes of a waveform, drawn per utterance and view, with lengths known beforehand.

Waveforms are float32, (samples,) or (samples, channels), at the backbone's rate. Nothing is clipped: the
result may leave [-1, 1], as decoded float audio may.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stillwave.pipeline.audio.decode import Waveform, resample, resampled_length
from stillwave.pipeline.config.packages import needed
from stillwave.pipeline.config.views import ViewsConfig

AUGMENT_VERSION = 1  # increase it if the same settings give different waveforms: it is in every view's key
_SPEED_STEPS = 1000  # a factor is a whole number of thousandths, so that lengths are exact
_LIBRARIES = ("numpy", "soxr", "python-stretch")


@dataclass(frozen=True)
class Effects:
    """The effects on one waveform, in this order; None skips one.

    speed: factor, in thousandths. semitones: the pitch shift. snr_db: signal-to-noise ratio of the added
    noise, whose color is `color`. sigma: of the added Gaussian noise. noise_seed: seed of both noises.
    """

    speed: float | None = None
    semitones: float | None = None
    snr_db: float | None = None
    sigma: float | None = None
    color: Literal["white", "pink"] = "white"
    noise_seed: int = 0


def draw(views: ViewsConfig, content_sha256: str, view: int) -> Effects:
    """The effects of one view of one recording.

    They are determined by (seed, content, view) alone: not by the process, the other recordings, or the
    number of views; and changing one effect's settings does not change the draws of the others. Raises
    ValueError for view 0, which is the clean recording.
    """
    if view < 1:
        raise ValueError(f"view {view} is not drawn: 0 is the clean recording, augmented ones start at 1")
    digest = hashlib.sha256(json.dumps([views.seed, content_sha256, view]).encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest))
    chance, place = generator.random((2, 4)).tolist()  # for every effect, requested or not

    def between(number: int, low: float, high: float) -> float:
        return float(low + (high - low) * place[number])

    effects = Effects(noise_seed=int(generator.integers(2**63)))
    if (speed := views.speed) and chance[0] < speed.probability:
        effects = replace(effects, speed=round(between(0, speed.low, speed.high), 3))
    if (pitch := views.pitch) and chance[1] < pitch.probability:
        effects = replace(effects, semitones=between(1, -pitch.semitones, pitch.semitones))
    if (noise := views.noise) and chance[2] < noise.probability:
        effects = replace(effects, snr_db=between(2, noise.low_db, noise.high_db), color=noise.color)
    if (gaussian := views.gaussian) and chance[3] < gaussian.probability:
        effects = replace(effects, sigma=gaussian.sigma)
    return effects


def view_key(content_sha256: str, view: int, views: ViewsConfig) -> str:
    """The content key of a view in a store: sha256 of everything that its waveform depends on, except the
    rate.

    `count` is not part of it, so adding views does not change the keys of existing ones. Raises ValueError if
    python-stretch is not installed: its version is in the key of every view, with or without a pitch shift.
    """
    depends_on = {
        "content": content_sha256,
        "view": view,
        "settings": views.model_dump(mode="json", exclude={"count"}),
        "augment_version": AUGMENT_VERSION,
        "libraries": _versions(),
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


@cache
def _versions() -> dict[str, str]:
    with needed("views", "python-stretch"):
        return {name: ".".join(version(name).split(".")[:2]) for name in _LIBRARIES}


def length_after(num_samples: int, effects: Effects) -> int:
    """Samples that `apply` returns for a waveform of `num_samples`: only speed changes the number."""
    if effects.speed is None:
        return num_samples
    return resampled_length(num_samples, _thousandths(effects.speed), _SPEED_STEPS)


def apply(waveform: Waveform, sample_rate: int, effects: Effects) -> Waveform:
    """The waveform with the effects, `length_after` samples long, with the same channels.

    All channels have the same speed, pitch shift and added noise, so equal channels stay equal. Levels are
    measured over all of them. A silent waveform has no signal-to-noise ratio, so it gets no such noise.
    """
    channels = waveform if waveform.ndim == 2 else waveform[:, None]
    if effects.speed is not None:
        channels = _speed(channels, effects.speed)
    if effects.semitones is not None:
        channels = _pitch(channels, sample_rate, effects.semitones)
    if effects.snr_db is not None:
        channels = _at_snr(channels, effects.snr_db, effects.color, effects.noise_seed)
    if effects.sigma is not None:
        channels = _plus(channels, effects.sigma * _white(len(channels), [effects.noise_seed, 1]))
    return np.ascontiguousarray(channels if waveform.ndim == 2 else channels[:, 0])


def _thousandths(speed: float) -> int:
    return round(speed * _SPEED_STEPS)


def _speed(channels: Waveform, speed: float) -> Waveform:
    """Resample as if recorded at `speed` times the rate, like Kaldi's speed perturbation."""
    return resample(channels, _thousandths(speed), _SPEED_STEPS)


def _pitch(channels: Waveform, sample_rate: int, semitones: float) -> Waveform:
    """Signalsmith Stretch at constant length; it compensates for its own latency."""
    # Although nothing is drawn at constant length, give a seed: the default is random.
    stretch = import_stretch("pitch")(0)
    stretch.preset(channels.shape[1], sample_rate)
    stretch.setTransposeSemitones(semitones)
    shifted = stretch.process(np.ascontiguousarray(channels.T))
    return np.asarray(shifted, dtype=np.float32).T


def import_stretch(field: str) -> Any:
    """The class that shifts pitches, for `field`. ValueError if it is not installed."""
    with needed(field, "python-stretch"):
        from python_stretch.Signalsmith import Stretch
    return Stretch


def _at_snr(channels: Waveform, snr_db: float, color: str, seed: int) -> Waveform:
    """Add noise whose mean power is `snr_db` below that of the whole recording."""
    power = float(np.square(channels, dtype=np.float64).mean()) if channels.size else 0.0
    if power == 0:
        return channels
    noise = _white(len(channels), [seed, 0])
    if color == "pink":
        noise = _pink(noise)
    return _plus(channels, noise * np.sqrt(power / 10 ** (snr_db / 10) / np.square(noise).mean()))


def _plus(channels: Waveform, noise: NDArray[np.float64]) -> Waveform:
    return (channels + noise[:, None]).astype(np.float32)


def _white(length: int, seed: list[int]) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(length)


def _pink(white: NDArray[np.float64]) -> NDArray[np.float64]:
    """White noise with its power divided by the frequency; the mean counts as the lowest frequency."""
    bins = np.fft.rfft(white)
    bins /= np.sqrt(np.maximum(np.arange(len(bins)), 1))
    return np.fft.irfft(bins, n=len(white))
