"""Tables of metrics as they are printed."""

import math

from fume_jax.evaluation.tables import epoch_table, metrics_table


def test_the_table_has_a_column_a_split_and_intervals_where_there_are_any():
    scores = {"val": {"iou_gas": 0.5, "accuracy": math.nan}, "test": {"iou_gas": 0.25}}
    intervals = {"val": {"iou_gas": (0.4, 0.6), "accuracy": (math.nan, math.nan)}, "test": {}}
    assert metrics_table(scores, intervals).splitlines() == [
        "                           val    test",
        "iou_gas   0.500 [0.400, 0.600]   0.250",
        "accuracy                absent  absent",
    ]


def test_scores_of_recordings_come_last_in_the_table():
    scores = {"test": {"recording/macro_f1": 0.5, "recording/count": 9, "accuracy": 0.25}}
    assert metrics_table(scores, {"test": {"recording/macro_f1": (0.25, 0.75)}}).splitlines() == [
        "                                    test",
        "accuracy                           0.250",
        "recording/macro_f1  0.500 [0.250, 0.750]",
    ]


def test_an_epoch_is_shown_by_pairs_and_by_recordings():
    names = ("accuracy", "balanced_accuracy", "macro_f1", "Transitional_f1", "cohens_kappa")
    scores = dict.fromkeys(names, 0.5)
    pairs = [list(names), ["pH", "state", *["0.500"] * 5]]
    assert [line.split() for line in epoch_table(scores).splitlines()] == pairs
    scores |= dict.fromkeys((f"recording/{name}" for name in names[:-1]), 0.75) | {"recording/count": 9}
    lines = [line.split() for line in epoch_table(scores).splitlines()]
    assert lines == [*pairs, ["of", "recordings", *["0.750"] * 4]]


def test_an_epoch_is_shown_by_gas_and_pooled():
    names = ("iou_gas", "iou_tube", "mean_iou", "mean_dice", "pixel_accuracy")
    scores = {f"{prefix}{name}": value for prefix, value in (("co2/", 0.1), ("ch4/", 0.3), ("", 0.2)) for name in names}
    lines = epoch_table(scores | {"co2/iou_tube": math.nan}).splitlines()
    assert [line.split() for line in lines] == [
        list(names),
        ["CO2", "0.100", "absent", "0.100", "0.100", "0.100"],
        ["CH4", *["0.300"] * 5],
        ["pooled", *["0.200"] * 5],
    ]
