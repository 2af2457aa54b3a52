"""Lists of recordings: tables with every fault named, and folders in the layouts that are documented."""

from pathlib import Path

import pytest

from fume_jax.data.recording_list import AUTO, Recording, read_recordings, unread_columns
from fume_jax.data.scale import FRAME
from fume_jax.runtime.errors import UserError

HEADER = "id,co2,ch4,offset_s,range,mm_per_pixel,start_s,stop_s"


def table(folder, *rows, header=HEADER):
    path = folder / "recordings.csv"
    path.write_text("\n".join([header, *rows, ""]))
    return str(path)


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


def listed(folder):
    """Paths relative to the folder by id and gas."""
    relative = lambda path: path and str(Path(path).relative_to(folder))  # noqa: E731
    return {found.id: (relative(found.co2), relative(found.ch4)) for found in read_recordings(str(folder))}


def test_all_columns_of_a_table_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    path = table(
        tmp_path,
        'a,films/co2.seq,/data/ch4.seq,-1.25,"20,31.5",0.4,2,10.5',
        "b,~/b.csq,,AUTO,frame,,,",
        "c,,c.npy,,,,0,",
    )
    assert read_recordings(path) == [
        Recording("a", f"{tmp_path}/films/co2.seq", "/data/ch4.seq", -1.25, (20.0, 31.5), 0.4, 2.0, 10.5),
        Recording("b", "/home/me/b.csq", None, AUTO, FRAME),
        Recording("c", None, f"{tmp_path}/c.npy", start=0.0),
    ]


def test_labels_are_read_where_they_are_known(tmp_path):
    header = "id,co2,ch4,ph,class_name,subject"
    path = table(tmp_path, 'a,x,,"5,9",Transitional,7.0', "b,x,,,,Ada", "c,x,,0,,", header=header)
    found = [(recording.ph, recording.class_name, recording.subject) for recording in read_recordings(path)]
    assert found == [(5.9, "Transitional", "7"), (None, None, "Ada"), (0.0, None, None)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b,x,,14.5,", "ph is '14.5'; expected a number from 0 to 14"),
        ("b,x,,-1,", "ph is '-1'; expected a number from 0 to 14"),
        ("b,x,,sour,", "ph is 'sour'; expected a number from 0 to 14"),
        ("b,x,,5.9,healthy", "class_name is 'healthy'; expected Healthy, Transitional, Acidotic"),
    ],
)
def test_a_label_that_is_none_is_named_with_its_row(tmp_path, row, message):
    with pytest.raises(UserError, match=f"row 3: {message}"):
        read_recordings(table(tmp_path, "a,x,,,", row, header="id,co2,ch4,ph,class_name"))


def test_three_columns_are_enough(tmp_path):
    path = table(tmp_path, "a;x.seq;y.seq", header="ID;CO2;CH4")
    assert read_recordings(path) == [Recording("a", f"{tmp_path}/x.seq", f"{tmp_path}/y.seq")]


FAULTS = {
    "a/b,x,,,,,,": "id is 'a/b'; expected a name",
    "..,x,,,,,,": "id is '..'; expected a name",
    ",x,,,,,,": "id is ''; expected a name",
    "b,,,,,,,": "names no frames of either gas",
    "b,x,,soon,,,,": "offset_s is 'soon'; expected a number",
    "b,x,,1e999,,,,": "offset_s is '1e999'; expected a number",
    "b,x,,,,0,,": "mm_per_pixel is '0'; expected a number above 0",
    "b,x,,,,-2,,": "mm_per_pixel is '-2'; expected a number above 0",
    "b,x,,,,,auto,": "start_s is 'auto'; expected a number",
    "b,x,,,,,5,4": "start_s is 5 and stop_s 4; expected it to be later",
    "b,x,,,,,5,5": "start_s is 5 and stop_s 5; expected it to be later",
    'b,x,,,"9,3",,,': "range is '9,3'; expected recording, frame, or LOW,HIGH",
    "b,x,,,wide,,,": "range is 'wide'; expected recording, frame, or LOW,HIGH",
    "A,x,,,,,,": "the id A is that of row 2, too",
}


@pytest.mark.parametrize("row", FAULTS)
def test_a_fault_is_named_with_its_row(tmp_path, row):
    path = table(tmp_path, "a,x.seq,,,,,,", row)
    with pytest.raises(UserError) as refused:
        read_recordings(path)
    assert f"{path}: row 3: {FAULTS[row]}" in str(refused.value)


