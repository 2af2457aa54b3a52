"""Which CO2 frame goes with which CH4 frame. Pure, and always within one split: a pair ties its originals together."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from datasets.fume_ogi.annotations import Row
from fume_jax.schema import GASES


def at_random(row: Row) -> tuple:
    """Frames of equal pH and class pair at random, as in the published dataset."""
    return row.ph, row.label


def by_id(row: Row) -> tuple:
    """Only copies of the same number of the same original pair: one moment, filmed through both filters."""
    frame = row.frames[0]
    return row.ph, row.label, frame.original, frame.augmentation


PAIRINGS: dict[str, Callable[[Row], tuple]] = {"random": at_random, "id": by_id}


def pair(rows: Sequence[Row], key: Callable[[Row], tuple], seed: int) -> list[Row]:
    """Joins single-gas rows of equal `key` into pairs, at random; what is left over of a gas stays single.

    Every row is used exactly once. The result does not depend on the order of `rows`.
    """
    rng = np.random.default_rng([seed, 1])
    groups = defaultdict(lambda: {gas: [] for gas in GASES})
    for row in sorted(rows, key=lambda row: row.frames):
        groups[key(row)][row.frames[0].gas].append(row)
    pairs = []
    for _, by_gas in sorted(groups.items()):
        shuffled = [[rows[i] for i in rng.permutation(len(rows))] for rows in by_gas.values()]
        for both in itertools.zip_longest(*shuffled):
            pairs.append(_join([row for row in both if row is not None]))
    # In no order, so that the first batch of a split shows more than one recording.
    return [pairs[i] for i in rng.permutation(len(pairs))]


def _join(rows):
    place = " and ".join(row.place for row in rows)
    return Row(place, rows[0].ph, rows[0].label, tuple(frame for row in rows for frame in row.frames))
