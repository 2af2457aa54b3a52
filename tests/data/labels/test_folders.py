"""Masks in folders: the layouts that are documented, and every fault in them by name."""

import numpy as np
import pytest

from fume_jax.data.labels.folders import read
from fume_jax.data.labels.label import Meaning, UnusableMask
from fume_jax.schema import GAS, IGNORE, TUBE
from tests.data.labels.files import MASK, MEANING, faults, listed, one_fault, write

LAYOUTS = {
    "folders in the recording": (
        {"b2/images/f_10.png": None, "b2/images/f_2.png": None, "b10/images/f_1.png": None}
        | {"b2/masks/f_10.png": MASK, "b2/masks/f_2.png": MASK, "b10/masks/f_1.png": MASK},
        [("b2", "", "f_2"), ("b2", "", "f_10"), ("b10", "", "f_1")],
    ),
    "recordings in the folders": (
        {"Images/day1/a/1.jpg": None, "Masks/day1/a/1.png": MASK, "Images/b/1.tif": None, "Masks/b/1.bmp": MASK},
        [("b", "", "1"), ("day1/a", "", "1")],
    ),
    "synonyms": (
        {"a/FRAMES/1.png": None, "a/annotations/1.png": MASK, "b/imgs/1.png": None, "b/labels/1.png": MASK},
        [("a", "", "1"), ("b", "", "1")],
    ),
    "one folder": (
        {"1.png": None, "1_mask.png": MASK, "2.jpg": None, "2-mask.png": MASK},
        [("", "", "1"), ("", "", "2")],
    ),
    "one folder for each recording": ({"a/1.png": None, "a/mask_1.png": MASK}, [("a", "", "1")]),
    "names of masks in their folder": (
        {"images/1.png": None, "masks/1_mask.png": MASK, "images/2.png": None, "masks/Mask_2.png": MASK},
        [("", "", "1"), ("", "", "2")],
    ),
    "masks beside images in a folder of images": ({"a/img/1.png": None, "a/img/1_MASK.png": MASK}, [("a", "", "1")]),
    "splits": (
        {
            "train/images/1.png": None,
            "train/masks/1.png": MASK,
            "valid/images/r/2.png": None,
            "valid/masks/r/2.png": MASK,
        },
        [("", "train", "1"), ("r", "val", "2")],
    ),
    "mmsegmentation": (
        {"img_dir/train/a/1.jpg": None, "ann_dir/train/a/1.png": MASK, "img_dir/val/2.jpg": None}
        | {"ann_dir/val/2.png": MASK, "img_dir/test/3.jpg": None, "ann_dir/test/3.png": MASK},
        [("", "test", "3"), ("a", "train", "1"), ("", "val", "2")],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_read_in_natural_order(tmp_path, layout):
    files, expected = LAYOUTS[layout]
    labels = read(write(tmp_path, files), MEANING)
    assert not labels.faults
    assert [(label.recording, label.split, label.name) for label in labels.labels] == expected
    for label in labels.labels:
        assert label.image.is_file() and label.frame_index == -1
        np.testing.assert_array_equal(label.read_mask(), MASK)
    name = layout if layout == "mmsegmentation" else "folders of images and masks"
    assert labels.notes[0] == f"{tmp_path} is read as {name}"


def test_what_is_left_out_or_guessed_is_noted(tmp_path):
    files = {"train/images/1.png": None, "train/images/2.png": None, "train/images/3.png": None, "train/notes.txt": "x"}
    labels = read(
        write(tmp_path, files | {"train/masks/1_mask.png": MASK, "train/a.npy": "x", ".hidden": "x"}), MEANING
    )
    assert [label.name for label in labels.labels] == ["1"] and not labels.faults
    assert labels.notes[1:] == [
        "files of .npy, neither images nor masks, not read: 1 (such as train/a.npy)",
        "masks known by their names: 1 (such as train/masks/1_mask.png)",
        "files of .txt, neither images nor masks, not read: 1 (such as train/notes.txt)",
        "images without a mask, left out: 2 (such as train/images/2.png)",
        "splits are taken from the folders: train",
    ]


def test_masks_are_read_late(tmp_path):
    bad = np.where(MASK == GAS, 9, 0).astype(np.uint8)
    (label,) = read(write(tmp_path, {"images/1.png": None, "masks/1.png": bad}), MEANING).labels
    with pytest.raises(UnusableMask, match="holds 9"):
        label.read_mask()
    (label,) = read(tmp_path, Meaning({9: TUBE}, {}, {})).labels
    np.testing.assert_array_equal(label.read_mask(), TUBE * (MASK == GAS))


GOOD = {"a/images/1.png": None, "a/masks/1.png": MASK}
FAULTS = {
    "mask without image": ({"a/masks/2.png": MASK}, "missing_file", "a/masks/2.png", "no image of this mask"),
    "size": (
        {"a/images/2.png": None, "a/masks/2.png": MASK[:, :5]},
        "size",
        "a/masks/2.png",
        "labels of 5x6 for a frame of 8x6",
    ),
    "two masks": ({"a/masks/1_mask.png": MASK}, "duplicate", "a/masks/1.png", "1_mask.png: another mask of the same"),
    "two images": (
        {"a/images/1.jpg": None},
        "duplicate",
        "a/images/1.jpg",
        "a/images/1.png: another image of the same",
    ),
    "damaged mask": (
        {"a/images/2.png": None, "a/masks/2.png": "x"},
        "unreadable_file",
        "a/masks/2.png",
        "not an image",
    ),
    "damaged image": ({"a/images/2.png": "", "a/masks/2.png": MASK}, "unreadable_file", "a/images/2.png", "is empty"),
    "a name in two splits": (
        {
            "train/a/images/2.png": None,
            "train/a/masks/2.png": MASK,
            "val/a/images/2.png": None,
            "val/a/masks/2.png": MASK,
        },
        "duplicate",
        "val/a/images/2.png",
        "has the name of train/a/images/2.png, '2', in the same recording",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(tmp_path, name):
    files, kind, place, message = FAULTS[name]
    found = one_fault(read(write(tmp_path, GOOD | files), MEANING))
    assert found[:2] == (kind, place) and message in found[2], found


def test_all_faults_are_found_at_once(tmp_path):
    files = {k: v for name, (files, *_) in FAULTS.items() if name[:3] != "two" for k, v in files.items()}
    found = read(write(tmp_path, files | {"a/masks/3.png": MASK}), MEANING)
    assert {kind for kind, _ in faults(found)} == {"unreadable_file", "missing_file", "duplicate"}


NO_LAYOUT = {
    "empty": ({}, "no folder, or an empty one; expected RECORDING/images"),
    "no masks": ({"images/1.png": None, "labels/1.txt": "0 0 0 1 1 0 1"}, "holds 1 images and 0 masks; expected"),
    "no images": ({"masks/1.png": MASK}, "holds 0 images and 1 masks; expected"),
    "two layouts": (
        {"img_dir/1.png": None, "imagesTr/1_0000.png": None},
        "nnU-Net v2 and mmsegmentation; expected one",
    ),
    "two layouts of folders": (GOOD | {"img_dir/1.png": None}, "mmsegmentation and folders of images and masks"),
    "two data sets": ({"a/imagesTr/1_0000.png": None, "b/labelsTr/1.png": MASK}, "of one data set, found a, b"),
}


@pytest.mark.parametrize("name", NO_LAYOUT)
def test_a_folder_of_no_or_several_layouts_is_a_fault(tmp_path, name):
    files, message = NO_LAYOUT[name]
    labels = read(write(tmp_path, files), MEANING)
    kind, place, found = one_fault(labels)
    assert (kind, place) == ("layout", tmp_path.as_posix()) and message in found and not labels.labels


DESCRIPTION = {
    "channel_names": {"0": "CO2"},
    "labels": {"background": 0, "Gas": 1, "tube": 2, "ignore": 3},
    "numTraining": 2,
    "file_ending": ".png",
}
NNUNET = {
    "Dataset001/dataset.json": DESCRIPTION,
    "Dataset001/imagesTr/b_002_0000.png": None,
    "Dataset001/imagesTr/b_010_0000.png": None,
    "Dataset001/labelsTr/b_002.png": np.arange(48, dtype=np.uint8).reshape(6, 8) % 4,
    "Dataset001/labelsTr/b_010.png": 0 * MASK,
}


def test_nnunet_values_are_those_of_its_names(tmp_path):
    labels = read(write(tmp_path, NNUNET), MEANING)
    assert not labels.faults and labels.notes == [f"{tmp_path} is read as nnU-Net v2"]
    assert listed(labels, tmp_path / "Dataset001") == [
        ("imagesTr/b_002_0000.png", "b_002", "", ""),
        ("imagesTr/b_010_0000.png", "b_010", "", ""),
    ]
    mask = labels.labels[0].read_mask()
    assert mask[0].tolist() == [0, GAS, TUBE, IGNORE] * 2


def test_nnunet_tests_are_a_split_if_they_have_masks(tmp_path):
    write(tmp_path, NNUNET | {"Dataset001/imagesTs/t_0000.png": None})
    labels = read(tmp_path, MEANING)
    assert {label.split for label in labels.labels} == {""} and not labels.faults
    assert labels.notes[1:] == ["images without a mask, left out: 1 (such as Dataset001/imagesTs/t_0000.png)"]
    labels = read(write(tmp_path, {"Dataset001/labelsTs/t.png": MASK}), MEANING)
    assert [(label.name, label.split) for label in labels.labels] == [
        ("b_002", "train"),
        ("b_010", "train"),
        ("t", "test"),
    ]


def test_values_of_the_user_count_more_than_those_of_nnunet(tmp_path):
    meaning = Meaning({1: TUBE, 2: GAS, 3: IGNORE}, {}, MEANING.names)
    labels = read(write(tmp_path, NNUNET), meaning)
    assert labels.labels[0].read_mask()[0, :4].tolist() == [0, TUBE, GAS, IGNORE]
    assert "values mean what --values says" in labels.notes[-1]


def test_names_of_nnunet_do_not_matter_where_the_user_lists_all_values(tmp_path):
    labels = {"background": 0, "nozzle": 1, "smoke": 2, "haze": [1, 2]}
    write(tmp_path, NNUNET | described(labels=labels) | {"Dataset001/labelsTr/b_002.png": MASK})
    found = read(tmp_path, Meaning({0: 0, 1: TUBE, 2: GAS}, {}, MEANING.names))
    assert not found.faults and found.labels[0].read_mask().tolist() == MASK.tolist()


def test_masks_of_a_class_that_nobody_knows_can_be_read(tmp_path):
    found = read(
        write(tmp_path, NNUNET | described(labels={"background": 0, "gas": 1, "tube": 2, "smoke": 3})), MEANING
    )
    assert faults(found) == [("label", "Dataset001/dataset.json")]
    assert found.labels[0].read_mask()[0, 1] == GAS


def described(**changes):
    return {
        "Dataset001/dataset.json": {key: value for key, value in (DESCRIPTION | changes).items() if value is not None}
    }


NNUNET_FAULTS = {
    "no JSON": ({"Dataset001/dataset.json": "{"}, "unreadable_file", "is damaged"),
    "no object": ({"Dataset001/dataset.json": "[]"}, "unreadable_file", "expected a JSON dict"),
    "version 1": (described(file_ending=None), "layout", "file_ending is missing"),
    "volumes": (described(file_ending=".nii.gz"), "layout", "files of .nii.gz are not read"),
    "files elsewhere": (described(dataset={"a": {}}), "layout", "copy them to imagesTr"),
    "regions": (
        described(labels={"background": 0, "gas": [1, 2]}),
        "label",
        "'gas' is the region of the values [1, 2]",
    ),
    "names by values": (described(labels={"0": "background"}), "label", "'0' has the value 'background'"),
    "an unknown name": (
        described(labels={"background": 0, "smoke": 1}),
        "label",
        "nobody says what 'smoke' is; say it by --labels=smoke:CLASS, where CLASS is one of background, tube, gas",
    ),
    "a value twice": (
        described(labels={"background": 0, "gas": 1, "tube": 1}),
        "label",
        "'tube' has the value 1, which",
    ),
    "ignore in between": (described(labels={"background": 0, "ignore": 1, "gas": 2}), "label", "the highest value"),
    "two gases": (described(channel_names={"0": "CO2", "1": "CH4"}), "layout", "make a data set for each gas"),
}


@pytest.mark.parametrize("name", NNUNET_FAULTS)
def test_faults_of_nnunet_are_named(tmp_path, name):
    files, kind, message = NNUNET_FAULTS[name]
    found = one_fault(read(write(tmp_path, NNUNET | files), MEANING))
    assert found[:2] == (kind, "Dataset001/dataset.json") and message in found[2], found


def test_a_second_channel_is_a_fault_and_so_is_none(tmp_path):
    further = {"Dataset001/imagesTr/b_002_0001.png": None, "Dataset001/imagesTr/c.png": None, "Dataset001/a.txt": "x"}
    labels = read(write(tmp_path, NNUNET | described(numTraining=7) | further), MEANING)
    assert faults(labels) == [("layout", "Dataset001/imagesTr/c.png"), ("layout", "Dataset001/dataset.json")]
    assert "such as Dataset001/imagesTr/b_002_0001.png; expected one channel" in labels.faults[1].message
    assert labels.notes[1:] == [
        "files of .txt, neither images nor masks, not read: 1 (such as Dataset001/a.txt)",
        "Dataset001/dataset.json counts 7 cases, labelsTr holds 2",
    ]


def test_a_missing_description_is_a_fault(tmp_path):
    write(tmp_path, {name: content for name, content in NNUNET.items() if not name.endswith("json")})
    assert one_fault(read(tmp_path, MEANING))[:2] == ("missing_file", "Dataset001/dataset.json")
