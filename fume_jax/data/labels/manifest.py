"""`review.csv`: where the frames of a review come from, so that what was corrected goes back to its recording."""

import csv
import dataclasses
import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fume_jax.data.table import as_id, as_number, read_table
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replacing
from fume_jax.runtime.names import csv_text
from fume_jax.schema import GASES

MANIFEST = "review.csv"
# Picture beside it, of all frames of the review.
SHEET = "contact_sheet.jpg"
# Where the columns are described.
PAGE = "docs/prediction.md"


@dataclasses.dataclass(frozen=True)
class Reviewed:
    """Describes a frame of one gas that was chosen for a person to label, a row of `review.csv`.

    Attributes:
      image: its picture, relative to the folder `images` beside the manifest, with `/`.
      recording, gas, frame, time: as in the tables of its prediction; seconds, None for images.
      source, frame_index: file that it was read from, and its position in that film, from 0; -1 if the file is the
        frame.
      uncertainty, jump, disagreement, score: how hard it is, see `fume_jax.learning.selection`.
      mask_digest: `mask_digest` of the predicted mask.
      model: says which model predicted it.
      ph, class_name, subject: labels of the recording, None and "" where unknown.
    """

    image: str
    recording: str
    gas: str
    frame: str
    time: float | None
    source: str
    frame_index: int
    uncertainty: float
    jump: float
    disagreement: float
    score: float
    mask_digest: str
    model: str
    ph: float | None = None
    class_name: str = ""
    subject: str = ""


# Attributes by their columns, of which one is a word of Python.
COLUMNS = {{"class_name": "class"}.get(field.name, field.name): field for field in dataclasses.fields(Reviewed)}


def mask_digest(mask: np.ndarray) -> str:
    """Returns a digest of the shape and the values of a mask [H, W], whatever its dtype.

    The masks of two frames have one digest if and only if they are equal, but for a chance of 2^-64.
    """
    values = np.ascontiguousarray(mask, np.uint8)
    digest = hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).hexdigest()[:16]
    return f"sha256:{digest}"  # without the prefix, spreadsheets take some digests for numbers


def write_manifest(path: Path, rows: Iterable[Reviewed]) -> None:
    """Writes a manifest whole or not at all."""
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            values = (getattr(row, field.name) for field in COLUMNS.values())
            writer.writerow([csv_text(value) if isinstance(value, str) else value for value in values])


def read_manifest(path: Path) -> list[Reviewed]:
    """Reads a manifest, also one that went through a spreadsheet; UserError that names every row at fault."""
    rows, faults = [], []
    for line in read_table(path, (tuple(COLUMNS),), PAGE).lines:
        try:
            if line.fault:
                raise UserError(line.fault)
            rows.append(_parse(line.cells))
        except UserError as error:
            faults.append(f"row {line.number}: {error}")
    if faults:
        raise UserError(f"{path}: " + "; ".join(faults))
    return rows


def _parse(cells):
    if cells["gas"] not in GASES:
        raise UserError(f"gas is {cells['gas']!r}; expected {' or '.join(GASES)}")
    values = {}
    for column, field in COLUMNS.items():
        value = cells[column]
        if field.type is not str:
            optional = field.type == float | None
            number = None if optional and not value else as_number(value)
            if number is not None and (math.isnan(number) or (field.type is int and number % 1)):
                raise UserError(f"{column} is {value!r}; expected a {'whole ' * (field.type is int)}number")
            value = int(number) if field.type is int else number
        values[field.name] = value
    return Reviewed(**values | {"subject": as_id(values["subject"])})
