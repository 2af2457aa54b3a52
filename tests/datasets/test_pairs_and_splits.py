"""Real recordings: every frame in one pair, every original in one split, whatever the order of the files."""

import collections
import dataclasses
import itertools
import random

import pytest

from datasets.fume_ogi.annotations import Frame, Row
from datasets.fume_ogi.fume_ogi import _numbered
from datasets.fume_ogi.pairing import PAIRINGS, pair
from datasets.fume_ogi.splits import by_group, fold, shared_groups
from fume_jax.runtime.errors import UserError
from fume_jax.schema import PH_CLASS, SPLITS

at_random, by_id = PAIRINGS["random"], PAIRINGS["id"]
# Number of originals of each pH level and gas.
ORIGINALS = {
    (6.5, "co2"): 7,
    (6.5, "ch4"): 4,
    (6.2, "co2"): 2,
    (6.2, "ch4"): 5,
    (5.9, "co2"): 4,
    (5.6, "co2"): 20,
    (5.6, "ch4"): 9,
}
COPIES = 3


def row(gas, original, copy=0, ph=5.6, label=None):
    frame = Frame(gas, f"{gas}_{original}_{copy}.png", f"{gas}_{original}_{copy}_mask.png", str(original), str(copy))
    return Row(f"{original} {copy}", ph, PH_CLASS[ph] if label is None else label, (frame,))


def recordings():
    numbers = itertools.count()
    return [
        row(gas, original, copy, ph)
        for (ph, gas), count in ORIGINALS.items()
        for original in itertools.islice(numbers, count)
        for copy in range(COPIES)
    ]


def frames(rows):
    return [frame for row in rows for frame in row.frames]


def originals(rows):
    return {frame.original for frame in frames(rows)}


@pytest.mark.parametrize("strategy", PAIRINGS)
@pytest.mark.parametrize("seed", range(3))
def test_every_frame_is_in_exactly_one_pair(strategy, seed):
    pairs = pair(recordings(), PAIRINGS[strategy], seed)
    assert sorted(frames(pairs)) == sorted(frames(recordings()))
    for row in pairs:
        assert [frame.gas for frame in row.frames] in (["co2", "ch4"], ["co2"], ["ch4"])


def test_random_pairs_are_of_one_ph_and_class_and_as_many_as_can_be():
    rows = recordings() + [row("ch4", 900, copy, 6.5, label=2) for copy in range(2)]
    of = {row.frames[0]: (row.ph, row.label) for row in rows}
    pairs = pair(rows, at_random, seed=0)
    counts = collections.Counter()
    for joined in pairs:
        assert {of[frame] for frame in joined.frames} == {(joined.ph, joined.label)}
        counts[joined.ph, len(joined.frames)] += 1
    # The smaller count of the two gases, and what is left of the larger, by hand.
    assert counts == {
        (6.5, 2): 12,
        (6.5, 1): 9 + 2,
        (6.2, 2): 6,
        (6.2, 1): 9,
        (5.9, 1): 12,
        (5.6, 2): 27,
        (5.6, 1): 33,
    }


def test_random_pairs_mix_originals_and_depend_on_the_seed_alone():
    rows = recordings()
    pairs = pair(rows, at_random, seed=0)
    assert pair(random.Random(0).sample(rows, len(rows)), at_random, seed=0) == pairs
    assert pair(rows, at_random, seed=1) != pairs
    partners = collections.defaultdict(set)
    for joined in pairs:
        if len(joined.frames) == 2:
            partners[joined.frames[0].original].add(joined.frames[1].original)
    assert max(map(len, partners.values())) == COPIES


def test_pairs_by_id_are_the_same_copy_of_the_same_original():
    rows = [row("co2", 1, 0), row("co2", 1, 1), row("ch4", 1, 1), row("ch4", 2, 0), row("ch4", 1, 0, ph=5.3)]
    joined = {tuple(f"{f.gas}_{f.original}_{f.augmentation}" for f in p.frames) for p in pair(rows, by_id, seed=0)}
    # pH 5.3 is another recording, whatever its number.
    assert joined == {("co2_1_1", "ch4_1_1"), ("co2_1_0",), ("ch4_2_0",), ("ch4_1_0",)}


@pytest.mark.parametrize("seed", range(3))
def test_no_original_nor_any_copy_of_it_is_in_two_splits(seed):
    split = by_group(recordings(), "original", seed)
    assert sorted(frames(itertools.chain(*split.values()))) == sorted(frames(recordings()))
    for a, b in itertools.combinations(SPLITS, 2):
        assert not originals(split[a]) & originals(split[b])
    assert shared_groups(split, "original") == (0, sum(ORIGINALS.values()))


@pytest.mark.parametrize("seed", range(3))
def test_every_class_is_split_by_the_shares_and_everywhere(seed):
    split = by_group(recordings(), "original", seed)
    counts = {name: collections.Counter(r.label for r in rows) for name, rows in split.items()}
    totals = collections.Counter(r.label for r in recordings())
    for name, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        for label, total in totals.items():
            assert counts[name][label] >= COPIES
            assert abs(counts[name][label] - share * total) <= COPIES
    # Both gases, where there are enough of them.
    assert all({"co2", "ch4"} <= {f.gas for f in frames(rows)} for rows in split.values())


