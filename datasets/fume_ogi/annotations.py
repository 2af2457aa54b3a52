"""CSV annotation files: reads their rows and checks them before any image is opened.

The header tells two forms apart: single files have a row for each frame of one gas, paired files a row for each pair.
"""

import csv
import dataclasses
import functools
import os
import posixpath
import re
import string
from collections.abc import Iterable, Iterator
from pathlib import Path

from fume_jax.data.labels.label import Fault
from fume_jax.data.table import as_bool, as_id, as_number, is_shortened, read_table
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replacing
from fume_jax.runtime.names import csv_text
from fume_jax.schema import CLASSES, GASES, PH_CLASS, SPLITS

_LABELS, _IDS = ("ph_value", "class_id", "class_name"), ("original_sample_id", "augmentation_id")
SINGLE_COLUMNS = ("frame_path", "mask_path", "gas_type", *_LABELS, *_IDS)
_FRAMES = tuple(f"{gas}_{kind}" for gas in GASES for kind in ("frame", "mask"))
PAIRED_COLUMNS = (*_FRAMES, *_LABELS, "is_paired", "missing_modality")
# Columns that tables may have besides; those of pairs have the name of the gas before them. The position of a frame in
# a film, whose the labels are, and, from fine to coarse, the ids of frames that belong together.
INDEX_COLUMN, SOURCE_COLUMN = "frame_index", "label_source"
# Column of a single file that has the split of each row, where a split is given.
SPLIT_COLUMN = "split"
GROUP_COLUMNS = {"original": "original_sample_id", "recording": "recording_id", "subject": "subject_id"}
_FURTHER = (*_IDS, "recording_id", "subject_id", SOURCE_COLUMN, INDEX_COLUMN)
# Who made a mask: a person made or corrected it, or nobody has corrected what a model predicted.
LABEL_SOURCES = ("person", "prediction")
# File of all rows, as an import writes it; without one there is a file for each split.
TABLE = "annotations.csv"
# Where the columns are described.
README = "datasets/fume_ogi/README.md"
# What absolute paths of Windows begin with.
_DRIVES = tuple(f"{letter}:" for letter in string.ascii_letters)


@dataclasses.dataclass(frozen=True, order=True)
class Frame:
    """A frame of one gas and its mask; paths are relative to the source folder."""

    gas: str
    frame_path: str
    mask_path: str
    original: str  # id of the filmed frame that this one is, or is an augmented copy of; empty if unknown
    augmentation: str  # number of the copy
    frame_index: int = -1  # position in a film, from 0; -1 if the file is the frame
    recording: str = ""  # id of what was filmed in one go; empty if unknown
    subject: str = ""  # id of who or what was filmed, such as an animal; empty if unknown
    label_source: str = "person"  # one of LABEL_SOURCES

    @property
    def key(self) -> str:
        """Names the frame among all of a source."""
        return self.frame_path if self.frame_index < 0 else f"{self.frame_path} frame {self.frame_index}"


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

    rows: dict[str, list[Row]]  # rows without fault by their split, "" where none is given
    read: dict[str, int]  # number of rows of each file, faulty ones included
    paired: bool
    faults: list[Fault]
    warnings: list[Fault]


def frames(rows_by_split: dict[str, Iterable[Row]]) -> Iterator[tuple[str, Row, Frame]]:
    """Yields every frame with its split and its row."""
    return ((split, row, frame) for split, rows in rows_by_split.items() for row in rows for frame in row.frames)


