"""CVAT: XML of images and films and folders of masks as the tool exports them, and every fault by its kind."""

import contextlib
import dataclasses
import re

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from fume_jax.data.labels import cvat
from fume_jax.data.labels.label import UnusableMask
from tests import videos
from tests.data.labels.masks import MEANING, box, image, kinds, random_mask, text

POLYGON = '<polygon label="gas" source="manual" occluded="0" points="5.00,5.00;15.00,5.00;15.00,10.00;5.00,10.00"{}/>'
META = """<meta><task><id>4</id><name>plumes</name><mode>{mode}</mode><start_frame>0</start_frame>
<stop_frame>{stop}</stop_frame><frame_filter>{filter}</frame_filter><labels><label><name>gas</name></label></labels>
{size}</task><dumped>2024-05-02 10:00:00+00:00</dumped>{source}</meta>"""


def images(path, *shapes, name="a.png", **other):
    attributes = {"id": "0", "name": name, "width": "30", "height": "20"} | other
    head = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    meta = META.format(mode="annotation", stop=0, filter="", size="", source="")
    body = "\n".join(shapes)
    document = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}<image {head}>{body}'
    path.write_text(f"{document}</image></annotations>")
    return path


def mask_of(folder, *shapes, **other):
    image(folder / "a.png")
    labels = cvat.read(images(folder / "annotations.xml", *shapes, **other), MEANING)
    assert not labels.faults, text(labels)
    return labels.labels[0].read_mask()


def test_every_shape_with_an_area(tmp_path):
    np.testing.assert_array_equal(mask_of(tmp_path, POLYGON.format("")), box(5, 5, 15, 10) * 2)
    rectangle = '<box label="gas" source="manual" occluded="0" xtl="5" ytl="5" xbr="15" ybr="10"{} z_order="0"></box>'
    np.testing.assert_array_equal(mask_of(tmp_path, rectangle.format("")), box(5, 5, 15, 10) * 2)
    turned = mask_of(tmp_path, '<box label="gas" xtl="5" ytl="5" xbr="15" ybr="9" rotation="90.00"/>')
    np.testing.assert_array_equal(turned, box(8, 2, 12, 12) * 2)
    ellipse = mask_of(tmp_path, '<ellipse label="gas" cx="10" cy="10" rx="3" ry="1" rotation="90.00"/>')
    np.testing.assert_array_equal(ellipse, box(9, 7, 11, 13) * 2)
    runs = '<mask label="gas" source="manual" occluded="0" rle="1, 2, 2, 1" left="4" top="6" width="3" height="2"/>'
    np.testing.assert_array_equal(np.argwhere(mask_of(tmp_path, runs)), [[6, 5], [6, 6], [7, 6]])


def test_boxes_turn_clockwise(tmp_path):
    mask = mask_of(tmp_path, '<box label="gas" xtl="5" ytl="9" xbr="25" ybr="11" rotation="30"/>')
    assert mask[14, 23] == 2 and mask[5, 23] == 0  # the right end goes down


def test_z_order_decides_and_then_the_order_of_the_file(tmp_path):
    tube = (
        '<polygon label="tube" points="10,5;20,5;20,10;10,10" z_order="{}"><attribute name="a">b</attribute></polygon>'
    )
    gas_last = [0] + [2] * 10 + [1] * 5 + [0]
    tube_last = [0] + [2] * 5 + [1] * 10 + [0]
    for orders, expected in (((1, 0), gas_last), ((0, 0), tube_last), ((-1, 0), tube_last)):
        shapes = POLYGON.format(f' z_order="{orders[0]}"'), tube.format(orders[1])
        np.testing.assert_array_equal(mask_of(tmp_path, *shapes)[7, 4:21], expected)


