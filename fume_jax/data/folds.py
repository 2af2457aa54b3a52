"""Folds for cross-validation: a prepared dataset split anew by whole recordings, without writing it again."""

import bisect
import csv
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fume_jax.data.dataset import Dataset
from fume_jax.data.table import as_number, read_table
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replacing
from fume_jax.schema import CLASSES, SPLITS

COLUMNS = ("recording_index", "fold")
# One to test, one to validate, and at least one to train.
FEWEST = 3
_PAGE = "docs/evaluation.md"


class FoldedDataset:
    """The examples of all splits of a dataset, split anew: one fold tests, the next one validates, the others train.

    It has the attributes and methods of a `Dataset`. A recording, which is what shares a `recording_index`, has one
    fold, so no two splits have a part of it, whatever the splits of the dataset itself. It has no bounds, which are
    those of the dataset's own test split, and no leak.
    """

    def __init__(self, dataset: Dataset, fold_of: Mapping[int, int], fold: int):
        """`fold_of` gives the fold of every recording, `fold` is the one that tests; UserError if they do not fit."""
        values = stored_values(dataset)
        check_folds(fold_of, values["recording_index"], dataset.name)
        count = max(fold_of.values()) + 1
        if not 0 <= fold < count:
            raise UserError(f"config.data.fold is {fold}; expected one of 0 to {count - 1}, the {count} folds.")
        self.name = f"{dataset.name}, fold {fold} of {count}"
        self.splits, self.bounds, self.leak = list(SPLITS), {}, ""
        stored = [dataset.digest, sorted(fold_of.items()), fold]
        self.digest = hashlib.blake2b(json.dumps(stored).encode(), digest_size=16).hexdigest()
        roles = {fold: "test", (fold + 1) % count: "val"}
        role = np.array([roles.get(fold_of[recording], "train") for recording in values["recording_index"].tolist()])
        self._members = {split: np.flatnonzero(role == split) for split in SPLITS}
        self._labels, self._sources = values["label"], [dataset.split(name) for name in dataset.splits]

    def split(self, name: str) -> Sequence[dict]:
        """Returns random access to the examples of a split, pixels uint8; UserError if there is no such split."""
        return _Chosen(self._sources, self._indices(name))

    def labels(self, name: str) -> np.ndarray:
        """Returns the class of every example of a split, int [N]."""
        return self._labels[self._indices(name)]

    def _indices(self, name):
        if name not in self._members:
            raise UserError(f"A fold has no split {name!r}; it has {', '.join(SPLITS)}.")
        return self._members[name]


class _Chosen(Sequence):
    """Some examples of several sources, by their indices int [N] in all of them. Can be pickled."""

    def __init__(self, sources, indices):
        self._sources, self._indices = sources, indices
        self._ends = list(itertools.accumulate(map(len, sources), initial=0))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        chosen = int(self._indices[index])
        source = bisect.bisect_right(self._ends, chosen) - 1
        return self._sources[source][chosen - self._ends[source]]


def stored_values(dataset: Dataset) -> dict[str, np.ndarray]:
    """Returns `label` and `recording_index` of every example of a dataset, int [N], one split after the other."""
    found = [dataset.values(name, ("label", "recording_index")) for name in dataset.splits]
    return {key: np.concatenate([values[key] for values in found]) for key in found[0]}


