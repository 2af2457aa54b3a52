"""Folds: whole recordings, evenly spread, and splits that share none of them."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import demo
from fume_jax.config import open_dataset
from fume_jax.data.dataset import Dataset
from fume_jax.data.folds import (
    FoldedDataset,
    check_folds,
    cut_folds,
    missing_classes,
    read_folds,
    stored_values,
    write_folds,
)
from fume_jax.runtime.errors import UserError
from fume_jax.schema import SPLITS
from tests.data.test_dataset import EXAMPLES, prepare

# The folds of the recordings of `small`, of which each is in all of its splits.
FOLD_OF = {0: 0, 1: 1, 2: 2, 3: 0, 4: 2, 5: 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset that leaks: every split has the recordings 0 to 5, of the classes 0, 1, 2, 0, 1, 2."""
    return str(prepare(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def small(folder):
    return Dataset(folder)


# Examples of recordings: the recording and the class of each.
EXAMPLE = st.tuples(st.integers(0, 30), st.integers(0, 2))


@settings(deadline=None, max_examples=30)
@given(st.lists(EXAMPLE, min_size=10, max_size=200), st.integers(3, 6), st.integers(0, 5), st.randoms())
def test_every_recording_has_one_fold_and_no_fold_is_empty(examples, count, seed, random):
    recordings, labels = np.array(examples).T
    if len(set(recordings.tolist())) < count:
        with pytest.raises(UserError, match=f"too few for {count} folds"):
            cut_folds(recordings, labels, count, seed)
        return
    fold_of = cut_folds(recordings, labels, count, seed)
    check_folds(fold_of, recordings, "x")
    assert set(fold_of) == set(recordings.tolist())
    assert set(fold_of.values()) == set(range(count))
    random.shuffle(examples)
    assert cut_folds(*np.array(examples).T, count, seed) == fold_of, "whatever the order"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=6, max_size=60), st.integers(3, 6), st.integers(1, 4))
def test_recordings_of_one_size_and_class_differ_by_one_in_number(classes, count, size):
    recordings, labels = np.arange(len(classes)).repeat(size), np.array(classes).repeat(size)
    folds = np.array(list(cut_folds(recordings, labels, count, 0).values()))
    for label in set(classes):
        numbers = np.bincount(folds[np.array(classes) == label], minlength=count)
        assert np.ptp(numbers) <= 1


def test_recordings_of_several_sizes_and_classes_are_spread_as_evenly_as_they_can():
    # By hand: 8, 5 and 4 + 1 pairs of class 0; recordings of both classes go where neither is.
    sizes = {0: (0, 8), 1: (0, 5), 2: (0, 4), 3: (0, 1), 4: (2, 3), 5: (2, 3)}
    recordings = np.concatenate([[recording] * size for recording, (_, size) in sizes.items()] + [[6, 6]])
    labels = np.concatenate([[label] * size for label, size in sizes.values()] + [[1, 2]])
    fold_of = cut_folds(recordings, labels, 3, 0)
    assert fold_of[2] == fold_of[3], "of class 0 the folds have 8, 5 and 5"
    assert len({fold_of[0], fold_of[1], fold_of[2]}) == 3
    assert len({fold_of[4], fold_of[5], fold_of[6]}) == 3, "of class 2 the folds have 3, 3 and 1"


def test_another_seed_gives_other_folds_and_the_same_seed_the_same():
    recordings, labels = np.arange(60), np.arange(60) % 3
    assert cut_folds(recordings, labels, 5, 1) == cut_folds(recordings, labels, 5, 1)
    assert cut_folds(recordings, labels, 5, 1) != cut_folds(recordings, labels, 5, 2)


def test_two_folds_are_too_few():
    with pytest.raises(UserError, match="The number of folds is 2; expected at least 3, to test, validate and train"):
        cut_folds(np.arange(9), np.zeros(9, int), 2, 0)


def test_no_recording_is_in_two_splits_of_a_fold_and_every_example_is_tested_once(small):
    tested = []
    for fold in range(4):
        folded = FoldedDataset(small, FOLD_OF, fold)
        assert folded.splits == list(SPLITS) and folded.leak == "" and folded.bounds == {}
        examples = {split: list(folded.split(split)) for split in SPLITS}
        recordings = {split: {int(e["recording_index"]) for e in found} for split, found in examples.items()}
        assert recordings["test"] == {r for r, own in FOLD_OF.items() if own == fold}
        assert recordings["val"] == {r for r, own in FOLD_OF.items() if own == (fold + 1) % 4}
        assert not recordings["train"] & (recordings["val"] | recordings["test"])
        assert sum(map(len, examples.values())) == 3 * EXAMPLES
        for split, found in examples.items():
            assert folded.labels(split).tolist() == [example["label"] for example in found]
        tested += examples["test"]
    stored = [example for split in SPLITS for example in small.split(split)]
    pixels = [sorted(example["co2_frame"].tobytes() for example in found) for found in (tested, stored)]
    assert pixels[0] == pixels[1]