def test_images_without_regions_are_counted_and_taken_only_if_asked(tmp_path):
    image(tmp_path / "images" / "r1" / "a.png")
    path = images(
        tmp_path / "annotations.xml", '<tag label="x"/>', '<polyline label="x"/>', name="r1/a.png", subset="Test"
    )
    labels = cvat.read(tmp_path, MEANING)
    assert not labels.labels and not labels.faults
    told = "images without regions, which may show nothing or not be labelled, left out: 1"
    assert f"{told} (such as annotations.xml, image r1/a.png)" in labels.notes
    labels = cvat.read(path, MEANING, empty_is_background=True)
    told = "shapes of the type polyline, which are left out: 1"
    assert f"{told} (such as annotations.xml, image r1/a.png, polyline)" in labels.notes
    (label,) = labels.labels
    assert (label.recording, label.split, label.name) == ("r1", "test", "a") and not label.read_mask().any()


@pytest.mark.parametrize(
    "shape, kind, message",
    [
        ('<polygon label="smoke" points="1,1;2,2;3,9"/>', "label", "--labels=smoke:CLASS"),
        ('<polygon points="1,1;2,2;3,9"/>', "label", "''"),
        ('<polygon label="gas" points="1,1;2,2"/>', "outline", "2 points"),
        ('<polygon label="gas" points="1,1;2,x;3,9"/>', "outline", "no pairs of numbers"),
        ('<polygon label="gas"/>', "outline", "no pairs of numbers"),
        ('<polygon label="gas" points="1,1;2,2;3,9" z_order="top"/>', "outline", "no number"),
        ('<box label="gas" xtl="1" ytl="1" xbr="5"/>', "outline", "no number"),
        ('<ellipse label="gas" cx="5" cy="5" rx="0" ry="2"/>', "outline", "above 0"),
        ('<mask label="gas" rle="1, x" left="4" top="6" width="3" height="2"/>', "outline", "no number"),
    ],
)
def test_faults_of_shapes_are_named(tmp_path, shape, kind, message):
    image(tmp_path / "a.png")
    labels = cvat.read(images(tmp_path / "a.xml", shape), MEANING)
    assert kinds(labels) == [kind] and message in labels.faults[0].message
    assert labels.faults[0].place.startswith("a.xml, image a.png")


@pytest.mark.parametrize(
    "other, kind", [({"name": "b.png"}, "missing_file"), ({"width": "31"}, "size"), ({"width": ""}, "size")]
)
def test_faults_of_images_are_named(tmp_path, other, kind):
    image(tmp_path / "a.png")
    assert kinds(cvat.read(images(tmp_path / "a.xml", POLYGON.format(""), **other), MEANING)) == [kind]


def test_run_lengths_at_fault_are_told_when_they_are_read(tmp_path):
    with pytest.raises(UnusableMask, match=r"annotations\.xml, image a\.png, mask: .* a sum of 5"):
        mask_of(tmp_path, '<mask label="gas" rle="1, 2, 2" left="4" top="6" width="3" height="2"/>')


