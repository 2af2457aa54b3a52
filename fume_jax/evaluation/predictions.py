"""Reads what any program predicted on the splits of a dataset: masks as PNG files, and a table of classes.

Masks lie in the folder or in `masks/` there. They are named for their frame, such as `test_00012_co2.png`, see
`fume_jax.data.cases`, and have the values of `MASK_CLASSES`. `predictions.csv` has a row for each pair: `frame`, its
name, such as `test_00012`; `class`; and in a column for each class its probability, or none of these columns. Both are
what `fume predict` writes of exported frames.
"""

import collections
import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fume_jax.data.cases import Case, parse_case
from fume_jax.data.dataset import Dataset
from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.images import read_pixels
from fume_jax.data.table import as_number, read_table
from fume_jax.data.transforms import resize_mask
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, GASES, MASK_CLASSES

MASKS, TABLE, PAGE = "masks", "predictions.csv", "docs/evaluation.md"
EXPECTED = (
    "expected masks such as test_00012_co2.png, in it or in its folder masks, or predictions.csv with the columns "
    "frame (such as test_00012) and class, or both"
)
# The class that a missing one counts as: the farthest from the true one.
FARTHEST = (2, 2, 0)
# Probabilities of a pair may miss a sum of 1 by this, as rounded ones do.
SUM_TOLERANCE = 0.01
# The most places that a line about faults names.
SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of some splits, all of which can be read.

    Attributes:
      gases: the gases of which there are masks, in the order of `GASES`.
      classes: class of every pair by split, int32 [N]; empty if pairs are not classified.
      probabilities: those of the classes by split, float32 [N, 3]; empty if there are none.
      notes: what was left out, resized or is counted for something missing, for the user.
      missing: number of masks and of classes that are missing, which `allow_missing` lets be.
    """

    gases: Sequence[str]
    classes: Mapping[str, np.ndarray]
    probabilities: Mapping[str, np.ndarray]
    notes: Sequence[str]
    missing: Mapping[str, int]
    _masks: Mapping[Case, Path]

    def mask(self, case: Case, height: int, width: int) -> np.ndarray:
        """Returns the mask of a frame, uint8 [height, width], all background if it is missing."""
        path = self._masks.get(case)
        return np.zeros((height, width), np.uint8) if path is None else resize_mask(read_mask(path), height, width)


def read_mask(path: Path) -> np.ndarray:
    """Reads a predicted mask, uint8 [H, W] of `MASK_CLASSES`: grey levels, indices of a palette, or equal channels.

    Raises UnreadableFrame if it is damaged, no PNG file or in colour, or has other values.
    """
    pixels = read_pixels(path)
    values = pixels.values
    if pixels.format != "PNG":
        raise UnreadableFrame(f"is a {pixels.format} file by its content")
    if values.ndim == 3:
        colors = values[..., :-1] if values.shape[2] in (2, 4) else values  # without alpha
        if (colors != colors[..., :1]).any():
            raise UnreadableFrame("is in colour")
        values = colors[..., 0]
    if values.max() >= len(MASK_CLASSES) or values.min() < 0:
        found = np.unique(values)
        other = [f"{value:g}" for value in found if not 0 <= value < len(MASK_CLASSES)]
        raise UnreadableFrame(f"holds {', '.join(other[:SHOWN])}{', ...' * (len(other) > SHOWN)}")
    return values.astype(np.uint8)


def read_predictions(
    folder: Path, dataset: Dataset, splits: Sequence[str], size: tuple[int, int], *, allow_missing: bool = False
) -> Predictions:
    """Finds the predictions of some splits in a folder, and reads each of them once, to be scored at a size.

    Args:
      folder, dataset, splits: where predictions are, and what they are of.
      size: height and width that masks are scored at; others are resized by `resize_mask`, which a note counts.
      allow_missing: a frame without a mask counts as all background, a pair without a class as that of `FARTHEST`.

    Raises:
      UserError: if there are none, or with a line for each kind of fault, its number and the first places.
    """
    faults, notes = _Findings(), _Findings()
    frames, labels = _truth(dataset, splits)
    masks = _find_masks(folder, frames, splits, faults, notes)
    gases = [gas for gas in GASES if any(case.gas == gas for case in masks)]
    classes, probabilities, unclassified = _read_classes(folder, labels, faults, notes)
    if not gases and not classes and not faults:
        found = "".join(f"\n{line}" for line in notes.lines())
        raise UserError(f"{folder} holds no prediction of {' or '.join(splits)}; {EXPECTED}. {PAGE} has more.{found}")
    unsegmented = [case for case in frames if case.gas in gases and case not in masks]
    _check_masks(masks, size, faults, notes)
    for kind, cases in (("mask", unsegmented), ("class", unclassified)):
        substitute = {"mask": "all background", "class": "the class farthest from the true one"}[kind]
        for case in cases:
            if allow_missing:
                notes.add(f"predictions lack a {kind}, and count as {substitute}", case.name)
            else:
                faults.add(f"predictions lack a {kind}; --allow_missing counts them as {substitute}", case.name)
    if faults:
        found = "\n".join(faults.lines() + notes.lines())
        raise UserError(f"The predictions in {folder} cannot be scored:\n{found}")
    for gas in GASES if gases else ():
        if gas not in gases:
            notes.say(f"there is no mask of {gas.upper()}, which is not scored")
    missing = {"masks": len(unsegmented), "classes": len(unclassified)}
    return Predictions(gases, classes, probabilities, notes.lines(), missing, masks)


class _Findings:
    """Collects findings of a kind by their places, to be told with their number and the first places."""

    def __init__(self):
        self._places = collections.defaultdict(list)

    def add(self, kind: str, place: str) -> None:
        self._places[kind].append(place)

    def say(self, text: str) -> None:
        self._places[text] = []

    def lines(self) -> list[str]:
        return [self._line(kind, places) for kind, places in self._places.items()]

    def _line(self, kind, places):
        shown = ", ".join(places[:SHOWN]) + ", ..." * (len(places) > SHOWN)
        return f"{len(places):,} {kind}: {shown}" if places else kind

    def __bool__(self):
        return bool(self._places)


def _truth(dataset, splits):
    """Returns all frames of some splits in order, keys of a dict, and the class of every pair by split, int [N]."""
    frames, labels = {}, {}
    for split in splits:
        labels[split] = []
        for index, example in enumerate(dataset.without_pixels(split)):
            labels[split].append(example["label"])
            present = zip(GASES, example["modality_mask"], strict=True)
            frames |= {Case(split, index, gas): None for gas, there in present if there}
    return frames, labels


def _find_masks(folder, frames, splits, faults, notes):
    """Returns the files of masks by frame."""
    masks = {}
    paths = [path for place in (folder, folder / MASKS) if place.is_dir() for path in place.iterdir()]
    for path in sorted(path for path in paths if path.suffix.lower() == ".png" and path.is_file()):
        case, place = parse_case(path.stem), path.relative_to(folder).as_posix()
        if case is not None and case.split not in splits:
            notes.add(f"masks of {case.split}, which is not scored", place)
        elif case not in frames:
            notes.add("PNG files that are of no frame, left out", place)
        elif case in masks:
            faults.add("masks are of a frame that has another one", f"{place} ({masks[case].relative_to(folder)})")
        else:
            masks[case] = path
    return masks


def _check_masks(masks, size, faults, notes):
    """Reads every mask, and notes which are unusable and which are of another size."""

    def check(path):
        try:
            return read_mask(path).shape, ""
        except UnreadableFrame as error:
            return None, str(error)

    height, width = size
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, (found, fault) in zip(masks.values(), pool.map(check, masks.values()), strict=True):
            if fault:
                values = ", ".join(f"{value} {name}" for value, name in enumerate(MASK_CLASSES))
                faults.add(f"masks are unusable (expected PNG files of {values})", f"{path.name} ({fault})")
            elif found != size:
                resized = f"masks of {found[1]}x{found[0]} are resized to {width}x{height} by majority vote"
                notes.add(resized, path.name)


def _read_classes(folder, labels, faults, notes):
    """Returns classes and probabilities by split, and the pairs that have no row, whose class is `FARTHEST`."""
    path = folder / TABLE
    if not path.is_file():
        return {}, {}, []
    table = read_table(path, (("frame", "class"), ("frame",)), PAGE)
    columns = next((line.cells for line in table.lines if not line.fault), {})
    given = [name for name in CLASSES if name.lower() in columns]
    has_probabilities = len(given) == len(CLASSES)
    if given and not has_probabilities:
        expected = f"expected a column for each of {', '.join(CLASSES)}, or none"
        faults.say(f"{TABLE} has probabilities of {' and '.join(given)} alone; {expected}")
    rows = _rows(table.lines, labels, has_probabilities, faults, notes) if "class" in table.form else {}
    if not rows:
        notes.say(f"{TABLE} holds no class of {' or '.join(labels)}, so that classes are not scored")
        return {}, {}, []
    classes, probabilities, missing = {}, {}, []
    for split, own in labels.items():
        cases = [Case(split, index) for index in range(len(own))]
        missing += [case for case in cases if case not in rows]
        found = [rows.get(case, (FARTHEST[label], None)) for case, label in zip(cases, own, strict=True)]
        classes[split] = np.array([class_ for class_, _ in found], np.int32)
        if has_probabilities:
            certain = np.eye(len(CLASSES))
            values = [certain[class_] if shares is None else shares for class_, shares in found]
            probabilities[split] = np.array(values, np.float32)
    return classes, probabilities, missing


def _rows(lines, labels, has_probabilities, faults, notes):
    """Returns class and probabilities, or None, by pair; a row at fault has the class 0."""
    rows = {}
    for line in lines:
        place = f"row {line.number}"
        if line.fault:
            faults.add(f"rows of {TABLE} cannot be read", f"{place} ({line.fault})")
            continue
        name, text = line.cells["frame"], line.cells["class"]
        case = parse_case(name)
        if case is None or case.gas or (case.split in labels and case.index >= len(labels[case.split])):
            notes.add(f"rows of {TABLE} are of no pair, left out", f"{place} ({name})")
        elif case.split not in labels:
            notes.add(f"rows of {TABLE} are of {case.split}, which is not scored", place)
        elif case in rows:
            faults.add(f"rows of {TABLE} are of a pair that has another one", f"{place} ({name})")
        elif text:
            rows[case] = _row(line.cells, has_probabilities, place, faults)
    return rows


def _row(cells, has_probabilities, place, faults):
    by_name = {name.lower(): index for index, name in enumerate(CLASSES)}
    class_ = by_name.get(cells["class"].lower())
    if class_ is None:
        faults.add(f"classes are unknown (expected {', '.join(CLASSES)})", f"{place} ({cells['class']})")
    if not has_probabilities or class_ is None:
        return class_ or 0, None
    shares = np.array([as_number(cells[name]) for name in by_name])
    if not ((shares >= 0) & (shares <= 1)).all() or abs(shares.sum() - 1) > SUM_TOLERANCE:
        faults.add("pairs have probabilities that are not three numbers with a sum of 1", place)
    elif shares[class_] < shares.max():
        faults.add("pairs have a class that is not the most probable one", f"{place} ({cells['class']})")
    return class_, shares
