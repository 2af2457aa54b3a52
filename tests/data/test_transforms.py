"""Masks stay where their frames are, whatever resizes or moves both."""

import cv2
import numpy as np
import pytest

from fume_jax.data import transforms
from fume_jax.data.transforms import resize, resize_frame, resize_mask
from fume_jax.learning import augment_jax
from fume_jax.learning.augment import Elastic, HorizontalFlip, ShiftScaleRotate, draw_plan
from fume_jax.schema import BACKGROUND, GAS, GASES, IGNORE, NOT_GAS

SIZES = [
    ((480, 640), (120, 160)),
    ((480, 640), (240, 320)),
    ((1024, 1280), (120, 160)),
    ((512, 640), (480, 640)),
    ((480, 640), (320, 427)),
    ((480, 640), (479, 639)),
    ((240, 320), (480, 640)),
    ((120, 160), (480, 640)),
    ((100, 100), (150, 150)),
    ((480, 320), (240, 640)),
]


def discs(height, width, count=50):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    for _ in range(count):
        center = rng.uniform(0.4, 0.6, 2) * (width, height)
        yield np.hypot(x - center[0], y - center[1]) < rng.uniform(0.1, 0.3) * height


def centroid(image):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    weights = image.astype(float)
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


@pytest.mark.parametrize("source, target", SIZES)
def test_resized_masks_stay_where_their_frames_are(source, target):
    shifts, areas = [], []
    scale = np.divide(target, source)[::-1]
    for disc in discs(*source):
        mask = resize_mask((2 * disc).astype(np.uint8), *target)
        assert mask.shape == target and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 2}
        frame = resize_frame((200 * disc[..., None]).astype(np.uint8), *target)[..., 0]
        shifts.append(centroid(mask == 2) - centroid(frame))
        np.testing.assert_allclose(centroid(frame), (centroid(disc) + 0.5) * scale - 0.5, atol=0.05)
        areas.append((mask == 2).mean() / disc.mean())
    assert np.abs(np.mean(shifts, 0)).max() < 0.03
    assert np.sqrt(np.mean(np.square(shifts))) < 0.08 and np.abs(shifts).max() < 0.25
    assert np.mean(areas) == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize("executor", ["host", "device"])
@pytest.mark.parametrize(
    "operation", [HorizontalFlip(1.0), ShiftScaleRotate(1.0, 0.05, 0.1, 15.0), Elastic(1.0, 0.03, 0.1, 0.01)]
)
def test_augmented_masks_stay_where_their_frames_are(operation, executor):
    shifts = []
    for seed, disc in enumerate(discs(120, 160, 50 if executor == "host" else 12)):
        example = {"modality_mask": np.ones(2, np.float32)}
        for gas in GASES:
            example |= {f"{gas}_frame": 200 * disc[..., None].view(np.uint8), f"{gas}_mask": 2 * disc.view(np.uint8)}
        plan = draw_plan([operation], np.random.default_rng(seed), height=120, width=160)
        apply = transforms.apply if executor == "host" else augment_jax.apply
        moved = {key: np.asarray(value, np.float32) for key, value in apply(example, plan).items()}
        frame = moved["co2_frame"][..., 0]
        shifts.append(centroid(moved["co2_mask"] == 2) - centroid(frame - frame.min()))
    assert np.abs(np.mean(shifts, 0)).max() < 0.1


def test_a_mask_keeps_its_values_and_takes_the_largest_share():
    mask = np.array([[0, 0, 1, 2], [0, 2, 1, 2], [7, 7, 2, 2], [7, 255, 2, 1]], np.uint8)
    np.testing.assert_array_equal(resize_mask(mask, 2, 2), [[0, 1], [7, 2]])  # the lower value of a tie
    np.testing.assert_array_equal(resize_mask(mask, 8, 8), cv2.resize(mask, (8, 8), interpolation=cv2.INTER_NEAREST))
    assert resize_mask(mask, 4, 4) is mask
    np.testing.assert_array_equal(resize_mask(np.asfortranarray(mask)[::-1], 2, 2), [[7, 2], [0, 1]])


def test_unknown_pixels_and_those_without_gas_are_resized_by_vote_too():
    mask = np.full((240, 320), NOT_GAS, np.uint8)
    mask[:120, :160], mask[:120, 160:], mask[120:, :160] = BACKGROUND, IGNORE, GAS
    halves = np.array([[BACKGROUND, IGNORE], [GAS, NOT_GAS]], np.uint8)
    np.testing.assert_array_equal(resize_mask(mask, 2, 2), halves)
    for size in ((100, 130), (480, 640)):
        found, counts = np.unique(resize_mask(mask, *size), return_counts=True)
        assert found.tolist() == [BACKGROUND, GAS, NOT_GAS, IGNORE], "no value between"
        np.testing.assert_allclose(counts / np.prod(size), 0.25, atol=0.01)


def test_both_gases_of_an_example_are_resized():
    disc = next(discs(120, 160))
    example = {"label": 1}
    for gas in GASES:
        example |= {f"{gas}_frame": disc[..., None].view(np.uint8), f"{gas}_mask": disc.view(np.uint8)}
    resized = resize(example, height=60, width=80)
    assert resized["label"] == 1
    for gas in GASES:
        assert resized[f"{gas}_frame"].shape == (60, 80, 1) and resized[f"{gas}_mask"].shape == (60, 80)
