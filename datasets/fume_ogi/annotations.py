"""The CSV files: what a row says, and what may be wrong with it before any image is opened.

Two forms, told apart by their header: a row for each frame of one gas, or a row for each pair.
"""

import csv
import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path

from datasets.fume_ogi.faults import Fault
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, GASES, PH_CLASS, SPLITS

SINGLE_COLUMNS = (
    "frame_path",
    "mask_path",
    "gas_type",
    "ph_value",
    "class_id",
    "class_name",
    "original_sample_id",
    "augmentation_id",
)
ID_COLUMNS = tuple(f"{gas}_{name}" for gas in GASES for name in ("original_sample_id", "augmentation_id"))
PAIRED_COLUMNS = (
    *(f"{gas}_{name}" for gas in GASES for name in ("frame", "mask")),
    "ph_value",
    "class_id",
    "class_name",
    "is_paired",
    "missing_modality",
)
# The folder that the published files were made in; paths may or may not start with it.
PREFIX = "mmseg_dataset/"


@dataclasses.dataclass(frozen=True, order=True)
class Frame:
    """One frame of one gas and its mask, paths relative to the source folder."""

    gas: str
    frame_path: str
    mask_path: str
    original: str  # the filmed frame that this is, or is an augmented copy of; empty if the file does not say
    augmentation: str  # which copy


@dataclasses.dataclass(frozen=True)
class Row:
    """A frame of one gas, or a pair: `frames` is in the order of GASES."""

    place: str  # file and row, for messages
    ph: float
    label: int
    frames: tuple[Frame, ...]


@dataclasses.dataclass(frozen=True)
class Annotations:
    """Rows without fault by the file's split, `""` for a file of all, and the faults and warnings of the others."""

    rows: dict[str, list[Row]]
    read: dict[str, int]  # rows of each file, faulty ones included
    paired: bool
    faults: list[Fault]
    warnings: list[Fault]

    @property
    def have_ids(self) -> bool:
        return all(frame.original for rows in self.rows.values() for row in rows for frame in row.frames)


def read_annotations(pattern: str) -> Annotations:
    """Reads `pattern` for each split, or the one file that it names if it holds no `{split}`.

    Raises:
      UserError: if there is no such file, or one lacks columns, or the files are of different forms.
    """
    names = {split: pattern.replace("{split}", split) for split in (SPLITS if "{split}" in pattern else ("",))}
    found = {split: Path(name) for split, name in names.items() if Path(name).is_file()}
    if not found:
        raise UserError(
            f"There is no annotation file {' or '.join(names.values())}. Name yours by --annotations=PATTERN, in which "
            "{split} stands for train, val and test; a single file for all needs no {split}."
        )
    tables = {split: _read_table(path) for split, path in found.items()}
    forms = {path: _is_paired(path, tables[split][0]) for split, path in found.items()}
    if len(set(forms.values())) > 1:
        listed = ", ".join(f"{path} has {'pairs' if paired else 'single frames'}" for path, paired in forms.items())
        raise UserError(f"Annotation files are of two forms: {listed}. Give those of one form by --annotations.")
    paired = next(iter(forms.values()))
    rows, faults, warnings, seen = {}, [], [], {}
    for split, path in found.items():
        rows[split] = []
        for number, line in tables[split][1]:
            place = f"{path} row {number}"
            row, wrong, doubtful = _parse(place, line, _paired_frames if paired else _single_frame)
            if not wrong:
                paths = tuple(frame.frame_path for frame in row.frames)
                if paths in seen:
                    wrong = [Fault("duplicate_row", place, f"{' and '.join(paths)} as in {seen[paths]}")]
                seen.setdefault(paths, place)
            faults += wrong
            warnings += doubtful
            if not wrong:
                rows[split].append(row)
    read = {str(path): len(tables[split][1]) for split, path in found.items()}
    return Annotations(rows, read, paired, faults, warnings)


