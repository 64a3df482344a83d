"""Config of the views: which seeded changes of a waveform are extracted beside the clean one."""

from typing import Literal

from pydantic import Field, model_validator

from stillwave.pipeline.config.base import Config


class Effect(Config):
    """A change that some views have.

    probability: of a view to have it, independently of the other changes.
    """

    probability: float = Field(gt=0, le=1)


class SpeedEffect(Effect):
    """Play faster or slower: tempo and pitch change together.

    low, high: the factor is uniform between them.
    """

    low: float = Field(0.9, ge=0.5, le=2)
    high: float = Field(1.1, ge=0.5, le=2)

    @model_validator(mode="after")
    def _low_is_lower(self) -> "SpeedEffect":
        if self.low > self.high:
            raise ValueError(f"low {self.low} must be at most high {self.high}")
        return self


class PitchEffect(Effect):
    """Shift the pitch; the length stays.

    semitones: by up to so many either way, uniformly.
    """

    semitones: float = Field(2.0, gt=0, le=12)


class NoiseEffect(Effect):
    """Add generated noise at a signal-to-noise ratio.

    low_db, high_db: the ratio is uniform between them.
    color: `white`, or `pink` (power falls by 3 dB per octave).
    """

    low_db: float = Field(10.0, ge=-20, le=100)
    high_db: float = Field(20.0, ge=-20, le=100)
    color: Literal["white", "pink"] = "white"

    @model_validator(mode="after")
    def _low_is_lower(self) -> "NoiseEffect":
        if self.low_db > self.high_db:
            raise ValueError(f"low_db {self.low_db} must be at most high_db {self.high_db}")
        return self


class GaussianEffect(Effect):
    """Add white noise, however loud the signal is.

    sigma: its standard deviation, where full scale is 1.
    """

    sigma: float = Field(0.005, gt=0, le=1)


class WaveformEffects(Config):
    """Seeded changes of waveforms, in this order."""

    speed: SpeedEffect | None = None
    pitch: PitchEffect | None = None
    noise: NoiseEffect | None = None
    gaussian: GaussianEffect | None = None

    @model_validator(mode="after")
    def _something_changes(self) -> "WaveformEffects":
        if not (self.speed or self.pitch or self.noise or self.gaussian):
            raise ValueError("views without an effect are copies: give speed, pitch, noise or gaussian")
        return self


class ViewsConfig(WaveformEffects):
    """Augmented versions of every recording, stored as further views beside the clean view 0.

    count: how many; more of them leave those that are there as they are. seed: of all their draws.
    """

    count: int = Field(ge=1, le=100)
    seed: int = Field(0, ge=0)
