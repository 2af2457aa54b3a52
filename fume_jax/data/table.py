"""Tables as spreadsheets and scripts write them: CSV of every separator and encoding that is clear.

Cells are text; `as_number`, `as_id` and `as_bool` read the spellings that programs give to one value.
"""

import codecs
import csv
import dataclasses
import io
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from fume_jax.runtime.errors import UserError

# Marks at the beginning of files; that of UTF-32 begins with that of UTF-16.
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATORS = (",", ";", "\t", "|")
# What Excel writes and reads in the first line to name the separator.
_NAMED_SEPARATOR = re.compile(r"\"?sep=(.)\"?\r?\n?", re.IGNORECASE)
# How pandas, R and spreadsheets write an empty cell, in lower case.
_EMPTY = ("nan", "none", "null", "<na>", "na", "n/a", "#n/a", "nil")
_BOOLS = {"true": True, "t": True, "yes": True, "y": True, "1": True}
_BOOLS |= {"false": False, "f": False, "no": False, "n": False, "0": False}


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of a table: its cells by column, or why it has none; `number` is as in a spreadsheet, the header is 1."""

    number: int
    cells: dict[str, str]
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a table without empty ones, the columns that it was recognised by, and all that it has."""

    form: Sequence[str]
    lines: list[Line]
    columns: list[str]

    def unread(self, known: Collection[str]) -> list[str]:
        """Returns the columns with a name that is not `known`."""
        return [name for name in self.columns if name and name not in known]


def read_table(path: Path, forms: Sequence[Sequence[str]], page: str) -> Table:
    """Reads a table that has all columns of one of the `forms`, which a `page` of the documentation describes.

    Cells are stripped; those of missing values are empty. Column names may differ in case and in spaces.

    Raises UserError if the file is no table in Unicode, lacks columns, or has one of them twice.
    """
    text = _decode(path)
    known = {column for form in forms for column in form}
    named = _NAMED_SEPARATOR.match(text)
    skipped, text = (1, text[named.end() :]) if named else (0, text)
    separators = named[1] if named else _SEPARATORS
    try:
        # The separator at which the header has the most known columns.
        separator = max(separators, key=lambda separator: len(known & set(_columns(text, separator))))
        columns, rows = _columns(text, separator), list(_rows(text, separator))[1:]
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}.") from error
    form = _form(path, columns, forms, page)
    return Table(form, [_line(number + skipped, columns, cells) for number, cells in rows], columns)


def as_number(text: str) -> float:
    """Returns a number that may have a decimal comma, and no zero before it; NaN if it is none."""
    number = re.fullmatch(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", text, re.IGNORECASE)
    return float(text.replace(",", ".")) if number else math.nan


def as_id(text: str) -> str:
    """Returns an id, in which whole numbers are written alike: spreadsheets turn 7 into 7.0, and 007 into 7."""
    return str(int(re.split("[.,]", text)[0])) if re.fullmatch(r"[+-]?\d+([.,]0*)?", text) else text


def as_bool(text: str) -> bool | None:
    """Returns a truth value, None if it is none."""
    return _BOOLS.get(as_id(text.lower()))


def is_shortened(text: str) -> bool:
    """Returns whether an id is a number as spreadsheets show long ones, such as 2.0E+16: different ids become one."""
    return re.fullmatch(r"\d([.,]\d+)?E\+\d+", text, re.IGNORECASE) is not None


def _decode(path):
    data = path.read_bytes()
    encoding = next((name for mark, name in _ENCODINGS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data[:2]:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"  # without a mark: the other byte is of a letter
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a CSV file in UTF-8: {error}. Save it as CSV UTF-8.") from error


def _rows(text, separator):
    """Yields the numbers of the first lines and the cells of the rows that hold anything."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    first = 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield first, cells
        first = reader.line_num + 1


def _columns(text, separator):
    _, header = next(_rows(text, separator), (0, []))
    return [re.sub(r"[\s-]+", "_", name.strip("\ufeff \t").lower()) for name in header]


def _form(path, columns, forms, page):
    missing = {form: [column for column in form if column not in columns] for form in forms}
    form, lacking = min(missing.items(), key=lambda item: len(item[1]))
    if lacking:
        has = f"it has {', '.join(columns)}" if columns else "it is empty"
        raise UserError(
            f"{path} lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}; {has}. {page} lists the columns."
        )
    if twice := [column for column in form if columns.count(column) > 1]:
        raise UserError(f"{path} has the column {', '.join(twice)} more than once. Remove or rename one.")
    return form


def _line(number, columns, cells):
    if any("\n" in cell or "\r" in cell for cell in cells):
        return Line(number, {}, "a cell goes over several lines, such as by a quote that is not closed")
    if any("\0" in cell for cell in cells):
        return Line(number, {}, "holds a zero byte")
    if any(cell.strip() for cell in cells[len(columns) :]):
        reason = f"has {len(cells)} cells, the header {len(columns)}: a separator in a cell needs quotes around it"
        return Line(number, {}, reason)
    cells = [*cells, *[""] * (len(columns) - len(cells))]
    return Line(number, {column: _clean(cell) for column, cell in zip(columns, cells, strict=False)})


def _clean(cell):
    cell = cell.strip()
    # The apostrophe that keeps spreadsheets from running a cell is no part of it, see `fume_jax.runtime.names`.
    cell = cell[1:] if re.match(r"'[=+\-@]", cell) else cell
    return "" if cell.lower() in _EMPTY else cell
