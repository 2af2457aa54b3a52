"""Augmentation on the host: one geometry for everything, labels stay labels, all of it decided by the generator."""

import chex
import numpy as np
import pytest

from fume_jax.data.transforms import apply, normalize, resize
from fume_jax.learning.augment import (
    BrightnessContrast,
    Elastic,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    HorizontalFlip,
    Invert,
    ModalityDropout,
    MotionBlur,
    OneOf,
    ShiftScaleRotate,
    draw_plan,
)
from fume_jax.schema import IGNORE

GEOMETRY = [
    HorizontalFlip(1.0),
    ShiftScaleRotate(1.0, shift=0.1, scale=0.15, rotate=15.0),
    Elastic(1.0, affine=0.1, sigma=0.1, amplitude=0.01),
]
DEGRADATIONS = [
    GaussianNoise(1.0, low=10.0, high=50.0),
    GaussianBlur(1.0, low=3, high=7),
    MotionBlur(1.0, low=3, high=7),
]
LEVELS = [BrightnessContrast(1.0, brightness=0.2, contrast=0.2), Gamma(1.0, low=0.8, high=1.2), Invert(1.0)]
OPERATIONS = [*GEOMETRY, *DEGRADATIONS, OneOf(1.0, operations=DEGRADATIONS), *LEVELS, ModalityDropout(1.0)]


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


def changed_by(operation, given, seed):
    """The example after an operation that is drawn by a seed or a generator."""
    height, width = given["co2_mask"].shape
    return apply(given, draw_plan([operation], np.random.default_rng(seed), height=height, width=width))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: type(o).__name__)
def test_same_generator_same_result_and_the_input_is_left_alone(operation):
    original, given = example(), example()
    a = changed_by(operation, given, 3)
    chex.assert_trees_all_equal(given, original)
    chex.assert_trees_all_equal(a, changed_by(operation, example(), 3))
    differs = [key for key in a if not np.array_equal(a[key], original[key])]
    assert differs, "probability 1 must change something"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: type(o).__name__)
def test_probability_zero_changes_nothing(operation):
    never = type(operation)(**vars(operation) | {"probability": 0.0})
    chex.assert_trees_all_equal(changed_by(never, example(), 0), example())


