"""Pairs of CO2 and CH4 frames, within one split: a pair ties its two originals together."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from datasets.fume_ogi.annotations import Row
from fume_jax.schema import GASES

# Values that the frames of a pair have in common. "random" pairs frames of equal pH and class, as in the published
# dataset. "id" pairs copies of the same number of the same original: one moment, filmed through both filters.
PAIRINGS: dict[str, Callable[[Row], tuple]] = {
    "random": lambda row: (row.ph, row.label),
    "id": lambda row: (row.ph, row.label, row.frames[0].original, row.frames[0].augmentation),
}


def pair(rows: Sequence[Row], key: Callable[[Row], tuple], seed: int) -> list[Row]:
    """Pairs single-gas rows of equal `key` at random; rows without a partner stay single.

    Every row is used exactly once. The order of `rows` does not matter.
    """
    rng = np.random.default_rng([seed, 1])
    groups = defaultdict(lambda: {gas: [] for gas in GASES})
    for row in sorted(rows, key=lambda row: row.frames):
        groups[key(row)][row.frames[0].gas].append(row)
    pairs = []
    for _, by_gas in sorted(groups.items()):
        shuffled = [[rows[i] for i in rng.permutation(len(rows))] for rows in by_gas.values()]
        for both in itertools.zip_longest(*shuffled):
            members = [row for row in both if row is not None]
            place = " and ".join(row.place for row in members)
            pairs.append(Row(place, members[0].ph, members[0].label, tuple(row.frames[0] for row in members)))
    # Shuffled, so that the first batch of a split shows more than one recording.
    return [pairs[i] for i in rng.permutation(len(pairs))]
