"""Regions as polygons and run lengths: there and back without a pixel of difference, and as COCO's library has them."""

import itertools

import cv2
import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from pycocotools import mask as coco

from fume_jax.data.labels import shapes
from fume_jax.data.labels.label import UnusableMask
from tests.data.labels.masks import box, random_mask

REGIONS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))


def check(region):
    polygons = shapes.to_polygons(region)
    np.testing.assert_array_equal(shapes.from_polygons(polygons, *region.shape), region)
    encoded = shapes.encode_coco(region)
    np.testing.assert_array_equal(shapes.decode_coco(encoded, *region.shape), region)
    np.testing.assert_array_equal(coco.decode({**encoded, "counts": encoded["counts"].encode()}), region)
    plain = {"size": encoded["size"], "counts": runs(region.T.ravel())}
    np.testing.assert_array_equal(shapes.decode_coco(plain, *region.shape), region)
    if region.any():
        np.testing.assert_array_equal(shapes.decode_cvat(*shapes.encode_cvat(region), *region.shape), region)


def runs(flat):
    first, *others = (len(list(group)) for _, group in itertools.groupby([False, *flat.tolist()]))
    return [first - 1, *others]


def test_a_thousand_masks_there_and_back():
    for seed in range(1000):
        mask = random_mask(seed)
        for region in shapes.regions(mask).values():
            check(region)


@hypothesis.given(REGIONS)
@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
def test_any_region_there_and_back(region):
    check(region)


def test_library_of_coco_fills_the_polygons_alike():
    for seed in range(100):
        region = random_mask(seed) == 2
        if polygons := [points.ravel().tolist() for points in shapes.to_polygons(region)]:
            np.testing.assert_array_equal(shapes.decode_coco(polygons, *region.shape), region)


def test_ring_is_one_polygon_with_a_bridge_to_its_hole():
    region = box(0, 0, 3, 3, 3, 3)
    region[1, 1] = False
    (polygon,) = shapes.to_polygons(region)
    corners = [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [1, 2], [1, 1], [1, 0], [3, 0], [3, 3], [0, 3]]
    np.testing.assert_array_equal(polygon, corners)


def test_pixels_that_touch_at_a_corner_are_two_squares():
    first, second = shapes.to_polygons(np.array([[True, False], [False, True]]))
    np.testing.assert_array_equal(first, [[0, 0], [1, 0], [1, 1], [0, 1]])
    np.testing.assert_array_equal(second, [[1, 1], [2, 1], [2, 2], [1, 2]])


def test_pixel_is_inside_if_its_centre_is():
    triangle = np.array([[0, 0], [4, 0], [0, 4]])  # centres with x + y below 4; those on the line itself count once
    filled = shapes.from_polygons([triangle], 4, 4)
    np.testing.assert_array_equal(filled, np.add.outer(np.arange(4), np.arange(4)) + 1 < 4)
    other = shapes.from_polygons([np.array([[4, 0], [4, 4], [0, 4]])], 4, 4)
    np.testing.assert_array_equal(filled ^ other, np.ones((4, 4), bool))
    assert shapes.from_polygons([np.array([[0.4, 0.4], [0.6, 0.4], [0.6, 0.6], [0.4, 0.6]])], 1, 1).all()
    assert not shapes.from_polygons([np.array([[0, 0], [0.4, 0], [0.4, 1], [0, 1]])], 1, 1).any()


def test_polygons_may_leave_the_frame_and_cross_themselves():
    np.testing.assert_array_equal(
        shapes.from_polygons([np.array([[-9, -9], [2, -9], [2, 9], [-9, 9]])], 3, 4)[0], [1, 1, 0, 0]
    )
    bow = np.array([[0, 0], [4, 4], [4, 0], [0, 4]])
    assert shapes.from_polygons([bow], 4, 4).sum() == 8  # even-odd: both wings, with half of the centres on the lines


