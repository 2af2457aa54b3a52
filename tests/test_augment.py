"""Augmentation: one geometry for everything, labels stay labels, all of it decided by the generator."""

import chex
import numpy as np
import pytest

from fume_jax.augment import (
    BrightnessContrast,
    HorizontalFlip,
    ModalityDropout,
    ShiftScaleRotate,
    normalise,
    resize,
)

OPERATIONS = [
    HorizontalFlip(1.0),
    ShiftScaleRotate(1.0, shift=0.1, scale=0.15, rotate=15.0),
    BrightnessContrast(1.0, brightness=0.2, contrast=0.2),
    ModalityDropout(1.0),
]


def example(height=48, width=64):
    """A bright square under a mask of the same square, in both gases."""
    mask = np.zeros((height, width), np.uint8)
    mask[10:30, 12:40] = 2
    mask[15:20, :12] = 1
    frame = np.where(mask == 2, 200, 20).astype(np.uint8)[..., None]
    return {
        "co2_frame": frame,
        "ch4_frame": frame.copy(),
        "co2_mask": mask,
        "ch4_mask": mask.copy(),
        "modality_mask": np.ones(2, np.float32),
        "label": 1,
    }


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: type(o).__name__)
def test_same_generator_same_result_and_the_input_is_left_alone(operation):
    original, given = example(), example()
    a = operation(given, np.random.default_rng(3))
    chex.assert_trees_all_equal(given, original)
    chex.assert_trees_all_equal(a, operation(example(), np.random.default_rng(3)))
    differs = [key for key in a if not np.array_equal(a[key], original[key])]
    assert differs, "probability 1 must change something"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: type(o).__name__)
def test_probability_zero_changes_nothing(operation):
    never = type(operation)(**vars(operation) | {"probability": 0.0})
    chex.assert_trees_all_equal(never(example(), np.random.default_rng(0)), example())


@pytest.mark.parametrize("operation", OPERATIONS[:2], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("seed", range(5))
def test_frames_and_masks_of_both_gases_move_together(operation, seed):
    moved = operation(example(), np.random.default_rng(seed))
    np.testing.assert_array_equal(moved["co2_frame"], moved["ch4_frame"])
    np.testing.assert_array_equal(moved["co2_mask"], moved["ch4_mask"])
    assert set(np.unique(moved["co2_mask"])) <= {0, 1, 2}
    bright, gas = moved["co2_frame"][..., 0] > 110, moved["co2_mask"] == 2
    assert gas.sum() > 100
    # Interpolated and nearest edges may differ by a pixel, so only a few may disagree.
    assert (bright != gas).sum() < 0.1 * gas.sum()


def test_no_tube_appears_where_gas_meets_background():
    """The mean of background and gas is the value of the tube, so interpolating a mask would invent one."""
    without_tube = example()
    for gas in ("co2", "ch4"):
        without_tube[f"{gas}_mask"][without_tube[f"{gas}_mask"] == 1] = 0
    operation = ShiftScaleRotate(1.0, shift=0.1, scale=0.15, rotate=15.0)
    for seed in range(5):
        moved = resize(operation(without_tube, np.random.default_rng(seed)), height=31, width=47)
        assert set(np.unique(moved["co2_mask"])) == {0, 2}


def test_shift_moves_by_up_to_the_given_share_of_the_frame():
    operation = ShiftScaleRotate(1.0, shift=0.1, scale=0.0, rotate=0.0)
    columns = [
        np.argwhere(operation(example(), np.random.default_rng(s))["co2_mask"] == 2)[:, 1].mean() for s in range(200)
    ]
    offsets = (np.array(columns) - 25.5) / 64
    assert np.abs(offsets).max() == pytest.approx(0.1, abs=0.01)
    assert abs(offsets.mean()) < 0.015


def test_brightness_and_contrast_are_those_asked_for_and_alike_in_both_gases():
    brighter = BrightnessContrast(1.0, brightness=0.2, contrast=0.0)
    levels = [brighter(example(), np.random.default_rng(s))["co2_frame"][20, 20, 0] for s in range(300)]
    # Clipped at white above, 51 levels darker at most below.
    assert max(levels) == pytest.approx(251, abs=2)
    assert min(levels) == pytest.approx(149, abs=2)
    changed = BrightnessContrast(1.0, brightness=0.2, contrast=0.2)(example(), np.random.default_rng(0))
    np.testing.assert_array_equal(changed["co2_frame"], changed["ch4_frame"])


def test_modality_dropout_takes_either_gas_of_a_pair_but_never_the_only_one():
    drop, rng = ModalityDropout(0.2), np.random.default_rng(0)
    masks = np.array([drop(example(), rng)["modality_mask"] for _ in range(4000)])
    assert (masks.sum(1) >= 1).all()
    np.testing.assert_allclose((masks == 0).mean(0), [0.1, 0.1], atol=0.015)
    for present in ([1, 0], [0, 1]):
        single = example() | {"modality_mask": np.array(present, np.float32)}
        chex.assert_trees_all_equal(ModalityDropout(1.0)(single, rng)["modality_mask"], single["modality_mask"])


def test_a_dropped_gas_loses_its_mask():
    dropped = ModalityDropout(1.0)(example(), np.random.default_rng(0))
    gas = ("co2", "ch4")[int(np.argmin(dropped["modality_mask"]))]
    assert not dropped[f"{gas}_mask"].any()


@pytest.mark.parametrize("size", [(24, 32), (96, 128), (30, 50)])
def test_resize_keeps_mask_values_and_the_mean_grey_level(size):
    resized = resize(example(), height=size[0], width=size[1])
    chex.assert_shape(resized["co2_frame"], (*size, 1))
    assert set(np.unique(resized["co2_mask"])) == {0, 1, 2}
    assert resized["co2_frame"].mean() == pytest.approx(example()["co2_frame"].mean(), abs=3)


def test_normalisation_maps_0_and_255_to_the_ends_and_an_absent_frame_to_zero():
    frame = np.array([0, 255], np.uint8).reshape(1, 2, 1)
    np.testing.assert_allclose(normalise(frame, 1.0).ravel(), [-1, 1])
    np.testing.assert_array_equal(normalise(frame, 0.0), 0)
    assert normalise(frame, 1.0).dtype == np.float32
