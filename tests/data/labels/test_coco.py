"""COCO: files as cocodataset.org describes them, regions as its library has them, and every fault by its kind."""

import contextlib
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from pycocotools import mask as library
from pycocotools.coco import COCO

from fume_jax.data.labels import coco
from fume_jax.data.labels.label import UnusableMask
from fume_jax.schema import IGNORE
from tests.data.labels.masks import MEANING, VALUES_OF_JSON, box, image, kinds, put, random_mask, text

POLYGON = [[5.0, 5.0, 15.0, 5.0, 15.0, 10.0, 5.0, 10.0]]
IMAGES = [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}]
CATEGORIES = [{"id": 3, "name": "Gas", "supercategory": "plume"}, {"id": 1, "name": "tube"}]


def annotation(id=1, image_id=7, category_id=3, segmentation=POLYGON, **other):
    fixed = {"id": id, "image_id": image_id, "category_id": category_id, "segmentation": segmentation, "iscrowd": 0}
    return fixed | {"bbox": [5, 5, 10, 5], "area": 50.0} | other


def file(path, *annotations, images=IMAGES, categories=CATEGORIES):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"info": {"year": 2024}, "licenses": [], "images": images, "annotations": list(annotations)}
    path.write_text(json.dumps(content | {"categories": categories}))
    return path


def mask_of(folder, *annotations):
    image(folder / "a.png")
    labels = coco.read(file(folder / "instances.json", *annotations), MEANING)
    assert not labels.faults, text(labels)
    return labels.labels[0].read_mask()


def test_polygons_and_run_lengths_of_both_forms_are_those_of_the_library(tmp_path):
    region = box(5, 5, 15, 10)
    region[7, 7] = False
    compressed = library.encode(np.asfortranarray(region, np.uint8))
    compressed = {"size": [20, 30], "counts": compressed["counts"].decode()}
    flat = region.T.ravel()
    counts = np.diff(np.r_[0, np.flatnonzero(np.diff(flat)) + 1, flat.size]).tolist()
    slanted = [[3.3, 2.1, 17.9, 4.2, 11.5, 16.8], [20.5, 3.0, 25.0, 3.0, 25.0, 9.5, 20.5, 9.5]]
    for segmentation in (POLYGON, slanted, compressed, {"size": [20, 30], "counts": counts}):
        mask = mask_of(tmp_path, annotation(segmentation=segmentation, iscrowd=int(isinstance(segmentation, dict))))
        peer = COCO(str(tmp_path / "instances.json"))
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, peer.annToMask(peer.anns[1]) * 2)


def test_file_as_tools_write_it(tmp_path):
    image(tmp_path / "images" / "bottle_3" / "frame_1.png")
    path = tmp_path / "annotations" / "instances_default.json"
    path.parent.mkdir()
    path.write_text(
        """{"licenses": [{"name": "", "id": 0, "url": ""}],
"info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
"categories": [{"id": 1, "name": "plume", "supercategory": ""}, {"id": 2, "name": "unused", "supercategory": ""}],
"images": [{"id": 1, "width": 30, "height": 20, "file_name": "bottle_3/frame_1.png", "license": 0, "flickr_url": "",
  "coco_url": "", "date_captured": 0}],
"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"counts": [105, 5, 490], "size": [20, 30]},
  "area": 5.0, "bbox": [5.0, 5.0, 1.0, 5.0], "iscrowd": 1, "attributes": {"occluded": false}}]}"""
    )
    labels = coco.read(tmp_path, MEANING)
    (label,) = labels.labels
    assert label.image == tmp_path / "images" / "bottle_3" / "frame_1.png"
    assert (label.frame_index, label.name, label.recording, label.split) == (-1, "frame_1", "bottle_3", "")
    np.testing.assert_array_equal(label.read_mask(), box(5, 5, 6, 10) * 2)
    assert labels.faults == [] and labels.notes[0].startswith(
        "annotations of crowds (iscrowd), taken like others: 1 (such as "
    )


