"""Augmentation on the device: the picture that OpenCV makes of the same plan, by one operation and by all."""

import cv2
import jax
import numpy as np
import pytest

from fume_jax.data import transforms
from fume_jax.data.transforms import normalize
from fume_jax.learning import augment_jax
from fume_jax.learning.augment import GaussianNoise, ModalityDropout, draw_plan
from fume_jax.schema import GASES, IGNORE
from tests.learning.test_augment import DEGRADATIONS, GEOMETRY, LEVELS

SIZE = {"height": 120, "width": 160}
# Optimised as in training: without, XLA rounds positions in another way.
APPLY = jax.jit(augment_jax.apply, compiler_options={"xla_backend_optimization_level": 3})
SEEDS = range(6)
# OpenCV before version 5 finds where a pixel comes from to 1/32 of one.
FINE = int(cv2.__version__.split(".")[0]) >= 5
# By operation: the largest difference of a grey level, and the share of pixels that may differ at all.
EXACT, ROUNDED, MOVED = (0, 0), (1, 1e-3), (1, 2e-3) if FINE else (5, 0.5)
CASES = {
    **dict(
        zip(("flip", "shift_scale_rotate", "elastic"), zip(GEOMETRY, (EXACT, MOVED, MOVED), strict=True), strict=True)
    ),
    **dict(zip(("gaussian_blur", "motion_blur"), zip(DEGRADATIONS[1:], (ROUNDED, ROUNDED), strict=True), strict=True)),
    **dict(zip(("brightness_contrast", "gamma", "invert"), zip(LEVELS, [EXACT] * 3, strict=True), strict=True)),
    "modality_dropout": (ModalityDropout(1.0), EXACT),
}


def textured(seed, present=(1, 1)):
    """Clouds of grey levels up to the borders, and regions of all classes, of each gas its own."""
    rng = np.random.default_rng(seed)
    example = {"modality_mask": np.array(present, np.float32)}
    for gas, there in zip(GASES, present, strict=True):
        clouds = [cv2.GaussianBlur(rng.standard_normal((120, 160)), (0, 0), sigma) for sigma in (1.5, 5.0)]
        frame = np.clip(clouds[0] / clouds[0].std() * 40 + 120, 0, 255).astype(np.uint8)
        mask = np.digitize(clouds[1] / clouds[1].std(), [0, 0.8]).astype(np.uint8)
        example |= {f"{gas}_frame": frame[..., None] * np.uint8(there), f"{gas}_mask": mask * np.uint8(there)}
    return example


def with_probability(probability, *operations):
    return [type(operation)(**vars(operation) | {"probability": probability}) for operation in operations]


def everything(seed, degradations=DEGRADATIONS[1:], probability=1.0):
    """A plan of all there is, of one shape whatever it holds: one program to compile."""
    operations = [*GEOMETRY, *with_probability(0.0, *DEGRADATIONS), degradations[seed % len(degradations)], *LEVELS]
    operations.append(ModalityDropout(1.0 if seed % 3 == 0 else 0.0))
    if not probability:
        operations = with_probability(0.0, *operations)
    return draw_plan(operations, np.random.default_rng(seed), **SIZE)


def both(example, plan):
    """The example as a batch holds it, by either path, frames in grey levels."""
    host, device = transforms.apply(example, plan), jax.device_get(APPLY(example, plan))
    for gas, present in zip(GASES, host["modality_mask"], strict=True):
        host[f"{gas}_frame"] = normalize(host[f"{gas}_frame"], present)
    return host, device


def differences(host, device):
    """Of each gas: in grey levels, and the share of pixels whose class differs."""
    for gas in GASES:
        assert device[f"{gas}_frame"].shape == host[f"{gas}_frame"].shape
        levels = np.abs(host[f"{gas}_frame"] - device[f"{gas}_frame"]) * 127.5
        yield levels, (host[f"{gas}_mask"] != device[f"{gas}_mask"]).mean()


