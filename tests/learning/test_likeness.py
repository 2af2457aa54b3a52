"""Frames like those of training and others, by hand and by what a camera may do to a picture."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fume_jax.learning.likeness import BINS, grey_distance, measure_look, summarize_looks, unlike_training

SIZE = (96, 128)


def scene(seed):
    """A picture with structures of some pixels and noise of a camera."""
    rng = np.random.default_rng(seed)
    small = rng.normal(110, 40, (24, 32)).astype(np.float32)
    picture = cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC) + rng.normal(0, 3, SIZE)
    return picture.clip(0, 255).astype(np.uint8)[..., None]


@pytest.fixture(scope="module")
def training():
    return {"size": [96, 128], "co2": summarize_looks(measure_look(scene(i)) for i in range(60))}


def test_measures_of_two_levels_by_hand():
    frame = np.zeros((4, 6, 1), np.uint8)
    frame[:, 3:] = 100
    look = measure_look(frame)
    assert look.histogram.tolist() == [0.5, *[0] * 5, 0.5, *[0] * 9]
    assert look.contrast == pytest.approx(np.log10(50**2 + 1) / 2)
    # The Laplacian is 100 beside the edge, -100 on its other side, in a third of the pixels.
    assert look.sharpness == pytest.approx(np.log10((100**2 / 3 + 1) / (50**2 + 1)), abs=1e-6)


def test_a_frame_of_one_grey_has_measures():
    assert measure_look(np.full((4, 4), 7, np.uint8))[1:] == (0, 0)


def test_the_distance_is_that_which_pixels_move():
    dark, bright = np.eye(BINS)[0], np.eye(BINS)[3]
    assert grey_distance(dark, bright) == grey_distance(bright, dark) == 48
    assert grey_distance(dark, (dark + bright) / 2) == 24 and grey_distance(dark, dark) == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([(1, 1), (7, 9), (40, 3)]))
def test_histograms_sum_to_one_and_count_every_pixel(seed, size):
    frame = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    expected = np.histogram(frame, BINS, (0, 256))[0] / frame.size
    np.testing.assert_allclose(measure_look(frame).histogram, expected)


def test_ninety_nine_of_a_hundred_are_within_each_limit():
    looks = [measure_look(scene(i)) for i in range(100)]
    found = summarize_looks(looks)
    assert len(found["histogram"]) == BINS and sum(found["histogram"]) == pytest.approx(1, abs=1e-4)
    beyond = [grey_distance(look.histogram, found["histogram"]) > found["grey_distance"] for look in looks]
    assert sum(beyond) == 1
    for name in ("contrast", "sharpness"):
        low, high = found[name]
        assert sum(not low <= getattr(look, name) <= high for look in looks) == 2, "one on either side"


def unlike(frame, training, size=SIZE, gas="co2"):
    return unlike_training(frame, size, training, gas)


def test_new_frames_of_one_camera_are_like_those_of_training(training):
    assert sum(bool(unlike(scene(i), training)) for i in range(1000, 1050)) <= 5


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda x: x // 2 + 90, "grey"),
        (lambda x: x // 4, "grey"),
        (lambda x: cv2.GaussianBlur(x, (0, 0), 3)[..., None], "sharpness"),
        (lambda x: cv2.add(x, np.random.default_rng(0).integers(0, 90, x.shape, np.uint8)), "sharpness"),
    ],
    ids=["brighter", "darker", "blurred", "noisy"],
)
def test_what_another_camera_does_is_seen(training, change, check):
    assert all(check in unlike(change(scene(i)), training) for i in range(1000, 1010))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((96, 128), set()),
        ((960, 1280), set()),
        ((512, 640), set()),  # 5:4
        ((48, 64), set()),
        ((47, 63), {"size"}),  # less than half
        ((720, 1280), {"size"}),  # 16:9
        ((128, 96), {"size"}),
    ],
)
def test_sizes_of_another_shape_and_small_ones_are_unlike(training, size, expected):
    assert unlike(scene(0), training, size) == expected


def test_a_gas_that_training_lacks_has_its_size_checked_alone(training):
    assert unlike(scene(0) // 8, training, gas="ch4") == set()
    assert unlike(scene(0) // 8, training, (10, 10), gas="ch4") == {"size"}
