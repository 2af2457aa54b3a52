"""Metrics against the PyTorch implementation, scikit-learn, torchmetrics, and cases done by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification as peer

from fume_jax.learning.metrics import (
    absent_classes,
    classification_metrics,
    compute_metrics,
    confusion_matrix,
    decide,
    example_confusions,
    false_alarms,
    kept_metrics,
    segmentation_metrics,
)
from fume_jax.schema import CLASSES, GAS, GASES, IGNORE, MASK_CLASSES, NOT_GAS, TUBE
from tests.golden import GOLDEN


def counts_of(truth, prediction, classes=3):
    truth, prediction = jnp.asarray(truth, jnp.int32), jnp.asarray(prediction, jnp.int32)
    return np.asarray(confusion_matrix(truth, prediction, jnp.ones(truth.shape, bool), classes))


# The reference implementation does not compute these.
OURS_ALONE = {"macro_precision", "macro_recall", "weighted_precision", "weighted_recall"}


def noisy(seed, shape, shares=(0.2, 0.1, 0.7), right=0.6):
    """Truth and a prediction of it that is right somewhat more often than said."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, shape, p=shares)
    return truth, np.where(rng.random(shape) < right, truth, rng.integers(0, 3, shape))


def assert_golden(metrics):
    for name, value in metrics.items():
        if name in OURS_ALONE:
            continue
        np.testing.assert_allclose(value, GOLDEN[f"metric/{name}"], rtol=1e-12, err_msg=name)


def test_segmentation_metrics_equal_the_reference():
    assert_golden(segmentation_metrics(counts_of(GOLDEN["metric/in/true_mask"], GOLDEN["metric/in/pred_mask"])))


def test_classification_metrics_equal_the_reference():
    confusion = counts_of(GOLDEN["metric/in/true_class"], GOLDEN["metric/in/pred_class"])
    np.testing.assert_array_equal(confusion, GOLDEN["metric/confusion_matrix"])
    assert_golden(classification_metrics(confusion))


