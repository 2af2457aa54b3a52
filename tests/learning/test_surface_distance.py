"""Distances between surfaces: by hand, by brute force, and by the formulas of medpy on whole frames."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from fume_jax.learning.surface_distance import surface_distances, surface_metrics
from fume_jax.schema import GAS, IGNORE, TUBE


def region(*slices, shape=(20, 30)):
    mask = np.zeros(shape, np.int32)
    mask[slices] = GAS
    return mask


def blobs(seed, shape=(40, 56)):
    """A mask that touches the frame's border."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 3, mode="wrap")
    return np.where(field > 0.5 * field.std(), GAS, 0)


def surface_by_hand(mask):
    """Pixels of gas with one of the four neighbours, or the end of the frame, that is not gas."""
    padded = np.pad(mask == GAS, 1)
    neighbours = [np.roll(padded, step, axis)[1:-1, 1:-1] for step in (-1, 1) for axis in (0, 1)]
    return (mask == GAS) & ~np.all(neighbours, axis=0)


PIXEL, FAR = region(5, 5), region(8, 9)  # 3 rows and 4 columns apart
LARGE, SMALL = region(slice(4, 9), slice(10, 15)), region(slice(5, 8), slice(11, 14))  # squares of 5 and 3
TWO = region(5, [5, 25])
BLOCK, BESIDE = region(slice(0, 2), slice(0, 2)), region(slice(0, 2), slice(1, 3))  # in the corner; a column further
FULL, HOLLOW = region(slice(None), slice(None), shape=(5, 5)), region(slice(1, 4), slice(1, 4), shape=(5, 5))
ROOT2 = np.sqrt(2)


@pytest.mark.parametrize(
    "truth, prediction, pooled",
    [
        pytest.param(PIXEL, FAR, [5, 5], id="single pixels"),
        # 8 surface pixels of the inner square are 1 from the outer; of its 16, the 4 corners are a diagonal away.
        pytest.param(LARGE, SMALL, [1] * 8 + [1] * 12 + [ROOT2] * 4, id="nested squares"),
        pytest.param(TWO, PIXEL, [0, 20, 0], id="a second part far away"),
        pytest.param(BLOCK, BESIDE, [1, 1, 0, 0] * 2, id="shifted by a column"),
        # The frame's border counts as outside, so a region that fills the frame has a surface.
        pytest.param(FULL, HOLLOW, [1] * 8 + [1] * 12 + [ROOT2] * 4, id="the whole frame"),
    ],
)
def test_distances_done_by_hand(truth, prediction, pooled):
    hd95, asd, missed = surface_distances(truth, prediction, GAS)
    assert hd95 == pytest.approx(np.percentile(pooled, 95))
    assert asd == pytest.approx(np.mean(pooled))
    assert not missed


@pytest.mark.parametrize("seed", range(5))
def test_distances_equal_brute_force_over_all_pairs_of_surface_pixels(seed):
    truth, prediction = blobs(seed), blobs(seed + 100)
    assert (truth[0] == GAS).any() or (truth[:, 0] == GAS).any()
    between = cdist(np.argwhere(surface_by_hand(truth)), np.argwhere(surface_by_hand(prediction)))
    pooled = np.concatenate([between.min(0), between.min(1)])
    hd95, asd, _ = surface_distances(truth, prediction, GAS)
    assert (hd95, asd) == pytest.approx((np.percentile(pooled, 95), pooled.mean()), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_distances_equal_distance_transforms_of_whole_frames(seed):
    truth, prediction = (np.pad(blobs(s), 30)[7:, 11:] == GAS for s in (seed, seed + 50))
    borders = [mask ^ ndimage.binary_erosion(mask) for mask in (truth, prediction)]
    there, back = (ndimage.distance_transform_edt(~a)[b] for a, b in (borders, borders[::-1]))
    pooled = np.hstack([there, back])
    expected = (np.percentile(pooled, 95), pooled.mean())
    assert surface_distances(truth, prediction, True)[:2] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_symmetric_and_zero_for_equal_masks(seed):
    a, b = blobs(seed), blobs(seed + 1)
    assert surface_distances(a, b, GAS) == pytest.approx(surface_distances(b, a, GAS), rel=1e-12)
    assert surface_distances(a, b, GAS)[1] > 0
    assert surface_distances(a, a, GAS) == (0, 0, False)


def test_only_the_region_that_is_asked_for_counts():
    truth, prediction = blobs(0), blobs(1)
    other = [np.where(mask == 0, TUBE, mask) for mask in (truth, prediction)]
    assert surface_distances(*other, GAS) == surface_distances(truth, prediction, GAS)
    assert surface_distances(*other, TUBE) != surface_distances(truth, prediction, GAS)


@pytest.mark.parametrize(
    "truth, prediction, missed",
    [
        pytest.param(0 * PIXEL, 0 * PIXEL, False, id="neither"),
        pytest.param(PIXEL, 0 * PIXEL, True, id="truth"),
        pytest.param(0 * PIXEL, PIXEL, True, id="prediction"),
    ],
)
def test_a_region_that_a_mask_lacks_has_no_distance(truth, prediction, missed):
    hd95, asd, found = surface_distances(truth, prediction, GAS)
    assert np.isnan([hd95, asd]).all()
    assert found is missed


def test_means_are_over_images_that_have_distances_and_the_missed_are_counted():
    pairs = [(PIXEL, FAR), (PIXEL, PIXEL), (PIXEL, 0 * PIXEL), (0 * PIXEL, FAR), (0 * PIXEL, 0 * PIXEL)]
    columns = np.array([surface_distances(*pair, GAS) for pair in pairs]).T
    assert surface_metrics(*columns) == {"hd95": 2.5, "asd": 2.5, "boundary_missed": 2}
    none = surface_metrics(*columns[:, 2:])
    assert np.isnan([none["hd95"], none["asd"]]).all()
    assert none["boundary_missed"] == 2


def test_what_is_predicted_where_the_class_is_unknown_is_cut_off():
    truth = np.where((LARGE == GAS) & (SMALL != GAS), IGNORE, SMALL)
    assert surface_distances(truth, LARGE, GAS) == (0, 0, False)
    truth = np.where(FAR == GAS, IGNORE, PIXEL)
    assert surface_distances(truth, np.maximum(PIXEL, FAR), GAS) == (0, 0, False)
    assert surface_distances(truth, FAR, GAS)[2]