def write_pairs(path: Path, rows: list[Row]) -> None:
    """Writes pairs as `read_annotations` reads them, with the ids of both originals."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*PAIRED_COLUMNS, *ID_COLUMNS), restval="")
        writer.writeheader()
        for row in rows:
            absent = set(GASES) - {frame.gas for frame in row.frames}
            line = {"ph_value": row.ph, "class_id": row.label, "class_name": CLASSES[row.label]}
            line |= {"is_paired": not absent, "missing_modality": "".join(absent)}
            for frame in row.frames:
                line |= {f"{frame.gas}_frame": frame.frame_path, f"{frame.gas}_mask": frame.mask_path}
                line[f"{frame.gas}_original_sample_id"] = frame.original
                line[f"{frame.gas}_augmentation_id"] = frame.augmentation
            writer.writerow(line)


def _read_table(path):
    """Column names and numbered lines of a CSV file; row 1 is the header, as in a spreadsheet."""
    try:
        # With or without the byte order mark that spreadsheets write.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            lines = [(reader.line_num, line) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    return list(reader.fieldnames or ()), lines


def _is_paired(path, columns):
    lacks = {form: [c for c in form if c not in columns] for form in (SINGLE_COLUMNS, PAIRED_COLUMNS)}
    for form, lacking in lacks.items():
        if not lacking:
            return form is PAIRED_COLUMNS
    if len(columns) == 1 and ";" in columns[0]:
        raise UserError(f"{path} is separated by semicolons; save it separated by commas, with points in numbers.")
    nearest = min(lacks.values(), key=len)
    raise UserError(
        f"{path} lacks the column{'s' * (len(nearest) > 1)} {', '.join(nearest)}; it has "
        f"{', '.join(columns) or 'none'}. See datasets/fume_ogi/README.md for the columns of each form."
    )


def _parse(place, line, frames_of: Callable):
    """The row that a line holds (None if it has faults), its faults and its warnings."""
    line = {key: (value or "").strip() for key, value in line.items() if isinstance(value, str)}
    frames, messages = frames_of(line)
    faults = [Fault(kind, place, message) for kind, message in messages]
    try:
        ph = float(line["ph_value"])
    except ValueError:
        ph = math.nan
    if not 0 <= ph <= 14:
        faults.append(Fault("ph", place, f"ph_value is {line['ph_value']!r}; expected 0 to 14, such as 5.9"))
    known = [str(label) for label in range(len(CLASSES))]
    if line["class_id"] not in known:
        faults.append(Fault("class", place, f"class_id is {line['class_id']!r}; expected one of {', '.join(known)}"))
    elif line["class_name"].lower() != CLASSES[int(line["class_id"])].lower():
        expected = f"class_id {line['class_id']} is {CLASSES[int(line['class_id'])]}"
        faults.append(Fault("class", place, f"class_name is {line['class_name']!r}, but {expected}"))
    if faults:
        return None, faults, []
    row = Row(place, ph, int(line["class_id"]), frames)
    usual = PH_CLASS.get(ph, row.label)
    if usual == row.label:
        return row, [], []
    message = f"pH {ph} is {CLASSES[usual]}, class_id says {CLASSES[row.label]}, which is kept"
    return row, [], [Fault("class_against_ph", place, message)]


def _single_frame(line):
    gas = line["gas_type"].lower()
    if gas not in GASES:
        return (), [("gas", f"gas_type is {line['gas_type']!r}; expected one of {', '.join(GASES)}")]
    original, augmentation = line["original_sample_id"], line["augmentation_id"]
    frames, messages = _frame(gas, line["frame_path"], line["mask_path"], original, augmentation)
    return frames, messages + [("original", "original_sample_id is empty")] * (not original)


def _paired_frames(line):
    frames, messages = (), []
    present = [gas for gas in GASES if line[f"{gas}_frame"]]
    if not present:
        return (), [("gas", "names no frame of either gas")]
    absent = "".join(set(GASES) - set(present))
    missing, paired = line["missing_modality"].lower(), line["is_paired"].lower()
    if missing != absent:
        messages.append(("gas", f"missing_modality is {missing!r}, but {absent or 'no'} frame is missing"))
    if (paired in ("true", "1", "1.0")) == bool(absent):
        messages.append(("gas", f"is_paired is {line['is_paired']!r}, but {absent or 'no'} frame is missing"))
    for gas in present:
        ids = (line.get(f"{gas}_original_sample_id", ""), line.get(f"{gas}_augmentation_id", ""))
        found, wrong = _frame(gas, line[f"{gas}_frame"], line[f"{gas}_mask"], *ids)
        frames, messages = frames + found, messages + wrong
    return frames, messages


def _frame(gas, frame_path, mask_path, original, augmentation):
    unnamed = [word for word, path in (("frame", frame_path), ("mask", mask_path)) if not path]
    messages = [("missing_file", f"names no {gas} {word}") for word in unnamed]
    return (Frame(gas, _relative(frame_path), _relative(mask_path), _id(original), _id(augmentation)),), messages


def _id(text):
    """Numbers alike however they are written: spreadsheets turn 7 into 7.0, and 007 into 7."""
    return str(int(text.split(".")[0])) if re.fullmatch(r"\d+(\.0*)?", text) else text


def _relative(path):
    return path.replace("\\", "/").removeprefix("./").removeprefix(PREFIX)