def test_examples_of_a_fold_are_read_in_other_processes_too_and_end(small):
    source = FoldedDataset(small, FOLD_OF, 1).split("test")
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_equal(list(again), list(source))
    assert len(source) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError):
            source[index]


def test_the_digest_and_the_name_are_those_of_the_fold(small):
    folded = [FoldedDataset(small, FOLD_OF, fold) for fold in (0, 1)]
    assert len({small.digest, *(found.digest for found in folded)}) == 3
    assert FoldedDataset(small, dict(reversed(FOLD_OF.items())), 0).digest == folded[0].digest
    assert folded[1].name == f"{small.name}, fold 1 of 4"


@pytest.mark.parametrize(
    ("fold_of", "fold", "words"),
    [
        (FOLD_OF, 4, "config.data.fold is 4; expected one of 0 to 3, the 4 folds"),
        ({0: 0, 1: 1, 2: 2}, 0, r"3 recordings have no fold \(3, 4, 5\)"),
        (FOLD_OF | {9: 0}, 0, r"1 recordings are not in the dataset \(9\)"),
        (dict.fromkeys(range(3), 0) | dict.fromkeys(range(3, 6), 1), 0, "The folds are 0, 1; expected 0, 1, 2"),
        (FOLD_OF | {5: 4}, 0, "The folds are 0, 1, 2, 4; expected 0, 1, 2 and so on"),
    ],
)
def test_folds_that_do_not_fit_are_refused(fold_of, fold, words, small):
    with pytest.raises(UserError, match=words):
        FoldedDataset(small, fold_of, fold)


def test_a_split_that_a_fold_has_not_is_named(small):
    with pytest.raises(UserError, match="no split 'tests'; it has train, val, test"):
        FoldedDataset(small, FOLD_OF, 0).split("tests")


def test_classes_that_a_fold_lacks_are_told(small):
    values = stored_values(small)
    assert len(values["label"]) == 3 * EXAMPLES
    expected = {
        0: ["Transitional", "Acidotic"],
        1: ["Healthy", "Acidotic"],
        2: ["Healthy"],
        3: ["Healthy", "Transitional"],
    }
    assert missing_classes(FOLD_OF, values["recording_index"], values["label"]) == expected


def test_a_table_of_folds_comes_back_and_may_have_a_row_an_example(tmp_path):
    write_folds(tmp_path / "folds.csv", FOLD_OF)
    assert (tmp_path / "folds.csv").read_text().splitlines()[:3] == ["recording_index,fold", "0,0", "1,1"]
    assert read_folds(tmp_path / "folds.csv") == FOLD_OF
    (tmp_path / "other.csv").write_text("name;Fold;recording index\na;1;7.0\nb;1;7\nc;0;3\n")
    assert read_folds(tmp_path / "other.csv") == {7: 1, 3: 0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recording_index,fold\n7,1\n7,2\n", "line 3: recording 7 is in fold 2 here and in fold 1 above"),
        ("recording_index,fold\n7,first\n", "line 2: expected whole numbers from 0 on"),
        ("recording_index,fold\n7,-1\n", "line 2: expected whole numbers from 0 on"),
        ("recording_index,fold\n7,1.5\n", "line 2: expected whole numbers from 0 on"),
        ("recording,fold\n7,1\n", "lacks the column recording_index"),
        (None, "There is no file .*folds.csv; expected a table of folds"),
    ],
)
def test_a_table_that_is_none_of_folds_is_refused(text, words, tmp_path):
    if text is not None:
        (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read_folds(tmp_path / "folds.csv")


def test_a_config_opens_the_dataset_or_its_fold(folder, tmp_path):
    write_folds(tmp_path / "folds.csv", FOLD_OF)
    config = demo.get_config()
    config.data.path = folder
    assert len(open_dataset(config).split("test")) == EXAMPLES
    config.data.folds, config.data.fold = str(tmp_path / "folds.csv"), 2
    assert open_dataset(config).labels("test").tolist() == [2, 1] * 3
