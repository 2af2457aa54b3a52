"""CSV annotation files: reads their rows and checks them before any image is opened.

The header tells two forms apart: single files have a row for each frame of one gas, paired files a row for each pair.
"""

import csv
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from datasets.fume_ogi.faults import Fault
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, GASES, PH_CLASS, SPLITS

_LABELS, _IDS = ("ph_value", "class_id", "class_name"), ("original_sample_id", "augmentation_id")
SINGLE_COLUMNS = ("frame_path", "mask_path", "gas_type", *_LABELS, *_IDS)
_FRAMES = tuple(f"{gas}_{kind}" for gas in GASES for kind in ("frame", "mask"))
PAIRED_COLUMNS = (*_FRAMES, *_LABELS, "is_paired", "missing_modality")
ID_COLUMNS = tuple(f"{gas}_{name}" for gas in GASES for name in _IDS)


@dataclasses.dataclass(frozen=True, order=True)
class Frame:
    """A frame of one gas and its mask; paths are relative to the source folder."""

    gas: str
    frame_path: str
    mask_path: str
    original: str  # id of the filmed frame that this one is, or is an augmented copy of; empty if unknown
    augmentation: str  # number of the copy


@dataclasses.dataclass(frozen=True)
class Row:
    """A frame of one gas, or a pair; `frames` is in the order of GASES."""

    place: str  # file and row number, for messages
    ph: float
    label: int
    frames: tuple[Frame, ...]


@dataclasses.dataclass(frozen=True)
class Annotations:
    """Contents of the annotation files, and their faults."""

    rows: dict[str, list[Row]]  # rows without fault by the split of their file, "" for a file of all splits
    read: dict[str, int]  # number of rows of each file, faulty ones included
    paired: bool
    faults: list[Fault]
    warnings: list[Fault]

    @property
    def have_ids(self) -> bool:
        return all(frame.original for _, _, frame in frames(self.rows))


def frames(rows_by_split: dict[str, Iterable[Row]]) -> Iterator[tuple[str, Row, Frame]]:
    """Yields every frame with its split and its row."""
    return ((split, row, frame) for split, rows in rows_by_split.items() for row in rows for frame in row.frames)


def read_annotations(pattern: str) -> Annotations:
    """Reads the file of each split that `pattern` names, or a single file if `pattern` holds no `{split}`.

    Raises UserError if there is no such file, a file lacks columns, or the files are of different forms.
    """
    names = {split: pattern.replace("{split}", split) for split in (SPLITS if "{split}" in pattern else ("",))}
    found = {split: Path(name) for split, name in names.items() if Path(name).is_file()}
    if not found:
        raise UserError(
            f"There is no annotation file {' or '.join(names.values())}. Name yours by --annotations=PATTERN, in which "
            "{split} stands for train, val and test; a single file for all needs no {split}."
        )
    tables = {path: _read_table(path) for path in found.values()}
    if len({paired for paired, _ in tables.values()}) > 1:
        forms = ", ".join(f"{path} has {'pairs' if pairs else 'single frames'}" for path, (pairs, _) in tables.items())
        raise UserError(f"Annotation files are of two forms: {forms}. Give those of one form by --annotations.")
    rows, faults, warnings, seen = {}, [], [], {}
    for split, path in found.items():
        rows[split] = []
        paired, lines = tables[path]
        for number, line in lines:
            place = f"{path} row {number}"
            row, row_faults, row_warnings = _parse(place, line, _paired_frames if paired else _single_frame)
            if row:
                paths = tuple(frame.frame_path for frame in row.frames)
                if paths in seen:
                    row_faults = [Fault("duplicate_row", place, f"{' and '.join(paths)} as in {seen[paths]}")]
                else:
                    seen[paths] = place
                    rows[split].append(row)
            faults += row_faults
            warnings += row_warnings
    return Annotations(rows, {str(path): len(lines) for path, (_, lines) in tables.items()}, paired, faults, warnings)