def test_xml_that_defines_entities_or_is_damaged(tmp_path):
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
    bomb = f'<!DOCTYPE annotations [<!ENTITY e0 "x">{entities}]><annotations><meta>&e8;</meta></annotations>'
    for number, content in enumerate((bomb.encode(), bomb.encode("utf-16"), b"<annotations><meta>", b"")):
        (tmp_path / f"{number}.xml").write_bytes(content)
    (tmp_path / "voc.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    labels = cvat.read(tmp_path, MEANING)
    assert kinds(labels) == ["unreadable_file"] * 4 + ["layout"]
    assert "DOCTYPE" in labels.faults[0].message and "DOCTYPE" in labels.faults[1].message
    assert labels.notes == ["XML files that are none of CVAT, left out: 1 (such as voc.xml)"]


def test_what_is_written_is_read_bit_for_bit(tmp_path):
    masks = {f"r{seed % 2}/{seed:04d}.png": random_mask(seed) for seed in (*range(0, 300, 2), *range(1, 300, 2))}
    for name, mask in masks.items():
        image(tmp_path / "images" / name, *mask.shape)
    cvat.write(tmp_path / "annotations.xml", masks.items())
    labels = cvat.read(tmp_path, MEANING)
    assert not labels.faults and not labels.notes and not all(mask.any() for mask in masks.values())
    for label, mask in zip(labels.labels, masks.values(), strict=True):
        np.testing.assert_array_equal(label.read_mask(), mask)


STRANGE = ["", "-1", "x", "1e9", "nan", "9" * 5000, "٣", "1,2", "0;0", ";"]


@hypothesis.given(st.integers(0, 40), st.sampled_from(STRANGE))
@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
def test_any_value_of_any_attribute_is_read_or_a_fault(once, position, value):
    folder = once("cvat", lambda path: image(path / "a.png"))
    mask = '<mask label="gas" rle="1, 2, 2, 1" left="4" top="6" width="3" height="2" z_order="1"/>'
    ellipse = '<ellipse label="gas" cx="10" cy="10" rx="3" ry="1" rotation="90.00"/>'
    path = images(folder / "annotations.xml", POLYGON.format(""), mask, ellipse)
    content = path.read_text()
    places = list(re.finditer('(?<==")[^"]*(?=")', content))[2:]
    place = places[position % len(places)]
    path.write_text(content[: place.start()] + value + content[place.end() :])
    for label in cvat.read(folder, MEANING).labels:
        with contextlib.suppress(UnusableMask):
            assert label.read_mask().shape == (20, 30)


# Films


def shape(frame, outside=0, keyframe=1, tag="polygon", left=5):
    if tag == "mask":
        what = f'rle="0, 6" left="{left}" top="6" width="3" height="2"'
    elif tag == "box":
        what = f'xtl="{left}" ytl="5" xbr="15" ybr="10"'
    else:
        what = f'points="{left},5;15,5;15,10;{left},10"'
    return f'<{tag} frame="{frame}" keyframe="{keyframe}" outside="{outside}" occluded="0" {what} z_order="0"></{tag}>'


def film(folder, *tracks, stop=9, filter="", width=videos.WIDTH, source="film.avi", label="gas", frames=10):
    if frames:
        videos.encode(folder / "film.avi", [videos.flat(90)] * frames)
    size = f"<original_size><width>{width}</width><height>{videos.HEIGHT}</height></original_size>"
    source = f"<source>{source}</source>" if source else ""
    meta = META.format(mode="interpolation", stop=stop, filter=filter, size=size, source=source)
    body = "".join(
        f'<track id="{n}" label="{label}" source="manual">{"".join(track)}</track>' for n, track in enumerate(tracks)
    )
    (folder / "annotations.xml").write_text(f"<annotations><version>1.1</version>{meta}{body}</annotations>")
    return folder


def frames_of(folder, **options):
    labels = cvat.read(folder, MEANING, **options)
    assert not labels.faults, text(labels)
    return {label.frame_index: int(np.count_nonzero(label.read_mask())) for label in labels.labels}, labels


def test_tracks_until_they_are_outside(tmp_path):
    moving = [shape(2), shape(3, keyframe=0, left=6), shape(4, left=7), shape(5, outside=1, left=7)]
    single = [shape(8, tag="mask"), shape(9, outside=1, tag="mask")]
    found, labels = frames_of(film(tmp_path, moving, single))
    assert found == {2: 50, 3: 45, 4: 40, 8: 6}
    first = labels.labels[0]
    assert (first.image, first.name, first.recording) == (tmp_path / "film.avi", "frame_000002", "film")
    assert first.read_mask().shape == (videos.HEIGHT, videos.WIDTH)
    told = "frames of films where tracks end and nothing else is, left out: 2"
    assert labels.notes == [f"{told} (such as annotations.xml, frame 5)"]
    found, _ = frames_of(tmp_path, empty_is_background=True)
    assert found == {2: 50, 3: 45, 4: 40, 5: 0, 8: 6, 9: 0}


@pytest.mark.parametrize("tag", ["box", "polygon", "mask"])
def test_frames_in_a_gap_are_left_out_whatever_other_tracks_show(tmp_path, tag):
    gapped = [shape(1, tag=tag), shape(4, tag=tag), shape(5, outside=1, tag=tag)]
    whole = [*(shape(frame) for frame in range(6)), shape(6, outside=1)]
    found, labels = frames_of(film(tmp_path, gapped, whole))
    assert sorted(found) == [0, 1, 4, 5]
    told = "gaps of tracks, with no shape and no end, whose frames are not known and left out: 1"
    assert labels.notes[0] == f"{told} (such as annotations.xml, frame 2)"


def test_track_without_end_is_not_known_until_the_film_ends(tmp_path):
    found, labels = frames_of(film(tmp_path, [shape(1)], [shape(frame) for frame in range(10)]))
    assert sorted(found) == [0, 1] and "gaps of tracks" in labels.notes[0]
    # In the last two frames the tool writes no end.
    found, labels = frames_of(film(tmp_path, [shape(8)], [shape(9)]))
    assert sorted(found) == [8, 9] and not labels.notes


def test_frames_of_a_task_with_a_step_are_those_of_the_film(tmp_path):
    found, labels = frames_of(film(tmp_path, [shape(0), shape(3), shape(6), shape(9)], filter="step=3"))
    assert sorted(found) == [0, 3, 6, 9] and not labels.notes


def test_exported_frames_stand_in_for_the_film(tmp_path):
    for frame in (2, 3):
        image(tmp_path / "images" / f"frame_{frame:06d}.PNG", videos.HEIGHT, videos.WIDTH)
    labels = cvat.read(film(tmp_path, [shape(2), shape(3), shape(4, outside=1)], frames=0), MEANING)
    assert [(label.image.name, label.frame_index) for label in labels.labels] == [
        ("frame_000002.PNG", -1),
        ("frame_000003.PNG", -1),
    ]


def test_film_as_images_is_read_from_the_film(tmp_path):
    film(tmp_path, [])
    content = images(
        tmp_path / "annotations.xml", POLYGON.format(""), name="frame_000003", width="64", height="48"
    ).read_text()
    (tmp_path / "annotations.xml").write_text(content.replace("</meta>", "<source>film.avi</source></meta>"))
    (label,) = cvat.read(tmp_path, MEANING).labels
    assert (label.image.name, label.frame_index, label.recording) == ("film.avi", 3, "film")
    assert label.name == "frame_000003" and label.read_mask().shape == (48, 64)


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({"frames": 0}, "missing_file", "no film film.avi"),
        ({"source": "", "frames": 10}, "missing_file", "<source>"),
        ({"frames": 3}, "missing_file", "has 3 frames"),
        ({"width": 65}, "size", "65x48"),
        ({"label": "smoke"}, "label", "--labels=smoke:CLASS"),
    ],
)
def test_faults_of_films_are_named(tmp_path, options, kind, message):
    labels = cvat.read(film(tmp_path, [shape(4), shape(5, outside=1)], **options), MEANING)
    assert kinds(labels) == [kind] and message in labels.faults[0].message