def test_three_originals_of_a_rare_class_give_one_to_each_split():
    rare = [row("co2", 100 + i, copy, 5.9) for i in range(3) for copy in range(COPIES)]
    split = by_group([r for r in recordings() if r.ph != 5.9] + rare, "original", seed=0)
    assert [len(originals(r for r in rows if r.label == 1)) for rows in split.values()] == [1, 1, 1]


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    rows = recordings()
    shuffled = random.Random(0).sample(rows, len(rows))
    split = by_group(rows, "original", seed=0)
    assert {k: originals(v) for k, v in by_group(shuffled, "original", seed=0).items()} == {
        k: originals(v) for k, v in split.items()
    }
    assert originals(by_group(rows, "original", seed=1)["test"]) != originals(split["test"])


def test_folds_test_every_original_once_and_never_train_on_it():
    rows, folds, tested, validated = recordings(), 5, [], []
    for number in range(folds):
        split = fold(rows, "original", number, folds, seed=0)
        assert shared_groups(split, "original")[0] == 0
        assert sum(map(len, split.values())) == len(rows)
        assert abs(len(split["test"]) - len(rows) / folds) <= 3 * COPIES
        tested += frames(split["test"])
        validated += frames(split["val"])
    assert sorted(tested) == sorted(validated) == sorted(frames(rows))


@pytest.mark.parametrize("number, folds", [(0, 2), (5, 5), (-1, 5)])
def test_a_fold_that_cannot_be_is_refused(number, folds):
    with pytest.raises(UserError, match=f"Fold {number} of {folds}: expected at least 3"):
        fold(recordings(), "original", number, folds, seed=0)


def test_shared_originals_are_counted():
    rows = {
        "train": [row("co2", 1), row("co2", 2), row("ch4", 2, 1)],
        "val": [row("co2", 2, 3)],
        "test": [row("co2", 4)],
    }
    assert shared_groups(rows, "original") == (1, 3)


def joined(*rows):
    return Row("", rows[0].ph, rows[0].label, tuple(row.frames[0] for row in rows))


def without_ids(joined):
    return dataclasses.replace(joined, frames=tuple(dataclasses.replace(f, original="") for f in joined.frames))


def groups_of(pairs):
    """The number of each pair's group by its frames."""
    return {row.frames: group for rows in _numbered(pairs, "original").values() for row, group, _ in rows}


def test_pairs_that_share_an_original_even_through_others_are_of_one_group():
    pairs = {
        "train": [
            joined(row("co2", 7), row("ch4", 2)),
            joined(row("co2", 1), row("ch4", 5)),
            joined(row("co2", 7, 1), row("ch4", 3)),
            joined(row("co2", 4), row("ch4", 3, 1)),  # tied to the first through 3 and 7
            row("ch4", 5, 1),
        ],
        "test": [joined(row("co2", 6), row("ch4", 6)), row("co2", 4, 1)],
    }
    numbers = {split: [number[1:] for number in numbered] for split, numbered in _numbered(pairs, "original").items()}
    # Groups by their first original: {1, 5}, {2, 3, 4, 7}, {6}; then the place in the group.
    assert numbers == {"train": [(1, 0), (0, 0), (1, 1), (1, 2), (0, 1)], "test": [(2, 0), (1, 3)]}


@pytest.mark.parametrize("strategy", PAIRINGS)
def test_groups_share_no_original_and_none_can_be_divided(strategy):
    pairs = {split: pair(rows, PAIRINGS[strategy], 0) for split, rows in by_group(recordings(), "original", 0).items()}
    members = collections.defaultdict(list)
    for tied, group in groups_of(pairs).items():
        members[group].append({frame.original for frame in tied})
    assert sorted(itertools.chain(*(set.union(*m) for m in members.values()))) == sorted(originals(recordings()))
    for own in members.values():
        reached = set(own[0])
        for _ in own:  # as many steps as the longest chain could have
            reached.update(*(tied for tied in own if tied & reached))
        assert reached == set.union(*own)


def test_pairs_by_id_leave_every_original_a_group_of_its_own():
    assert len(set(groups_of({"train": pair(recordings(), by_id, 0)}).values())) == sum(ORIGINALS.values())


def test_numbers_of_groups_do_not_depend_on_the_order_of_pairs():
    pairs = pair(recordings(), at_random, seed=0)
    shuffled = random.Random(0).sample(pairs, len(pairs))
    assert groups_of({"train": shuffled}) == groups_of({"train": pairs})
    assert groups_of({"val": shuffled[:50], "train": shuffled[50:]}) == groups_of({"train": pairs})


def test_without_ids_every_frame_is_an_original_of_its_own():
    pairs = [joined(row("co2", 1), row("ch4", 1)), joined(row("co2", 1, 1), row("ch4", 2)), row("ch4", 2, 1)]
    assert len(set(groups_of({"train": pairs}).values())) == 1
    assert len(set(groups_of({"train": [without_ids(row) for row in pairs]}).values())) == 3
    again = without_ids(joined(row("co2", 3), row("ch4", 2)))  # the CH4 frame of the second pair, used twice
    assert len(set(groups_of({"train": [*map(without_ids, pairs), again]}).values())) == 3
