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
