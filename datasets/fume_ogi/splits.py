"""Splits of annotated rows into train, val and test; a group of frames stays together, see `groups`."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from datasets.apportion import divide
from datasets.fume_ogi.annotations import Row, frames
from datasets.fume_ogi.groups import group_of
from fume_jax.runtime.errors import UserError
from fume_jax.schema import SPLITS


def by_group(rows: Sequence[Row], level: str, seed: int) -> dict[str, list[Row]]:
    """Splits the groups of every class 70/15/15. The order of `rows` does not matter."""
    part = _part_of_groups(rows, level, (0.7, 0.15, 0.15), seed)
    return {split: [row for row in rows if part[_group(row, level)] == i] for i, split in enumerate(SPLITS)}


def fold(rows: Sequence[Row], level: str, number: int, folds: int, seed: int) -> dict[str, list[Row]]:
    """Splits for cross-validation by group: fold `number` tests, the next one validates, the others train.

    Raises UserError if there are fewer than three folds, or none of that number.
    """
    if folds < 3 or not 0 <= number < folds:
        raise UserError(f"Fold {number} of {folds}: expected at least 3 folds, and one of 0 to {max(3, folds) - 1}.")
    part = _part_of_groups(rows, level, (1 / folds,) * folds, seed)
    roles = {number: "test", (number + 1) % folds: "val"}
    return {split: [row for row in rows if roles.get(part[_group(row, level)], "train") == split] for split in SPLITS}


def shared_groups(rows: dict[str, Sequence[Row]], level: str) -> tuple[int, int]:
    """Counts the groups that are in more than one split, and all groups."""
    splits = defaultdict(set)
    for split, _, frame in frames(rows):
        splits[group_of(frame, level)].add(split)
    return sum(len(found) > 1 for found in splits.values()), len(splits)


def _group(row, level):
    return group_of(row.frames[0], level)


def _part_of_groups(rows, level, shares, seed):
    """Returns the part of each group; every class, and in it every gas and pH, is divided by the shares.

    A group of several classes goes where the rarest of them needs it, and the others take that into account (after
    Sechidis, Tsoumakas and Vlahavas 2011, doi:10.1007/978-3-642-23808-6_10).
    """
    members, by_class = defaultdict(list), defaultdict(set)
    for row in rows:
        members[_group(row, level)].append(row)
        by_class[row.label].add(_group(row, level))
    kind = {
        group: (sorted({row.frames[0].gas for row in own}), sorted({row.ph for row in own}))
        for group, own in members.items()
    }
    part = {}
    for label, groups in sorted(by_class.items(), key=lambda item: (len(item[1]), item[0])):
        rng = np.random.default_rng([seed, label, 2])  # the split of a class alone does not depend on other classes
        before = np.bincount([part[group] for group in groups if group in part], minlength=len(shares))
        free = sorted(groups - part.keys())
        shuffled = [free[i] for i in rng.permutation(len(free))]
        # A stable sort keeps the shuffled order among those of equal gases and pH.
        ordered = sorted(shuffled, key=kind.get)
        part |= dict(zip(ordered, divide(len(ordered), shares, one_each=True, before=before), strict=True))
    return part
