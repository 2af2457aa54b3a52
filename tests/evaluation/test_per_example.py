"""What an evaluation says of single examples, and of all of them together: cases done by hand."""

import csv
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fume_jax.evaluation import evaluator, per_example
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GAS, TUBE


def results(**changed):
    """Two valid examples: one of both gases, all right; one of CO2 alone, half of its plume found."""
    right, half = np.diag([80, 10, 10]), np.diag([80, 10, 5]) + np.eye(3, k=-2, dtype=int) * 5
    return {
        "labels": np.array([0, 2]),
        "valid": np.array([True, True]),
        "modality_mask": np.array([[1.0, 1.0], [1.0, 0.0]]),
        "example_index": np.array([7, 9]),
        "recording_index": np.array([1, 2]),
        "probabilities": np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], np.float32),
        "cls_confusion": np.array([np.diag([1, 0, 0]), np.eye(3, k=-2, dtype=int)]),
        "co2_confusion": np.array([right, half]),
        "ch4_confusion": np.array([right, 0 * right]),
        "cls_loss": np.array([1.0, 3.0], np.float32),
        "co2_seg_loss": np.array([0.2, 0.4], np.float32),
        "ch4_seg_loss": np.array([0.6, 9.0], np.float32),
        "co2_hd95": np.array([0.0, 4.5]),
        "co2_asd": np.array([0.0, 1.5]),
        "co2_missed": np.array([0.0, 0.0]),
        "ch4_hd95": np.array([2.0, np.nan]),
        "ch4_asd": np.array([1.0, np.nan]),
        "ch4_missed": np.array([0.0, 0.0]),
    } | changed


def test_the_loss_of_a_split_is_the_mean_over_examples_then_over_gases_present():
    scores = evaluator.score_results(results(), cls_weight=2.0, seg_weight=1.0)
    assert scores["cls_loss"] == 2.0
    assert scores["co2_seg_loss"] == pytest.approx(0.3)
    assert scores["ch4_seg_loss"] == pytest.approx(0.6)  # of the one example that has CH4
    assert scores["loss"] == pytest.approx(2 * 2.0 + (0.3 + 0.6) / 2)
    assert scores["iou_gas"] == pytest.approx(25 / 30)


def test_recordings_are_scored_as_wholes():
    # Recording 5 is Transitional by the mean of logarithms, though most of its pairs say Healthy.
    few, much = [0.6, 0.4, 1e-9], [0.01, 0.99, 1e-9]
    found = results(
        labels=np.array([1, 1, 1, 0, 0]),
        valid=np.ones(5, bool),
        modality_mask=np.ones((5, 2)),
        recording_index=np.array([5, 5, 5, 6, 7]),
        probabilities=np.array([few, few, much, few, much], np.float32),
        cls_confusion=np.zeros((5, 3, 3), int),
        **{name: np.zeros(5, np.float32) for name in ("cls_loss", "co2_seg_loss", "ch4_seg_loss")},
    )
    scores = evaluator.score_results(found, cls_weight=1.0, seg_weight=1.0)
    expected = {
        "accuracy": 2 / 3,
        "balanced_accuracy": (1 + 1 / 2) / 2,
        "macro_f1": 2 / 3,
        "Transitional_f1": 2 / 3,
        "count": 3,
    }
    found = {name: value for name, value in scores.items() if name.startswith("recording/")}
    assert found == pytest.approx({f"recording/{name}": value for name, value in expected.items()})


def test_a_model_without_classes_has_no_scores_of_recordings():
    only_seg = {k: v for k, v in results().items() if not k.startswith("cls_") and k != "probabilities"}
    scores = evaluator.score_results(only_seg, cls_weight=2.0, seg_weight=1.0)
    assert not any(name.startswith("recording/") for name in scores)


def test_a_row_says_what_the_model_said_of_the_gases_that_are_there(tmp_path):
    table = per_example.columns(results(), cls_weight=2.0, seg_weight=1.0)
    per_example.write_table(tmp_path / "examples" / "test.csv", table)
    first, second = csv.DictReader((tmp_path / "examples" / "test.csv").read_text().splitlines())
    assert (first["label"], first["prediction"]) == ("Healthy", "Healthy")
    assert (second["label"], second["prediction"], second["example_index"]) == ("Acidotic", "Healthy", "9")
    assert float(first["loss"]) == pytest.approx(2 * 1.0 + 0.4)
    assert float(second["loss"]) == pytest.approx(2 * 3.0 + 0.4)
    assert float(second["co2_iou_gas"]) == pytest.approx(0.5)
    assert (second["ch4_iou_gas"], second["ch4_hd95"]) == ("", "")
    assert float(second["co2_hd95"]) == 4.5