def read_annotations(pattern: str, source: Path = Path()) -> Annotations:
    """Reads the file of each split that `pattern` names, or a single file if `pattern` holds no `{split}`.

    The rows of a single file may name their splits. Paths in the files are relative to `source`; absolute ones become
    so. Raises UserError if there is no such file, a file lacks columns, or the files are of different forms.
    """
    names = {split: pattern.replace("{split}", split) for split in (SPLITS if "{split}" in pattern else ("",))}
    found = {split: Path(name) for split, name in names.items() if Path(name).is_file()}
    if not found:
        raise UserError(
            f"There is no annotation file {' or '.join(names.values())}. Name yours by --annotations=PATTERN, in which "
            "{split} stands for train, val and test; a single file for all needs no {split}."
        )
    tables = {path: read_table(path, (SINGLE_COLUMNS, PAIRED_COLUMNS), README) for path in found.values()}
    paired = {path: table.form is PAIRED_COLUMNS for path, table in tables.items()}
    if len(set(paired.values())) > 1:
        forms = ", ".join(f"{path} has {'pairs' if pairs else 'single frames'}" for path, pairs in paired.items())
        raise UserError(f"Annotation files are of two forms: {forms}. Give those of one form by --annotations.")
    rows, faults, warnings, seen = {split: [] for split in found}, [], [], {}
    for split, path in found.items():
        by_row = not split and all(line.cells.get(SPLIT_COLUMN) in SPLITS for line in tables[path].lines)
        frames_of = _paired_frames if paired[path] else _single_frame
        for line in tables[path].lines:
            place = f"{path} row {line.number}"
            row, row_faults, row_warnings = _parse(place, line, functools.partial(frames_of, source))
            if row:
                paths = tuple(frame.key for frame in row.frames)
                if paths in seen:
                    row_faults = [Fault("duplicate_row", place, f"{' and '.join(paths)} as in {seen[paths]}")]
                else:
                    seen[paths] = place
                    rows.setdefault(line.cells[SPLIT_COLUMN] if by_row else split, []).append(row)
            faults += row_faults
            warnings += row_warnings
    if "" in rows and len(rows) > 1:
        rows = {split: rows.get(split, []) for split in SPLITS if split in rows}
    read = {str(path): len(table.lines) for path, table in tables.items()}
    return Annotations(rows, read, any(paired.values()), faults, warnings)


def write_pairs(path: Path, rows: list[Row]) -> None:
    """Writes a paired file, which `read_annotations` reads, with the ids of both frames."""
    used = {name for row in rows for frame in row.frames for name, text in _further(frame).items() if text}
    columns = [name for name in _FURTHER if name in used or name in _IDS]
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        own = [f"{gas}_{name}" for gas in GASES for name in columns]
        writer = csv.DictWriter(file, (*PAIRED_COLUMNS, *own), restval="")
        writer.writeheader()
        for row in rows:
            absent = set(GASES) - {frame.gas for frame in row.frames}
            line = {"ph_value": row.ph, "class_id": row.label, "class_name": CLASSES[row.label]}
            line |= {"is_paired": not absent, "missing_modality": "".join(absent)}
            for frame in row.frames:
                further = _further(frame)
                texts = {"frame": frame.frame_path, "mask": frame.mask_path}
                texts |= {name: further[name] for name in columns}
                line |= {f"{frame.gas}_{name}": csv_text(text) for name, text in texts.items()}
            writer.writerow(line)


def _further(frame):
    """Returns the cells of a frame besides its paths; "" for what need not be said."""
    source = "" if frame.label_source == LABEL_SOURCES[0] else frame.label_source
    index = "" if frame.frame_index < 0 else str(frame.frame_index)
    values = (frame.original, frame.augmentation, frame.recording, frame.subject, source, index)
    return dict(zip(_FURTHER, values, strict=True))


def _parse(place, line, frames_of):
    """Returns the row of a line, or None if it has faults; its faults; and its warnings."""
    if line.fault:
        return None, [Fault("table", place, line.fault)], []
    cells = line.cells
    frames, faults = frames_of(cells)
    ph = as_number(cells["ph_value"])
    if not 0 <= ph <= 14:
        faults.append(("ph", f"ph_value is {cells['ph_value']!r}; expected 0 to 14, such as 5.9"))
    names = {str(label): name for label, name in enumerate(CLASSES)}
    label, name = as_id(cells["class_id"]), cells["class_name"]
    if label not in names:
        faults.append(("class", f"class_id is {cells['class_id']!r}; expected one of {', '.join(names)}"))
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


