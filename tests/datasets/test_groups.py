"""Frames of one recording or subject: in one split, of one number, and what is told if the ids do not say enough."""

import collections
import csv
import dataclasses
import itertools
import random

import pytest

from datasets.fume_ogi.annotations import SINGLE_COLUMNS, Frame, Row, read_annotations, write_pairs
from datasets.fume_ogi.fume_ogi import _numbered
from datasets.fume_ogi.groups import choose_level, group_faults, group_of, group_warnings
from datasets.fume_ogi.pairing import PAIRINGS, pair
from datasets.fume_ogi.plan import FaultyRecordings, Options, make_plan
from datasets.fume_ogi.splits import by_group, fold, shared_groups
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GASES, PH_CLASS, SPLITS
from tests.datasets import recordings

LEVELS = ("original", "recording", "subject")
PHS = tuple(PH_CLASS)


def row(gas, original, recording="", subject="", ph=5.6, copy=0):
    name = f"{gas}_{original}_{copy}"
    ids = {"recording": str(recording), "subject": str(subject)}
    frame = Frame(gas, f"{name}.png", f"{name}_mask.png", str(original), str(copy), **ids)
    return Row(f"row {name}", ph, PH_CLASS[ph], (frame,))


def herd(subjects, films=3, seed=0, phs=PHS):
    """Subjects of as many films each, of a pH each and two originals each."""
    rng, rows, number = random.Random(seed), [], itertools.count()
    for subject in range(subjects):
        for film in range(films):
            ph = rng.choice(phs)
            for _ in range(2):
                original = next(number)
                rows += [row(gas, original, f"{subject}-{film}", subject, ph) for gas in GASES]
    return rows


def groups(rows, level):
    return {group_of(frame, level) for row in rows for frame in row.frames}


@pytest.mark.parametrize("level", LEVELS)
def test_no_group_is_in_two_splits_and_the_shares_are_kept_whatever_the_seed(level):
    rows = herd(60)
    counts = collections.Counter()
    for seed in range(200):
        split = by_group(rows, level, seed)
        assert shared_groups(split, level) == (0, len(groups(rows, level)))
        assert sorted(row.place for own in split.values() for row in own) == sorted(row.place for row in rows)
        for name, own in split.items():
            assert {row.label for row in own} == {0, 1, 2}, f"every class is in {name}"
            counts[name] += len(groups(own, level)) / len(groups(rows, level)) / 200
    assert [counts[name] for name in SPLITS] == pytest.approx([0.7, 0.15, 0.15], abs=0.03)


def test_a_split_by_hand():
    """Of five subjects, each of all classes, one validates and one tests; the classes do not pull them apart."""
    rows = [row("co2", f"{s}{ph}", s, s, ph) for s in "abcde" for ph in (6.5, 5.9, 5.3)]
    for seed in range(20):
        split = by_group(rows, "subject", seed)
        assert [len(groups(own, "subject")) for own in split.values()] == [3, 1, 1]
        assert [len(own) for own in split.values()] == [9, 3, 3]
    assert len({frozenset(groups(by_group(rows, "subject", seed)["test"], "subject")) for seed in range(20)}) == 5


def test_a_rare_class_within_subjects_of_others_is_in_every_split():
    letters = "abcdefghijklmnopqrst"
    rows = [row("co2", f"{s}{ph}", s, s, ph) for s, ph in zip(letters, itertools.cycle((6.5, 5.3)), strict=False)]
    # The rare class is in subjects of Healthy, of Acidotic, and of both.
    rows += [row("co2", f"{s} rare", s, s, 5.9) for s in "abc"] + [row("co2", "c too", "c", "c", 5.6)]
    for seed in range(50):
        split = by_group(rows, "subject", seed)
        assert [sum(row.label == 1 for row in own) for own in split.values()] == [1, 1, 1]
        assert [len(groups(own, "subject")) for own in split.values()] == pytest.approx([14, 3, 3], abs=1)


def test_folds_by_subject_test_each_once_and_a_split_does_not_depend_on_the_order_of_rows():
    rows, tested = herd(20), []
    for number in range(5):
        split = fold(rows, "subject", number, 5, seed=1)
        assert shared_groups(split, "subject")[0] == 0
        tested += groups(split["test"], "subject")
    assert sorted(tested) == sorted(groups(rows, "subject"))
    shuffled = random.Random(0).sample(rows, len(rows))
    for level in LEVELS:
        split, again = by_group(rows, level, 3), by_group(shuffled, level, 3)
        assert {k: groups(v, level) for k, v in split.items()} == {k: groups(v, level) for k, v in again.items()}


def joined(*rows):
    return Row("", rows[0].ph, rows[0].label, tuple(row.frames[0] for row in rows))


