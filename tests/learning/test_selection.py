"""Which frames to label next: scores against values by hand, and a choice that is typical, even and repeatable."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fume_jax.learning import selection
from fume_jax.learning.selection import SIDE, candidates, choose, disagreement, jumps, small_picture, to_ranks

SURE, OPEN = np.log([0.98, 0.01, 0.01]), np.zeros(3)


def logits_of(*counts):
    """A frame of 100 x 100 pixels: so many that nobody knows, and so many that are gas for certain."""
    unknown, gas = counts
    logits = np.tile(SURE, (10_000, 1))
    logits[:unknown] = OPEN
    logits[unknown : unknown + gas] = (0, 0, 50)
    return logits.reshape(100, 100, 3).astype(np.float32)


@pytest.mark.parametrize("unknown, gas, expected", [(0, 0, 0.0), (0, 500, 0.0), (100, 0, 0.01), (400, 1200, 0.04)])
def test_uncertainty_is_the_share_of_what_nobody_knows(unknown, gas, expected):
    certain = -(0.98 * np.log(0.98) + 0.02 * np.log(0.01)) / np.log(3)
    sure = (1 - unknown / 10_000 - gas / 10_000) * certain
    assert selection.uncertainty(logits_of(unknown, gas)) == pytest.approx(expected + sure, abs=1e-6)


def test_a_jump_is_judged_by_two_neighbours_on_either_side():
    spike = jumps(np.array([0.1, 0.1, 0.1, 0.4, 0.1, 0.1]))
    assert spike == pytest.approx([0, 0, 0, 0.3, 0, 0])
    hole = jumps(np.array([0.1, 0.1, 0.0, 0.1, 0.1]))
    assert hole == pytest.approx([0, 0, 0.1, 0, 0])
    onset = jumps(np.array([0.0, 0.0, 0.0, 0.0, 0.2, 0.2, 0.2, 0.2]))
    # The last frame before it sees 0, 0, 0.2, 0.2, of which the median is 0.1; so does the first one with gas.
    assert onset == pytest.approx([0, 0, 0, 0.1, 0.1, 0, 0, 0])


@pytest.mark.parametrize("shares", [[], [0.5], [0.5, 0.5], [0.5, 0.0]])
def test_short_recordings_have_jumps_too(shares):
    found = jumps(np.array(shares))
    assert found.shape == (len(shares),) and np.isfinite(found).all()
    assert (found == (0.5 if shares == [0.5, 0.0] else 0.0)).all()


def test_disagreement_is_the_share_of_pixels_of_one_mask_alone():
    first, second = np.zeros((2, 100, 100), bool)
    assert disagreement(first, second) == 0
    first[:10], second[5:15] = True, True
    assert disagreement(first, second) == pytest.approx(0.1)


def test_ranks_have_no_scale_and_ties_share_theirs():
    scores = np.array([[0.1, 5000.0], [0.2, 10.0], [0.2, 20.0], [0.9, 10.0]])
    expected = np.array([[1, 4], [2.5, 1.5], [2.5, 3], [4, 1.5]]) - 0.5
    np.testing.assert_allclose(to_ranks(scores), expected / 4)
    np.testing.assert_allclose(to_ranks(scores**3), expected / 4)
    assert to_ranks(np.zeros((0, 3))).shape == (0, 3)


def test_candidates_are_evenly_spread():
    assert candidates(101, 3).tolist() == [0, 50, 100]
    assert candidates(30, 6).tolist() == [0, 6, 12, 17, 23, 29]
    assert candidates(101, 1).tolist() == [0]
    assert candidates(5, 400).tolist() == [0, 1, 2, 3, 4] and candidates(0, 3).tolist() == []
    assert len(set(candidates(1000, 400).tolist())) == 400


def test_small_pictures_do_not_depend_on_brightness_and_contrast():
    frame = np.random.default_rng(0).integers(0, 100, (60, 80)).astype(np.uint8)
    picture = small_picture(frame)
    assert picture.shape == (SIDE * SIDE,) and picture.dtype == np.float32
    np.testing.assert_allclose(small_picture(2 * frame + 50), picture, atol=2e-2)
    assert (small_picture(np.full((60, 80), 7, np.uint8)) == 0).all()


def scenes(count, each, seed=0):
    """So many scenes, with so many pictures of each that hardly differ, in order."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.normal(size=(count, 64)), each, axis=0) + 0.01 * rng.normal(size=(count * each, 64))