def cut_folds(recordings: np.ndarray, labels: np.ndarray, count: int, seed: int) -> dict[int, int]:
    """Divides recordings among folds so that every class is spread as evenly as whole recordings allow.

    Recordings come in the order of their largest share of a class, those of equal shares in the order that the seed
    draws. Each goes to the fold in which its classes are rarest so far, of several to the one of the fewest examples:
    greedy, as scheduling by the longest processing time first (Graham 1969, doi:10.1137/0117039), for several classes
    at once.

    Args:
      recordings, labels: int [N], `recording_index` and class of every example.
      count, seed: number of folds; the same seed gives the same folds, whatever the order of the examples.

    Returns:
      The fold of every recording, from 0, by its index. No fold is empty.

    Raises:
      UserError: if there are fewer than three folds, or fewer recordings than folds.
    """
    names, member = np.unique(recordings, return_inverse=True)
    if count < FEWEST:
        raise UserError(f"The number of folds is {count}; expected at least {FEWEST}, to test, validate and train.")
    if len(names) < count:
        raise UserError(
            f"The dataset has {len(names)} independent groups of recordings, too few for {count} folds. Ask for fewer "
            "folds. Frames that are paired at random tie recordings together: prepare them with --pairing=id."
        )
    examples = np.zeros((len(names), len(CLASSES)))
    np.add.at(examples, (member, labels), 1)
    shares = examples / np.maximum(examples.sum(0), 1)
    drawn = np.random.default_rng(seed).permutation(len(names))
    order = drawn[np.argsort(-shares[drawn].max(1), kind="stable")]
    held, fold = np.zeros((count, len(CLASSES) + 1)), {}
    for group in order:
        # Held shares of its classes; rounded, so that equal ones are equal.
        crowding = np.round(held[:, :-1] @ shares[group], 12)
        chosen = np.lexsort((held[:, -1], crowding))[0]
        held[chosen] += [*shares[group], examples[group].sum()]
        fold[int(names[group])] = int(chosen)
    return dict(sorted(fold.items()))


def check_folds(fold_of: Mapping[int, int], recordings: np.ndarray, name: str) -> None:
    """Raises UserError unless the folds are at least three from 0 on, and those of the recordings of a dataset.

    `recordings` are the `recording_index` of its examples, int [N], and `name` is what it is called.
    """
    found, known = set(np.unique(recordings).tolist()), set(fold_of)
    for some, words in ((found - known, "have no fold"), (known - found, "are not in the dataset")):
        if some:
            listed = ", ".join(map(str, sorted(some)[:5])) + ", ..." * (len(some) > 5)
            raise UserError(f"The folds are not those of {name}: {len(some)} recordings {words} ({listed}).")
    folds = sorted(set(fold_of.values()))
    if len(folds) < FEWEST or folds != list(range(len(folds))):
        raise UserError(f"The folds are {', '.join(map(str, folds))}; expected 0, 1, 2 and so on, none left out.")


def missing_classes(fold_of: Mapping[int, int], recordings: np.ndarray, labels: np.ndarray) -> dict[int, list[str]]:
    """Returns by fold the classes of the dataset of which the fold has no example; only folds that lack one."""
    folds = np.array([fold_of[recording] for recording in recordings.tolist()])
    present = {fold: set(labels[folds == fold].tolist()) for fold in sorted(set(fold_of.values()))}
    every = sorted(set(labels.tolist()))
    missing = {fold: [CLASSES[label] for label in every if label not in own] for fold, own in present.items()}
    return {fold: names for fold, names in missing.items() if names}


def read_folds(path: str | Path) -> dict[int, int]:
    """Reads the fold of every recording from a table with the columns `COLUMNS`; further ones do not count.

    A recording may have several rows, such as one for each of its examples.

    Raises UserError if there is no such file, a cell is no whole number, or a recording has several folds.
    """
    path, folds = Path(path), {}
    if not path.is_file():
        raise UserError(f"There is no file {path}; expected a table of folds with the columns {', '.join(COLUMNS)}.")
    for line in read_table(path, [COLUMNS], _PAGE).lines:
        numbers = [as_number(line.cells.get(column, "")) for column in COLUMNS]
        if line.fault or not all(number.is_integer() and number >= 0 for number in numbers):
            reason = line.fault or f"expected whole numbers from 0 on in the columns {' and '.join(COLUMNS)}"
            raise UserError(f"{path}, line {line.number}: {reason}.")
        recording, fold = map(int, numbers)
        if folds.setdefault(recording, fold) != fold:
            reason = f"recording {recording} is in fold {fold} here and in fold {folds[recording]} above"
            raise UserError(f"{path}, line {line.number}: {reason}; the examples of a recording belong together.")
    return folds


def write_folds(path: str | Path, fold_of: Mapping[int, int]) -> None:
    """Writes the table that `read_folds` reads, a row for each recording."""
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *sorted(fold_of.items())])
