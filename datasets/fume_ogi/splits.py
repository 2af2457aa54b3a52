"""Which rows train, which validate and which test. Pure: an original and its copies stay together."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from datasets.fume_ogi.annotations import Row
from fume_jax.runtime.errors import UserError
from fume_jax.schema import SPLITS

SHARES = (0.7, 0.15, 0.15)


def by_original(rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """70/15/15 of the originals of every class. The result does not depend on the order of `rows`."""
    part = _deal(rows, SHARES, seed)
    return {split: [row for row in rows if part[_original(row)] == i] for i, split in enumerate(SPLITS)}


def fold(rows: Sequence[Row], number: int, folds: int, seed: int) -> dict[str, list[Row]]:
    """One turn of cross-validation over originals: fold `number` tests, the next validates, the others train.

    Raises:
      UserError: if there is no such fold, or fewer than three.
    """
    if folds < 3 or not 0 <= number < folds:
        raise UserError(f"Fold {number} of {folds}: expected at least 3 folds, and one of 0 to {max(3, folds) - 1}.")
    part = _deal(rows, (1 / folds,) * folds, seed)
    roles = {number: "test", (number + 1) % folds: "val"}
    return {split: [row for row in rows if roles.get(part[_original(row)], "train") == split] for split in SPLITS}


def shared_originals(rows: dict[str, Sequence[Row]]) -> tuple[int, int]:
    """How many originals are in more than one split, and how many there are."""
    splits = defaultdict(set)
    for split, own in rows.items():
        for row in own:
            for frame in row.frames:
                splits[frame.original].add(split)
    return sum(len(found) > 1 for found in splits.values()), len(splits)


def _original(row):
    return row.frames[0].original


def _deal(rows, shares, seed):
    """The part that each original falls to. Each class, and in it gases and pH, are dealt out by the shares."""
    gases, first = defaultdict(set), {}
    for row in sorted(rows, key=lambda row: row.frames):
        gases[_original(row)].add(row.frames[0].gas)
        first.setdefault(_original(row), row)
    by_class = defaultdict(list)
    for original, row in sorted(first.items()):
        by_class[row.label].append(original)
    part = {}
    for label, originals in by_class.items():
        rng = np.random.default_rng([seed, label, 2])  # what falls to a class does not depend on the others
        shuffled = [originals[i] for i in rng.permutation(len(originals))]
        # A stable sort keeps the shuffled order among those of equal gases and pH.
        stretch = sorted(shuffled, key=lambda original: (sorted(gases[original]), first[original].ph))
        part |= dict(zip(stretch, _in_turns(len(stretch), shares), strict=True))
    return part


def _in_turns(count, shares):
    """Parts of `count` things in a row: each stretch by the shares, and no part without one where there are enough."""
    dealt, parts = np.zeros(len(shares)), []
    for i in range(1, count + 1):
        # The first of a class go to every part in turn, so that a rare class is everywhere.
        behind = np.array(shares) * i - dealt if i > len(shares) else (dealt == 0).astype(float)
        parts.append(int(np.argmax(behind)))
        dealt[parts[-1]] += 1
    return parts