def test_all_rows_at_fault_are_named_at_once(tmp_path):
    with pytest.raises(UserError, match=r"row 2: names no frames.*; row 4: id is 'a/b'"):
        read_recordings(table(tmp_path, "a,,,,,,,", "b,x,,,,,,", "a/b,x,,,,,,"))


def test_what_is_no_list_is_refused(tmp_path):
    for path, message in [
        (tmp_path / "nothing.csv", "There is no file or folder"),
        (table(tmp_path), "holds no recording"),
        (files(tmp_path / "empty", "notes.txt"), "holds no recording"),
    ]:
        with pytest.raises(UserError, match=message):
            read_recordings(str(path))


def test_columns_that_are_not_read_are_noted(tmp_path):
    path = table(tmp_path, "a,x,,0.5,,", header="id,co2,ch4,mm,ph,")
    (note,) = unread_columns(path)
    assert note.startswith(f"{path} has columns that are not read: mm; known are offset_s, range, mm_per_pixel,")
    assert unread_columns(table(tmp_path, header=HEADER)) == unread_columns(str(tmp_path)) == ()


def test_a_folder_holds_a_folder_for_each_recording(tmp_path):
    files(tmp_path, "b/co2.seq", "b/ch4.seq", "b/notes.txt", "a/x_co2.mp4", "c/ch4.npy", ".git/co2.seq")
    files(tmp_path, "d/CO2/1.png", "d/CO2/2.png", "d/ch4/1.png", "e/neither.seq")
    assert listed(tmp_path) == {
        "a": ("a/x_co2.mp4", None),
        "b": ("b/co2.seq", "b/ch4.seq"),
        "c": (None, "c/ch4.npy"),
        "d": ("d/CO2", "d/ch4"),
    }


def test_a_folder_holds_films_named_for_recording_and_gas(tmp_path):
    files(tmp_path, "bottle3_co2.seq", "bottle3_ch4.seq", "bottle10_ch4.tif", "bottle10_co2.tif")
    files(tmp_path, "other.seq", "x_co2.txt")
    assert listed(tmp_path) == {
        "bottle10": ("bottle10_co2.tif", "bottle10_ch4.tif"),
        "bottle3": ("bottle3_co2.seq", "bottle3_ch4.seq"),
    }


def test_films_named_for_their_gas_alone_are_the_recording_of_the_folder(tmp_path):
    files(tmp_path / "bottle", "co2.seq", "ch4.seq")
    assert listed(tmp_path / "bottle") == {"bottle": ("co2.seq", "ch4.seq")}


def test_folders_named_for_their_gas_alone_are_the_recording_of_the_folder(tmp_path):
    files(tmp_path / "bottle", "co2/1.png", "co2/2.png", "CH4/1_ch4.png", "CH4/2_ch4.png")
    assert listed(tmp_path / "bottle") == {"bottle": ("co2", "CH4")}


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_one_image_of_each_gas_may_lie_among_other_files(tmp_path, ending):
    files(tmp_path, f"a/co2.{ending}", f"a/ch4.{ending}", "a/notes.txt", "a/settings.json")
    assert listed(tmp_path) == {"a": (f"a/co2.{ending}", f"a/ch4.{ending}")}


def test_images_of_both_gases_in_one_folder_pair_there(tmp_path):
    files(tmp_path, *(f"a/{i}_{gas}.png" for i in range(3) for gas in ("co2", "ch4")), "b/1_ch4.tif", "b/2_ch4.tif")
    assert listed(tmp_path) == {"a": ("a", "a"), "b": (None, "b")}


def test_films_count_before_pictures_beside_them(tmp_path):
    files(tmp_path, "a/co2.seq", "a/ch4.seq", "a/co2.jpg", "a/ch4.jpg", "a/x_co2.jpg")
    assert listed(tmp_path) == {"a": ("a/co2.seq", "a/ch4.seq")}


def test_two_films_of_one_gas_are_refused(tmp_path):
    files(tmp_path, "a/co2.seq", "a/old_co2.seq")
    with pytest.raises(UserError, match=r"co2\.seq and .*old_co2\.seq are both CO2 of the recording a\. Keep one"):
        read_recordings(str(tmp_path))
