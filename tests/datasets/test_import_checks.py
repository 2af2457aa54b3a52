"""What an import refuses or advises when it sees all frames together, and what is in the output already."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.fume_ogi import checks, merging
from datasets.fume_ogi.annotations import Frame, Row
from fume_jax.data.labels.manifest import SHEET
from fume_jax.schema import GAS, TUBE
from tests.commands import assert_refused, run
from tests.datasets import recordings
from tests.datasets.test_import import (
    BOTTLES,
    FIRST,
    FORMATS,
    FRAMES,
    MASKS,
    as_coco,
    as_folders,
    as_labelme,
    draw,
    import_from,
    rename,
    review,
    rows_of,
    table,
    write_images,
)


def recode(source, values):
    """Turns the masks of folders into others, by a table of their values 0, 1, 2; 255 becomes 0."""
    for path in source.rglob("masks/*/*.png"):
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.array(values, np.uint8)[np.where(mask > 2, 0, mask)]).save(path)


def faults_of(source):
    with (source.parent / "faults.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_another_picture_of_the_same_name_is_never_merged(source):
    path = source / BOTTLES[0] / "f2.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    table(source, f"recording,ph\n{BOTTLES[0]},6.5\n")
    before = {path: path.read_bytes() for path in (source.parent / "own").rglob("*") if path.is_file()}
    assert_refused(import_from(source, "--subject=cow7", "--replace"), "1 other_frame", "another --output")
    assert {path: path.read_bytes() for path in before} == before


def test_the_same_picture_in_another_file_is_the_same_frame(source):
    path = source / BOTTLES[0] / "f2.png"
    Image.open(path).save(path, compress_level=0)
    assert "8 unchanged" in import_from(source).stdout


def test_frames_that_moved_since_the_ph_of_their_folder_was_corrected_are_told(source):
    rename(source, BOTTLES[0], BOTTLES[0].replace("6.5", "5.3"))
    assert_refused(import_from(source), "2 same_frame", "pH 6.5, Healthy", "pH 5.3, Acidotic", "annotations.csv")
    shutil.rmtree(source.parent / "own")
    assert import_from(source).returncode == 0
    shutil.copytree(source / BOTTLES[1], source / "b9_ch4_pH5.3")
    assert_refused(import_from(source), "same_frame", "b9_ch4_pH5.3/f2.png")


@pytest.mark.parametrize(
    "values, held, way_out",
    [
        ((0, 0, 255), "ignore", "--values=255:gas,0:background"),
        ((0, 0, 1), "tube", "--values=1:gas,0:background"),
        ((0, 1, 255), "tube", "--values=255:gas,1:tube,0:background"),
        ((0, 0, 0), "background 100.00%", "all of them are 0"),
    ],
)
def test_an_import_without_gas_is_refused_with_the_way_out(tmp_path, values, held, way_out):
    source = tmp_path / "source"
    as_folders(source)
    recode(source, values)
    assert_refused(import_from(source, format="folders"), "1 no_gas", held, way_out)
    assert not (tmp_path / "own").exists()
    if flag := way_out if way_out.startswith("--values") else "":
        assert import_from(source, flag, format="folders").returncode == 0


def test_frames_without_gas_are_merged_with_those_that_show_it(source):
    for bottle, name in FRAMES:
        draw(source, np.zeros_like(MASKS[FRAMES[0]]), bottle, name)
    result = import_from(source, "--replace")
    assert result.returncode == 0 and "8 replaced" in result.stdout, result.stderr
    assert_refused(import_from(source), "no_gas", "--labels=NAME:gas")


def test_masks_without_tube_or_background_come_with_advice(tmp_path):
    source = tmp_path / "source"
    as_folders(source)
    recode(source, (0, 0, 255))
    assert "--tube=unknown --replace" in import_from(source, "--values=255:gas", format="folders").stdout
    result = import_from(source, "--values=255:gas", "--tube=unknown", "--replace", format="folders")
    assert "8 replaced" in result.stdout
    assert "--tube=unknown" not in result.stdout and "WARNING" not in result.stdout
    shutil.rmtree(tmp_path / "own")
    result = import_from(source, "--values=255:gas,0:gas", format="folders")
    assert "WARNING: no mask holds background" in result.stdout


@pytest.mark.parametrize("unknown", [False, True])
def test_a_tube_in_a_part_of_the_frames_of_a_recording_is_counted(source, unknown):
    told = "1 recording(s) have the tube in a part of their frames, such as b1_pH6.5: the tube is drawn in 2 of 4"
    assert "part of their frames" not in import_from(source).stdout, "drawn in all"
    for bottle, name in FRAMES[1:3]:
        draw(source, np.where(MASKS[bottle, name] == TUBE, 0, MASKS[bottle, name]), bottle, name)
    result = import_from(source, "--replace", *["--tube=unknown"] * unknown)
    assert result.returncode == 0, result.stderr
    assert (told in result.stdout) != unknown, "where background may be tube, nothing is taught of it"


@pytest.mark.parametrize("held, asked", [("folders", "labelme"), ("labelme", "folders"), ("yolo", "coco")])
def test_the_format_that_finds_labels_is_named_if_the_one_asked_for_finds_none(tmp_path, held, asked):
    source = tmp_path / "source"
    FORMATS[held](source)
    result = import_from(source, format=asked)
    assert_refused(result, "layout")
    assert f"note: --from={held} finds 8 labelled frames in {source}, {asked} none\n" in result.stdout
    assert "note: --from=" not in import_from(source, format=held).stdout


def test_masks_beside_their_images_are_folders(tmp_path):
    folder = tmp_path / "source" / "b1_co2_pH6.5"
    write_images(tmp_path / "source")
    for name in ("f2", "f10"):
        Image.fromarray(MASKS[BOTTLES[0], name]).save(folder / f"{name}_mask.png")
    result = import_from(tmp_path / "source")
    assert_refused(result, "holds no file of LabelMe")
    assert "--from=folders finds 2 labelled frames" in result.stdout


def test_frames_that_are_not_in_the_source_any_more_stay_and_are_counted(source):
    (source / BOTTLES[0] / "f2.json").unlink()
    shutil.rmtree(source / BOTTLES[1])
    result = import_from(source)
    assert "1 frames of these recordings that were imported before are not in the source" in result.stdout
    assert len(rows_of(source)) == len(MASKS)


def test_the_images_of_a_review_are_imported_without_its_folder(source):
    shutil.rmtree(source.parent / "own")
    review(source, np.where(MASKS[FRAMES[0]] == TUBE, 0, MASKS[FRAMES[0]]))
    (source / "images").mkdir()
    for path in source.glob("first_f2_co2.*"):
        path.rename(source / "images" / path.name)
    result = run(
        *("datasets.fume_ogi.import_labels", "--from=labelme", f"--source={source / 'images'}"),
        *(f"--output={source.parent / 'own'}", f"--report={source.parent / 'faults.csv'}"),
    )
    assert result.returncode == 0, result.stderr
    assert "review.csv: 1 frames of a review" in result.stdout
    assert rows_of(source)[FIRST]["label_source"] == "prediction"


def test_the_contact_sheet_of_a_review_is_no_unlabelled_image(source):
    shutil.copy(source / BOTTLES[0] / "f2.png", source / SHEET)
    assert "without a file of LabelMe" not in import_from(source).stdout


def test_columns_and_rows_of_a_table_without_effect_are_told(source):
    table(source, f"recording,ph,Animal\n{BOTTLES[0]},6.5,cow7\nb7,6.5,cow8\n")
    result = import_from(source)
    assert result.returncode == 0
    assert "columns that are not read: animal; known are gas, ph, class_name, subject" in result.stdout
    assert "1 rows of" in result.stdout and "match no recording: b7; the recordings are b1_ch4_pH6.5, " in result.stdout
    for path in source.rglob("*.json"):
        path.unlink()
    assert "match no recording: b1_co2_pH6.5, b7; no labelled frame was found\n" in import_from(source).stdout


def test_a_list_of_predict_is_a_table_of_recordings(source):
    table(source, f"id,co2,ch4,offset_s,ph,subject\n{BOTTLES[0]},a.seq,,0,6.5,cow7\n")
    result = import_from(source)
    assert result.returncode == 0 and "not read" not in result.stdout, result.stdout
    assert rows_of(source)[FIRST]["subject_id"] == "cow7"
    (source / "other.csv").write_text("film\nb1\n")
    assert_refused(import_from(source, f"--recordings={source / 'other.csv'}"), "recording", "docs/labels.md")


def test_a_class_is_given_for_all_frames(source):
    shutil.rmtree(source.parent / "own")
    for bottle in BOTTLES:
        rename(source, bottle, bottle.split("_pH")[0])
    assert_refused(import_from(source, "--ph=6.0"), "--class_name=Healthy")
    assert import_from(source, "--ph=6.0", "--class_name=acidotic").returncode == 0
    assert {row["class_id"] for row in rows_of(source).values()} == {"2"}


def test_a_recording_of_several_phs_is_told(source):
    shutil.rmtree(source.parent / "own")
    for bottle in BOTTLES:
        for name in ("f2", "f10"):
            for suffix in (".png", ".json"):
                (source / bottle / f"{name}{suffix}").rename(source / f"{bottle}_{name}{suffix}")
            path = source / f"{bottle}_{name}.json"
            path.write_text(path.read_text().replace(f"{name}.png", f"{bottle}_{name}.png"))
        (source / bottle).rmdir()
    result = import_from(source)
    assert result.returncode == 0, result.stderr
    assert "1 recording(s) have frames of several pHs, such as source (5.9, 6.5)" in result.stdout
    assert "A recording is a folder" in result.stdout


def test_faults_of_masks_name_the_mask_below_the_source(tmp_path):
    source = tmp_path / "source"
    as_folders(source)
    path = source / "masks" / BOTTLES[0] / "f2.png"
    Image.fromarray(np.where(np.asarray(Image.open(path)) == GAS, 7, 0).astype(np.uint8)).save(path)
    rename(source / "images", BOTTLES[1], "b1_pH6.5")
    rename(source / "masks", BOTTLES[1], "b1_pH6.5")
    assert_refused(import_from(source, format="folders"), "--values=7:CLASS", "background, tube, gas, ignore")
    assert {(row["kind"], row["place"]) for row in faults_of(source)} == {
        ("mask_values", f"masks/{BOTTLES[0]}/f2.png"),
        ("gas", "images/b1_pH6.5/f2.png"),
        ("gas", "images/b1_pH6.5/f10.png"),
    }


def test_a_report_of_an_earlier_failure_does_not_stay(source):
    (source / BOTTLES[0] / "f2.png").rename(source / "away.png")
    assert_refused(import_from(source), "missing_file")
    assert faults_of(source)
    (source / "away.png").rename(source / BOTTLES[0] / "f2.png")
    assert import_from(source).returncode == 0
    assert not faults_of(source)


@pytest.mark.parametrize("source, output", [("a", "a"), ("a", "a/own"), ("a/labels", "a")])
def test_source_and_output_do_not_lie_in_each_other(tmp_path, source, output):
    as_labelme(tmp_path / source)
    paths = [f"--source={tmp_path / source}", f"--output={tmp_path / output}"]
    assert_refused(run("datasets.fume_ogi.import_labels", "--from=labelme", *paths), "--output", "one in the other")


def test_a_file_may_have_the_output_beside_it(tmp_path):
    as_coco(tmp_path)
    paths = [
        f"--source={tmp_path / 'instances.json'}",
        f"--output={tmp_path / 'own'}",
        f"--report={tmp_path / 'r.csv'}",
    ]
    assert run("datasets.fume_ogi.import_labels", "--from=coco", *paths).returncode == 0


def test_packed_labels_are_to_be_unpacked(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "export.zip").write_bytes(b"PK")
    for path in (source, source / "export.zip"):
        assert_refused(import_from(path), "export.zip is packed", "unpack")


def test_the_next_command_runs_where_the_user_is(tmp_path, monkeypatch):
    checkout = Path(merging.__file__).parents[2]
    monkeypatch.chdir(checkout)
    assert merging.next_command(Path("own labels")).splitlines() == [
        "Prepare them with",
        "  python -m datasets.fume_ogi --source='own labels' --data_dir=data --name=own_labels",
    ]
    monkeypatch.chdir(tmp_path)
    assert merging.next_command(Path("own")).splitlines() == [
        f"Prepare them in {checkout} with",
        f"  python -m datasets.fume_ogi --source={tmp_path / 'own'} --data_dir=data --name=own",
    ]


def test_masks_with_transparency_say_how_to_save_them(tmp_path):
    source = tmp_path / "source"
    as_folders(source)
    path = source / "masks" / BOTTLES[0] / "f2.png"
    mask = np.asarray(Image.open(path))
    Image.fromarray(np.stack([mask, mask, mask, 255 * (mask > 0)], axis=-1).astype(np.uint8)).save(path)
    assert_refused(import_from(source, format="folders"), "mask_form", "save it without an alpha channel")


def test_the_same_pixels_of_one_gas_with_two_classes_are_a_fault():
    def row(number, gas, label, picture):
        frame = Frame(gas, f"{number}.png", f"{number}_mask.png", str(number), "0")
        return Row(f"row {number}", 6.5, label, (frame,)), picture

    rows = [
        row(2, "co2", 0, "a"),
        row(3, "co2", 0, "a"),
        row(4, "ch4", 1, "a"),
        row(5, "co2", 1, "a"),
        row(6, "co2", 2, "b"),
    ]

    class Content:
        def __init__(self, digest):
            self.frame_digest = digest

    contents = {found.frames[0].key: Content(picture) for found, picture in rows}
    (fault,) = checks.contradicting_frames({"": [found for found, _ in rows]}, contents)
    assert (fault.kind, fault.place) == ("contradicting_frame", "row 5")
    assert fault.message == "5.png is Transitional, and has the pixels of row 2, Healthy"


def test_a_level_that_no_row_has_is_a_fault_of_every_row(tmp_path):
    annotations = recordings.write(tmp_path)
    paths = [f"--source={tmp_path}", f"--annotations={annotations}", f"--report={tmp_path / 'faults.csv'}"]
    result = run("datasets.fume_ogi", *paths, f"--data_dir={tmp_path}", "--group_by=subject")
    assert_refused(result, "18 group", "subject_id")


def test_a_fault_of_no_row_is_allowed_without_dropping_any(tmp_path):
    annotations = recordings.write(tmp_path, lambda path, values: Image.fromarray(values % 2).save(path))
    paths = [f"--source={tmp_path}", f"--annotations={annotations}", f"--report={tmp_path / 'faults.csv'}"]
    result = run("datasets.fume_ogi", *paths, f"--data_dir={tmp_path}")
    assert_refused(result, "Correct them, or continue nevertheless: --allow=no_gas")
