"""LabelMe: files as version 5 writes them, every shape, and every fault by its kind."""

import base64
import contextlib
import io
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from fume_jax.data.labels import labelme
from fume_jax.data.labels.label import UnusableMask
from fume_jax.schema import IGNORE, NOT_GAS
from tests.data.labels.masks import MEANING, VALUES_OF_JSON, box, image, kinds, put, random_mask, text


def png(patch):
    file = io.BytesIO()
    Image.fromarray(np.asarray(patch, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(label="gas", points=((5, 5), (15, 5), (15, 10), (5, 10)), shape_type="polygon", **other):
    points = [list(point) for point in points]
    fixed = {"label": label, "points": points, "group_id": None, "description": "", "shape_type": shape_type}
    return fixed | {"flags": {}, "mask": None} | other


def file(path, *shapes, **other):
    path.parent.mkdir(parents=True, exist_ok=True)
    fixed = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": f"{path.stem}.png"}
    path.write_text(json.dumps(fixed | {"imageData": None, "imageHeight": 20, "imageWidth": 30} | other))
    return path


def mask_of(folder, *shapes):
    image(folder / "a.png")
    file(folder / "a.json", *shapes)
    (label,) = labelme.read(folder, MEANING).labels
    return label.read_mask()


def test_file_as_the_tool_writes_it(tmp_path):
    image(tmp_path / "bottle 3" / "frame_7.png")
    (tmp_path / "bottle 3" / "frame_7.json").write_text(
        """{
  "version": "5.4.1",
  "flags": {"blurred": true, "checked": false},
  "shapes": [
    {
      "label": "Plume", "points": [[2.0, 3.0], [12.0, 3.0], [12.0, 13.0], [2.0, 13.0]],
      "group_id": 4, "description": "", "shape_type": "polygon", "flags": {"faint": true}, "mask": null
    },
    {
      "label": "tube", "points": [[10.0, 3.0], [14.0, 13.0]],
      "group_id": null, "description": null, "shape_type": "rectangle", "flags": {}
    }
  ],
  "imagePath": "frame_7.png",
  "imageData": "iVBORw0KGgo=",
  "imageHeight": 20,
  "imageWidth": 30
}"""
    )
    labels = labelme.read(tmp_path, MEANING)
    (label,) = labels.labels
    assert (label.image, label.frame_index, label.name) == (tmp_path / "bottle 3" / "frame_7.png", -1, "frame_7")
    assert (label.recording, label.split) == ("bottle 3", "")
    expected = box(2, 3, 12, 13) * 2
    expected[3:13, 10:14] = 1
    mask = label.read_mask()
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)
    assert labels.faults == []
    assert any("'blurred'" in note for note in labels.notes) and any("'faint'" in note for note in labels.notes)
    assert (
        "rectangles, taken as filled: 1 (such as bottle 3/frame_7.json, shape 2)" in labels.notes
        and "checked" not in text(labels)
    )


def test_later_shapes_lie_over_earlier_ones(tmp_path):
    first, second = shape("gas"), shape("tube", ((10, 5), (20, 5), (20, 10), (10, 10)))
    np.testing.assert_array_equal(mask_of(tmp_path, first, second)[7, 4:21], [0] + [2] * 5 + [1] * 10 + [0])
    np.testing.assert_array_equal(mask_of(tmp_path, second, first)[7, 4:21], [0] + [2] * 10 + [1] * 5 + [0])


def test_circle_by_its_centre_and_a_point_on_it(tmp_path):
    mask = mask_of(tmp_path, shape(points=((10, 10), (10, 13)), shape_type="circle"))
    assert mask.sum() == 2 * 32 and mask[7, 9] == 2 and mask[7, 7] == 0  # centres at most 3 away


def test_rectangle_of_four_points_and_oriented_rectangle(tmp_path):
    corners = ((5, 5), (15, 5), (15, 10), (5, 10))
    for kind in ("rectangle", "oriented_rectangle", None):
        np.testing.assert_array_equal(mask_of(tmp_path, shape(points=corners, shape_type=kind)), box(5, 5, 15, 10) * 2)


@pytest.mark.parametrize(
    "points, expected",
    [
        (((4, 6), (6, 7)), {(6, 4), (7, 6)}),
        (((4.4, 6.4), (9.0, 9.0)), {(6, 4), (7, 6)}),  # fractions give the first pixel
        (((-1, 6), (1, 7)), {(7, 1)}),  # cut off by the frame
        (((28, 19), (30, 20)), {(19, 28)}),
        (((4, 6), (5, 7)), {(6, 4)}),  # cropped to the box
    ],
)
def test_mask_in_its_box(tmp_path, points, expected):
    mask = mask_of(tmp_path, shape(points=points, shape_type="mask", mask=png([[1, 0, 0], [0, 0, 255]])))
    assert set(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True)) == expected


