"""Data sets of Ultralytics: outlines, masks, descriptions, and every fault in them by name."""

import numpy as np
import pytest

from fume_jax.data.labels.label import Meaning
from fume_jax.data.labels.yolo import read
from fume_jax.schema import GAS, IGNORE, TUBE
from tests.data.labels.files import MASK, MEANING, faults, listed, one_fault, write

DATA = "path: .\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: Gas\n  1: tube\n"
# Of a frame of 8 x 6 pixels: gas in columns 2 to 6 of rows 2 to 4, tube in columns 0 to 4 of row 0, as in MASK.
GAS_ROW = "0 0.25 0.33333333 0.875 0.33333333 0.875 0.83333333 0.25 0.83333333"
TUBE_ROW = "1 0 0 0.625 0 0.625 0.16666667 0 0.16666667"
FILES = {
    "data.yaml": DATA,
    "images/train/a/f_10.png": None,
    "images/train/a/f_2.png": None,
    "images/val/1.jpg": None,
    "labels/train/a/f_10.txt": f"{GAS_ROW}\n{TUBE_ROW}\n",
    "labels/train/a/f_2.txt": f"\n{TUBE_ROW}\n",
    "labels/val/1.txt": GAS_ROW,
}


def test_outlines_are_read(tmp_path):
    labels = read(write(tmp_path, FILES), MEANING)
    assert not labels.faults and not labels.notes
    assert listed(labels, tmp_path) == [
        ("images/train/a/f_2.png", "f_2", "a", "train"),
        ("images/train/a/f_10.png", "f_10", "a", "train"),
        ("images/val/1.jpg", "1", "", "val"),
    ]
    masks = [label.read_mask() for label in labels.labels]
    assert masks[0].dtype == np.uint8
    for mask, values in zip(masks, ([TUBE], [GAS, TUBE], [GAS]), strict=True):
        np.testing.assert_array_equal(mask, np.where(np.isin(MASK, values), MASK, 0))


def test_images_without_outlines_are_background_which_is_noted(tmp_path):
    more = {"images/val/2.png": None, "images/val/3.png": None, "images/val/4.png": None, "labels/val/4.txt": "\n"}
    labels = read(write(tmp_path, FILES | more), MEANING)
    assert not labels.faults and [label.read_mask().max() for label in labels.labels[-3:]] == [0, 0, 0]
    assert labels.notes == [
        "images without a file of labels, taken as all background, as Ultralytics has it: 2 (such as images/val/2.png)",
        "images with an empty file of labels, taken as all background: 1 (such as labels/val/4.txt)",
    ]


def test_of_outlines_that_overlap_the_smaller_one_counts_and_of_one_size_the_later_one(tmp_path):
    whole = "0 0 0 1 0 1 1 0 1"
    files = {"labels/train/a/f_2.txt": f"{whole}\n{TUBE_ROW}", "labels/val/1.txt": f"{TUBE_ROW}\n{whole}"}
    labels = read(write(tmp_path, FILES | files), MEANING)
    assert not labels.notes
    for label in (labels.labels[0], labels.labels[2]):
        np.testing.assert_array_equal(label.read_mask(), np.where(MASK == TUBE, TUBE, GAS))
    write(tmp_path, {"labels/val/1.txt": f"0{TUBE_ROW[1:]}\n{TUBE_ROW}\n{GAS_ROW}"})
    np.testing.assert_array_equal(read(tmp_path, MEANING).labels[2].read_mask(), MASK)