def test_pairs_are_numbered_by_the_groups_that_they_tie():
    pairs = {
        "train": [
            joined(row("co2", 1, "A", "x"), row("ch4", 1, "A", "x")),
            row("co2", 2, "A", "x"),
            row("co2", 3, "B", "x"),
            joined(row("co2", 4, "C", "y"), row("ch4", 5, "D", "z")),
        ],
        "test": [row("co2", 6, "E", "w"), row("ch4", 7, "D", "z")],
    }

    def numbers(level):
        return [number[1:] for own in _numbered(pairs, level).values() for number in own]

    # Originals {1}, {2}, {3}, {4, 5}, {6}, {7}; recordings {A}, {B}, {C, D}, {E}; subjects w, x, {y, z}.
    assert numbers("original") == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]
    assert numbers("recording") == [(0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (2, 1)]
    assert numbers("subject") == [(1, 0), (1, 1), (1, 2), (2, 0), (0, 0), (2, 1)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("strategy", PAIRINGS)
def test_no_number_is_in_two_splits(level, strategy):
    for seed in range(20):
        pairs = {
            s: pair(own, PAIRINGS[strategy], seed) for s, own in by_group(herd(12, seed=seed), level, seed).items()
        }
        found = [{number for _, number, _ in own} for own in _numbered(pairs, level).values()]
        assert not any(a & b for a, b in itertools.combinations(found, 2))


# --- which level, and what is told ---


def without(rows, column, count):
    """The rows, of which so many lack an id."""
    blank = [dataclasses.replace(r, frames=(dataclasses.replace(r.frames[0], **{column: ""}),)) for r in rows[:count]]
    return {"": blank + rows[count:]}


def test_the_coarsest_ids_that_every_row_has_group_unless_another_level_is_asked_for():
    rows = herd(3)
    assert choose_level({"": rows}) == "subject"
    assert choose_level({"": rows}, "original") == "original"
    assert choose_level(without(rows, "subject", 1)) == "recording"
    assert choose_level({"": without(rows, "subject", 1)[""][:1] + without(rows, "recording", 9)[""]}) == "original"


def test_ids_of_a_part_of_the_rows_are_told_and_a_fault_if_asked_for():
    part = without(herd(3), "subject", 2)
    (warning,) = group_warnings(part, "")
    assert warning.kind == "partly_grouped" and warning.place == "row co2_0_0"
    assert "subject_id is empty for 2 of 36 frames" in warning.message
    assert group_faults(part, "") == []
    faults = group_faults(part, "subject")
    assert [(fault.kind, fault.place) for fault in faults] == [("group", "row co2_0_0"), ("group", "row ch4_0_0")]
    assert "subject_id of co2_0_0.png is empty, by which --group_by=subject groups; fill it in" in faults[0].message
    assert group_warnings(part, "subject") == []


def test_originals_alone_are_a_warning_unless_the_user_says_that_they_are_recordings():
    rows = {"": [row("co2", number) for number in range(3)]}
    (warning,) = group_warnings(rows, "")
    assert warning.kind == "no_recording" and "fill in recording_id" in warning.message
    assert group_warnings(rows, "original") == [] and group_warnings({"": rows[""][:1]}, "") == []
    assert group_warnings({"": herd(2)}, "") == []


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (("5", "A", "x"), ("5", "B", "x"), "the original 5 is of the recording B, but of A in row co2_5_0"),
        (("5", "A", "x"), ("6", "A", "y"), "the recording A is of the subject y, but of x in row co2_5_0"),
        (("5", "", "x"), ("5", "", "y"), "the original 5 is of the subject y, but of x in row co2_5_0"),
    ],
)
def test_a_part_of_two_wholes_is_a_fault(first, second, words):
    faults = group_faults({"train": [row("co2", *first)], "val": [row("ch4", *second)]}, "")
    assert [fault.kind for fault in faults] == ["group"] and faults[0].message == words


# --- tables ---


def add(table, **columns):
    """Adds columns to the table of the small recordings, functions of the number of the row."""

    def change(number, cells):
        cells |= {column: value(number) for column, value in columns.items()}

    recordings.rewrite(table, change)
    return Options(str(table))


def test_ids_are_read_written_with_pairs_and_read_again(tmp_path):
    options = add(
        recordings.write(tmp_path),
        recording_id=lambda number: f"{number // 2}.0",
        subject_id=lambda number: f"cow {number // 2}",
        label_source=lambda number: ("", "Person", "prediction")[number % 3],
    )
    plan = make_plan(tmp_path, options)
    assert plan.group_by == "subject" and plan.warnings == []
    assert plan.label_sources == {"person": 12, "prediction": 6}
    write_pairs(tmp_path / "pairs.csv", plan.pairs["train"])
    header = (tmp_path / "pairs.csv").read_text().split("\n")[0]
    assert header.count("_recording_id") == header.count("_subject_id") == header.count("_label_source") == 2
    read = read_annotations(str(tmp_path / "pairs.csv"), tmp_path)
    assert [row.frames for row in read.rows[""]] == [row.frames for row in plan.pairs["train"]]
    assert {frame.recording for row in read.rows[""] for frame in row.frames} <= {str(i) for i in range(9)}