# Truth and prediction: all classes; the second never predicted; the third predicted only; the second absent from both.
CLASSIFICATIONS = {
    "all": noisy(0, 300),
    "never predicted": (np.array([0, 0, 1, 1, 2]), np.array([0, 0, 2, 0, 2])),
    "only predicted": (np.array([0, 0, 1, 1, 1]), np.array([0, 2, 1, 1, 0])),
    "absent": (np.array([0, 0, 2, 2, 2]), np.array([0, 2, 2, 2, 0])),
}


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("case", CLASSIFICATIONS)
def test_classification_metrics_equal_scikit_learn(case):
    truth, prediction = CLASSIFICATIONS[case]
    metrics = classification_metrics(counts_of(truth, prediction))
    assert metrics["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, prediction))
    assert metrics["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(truth, prediction))
    assert metrics["cohens_kappa"] == pytest.approx(sklearn.metrics.cohen_kappa_score(truth, prediction))
    for average in ("macro", "weighted"):  # over the classes that either holds, by default
        means = sklearn.metrics.precision_recall_fscore_support(truth, prediction, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), means, strict=False):
            assert metrics[f"{average}_{name}"] == pytest.approx(value), f"{average} {name}"
    per_class = sklearn.metrics.precision_recall_fscore_support(
        truth, prediction, labels=range(3), zero_division=0 if case != "absent" else np.nan
    )
    for name, *values in zip(CLASSES, *per_class, strict=True):
        found = [metrics[f"{name}_{metric}"] for metric in ("precision", "recall", "f1", "support")]
        np.testing.assert_allclose(found, values, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("case", CLASSIFICATIONS)
def test_classification_metrics_equal_torchmetrics(case):
    truth, prediction = map(torch.from_numpy, CLASSIFICATIONS[case])
    metrics = classification_metrics(counts_of(truth, prediction))
    for name in ("precision", "recall", "f1_score"):
        for average in ("macro", "weighted"):
            value = getattr(peer, f"multiclass_{name}")(prediction, truth, num_classes=3, average=average)
            assert metrics[f"{average}_{name.removesuffix('_score')}"] == pytest.approx(float(value)), name
    kappa = peer.multiclass_cohen_kappa(prediction, truth, num_classes=3)
    assert metrics["cohens_kappa"] == pytest.approx(float(kappa), abs=1e-6)


@pytest.mark.parametrize("shares", [(0.7, 0.1, 0.2), (0.95, 0.05, 0.0)])
def test_segmentation_metrics_equal_torchmetrics(shares):
    truth, prediction = map(torch.from_numpy, noisy(1, (4, 24, 32), shares))
    metrics = segmentation_metrics(counts_of(truth, prediction))
    iou = peer.multiclass_jaccard_index(prediction, truth, num_classes=3, average=None)
    dice = peer.multiclass_f1_score(prediction, truth, num_classes=3, average=None)  # of pixels, which is Dice
    np.testing.assert_allclose([metrics[f"iou_{name}"] for name in MASK_CLASSES], iou, rtol=1e-6)
    np.testing.assert_allclose([metrics[f"dice_{name}"] for name in MASK_CLASSES], dice, rtol=1e-6)
    assert metrics["mean_iou"] == pytest.approx(float(iou.mean()))
    assert metrics["mean_dice"] == pytest.approx(float(dice.mean()))
    accuracy = peer.multiclass_accuracy(prediction, truth, num_classes=3, average="micro")
    assert metrics["pixel_accuracy"] == pytest.approx(float(accuracy))


def test_precision_and_recall_done_by_hand():
    # Transitional is there and never predicted, Acidotic is predicted and never there.
    metrics = classification_metrics(np.array([[6, 0, 2], [1, 0, 1], [0, 0, 0]]))
    assert (metrics["Transitional_precision"], metrics["Acidotic_recall"]) == (0, 0)
    assert metrics["macro_precision"] == pytest.approx((6 / 7 + 0 + 0) / 3)
    assert metrics["weighted_precision"] == pytest.approx((8 * 6 / 7 + 2 * 0) / 10)
    assert metrics["macro_recall"] == pytest.approx((6 / 8 + 0 + 0) / 3)
    assert metrics["balanced_accuracy"] == pytest.approx((6 / 8 + 0) / 2), "Acidotic has no recall to average"
    assert metrics["weighted_recall"] == pytest.approx(metrics["accuracy"])


def test_confusion_has_truth_in_rows():
    assert counts_of([0, 0, 2], [1, 1, 0]).tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_a_class_that_never_occurs_is_left_out_of_the_means():
    metrics = segmentation_metrics(np.array([[6, 0, 2], [0, 0, 0], [0, 0, 4]]))
    assert np.isnan(metrics["iou_tube"])
    assert metrics["mean_iou"] == pytest.approx((6 / 8 + 4 / 6) / 2)
    metrics = classification_metrics(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    assert metrics["balanced_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert np.isnan(metrics["Acidotic_f1"])


def test_masks_without_gas_and_examples_of_one_class_have_no_mean_score():
    for confusion in (np.diag([9, 0, 0]), np.diag([9, 3, 0])):  # empty masks, and masks whose gas is coded as tube
        metrics = segmentation_metrics(confusion)
        assert np.isnan([metrics["mean_iou"], metrics["mean_dice"], metrics["iou_gas"]]).all()
        assert (metrics["iou_background"], metrics["pixel_accuracy"]) == (1, 1)
    invented = segmentation_metrics(np.array([[8, 0, 1], [0, 0, 0], [0, 0, 0]]))
    assert (invented["iou_gas"], invented["mean_iou"]) == (0, pytest.approx(8 / 9 / 2)), "gas that is not there counts"
    metrics = classification_metrics(np.diag([7, 0, 0]))
    assert np.isnan([metrics[name] for name in ("balanced_accuracy", "macro_f1", "macro_recall")]).all()
    assert metrics["accuracy"] == 1
    joint = compute_metrics({"cls_confusion": np.diag([3, 1, 1]), "co2_confusion": np.diag([9, 3, 0])})
    assert np.isnan(joint["joint_score"])


def test_absent_classes_are_named_and_those_that_only_one_side_has_are_not():
    one_sided = np.array([[9, 0, 1], [0, 0, 0], [0, 0, 0]])  # gas is predicted, tube is nowhere
    counts = {"cls_confusion": np.diag([3, 0, 1]), "co2_confusion": one_sided, "ch4_confusion": np.diag([5, 2, 4])}
    assert absent_classes(compute_metrics(counts)) == ["Transitional", "co2 tube"]
    assert absent_classes(compute_metrics({"ch4_confusion": np.diag([5, 2, 4])})) == [], "what is not scored"
    assert absent_classes(compute_metrics({"cls_confusion": np.zeros((3, 3), int)})) == list(CLASSES)


def test_only_valid_examples_and_present_gases_are_counted():
    logits = jnp.zeros((3, 2, 2, 3)).at[..., 2].set(1)  # gas everywhere
    outputs = {"cls_logits": jnp.eye(3), "co2_seg_logits": logits, "ch4_seg_logits": logits}
    batch = {
        "labels": jnp.array([0, 1, 2]),
        "valid": jnp.array([True, True, False]),
        "modality_mask": jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]),
        "co2_mask": jnp.full((3, 2, 2), 2),
        "ch4_mask": jnp.zeros((3, 2, 2), int),
    }
    counts = {name: np.asarray(c).tolist() for name, c in example_confusions(decide(outputs), batch).items()}
    nothing = [[0, 0, 0]] * 3
    gas_found, gas_invented = [[0, 0, 0], [0, 0, 0], [0, 0, 4]], [[0, 0, 4], [0, 0, 0], [0, 0, 0]]
    assert counts == {
        "cls_confusion": [np.diag([1, 0, 0]).tolist(), np.diag([0, 1, 0]).tolist(), nothing],
        "co2_confusion": [gas_found, gas_found, nothing],
        "ch4_confusion": [nothing, gas_invented, nothing],
    }


def test_gases_are_pooled_by_pixels_and_kept_apart():
    co2, ch4 = np.diag([90, 0, 10]), np.array([[0, 0, 10], [0, 0, 0], [0, 0, 0]])
    metrics = compute_metrics({"co2_confusion": co2, "ch4_confusion": ch4, "cls_confusion": np.eye(3, dtype=int)})
    assert (metrics["co2/iou_gas"], metrics["ch4/iou_gas"]) == (1.0, 0.0)
    assert metrics["iou_gas"] == pytest.approx(10 / 20)
    assert metrics["joint_score"] == pytest.approx(0.5 * metrics["mean_iou"] + 0.5)


def test_pixels_of_unknown_class_are_not_counted_and_those_of_either_as_background():
    masks = np.array([[0, TUBE, GAS, IGNORE], [IGNORE, NOT_GAS, NOT_GAS, NOT_GAS]])
    predictions = np.array([[0, GAS, GAS, GAS], [0, 0, TUBE, GAS]])
    logits = 9.0 * np.eye(3, dtype=np.float32)[predictions][None]
    batch = {"valid": jnp.array([True]), "modality_mask": jnp.array([[1.0, 0.0]])}
    batch |= {f"{gas}_mask": jnp.asarray(masks[None], jnp.int32) for gas in GASES}
    counts = example_confusions({f"{gas}_seg": jnp.asarray(logits).argmax(-1) for gas in GASES}, batch)
    np.testing.assert_array_equal(counts["co2_confusion"][0], [[3, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert not counts["ch4_confusion"].any()


def test_false_alarms_are_frames_without_gas_in_which_any_is_found():
    frames = np.zeros((5, 3, 3), int)
    frames[0, 0, 0] = 9  # nothing, and nothing found
    frames[1, 0] = 8, 0, 1  # a pixel of gas where there is none
    frames[2, 2, 2] = 9  # gas
    frames[3, 0, 1] = 9  # tube is no gas
    # The last one is not there.
    assert false_alarms({"co2_confusion": frames}) == {"false_gas": 1 / 3, "frames_without_gas": 3}
    both = {"co2_confusion": frames, "ch4_confusion": frames[:2]}
    assert false_alarms(both) == {"false_gas": 2 / 5, "frames_without_gas": 5}
    assert false_alarms({"co2_confusion": frames[2:3]}) == false_alarms({"cls_confusion": frames}) == {}


def test_what_is_kept_by_hand():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.5, 0.4, 0.1], [0.1, 0.7, 0.2], [0.6, 0.4, 0.0], [0.2, 0.2, 0.6]])
    labels = np.array([0, 1, 1, 1, 2])
    found = kept_metrics(probabilities, labels, 0.6)  # all but the second, of which one is wrong
    assert found == {
        "kept/share": 0.8,
        "kept/accuracy": 0.75,
        "kept/balanced_accuracy": pytest.approx((1 + 0.5 + 1) / 3),
    }
    assert kept_metrics(probabilities, labels, 0.0)["kept/accuracy"] == 0.6
    nothing = kept_metrics(probabilities, labels, 2.0)
    assert nothing["kept/share"] == 0 and np.isnan(nothing["kept/accuracy"])