@pytest.mark.parametrize("frame", ["-1", "x", "", "9" * 9, "9" * 5000])
def test_any_number_of_a_frame_is_read_or_a_fault(tmp_path, frame):
    path = film(tmp_path, [shape(1), shape(2, outside=1)]) / "annotations.xml"
    path.write_text(path.read_text().replace('frame="1"', f'frame="{frame}"'))
    assert kinds(cvat.read(path, MEANING)) == (["missing_file"] if len(frame) == 9 else ["layout"])


def test_tracks_at_fault(tmp_path):
    twice = [shape(2), shape(2), shape(3, outside=1), shape(4).replace('frame="4"', "")]
    labels = cvat.read(film(tmp_path, twice), MEANING)
    assert kinds(labels) == ["layout", "layout"] and "two shapes in frame 2" in labels.faults[0].message
    path = film(tmp_path, [shape(9)], [shape(9)]) / "annotations.xml"
    path.write_text(path.read_text().replace('track id="0"', 'track id="0" task_id="1"'))
    assert "several tasks" in cvat.read(path, MEANING).faults[0].message
    (tmp_path / "film.avi").write_bytes(b"no film")
    labels = cvat.read(film(tmp_path, [shape(8)], [shape(9)], frames=0), MEANING)
    assert kinds(labels) == ["unreadable_file"]


