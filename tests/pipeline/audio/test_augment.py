"""Views: what each effect does to a waveform in numbers, and what the draws and keys depend on."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import stillwave.pipeline.audio.augment as augment_module
from stillwave.pipeline.audio.augment import Effects, apply, draw, length_after, view_key
from stillwave.pipeline.backbones import parse_backbone
from stillwave.pipeline.config.base import ConfigError, parse_config
from stillwave.pipeline.config.views import ViewsConfig

RATE = 16_000
CONTENT = "ab" * 32
ALL: dict[str, Any] = {
    "count": 3,
    "seed": 0,
    "speed": {"probability": 0.5, "low": 0.9, "high": 1.1},
    "pitch": {"probability": 0.4, "semitones": 2.0},
    "noise": {"probability": 0.3, "low_db": 10, "high_db": 20, "color": "white"},
    "gaussian": {"probability": 0.2, "sigma": 0.005},
}


def views(**changes: Any) -> ViewsConfig:
    parsed: ViewsConfig = parse_config(ALL | changes, ViewsConfig, "test")
    return parsed


def tone(hertz: float, seconds: float = 2.0, rate: int = RATE) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def speechlike(samples: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    voice = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 8))
    return (0.1 * (1 + np.sin(9 * time)) * voice + 0.01 * rng.standard_normal(samples)).astype(np.float32)


def middle(waveform: NDArray[Any]) -> NDArray[Any]:
    """Without the first and last eighth, where filters settle."""
    return waveform[len(waveform) // 8 : -len(waveform) // 8]


def peak_hz(waveform: NDArray[Any], rate: int = RATE) -> float:
    """The strongest frequency, to a small part of a bin: windowed, and zero-padded eightfold."""
    size = 8 * len(waveform)
    return float(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), size)).argmax() * rate / size)


def level_db(waveform: NDArray[Any], reference: NDArray[Any]) -> float:
    return float(10 * np.log10(np.square(waveform, dtype=float).mean() / np.square(reference).mean()))


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("speed", [0.5, 0.9, 0.951, 1.037, 1.1, 2.0])
@pytest.mark.parametrize("hertz", [220.0, 1000.0])
def test_speed_moves_a_tone_by_its_factor(hertz: float, speed: float, rate: int) -> None:
    waveform = tone(hertz, rate=rate)
    faster = apply(waveform, rate, Effects(speed=speed))
    assert len(faster) == ceil(Fraction(len(waveform)) / Fraction(str(speed)))
    assert abs(peak_hz(middle(faster), rate) - hertz * speed) <= rate / len(middle(faster))  # one bin
    assert level_db(middle(faster), tone(hertz)) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("effects", [Effects(speed=1.1), Effects(semitones=2.0)], ids=["speed", "pitch"])
@pytest.mark.parametrize("hertz", [7400.0, 7700.0, 7990.0])
def test_nothing_folds_back_below_the_nyquist_frequency(hertz: float, effects: Effects) -> None:
    """These tones end above 8 kHz: more than 60 dB of them must be gone."""
    kept = apply(tone(hertz), RATE, effects)
    assert level_db(middle(kept), tone(hertz)) < -60


def test_speed_adds_no_images_where_it_widens_the_band() -> None:
    slower = middle(apply(tone(7000), RATE, Effects(speed=0.9)))
    spectrum = np.abs(np.fft.rfft(slower * np.blackman(len(slower)))) ** 2
    hertz = np.fft.rfftfreq(len(slower), 1 / RATE)
    beside = spectrum[np.abs(hertz - 6300) > 50].sum()
    assert 10 * np.log10(beside / spectrum.sum()) < -60


@pytest.mark.parametrize("semitones", [-2.0, -1.3, -0.4, 0.4, 1.3, 2.0])
@pytest.mark.parametrize("hertz", [220.0, 440.0, 1000.0, 3000.0])
def test_pitch_moves_a_tone_by_semitones_and_nothing_else(hertz: float, semitones: float) -> None:
    shifted = apply(tone(hertz), RATE, Effects(semitones=semitones))
    assert len(shifted) == len(tone(hertz))
    assert peak_hz(middle(shifted)) == pytest.approx(hertz * 2 ** (semitones / 12), rel=0.01)
    assert level_db(middle(shifted), tone(hertz)) == pytest.approx(0, abs=0.5)


def test_pitch_keeps_sounds_in_their_place() -> None:
    """A burst stays where it is to a fifth of the 120 ms block; the latency is made up for."""
    waveform = np.zeros(2 * RATE, np.float32)
    waveform[RATE : RATE + 800] = tone(500)[:800]
    for semitones in (-2.0, 2.0):
        energy = np.square(apply(waveform, RATE, Effects(semitones=semitones)), dtype=float)
        centre = (energy * np.arange(len(energy))).sum() / energy.sum()
        assert centre == pytest.approx(RATE + 400, abs=0.024 * RATE)


@pytest.mark.parametrize("color", ["white", "pink"])
@pytest.mark.parametrize("snr_db", [-20.0, 0.0, 10.0, 14.7, 20.0, 60.0])
def test_noise_has_the_ratio_that_was_asked_for(snr_db: float, color: Any) -> None:
    waveform = speechlike(RATE)
    noise = apply(waveform, RATE, Effects(snr_db=snr_db, color=color, noise_seed=3)) - waveform
    assert -level_db(noise, waveform) == pytest.approx(snr_db, abs=0.1)


@pytest.mark.parametrize(("color", "slope"), [("white", 0.0), ("pink", -3.01)])
def test_the_colour_of_noise_is_its_slope_per_octave(color: Any, slope: float) -> None:
    waveform = tone(100, seconds=16)
    noise = apply(waveform, RATE, Effects(snr_db=0, color=color)).astype(float) - waveform
    power = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    octaves = [power[(hertz >= low) & (hertz < 2 * low)].mean() for low in (125, 250, 500, 1000, 2000, 4000)]
    measured = np.diff(10 * np.log10(octaves))
    np.testing.assert_allclose(measured, slope, atol=0.3)


def test_silence_is_given_no_noise_at_a_ratio_but_gaussian_noise() -> None:
    silence = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(apply(silence, RATE, Effects(snr_db=10)), silence)
    assert apply(silence, RATE, Effects(sigma=0.005)).std() == pytest.approx(0.005, rel=0.02)


@pytest.mark.parametrize("sigma", [0.001, 0.005, 0.5])
def test_gaussian_noise_has_its_sigma_however_loud_the_signal(sigma: float) -> None:
    for loudness in (0.01, 1.0):
        waveform = loudness * speechlike(4 * RATE)
        noise = apply(waveform, RATE, Effects(sigma=sigma)) - waveform
        assert noise.std() == pytest.approx(sigma, rel=0.02)
        assert abs(noise.mean()) < 5 * sigma / np.sqrt(len(noise))
        assert np.abs(noise).max() > 3.5 * sigma  # tails, as a normal distribution has them


def test_both_noises_are_independent_and_follow_their_seed() -> None:
    waveform = speechlike(4 * RATE)

    def noise(**fields: Any) -> NDArray[Any]:
        return apply(waveform, RATE, Effects(**fields)) - waveform

    def correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
        return abs(float(np.corrcoef(a, b)[0, 1]))

    assert correlation(noise(snr_db=10, noise_seed=1), noise(sigma=0.01, noise_seed=1)) < 0.02
    assert correlation(noise(snr_db=10, noise_seed=1), noise(snr_db=10, noise_seed=2)) < 0.02
    np.testing.assert_array_equal(noise(snr_db=10, noise_seed=1), noise(snr_db=10, noise_seed=1))


def test_effects_come_in_the_order_speed_pitch_noise_gaussian() -> None:
    waveform = speechlike(RATE)
    effects = Effects(speed=1.07, semitones=-1.0, snr_db=12.0, sigma=0.01, noise_seed=5)
    stepwise = waveform
    for field in ("speed", "semitones", "snr_db", "sigma"):
        stepwise = apply(stepwise, RATE, Effects(**{field: getattr(effects, field)}, noise_seed=5))
    np.testing.assert_array_equal(apply(waveform, RATE, effects), stepwise)


def test_nothing_is_clipped_and_no_effect_changes_nothing() -> None:
    loud = 0.999 * np.sign(tone(300))
    np.testing.assert_array_equal(apply(loud, RATE, Effects()), loud)
    assert np.abs(apply(loud, RATE, Effects(snr_db=10))).max() > 1.2


some_effects = st.builds(
    Effects,
    speed=st.none() | st.integers(500, 2000).map(lambda n: n / 1000),
    semitones=st.none() | st.floats(-12, 12),
    snr_db=st.none() | st.floats(-20, 100),
    sigma=st.none() | st.floats(1e-6, 1),
    color=st.sampled_from(["white", "pink"]),
    noise_seed=st.integers(0, 2**63 - 1),
)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(0, 4000),
    rate=st.sampled_from([1000, 7999, 8000, 16000, 22050, 44100, 48000]),
    channels=st.sampled_from([None, 1, 2]),
    effects=some_effects,
)
def test_the_length_is_known_beforehand(
    samples: int, rate: int, channels: int | None, effects: Effects
) -> None:
    shape = (samples,) if channels is None else (samples, channels)
    waveform = np.random.default_rng(samples).uniform(-1, 1, shape).astype(np.float32)
    before = waveform.copy()
    changed = apply(waveform, rate, effects)
    assert changed.shape == (length_after(samples, effects), *shape[1:])
    assert changed.dtype == np.float32
    assert changed.flags.c_contiguous
    assert np.isfinite(changed).all()
    np.testing.assert_array_equal(waveform, before)  # the caller's array is left alone


@given(st.integers(0, 10**12), st.integers(500, 2000))
def test_length_after_is_the_exact_ceiling(samples: int, thousandths: int) -> None:
    expected = ceil(Fraction(samples * 1000, thousandths))
    assert length_after(samples, Effects(speed=thousandths / 1000)) == expected
    assert length_after(samples, Effects(semitones=1.0, snr_db=10.0, sigma=0.1)) == samples


@pytest.mark.parametrize(
    "effects",
    [Effects(speed=0.93), Effects(semitones=1.7), Effects(snr_db=10.0), Effects(sigma=0.01)],
    ids=lambda effects: next(name for name, value in vars(effects).items() if value is not None),
)
def test_channels_keep_their_relation(effects: Effects) -> None:
    left = speechlike(RATE)
    equal = apply(np.stack([left, left], axis=1), RATE, effects)
    np.testing.assert_allclose(equal[:, 0], equal[:, 1], atol=1e-6)
    other = speechlike(RATE, seed=1)[::-1] * 0.5
    both = apply(np.stack([left, other], axis=1), RATE, effects)
    if effects.snr_db is None and effects.sigma is None:  # linear in the signal: levels keep their ratio
        before, after = level_db(left, other), level_db(both[:, 0], both[:, 1])
        assert after == pytest.approx(before, abs=0.3)
    else:  # the same noise in both
        noise = both - np.stack([left, other], axis=1)
        np.testing.assert_allclose(noise[:, 0], noise[:, 1], atol=1e-6)
    mono = apply(left, RATE, effects)
    np.testing.assert_allclose(equal[:, 0], mono, atol=1e-5)


def test_the_ratio_of_a_stereo_recording_is_over_both_channels() -> None:
    waveform = np.stack([speechlike(RATE), np.zeros(RATE, np.float32)], axis=1)
    noise = apply(waveform, RATE, Effects(snr_db=15.0)) - waveform
    assert -level_db(noise, waveform) == pytest.approx(15, abs=0.1)


def test_probabilities_are_honoured_and_effects_are_independent() -> None:
    config, count = views(), 4000
    drawn = [draw(config, hashlib.sha256(str(n).encode()).hexdigest(), 1 + n % 5) for n in range(count)]
    probability = {"speed": 0.5, "semitones": 0.4, "snr_db": 0.3, "sigma": 0.2}
    has = {name: np.array([getattr(d, name) is not None for d in drawn]) for name in probability}

    def check(hits: NDArray[Any], p: float) -> None:
        assert abs(hits.sum() - count * p) < 4 * np.sqrt(count * p * (1 - p))

    for name, p in probability.items():
        check(has[name], p)
        for other, q in probability.items():
            if other != name:
                check(has[name] & has[other], p * q)
    for name, low, high in (("speed", 0.9, 1.1), ("semitones", -2, 2), ("snr_db", 10, 20)):
        values = np.array([getattr(d, name) for d in drawn if getattr(d, name) is not None])
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        spread = (high - low) / np.sqrt(12 * len(values))
        assert abs(values.mean() - (low + high) / 2) < 4 * spread
    both = np.array(
        [(d.speed, d.semitones, d.snr_db) for d in drawn if None not in (d.speed, d.semitones, d.snr_db)]
    )
    assert np.abs(np.corrcoef(both.T) - np.eye(3)).max() < 4 / np.sqrt(len(both))
    assert {d.sigma for d in drawn} == {None, 0.005}
    assert len({d.noise_seed for d in drawn}) == count
    certain = views(
        **{name: ALL[name] | {"probability": 1} for name in ("speed", "pitch", "noise", "gaussian")}
    )
    assert all(None not in vars(draw(certain, CONTENT, view)).values() for view in range(1, 50))


def test_draws_differ_between_views_contents_and_seeds() -> None:
    config = views(speed={"probability": 1}, noise={"probability": 1})
    drawn = {draw(config, CONTENT, view) for view in range(1, 20)}
    drawn |= {draw(config, hashlib.sha256(bytes([n])).hexdigest(), 1) for n in range(20)}
    drawn |= {draw(config.model_copy(update={"seed": seed}), CONTENT, 1) for seed in range(1, 20)}
    assert len(drawn) == 19 + 20 + 19
    assert len({effects.snr_db for effects in drawn}) == len(drawn)


def test_more_views_leave_those_that_are_there() -> None:
    few, many = views(count=2), views(count=50)
    for view in (1, 2):
        assert draw(few, CONTENT, view) == draw(many, CONTENT, view)
        assert view_key(CONTENT, view, few) == view_key(CONTENT, view, many)


def test_an_effect_does_not_move_the_draws_of_the_others() -> None:
    for view in range(1, 20):
        whole = draw(views(), CONTENT, view)
        assert draw(views(speed=None), CONTENT, view) == replace(whole, speed=None)
        assert draw(views(gaussian=None), CONTENT, view) == replace(whole, sigma=None)


def test_view_zero_is_not_drawn() -> None:
    with pytest.raises(ValueError, match="view 0 is not drawn"):
        draw(views(), CONTENT, 0)


IN_ANOTHER_PROCESS = """
import hashlib, json, sys
import numpy as np
from stillwave.pipeline.audio.augment import apply, draw, view_key
from stillwave.pipeline.config.views import ViewsConfig
config = ViewsConfig.model_validate(json.load(sys.stdin))
waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
lines = []
for view in range(1, 6):
    effects = draw(config, "ab" * 32, view)
    changed = hashlib.sha256(apply(waveform, 16000, effects).tobytes()).hexdigest()
    lines.append([repr(effects), view_key("ab" * 32, view, config), changed])
