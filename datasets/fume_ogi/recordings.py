"""Gas, pH, class and subject of labelled frames, from a table, from names of files and folders, and from flags."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from fume_jax.data import recording_list
from fume_jax.data.labels.label import Fault, Label, place_of
from fume_jax.data.labels.manifest import MANIFEST, Reviewed
from fume_jax.data.matching import gas_of, name_without_gas
from fume_jax.data.table import as_id, as_number, read_table
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, GASES, PH_CLASS

TABLE = "recordings.csv"
# Where the columns are described.
PAGE = "docs/labels.md"
# Columns that a table has, and those that it may have.
COLUMN, FURTHER_COLUMNS = "recording", ("gas", "ph", "class_name", "subject")
# Lists of `fume predict` name recordings so, and have columns of their own.
LIST_COLUMN, LIST_COLUMNS = "id", {*recording_list.COLUMNS, *recording_list.FURTHER_COLUMNS}
# Flags that say what nothing says. An example of a pH would be copied, and every frame be of its class.
_STATED = {
    "gas": "--gas=co2",
    "ph": f"--ph=PH, the one that was measured; if none was, see 'Masks without pH' in {PAGE}",
}
# The most names that a note shows.
_SHOWN = 5
# Folders between that of a recording and its frames.
_FOLDERS = ("images", "frames", "img", "imgs", "data", "jpegimages")
_NAMES = [name.lower() for name in CLASSES]
# pH in a name, such as bottle3_pH5.9 or ph-6,2.
_PH = re.compile(r"(?:^|[^a-z])ph[-_ ]?(\d{1,2}(?:[.,]\d+)?)(?!\d)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Described:
    """Says what a labelled frame shows; `name` and `recording`, that of its recording, are without the gas."""

    name: str
    recording: str
    gas: str
    ph: float
    class_id: int
    subject: str


class Describer:
    """Finds what labelled frames show.

    What a table, the names of files and folders, and the flags say must agree; one of them is enough.
    """

    def __init__(self, source: Path, table: Path | None, flags: Mapping[str, str]):
        """Reads the table, `recordings.csv` in the source if none is given.

        `flags` are texts of FURTHER_COLUMNS that hold for all frames, "" where they say nothing. Raises UserError if
        the table that is given cannot be read.
        """
        self.source, self._flags, self._rows, self.notes = source.resolve(), flags, {}, []
        self._path, self._described = None, set()
        path = table or source / TABLE
        if table is None and not path.is_file():
            return
        try:
            table_read = read_table(path, ((COLUMN,), (LIST_COLUMN,)), PAGE)
        except UserError as error:
            if table is not None:
                raise
            self.notes.append(f"{path} is no table of recordings, so it is not read: {error}")
            return
        (column,), lines, self._path = table_read.form, table_read.lines, path
        for line in lines:
            if line.fault or line.cells[column] in self._rows:
                raise UserError(f"{path} row {line.number}: {line.fault or f'{line.cells[column]} is there already'}")
            self._rows[line.cells[column]] = line.cells
        self.notes.append(f"{path}: {len(lines)} recordings")
        known = {column, *FURTHER_COLUMNS, *(LIST_COLUMNS if column == LIST_COLUMN else ())}
        if unknown := table_read.unread(known):
            told = f"{path} has columns that are not read: {', '.join(unknown)}; known are {', '.join(FURTHER_COLUMNS)}"
            self.notes.append(told)

    def describe(self, label: Label, reviewed: Reviewed | None) -> Described | list[Fault]:
        """Describes a frame, which a review may have chosen, or returns what is missing or contradicts itself."""
        recording = reviewed.recording if reviewed else self._recording(label)
        self._described.add(recording)
        row, place, faults, texts = self._rows.get(recording, {}), place_of(label, self.source), [], {}
        for key in ("gas", "ph", "subject", "class_name"):
            of_name = {"gas": gas_of, "ph": _ph_of}.get(key, lambda _: "")
            said = {
                MANIFEST: _text(getattr(reviewed, key, None)),
                TABLE: row.get(key, ""),
                "its name": next(filter(None, map(of_name, self._names(label))), None) or "",
                f"--{key}": self._flags.get(key, ""),
            }
            said = {who: text for who, text in said.items() if text}
            if len({as_number(text) if key == "ph" else as_id(text).lower() for text in said.values()}) > 1:
                kind = "class" if key == "class_name" else key
                faults.append(Fault(kind, place, " but ".join(f"{who} says {text}" for who, text in said.items())))
            texts[key] = next(iter(said.values()), "")
        faults += _check(place, recording, texts) if not faults else []
        if faults:
            return faults
        ph, name = as_number(texts["ph"]), texts["class_name"].lower()
        class_id = _NAMES.index(name) if name else PH_CLASS[ph]
        frame = reviewed.frame if reviewed else label.name
        bare = [name_without_gas(Path(f"{text}.x")) for text in (frame, recording)]
        return Described(
            *(text.replace("/", "_") for text in bare), texts["gas"].lower(), ph, class_id, texts["subject"]
        )

    def unused(self) -> list[str]:
        """Returns a note if rows of the table are of no recording that was described."""
        if not (rows := [name for name in self._rows if name not in self._described]):
            return []
        names, found = (_listed(sorted(names)) for names in (rows, self._described))
        found = f"the recordings are {found}" if found else "no labelled frame was found"
        return [f"{len(rows)} rows of {self._path} match no recording: {names}; {found}"]

    def _recording(self, label):
        """Returns the recording of a label, without folders that are named for what they hold."""
        parts = [part for part in Path(label.recording).parts if part.lower() not in _FOLDERS]
        return "/".join(parts) or self.source.name

    def _names(self, label):
        """Returns names of a frame and of the folders that it is in below the source, the nearest first."""
        folders = label.image.resolve().parent
        parts = folders.relative_to(self.source).parts if folders.is_relative_to(self.source) else ()
        return [label.name, *Path(label.recording).parts[::-1], *parts[::-1]]


def _listed(names):
    return ", ".join(names[:_SHOWN]) + f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)


def _text(value):
    return "" if value is None else f"{value:g}" if isinstance(value, float) else value


def _ph_of(name):
    match = _PH.search(name)
    return match[1] if match else ""


def _check(place, recording, texts) -> list[Fault]:
    faults = []
    for key, flag in _STATED.items():
        if not texts[key]:
            remedy = f"{TABLE} with the columns {COLUMN} and {key}, or {flag}"
            faults.append(Fault(key, place, f"nothing says the {key} of {recording}: add {remedy}"))
    if texts["gas"] and texts["gas"].lower() not in GASES:
        faults.append(Fault("gas", place, f"the gas is {texts['gas']!r}; expected {' or '.join(GASES)}"))
    ph, name = as_number(texts["ph"]), texts["class_name"]
    if texts["ph"] and not 0 <= ph <= 14:
        faults.append(Fault("ph", place, f"the pH is {texts['ph']!r}; expected 0 to 14, such as 5.9"))
    elif name and name.lower() not in _NAMES:
        faults.append(Fault("class", place, f"class_name is {name!r}; expected one of {', '.join(CLASSES)}"))
    elif texts["ph"] and not name and ph not in PH_CLASS:
        remedy = f"add a column class_name to {TABLE}, or --class_name={CLASSES[0]}"
        usual = ", ".join(f"{level} {CLASSES[label]}" for level, label in PH_CLASS.items())
        faults.append(Fault("class", place, f"pH {ph:g} has no usual class ({usual}); {remedy}"))
    return faults