def _single_frame(source, cells):
    """Returns the frame of a line in a tuple, and (kind, message) of each fault."""
    gas = cells["gas_type"].lower()
    if gas not in GASES:
        return (), [("gas", f"gas_type is {cells['gas_type']!r}; expected one of {', '.join(GASES)}")]
    further = {name: cells.get(name, "") for name in _FURTHER}
    frame, faults = _frame(source, gas, cells["frame_path"], cells["mask_path"], further)
    return (frame,), faults + [("original", "original_sample_id is empty")] * (not frame.original)


def _paired_frames(source, cells):
    """Returns the frames of a line, and (kind, message) of each fault."""
    frames, faults = [], []
    present = [gas for gas in GASES if cells[f"{gas}_frame"]]
    if not present:
        return (), [("gas", "names no frame of either gas")]
    absent = "".join(set(GASES) - set(present))
    missing, paired = cells["missing_modality"].lower(), as_bool(cells["is_paired"])
    if missing != absent:
        faults.append(("gas", f"missing_modality is {missing!r}, but {absent or 'no'} frame is missing"))
    if paired is None:
        faults.append(("gas", f"is_paired is {cells['is_paired']!r}; expected True or False"))
    elif paired == bool(absent):
        faults.append(("gas", f"is_paired is {cells['is_paired']!r}, but {absent or 'no'} frame is missing"))
    for gas in present:
        further = {name: cells.get(f"{gas}_{name}", "") for name in _FURTHER}
        frame, frame_faults = _frame(source, gas, cells[f"{gas}_frame"], cells[f"{gas}_mask"], further)
        frames.append(frame)
        faults += frame_faults
    return tuple(frames), faults


def _frame(source, gas, frame_path, mask_path, further):
    paths = {"frame": _relative(source, frame_path), "mask": _relative(source, mask_path)}
    faults = [("missing_file", f"names no {gas} {kind}") for kind, path in paths.items() if not path]
    for path in paths.values():
        # A path that leaves the folder may name any file of the machine.
        if posixpath.isabs(path) or path.split("/")[0] in ("..", *_DRIVES):
            faults.append(("outside", f"{path} is not below {source}; let --source be a folder that holds all files"))
    for level, column in GROUP_COLUMNS.items():
        if is_shortened(further[column]):
            kind = "original" if level == "original" else "group"
            faults.append((kind, f"{column} is {further[column]!r}, a number that a spreadsheet has shortened"))
    original, recording, subject = (as_id(further[column]) for column in GROUP_COLUMNS.values())
    position, index_faults = _position(further[INDEX_COLUMN])
    if not original and position >= 0:  # the frames of a film belong together without an id
        original, recording = paths["frame"], recording or paths["frame"]
    made_by = further[SOURCE_COLUMN].lower() or LABEL_SOURCES[0]
    if made_by not in LABEL_SOURCES:
        expected = " or ".join(LABEL_SOURCES)
        faults.append(("label_source", f"{SOURCE_COLUMN} is {further[SOURCE_COLUMN]!r}; expected {expected}"))
    augmentation = as_id(further["augmentation_id"])
    frame = Frame(gas, *paths.values(), original, augmentation, position, recording, subject, made_by)
    return frame, faults + index_faults


def _position(index):
    """Returns the position of a frame in a film, -1 if there is none, and faults."""
    position = as_id(index) if index else "-1"
    if index and not position.isdecimal():
        return -1, [("missing_file", f"{INDEX_COLUMN} is {index!r}; expected the number of a frame, from 0")]
    return int(position), []


def _relative(source, path):
    """Returns a path below `source` as relative to it, others as they are; backslashes become slashes."""
    path = re.sub(r"[\\/]+", "/", path)
    root = f"{os.path.abspath(source)}/"
    # Paths of the published files start with the folder that they were made in.
    path = path.removeprefix(root).removeprefix("./").removeprefix("mmseg_dataset/")
    return posixpath.normpath(path) if path else ""