# Segmentation mask 1.1

LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nplume:250,50,83::\ntube:51,221,255::\n"
COLORS = np.array([[0, 0, 0], [51, 221, 255], [250, 50, 83]], np.uint8)


def folder_of(folder, labelmap=LABELMAP, form="RGB"):
    image(folder / "JPEGImages" / "r1" / "a.png")
    mask = box(5, 5, 15, 10).astype(np.uint8) * 2
    mask[0] = 1
    path = folder / "SegmentationClass" / "r1" / "a.png"
    path.parent.mkdir(parents=True)
    if form == "RGB":
        Image.fromarray(COLORS[mask]).save(path)
    elif form == "P":
        picture = Image.fromarray(mask, "P")
        picture.putpalette(COLORS.ravel().tolist())
        picture.save(path)
    else:
        Image.fromarray(np.array([0, 2, 1], np.uint8)[mask]).save(path)  # numbers of the lines
    (folder / "labelmap.txt").write_text(labelmap)
    sets = folder / "ImageSets" / "Segmentation"
    sets.mkdir(parents=True)
    (sets / "Validation.txt").write_text("r1/a\nr1/b\n")
    return mask


@pytest.mark.parametrize("form", ["RGB", "P", "L"])
def test_masks_in_colours(tmp_path, form):
    expected = folder_of(tmp_path, form=form)
    labels = cvat.read(tmp_path, MEANING)
    (label,) = labels.labels
    np.testing.assert_array_equal(label.read_mask(), expected)
    assert (label.image, label.recording, label.split) == (tmp_path / "JPEGImages" / "r1" / "a.png", "r1", "val")
    assert labels.faults == []
    told = "images of ImageSets without a mask, which are not labelled and left out: 1"
    assert labels.notes == [f"{told} (such as r1/b)"]


@pytest.mark.parametrize(
    "labelmap, kind, message",
    [
        (LABELMAP + "smoke:1,2,3::", "label", "--labels=smoke:CLASS"),
        (LABELMAP + "ignore:0,0,0::", "layout", "a colour of its own"),
        ("# nothing\n", "layout", "no label"),
        (LABELMAP + "ignore:", "layout", "name:red,green,blue"),
        (LABELMAP + "ignore:1,2,300::", "layout", "name:red,green,blue"),
    ],
)
def test_faults_of_labelmap_are_named(tmp_path, labelmap, kind, message):
    folder_of(tmp_path, labelmap)
    labels = cvat.read(tmp_path, MEANING)
    assert kinds(labels) == [kind] and message in labels.faults[0].message


def test_faults_of_folders_are_named(tmp_path):
    folder_of(tmp_path)
    image(tmp_path / "JPEGImages" / "r1" / "a.png", 21)
    image(tmp_path / "SegmentationClass" / "c.png")
    labels = cvat.read(tmp_path, MEANING)
    assert kinds(labels) == ["missing_file", "size"] and "no image c" in labels.faults[0].message
    (tmp_path / "labelmap.txt").unlink()
    assert kinds(cvat.read(tmp_path, MEANING)) == ["missing_file"]


def test_colours_that_are_not_listed_are_refused_unless_the_user_lists_them(tmp_path):
    expected = folder_of(tmp_path)
    path = tmp_path / "SegmentationClass" / "r1" / "a.png"
    picture = np.asarray(Image.open(path)).copy()
    picture[3, :2] = (250, 50, 84)
    Image.fromarray(picture).save(path)
    (label,) = cvat.read(tmp_path, MEANING).labels
    with pytest.raises(UnusableMask, match=r"#fa3254 \(2 pixels\)") as error:
        label.read_mask()
    assert error.value.kind == "mask_values"
    for meaning in (
        dataclasses.replace(MEANING, colors={(250, 50, 84): 2}),
        dataclasses.replace(MEANING, nearest=True),
    ):
        (label,) = cvat.read(tmp_path, meaning).labels
        expected[3, :2] = 2
        np.testing.assert_array_equal(label.read_mask(), expected)