@pytest.mark.parametrize("operation", GEOMETRY, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("seed", range(5))
def test_frames_and_masks_of_both_gases_move_together(operation, seed):
    moved = changed_by(operation, example(), seed)
    np.testing.assert_array_equal(moved["co2_frame"], moved["ch4_frame"])
    np.testing.assert_array_equal(moved["co2_mask"], moved["ch4_mask"])
    assert set(np.unique(moved["co2_mask"])) <= {0, 1, 2, IGNORE}
    bright, gas = moved["co2_frame"][..., 0] > 110, moved["co2_mask"] == 2
    assert gas.sum() > 100
    # Interpolated and nearest edges may differ by a pixel, so only a few may disagree.
    assert (bright != gas).sum() < 0.1 * gas.sum()


def test_no_tube_appears_where_gas_meets_background():
    """The mean of background and gas is the value of the tube, so interpolating a mask would invent one."""
    without_tube = example()
    for gas in ("co2", "ch4"):
        without_tube[f"{gas}_mask"][without_tube[f"{gas}_mask"] == 1] = 0
    for operation in GEOMETRY:
        for seed in range(5):
            moved = resize(changed_by(operation, without_tube, seed), height=31, width=47)
            assert set(np.unique(moved["co2_mask"])) - {IGNORE} == {0, 2}


def test_shift_moves_by_up_to_the_given_share_of_the_frame():
    operation = ShiftScaleRotate(1.0, shift=0.1, scale=0.0, rotate=0.0)
    columns = [np.argwhere(changed_by(operation, example(), s)["co2_mask"] == 2)[:, 1].mean() for s in range(200)]
    offsets = (np.array(columns) - 25.5) / 64
    assert np.abs(offsets).max() == pytest.approx(0.1, abs=0.01)
    assert abs(offsets.mean()) < 0.015


@pytest.mark.parametrize("operation", OPERATIONS[:-1], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("present", [[1, 0], [0, 1]])
def test_an_absent_gas_stays_zero_and_the_other_changes_alike(operation, present):
    single = example() | {"modality_mask": np.array(present, np.float32)}
    absent, kept = (("ch4", "co2") if present[0] else ("co2", "ch4"))[:2]
    for kind in ("frame", "mask"):
        single[f"{absent}_{kind}"] = np.zeros_like(single[f"{absent}_{kind}"])
    changed = changed_by(operation, single, 0)
    assert not changed[f"{absent}_frame"].any() and not changed[f"{absent}_mask"].any()
    assert not np.array_equal(changed[f"{kept}_frame"], single[f"{kept}_frame"])


@pytest.mark.parametrize("operation", [*DEGRADATIONS, *LEVELS], ids=lambda o: type(o).__name__)
def test_what_changes_grey_levels_leaves_masks_alone(operation):
    changed = changed_by(operation, example(), 0)
    for gas in ("co2", "ch4"):
        np.testing.assert_array_equal(changed[f"{gas}_mask"], example()[f"{gas}_mask"])


@pytest.mark.parametrize("corner", [(1, 1), (1, -1), (-1, -1)])
def test_the_three_points_of_elastic_move_by_up_to_its_affine_part(corner):
    operation = Elastic(1.0, affine=0.1, sigma=0.1, amplitude=0.0)
    x, y = (round(centre + sign * 80) for centre, sign in zip((160, 120), corner, strict=True))
    marked = example(240, 320)
    marked["co2_mask"] = np.zeros((240, 320), np.uint8)
    marked["co2_mask"][y - 3 : y + 4, x - 3 : x + 4] = 2
    found = [np.argwhere(changed_by(operation, marked, s)["co2_mask"] == 2).mean(0) for s in range(300)]
    offsets = (np.array(found) - (y, x)) / 240
    np.testing.assert_allclose(np.abs(offsets).max(0), 0.1, atol=0.005)
    np.testing.assert_allclose(offsets.std(0), 0.1 / np.sqrt(3), rtol=0.1)


def test_elastic_bends_by_its_amplitude():
    """A ramp of one grey level a pixel shows by how many pixels every point moved in x."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (150, 200, 1))
    still = example(150, 200) | {"co2_frame": ramp.copy()}
    operation = Elastic(1.0, affine=0.0, sigma=0.1, amplitude=0.02)
    moves = [
        changed_by(operation, still, seed)["co2_frame"][40:-40, 40:-40, 0].astype(int) - ramp[40:-40, 40:-40, 0]
        for seed in range(20)
    ]
    # 0.02 of 150 rows at the nodes, less between them.
    assert 1.8 < np.std(moves) < 3.2
    assert abs(np.mean(moves)) < 0.5
    assert np.abs(np.diff(moves, axis=1)).max() <= 3, "neighbours move together"


def test_one_of_applies_one_operation_in_proportion_to_their_probabilities():
    noises = tuple(GaussianNoise(p, low=v, high=v) for p, v in ((1.0, 1.0), (3.0, 100.0), (0.0, 400.0)))
    rng = np.random.default_rng(0)
    plans = [draw_plan([OneOf(0.3, operations=noises)], rng, height=48, width=64) for _ in range(10_000)]
    seen = np.array([plan["deviation"] for plan in plans])
    assert set(seen) == {0, 1, 10}
    np.testing.assert_allclose([(seen == 1).mean(), (seen == 10).mean()], [0.075, 0.225], atol=0.015)


@pytest.mark.parametrize("seed", range(5))
def test_geometry_drawn_as_one_map_is_that_of_one_operation_after_the_other(seed):
    at_once = apply(example(), draw_plan(GEOMETRY, np.random.default_rng(seed), height=48, width=64))
    rng, one_by_one = np.random.default_rng(seed), example()
    for operation in GEOMETRY:
        one_by_one = changed_by(operation, one_by_one, rng)
    # One by one each rounds to pixels, so that edges may end up one apart, and loses what a later one brings back.
    known = (one_by_one["co2_mask"] != IGNORE) & (at_once["co2_mask"] != IGNORE)
    assert known.mean() > 0.5
    assert (at_once["co2_mask"] != one_by_one["co2_mask"])[known].mean() < 0.02
    assert ((at_once["co2_frame"] > 110) != (one_by_one["co2_frame"] > 110)).mean() < 0.02
    assert not np.array_equal(at_once["co2_frame"], example()["co2_frame"])


def test_a_field_that_would_have_to_be_moved_is_refused():
    with pytest.raises(ValueError, match="Elastic has to be the last"):
        draw_plan(GEOMETRY[::-1], np.random.default_rng(0), height=48, width=64)


def test_what_is_drawn_does_not_depend_on_what_came_before_it():
    """Noise of megapixels takes as many draws as none of a single pixel: a seed."""
    operations = [GaussianNoise(1.0, low=10.0, high=50.0), Gamma(1.0, low=0.8, high=1.2)]
    small, large = (draw_plan(operations, np.random.default_rng(0), height=h, width=h) for h in (8, 800))
    chex.assert_trees_all_equal(small, large)


def test_noise_has_the_variance_asked_for_and_is_each_cameras_own():
    flat = example(200, 200)
    for gas in ("co2", "ch4"):
        flat[f"{gas}_frame"] = np.full((200, 200, 1), 128, np.uint8)
    variances = []
    for seed in range(40):
        noisy = changed_by(GaussianNoise(1.0, low=10.0, high=50.0), flat, seed)
        co2, ch4 = (noisy[f"{gas}_frame"].astype(float) - 128 for gas in ("co2", "ch4"))
        variances.append(co2.var())
        assert abs(np.corrcoef(co2.ravel(), ch4.ravel())[0, 1]) < 0.03
        assert abs(co2.mean()) < 0.2
    # Rounding adds a twelfth.
    assert 9.5 < min(variances) < 16
    assert 44 < max(variances) < 51


@pytest.mark.parametrize("kind", [GaussianBlur, MotionBlur])
def test_blur_keeps_the_mean_and_spreads_a_point_no_wider_than_its_kernel(kind):
    point = example()
    point["co2_frame"] = np.zeros((48, 64, 1), np.uint8)
    point["co2_frame"][24, 32] = 255
    widths = set()
    for seed in range(60):
        blurred = changed_by(kind(1.0, low=3, high=7), point, seed)["co2_frame"][..., 0].astype(float)
        assert blurred.sum() == pytest.approx(255, rel=0.06)
        rows, columns = np.argwhere(blurred)[:, 0], np.argwhere(blurred)[:, 1]
        widths.add(max(np.ptp(rows), np.ptp(columns)) + 1)
        centre = [(blurred.sum(axis) * np.arange(n)).sum() / blurred.sum() for axis, n in ((1, 48), (0, 64))]
        assert centre == pytest.approx([24, 32], abs=0.05), "nothing moves"
    assert widths == {3, 5, 7}


def test_gamma_keeps_black_and_white_and_bends_what_is_between():
    frame = np.array([0, 64, 255], np.uint8).reshape(1, 3, 1)
    given = example() | {"co2_frame": frame}
    middle = []
    for seed in range(200):
        black, grey, white = changed_by(Gamma(1.0, low=0.8, high=1.2), given, seed)["co2_frame"].ravel()
        assert (black, white) == (0, 255)
        middle.append(grey)
    assert min(middle) == pytest.approx(255 * (64 / 255) ** 1.2, abs=1)
    assert max(middle) == pytest.approx(255 * (64 / 255) ** 0.8, abs=1)


def test_the_other_polarity_is_the_complement_of_every_level_after_the_other_changes():
    given = example() | {"co2_frame": np.array([0, 64, 255], np.uint8).reshape(1, 3, 1)}
    assert changed_by(Invert(1.0), given, 0)["co2_frame"].ravel().tolist() == [255, 191, 0]
    bent = changed_by(LEVELS[1], given, 0)["co2_frame"]
    plan = draw_plan([LEVELS[1], Invert(1.0)], np.random.default_rng(0), height=48, width=64)
    np.testing.assert_array_equal(apply(given, plan)["co2_frame"], 255 - bent)
    np.testing.assert_array_equal(apply(given, plan)["co2_mask"], given["co2_mask"])


def test_brightness_and_contrast_are_those_asked_for_and_alike_in_both_gases():
    brighter = BrightnessContrast(1.0, brightness=0.2, contrast=0.0)
    levels = [changed_by(brighter, example(), s)["co2_frame"][20, 20, 0] for s in range(300)]
    # Clipped at white above, 51 levels darker at most below.
    assert max(levels) == pytest.approx(251, abs=2)
    assert min(levels) == pytest.approx(149, abs=2)
    changed = changed_by(BrightnessContrast(1.0, brightness=0.2, contrast=0.2), example(), 0)
    np.testing.assert_array_equal(changed["co2_frame"], changed["ch4_frame"])


def test_modality_dropout_takes_either_gas_of_a_pair_but_never_the_only_one():
    drop, rng = ModalityDropout(0.2), np.random.default_rng(0)
    masks = np.array([changed_by(drop, example(), rng)["modality_mask"] for _ in range(4000)])
    assert (masks.sum(1) >= 1).all()
    np.testing.assert_allclose((masks == 0).mean(0), [0.1, 0.1], atol=0.015)
    for present in ([1, 0], [0, 1]):
        single = example() | {"modality_mask": np.array(present, np.float32)}
        chex.assert_trees_all_equal(
            changed_by(ModalityDropout(1.0), single, rng)["modality_mask"], single["modality_mask"]
        )


def test_a_dropped_gas_loses_its_mask():
    dropped = changed_by(ModalityDropout(1.0), example(), 0)
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
    np.testing.assert_allclose(normalize(frame, 1.0).ravel(), [-1, 1])
    np.testing.assert_array_equal(normalize(frame, 0.0), 0)
    assert normalize(frame, 1.0).dtype == np.float32
