"""Masks in every form: their classes, or a fault that says what is wrong with them."""

import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.fume_ogi.annotations import Frame, Row
from datasets.fume_ogi.checks import noted_frames
from datasets.fume_ogi.content import check_content, read_mask
from datasets.fume_ogi.plan import FaultyRecordings, Options, make_plan
from fume_jax.data.images import UnreadableFrame
from fume_jax.data.labels.label import UnusableMask
from fume_jax.data.video import VideoWriter
from tests.datasets import recordings

VALUES = np.array([0, 1, 2, 254, 255], np.uint8)
MASK = np.random.default_rng(0).integers(0, 3, (20, 30), np.uint8)
GREYS = np.array([2, 0, 1])


def palette(values, colors):
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette(list(np.ravel(colors)))
    return image


def grey(*levels):
    return [(level, level, level) for level in levels]


def deep(values):
    return lambda path: cv2.imwrite(str(path), values)


VOC = [(0, 0, 0), (90, 160, 255), (255, 140, 0)]
RIGHT = {
    "grey.png": Image.fromarray(MASK),
    "grey.bmp": Image.fromarray(MASK),
    "grey.gif": Image.fromarray(MASK),
    "grey.tif": Image.fromarray(MASK),
    "colours_are_equal.png": Image.fromarray(np.dstack([MASK] * 3)),
    "indices.png": palette(MASK, VOC),
    "indices_of_rising_greys.png": palette(MASK, grey(0, 127, 255)),
    # The picture of a grey mask, as programs that make files smaller leave it.
    "greys_in_another_order.png": palette(np.argsort(GREYS)[MASK], grey(*GREYS)),
    "grey_and_opaque.png": Image.fromarray(np.dstack([MASK, 0 * MASK + 255])),
    "colour_and_opaque.png": Image.fromarray(np.dstack([MASK] * 3 + [0 * MASK + 255])),
    "16_bits.png": deep(MASK.astype(np.uint16)),
    "16_bits_of_colour.png": deep(np.dstack([MASK.astype(np.uint16)] * 3)),
    "32_bits.tif": Image.fromarray(MASK.astype(np.int32)),
    "whole_floats.tif": Image.fromarray(MASK.astype(np.float32)),
    "lossless.webp": lambda path: Image.fromarray(MASK).save(path, lossless=True),
}
WRONG = {
    "fractions.tif": (Image.fromarray(0.95 * MASK.astype(np.float32)), "mask_values", "holds 0, 0.95, 1.9"),
    "nan.tif": (
        Image.fromarray(np.where(MASK == 2, np.nan, MASK).astype(np.float32)),
        "mask_values",
        "holds 0, 1, nan",
    ),
    "ignored_is_minus_one.tif": (Image.fromarray(MASK.astype(np.int32) - 1), "mask_values", "holds -1, 0, 1"),
    "black_and_white.png": (Image.fromarray(np.where(MASK == 2, 128, 0).astype(np.uint8)), "mask_values", "0, 128"),
    "unknown.png": (Image.fromarray(0 * MASK + 255), "mask_values", "holds 255 alone, of which nothing"),
    "unknown_and_sorted.png": (palette(MASK, grey(255, 100, 0)), "mask_form", "0 is 255, 1 is 100, 2 is 0"),
    "steps_of_127.png": (Image.fromarray(127 * MASK), "mask_values", "holds 0, 127, 254"),
    "wrapped_round.png": (deep(MASK.astype(np.uint16) + 256), "mask_values", "holds 256, 257, 258"),
    "deep_colour.png": (deep(np.dstack([MASK.astype(np.uint16) * 256] * 3)), "mask_values", "holds 0, 256, 512"),
    "lossy.webp": (lambda path: Image.fromarray(MASK).save(path, quality=80), "mask_form", "lossy WebP"),
    "lossy.jpg": (lambda path: Image.fromarray(MASK).save(path, quality=100), "mask_form", "JPEG, which changes"),
    "lossy.tif": (lambda path: Image.fromarray(MASK).save(path, compression="jpeg"), "mask_form", "compressed as jpeg"),
    "colours.png": (Image.fromarray(np.dstack([MASK, 0 * MASK, 0 * MASK])), "mask_form", "a colour image"),
    "transparent.png": (Image.fromarray(np.dstack([MASK, 100 * MASK])), "mask_form", "partly transparent"),
    "sorted_greys.png": (palette(MASK, grey(255, 0, 127)), "mask_form", "0 is 255, 1 is 0, 2 is 127"),
    "one_colour.png": (palette(MASK, grey(0, 0, 0)), "mask_form", "palette of greys"),
    "too_many_indices.png": (palette(MASK + 1, [(9, 9, 9), *VOC]), "mask_values", "holds 1, 2, 3"),
}


def save(form, path):
    form(path) if callable(form) else form.save(path)


@pytest.mark.parametrize("name", RIGHT)
def test_a_mask_whose_classes_are_clear_is_read_in_every_form(name, tmp_path):
    save(RIGHT[name], tmp_path / name)
    read = read_mask(tmp_path / name)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, MASK)