def write_pairs(path: Path, rows: list[Row]) -> None:
    """Writes a paired file, which `read_annotations` reads, with the ids of both originals."""
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
    """Returns whether a CSV file has pairs, and its numbered lines; row 1 is the header, as in a spreadsheet."""
    try:
        # Spreadsheets write a byte order mark, which utf-8-sig skips.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            lines = [(reader.line_num, line) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    columns = list(reader.fieldnames or ())
    missing = {form: [c for c in form if c not in columns] for form in (SINGLE_COLUMNS, PAIRED_COLUMNS)}
    for form, lacking in missing.items():
        if not lacking:
            return form is PAIRED_COLUMNS, lines
    if len(columns) == 1 and ";" in columns[0]:
        raise UserError(f"{path} is separated by semicolons; save it separated by commas, with points in numbers.")
    nearest = min(missing.values(), key=len)
    raise UserError(
        f"{path} lacks the column{'s' * (len(nearest) > 1)} {', '.join(nearest)}; it has "
        f"{', '.join(columns) or 'none'}. See datasets/fume_ogi/README.md for the columns of each form."
    )


def _parse(place, line, frames_of):
    """Returns the row of a line, or None if it has faults; its faults; and its warnings."""
    line = {key: (value or "").strip() for key, value in line.items() if isinstance(value, str)}
    frames, faults = frames_of(line)
    try:
        ph = float(line["ph_value"])
    except ValueError:
        ph = math.nan
    if not 0 <= ph <= 14:
        faults.append(("ph", f"ph_value is {line['ph_value']!r}; expected 0 to 14, such as 5.9"))
    names = {str(label): name for label, name in enumerate(CLASSES)}
    label, name = line["class_id"], line["class_name"]
    if label not in names:
        faults.append(("class", f"class_id is {label!r}; expected one of {', '.join(names)}"))
    elif name.lower() != names[label].lower():
        faults.append(("class", f"class_name is {name!r}, but class_id {label} is {names[label]}"))
    if faults:
        return None, [Fault(kind, place, message) for kind, message in faults], []
    row = Row(place, ph, int(label), frames)
    usual = PH_CLASS.get(ph, row.label)
    if usual == row.label:
        return row, [], []
    message = f"pH {ph} is {CLASSES[usual]}, class_id says {CLASSES[row.label]}, which is kept"
    return row, [], [Fault("class_against_ph", place, message)]


def _single_frame(line):
    """Returns the frame of a line in a tuple, and (kind, message) of each fault."""
    gas = line["gas_type"].lower()
    if gas not in GASES:
        return (), [("gas", f"gas_type is {line['gas_type']!r}; expected one of {', '.join(GASES)}")]
    original, augmentation = line["original_sample_id"], line["augmentation_id"]
    frame, faults = _frame(gas, line["frame_path"], line["mask_path"], original, augmentation)
    return (frame,), faults + [("original", "original_sample_id is empty")] * (not original)


def _paired_frames(line):
    """Returns the frames of a line, and (kind, message) of each fault."""
    frames, faults = [], []
    present = [gas for gas in GASES if line[f"{gas}_frame"]]
    if not present:
        return (), [("gas", "names no frame of either gas")]
    absent = "".join(set(GASES) - set(present))
    missing, paired = line["missing_modality"].lower(), line["is_paired"].lower()
    if missing != absent:
        faults.append(("gas", f"missing_modality is {missing!r}, but {absent or 'no'} frame is missing"))
    if (paired in ("true", "1", "1.0")) == bool(absent):
        faults.append(("gas", f"is_paired is {line['is_paired']!r}, but {absent or 'no'} frame is missing"))
    for gas in present:
        ids = (line.get(f"{gas}_original_sample_id", ""), line.get(f"{gas}_augmentation_id", ""))
        frame, frame_faults = _frame(gas, line[f"{gas}_frame"], line[f"{gas}_mask"], *ids)
        frames.append(frame)
        faults += frame_faults
    return tuple(frames), faults


def _frame(gas, frame_path, mask_path, original, augmentation):
    paths = {"frame": frame_path, "mask": mask_path}
    faults = [("missing_file", f"names no {gas} {kind}") for kind, path in paths.items() if not path]
    return Frame(gas, _relative(frame_path), _relative(mask_path), _id(original), _id(augmentation)), faults


def _id(text):
    """Returns an id, in which numbers are written alike: spreadsheets turn 7 into 7.0, and 007 into 7."""
    return str(int(text.split(".")[0])) if re.fullmatch(r"\d+(\.0*)?", text) else text


def _relative(path):
    # Paths of the published files start with the folder that they were made in.
    return path.replace("\\", "/").removeprefix("./").removeprefix("mmseg_dataset/")
