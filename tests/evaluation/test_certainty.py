"""Limits of confidence are fitted on one split and applied to the others; what training frames are like."""

import numpy as np
import pytest

from fume_jax.evaluation.certainty import MEASURED, calibrate, measure_training_frames
from fume_jax.evaluation.plots import coverage_chart
from fume_jax.learning.calibration import soften
from fume_jax.learning.likeness import BINS


def split(seed, recordings=40, pairs=3):
    """Results of recordings of a class each, of which unsure pairs are more often wrong."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 3, recordings), pairs)
    evidence = rng.normal(0, 2, (len(labels), 3))
    evidence[np.arange(len(labels)), labels] += np.repeat(rng.exponential(3, recordings), pairs)
    probabilities = np.exp(2 * evidence) / np.exp(2 * evidence).sum(1, keepdims=True)  # too sure by a factor of 2
    return {
        "probabilities": probabilities,
        "labels": labels,
        "recording_index": np.repeat(np.arange(recordings), pairs),
    }


def test_the_limits_of_validation_keep_four_fifths_there_and_apply_to_test():
    results = {"val": split(0), "test": split(1)}
    scores = {"val": {}, "test": {}}
    calibrate(results, scores, "val")
    val, test = scores["val"], scores["test"]
    assert val["kept/share"] == pytest.approx(0.8, abs=0.01) and val["recording/kept/share"] == 0.8
    assert not {"temperature", "abstain_below", "recording/abstain_below"} & test.keys()
    confidence = soften(results["test"]["probabilities"], val["temperature"]).max(-1)
    kept = confidence >= val["abstain_below"]
    assert test["kept/share"] == kept.mean() and 0.6 < kept.mean() < 0.95
    right = results["test"]["probabilities"].argmax(-1) == results["test"]["labels"]
    assert test["kept/accuracy"] == pytest.approx(right[kept].mean()) and right[kept].mean() > right.mean() + 0.02
    assert val["temperature"] > 1.5 and test["calibrated/expected_calibration_error"] < 0.15
    assert 0 < test["recording/kept/share"] < 1
    assert val["recording/abstain_below"] != val["abstain_below"]


@pytest.mark.parametrize("results", [{"test": split(1)}, {"val": {"labels": np.zeros(3)}}])
def test_without_classes_on_that_split_nothing_is_added(results):
    scores = {name: {} for name in results}
    calibrate(results, scores, "val")
    assert not any(scores.values())


class Frames:
    """A dataset of examples of one grey level each, of which every third lacks CH4."""

    def __init__(self, count):
        self._count, self.read = count, []

    def split(self, name):
        assert name == "train"
        return self

    def __len__(self):
        return self._count

    def __getitem__(self, i):
        self.read.append(i)
        frame = np.full((12, 16, 1), 40, np.uint8)
        frame[:, :8] = 80
        return {"co2_frame": frame, "ch4_frame": frame + 100, "modality_mask": np.array([1, i % 3 > 0], np.float32)}


def test_training_frames_are_summarized_by_gas_in_the_size_of_the_model():
    dataset = Frames(7)
    found = measure_training_frames(dataset, 6, 8)
    assert dataset.read == list(range(7)) and found["size"] == [12, 16]
    for gas, bins in (("co2", (40, 80)), ("ch4", (140, 180))):
        expected = np.zeros(BINS)
        expected[[level // 16 for level in bins]] = 0.5
        assert found[gas]["histogram"] == expected.tolist() and found[gas]["grey_distance"] == 0


def test_of_many_training_frames_some_spread_over_all_are_measured():
    dataset = Frames(10_000)
    measure_training_frames(dataset, 6, 8)
    assert len(dataset.read) == MEASURED and (dataset.read[0], dataset.read[-1]) == (0, 9_999)


def test_a_gas_without_frames_is_left_out():
    assert measure_training_frames(Frames(1), 6, 8).keys() == {"size", "co2"}


def test_the_chart_of_coverage_shows_a_line_where_examples_are_kept():
    found = split(0)
    with_line, without = (coverage_chart(found["probabilities"], found["labels"], kept) for kept in (0.8, None))
    assert with_line.shape == without.shape and (with_line != without).any() and without.std() > 10
