"""Which of the newest frames of two cameras go together, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fume_jax.inference.live.pairing import CLOCK_WAIT, Pairing
from fume_jax.inference.live.streams import LiveFrame

NONE = frozenset()


def frames(*times, clock=None):
    """Frames that arrive at these times, in order; by their clocks `clock` seconds earlier."""
    return [LiveFrame(np.zeros((1, 1), np.uint8), time, time - (clock or 0.0), None) for time in times]


def arrivals(chosen):
    return {gas: frame.arrival for gas, frame in chosen.items()}


@pytest.mark.parametrize(
    "co2, ch4, now, expected",
    [
        ([1.0], [1.1], 1.1, {"co2": 1.0, "ch4": 1.1}),
        ([1.1], [1.0], 1.1, {"co2": 1.1, "ch4": 1.0}),
        ([1.0], [1.1001], 1.1, {}),  # too far apart, so the older one waits for a partner that cannot come
        ([1.0], [], 1.0, {}),
        ([], [], 1.0, {}),
    ],
)
def test_two_frames_are_a_pair_within_the_tolerance(co2, ch4, now, expected):
    pairing = Pairing("arrival", 0.1 + 1e-9)
    assert arrivals(pairing.choose({"co2": frames(*co2), "ch4": frames(*ch4)}, NONE, now)) == expected


def test_a_frame_waits_for_its_partner_no_longer_than_the_tolerance_though_newer_ones_replace_it():
    pairing = Pairing("arrival", 0.25)
    for now in (0.0, 0.1, 0.2):
        assert pairing.choose({"co2": frames(now), "ch4": []}, NONE, now) == {}
    assert arrivals(pairing.choose({"co2": frames(0.3), "ch4": []}, NONE, 0.3)) == {"co2": 0.3}
    assert pairing.choose({"co2": frames(0.4), "ch4": []}, NONE, 0.4) == {}  # the next one waits anew
    assert arrivals(pairing.choose({"co2": frames(0.4), "ch4": frames(0.5)}, NONE, 0.5)) == {"co2": 0.4, "ch4": 0.5}


def test_nobody_waits_for_a_camera_that_is_lost_or_not_there():
    assert arrivals(Pairing("arrival", 9.0).choose({"co2": frames(1.0), "ch4": []}, {"ch4"}, 1.0)) == {"co2": 1.0}
    assert arrivals(Pairing("arrival", 9.0).choose({"ch4": frames(1.0)}, NONE, 1.0)) == {"ch4": 1.0}


def test_of_two_frames_too_far_apart_the_newer_one_goes_alone_in_the_end():
    pairing, waiting = Pairing("arrival", 0.1), {"co2": frames(1.0), "ch4": frames(1.5)}
    assert pairing.choose(waiting, NONE, 1.5) == {}
    assert arrivals(pairing.choose(waiting, NONE, 1.6)) == {"ch4": 1.5}


def test_by_clock_the_newest_pair_is_found_though_one_camera_comes_late():
    """CH4 takes 0.3 s longer: its frame of clock 1.1 arrives at 1.4, when that of CO2 has long been there."""
    co2, ch4 = frames(1.0, 1.1, 1.2, 1.3, 1.4), frames(1.3, 1.4, clock=0.3)
    chosen = Pairing("clock", 0.02).choose({"co2": co2, "ch4": ch4}, NONE, 1.4)
    assert arrivals(chosen) == {"co2": 1.1, "ch4": 1.4}
    assert Pairing("clock", 0.02).distance(chosen) == pytest.approx(0.0)
    assert arrivals(Pairing("arrival", 0.02).choose({"co2": co2[-1:], "ch4": ch4[-1:]}, NONE, 1.4)) == {
        "co2": 1.4,
        "ch4": 1.4,
    }


def test_by_clock_a_frame_waits_for_one_that_takes_longer():
    pairing, waiting = Pairing("clock", 0.02), {"co2": frames(1.0), "ch4": []}
    assert pairing.choose(waiting, NONE, 1.0) == pairing.choose(waiting, NONE, 1.0 + CLOCK_WAIT - 0.01) == {}
    assert arrivals(pairing.choose(waiting, NONE, 1.0 + CLOCK_WAIT)) == {"co2": 1.0}


times = st.lists(st.floats(0, 2), max_size=8).map(sorted)


@given(times, times, st.floats(0, 0.5))
def test_the_pair_chosen_is_near_and_none_is_newer(co2, ch4, tolerance):
    waiting = {"co2": frames(*co2), "ch4": frames(*ch4)}
    chosen = arrivals(Pairing("clock", tolerance).choose(waiting, NONE, 2.0))
    near = [(a, b) for a in co2 for b in ch4 if abs(a - b) <= tolerance]
    assert bool(chosen) == bool(near)
    if chosen:
        assert abs(chosen["co2"] - chosen["ch4"]) <= tolerance
        assert min(chosen.values()) == max(min(pair) for pair in near)
