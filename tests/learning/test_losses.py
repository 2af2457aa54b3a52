"""Losses against the PyTorch implementation and against cases done by hand."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import fume
from fume_jax.config import create_loss_fn
from fume_jax.learning.losses import dice_loss, focal_loss, segmentation_loss
from fume_jax.schema import BACKGROUND, IGNORE, NOT_GAS, TUBE
from tests.golden import GOLDEN

ALPHA = (1.0, 8.0, 1.2)
SEGMENTATION = {"alpha": None, "gamma": 2.0, "focal_weight": 0.5, "dice_weight": 0.5}


def multi_task_loss(outputs, batch, **options):
    """The objective of the published recipe."""
    config = fume.get_config()
    config.loss.update(options)
    return create_loss_fn(config)(outputs, batch)


def golden_input(name):
    array = GOLDEN[f"loss/in/{name}"]
    return jnp.asarray(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)


def golden_batch(modality_mask):
    outputs = {key: golden_input(key) for key in ("cls_logits", "co2_seg_logits", "ch4_seg_logits")}
    batch = {key: golden_input(key) for key in ("co2_mask", "ch4_mask")}
    batch |= {"labels": golden_input("class_label"), "valid": jnp.ones(3, bool)}
    return outputs, batch | {"modality_mask": jnp.asarray(modality_mask, jnp.float32)}


@pytest.mark.parametrize(
    "name, options", [("focal_plain", {}), ("focal_alpha", {"alpha": ALPHA}), ("focal_gamma0", {"gamma": 0.0})]
)
def test_focal_loss_equals_the_reference(name, options):
    loss = focal_loss(golden_input("cls_logits"), golden_input("class_label"), **options).mean()
    np.testing.assert_allclose(loss, GOLDEN[f"loss/{name}"], rtol=1e-5)


@pytest.mark.parametrize(
    "name, loss_fn", [("dice", dice_loss), ("focal_dice", functools.partial(segmentation_loss, **SEGMENTATION))]
)
def test_segmentation_losses_equal_the_reference(name, loss_fn):
    loss = loss_fn(golden_input("co2_seg_logits"), golden_input("co2_mask")).mean()
    np.testing.assert_allclose(loss, GOLDEN[f"loss/{name}"], rtol=1e-5)


@pytest.mark.parametrize(
    "case, modality_mask",
    [("all", [[1, 1], [1, 1], [1, 1]]), ("mixed", [[1, 0], [0, 1], [1, 1]]), ("co2", [[1, 0], [1, 0], [1, 0]])],
)
def test_multi_task_loss_and_its_terms_equal_the_reference(case, modality_mask):
    terms = multi_task_loss(*golden_batch(modality_mask))
    for name, value in terms.items():
        key = "total_loss" if name == "loss" else name
        np.testing.assert_allclose(value, GOLDEN[f"loss/multi_task/{case}/{key}"], rtol=1e-5, err_msg=name)


def test_padded_examples_do_not_count():
    outputs, batch = golden_batch([[1, 1], [1, 0], [1, 1]])
    expected = multi_task_loss(*jax.tree.map(lambda x: x[:2], (outputs, batch)))
    chex.assert_trees_all_close(multi_task_loss(outputs, batch | {"valid": jnp.array([True, True, False])}), expected)


def test_focal_loss_by_hand():
    # p = 3/4 and 1/4: -(1 - p)^2 log p.
    logits = jnp.log(jnp.array([[3.0, 1.0], [3.0, 1.0]]))
    expected = [-(0.25**2) * np.log(0.75), -(0.75**2) * np.log(0.25)]
    np.testing.assert_allclose(focal_loss(logits, jnp.array([0, 1])), expected, rtol=1e-6)


def test_dice_loss_of_perfect_wrong_and_empty_predictions():
    def sure(mask):
        return 100.0 * jax.nn.one_hot(mask, 3)

    left = jnp.zeros((1, 4, 4), int).at[:, :, 2:].set(1)
    np.testing.assert_allclose(dice_loss(sure(left), left), 0, atol=1e-6)
    # Classes 0 and 1 swapped, 8 pixels each: 1 - 1/17; class 2 empty in both: 0.
    np.testing.assert_allclose(dice_loss(sure(1 - left), left), 2 / 3 * 16 / 17, rtol=1e-6)


def test_the_smoothing_of_dice_is_in_pixels():
    logits, mask = jnp.zeros((1, 20, 30, 3)), jnp.zeros((1, 20, 30), int)
    # A third of 600 pixels is predicted of each class: 1 - (2 x 200 + s) / (800 + s), and twice 1 - s / (200 + s).
    for smooth in (1.0, 100.0):
        expected = (400 / (800 + smooth) + 2 * 200 / (200 + smooth)) / 3
        options = {"alpha": None, "gamma": 2.0, "focal_weight": 0.0, "dice_weight": 1.0, "dice_smooth": smooth}
        np.testing.assert_allclose(segmentation_loss(logits, mask, **options), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
@pytest.mark.parametrize("modality_mask", [[[1, 1], [1, 0], [0, 1]], [[1, 0]] * 3, [[0, 0]] * 3])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_extreme_logits_absent_gases_and_empty_classes_stay_finite(scale, modality_mask, dtype):
    outputs, batch = golden_batch(modality_mask)
    outputs = jax.tree.map(lambda x: (scale * x).astype(dtype), outputs)
    batch = batch | {"co2_mask": jnp.zeros_like(batch["co2_mask"])}
    loss, grads = jax.value_and_grad(lambda o: multi_task_loss(o, batch, cls_alpha=ALPHA)["loss"])(outputs)
    chex.assert_tree_all_finite((loss, grads))
    if not np.any(modality_mask):
        np.testing.assert_array_equal(grads["co2_seg_logits"], 0)


def test_gradients_are_those_of_finite_differences():
    outputs, batch = golden_batch([[1, 0], [0, 1], [1, 1]])
    outputs, batch = jax.tree.map(lambda x: x[:, :2, :3] if x.ndim > 2 else x, (outputs, batch))
    names = list(outputs)

    def loss(*arrays):
        return multi_task_loss(dict(zip(names, arrays, strict=True)), batch)["loss"]

    chex.assert_numerical_grads(loss, tuple(outputs.values()), order=1, atol=1e-2, rtol=1e-2)


def test_a_missing_head_drops_its_terms():
    outputs, batch = golden_batch([[1, 1]] * 3)
    assert set(multi_task_loss({"cls_logits": outputs["cls_logits"]}, batch)) == {"loss", "cls_loss"}
    del outputs["cls_logits"], outputs["ch4_seg_logits"]
    assert set(multi_task_loss(outputs, batch)) == {"loss", "co2_seg_loss", "seg_loss"}


@pytest.mark.parametrize("options", [{}, {"alpha": ALPHA}, {"focal_weight": 0.0}, {"dice_weight": 0.0}], ids=str)
def test_pixels_of_unknown_class_do_not_count(options):
    loss_fn = functools.partial(segmentation_loss, **SEGMENTATION | options)
    logits, masks = golden_input("co2_seg_logits"), golden_input("co2_mask")
    half = masks.shape[2] // 2
    loss, grads = jax.value_and_grad(lambda x: loss_fn(x, masks.at[:, :, half:].set(IGNORE)).mean())(logits)
    np.testing.assert_allclose(loss, loss_fn(logits[:, :, :half], masks[:, :, :half]).mean(), rtol=1e-5)
    assert not grads[:, :, half:].any() and grads[:, :, :half].any()


def test_where_nothing_is_known_there_is_no_loss():
    logits = golden_input("co2_seg_logits")
    masks = jnp.full(logits.shape[:3], IGNORE)
    loss, grads = jax.value_and_grad(lambda x: segmentation_loss(x, masks, **SEGMENTATION).sum())(logits)
    assert loss == 0 and not grads.any()


def test_a_pixel_that_is_no_gas_may_be_background_or_tube():
    # p = 1/2, 1/4 and 1/4, so that of no gas is 3/4.
    logits = jnp.log(jnp.array([2.0, 1.0, 1.0]))[None, None, None]
    masks = jnp.full((1, 1, 1), NOT_GAS)
    options = {"alpha": None, "gamma": 2.0, "focal_weight": 1.0, "dice_weight": 0.0}
    np.testing.assert_allclose(segmentation_loss(logits, masks, **options), -(0.25**2) * np.log(0.75), rtol=1e-6)
    # Only gas has a Dice loss: 1 - 1 / (1/4 + 1), over three classes.
    np.testing.assert_allclose(dice_loss(logits, masks), (1 - 1 / 1.25) / 3, rtol=1e-6)
    grads = jax.grad(lambda x: segmentation_loss(x, masks, **options | {"dice_weight": 1.0}).sum())(logits)[0, 0, 0]
    # Nothing is learnt of which of the two it is: both rise in proportion to their probabilities.
    np.testing.assert_allclose(grads[BACKGROUND] / grads[TUBE], 2, rtol=1e-5)
    assert grads[BACKGROUND] < 0
