"""Measures of a plume: cases done by hand, and what moving, mirroring, turning and enlarging a mask changes."""

import json
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest

from fume_jax.learning.plume import SPECK, Plume, measure_contrast, measure_plume
from fume_jax.schema import GAS, IGNORE, NOT_GAS, TUBE

SHAPE = (120, 160)


def mask_of(*boxes, shape=SHAPE):
    """A mask of boxes (value, left, top, width, height)."""
    mask = np.zeros(shape, np.int32)
    for value, left, top, width, height in boxes:
        mask[top : top + height, left : left + width] = value
    return mask


def tilted(degrees, shape=(400, 400)):
    """A tube of 80 x 12 from the centre and gas of 100 x 60 after it, turned counter-clockwise."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    x, y = x - (shape[1] - 1) / 2, (shape[0] - 1) / 2 - y
    angle = np.radians(degrees)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    tube = (along >= 0) & (along < 80) & (abs(across) < 6)
    gas = (along >= 80) & (along < 180) & (abs(across) < 30)
    return TUBE * tube + GAS * gas


def billowing(seed):
    """A slanting tube from the left border and a ragged plume, in pieces and with holes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    slope = rng.uniform(-0.4, 0.4)
    across = y - 60 - slope * (x - 80)
    field = cv2.GaussianBlur(rng.standard_normal(SHAPE), (0, 0), 3)
    gas = (x >= 40) & (x < 130) & (abs(across) + 100 * field < 4 + 0.3 * (x - 40))
    return np.where((x < 40) & (abs(across) < 4), TUBE, np.where(gas, GAS, 0))


def rectangle(width, height):
    """Dispersion of a rectangle."""
    return ((width**2 + height**2) / 12) ** 0.5


def flat(plume):
    """All numbers of a plume by name; rounding aside, `pytest.approx` compares these."""
    values = asdict(plume)
    x, y = values.pop("centroid") or (None, None)
    return values | {"x": x, "y": y}


RIGHT = mask_of((TUBE, 0, 58, 40, 5), (GAS, 40, 50, 60, 21))


@pytest.mark.parametrize(
    "mask, expected",
    [
        # The gas is columns 40 to 99 and rows 50 to 70, around the row of the tube.
        pytest.param(RIGHT, Plume(1260, 1260 / 19200, (69.5, 60.0), 0.0, 60.0, 1, rectangle(60, 21)), id="right"),
        pytest.param(
            mask_of((TUBE, 120, 58, 40, 5), (GAS, 60, 50, 60, 21)),
            Plume(1260, 1260 / 19200, (89.5, 60.0), 180.0, 60.0, 1, rectangle(60, 21)),
            id="left",
        ),
        pytest.param(
            mask_of((TUBE, 58, 80, 5, 40), (GAS, 50, 30, 21, 50)),
            Plume(1050, 1050 / 19200, (60.0, 54.5), 90.0, 50.0, 1, rectangle(21, 50)),
            id="up",
        ),
        pytest.param(
            mask_of((TUBE, 58, 0, 5, 40), (GAS, 50, 40, 21, 50)),
            Plume(1050, 1050 / 19200, (60.0, 64.5), -90.0, 50.0, 1, rectangle(21, 50)),
            id="down",
        ),
        # The mouth is (9, 60), the gas is 20 further right and 20 lower; along the tube it has 11 columns.
        pytest.param(
            mask_of((TUBE, 0, 60, 10, 1), (GAS, 24, 70, 11, 21)),
            Plume(231, 231 / 19200, (29.0, 80.0), -45.0, 11.0, 1, rectangle(11, 21)),
            id="bent down",
        ),
        # A square tube has no axis: what counts is the line from (2, 2) to (22, 22), a diagonal.
        pytest.param(
            mask_of((TUBE, 0, 0, 5, 5), (GAS, 20, 20, 5, 5)),
            Plume(25, 25 / 19200, (22.0, 22.0), -45.0, 4 * 2**0.5 + 1, 1, rectangle(5, 5)),
            id="round tube",
        ),
        # The stub that shows of a tube is taller than long, yet gas leaves it to the right.
        pytest.param(
            mask_of((TUBE, 0, 57, 5, 7), (GAS, 5, 50, 60, 21)),
            Plume(1260, 1260 / 19200, (34.5, 60.0), 0.0, 60.0, 1, rectangle(60, 21)),
            id="stub of a tube",
        ),
        pytest.param(
            mask_of((GAS, 30, 10, 20, 70)),
            Plume(1400, 1400 / 19200, (39.5, 44.5), None, 70.0, 1, rectangle(20, 70)),
            id="no tube",
        ),
        pytest.param(mask_of((TUBE, 0, 58, 40, 5)), Plume(0, 0.0, None, None, None, 0, None), id="no gas"),
        pytest.param(
            np.full(SHAPE, GAS),
            Plume(19200, 1.0, (79.5, 59.5), None, 160.0, 1, rectangle(160, 120)),
            id="gas everywhere",
        ),
        pytest.param(
            mask_of((GAS, 7, 9, 1, 1)), Plume(1, 1 / 19200, (7.0, 9.0), None, 1.0, 1, rectangle(1, 1)), id="one pixel"
        ),
        pytest.param(
            mask_of((TUBE, 6, 9, 1, 1), (GAS, 7, 9, 1, 1)),
            Plume(1, 1 / 19200, (7.0, 9.0), 0.0, 1.0, 1, rectangle(1, 1)),
            id="one pixel of each",
        ),
        # Gas all around a square tube: its centroid is that of the tube.
        pytest.param(
            mask_of((GAS, 40, 40, 41, 21), (TUBE, 58, 48, 5, 5)),
            Plume(836, 836 / 19200, (60.0, 50.0), None, 41.0, 1, ((861 * 2122 - 25 * 50) / 12 / 836) ** 0.5),
            id="gas around a round tube",
        ),
    ],
)
def test_measures_done_by_hand(mask, expected):
    found = measure_plume(mask)
    assert flat(found) == pytest.approx(flat(expected), abs=1e-9)
    assert json.loads(json.dumps(flat(found))) == flat(found), "plain values"