def test_later_ids_lie_over_earlier_ones(tmp_path):
    right = [[10, 5, 20, 5, 20, 10, 10, 10]]
    gas, tube = annotation(id=9), annotation(id=4, category_id=1, segmentation=right)
    np.testing.assert_array_equal(mask_of(tmp_path, gas, tube)[7, 4:21], [0] + [2] * 10 + [1] * 5 + [0])
    np.testing.assert_array_equal(mask_of(tmp_path, gas, tube | {"id": 10})[7, 4:21], [0] + [2] * 5 + [1] * 10 + [0])


@pytest.mark.parametrize(
    "path, where, split",
    [
        ("annotations/instances_train2017.json", "train2017", "train"),
        ("annotations/instances_val2017.json", "images/val2017", "val"),
        ("annotations/instances_val.json", "val", "val"),
        ("valid/_annotations.coco.json", "valid", "val"),
        ("test.json", "images", "test"),
        ("test.json", "", "test"),
        ("contested.json", "images", ""),
    ],
)
def test_splits_by_name_and_where_images_are(tmp_path, path, where, split):
    image(tmp_path / where / "a.png")
    file(tmp_path / path, annotation())
    (label,) = coco.read(tmp_path, MEANING).labels
    assert label.split == split and label.image == tmp_path / where / "a.png"


def test_images_without_annotation_are_counted_and_taken_only_if_asked(tmp_path):
    for name in "ab":
        image(tmp_path / f"{name}.png")
    file(tmp_path / "a.json", annotation(), images=[*IMAGES, IMAGES[0] | {"id": 8, "file_name": "b.png"}])
    labels = coco.read(tmp_path, MEANING)
    assert [label.name for label in labels.labels] == ["a"]
    told = "images without annotation, which may show nothing or not be labelled, left out: 1"
    assert labels.notes == [f"{told} (such as a.json, image 8)"]
    labels = coco.read(tmp_path, MEANING, empty_is_background=True)
    assert [label.name for label in labels.labels] == ["a", "b"] and not labels.labels[1].read_mask().any()
    assert labels.notes[0].endswith("taken as background: 1 (such as a.json, image 8)")


@pytest.mark.parametrize(
    "change, kind, message",
    [
        ({"annotations": [annotation(segmentation=[])]}, "outline", "a box alone"),
        ({"annotations": [annotation(segmentation=None, bbox=None)]}, "outline", "neither"),
        ({"annotations": [annotation(image_id=99)]}, "missing_file", "the image 99"),
        ({"annotations": [annotation(image_id=[7])]}, "missing_file", "the image None"),
        ({"annotations": [annotation(category_id=99)]}, "label", "the category 99"),
        ({"annotations": ["x"]}, "missing_file", "None"),
        ({"categories": [{"id": 3, "name": "smoke"}]}, "label", "--labels=smoke:CLASS"),
        ({"categories": [*CATEGORIES, {"id": 3, "name": "smoke"}]}, "duplicate", "the id 3"),
        ({"images": IMAGES * 2}, "duplicate", "the id 7"),
        ({"images": [*IMAGES, {"id": 8, "file_name": "a.png"}]}, "layout", "lacks height, width"),
        ({"images": [IMAGES[0] | {"height": 30, "width": 20}]}, "size", "viewers turn"),
        ({"images": [IMAGES[0] | {"height": 21}]}, "size", "30x21"),
        ({"images": [IMAGES[0] | {"file_name": "b.png"}]}, "missing_file", "no image b.png"),
        ({"images": [*IMAGES, IMAGES[0] | {"id": 8}]}, "duplicate", "two labels"),
    ],
)
def test_faults_are_named(tmp_path, change, kind, message):
    image(tmp_path / "a.png")
    content = {"images": IMAGES, "annotations": [annotation()], "categories": CATEGORIES} | change
    (tmp_path / "a.json").write_text(json.dumps(content))
    labels = coco.read(tmp_path, MEANING, empty_is_background=True)
    assert kinds(labels) == [kind] and message in labels.faults[0].message