def inside(polygon, height, width):
    """Even-odd rule at every centre, pixel by pixel."""
    mask = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
                mask[row, column] ^= (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return mask


def test_pixels_whose_centres_are_inside_are_filled():
    rng = np.random.default_rng(0)
    for _ in range(100):
        polygon = rng.uniform(-3, 18, (rng.integers(3, 9), 2))
        np.testing.assert_array_equal(shapes.from_polygons([polygon], 12, 15), inside(polygon, 12, 15))


def test_rings_joined_there_and_back_are_parts_and_holes():
    outer, hole = [(1, 1), (9, 1), (9, 8), (1, 8)], [(3.3, 3.1), (3.3, 6.2), (7.4, 6.2), (7.4, 3.1)]
    part = [(11, 2), (14, 2), (14, 5), (11, 5)]
    joined = np.array([*outer, outer[0], *hole, hole[0], outer[0], *part, part[0], outer[0]], float)
    expected = np.zeros((10, 15), bool)
    expected[1:8, 1:9] = expected[2:5, 11:14] = True
    expected[3:6, 3:7] = False
    np.testing.assert_array_equal(shapes.from_polygons([joined], 10, 15), expected)
    np.testing.assert_array_equal(
        shapes.from_polygons([np.array(outer, float), np.array(part, float)], 10, 15)[4, :], expected[2]
    )


def test_outlines_of_opencv_lose_half_a_pixel_which_is_not_made_up_for():
    # OpenCV's outlines go through the centres of pixels, so those on the right and at the bottom are outside.
    (outline,), _ = cv2.findContours(box(2, 2, 7, 5, 6, 8).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = shapes.from_polygons([outline[:, 0].astype(float)], 6, 8)
    assert filled.sum() == 2 * 4 and filled[2:4, 2:6].all()


@pytest.mark.parametrize("degrees, expected", [(0, box(2, 4, 8, 6, 10, 10)), (90, box(4, 2, 6, 8, 10, 10))])
def test_ellipses_turn(degrees, expected):
    drawn = shapes.as_ellipse((5, 5), (3, 1), degrees, 10, 10)(10, 10)
    np.testing.assert_array_equal(drawn, expected)  # (2.5 / 3) ** 2 + 0.5 ** 2 < 1


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ({"size": [3, 4], "counts": [5, 6]}, "a sum of 11"),
        ({"size": [3, 4], "counts": [5, 8]}, "a sum of 13"),
        ({"size": [3, 4], "counts": [5, -1, 8]}, "got others"),
        ({"size": [3, 4], "counts": [5.5, 6.5]}, "got others"),
        ({"size": [3, 4], "counts": None}, "got others"),
        ({"size": [3, 4], "counts": ""}, "a sum of 0"),
        ({"size": [3, 4], "counts": "5"}, "a sum of 5"),
        ({"size": [3, 4], "counts": "o"}, "middle of a number"),
        ({"size": [3, 4], "counts": "5 7"}, "the character ' '"),
        ({"size": [4, 3], "counts": [5, 7]}, "a size of"),
        ([[1, 1, 2, 2]], "at least 3"),
        ([[1, 1, 2, 2, 3]], "no list of x, y"),
        ([[1, 1, 2, 2, 3, float("nan")]], "no pairs of numbers"),
        ([[1, 1, 2, 2, 3, "x"]], "no pairs of numbers"),
        ([[1, 1, 2, 2, 3, 1e9]], "far outside"),
        ([1, 1, 2, 2], "no list of x, y"),
    ],
)
def test_segmentations_that_coco_would_guess_are_refused(segmentation, message):
    with pytest.raises(UnusableMask, match=message):
        shapes.decode_coco(segmentation, 3, 4)


@pytest.mark.parametrize(
    "runs, box, message",
    [
        ([0, 5], (0, 0, 2, 2), "a sum of 5"),
        ([0, 4], (3, 0, 2, 2), "leaves the frame"),
        ([0, 4], (-1, 0, 2, 2), "leaves the frame"),
        ([], (0, 0, 0, 0), "leaves the frame"),
    ],
)
def test_run_lengths_that_do_not_fit_are_refused(runs, box, message):
    with pytest.raises(UnusableMask, match=message):
        shapes.decode_cvat(runs, box, 3, 4)


@hypothesis.given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=20))
@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
def test_any_compressed_text_is_a_region_or_refused(text):
    try:
        region = shapes.decode_coco({"size": [5, 7], "counts": text}, 5, 7)
    except UnusableMask:
        return
    np.testing.assert_array_equal(coco.decode({"size": [5, 7], "counts": text.encode()}), region)
