"""What a command shows while it works: progress bars on a terminal, plain lines elsewhere, tables of metrics."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence

import jax
from tqdm import tqdm

from fume_jax.metrics import HEADLINES
from fume_jax.vocabulary import GASES

Scores = Mapping[str, float]


class Console:
    """The output of the first process; the others are silent, and so is a `quiet` one but for warnings."""

    def __init__(self, *, quiet: bool = False):
        self._first = jax.process_index() == 0
        self._quiet = quiet
        self.bars = self._first and not quiet and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Prints lines above the bars."""
        if not self._quiet:
            self.tell(text)

    def tell(self, text: str) -> None:
        """Prints lines that must not be missed."""
        if self._first:
            tqdm.write(text)
            sys.stdout.flush()

    def warn(self, text: str) -> None:
        """Prints a warning."""
        self.tell(f"WARNING: {text}")

    def bar(self, *, total: int, unit: str, desc: str | None = None, initial: int = 0) -> tqdm:
        """A progress bar, which shows nothing unless on a terminal."""
        return tqdm(total=total, initial=initial, unit=unit, desc=desc, disable=not self.bars, mininterval=0.2)

    def over(self, items: Iterable, *, total: int, unit: str, desc: str) -> Iterable:
        """The same items, with a bar that goes when they end."""
        return tqdm(items, total=total, unit=unit, desc=desc, disable=not self.bars, leave=False, mininterval=0.2)


def metrics_table(scores: Mapping[str, Scores], intervals: Mapping[str, Mapping[str, tuple]]) -> str:
    """A table of the headline metrics with a column for each split, from what `intervals` and `scores` say by split."""
    names = [name for name in HEADLINES if any(name in values for values in scores.values())]
    columns = [["", *names]]
    for split, values in scores.items():
        cells = [_with_interval(values.get(name, math.nan), intervals[split].get(name)) for name in names]
        columns.append([split, *cells])
    return aligned(zip(*columns, strict=True))


def epoch_table(scores: Scores) -> str:
    """What one evaluation says at a glance: segmentation of each gas and both, and classification."""
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
    return aligned(rows)


def _with_interval(value, interval):
    if interval is None or math.isnan(interval[0]):
        return _number(value)
    return f"{_number(value)} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _number(value):
    return "absent" if math.isnan(value) else f"{value:.3f}"


def aligned(rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Lines of a table: so many columns of words to the left, the others, numbers, to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