@pytest.mark.parametrize("name", CASES)
def test_an_operation_gives_the_picture_that_opencv_gives(name):
    operation, (largest, share) = CASES[name]
    for seed in SEEDS:
        host, device = both(textured(seed), draw_plan([operation], np.random.default_rng(seed), **SIZE))
        np.testing.assert_array_equal(device["modality_mask"], host["modality_mask"])
        for levels, classes in differences(host, device):
            # Between two levels there is nothing but the rounding of the scale to [-1, 1].
            assert levels.max() <= largest + 1e-3
            assert (levels > 0.5).mean() <= share
            assert classes <= (1e-3 if operation in GEOMETRY[1:] else 0)


@pytest.mark.parametrize("present", [(1, 1), (1, 0), (0, 1)])
def test_all_operations_together_give_the_picture_that_opencv_gives(present):
    for seed in SEEDS:
        host, device = both(textured(seed, present), everything(seed))
        np.testing.assert_array_equal(device["modality_mask"], host["modality_mask"])
        for levels, classes in differences(host, device):
            # One level before the blur and the new scale of levels, which stretch it.
            assert levels.max() <= (2 if FINE else 8)
            assert (levels > 0.5).mean() <= (5e-3 if FINE else 0.5)
            assert classes <= 1e-3


def test_a_plan_that_changes_nothing_changes_nothing():
    for plan in (everything(0, probability=0.0), {}):
        host, device = both(textured(0), plan)
        for gas in GASES:
            np.testing.assert_array_equal(device[f"{gas}_frame"], normalize(textured(0)[f"{gas}_frame"], 1.0))
            np.testing.assert_array_equal(device[f"{gas}_mask"], textured(0)[f"{gas}_mask"])
        np.testing.assert_array_equal(host["modality_mask"], device["modality_mask"])


def test_what_comes_from_outside_is_black_and_of_unknown_class():
    plan = {"matrix": np.array([[1, 0, -50], [0, 1, 30]], np.float32)}
    for changed in both(textured(0), plan):
        for outside in (np.s_[:, :50], np.s_[-30:]):
            assert (changed["co2_frame"][outside] == -1).all()
            assert (changed["co2_mask"][outside] == IGNORE).all()
        np.testing.assert_array_equal(changed["co2_mask"][:-30, 50:], textured(0)["co2_mask"][30:, :-50])


def test_pixels_of_unknown_class_move_with_the_others():
    given = textured(0)
    for gas in GASES:
        given[f"{gas}_mask"][40:60, 30:70] = IGNORE
    plan = {"matrix": np.array([[1, 0, -10], [0, 1, 20]], np.float32)}
    for changed in both(given, plan):
        np.testing.assert_array_equal(changed["ch4_mask"][:-20, 10:], given["ch4_mask"][20:, :-10])


def test_noise_has_the_variance_asked_for_and_is_each_cameras_own():
    flat = textured(0) | {f"{gas}_frame": np.full((120, 160, 1), 128, np.uint8) for gas in GASES}
    for seed in SEEDS:
        plan = draw_plan([GaussianNoise(1.0, low=10.0, high=50.0)], np.random.default_rng(seed), **SIZE)
        host, device = ([(found[f"{gas}_frame"] * 127.5 - 0.5).ravel() for gas in GASES] for found in both(flat, plan))
        for co2, ch4 in (host, device):
            # Rounding adds a twelfth.
            assert co2.var() == pytest.approx(plan["deviation"] ** 2 + 1 / 12, rel=0.05)
            assert abs(co2.mean()) < 0.2
            assert abs(np.corrcoef(co2, ch4)[0, 1]) < 0.03


def test_each_example_of_a_batch_has_a_plan_of_its_own():
    examples = [textured(seed) for seed in range(3)]
    plans = [everything(seed, DEGRADATIONS) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *examples), jax.tree.map(lambda *x: np.stack(x), *plans)
    batch = jax.jit(jax.vmap(augment_jax.apply))(*stacked)
    for i in range(3):
        alone = APPLY(examples[i], plans[i])
        for key, value in alone.items():
            np.testing.assert_allclose(batch[key][i], value, atol=1.01 / 127.5)
            assert (np.abs(batch[key][i] - value) > 1e-3).mean() < 1e-3
