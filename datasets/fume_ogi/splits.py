"""Splits of annotated rows into train, val and test; an original and its copies stay together."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from datasets.apportion import divide
from datasets.fume_ogi.annotations import Row, frames
from fume_jax.runtime.errors import UserError
from fume_jax.schema import SPLITS


def by_original(rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """Splits the originals of every class 70/15/15. The order of `rows` does not matter."""
    part = _part_of_originals(rows, (0.7, 0.15, 0.15), seed)
    return {split: [row for row in rows if part[_original(row)] == i] for i, split in enumerate(SPLITS)}


def fold(rows: Sequence[Row], number: int, folds: int, seed: int) -> dict[str, list[Row]]:
    """Splits for cross-validation by original: fold `number` tests, the next one validates, the others train.

    Raises UserError if there are fewer than three folds, or none of that number.
    """
    if folds < 3 or not 0 <= number < folds:
        raise UserError(f"Fold {number} of {folds}: expected at least 3 folds, and one of 0 to {max(3, folds) - 1}.")
    part = _part_of_originals(rows, (1 / folds,) * folds, seed)
    roles = {number: "test", (number + 1) % folds: "val"}
    return {split: [row for row in rows if roles.get(part[_original(row)], "train") == split] for split in SPLITS}


def shared_originals(rows: dict[str, Sequence[Row]]) -> tuple[int, int]:
    """Counts the originals that are in more than one split, and all originals."""
    splits = defaultdict(set)
    for split, _, frame in frames(rows):
        splits[frame.original].add(split)
    return sum(len(found) > 1 for found in splits.values()), len(splits)


def _original(row):
    return row.frames[0].original


def _part_of_originals(rows, shares, seed):
    """Returns the part of each original; every class, and in it every gas and pH, is divided by the shares."""
    gases, first = defaultdict(set), {}
    for row in sorted(rows, key=lambda row: row.frames):
        gases[_original(row)].add(row.frames[0].gas)
        first.setdefault(_original(row), row)
    by_class = defaultdict(list)
    for original, row in sorted(first.items()):
        by_class[row.label].append(original)
    part = {}
    for label, originals in by_class.items():
        rng = np.random.default_rng([seed, label, 2])  # the split of a class does not depend on other classes
        shuffled = [originals[i] for i in rng.permutation(len(originals))]
        # A stable sort keeps the shuffled order among those of equal gases and pH.
        ordered = sorted(shuffled, key=lambda original: (sorted(gases[original]), first[original].ph))
        part |= dict(zip(ordered, divide(len(ordered), shares, one_each=True), strict=True))
    return part