DESCRIPTIONS = {
    "list of names": DATA.replace("\n  0: Gas\n  1: tube\n", " [gas, tube]\nnc: 2\n"),
    "no path": DATA.replace("path: .\n", ""),
    "list of folders": DATA.replace("train: images/train", "train: [images/train]"),
    "validation": DATA.replace("val:", "validation:"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_forms_of_the_description(tmp_path, name):
    write(tmp_path, FILES | {"data.yaml": DESCRIPTIONS[name]})
    labels = read(tmp_path / "data.yaml", MEANING)
    assert not labels.faults and not labels.notes
    assert [label.split for label in labels.labels] == ["train", "train", "val"]
    np.testing.assert_array_equal(labels.labels[1].read_mask(), MASK)


def test_the_layout_and_the_paths_that_roboflow_writes(tmp_path):
    data = "train: ../train/images\nval: ../valid/images\nnames: [gas]\n"
    files = {"dataset.yaml": data, "train/images/a.1.png": None, "train/labels/a.1.txt": GAS_ROW}
    labels = read(write(tmp_path, files | {"valid/images/b.png": None, "valid/labels/b.txt": ""}), MEANING)
    assert not labels.faults
    assert listed(labels, tmp_path) == [
        ("train/images/a.1.png", "a.1", "", "train"),
        ("valid/images/b.png", "b", "", "val"),
    ]
    assert labels.notes[0] == "dataset.yaml: train is ../train/images, which is not there, so train/images is taken"


def test_a_path_of_another_machine_is_noted(tmp_path):
    labels = read(write(tmp_path, FILES | {"data.yaml": DATA.replace("path: .", "path: /no/set")}), MEANING)
    assert len(labels.labels) == 3 and not labels.faults
    assert labels.notes == ["data.yaml: the path /no/set is not there, so the folder of the file is taken"]


def test_images_listed_in_a_file(tmp_path):
    data = DATA.replace("images/train", "train.txt").replace("images/val", "lists/val.txt")
    files = {"data.yaml": data, "train.txt": "./images/train/a/f_2.png\n\nimages/train/a/f_10.png\nimages/x.png\n"}
    labels = read(write(tmp_path, FILES | files | {"lists/val.txt": "../images/val/1.jpg\n"}), MEANING)
    assert [(label.name, label.recording, label.split) for label in labels.labels] == [
        ("f_2", "a", "train"),
        ("f_10", "a", "train"),
        ("1", "", "val"),
    ]
    assert faults(labels) == [("missing_file", "train.txt, line 4")]


NOT_THERE = "expected a folder of images, or a text file that lists them"
FAULTS = {
    "a box": ("0 0.5 0.5 0.2 0.2", "outline", "a box, which is no outline"),
    "two points and a half": ("0 0.5 0.5 0.2 0.2 0.1", "outline", "5 numbers after the class; expected x and y"),
    "an odd number": ("0 0 0 1 0 1 1 0", "outline", "7 numbers after the class"),
    "pixels": (f"{GAS_ROW}\n0 0 0 7 0 7 7", "outline", "holds 7; expected x / width and y / height, from 0 to 1"),
    "negative": ("0 0 0 -0.01 0 1 1", "outline", "holds -0.01; expected"),
    "an unknown class": ("2 0 0 1 0 1 1", "label", "the class is 2, expected one of names: 0, 1"),
    "half a class": ("0.5 0 0 1 0 1 1", "label", "the class is 0.5"),
    "words": ("gas 0 0 1 0 1 1", "outline", "holds something else than numbers"),
    "nan": ("0 0 0 1 nan 1 1", "outline", "holds something else than numbers"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_rows_are_named_with_file_and_line(tmp_path, name):
    text, kind, message = FAULTS[name]
    found = one_fault(read(write(tmp_path, FILES | {"labels/val/1.txt": text}), MEANING))
    line = 1 + text.count("\n")
    assert found[:2] == (kind, f"labels/val/1.txt, line {line}") and message in found[2], found


SET_FAULTS = {
    "an unknown name": ({"data.yaml": DATA.replace("Gas", "smoke")}, "label", "data.yaml", "--labels=smoke:CLASS"),
    "another number of names": (
        {"data.yaml": DATA + "nc: 3\n"},
        "label",
        "data.yaml",
        "nc is 3, but there are 2 names",
    ),
    "names by words": ({"data.yaml": DATA + "  x: ignore\n"}, "label", "data.yaml", "names has the key 'x'"),
    "no folder": ({"data.yaml": DATA.replace("test:", "test: images/x")}, "missing_file", "data.yaml", NOT_THERE),
    "labels without image": ({"labels/val/2.txt": GAS_ROW}, "missing_file", "labels/val/2.txt", "no image of these"),
    "no YAML": ({"data.yaml": "names: ["}, "unreadable_file", "data.yaml", "no YAML file"),
    "no names": ({"data.yaml": "train: images/train"}, "layout", "data.yaml", "expected the key names"),
    "no images": ({"data.yaml": "names: [gas]"}, "layout", "data.yaml", "names no images; expected the keys train"),
    "an object of Python": (
        {"data.yaml": "names: !!python/object:os.x {}"},
        "unreadable_file",
        "data.yaml",
        "no YAML file",
    ),
    "an image in two splits": (
        {"data.yaml": DATA.replace("test:", "test: images/val")},
        "duplicate",
        "images/val/1.jpg",
        "in test and in val",
    ),
    "a name twice": ({"images/val/1.png": None}, "duplicate", "images/val/1.png", "has the name of images/val/1.jpg"),
    "a binary file": (
        {"labels/val/1.txt": MASK.tobytes().decode("latin1")},
        "outline",
        "labels/val/1.txt, line 1",
        "else",
    ),
}


@pytest.mark.parametrize("name", SET_FAULTS)
def test_faults_of_a_data_set_are_named(tmp_path, name):
    files, kind, place, message = SET_FAULTS[name]
    found = one_fault(read(write(tmp_path, FILES | files), MEANING))
    assert found[:2] == (kind, place) and message in found[2], found


def test_the_description_is_found_or_a_fault(tmp_path):
    labels = read(write(tmp_path / "a", {"images/1.png": None}), MEANING)
    assert "holds no YAML file; expected one data.yaml" in one_fault(labels)[2]
    both = write(tmp_path / "b", FILES | {"dataset.yaml": DATA})
    assert "holds data.yaml, dataset.yaml; expected one" in one_fault(read(both, MEANING))[2]
    (both / "dataset.yaml").unlink()
    (both / "data.yaml").rename(both / "plumes.yaml")
    assert len(read(both, MEANING).labels) == 3


def test_a_data_set_without_any_labels_is_a_fault(tmp_path):
    write(tmp_path, {name: content for name, content in FILES.items() if not name.startswith("labels")})
    assert one_fault(read(tmp_path, MEANING))[2].startswith("no image has labels")


MASKS = {
    "data.yaml": DATA.replace("names:", "names:\n  2: background"),
    "images/train/a/1.png": None,
    "images/train/a/2.png": None,
    "images/val/3.png": None,
    "masks/train/a/1.png": np.array([[2, 0, 1, 255] * 2] * 6, np.uint8),
    "masks/val/3.tif": np.full((6, 8), 2, np.uint8),
}


@pytest.mark.parametrize("named", [False, True])
def test_masks_hold_the_numbers_of_names_and_255_to_ignore(tmp_path, named):
    data = MASKS["data.yaml"] + "masks_dir: masks\n" * named
    outlines = {"labels/train/a/1.txt": GAS_ROW} if named else {}
    labels = read(write(tmp_path, MASKS | outlines | {"data.yaml": data}), MEANING)
    assert not labels.faults
    assert listed(labels, tmp_path) == [
        ("images/train/a/1.png", "1", "a", "train"),
        ("images/val/3.png", "3", "", "val"),
    ]
    assert labels.labels[0].read_mask()[0].tolist() == [0, GAS, TUBE, IGNORE] * 2
    assert labels.labels[1].read_mask().max() == 0
    assert labels.notes == [
        "masks of the folders masks are read, no outlines",
        "images without a mask, left out: 1 (such as images/train/a/2.png)",
    ]


def test_faults_of_masks_are_named(tmp_path):
    more = {"masks/val/4.png": MASK, "images/val/5.png": None, "masks/val/5.png": MASK[:4]}
    data = MASKS["data.yaml"] + "masks_dir: masks\nlabel_mapping: {7: 0}\n"
    labels = read(write(tmp_path, MASKS | more | {"data.yaml": data}), MEANING)
    assert faults(labels) == [("layout", "data.yaml"), ("size", "masks/val/5.png"), ("missing_file", "masks/val/4.png")]
    labels = read(tmp_path, Meaning({0: GAS, 1: TUBE, 2: 0, 255: IGNORE}, {}, MEANING.names))
    assert [kind for kind, _ in faults(labels)] == ["size", "missing_file"]