OPEN = VALUES[np.random.default_rng(1).integers(0, 5, (20, 30))]  # with pixels that nobody knows
# The colours of PASCAL VOC, whose index 255 is that of pixels that do not count.
VOID = [*VOC, *[(0, 0, 0)] * 251, (1, 2, 3), (224, 224, 192)]
OPEN_FORMS = {
    "grey.png": Image.fromarray(OPEN),
    "channels.png": Image.fromarray(np.dstack([OPEN] * 3)),
    "16_bits.png": deep(OPEN.astype(np.uint16)),
    "floats.tif": Image.fromarray(OPEN.astype(np.float32)),
    "indices.png": palette(OPEN, VOID),
    "greys_made_smaller.png": palette(np.searchsorted(VALUES, OPEN), grey(*VALUES)),
    "greys_by_frequency.png": palette(
        np.argsort([4, 2, 0, 3, 1])[np.searchsorted(VALUES, OPEN)], grey(*VALUES[[4, 2, 0, 3, 1]])
    ),
}


@pytest.mark.parametrize("name", OPEN_FORMS)
def test_unknown_pixels_are_read_in_every_form(name, tmp_path):
    save(OPEN_FORMS[name], tmp_path / name)
    np.testing.assert_array_equal(read_mask(tmp_path / name), OPEN)


def test_a_palette_of_black_and_white_keeps_its_indices(tmp_path):
    palette(MASK == 2, grey(0, 255)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), MASK == 2)


def coded(values):
    """Saves masks whose classes have other values."""
    return lambda path, mask: Image.fromarray(np.array(values, np.uint8)[mask]).save(path)


def test_only_classes_are_counted(tmp_path):
    table = recordings.write(tmp_path)
    mask = recordings.mask(0)
    mask[0], mask[1] = 255, 254
    Image.fromarray(mask).save(tmp_path / "masks/000.png")
    content = make_plan(tmp_path, Options(annotations=str(table))).contents["images/000.png"]
    assert content.class_pixels == tuple((mask == value).sum() for value in (0, 1, 2))
    assert (content.not_gas_pixels, content.ignored_pixels) == (32, 32)


def test_gas_that_is_coded_255_is_told_with_the_way_to_import_it(tmp_path):
    table = recordings.write(tmp_path, save_mask=coded([0, 0, 255]))
    with pytest.raises(FaultyRecordings) as caught:
        make_plan(tmp_path, Options(annotations=str(table)))
    (fault,) = caught.value.faults
    assert (fault.kind, fault.place) == ("no_gas", "all recordings")
    assert "the masks hold 0 background (90.62%) and 255 unknown (9.38%)" in fault.message
    assert "255 means unknown here" in fault.message and "fume import --from=folders --values=255:gas" in fault.message


def test_masks_of_254_alone_are_no_fault_of_form(tmp_path):
    table = recordings.write(tmp_path, save_mask=coded([254, 254, 254]))
    with pytest.raises(FaultyRecordings, match=r"the masks hold 254 not gas \(100.00%\)"):
        make_plan(tmp_path, Options(annotations=str(table)))


def test_some_masks_with_unknown_pixels_and_without_gas_are_counted_in_a_warning(tmp_path):
    def save_mask(path, mask):
        values = [0, 1, 255] if int(path.stem) in (3, 4) else [0, 1, 2]
        coded(values)(path, mask)

    plan = make_plan(tmp_path, Options(annotations=str(recordings.write(tmp_path, save_mask=save_mask))))
    (warning,) = [fault for fault in plan.warnings if fault.kind == "ignored_without_gas"]
    assert warning.message.startswith("2 of 18 masks hold 255 and no gas, such as masks/00")
    assert "--values=255:gas" in warning.message


def test_coloured_frames_are_a_warning_for_each_folder(tmp_path):
    table = recordings.write(tmp_path)
    for number in (3, 8):
        path = tmp_path / f"images/{number:03d}.png"
        Image.fromarray(cv2.applyColorMap(recordings.frame(number), cv2.COLORMAP_JET)).save(path)
    (warning,) = [f for f in make_plan(tmp_path, Options(annotations=str(table))).warnings if f.kind == "colored_frame"]
    assert warning.message.startswith("2 frame(s) of images: a coloured palette")


def test_a_coloured_film_and_other_notes_are_told_too(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 12) as film:
        for position in range(3):
            film.write(cv2.applyColorMap(recordings.frame(position), cv2.COLORMAP_JET), position / 12)
    Image.fromarray(recordings.mask(0)).save(tmp_path / "mask.png")
    row = Row("all.csv row 2", 5.6, 2, (Frame("co2", "a.mp4", "mask.png", "a.mp4", "", 1),))
    (content,), faults = check_content(tmp_path, row)
    assert faults == []
    (warning,) = noted_frames({"": [row]}, {"a.mp4 frame 1": content})
    assert (warning.kind, warning.place) == ("colored_frame", row.place)
    assert warning.message.startswith("1 frame(s) of a.mp4: a coloured palette")
    other = dataclasses.replace(content, note="the end of the file is missing")
    assert noted_frames({"": [row]}, {"a.mp4 frame 1": other})[0].kind == "frame_note"
    assert noted_frames({"": [row]}, {"a.mp4 frame 1": dataclasses.replace(content, note="")}) == []


