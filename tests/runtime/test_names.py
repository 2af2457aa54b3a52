"""Names from outside cannot leave a folder, be taken for one another, run in a spreadsheet or end a command."""

import os

import pytest

from fume_jax.runtime.files import PART
from fume_jax.runtime.names import csv_text, file_name, portable, printable

NOT_UTF8 = os.fsdecode(b"pr\xe9_1")


@pytest.mark.parametrize("name", ["a", "1.5", "..", NOT_UTF8, "ü" * 100, "a" * 242, "=1+1"])
def test_a_name_that_file_systems_take_stays_as_it_is(tmp_path, name):
    assert file_name(name, "_co2.png"[:8]) == f"{name}_co2.png"
    (tmp_path / f"{file_name(name, '_co2.png')}{PART}").touch()


@pytest.mark.parametrize("name", ["a" * 243, "ü" * 200, NOT_UTF8 * 100, "a" * 5000])
def test_longer_names_are_cut_and_stay_apart(tmp_path, name):
    names = {file_name(name + end, "_co2.png") for end in ("", "1", "2")}
    assert len(names) == 3
    for short in names:
        assert short.startswith(os.fsencode(name)[:150].decode(errors="ignore")) and short.endswith("_co2.png")
        (tmp_path / f"{short}{PART}").touch()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(ValueError, match="is no file name"):
        file_name(name, ".png")


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"])
def test_a_cell_that_a_spreadsheet_would_run_is_quoted(text):
    assert csv_text(text) == f"'{text}"


def test_other_cells_stay_and_what_is_not_unicode_is_escaped():
    assert csv_text("frame-1=2") == "frame-1=2" and csv_text("") == ""
    assert csv_text(NOT_UTF8) == printable(NOT_UTF8) == "pr\\udce9_1"


@pytest.mark.parametrize("name", ["bottle 3", "frame_000012", "ü.1", "=1+1", "a~b"])
def test_a_name_that_every_machine_takes_stays_as_it_is(name):
    assert portable(name) == name


def test_other_names_are_mended_and_stay_apart():
    names = ["12:30", "12?30", "12_30", "a\\b", "a/b", "a\nb", NOT_UTF8]
    found = [portable(name) for name in names]
    assert len(set(found)) == len(names)
    assert found[0].startswith("12_30~") and not any(set(name) & set("\\/:?\n") for name in found)
    assert all(name.isprintable() and name.encode() for name in found)