def test_unused_categories_need_no_meaning_and_other_files_are_counted(tmp_path):
    image(tmp_path / "a.png")
    file(tmp_path / "a.json", annotation(), categories=[*CATEGORIES, {"id": 8, "name": "dog"}])
    (tmp_path / "captions.json").write_text('{"images": [], "annotations": []}')
    labels = coco.read(tmp_path, MEANING)
    assert not labels.faults and labels.notes == [
        "JSON files that are none of COCO, left out: 1 (such as captions.json)"
    ]


def test_damaged_files_and_nothing_at_all(tmp_path):
    assert kinds(coco.read(tmp_path, MEANING)) == ["layout"]
    (tmp_path / "a.json").write_text('{"images": [')
    assert kinds(coco.read(tmp_path, MEANING)) == ["unreadable_file", "layout"]


@pytest.mark.parametrize("counts", [[5], "5", "zz~"])
def test_run_lengths_at_fault_are_told_when_they_are_read(tmp_path, counts):
    with pytest.raises(UnusableMask, match=r"instances\.json, annotation 1: ") as error:
        mask_of(tmp_path, annotation(segmentation={"size": [20, 30], "counts": counts}))
    assert error.value.kind == "outline"


def test_what_is_written_is_read_bit_for_bit_here_and_by_the_library(tmp_path):
    masks = {f"r{seed % 2}/{seed:04d}.png": random_mask(seed) for seed in (*range(0, 300, 2), *range(1, 300, 2))}
    for name, mask in masks.items():
        image(tmp_path / name, *mask.shape)
    coco.write(tmp_path / "instances_train.json", masks.items())
    labels = coco.read(tmp_path, MEANING)
    assert not labels.faults and not labels.notes and not all(mask.any() for mask in masks.values())
    peer = COCO(str(tmp_path / "instances_train.json"))
    values = {"tube": 1, "gas": 2, "ignore": IGNORE, "not_gas": 254, "background": 0}
    for id, (label, mask) in enumerate(zip(labels.labels, masks.values(), strict=True), 1):
        np.testing.assert_array_equal(label.read_mask(), mask)
        found = np.zeros_like(mask)
        for entry in peer.imgToAnns[id]:
            found[peer.annToMask(entry) > 0] = values[peer.cats[entry["category_id"]]["name"]]
            assert entry["area"] == library.area(peer.annToRLE(entry))
            assert entry["bbox"] == library.toBbox(peer.annToRLE(entry)).tolist()
        np.testing.assert_array_equal(found, mask)
    assert {(label.recording, label.split) for label in labels.labels} == {("r0", "train"), ("r1", "train")}


KEYS = dict.fromkeys(["", *IMAGES[0], *CATEGORIES[0], *annotation(), "counts", "size"])


@hypothesis.given(st.sampled_from(list(KEYS)), VALUES_OF_JSON)
@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
def test_any_value_of_any_field_is_read_or_a_fault(once, key, value):
    folder = once("coco", lambda path: image(path / "a.png"))
    path = file(folder / "a.json", annotation(segmentation={"size": [20, 30], "counts": [100, 500]}), annotation(2))
    put(path, key, value)
    for label in coco.read(folder, MEANING).labels:
        with contextlib.suppress(UnusableMask):
            assert label.read_mask().shape == (20, 30)


@pytest.mark.parametrize("name", ["C:\\\\films\\\\b1_co2\\\\a.png", "/home/me/b1_co2/a.png"])
def test_paths_of_another_machine_are_found_by_their_names(tmp_path, name):
    image(tmp_path / "images" / "a.png")
    file(tmp_path / "a.json", annotation(), images=[IMAGES[0] | {"file_name": name.replace("\\\\", "\\")}])
    labels = coco.read(tmp_path, MEANING)
    (label,) = labels.labels
    assert not labels.faults and label.recording == "b1_co2" and label.image == tmp_path / "images" / "a.png"
    assert labels.notes == [
        "images that are not where `file_name` says, found by their name: 1 (such as a.json, image 7)"
    ]


def test_images_that_are_missing_come_with_advice(tmp_path):
    file(tmp_path / "a.json", annotation())
    (fault,) = coco.read(tmp_path, MEANING).faults
    assert fault.kind == "missing_file" and "export the labels with their images" in fault.message