def test_a_table_comes_back_as_the_results_that_metrics_are_computed_from(tmp_path):
    found = results()
    per_example.write_table(tmp_path / "test.csv", per_example.columns(found, cls_weight=2.0, seg_weight=1.0))
    again = per_example.read_results(tmp_path / "test.csv")
    assert "co2_tube_as_gas" in (tmp_path / "test.csv").read_text()
    for name in ("example_index", "recording_index", "labels", "cls_confusion", "co2_confusion", "ch4_confusion"):
        np.testing.assert_array_equal(again[name], found[name])
    np.testing.assert_allclose(again["probabilities"], found["probabilities"], rtol=1e-5)


def test_a_table_of_an_earlier_version_is_to_be_written_again(tmp_path):
    table = per_example.columns(results(), cls_weight=2.0, seg_weight=1.0)
    old = {name: values for name, values in table.items() if "_as_" not in name}
    per_example.write_table(tmp_path / "test.csv", old)
    with pytest.raises(UserError, match=r"test\.csv is damaged, or not a table of .* fume evaluate writes it again"):
        per_example.read_results(tmp_path / "test.csv")


def test_a_model_of_one_task_has_the_columns_of_that_task():
    found = results()
    only_cls = {k: v for k, v in found.items() if not k.startswith(("co2_", "ch4_"))}
    table = per_example.columns(only_cls, cls_weight=2.0, seg_weight=1.0)
    assert table["loss"].tolist() == [2.0, 6.0]
    assert "co2_iou_gas" not in table
    only_seg = {k: v for k, v in found.items() if not k.startswith("cls_") and k != "probabilities"}
    table = per_example.columns(only_seg, cls_weight=2.0, seg_weight=1.0)
    assert table["loss"] == pytest.approx([0.4, 0.4])
    assert "prediction" not in table


def test_boundaries_are_measured_of_plumes_of_present_gases_of_valid_examples():
    mask = np.zeros((3, 20, 20), np.int32)
    mask[:, 5:10, 5:10] = GAS
    mask[:, 0, :] = TUBE
    predicted = np.zeros_like(mask, np.uint8)
    predicted[:, 5:10, 8:13] = GAS  # three pixels further to the right
    found = {
        "valid": np.array([True, True, False]),
        "modality_mask": np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]),
        "co2_prediction": predicted,
        "ch4_prediction": 0 * predicted,
        "co2_mask": mask,
        "ch4_mask": mask,
    }
    with ThreadPoolExecutor(2) as pool:
        measured = per_example.measure_surface_distances(pool, found)
    assert [name for name in measured if name.endswith(("prediction", "mask"))] == ["modality_mask"]
    np.testing.assert_allclose(measured["co2_hd95"], [3, 3, np.nan])
    assert measured["co2_missed"].tolist() == [0, 0, 0]
    assert np.isnan(measured["ch4_hd95"]).all()
    assert measured["ch4_missed"].tolist() == [1, 0, 0]


def test_collecting_drops_padding_and_puts_examples_in_order():
    batches = [np.array([0, 3, 2]), np.array([1, 4, -1])]

    def eval_fn(params, batch_stats, batch):
        return {"valid": batch >= 0, "example_index": batch, "co2_confusion": np.ones((3, 3, 3), np.int32) * 2**30}

    model = {"params": None, "batch_stats": None}
    found = evaluator.collect_results(eval_fn, model, batches)
    assert found["example_index"].tolist() == [0, 1, 2, 3, 4]
    assert evaluator.total_counts(found)["co2_confusion"][0, 0] == 5 * 2**30
    with_more = evaluator.collect_results(eval_fn, model, batches, lambda r: r | {"twice": 2 * r["example_index"]})
    assert with_more["twice"].tolist() == [0, 2, 4, 6, 8]