def test_shapes_without_area_are_counted_and_left_out(tmp_path):
    thin = [shape("anything", ((1, 1),), "point"), shape("gas", ((1, 1), (2, 2), (3, 9)), "linestrip")]
    assert not mask_of(tmp_path, *thin, shape("x", ((1, 1),), "point")).any()
    notes = labelme.read(tmp_path, MEANING).notes
    assert "shapes of the type point, which have no area and are left out: 2 (such as a.json, shape 1)" in notes
    assert "shapes of the type linestrip, which have no area and are left out: 1 (such as a.json, shape 2)" in notes


def test_file_without_shapes_is_background_and_image_without_file_is_left_out(tmp_path):
    for name in "abc":
        image(tmp_path / f"{name}.png")
    file(tmp_path / "a.json")
    (tmp_path / "dataset.json").write_text('{"labels": {"gas": 2}}')
    (tmp_path / "list.json").write_text("[1]")
    labels = labelme.read(tmp_path, MEANING)
    assert [label.name for label in labels.labels] == ["a"] and not labels.labels[0].read_mask().any()
    assert "images without a file of LabelMe, which are not labelled and left out: 2 (such as b.png)" in labels.notes
    assert "JSON files that are none of LabelMe, left out: 2 (such as dataset.json)" in labels.notes


@pytest.mark.parametrize("name", ["../images/r1/a.png", "..\\\\images\\\\r1\\\\a.png"])
def test_images_elsewhere_by_their_path(tmp_path, name):
    image(tmp_path / "images" / "r1" / "a.png")
    file(tmp_path / "json" / "a.json", shape(), imagePath=name.replace("\\\\", "\\"))
    (label,) = labelme.read(tmp_path, MEANING).labels
    assert label.image == tmp_path / "images" / "r1" / "a.png" and label.recording == "images/r1"


def test_image_beside_its_file_whatever_the_path_says(tmp_path):
    image(tmp_path / "a.png")
    file(tmp_path / "a.json", shape(), imagePath="C:\\Users\\me\\a.png")
    labels = labelme.read(tmp_path, MEANING)
    assert len(labels.labels) == 1 and "not where `imagePath` says" in text(labels)


def test_splits_are_folders_of_that_very_name(tmp_path):
    for folder in ("train/r1", "valid", "test of leaks"):
        image(tmp_path / folder / "a.png")
        file(tmp_path / folder / "a.json")
    found = {label.recording: label.split for label in labelme.read(tmp_path, MEANING).labels}
    assert found == {"train/r1": "train", "valid": "val", "test of leaks": ""}


def test_labels_are_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (20, 30), 90).save(tmp_path / "a.png", exif=exif)
    file(tmp_path / "a.json", shape())
    (label,) = labelme.read(tmp_path, MEANING).labels
    np.testing.assert_array_equal(label.read_mask(), box(5, 5, 15, 10) * 2)
    file(tmp_path / "a.json", shape(), imageHeight=30, imageWidth=20)
    labels = labelme.read(tmp_path, MEANING)
    assert kinds(labels) == ["size"] and "viewers turn" in labels.faults[0].message


@pytest.mark.parametrize(
    "change, kind, message",
    [
        ({"shapes": [shape("smoke"), shape("smoke")]}, "label", "'smoke' is, which is there 2 times"),
        ({"shapes": [shape("smoke")]}, "label", "--labels=smoke:CLASS"),
        ({"imageHeight": 21}, "size", "labels of 30x21 for a frame of 30x20"),
        ({"imagePath": "b.png"}, "missing_file", "there is no image b.png; put"),
        ({"imagePath": "b.png", "imageData": "iVBORw0KGgo="}, "missing_file", "write it beside the file as b.png"),
        ({"shapes": [shape(points=((1, 1), (2, 2)))]}, "outline", "2 points"),
        ({"shapes": [shape(points=((1, 1), (2, 2), (3, 1e6)))]}, "outline", "far outside"),
        ({"shapes": [shape(points=((1, 1), (2, 2), (3, "x")))]}, "outline", "no pairs"),
        ({"shapes": [shape(shape_type="circle", points=((1, 1), (1, 1)))]}, "outline", "above 0"),
        ({"shapes": [shape(shape_type="star")]}, "outline", "'star'"),
        ({"shapes": [{"points": []}]}, "outline", "no label"),
        ({"shapes": [shape(shape_type="mask", points=((1, 1), (2, 2)))]}, "outline", "'mask'"),
    ],
)
def test_faults_are_named(tmp_path, change, kind, message):
    image(tmp_path / "a.png")
    file(tmp_path / "a.json", **change)
    labels = labelme.read(tmp_path, MEANING)
    assert kinds(labels) == [kind] and message in labels.faults[0].message
    assert labels.faults[0].place.startswith("a.json")


