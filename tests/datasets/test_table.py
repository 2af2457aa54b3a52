"""Annotation tables as spreadsheets and scripts write them: what is clear is taken, the rest are faults of a row."""

import pytest

from datasets.fume_ogi.annotations import Frame, Row, read_annotations, write_pairs
from fume_jax.runtime.errors import UserError
from tests.datasets import recordings


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return recordings.write(tmp_path_factory.mktemp("recordings")).read_text()


def read(tmp_path, content, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return read_annotations(str(path), tmp_path)


def with_cell(text, column, change):
    """A table whose cells of a column are changed; no cell has a comma in quotes."""
    header, *lines = text.splitlines()
    index = header.split(",").index(column)
    rows = [line.split(",") for line in lines]
    return "\n".join([header, *(",".join([*r[:index], change(r[index]), *r[index + 1 :]]) for r in rows)]) + "\n"


CLEAR = {
    "rows of commas": lambda text: text + ",,,,,,,\n" * 3 + " , ,,,,,,\n",
    "cells beyond the header": lambda text: text.replace("\n", ",,\n"),
    "class_id 0.0": lambda text: with_cell(text, "class_id", lambda cell: f"{cell}.0"),
    "id 7.": lambda text: with_cell(text, "original_sample_id", lambda cell: f"{cell}."),
    "backslashes twice": lambda text: with_cell(text, "frame_path", lambda cell: cell.replace("/", "\\\\")),
    "the published folder": lambda text: with_cell(text, "mask_path", lambda cell: f".\\mmseg_dataset\\\\{cell}"),
    "points in paths": lambda text: with_cell(text, "mask_path", lambda cell: f"x/../{cell}"),
    "spaces around names": lambda text: text.replace("frame_path,mask_path", " frame_path , mask_path ", 1),
    "names in other case": lambda text: text.replace("frame_path,mask_path", "Frame_Path,MASK PATH", 1),
    "other columns twice": lambda text: text.replace("\n", ",note,note\n", 1).replace("0\n", "0,a,b\n"),
    "classes in other case": lambda text: with_cell(text, "class_name", lambda cell: f" {cell.upper()} "),
    "gases in other case": lambda text: with_cell(text, "gas_type", str.upper),
    "semicolons, decimal commas": lambda text: text.replace(",", ";").replace(".5;", ",5;").replace(".9;", ",9;"),
    "tabs": lambda text: text.replace(",", "\t"),
    "quotes": lambda text: with_cell(text, "frame_path", lambda cell: f'"{cell}"'),
    "Excel's separator": lambda text: "sep=;\n" + text.replace(",", ";"),
    "lines of Windows": lambda text: text.replace("\n", "\r\n"),
    "lines of old Macs": lambda text: text.replace("\n", "\r"),
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.replace(",", "\t").encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-be"),
}


def content(rows):
    return [(row.ph, row.label, row.frames) for row in rows[""]]


@pytest.mark.parametrize("name", CLEAR)
def test_a_clear_spelling_is_read_as_the_plain_one(name, good, tmp_path):
    expected = read(tmp_path, good)
    found = read(tmp_path, CLEAR[name](good))
    assert found.faults == []
    assert content(found.rows) == content(expected.rows) and len(content(found.rows)) == 18


ROW = "images/000.png,masks/000.png,co2,6.5,0,Healthy,0,0"
FAULTS = {
    "a comma in a path": ("images/0,0.png,masks/000.png,co2,6.5,0,Healthy,0,0", "table", "has 9 cells, the header 8"),
    "a zero byte": (ROW.replace("co2", "c\0o2"), "table", "a zero byte"),
    "an open quote": (ROW.replace("masks", '"masks'), "table", "a quote that is not closed"),
    "no id, by pandas": (ROW.replace("Healthy,0", "Healthy,nan"), "original", "is empty"),
    "no mask, by pandas": (ROW.replace("masks/000.png", "None"), "missing_file", "names no co2 mask"),
    "a shortened id": (ROW.replace("Healthy,0", "Healthy,2.02E+16"), "original", "shortened"),
    "pH as text": (ROW.replace("6.5", "NaN"), "ph", "ph_value is ''"),
    "pH with a unit": (ROW.replace("6.5", "pH 6.5"), "ph", "'pH 6.5'"),
    "a fraction of a class": (ROW.replace("6.5,0", "6.5,0.5"), "class", "class_id is '0.5'"),
    "the folder above": (ROW.replace("images", "../images"), "outside", "../images/000.png is not below"),
    "the folder above, hidden": (ROW.replace("images", "images/../..//x"), "outside", "../x/000.png"),
    "an absolute path": (ROW.replace("images", "/etc"), "outside", "/etc/000.png is not below"),
    "a path of Windows": (ROW.replace("images/", "C:\\data\\"), "outside", "C:/data/000.png"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_row_at_fault_is_told_with_its_number_and_the_others_are_kept(name, good, tmp_path):
    row, kind, words = FAULTS[name]
    header, _, *rest = good.splitlines()
    found = read(tmp_path, "\n".join([header, *rest[:2], row, *rest[2:]]) + "\n")
    assert [fault.kind for fault in found.faults] == [kind]
    assert found.faults[0].place == f"{tmp_path}/table.csv row 4"
    assert words in found.faults[0].message
    assert len(found.rows[""]) == (2 if name == "an open quote" else len(rest)), "the quote takes all that follows"


def test_an_absolute_path_below_the_source_is_relative_to_it(good, tmp_path):
    found = read(tmp_path, with_cell(good, "frame_path", lambda cell: f"{tmp_path}/{cell}"))
    assert found.rows[""][0].frames[0].frame_path == "images/000.png"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: "", "it is empty"),
        (lambda text: "\ufeff", "it is empty"),
        (lambda text: ",,,\n\n", "it is empty"),
        (lambda text: text.replace("gas_type", "gas"), r"lacks the column gas_type; it has frame_path"),
        (lambda text: text.replace("class_name", "class_id", 1).replace("0\n", "0,x\n"), "lacks the column class_name"),
        (lambda text: text.replace("\n", ",Class ID\n", 1), "has the column class_id more than once"),
        (lambda text: text.replace("Healthy", "Sañe").encode("latin-1"), "not a CSV file in UTF-8"),
        (lambda text: b"PK\3\4" + bytes(range(256)), "not a CSV file in UTF-8"),
        (lambda text: text + "x" * 200_000, "not a CSV file: field larger"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(change, words, good, tmp_path):
    with pytest.raises(UserError, match=words):
        read(tmp_path, change(good))


def test_cells_that_spreadsheets_would_run_are_quoted_and_read_back(tmp_path):
    frame = Frame("co2", "=cmd.png", "-1.png", '=HYPERLINK("x")', "-3")
    write_pairs(tmp_path / "pairs.csv", [Row("", 5.6, 2, (frame,))])
    written = (tmp_path / "pairs.csv").read_text()
    assert ",=" not in written and "\n=" not in written and '"=' not in written
    found = read_annotations(str(tmp_path / "pairs.csv"), tmp_path)
    assert found.rows[""][0].frames == (frame,) and not found.faults