print(json.dumps(lines))
"""


def test_another_process_makes_the_same_views_to_the_bit(request: pytest.FixtureRequest) -> None:
    config = views(
        **{name: ALL[name] | {"probability": 0.9} for name in ("speed", "pitch", "noise", "gaussian")}
    )
    results = [
        subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS],
            input=config.model_dump_json(),
            capture_output=True,
            text=True,
            check=True,
            cwd=request.config.rootpath,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert results[0] == results[1]
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
    for view, (effects, key, changed) in enumerate(json.loads(results[0]), start=1):
        assert repr(draw(config, CONTENT, view)) == effects
        assert view_key(CONTENT, view, config) == key
        here = apply(waveform, RATE, draw(config, CONTENT, view))
        assert hashlib.sha256(here.tobytes()).hexdigest() == changed
    assert len({line[2] for line in json.loads(results[0])}) == 5


CHANGES: dict[str, Any] = {
    "seed": 1,
    "speed.probability": 0.6,
    "speed.low": 0.8,
    "speed.high": 1.2,
    "pitch.probability": 0.6,
    "pitch.semitones": 1.0,
    "noise.probability": 0.6,
    "noise.low_db": 5,
    "noise.high_db": 25,
    "noise.color": "pink",
    "gaussian.probability": 0.6,
    "gaussian.sigma": 0.01,
}


def test_the_key_follows_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        f"{name}.{field}" if isinstance(value, dict) else name
        for name, value in views().model_dump().items()
        for field in (value if isinstance(value, dict) else [""])
    }
    assert settings == {*CHANGES, "count"}
    keys = {view_key(CONTENT, 1, views()), view_key(CONTENT, 2, views()), view_key("cd" * 32, 1, views())}
    for path, value in CHANGES.items():
        name, _, field = path.partition(".")
        keys.add(view_key(CONTENT, 1, views(**{name: ALL[name] | {field: value} if field else value})))
    for name in ("speed", "pitch", "noise", "gaussian"):
        keys.add(view_key(CONTENT, 1, views(**{name: None})))
    monkeypatch.setattr(augment_module, "AUGMENT_VERSION", 2)
    keys.add(view_key(CONTENT, 1, views()))
    versions = {name: f"99.{len(name)}" for name in augment_module._versions()}
    monkeypatch.setattr(augment_module, "_versions", lambda: versions)
    keys.add(view_key(CONTENT, 1, views()))
    assert len(keys) == 3 + len(CHANGES) + 4 + 2
    assert all(len(key) == 64 and key != CONTENT for key in keys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "`count`"),
        ({"speed": {"probability": 0}}, r"`speed.probability`"),
        ({"speed": {"probability": 1.5}}, r"`speed.probability`"),
        ({"speed": {}}, r"`speed.probability`"),
        ({"speed": {"probability": 1, "low": 1.2}}, r"low 1.2 must be at most high 1.1"),
        ({"speed": {"probability": 1, "low": 0.1}}, r"`speed.low`"),
        ({"noise": {"probability": 1, "low_db": 30}}, r"low_db 30.0 must be at most high_db 20.0"),
        ({"noise": {"probability": 1, "color": "brown"}}, r"`noise.color`"),
        ({"pitch": {"probability": 1, "semitones": 13}}, r"`pitch.semitones`"),
        ({"gaussian": {"probability": 1, "sigma": 0}}, r"`gaussian.sigma`"),
        ({"reverb": {"probability": 1}}, r"`reverb`: Extra inputs"),
        (dict.fromkeys(("speed", "pitch", "noise", "gaussian")), "views without an effect are copies"),
    ],
)
def test_settings_out_of_bounds_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        views(**changes)


def test_views_belong_to_audio_and_not_to_the_fingerprint() -> None:
    fbank = parse_backbone({"kind": "fbank"}, "test", trusted=True)
    seen = parse_backbone({"kind": "fbank", "views": ALL}, "test", trusted=True)
    assert seen.views == views()
    assert seen.fingerprint_fields() == fbank.fingerprint_fields()
    assert "views" not in fbank.fingerprint_fields()
    with pytest.raises(ConfigError, match="`views`: Input should be None"):
        parse_backbone({"kind": "mbert", "views": ALL}, "test", trusted=True)
