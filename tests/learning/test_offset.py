"""Offsets between clocks: curves whose offset is known, curves that have none, and simulated films."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from fume_jax.learning.offset import estimate_offset
from fume_jax.schema import GAS, GASES

RATE = 30.0


def release(times, seed=0, smooth=0.15):
    """A flickering release at any times in seconds from -100 to 300, of mean 1000."""
    noise = np.random.default_rng(seed).standard_normal(40_000)
    curve = ndimage.gaussian_filter1d(noise, smooth * 100)
    return 1000 + 100 * np.interp(times, np.arange(40_000) / 100 - 100, curve / curve.std())


def clock(seconds=10.0, rate=RATE):
    return np.arange(round(seconds * rate)) / rate


def filmed(offset, *, seconds=10.0, rates=(RATE, RATE), noise=10.0, seed=0):
    """Curves of one release by two cameras that start together and whose clocks differ by `offset`."""
    rng, first, second = np.random.default_rng([seed, 1]), clock(seconds, rates[0]), clock(seconds, rates[1])
    areas = [release(times, seed) + noise * rng.standard_normal(len(times)) for times in (first, second)]
    return first, areas[0], second + offset, areas[1]


@pytest.mark.parametrize("offset", [0.0, 1.2345, -2.71, 7.0])
def test_what_the_second_clock_shows_later_is_a_positive_offset(offset):
    found = estimate_offset(*filmed(offset))
    assert found.clear
    assert found.seconds == pytest.approx(offset, abs=0.01)
    assert 0.9 < found.peak <= 1


@pytest.mark.parametrize("late", [1.7, -1.7])
def test_a_camera_that_was_started_late_shows_an_event_early(late):
    times = clock()
    found = estimate_offset(times, release(times), times, release(times + late))
    assert found.seconds == pytest.approx(-late, abs=0.3 / RATE)
    assert found.peak > 0.9


def test_an_offset_between_two_frames_is_found():
    times = clock()
    for fraction in (0.25, 0.5, 0.8):
        found = estimate_offset(times, release(times), times, release(times - (10 + fraction) / RATE))
        assert found.seconds * RATE == pytest.approx(10 + fraction, abs=0.1)


def test_swapping_the_cameras_changes_the_sign():
    first_times, first, second_times, second = filmed(0.8)
    there, back = (
        estimate_offset(first_times, first, second_times, second),
        estimate_offset(second_times, second, first_times, first),
    )
    assert there.seconds == pytest.approx(-back.seconds, abs=1e-9)
    assert there.peak == pytest.approx(back.peak)


@pytest.mark.parametrize("rates", [(30, 12.5), (12.5, 30), (25, 29.97)])
def test_cameras_may_have_different_rates(rates):
    found = estimate_offset(*filmed(-1.3, rates=rates, noise=1.0))
    assert found.seconds == pytest.approx(-1.3, abs=0.02)


def test_neither_unit_nor_level_nor_trend_of_the_areas_matters():
    first_times, first, second_times, second = filmed(0.4)
    plain = estimate_offset(first_times, first, second_times, second)
    other = estimate_offset(first_times, 7 * first - 400, second_times, second / 50 + 0.3 * second_times)
    assert other.seconds == pytest.approx(plain.seconds, abs=0.005)
    # Slow trends alone, however alike, are no offset.
    assert not estimate_offset(first_times, 500 * first_times, second_times, 20 * second_times).clear


def test_gaps_and_missing_areas_are_left_out():
    first_times, first, second_times, second = filmed(1.1)
    kept = np.ones(len(first_times), bool)
    kept[40:60] = kept[200:204] = False
    second[100:130] = np.nan
    second[131:200:7] = np.nan
    found = estimate_offset(first_times[kept], first[kept], second_times, second)
    assert found.seconds == pytest.approx(1.1, abs=0.02)


def test_areas_across_a_gap_are_not_made_up():
    # Interpolated across the gap, the two would share a ramp, and with it a false offset.
    first_times, first, second_times, second = filmed(0.0, seconds=12)
    first, second = (np.where((t > 4) & (t < 8), np.nan, x) for t, x in ((first_times, first), (second_times, second)))
    first[first_times >= 8] += 5000
    second[second_times >= 8] += 5000
    assert estimate_offset(first_times, first, second_times, second).seconds == pytest.approx(0, abs=0.01)


# --- what is refused ---


@pytest.mark.parametrize(
    "first, second",
    [
        pytest.param(np.zeros(300), np.zeros(300), id="no gas"),
        pytest.param(np.full(300, 0.1), release(clock()), id="constant"),
        pytest.param(np.full(300, np.nan), release(clock()), id="absent"),
        pytest.param(release(clock(), 0), release(clock(), 1), id="of different releases"),
        pytest.param(np.sin(2 * np.pi * clock()), np.sin(2 * np.pi * clock()), id="periodic"),
        pytest.param(release(clock()), -release(clock()), id="opposite"),
    ],
)
def test_curves_that_do_not_tell_an_offset_are_refused(first, second):
    found = estimate_offset(clock(), first, clock(), second)
    assert not found.clear
    assert found.seconds is found.drift_seconds is None
    assert -1 <= found.peak <= 1


@pytest.mark.parametrize("count", [0, 1, 2, 5, 20])
def test_a_few_frames_are_refused(count):
    times = clock()[:count]
    assert not estimate_offset(times, release(times), times, release(times)).clear


def test_an_offset_beyond_the_range_is_refused():
    arguments = filmed(3.0)
    assert estimate_offset(*arguments, max_offset=4.0).clear
    assert not estimate_offset(*arguments, max_offset=2.0).clear
    first_times, first, second_times, second = filmed(1e6)
    assert not estimate_offset(first_times, first, second_times, second).clear


def test_times_that_do_not_increase_are_an_error():
    times = clock()
    with pytest.raises(ValueError, match="increase"):
        estimate_offset(times, release(times), times[::-1], release(times))


def test_unrelated_curves_are_hardly_ever_clear():
    clear = 0
    for seed in range(100):
        smooth = (0.05, 0.15, 0.4)[seed % 3]
        first, second = (release(clock(), seed=2 * seed + i, smooth=smooth) for i in range(2))
        clear += estimate_offset(clock(), first, clock(), second).clear
    assert clear <= 1


# --- drift ---


@pytest.mark.parametrize("speed", [1.004, 0.996])
def test_a_second_clock_that_runs_fast_drifts_upwards(speed):
    times = clock(60)
    found = estimate_offset(times, release(times), speed * times + 2, release(times))
    # In the middle of the first half, at 15 s, it is ahead by 2 s and 15 (speed - 1), in that of the second by thrice.
    assert found.drift_seconds == pytest.approx(30 * (speed - 1), abs=0.02)
    assert found.seconds == pytest.approx(2 + 30 * (speed - 1), abs=0.05)


def test_equal_clocks_do_not_drift_and_a_half_without_gas_tells_no_drift():
    first_times, first, second_times, second = filmed(0.6, seconds=40)
    assert estimate_offset(first_times, first, second_times, second).drift_seconds == pytest.approx(0, abs=0.01)
    first[first_times > 17] = second[second_times > 17.6] = 0
    found = estimate_offset(first_times, first, second_times, second)
    assert found.clear and found.drift_seconds is None


# --- simulated films ---

# Of the films of both gases in the test split of `demo`: six that begin soon after the release, and two slow ones.
FILMS, SLOW = (4, 13, 26, 32, 37, 38), (3, 10)


@pytest.mark.slow
def test_offsets_of_simulated_films_are_found_within_a_frame_or_refused():
    from datasets.synthetic_ogi.recording import render_film
    from datasets.synthetic_ogi.synthetic_ogi import config_named

    plans = [plan for plan in config_named("demo").plan()["test"] if len(plan.gases) == 2]
    rng, found = np.random.default_rng(0), []
    for number in FILMS + SLOW:
        film = render_film(dataclasses.replace(plans[number], height=60, width=80), 300)
        co2, ch4 = ([int((example[f"{gas}_mask"] == GAS).sum()) for example in film] for gas in GASES)
        true = rng.uniform(-3, 3)
        offset = estimate_offset(clock(), co2, clock() + true, ch4)
        # The fronts of the two gases drift apart in a slow plume, and its curves share nothing else.
        assert not (offset.clear and number in SLOW)
        if offset.clear:
            assert offset.seconds == pytest.approx(true, abs=1 / RATE), number
            found.append(number)
    assert len(found) >= 3