def test_damaged_files_and_images_double_labels_and_nothing_at_all(tmp_path):
    assert kinds(labelme.read(tmp_path, MEANING)) == ["layout"]
    image(tmp_path / "a.png")
    file(tmp_path / "a.json")
    file(tmp_path / "a_again.json", imagePath="a.png")
    file(tmp_path / "c.json").write_text('{"shapes": [')
    (tmp_path / "d.png").write_bytes(b"no image")
    file(tmp_path / "d.json")
    image(tmp_path / "a.jpg")
    file(tmp_path / "e.json", imagePath="a.jpg")
    labels = labelme.read(tmp_path, MEANING)
    assert kinds(labels) == ["unreadable_file", "unreadable_file", "duplicate", "duplicate"]
    assert [fault.place for fault in labels.faults] == ["c.json", "d.png", "a.png", "a.jpg"]


@pytest.mark.parametrize("mask", ["no base64!", base64.b64encode(b"no image").decode(), png([[1]])])
def test_masks_that_cannot_be_read_are_told_when_they_are(tmp_path, mask):
    with pytest.raises(UnusableMask, match=r"a\.json, shape 1") as error:
        mask_of(tmp_path, shape(points=((1, 1), (3, 3)), shape_type="mask", mask=mask))
    assert error.value.kind == "outline"


@pytest.mark.parametrize("exact, count", [(True, 1000), (False, 60)])
def test_what_is_written_is_read_without_a_pixel_of_difference(tmp_path, exact, count):
    masks = [random_mask(seed) for seed in range(count)]
    for number, mask in enumerate(masks):
        image(tmp_path / f"{number:04d}.png", *mask.shape)
        labelme.write(tmp_path / f"{number:04d}.json", f"{number:04d}.png", mask, exact=exact)
    labels = labelme.read(tmp_path, MEANING)
    assert not labels.faults and not labels.notes and {IGNORE, NOT_GAS} <= set(np.concatenate(masks, None))
    for label, mask in zip(labels.labels, masks, strict=True):
        np.testing.assert_array_equal(label.read_mask(), mask)


def test_written_files_have_the_fields_of_the_tool(tmp_path):
    mask = box(5, 5, 15, 10).astype(np.uint8) * 2
    labelme.write(tmp_path / "a.json", "a.png", mask, exact=False, flags={"checked": False}, other={"source": "x"})
    content = json.loads((tmp_path / "a.json").read_text())
    fixed = {"version": "5.5.0", "imagePath": "a.png", "imageData": None, "imageHeight": 20, "imageWidth": 30}
    assert content == fixed | {"flags": {"checked": False}, "shapes": [shape()], "source": "x"}
    labelme.write(tmp_path / "a.json", "a.png", mask, exact=True)
    (written,) = json.loads((tmp_path / "a.json").read_text())["shapes"]
    assert written["points"] == [[5, 5], [14, 9]] and written["shape_type"] == "mask"
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(written["mask"])))).tolist() == [[1] * 10] * 5


@hypothesis.given(st.sampled_from(["", "imagePath", "imageData", "shapes", "imageWidth", *shape()]), VALUES_OF_JSON)
@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
def test_any_value_of_any_field_is_read_or_a_fault(once, key, value):
    folder = once("labelme", lambda path: image(path / "a.png"))
    file(folder / "a.json", shape(shape_type="mask", points=((1, 1), (2, 2)), mask=png([[1, 1], [1, 1]])))
    put(folder / "a.json", key, value)
    for label in labelme.read(folder, MEANING).labels:
        with contextlib.suppress(UnusableMask):
            assert label.read_mask().shape == (20, 30)
