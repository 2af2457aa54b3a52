"""Formats tables of metrics for the console."""

import math
from collections.abc import Iterable, Mapping, Sequence

from fume_jax.learning.metrics import HEADLINES, KEPT_METRICS, RECORDING_METRICS
from fume_jax.schema import GASES

Scores = Mapping[str, float]


def metrics_table(scores: Mapping[str, Scores], intervals: Mapping[str, Mapping[str, tuple]]) -> str:
    """Formats the headline metrics, those of what is kept and of recordings, with intervals; a column a split."""
    of_recordings = (f"recording/{name}" for name in (*RECORDING_METRICS, *KEPT_METRICS))
    known = (*HEADLINES, *KEPT_METRICS, "false_gas", *of_recordings)
    names = [name for name in known if any(name in values for values in scores.values())]
    columns = [["", *names]]
    for split, values in scores.items():
        cells = [_with_interval(values.get(name, math.nan), intervals[split].get(name)) for name in names]
        columns.append([split, *cells])
    return aligned(zip(*columns, strict=True))


def epoch_table(scores: Scores) -> str:
    """Formats the main scores of one evaluation: segmentation of each gas and pooled; classes of pairs, recordings."""
    rows = []
    if "mean_iou" in scores:
        names = ("iou_gas", "iou_tube", "mean_iou", "mean_dice", "pixel_accuracy")
        rows.append(("", *names))
        for prefix, label in (*((f"{gas}/", gas.upper()) for gas in GASES), ("", "pooled")):
            if f"{prefix}mean_iou" in scores:
                rows.append((label, *(_number(scores[prefix + name]) for name in names)))
    if "accuracy" in scores:
        names = ("accuracy", "balanced_accuracy", "macro_f1", "Transitional_f1", "cohens_kappa")
        rows.append(("", *names))
        rows.append(("pH state", *(_number(scores[name]) for name in names)))
    if "recording/accuracy" in scores:
        rows.append(("of recordings", *(_number(scores[f"recording/{name}"]) for name in names[:-1]), ""))
    return aligned(rows)


def _with_interval(value, interval):
    if interval is None or math.isnan(interval[0]):
        return _number(value)
    return f"{_number(value)} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _number(value):
    return "absent" if math.isnan(value) else f"{value:.3f}"


def aligned(rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Aligns the first `words` columns of a table to the left, and the others, numbers, to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
