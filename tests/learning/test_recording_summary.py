"""Measures of a recording: cases done by hand, and what a reordering of frames or another unit changes."""

import json

import numpy as np
import pytest

from fume_jax.learning.recording_summary import (
    circular_quartiles,
    find_onsets,
    quartiles,
    shows_gas,
    summarize_recording,
    time_share,
)

NAN = np.nan


def test_a_frame_shows_gas_if_a_thousandth_of_it_is_gas_of_either_kind():
    areas = {"co2": np.array([9.0, 10, NAN, NAN, 0]), "ch4": np.array([0.0, 0, 20, 19, NAN])}
    assert shows_gas(areas, {"co2": 10_000, "ch4": 20_000}).tolist() == [False, True, True, False, False]
    assert shows_gas(areas, {"co2": 10_000, "ch4": 20_000}, share=0.0009).tolist() == [True, True, True, True, False]


# --- time ---


@pytest.mark.parametrize(
    "times, shown, share",
    [
        ([], [], None),
        ([3.0], [1], 1.0),
        ([3.0], [0], 0.0),
        ([0, 1, 2], [1, 1, 1], 1.0),
        # The intervals have 1, 1 and 2 seconds; with gas are half of the first, none and all of the last but a half.
        ([0, 1, 2, 4], [1, 0, 0, 1], (0.5 + 1) / 4),
        # The ten seconds after the third frame are a pause.
        ([0, 1, 2, 12, 13], [0, 0, 0, 1, 1], 1 / 3),
    ],
)
def test_the_share_of_time_with_gas(times, shown, share):
    assert time_share(np.array(times, float), np.array(shown, bool)) == (
        share if share is None else pytest.approx(share)
    )


def test_frames_that_come_more_often_do_not_weigh_more():
    sparse, dense = np.arange(0, 10, 0.4), np.arange(10, 20.01, 0.1)
    times = np.concatenate([sparse, dense])
    assert time_share(times, times >= 10) == pytest.approx(0.5, abs=0.015)


def onsets(areas, times=None, **options):
    """Onsets with frames of 1000 pixels each second, so that gas appears with 1 pixel and ends below a half."""
    areas = np.array(areas, float)
    return find_onsets(np.arange(len(areas)) * 1.0 if times is None else np.array(times), areas, 1000, **options)


@pytest.mark.parametrize(
    "areas, quiet, expected",
    [
        ([0, 0, 5, 5], 2.0, [2.0]),
        ([0, 0, 5, 5], 3.0, []),  # the release may have paused shortly before the recording
        ([5, 5, 5, 5], 1.0, []),  # was there before
        ([5, 0, 0, 5, 0, 5], 2.0, [3.0]),
        ([5, 0, 0, 5, 0, 5], 1.0, [3.0, 5.0]),
        ([0, 0, 0.9, 1, 0.6, 1, 0.6, 3], 1.0, [3.0]),  # 0.6 is still gas that was there, 0.9 none that appears
        ([0, 0, 0.9, 1, 0.4, 1, 0.4, 3], 1.0, [3.0, 5.0, 7.0]),
        ([0, 5, 0.4, 0.6, 0.6, 5], 3.0, [5.0]),  # what has ended stays so until it appears anew
        ([0, 0, 0], 1.0, []),
        ([], 1.0, []),
    ],
)
def test_onsets_done_by_hand(areas, quiet, expected):
    assert onsets(areas, quiet=quiet) == expected


def test_what_happened_in_a_pause_is_no_onset():
    times = [0, 1, 2, 50, 51, 52, 53]
    assert onsets([0, 0, 0, 5, 5, 5, 5], times) == []
    assert onsets([5, 5, 5, 0, 0, 5, 5], times, quiet=2.0) == [52.0]
    assert onsets([0, 0, 0, 0, 5, 5, 5], times, quiet=2.0) == []  # one second was seen, whatever was before


# --- quartiles ---


def test_quartiles_leave_out_what_is_missing():
    assert quartiles(np.array([NAN, 1.0, 2, 3, 4, 5])) == (2.0, 3.0, 4.0)
    assert quartiles(np.array([7.0])) == (7.0, 7.0, 7.0)
    assert quartiles(np.array([NAN])) is quartiles(np.array([])) is None