@pytest.mark.parametrize("name", WRONG)
def test_a_mask_whose_classes_are_not_clear_is_refused_with_the_reason(name, tmp_path):
    form, kind, words = WRONG[name]
    save(form, tmp_path / name)
    with pytest.raises(UnusableMask, match=words) as caught:
        read_mask(tmp_path / name)
    assert caught.value.kind == kind


@pytest.mark.parametrize("ending", ["tif", "gif", "png", "webp"])
def test_a_mask_of_several_pages_is_refused_with_their_number(ending, tmp_path):
    path = tmp_path / f"pages.{ending}"
    pages = [Image.fromarray((value == MASK).astype(np.uint8) * value) for value in (1, 2)]
    pages[0].save(path, save_all=True, append_images=pages[1:], lossless=True)
    with pytest.raises(UnreadableFrame, match="holds 2 frames"):
        read_mask(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_as_their_frames_are(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {1: MASK, 2: MASK[:, ::-1], 3: MASK[::-1, ::-1], 4: MASK[::-1], 5: MASK.T}
    turned |= {6: MASK.T[:, ::-1], 7: MASK[::-1, ::-1].T, 8: MASK.T[::-1]}
    for name in ("a.png", "a.tif"):
        Image.fromarray(MASK).save(tmp_path / name, exif=exif)
        np.testing.assert_array_equal(read_mask(tmp_path / name), turned[orientation], err_msg=name)


def test_a_header_of_225_megapixels_is_a_fault_among_others(tmp_path):
    table = recordings.write(tmp_path, ending="bmp")
    damaged = tmp_path / "masks/003.bmp"
    data = bytearray(damaged.read_bytes())
    data[18:26] = (15_000).to_bytes(4, "little") * 2
    damaged.write_bytes(data)
    (tmp_path / "masks/005.bmp").unlink()
    with pytest.raises(FaultyRecordings) as caught:
        make_plan(tmp_path, Options(annotations=str(table)))
    assert [(fault.kind, fault.place.split()[-1]) for fault in caught.value.faults] == [
        ("unreadable_file", "5"),
        ("missing_file", "7"),
    ]
    assert "megapixels" in caught.value.faults[0].message


def test_a_colour_that_is_two_classes_is_a_fault(tmp_path):
    orders = iter([VOC] * 4 + [[VOC[0], VOC[2], VOC[1]]] + [VOC] * 100)
    table = recordings.write(tmp_path, save_mask=lambda path, values: palette(values, next(orders)).save(path))
    with pytest.raises(FaultyRecordings) as caught:
        make_plan(tmp_path, Options(annotations=str(table)))
    assert {fault.place.split()[-1] for fault in caught.value.faults} == {"6"}
    assert "has the colour (255, 140, 0) at the index 1, masks/000.png at 2" in caught.value.faults[0].message


@pytest.mark.parametrize(
    "save_mask, words",
    [
        (lambda path, values: Image.fromarray((values == 2).astype(np.uint8)).save(path), r"0 background \(.*1 tube"),
        (lambda path, values: Image.fromarray(0 * values).save(path), r"0 background \(100"),
    ],
    ids=["gas is 1", "empty"],
)
def test_recordings_without_a_pixel_of_gas_are_refused_with_what_the_masks_hold(save_mask, words, tmp_path):
    table = recordings.write(tmp_path, save_mask=save_mask)
    with pytest.raises(FaultyRecordings, match=words) as caught:
        make_plan(tmp_path, Options(annotations=str(table)))
    assert [(fault.kind, fault.place) for fault in caught.value.faults] == [("no_gas", "all recordings")]
    assert make_plan(tmp_path, Options(annotations=str(table), allow=("no_gas",))).pairs["train"], "if the user says so"


def test_a_split_or_a_gas_without_a_pixel_of_gas_is_a_fault(tmp_path):
    def save_mask(path, values):
        number = int(path.stem)
        Image.fromarray(np.where((number % 2 == 1) & (values == 2), 0, values).astype(np.uint8)).save(path)

    table = recordings.write(tmp_path, save_mask=save_mask)
    with pytest.raises(FaultyRecordings) as caught:
        make_plan(tmp_path, Options(annotations=str(table)))
    assert [(fault.kind, fault.place) for fault in caught.value.faults] == [("no_gas", "all ch4 frames")]

    plan = make_plan(tmp_path, Options(annotations=str(table), allow=("no_gas",)))
    for row in plan.pairs["val"]:
        for frame in row.frames:
            Image.fromarray(np.zeros((recordings.HEIGHT, recordings.WIDTH), np.uint8)).save(tmp_path / frame.mask_path)
    make_plan.cache_clear()
    with pytest.raises(FaultyRecordings) as caught:
        make_plan(tmp_path, Options(annotations=str(table)))
    assert {fault.place for fault in caught.value.faults} == {"split val", "all ch4 frames"}
