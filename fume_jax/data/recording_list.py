"""Reads lists of recordings, from a table or from a folder."""

import dataclasses
import math
import os
from pathlib import Path

from fume_jax.data.films import PLAIN_FILM_SUFFIXES
from fume_jax.data.images import IMAGE_SUFFIXES
from fume_jax.data.matching import gas_of, name_without_gas
from fume_jax.data.scale import RECORDING, Limits, parse_range
from fume_jax.data.table import as_id, as_number, read_table
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.names import file_name
from fume_jax.schema import CLASSES, GASES

# Columns that a table has, and those that it may have.
COLUMNS = ("id", "co2", "ch4")
FURTHER_COLUMNS = ("offset_s", "range", "mm_per_pixel", "start_s", "stop_s", "ph", "class_name", "subject")
# Where they are described.
PAGE = "docs/prediction.md"
AUTO = "auto"
# Files of many frames that a folder may hold.
FILM_SUFFIXES = (*PLAIN_FILM_SUFFIXES, ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class Recording:
    """Describes a recording of one or two gases.

    `id` names it, and its folder of results. `offset`, `start` and `stop` are in seconds, see `open_source`; None where
    nothing is stated, and `AUTO` for an offset that is to be estimated. `mm_per_pixel` is the size of a pixel in the
    scene, in millimetres. `ph`, `class_name` and `subject` are labels, which prediction hands on and does not read.
    """

    id: str
    co2: str | None = None
    ch4: str | None = None
    offset: float | str | None = None
    range: str | Limits = RECORDING
    mm_per_pixel: float | None = None
    start: float | None = None
    stop: float | None = None
    ph: float | None = None
    class_name: str | None = None
    subject: str | None = None


def read_recordings(path: str) -> list[Recording]:
    """Reads a table of recordings, whose paths are relative to its folder, or finds those of a folder.

    A folder holds a folder for each recording, in which files or folders are named for their gas, such as `co2.seq`; or
    films that are, such as `bottle3_co2.seq` and `bottle3_ch4.seq`. One that holds `co2` and `ch4` itself, folders or
    films, is one recording.

    Raises UserError that names every row at fault, or if there is no recording.
    """
    found = _of_folder(Path(path)) if Path(path).is_dir() else _of_table(Path(path))
    if not found:
        raise UserError(f"{path} holds no recording; {PAGE} says how they are listed or named.")
    return found


def unread_columns(path: str) -> tuple[str, ...]:
    """Returns notes for the user on the columns of a table of recordings that are not read, such as misspelt ones."""
    if Path(path).is_dir():
        return ()
    unread = read_table(Path(path), (COLUMNS,), PAGE).unread({*COLUMNS, *FURTHER_COLUMNS})
    known = ", ".join(FURTHER_COLUMNS)
    return (f"{path} has columns that are not read: {', '.join(unread)}; known are {known}",) if unread else ()


def _of_table(path):
    if not path.is_file():
        raise UserError(f"There is no file or folder {path}.")
    recordings, faults, rows = [], [], {}
    for line in read_table(path, (COLUMNS,), PAGE).lines:
        place = f"row {line.number}"
        try:
            if line.fault:
                raise UserError(line.fault)
            recording = _parse(line.cells, path.parent)
            if (earlier := rows.setdefault(file_name(recording.id).lower(), place)) != place:
                raise UserError(f"the id {recording.id} is that of {earlier}, too")
            recordings.append(recording)
        except UserError as error:
            faults.append(f"{place}: {error}")
    if faults:
        raise UserError(f"{path}: " + "; ".join(faults))
    return recordings


def _parse(cells, folder):
    name = cells["id"]
    if not name or name in (".", "..") or "/" in name or os.sep in name:
        raise UserError(f"id is {name!r}; expected a name for the folder of results, without /")
    paths = {gas: os.path.join(folder, os.path.expanduser(cells[gas])) if cells[gas] else None for gas in GASES}
    if not any(paths.values()):
        raise UserError("names no frames of either gas")
    numbers = {}
    for column in ("offset_s", "mm_per_pixel", "start_s", "stop_s"):
        text = cells.get(column, "")
        if column == "offset_s" and text.lower() == AUTO:
            numbers["offset"] = AUTO
            continue
        number = as_number(text) if text else None
        if number is not None and (not math.isfinite(number) or (number <= 0 and column == "mm_per_pixel")):
            raise UserError(f"{column} is {text!r}; expected a number{' above 0' * (column == 'mm_per_pixel')}")
        numbers[column.removesuffix("_s")] = number
    if None not in (numbers["start"], numbers["stop"]) and numbers["start"] >= numbers["stop"]:
        raise UserError(f"start_s is {numbers['start']:g} and stop_s {numbers['stop']:g}; expected it to be later")
    return Recording(name, **paths, **numbers, range=parse_range(cells.get("range") or RECORDING), **_labels(cells))


def _labels(cells):
    ph, label, subject = (cells.get(column) or None for column in ("ph", "class_name", "subject"))
    if ph is not None and not 0 <= as_number(ph) <= 14:
        raise UserError(f"ph is {ph!r}; expected a number from 0 to 14, or nothing")
    if label not in (None, *CLASSES):
        raise UserError(f"class_name is {label!r}; expected {', '.join(CLASSES)}, or nothing")
    return {"ph": ph and as_number(ph), "class_name": label, "subject": subject and as_id(subject)}


def _of_folder(folder):
    found = {}

    def add(name, gas, path):
        paths = found.setdefault(name, {})
        if gas in paths:
            raise UserError(f"{paths[gas]} and {path} are both {gas.upper()} of the recording {name}. Keep one.")
        paths[gas] = str(path)

    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        of_gas = path.stem.lower() in GASES
        if path.is_dir() and not of_gas:
            for gas, child in _of_gases(path):
                add(path.name, gas, child)
        elif (path.is_dir() or path.suffix.lower() in FILM_SUFFIXES) and (gas := gas_of(path.stem)):
            # Of what has the name of its gas alone, the folder names the recording.
            add(folder.resolve().name if of_gas else name_without_gas(path), gas, path)
    return [Recording(name, **paths) for name, paths in found.items()]


def _of_gases(folder):
    """Returns the gas and the path of what a folder of one recording holds.

    That are films and folders that are named for their gas. Without any, one image of each gas, such as a TIFF file of
    many frames; of more images the folder, in which they pair by name.
    """
    own = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    named = [(gas, child) for child in own if (gas := gas_of(child.stem))]
    films = [(gas, child) for gas, child in named if child.is_dir() or child.suffix.lower() in PLAIN_FILM_SUFFIXES]
    images = [(gas, child) for gas, child in named if child.suffix.lower() in IMAGE_SUFFIXES and not child.is_dir()]
    gases = sorted({gas for gas, _ in images}, key=GASES.index)
    return films or (images if len(images) == len(gases) else [(gas, folder) for gas in gases])