def test_columns_that_nobody_uses_are_not_written(tmp_path):
    write_pairs(tmp_path / "pairs.csv", [row("co2", 1)])
    header = (tmp_path / "pairs.csv").read_text()
    assert "recording" not in header and "subject" not in header and "label_source" not in header
    assert "co2_original_sample_id" in header


def test_who_made_a_mask_is_a_person_or_a_prediction(tmp_path):
    options = add(recordings.write(tmp_path), label_source=lambda number: "model" if number == 3 else "")
    (fault,) = read_annotations(options.annotations, tmp_path).faults
    assert fault.kind == "label_source" and fault.place.endswith("row 5")
    assert fault.message == "label_source is 'model'; expected person or prediction"


def test_too_few_subjects_are_told_with_their_number_and_the_way_out(tmp_path):
    options = add(
        recordings.write(tmp_path),
        recording_id=lambda number: str(number // 2),
        subject_id=lambda number: f"cow {number // 2 % 2}",
    )
    with pytest.raises(FaultyRecordings) as caught:
        make_plan(tmp_path, options)
    faults = [fault for fault in caught.value.faults if fault.kind == "empty_class"]
    assert [fault.place for fault in faults] == ["split test"] * 3
    assert "there are subjects: 2 of Healthy, 2 of Transitional, 2 of Acidotic" in faults[0].message
    divide = "or divide by --group_by=recording or --group_by=original, by which frames of one subject get into several"
    assert f"each part of a split needs one: add subjects, {divide} splits" in faults[0].message
    plan = make_plan(tmp_path, dataclasses.replace(options, group_by="recording"))
    assert [len(plan.pairs[split]) for split in SPLITS] == [3, 3, 3]
    allowed = dataclasses.replace(options, allow=("empty_class", "no_gas"))
    with pytest.raises(UserError, match="No row is left for test; with few subjects"):
        make_plan(tmp_path, allowed)


@pytest.mark.parametrize(
    "split, classes, divide",
    [
        ("original", 3, ", or divide by --group_by=original, by which frames of one recording get into several splits"),
        ("0/4", 3, ""),  # three originals of a class do not fill four parts
        ("original", 1, ""),
    ],
)
def test_a_finer_level_is_named_only_if_it_has_enough_of_each_class(tmp_path, split, classes, divide):
    """Each class is one recording; originals of a recording with one class alone would leak for nothing."""
    options = add(recordings.write(tmp_path), recording_id=lambda number: str(number // 6))
    if classes == 1:
        change = {"ph_value": "5.9", "class_id": "1", "class_name": "Transitional"}
        recordings.rewrite(tmp_path / "all.csv", lambda _, cells: cells.update(change))
    with pytest.raises(FaultyRecordings) as caught:
        make_plan(tmp_path, dataclasses.replace(options, split=split))
    fault = next(fault for fault in caught.value.faults if fault.kind == "empty_class")
    found = "1 of Healthy, 1 of Transitional, 1 of Acidotic" if classes == 3 else "0 of Healthy, 3 of Transitional"
    assert found in fault.message
    assert f"add recordings{divide}" in fault.message and ("--group_by" in fault.message) == bool(divide)
    assert fault.message.endswith("A model of masks alone needs no classes, see docs/labels.md")


def test_the_level_is_a_part_of_what_is_stored(tmp_path):
    options = add(recordings.write(tmp_path), recording_id=lambda number: str(number // 2))
    plans = [make_plan(tmp_path, dataclasses.replace(options, group_by=level)) for level in ("", "original")]
    assert [plan.group_by for plan in plans] == ["recording", "original"]
    assert plans[0].fingerprint(24, 32) != plans[1].fingerprint(24, 32)


def test_a_published_split_leaks_by_recording_although_no_original_is_shared(tmp_path):
    table = recordings.write(tmp_path)
    add(table, recording_id=lambda number: str(number // 6))
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for part, split in enumerate(SPLITS):
        with (tmp_path / f"{split}_annotations.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row for number, row in enumerate(rows) if number // 2 % 3 == part)
    plan = make_plan(tmp_path, Options(split="published"))
    assert "The splits leak: 3 of 3 recordings are in more than one" in plan.leak
    assert make_plan(tmp_path, Options(split="published", group_by="original")).leak == ""
    assert set(SINGLE_COLUMNS) < set(rows[0])