@pytest.mark.parametrize(
    "degrees, expected",
    [
        ([359, 1], (-0.5, 0, 0.5)),
        ([-1, 1], (-0.5, 0, 0.5)),
        ([179, -179], (179.5, 180, -179.5)),
        ([80, NAN, 90, 100], (85, 90, 95)),
        ([-170, 170, 160], (165, 170, 180)),
        ([45], (45, 45, 45)),
    ],
)
def test_directions_have_quartiles_across_the_half_turn(degrees, expected):
    assert circular_quartiles(np.array(degrees, float)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("degrees", [[], [NAN], [0, 180], [0, 120, -120]])
def test_directions_that_cancel_out_have_no_median(degrees):
    assert circular_quartiles(np.array(degrees, float)) is None


@pytest.mark.parametrize("turn", [0, 90, 170, -135])
def test_turning_all_directions_turns_their_quartiles(turn):
    degrees = np.random.default_rng(0).normal(0, 30, 50)
    there = np.array(circular_quartiles(degrees + turn)) - circular_quartiles(degrees)
    np.testing.assert_allclose(there - 360 * np.round((there - turn) / 360), turn, atol=1e-9)


# --- recording ---


def recording():
    """Five frames, one of which lacks CO2; CO2 shows in frames 2 and 4 and CH4 never."""
    return {
        "times": np.arange(5) * 1.0,
        "probabilities": np.array(
            [[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.2, 0.3, 0.5], [NAN, NAN, NAN], [0.3, 0.2, 0.5]]
        ),
        "measures": {
            "co2": {
                "area": np.array([0.0, 0, 100, NAN, 300]),
                "length": np.array([NAN, 3, 10, NAN, 20]),
                "direction": np.array([NAN, 90, 359, NAN, 1]),
                "contrast": np.array([NAN, NAN, -2, NAN, NAN]),
            },
            "ch4": {"area": np.array([0.0, 0, 0, 0, 1]), "length": np.full(5, NAN)},
        },
        "frame_pixels": {"co2": 10_000, "ch4": 10_000},
    }


def test_a_recording_done_by_hand():
    found = summarize_recording(**recording())
    geometric = np.array([0.06, 0.06, 0.25]) ** 0.5
    expected = {
        "class": "Acidotic",
        "probability": geometric[2] / geometric.sum(),
        "agreement": 1.0,
        "frames": 5,
        "frames_with_gas": 2,
        "frames_used": 2,
        "co2_area_median": 200.0,
        "co2_area_q1": 150.0,
        "co2_area_q3": 250.0,
        "co2_length_median": 15.0,
        "co2_length_q1": 12.5,
        "co2_length_q3": 17.5,
        "co2_direction_median": 0.0,
        "co2_direction_q1": -0.5,
        "co2_direction_q3": 0.5,
        "co2_contrast_median": -2.0,
        "co2_contrast_q1": -2.0,
        "co2_contrast_q3": -2.0,
        # Intervals of 1, 1 and 2 seconds between the four frames of CO2: 0, a half, and all of the last.
        "co2_gas_time_share": (0.5 + 2) / 4,
        "ch4_area_median": None,
        "ch4_area_q1": None,
        "ch4_area_q3": None,
        "ch4_length_median": None,
        "ch4_length_q1": None,
        "ch4_length_q3": None,
        "ch4_gas_time_share": 0.0,
    }
    assert found.pop("co2_onsets") == [2.0] and found.pop("ch4_onsets") == []
    # Both frames used say 0.5 of the class, and so no more than one of them would.
    assert found.pop("effective_frames") == 1
    assert found.pop("probability_low") is found.pop("probability_high") is None
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_summary_is_of_plain_values():
    found = summarize_recording(**recording())
    assert json.loads(json.dumps(found)) == found


def test_a_recording_of_one_frame_and_one_of_none():
    one = recording()
    one["times"], one["probabilities"] = one["times"][2:3], one["probabilities"][2:3]
    one["measures"] = {gas: {k: v[2:3] for k, v in values.items()} for gas, values in one["measures"].items()}
    found = summarize_recording(**one)
    assert (found["class"], found["probability"], found["frames"]) == ("Acidotic", pytest.approx(0.5), 1)
    assert found["effective_frames"] == found["agreement"] == found["co2_gas_time_share"] == 1
    assert found["probability_low"] is found["probability_high"] is None
    one["times"], one["probabilities"] = np.zeros(0), np.zeros((0, 3))
    one["measures"] = {gas: {k: v[:0] for k, v in values.items()} for gas, values in one["measures"].items()}
    nothing = summarize_recording(**one)
    assert nothing.keys() == found.keys()
    assert nothing["class"] is nothing["probability"] is nothing["co2_gas_time_share"] is None
    assert nothing["frames"] == nothing["frames_used"] == 0 and nothing["co2_onsets"] == []


def test_a_recording_that_shows_no_gas_has_the_class_of_all_of_its_frames():
    still = recording()
    still["measures"]["co2"]["area"] = np.zeros(5)
    found = summarize_recording(**still)
    assert (found["class"], found["frames_with_gas"], found["frames_used"]) == ("Healthy", 0, 4)


def test_a_recording_without_masks_has_a_class():
    found = summarize_recording(**recording() | {"measures": {}, "frame_pixels": {}})
    assert (found["class"], found["frames_used"]) == ("Healthy", 4)


def test_times_that_do_not_increase_are_an_error():
    with pytest.raises(ValueError, match="increase"):
        summarize_recording(**recording() | {"times": np.array([0.0, 1, 1, 2, 3])})
