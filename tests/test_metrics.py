"""Metrics against the PyTorch implementation, scikit-learn, and cases done by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from fume_jax.metrics import (
    classification_metrics,
    compute_metrics,
    confusion_counts,
    confusion_matrix,
    segmentation_metrics,
)
from fume_jax.vocabulary import CLASSES
from tests.golden import GOLDEN


def counts_of(truth, prediction, classes=3):
    truth, prediction = jnp.asarray(truth, jnp.int32), jnp.asarray(prediction, jnp.int32)
    return np.asarray(confusion_matrix(truth, prediction, jnp.ones(truth.shape, bool), classes))


def assert_golden(metrics):
    for name, value in metrics.items():
        np.testing.assert_allclose(value, GOLDEN[f"metric/{name}"], rtol=1e-12, err_msg=name)


def test_segmentation_metrics_equal_the_reference():
    assert_golden(segmentation_metrics(counts_of(GOLDEN["metric/in/true_mask"], GOLDEN["metric/in/pred_mask"])))


def test_classification_metrics_equal_the_reference():
    confusion = counts_of(GOLDEN["metric/in/true_class"], GOLDEN["metric/in/pred_class"])
    np.testing.assert_array_equal(confusion, GOLDEN["metric/confusion_matrix"])
    assert_golden(classification_metrics(confusion))


def test_classification_metrics_equal_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 300, p=[0.2, 0.1, 0.7])
    prediction = np.where(rng.random(300) < 0.6, truth, rng.integers(0, 3, 300))
    metrics = classification_metrics(counts_of(truth, prediction))
    assert metrics["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(truth, prediction))
    assert metrics["cohens_kappa"] == pytest.approx(sklearn.metrics.cohen_kappa_score(truth, prediction))
    assert metrics["weighted_f1"] == pytest.approx(sklearn.metrics.f1_score(truth, prediction, average="weighted"))
    per_class = sklearn.metrics.precision_recall_fscore_support(truth, prediction)
    for name, precision, recall, f1, support in zip(CLASSES, *per_class, strict=True):
        assert metrics[f"{name}_precision"] == pytest.approx(precision)
        assert metrics[f"{name}_recall"] == pytest.approx(recall)
        assert metrics[f"{name}_f1"] == pytest.approx(f1)
        assert metrics[f"{name}_support"] == support


def test_confusion_has_truth_in_rows():
    assert counts_of([0, 0, 2], [1, 1, 0]).tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_a_class_that_never_occurs_is_left_out_of_the_means():
    metrics = segmentation_metrics(np.array([[6, 0, 2], [0, 0, 0], [0, 0, 4]]))
    assert np.isnan(metrics["iou_tube"])
    assert metrics["mean_iou"] == pytest.approx((6 / 8 + 4 / 6) / 2)
    metrics = classification_metrics(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    assert metrics["balanced_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert np.isnan(metrics["Acidotic_f1"])


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
    counts = {name: np.asarray(c).tolist() for name, c in confusion_counts(outputs, batch).items()}
    assert counts == {
        "cls_confusion": [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
        "co2_confusion": [[0, 0, 0], [0, 0, 0], [0, 0, 8]],
        "ch4_confusion": [[0, 0, 4], [0, 0, 0], [0, 0, 0]],
    }


def test_gases_are_pooled_by_pixels_and_kept_apart():
    co2, ch4 = np.diag([90, 0, 10]), np.array([[0, 0, 10], [0, 0, 0], [0, 0, 0]])
    metrics = compute_metrics({"co2_confusion": co2, "ch4_confusion": ch4, "cls_confusion": np.eye(3, dtype=int)})
    assert (metrics["co2/iou_gas"], metrics["ch4/iou_gas"]) == (1.0, 0.0)
    assert metrics["iou_gas"] == pytest.approx(10 / 20)
    assert metrics["joint_score"] == pytest.approx(0.5 * metrics["mean_iou"] + 0.5)
