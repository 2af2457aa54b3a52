"""Which frames to label next: scores against values by hand, and a choice that is bounded, spread and repeatable."""

import numpy as np
import pytest

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


def test_half_of_the_candidates_are_spread_and_half_jump():
    jump = np.zeros(101)
    jump[[7, 8, 50, 93]] = (0.5, 0.9, 0.8, 0.1)
    assert candidates(jump, 4).tolist() == [0, 8, 50, 100]
    assert candidates(jump, 6).tolist() == [0, 7, 8, 50, 93, 100]  # 50 is one of the three that are spread
    assert candidates(jump, 1).tolist() == [0]
    assert candidates(jump, 101).tolist() == list(range(101))
    assert len(set(candidates(np.random.default_rng(0).random(1000), 400).tolist())) == 400


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


def test_each_scene_gives_its_best_frame():
    pictures = scenes(4, 5)
    scores = np.tile([0.1, 0.2, 0.9, 0.3, 0.4], 4) + np.repeat([0.0, 0.01, 0.02, 0.03], 5)
    # Without looking at them, the best of all would be chosen, of whatever scene.
    for seed in range(5):
        assert choose(scores, ["a"] * 20, pictures, 4, seed=seed).tolist() == [17, 12, 7, 2]


def test_only_the_best_are_looked_at():
    scores = np.arange(100.0)
    assert choose(scores, ["a"] * 100, scenes(100, 1), 4).min() >= 80


@pytest.mark.parametrize("bound, most", [(1, 1), (2, 2), (3, 2), (None, 2)])
def test_groups_give_an_even_share_within_their_bounds(bound, most):
    rng = np.random.default_rng(1)
    groups = [f"r{i // 30}" for i in range(120)]
    scores = rng.random(120) + np.repeat([3, 2, 1, 0], 30)  # the first recording has the highest scores
    bounds = [(groups, bound)] if bound else []
    found = choose(scores, groups, rng.normal(size=(120, 64)), 6, bounds=bounds)
    counts = {name: sum(groups[i] == name for i in found) for name in set(groups)}
    assert max(counts.values()) <= most
    assert len(found) == min(6, 4 * most) == len(set(found.tolist()))
    assert (np.diff(scores[found]) <= 0).all(), "the highest score comes first"


def test_bounds_of_other_names_hold_as_well():
    rng = np.random.default_rng(3)
    recordings = [f"r{i // 20}" for i in range(60)]
    groups = [(name, i % 2) for i, name in enumerate(recordings)]  # two gases of each
    found = choose(rng.random(60), groups, rng.normal(size=(60, 64)), 9, bounds=[(recordings, 3)])
    assert len(found) == 9 and {recordings[i] for i in found} == {"r0", "r1", "r2"}
    assert max(sum(recordings[i] == name for i in found) for name in recordings) == 3


def test_a_small_group_leaves_its_share_to_the_others():
    groups = ["small"] * 2 + ["large"] * 50
    found = choose(np.arange(52.0), groups, np.random.default_rng(0).normal(size=(52, 64)), 10)
    assert sorted(found)[:2] == [0, 1] and len(found) == 10


def test_frames_that_look_the_same_do_not_make_the_choice_smaller():
    assert choose(np.arange(20.0), ["a"] * 20, np.zeros((20, 64)), 4).tolist() == [19, 18, 17, 16]
    two = np.repeat(np.eye(2, 64), 10, axis=0)
    assert choose(np.arange(20.0), ["a"] * 20, two, 4).tolist() == [19, 18, 17, 9]


def test_fewer_frames_than_asked_for_are_all_chosen():
    assert choose(np.array([0.1, 0.3, 0.2]), ["a"] * 3, scenes(3, 1), 10).tolist() == [1, 2, 0]
    assert choose(np.zeros(0), [], np.zeros((0, 64)), 3).tolist() == []


def test_the_choice_is_a_function_of_the_seed():
    rng = np.random.default_rng(2)
    scores, pictures = rng.random(300), rng.normal(size=(300, 64))
    found = [choose(scores, ["a"] * 300, pictures, 20, seed=seed).tolist() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_groups_are_not_clustered_again_and_again_for_more_frames_than_there_are(monkeypatch):
    calls = []
    monkeypatch.setattr(selection, "_cluster", lambda points, count, rng: calls.append(count) or np.arange(len(points)))
    names = [f"r{i // 100}" for i in range(300)]
    scores, pictures = np.arange(300.0), np.zeros((300, 4))
    assert len(choose(scores, names, pictures, 500)) == 300
    assert len(choose(scores, names, pictures, 50, bounds=[(names, 3)])) == 9
    assert not calls
    # A large group makes up for small ones: shares that cannot do are not tried.
    names = ["large"] * 280 + [f"small{i}" for i in range(20)]
    assert len(choose(scores, names, pictures, 100)) == 100 and len(calls) == 1
