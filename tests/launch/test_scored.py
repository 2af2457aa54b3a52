"""Scored runs are put together: folds to one set of examples, seeds side by side."""

import numpy as np
import pytest

from fume_jax.runtime.errors import UserError
from launch import cv_scores, scored
from tests.launch.scored_runs import write_run


def names(folder):
    return sorted(path.parent.name for path in folder.glob("*/config.json"))


def pool(folder, **options):
    runs, missing = scored.read_runs(folder, names(folder))
    assert missing == []
    return scored.pool(runs, **options)


@pytest.fixture
def folds(tmp_path):
    """Three folds of two recordings each, of two pairs, trained with two seeds: 8 and 10 of 12 pairs are right."""
    right = {0: ["1111", "1100", "1010"], 1: ["1111", "1110", "1011"]}
    for seed, by_fold in right.items():
        for fold, own in enumerate(by_fold):
            recordings = np.array([0, 0, 1, 1]) + 2 * fold
            correct, found = [int(c) for c in own], 6 + 2 * seed
            write_run(tmp_path / f"fume-fold_{fold}-seed_{seed}", recordings, correct, found, digest=f"fold {fold}")
    return tmp_path


def test_names_tell_entry_fold_and_seed(folds):
    runs, _ = scored.read_runs(folds, names(folds))
    assert [(run.entry, run.fold, run.seed) for run in runs] == [("fume", f, s) for f in range(3) for s in range(2)]
    for name, expected in {
        "seed_3": (folds.name, 0, 3),
        "fold_1-seed_0": (folds.name, 1, 0),
        "fusion_add-rate_0.003-seed_12": ("fusion_add-rate_0.003", 0, 12),
        "demo": ("demo", 0, 0),
    }.items():
        write_run(folds / name, [0, 1], [1, 1])
        (run,), _ = scored.read_runs(folds, [name])
        assert (run.entry, run.fold, run.seed) == expected


def test_folds_count_as_one_run_and_seeds_are_side_by_side(folds):
    (pooled,), notes = pool(folds, folds=3)
    assert notes == []
    assert (pooled.entry, pooled.seeds, len(pooled.runs), len(pooled.examples)) == ("fume", [0, 1], 6, 12)
    assert pooled.by_group["cls_confusion"].shape == (6, 2, 3, 3)
    right = np.trace(pooled.by_group["cls_confusion"], axis1=2, axis2=3)
    assert right.tolist() == [[2, 2], [2, 2], [2, 2], [0, 1], [1, 1], [1, 2]]
    assert pooled.by_group["recording_confusion"].sum() == 6 * 2
    assert pooled.by_group["co2_confusion"][:, 0, 2, 2].tolist() == [12] * 6


def test_scores_are_those_of_all_examples_averaged_over_seeds(folds):
    (pooled,), _ = pool(folds)
    rows = {row["metric"]: row for row in cv_scores.score_rows(pooled)}
    assert rows["accuracy"]["pooled"] == pytest.approx((8 + 10) / 24)
    assert rows["iou_gas"]["pooled"] == pytest.approx((0.6 + 0.8) / 2)
    # Runs have 4, 2, 2 and 4, 3, 3 of 4 right.
    each = [1, 0.5, 0.5, 1, 0.75, 0.75]
    assert (rows["accuracy"]["runs"], rows["accuracy"]["mean"]) == (6, pytest.approx(np.mean(each)))
    assert rows["accuracy"]["sd"] == pytest.approx(np.std(each, ddof=1))
    assert rows["accuracy"]["method"] == "percentile"
    assert rows["accuracy"]["low"] < rows["accuracy"]["pooled"] < rows["accuracy"]["high"]
    table = cv_scores.scores_table([pooled], list(rows.values()))
    assert "fume: 12 examples of 6 groups of recordings, the mean of 2 seeds; fewer than 20, so" in table
    line = next(line for line in table.splitlines() if " accuracy" in line)
    assert line.split()[:6] == ["fume", "accuracy", "6", "0.750", "0.224", "0.750"]


def test_a_seed_that_lacks_a_fold_is_left_out_and_told(folds):
    (folds / "fume-fold_1-seed_0" / "metrics.json").unlink()
    runs, missing = scored.read_runs(folds, names(folds))
    assert missing == ["fume-fold_1-seed_0"]
    (pooled,), notes = scored.pool(runs)
    assert pooled.seeds == [1] and notes == ["fume, seed 0 is left out: fold 1 of it is not scored."]
    nothing, notes = scored.pool(runs, folds=4)
    assert nothing == [] and len(notes) == 2 and "seed 1 is left out: fold 3" in notes[1]


def test_a_seed_of_other_data_is_left_out_and_told(folds):
    write_run(folds / "fume-fold_1-seed_1", [2, 2, 3, 3], [1, 1, 1, 1], digest="other")
    (pooled,), notes = pool(folds)
    assert pooled.seeds == [0] and notes == [
        "fume, seed 1 is left out: it was scored on other examples than the first seed."
    ]


def test_a_model_without_classes_has_scores_of_plumes_alone(tmp_path):
    write_run(tmp_path / "masks-seed_0", [0, 1], [1, 1], classes=False)
    (pooled,), _ = pool(tmp_path)
    assert list(pooled.by_group) == ["co2_confusion", "co2_distances"] and not len(pooled.recordings_right)
    assert {row["metric"] for row in cv_scores.score_rows(pooled) if row["metric"] in scored.SHOWN} == {
        "iou_gas",
        "mean_iou",
        "mean_dice",
        "pixel_accuracy",
    }


def test_out_of_fold_examples_are_one_table(folds):
    (pooled,), _ = pool(folds)
    cv_scores.write_examples(folds / "all.csv", folds, [pooled])
    lines = (folds / "all.csv").read_text().splitlines()
    assert lines[0].startswith("run,fold,seed,example_index,recording_index,label,prediction,Healthy")
    assert len(lines) == 1 + 24
    assert sum(line.startswith("fume,2,1,") for line in lines) == 4


def test_a_damaged_table_of_examples_is_named(folds):
    (folds / "fume-fold_1-seed_1" / "examples" / "test.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"fume-fold_1-seed_1/examples/test\.csv is damaged"):
        pool(folds)