@pytest.mark.parametrize("degrees", [30, 75, 135, -30, -100, 179])
def test_a_turned_plume_has_its_direction_and_length(degrees):
    found = measure_plume(tilted(degrees))
    assert found.direction_degrees == pytest.approx(degrees, abs=1)
    assert found.length_pixels == pytest.approx(100, abs=1.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_type_and_memory_order_of_a_mask_do_not_matter(dtype):
    mask = billowing(0)
    assert measure_plume(np.asfortranarray(mask.astype(dtype))) == measure_plume(mask)
    assert measure_plume(np.dstack([mask, mask]).astype(dtype)[..., 1]) == measure_plume(mask)


# --- what small false spots may change ---


def test_the_largest_blob_of_tube_decides_the_axis():
    spots = mask_of((TUBE, 150, 2, 3, 9), (TUBE, 100, 110, 12, 3))
    assert measure_plume(np.where(spots, spots, RIGHT)) == measure_plume(RIGHT)


def test_far_specks_of_gas_count_for_area_and_centroid_and_not_for_length():
    speck = mask_of((GAS, 150, 58, 5, 5))
    found, alone = measure_plume(np.where(speck, speck, RIGHT)), measure_plume(RIGHT)
    assert found.area_pixels == alone.area_pixels + 25
    assert found.centroid[0] == pytest.approx((1260 * 69.5 + 25 * 152) / 1285)
    assert found.length_pixels == alone.length_pixels
    assert found.parts == alone.parts == 1
    assert found.dispersion_pixels > alone.dispersion_pixels


@pytest.mark.parametrize("size, length", [(62, 60), (63, 150 - 40 + 1)])
def test_a_puff_that_has_torn_off_counts_for_the_length(size, length):
    puff = mask_of((GAS, 150, 20, 1, size))
    assert (size >= SPECK * 1260) == (length > 60)
    found = measure_plume(np.where(puff, puff, RIGHT))
    assert found.length_pixels == pytest.approx(length)
    assert found.parts == 1 + (length > 60)


def test_the_axis_of_a_plume_without_a_tube_is_not_that_of_its_specks():
    plume = mask_of((GAS, 10, 10, 60, 30))
    assert measure_plume(plume + mask_of((GAS, 10, 115, 5, 5))).length_pixels == 60


# --- dispersion and contrast ---


def test_the_dispersion_of_two_squares_is_that_of_their_distance_and_their_own():
    found = measure_plume(mask_of((GAS, 10, 10, 10, 10), (GAS, 110, 10, 10, 10)))
    assert found.parts == 2
    assert found.dispersion_pixels == pytest.approx((50**2 + 200 / 12) ** 0.5)


def test_the_dispersion_of_a_disk_is_its_radius_over_the_root_of_two():
    y, x = np.mgrid[:200, :200]
    disk = GAS * (np.hypot(x - 100, y - 100) < 80)
    assert measure_plume(disk).dispersion_pixels == pytest.approx(80 / 2**0.5, rel=0.005)


# In a frame of 160 columns the ring is what is more than 1.6 and at most 8 pixels away.
SQUARE = mask_of((GAS, 60, 40, 20, 20))


@pytest.mark.parametrize("sign", [1, -1])
def test_contrast_is_against_the_median_of_the_ring_and_keeps_its_sign(sign):
    values = np.full(SHAPE, 100.0)
    values[:, :40] = values[:, 100:] = 7.0  # beyond the ring
    values[:, 59] = values[:, 80] = -1000.0  # gas too thin to be outlined
    values[40:60, 60:80] += sign * 10.0
    values[40:50, 60:80] += sign * 10.0
    found = measure_contrast(values, SQUARE)
    assert found.mean == pytest.approx(sign * 15)
    assert found.largest == pytest.approx(sign * 20)


def test_neither_tube_nor_a_hot_pixel_nor_a_missing_value_decides_the_contrast():
    values = np.where(SQUARE == GAS, 12, 10).astype(np.float32)
    mask = SQUARE + mask_of((TUBE, 0, 30, 58, 40))
    values[mask == TUBE] = 500
    values[45, 65:68] = 9999, np.nan, np.inf  # fewer than 1 % of the 400 pixels
    found = measure_contrast(values, mask)
    assert found.largest == pytest.approx(2)
    assert found.mean == pytest.approx((397 * 2 + 9989) / 398)


def test_contrast_of_grey_levels_does_not_wrap_around():
    values = np.where(SQUARE == GAS, 10, 200).astype(np.uint8)
    assert asdict(measure_contrast(values, SQUARE)) == {"mean": -190.0, "largest": -190.0}


@pytest.mark.parametrize("mask", [np.zeros(SHAPE, int), np.full(SHAPE, GAS), np.where(SQUARE == GAS, GAS, TUBE)])
def test_without_gas_or_surroundings_there_is_no_contrast(mask):
    assert measure_contrast(np.ones(SHAPE), mask) is None


@pytest.mark.parametrize("seed", range(3))
def test_contrast_has_the_unit_of_the_values_and_no_zero_point(seed):
    mask, values = billowing(seed), np.random.default_rng(seed).standard_normal(SHAPE)
    still, scaled = measure_contrast(values, mask), measure_contrast(300 - 2.5 * values, mask)
    assert asdict(scaled) == pytest.approx({name: -2.5 * value for name, value in asdict(still).items()})


# --- properties ---


@pytest.mark.parametrize("seed", range(4))
def test_moving_a_mask_moves_the_centroid_alone(seed):
    mask = np.pad(billowing(seed), 20)
    still, moved = measure_plume(mask), measure_plume(np.roll(mask, (-7, 13), (0, 1)))
    x, y = still.centroid
    assert still.direction_degrees is not None
    assert flat(moved) == pytest.approx(flat(replace(still, centroid=(x + 13, y - 7))))


@pytest.mark.parametrize("seed", range(4))
def test_mirroring_maps_a_direction_to_its_supplement(seed):
    still, mirrored = measure_plume(billowing(seed)), measure_plume(billowing(seed)[:, ::-1])
    x, y = still.centroid
    direction = (360 - still.direction_degrees) % 360 - 180  # 180 less it, in [-180, 180)
    expected = replace(still, centroid=(SHAPE[1] - 1 - x, y), direction_degrees=direction)
    assert flat(mirrored) == pytest.approx(flat(expected))


@pytest.mark.parametrize("seed", range(4))
def test_a_quarter_turn_adds_90_degrees(seed):
    still, turned = measure_plume(billowing(seed)), measure_plume(np.rot90(billowing(seed)))
    assert turned.direction_degrees == pytest.approx(still.direction_degrees + 90)
    assert turned.length_pixels == pytest.approx(still.length_pixels)
    assert (turned.parts, turned.dispersion_pixels) == pytest.approx((still.parts, still.dispersion_pixels))


@pytest.mark.parametrize("seed", range(4))
def test_twice_the_size_is_twice_the_length(seed):
    still, large = measure_plume(billowing(seed)), measure_plume(np.kron(billowing(seed), np.ones((2, 2), int)))
    assert large.area_pixels == 4 * still.area_pixels
    assert large.fraction == still.fraction
    assert large.centroid == pytest.approx([2 * c + 0.5 for c in still.centroid])
    assert large.length_pixels == pytest.approx(2 * still.length_pixels, abs=0.5)
    assert large.parts == still.parts
    assert large.dispersion_pixels == pytest.approx(2 * still.dispersion_pixels)
    assert large.direction_degrees == pytest.approx(still.direction_degrees, abs=1)


def test_pixels_of_unknown_class_are_no_part_of_the_frame():
    mask = np.zeros((40, 60), np.uint8)
    mask[15:25, 20:30] = GAS
    known, expected = mask.copy(), measure_plume(mask)
    known[:, 30:] = IGNORE
    assert measure_plume(known) == replace(expected, fraction=100 / (40 * 30))
    # Numbers of NumPy become texts on the page.
    numbers = [*asdict(expected).values(), *expected.centroid, *asdict(measure_contrast(mask, mask)).values()]
    assert {type(value) for value in numbers} <= {int, float, tuple, type(None)}
    values = np.where(mask == GAS, 9.0, 5.0)
    values[:, 30:] = 1000
    known[:, :10] = NOT_GAS
    assert measure_contrast(values, known).mean == 4
    assert measure_contrast(np.where(mask == GAS, 9.0, 5.0), np.where(mask == GAS, GAS, NOT_GAS)).mean == 4