def one(count):
    """All of so many frames in one group."""
    return [["a"] * count]


@pytest.mark.parametrize("seed", range(5))
def test_each_scene_gives_its_most_typical_frame(seed):
    # The means are 3, 53 and 104; the frames nearest to them are the third, third and second ones.
    pictures = np.array([0, 1, 3, 4, 7, 50, 51, 53, 54, 57, 100, 104, 103, 106, 107.0])[:, None]
    scores = np.array([9, 8, 1, 6, 9, 9, 8, 2, 6, 9, 9, 3, 8, 6, 9.0])
    assert choose(scores, one(15), pictures, 3, seed=seed).tolist() == [11, 7, 2], "the highest score comes first"


@pytest.mark.parametrize("count", [1, 2, 3, 8, 20])
def test_an_odd_frame_is_not_chosen(count):
    pictures = np.concatenate([scenes(2, 20), 100 * np.ones((1, 64)), -100 * np.ones((1, 64))])
    scores = np.arange(42.0)  # the odd ones have the highest
    for seed in range(5):
        found = choose(scores, one(42), pictures, count, seed=seed)
        assert len(found) == count and found.max() < 40


def test_scores_decide_among_frames_that_are_as_typical():
    assert choose(np.arange(20.0), one(20), np.zeros((20, 64)), 4).tolist() == [19, 18, 17, 16]
    two = np.repeat(np.eye(2, 64), 10, axis=0)
    assert choose(np.arange(20.0), one(20), two, 4).tolist() == [19, 18, 9, 8], "clusters take turns"


def test_the_largest_cluster_gives_what_the_others_leave_over():
    two = np.repeat(np.eye(2, 64), [6, 10], axis=0)
    assert choose(np.arange(16.0), one(16), two, 3).tolist() == [15, 14, 5]


def test_every_recording_gives_a_frame_before_one_gives_two_and_so_do_its_gases():
    rng = np.random.default_rng(3)
    recordings = [f"r{i // 20}" for i in range(60)]
    groups = [recordings, [(name, i % 2) for i, name in enumerate(recordings)]]
    scores, pictures = rng.random(60), rng.normal(size=(60, 64))
    for count, expected in ((3, [1] * 3), (4, [1, 1, 2]), (6, [2] * 3), (12, [4] * 3)):
        found = choose(scores, groups, pictures, count)
        assert sorted(Counter(recordings[i] for i in found).values()) == expected
        gases = Counter(groups[1][i] for i in found)
        assert max(gases.values()) == -(-max(expected) // 2)


def test_a_recording_of_many_scenes_gives_no_more_than_another():
    recordings = ["many"] * 18 + ["one"] * 6
    found = choose(np.arange(24.0), [recordings], scenes(4, 6), 4)
    assert Counter(recordings[i] for i in found) == {"many": 2, "one": 2}


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), max_size=6),
    count=st.integers(1, 40),
    most=st.none() | st.integers(1, 5),
    distinct=st.integers(1, 20),
)
def test_groups_give_even_shares_as_far_as_they_and_the_limit_allow(sizes, count, most, distinct):
    groups = [name for name, size in enumerate(sizes) for _ in range(size)]
    rng = np.random.default_rng(0)
    scores = rng.random(len(groups))
    pictures = rng.normal(size=(distinct, 4))[rng.integers(distinct, size=len(groups))]
    found = choose(scores, [groups], pictures, count, most=most).tolist()
    limits = [min(size, most or size) for size in sizes]
    assert len(found) == len(set(found)) == min(count, sum(limits))
    assert found == sorted(found, key=lambda i: -scores[i])
    shares = Counter(groups[i] for i in found)
    for name, limit in enumerate(limits):
        assert shares[name] <= limit
        assert shares[name] == limit or shares[name] >= max(shares.values()) - 1


def test_the_choice_is_a_function_of_the_seed():
    rng = np.random.default_rng(2)
    scores, pictures = rng.random(300), rng.normal(size=(300, 64))
    found = [choose(scores, one(300), pictures, 20, seed=seed).tolist() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_no_clusters_are_made_where_all_are_chosen(monkeypatch):
    monkeypatch.setattr(selection, "_cluster", None)
    assert choose(np.array([0.1, 0.3, 0.2]), one(3), scenes(3, 1), 10).tolist() == [1, 2, 0]
    assert choose(np.zeros(0), one(0), np.zeros((0, 64)), 3).tolist() == []
