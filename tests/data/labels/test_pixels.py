"""Masks in image files: values, palettes and colours by what the user says they are, and what is refused."""

import cv2
import numpy as np
import pytest
from PIL import Image

from fume_jax.data.images import UnreadableFrame
from fume_jax.data.labels.label import Meaning, UnusableMask
from fume_jax.data.labels.pixels import MaskFile, has_rim, read_mask_image
from fume_jax.schema import GAS, IGNORE, NOT_GAS, TUBE

PLAIN = Meaning({}, {}, {})
WIDE = Meaning({0: 0, 128: TUBE, 255: GAS}, {}, {})
RED, BLUE = (255, 0, 0), (0, 0, 255)
COLORS = Meaning({}, {RED: GAS, BLUE: TUBE}, {})
CLASSES = np.random.default_rng(0).integers(0, 3, (20, 30), np.uint8)
CLASSES[:2, :5] = IGNORE
CLASSES[3:5, :5] = NOT_GAS
# A plume beside a tube, in blocks.
BLOCKS = np.zeros((60, 80), np.uint8)
BLOCKS[5:12, :40] = TUBE
BLOCKS[20:50, 30:70] = GAS
SHOWN = np.array([0, 128, 255], np.uint8)
CMAP = np.zeros((256, 3), np.uint8)
CMAP[[GAS, TUBE]] = RED, BLUE


def nearest(meaning):
    return Meaning(meaning.values, meaning.colors, meaning.names, nearest=True)


def palette(values, colors):
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette(list(np.ravel(colors)))
    return image


def grey(*levels):
    return [(level, level, level) for level in levels]


def saved(folder, picture, name="mask.png", **options):
    """Path of a picture: an array, which OpenCV writes if it is deep, or a Pillow image."""
    path = folder / name
    if isinstance(picture, np.ndarray) and (picture.dtype != np.uint8 or name.endswith("tif")):
        assert cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)
    else:
        (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(path, **options)
    return path


def refused(path, meaning):
    with pytest.raises(UnusableMask) as error:
        read_mask_image(path, meaning)
    return error.value.kind, str(error.value)


FORMS = {
    "grey.png": (CLASSES, PLAIN),
    "grey.bmp": (CLASSES, PLAIN),
    "16_bits.png": (CLASSES.astype(np.uint16), PLAIN),
    "float.tif": (CLASSES.astype(np.float32), PLAIN),
    "three_equal_channels.png": (np.dstack([CLASSES] * 3), PLAIN),
    "opaque_grey.png": (np.dstack([CLASSES, 0 * CLASSES + 255]), PLAIN),
    "opaque.png": (np.dstack([CLASSES] * 3 + [0 * CLASSES + 255]), PLAIN),
    "indices.png": (palette(CLASSES, CMAP), PLAIN),
    "few_greys.png": (palette(np.array([1, 2, 0])[BLOCKS], grey(2, 0, 1)), PLAIN),
    "own_values.png": (SHOWN[BLOCKS], WIDE),
    "deep_values.png": (np.array([0, 300, 6000], np.uint16)[BLOCKS], Meaning({300: TUBE, 6000: GAS}, {}, {})),
    "listed_greys.png": (palette(BLOCKS, grey(0, 128, 255)), WIDE),
    "rgb.png": (CMAP[BLOCKS], COLORS),
    "rgba.png": (np.dstack([CMAP[BLOCKS], 0 * BLOCKS + 255]), COLORS),
    "colours_of_a_palette.png": (
        palette(np.array([7, 3, 1])[BLOCKS], np.array(CMAP)[[9, 2, 9, 1, 9, 9, 9, 0]]),
        COLORS,
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_masks_are_read(tmp_path, name):
    picture, meaning = FORMS[name]
    expected = BLOCKS if meaning is not PLAIN or name == "few_greys.png" else CLASSES
    mask, moved = read_mask_image(saved(tmp_path, picture, name), meaning)
    assert mask.dtype == np.uint8 and moved == 0
    np.testing.assert_array_equal(mask, expected)


def test_a_zero_is_background_beside_values_of_the_user_and_defaults_are_gone(tmp_path):
    mask, _ = read_mask_image(saved(tmp_path, 255 * (BLOCKS == GAS).astype(np.uint8)), Meaning({255: GAS}, {}, {}))
    np.testing.assert_array_equal(mask, GAS * (BLOCKS == GAS))
    kind, message = refused(saved(tmp_path, BLOCKS), Meaning({255: GAS}, {}, {}))
    assert kind == "mask_values" and "holds 2 (1200 pixels), 1 (280 pixels)" in message


def test_grey_values_count_although_there_are_colours_for_others(tmp_path):
    np.testing.assert_array_equal(read_mask_image(saved(tmp_path, BLOCKS), COLORS)[0], BLOCKS)


def test_masks_are_upright_and_lazy(tmp_path):
    image = Image.fromarray(BLOCKS)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned clockwise
    path = saved(tmp_path, image, exif=exif)
    np.testing.assert_array_equal(MaskFile(path, PLAIN)(), np.rot90(BLOCKS, -1))


def test_a_file_that_is_no_image_is_none_of_a_mask(tmp_path):
    (tmp_path / "frame.png").write_bytes(b"no picture")
    for name in ("frame.png", "absent.png"):
        with pytest.raises(UnreadableFrame) as error:
            read_mask_image(tmp_path / name, PLAIN)
        assert not isinstance(error.value, UnusableMask)


def spotted(count):
    """The blocks, with that many single pixels of different values, and a region of 7."""
    values = BLOCKS.copy()
    values[-1, : 3 * count : 3] = np.arange(50, 50 + count)
    return values


SPOTTED_WITH_A_BLOCK = spotted(12)
SPOTTED_WITH_A_BLOCK[-6:-3, :3] = 7

REFUSED = {
    "an_unlisted_value": (np.where(BLOCKS == GAS, 7, 0).astype(np.uint8), PLAIN, "mask_values", "--values=7:CLASS"),
    "black_and_white": (255 * BLOCKS.clip(0, 1), Meaning({1: GAS}, {}, {}), "mask_values", "--values=255:CLASS"),
    "many_values": (spotted(9), PLAIN, "mask_values", "54 (1 pixel), 55 (1 pixel), 3 more (3 pixels), few pixels each"),
    "a_block_of_few_pixels": (SPOTTED_WITH_A_BLOCK, PLAIN, "mask_values", "holds 7 (9 pixels), 50 (1 pixel), "),
    "many_values_and_a_block": (SPOTTED_WITH_A_BLOCK, PLAIN, "mask_values", "few pixels each"),
    "steps_of_127": (127 * BLOCKS, PLAIN, "mask_values", "holds 127 (280 pixels); expected 0, 1, 2, 254, 255"),
    "wrapped_round": (
        BLOCKS.astype(np.uint16) + 256,
        PLAIN,
        "mask_values",
        "holds 256 (3320 pixels), 258 (1200 pixels)",
    ),
    "fractions": (0.5 * BLOCKS.astype(np.float32), PLAIN, "mask_values", "holds 0.5 (280 pixels)"),
    "nan": (np.where(BLOCKS == GAS, np.nan, 0).astype(np.float32), nearest(PLAIN), "mask_values", "nan (1200 pixels)"),
    "colours_without_meaning": (CMAP[BLOCKS], PLAIN, "mask_form", "--colors=#000000:CLASS"),
    "an_unlisted_colour": (CMAP[BLOCKS], Meaning({}, {RED: GAS}, {}), "mask_values", "holds #0000ff (280 pixels)"),
    "partly_transparent": (np.dstack([BLOCKS, 100 * BLOCKS]), PLAIN, "mask_form", "partly transparent"),
    "all_transparent": (np.dstack([BLOCKS, 0 * BLOCKS]), PLAIN, "mask_form", "partly transparent"),
    "colours_partly_transparent": (np.dstack([CMAP[BLOCKS], BLOCKS]), COLORS, "mask_form", "partly transparent"),
    "sorted_greys": (palette(BLOCKS, grey(255, 0, 127)), PLAIN, "mask_form", "0 is 255, 1 is 0, 2 is 127"),
    "one_grey": (palette(BLOCKS, grey(9, 9, 9)), PLAIN, "mask_form", "palette of greys"),
    "unlisted_indices": (palette(BLOCKS + 3, [(9, 9, 8)] * 6), PLAIN, "mask_values", "holds 3 (3320 pixels)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_masks_that_hold_no_classes_for_certain_are_refused(tmp_path, name):
    picture, meaning, kind, message = REFUSED[name]
    suffix = "tif" if isinstance(picture, np.ndarray) and picture.dtype == np.float32 else "png"
    found = refused(saved(tmp_path, picture, f"mask.{suffix}"), meaning)
    assert found[0] == kind and message in found[1], found[1]


@pytest.mark.parametrize(
    ("name", "options", "form"),
    [
        ("mask.jpg", {"quality": 75}, "JPEG"),
        ("mask.webp", {"quality": 80}, "lossy WebP"),
        ("mask.tif", {"compression": "jpeg"}, "TIFF compressed as jpeg"),
    ],
)
def test_lossy_forms_are_refused_or_taken_by_the_nearest_value(tmp_path, name, options, form):
    path = saved(tmp_path, Image.fromarray(SHOWN[BLOCKS]), name, **options)
    kind, message = refused(path, WIDE)
    assert kind == "mask_form" and message.startswith(f"{form}, which changes values") and "--nearest" in message
    mask, moved = read_mask_image(path, nearest(WIDE))
    decoded = np.asarray(Image.open(path))
    decoded = decoded if decoded.ndim == 2 else decoded[..., 0]
    assert moved == np.count_nonzero(~np.isin(decoded, SHOWN))
    np.testing.assert_array_equal(mask, BLOCKS)


def test_close_values_are_lost_in_a_lossy_form(tmp_path):
    path = saved(tmp_path, Image.fromarray(BLOCKS), "mask.jpg", quality=95)
    for meaning in (PLAIN, nearest(PLAIN)):
        assert refused(path, meaning)[0] == "mask_form"
    assert "more than the 1 levels between two classes" in refused(path, nearest(PLAIN))[1]


INTERPOLATIONS = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "cubic": cv2.INTER_CUBIC}


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(101, 77), (53, 41)])
@pytest.mark.parametrize("meaning", [WIDE, COLORS], ids=["values", "colours"])
def test_interpolated_masks_are_refused(tmp_path, interpolation, size, meaning):
    picture = SHOWN[BLOCKS] if meaning is WIDE else CMAP[BLOCKS]
    path = saved(tmp_path, cv2.resize(picture, size, interpolation=INTERPOLATIONS[interpolation]))
    kind, message = refused(path, meaning)
    assert kind == "mask_values" and "as interpolation and compression leave them" in message
    assert message.count("pixel") - message.count("few pixels") <= 7 and "by --nearest" in message
    np.testing.assert_array_equal(
        read_mask_image(saved(tmp_path, cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)), meaning)[0],
        cv2.resize(BLOCKS, size, interpolation=cv2.INTER_NEAREST),
    )


def test_strange_values_move_to_the_nearest_and_are_counted(tmp_path):
    values = np.array([[0, 63, 64, 65, 128], [191, 192, 254, 255, 255]], np.uint8)
    mask, moved = read_mask_image(saved(tmp_path, values), nearest(WIDE))
    # 64 is as far from 0 as from 128, and the lower one is taken.
    assert mask.tolist() == [[0, 0, 0, TUBE, TUBE], [TUBE, GAS, GAS, GAS, GAS]] and moved == 6


def test_strange_colours_move_to_the_nearest_and_are_counted(tmp_path):
    colors = np.array([[RED, (200, 90, 90), (100, 0, 20)], [(0, 0, 0), (10, 140, 130), BLUE]], np.uint8)
    mask, moved = read_mask_image(saved(tmp_path, colors), nearest(COLORS))
    # From (10, 140, 130) it is 191 to black, 188 to blue and 311 to red; from (100, 0, 20) 102 to black, 156 to red.
    assert mask.tolist() == [[GAS, GAS, 0], [0, TUBE, TUBE]] and moved == 3


def plume(rng, height=96, width=128, *, tube):
    """A ragged plume, and perhaps a tube of any width."""
    field = cv2.GaussianBlur(rng.standard_normal((height, width)).astype(np.float32), (0, 0), rng.uniform(2, 8))
    mask = GAS * (field > np.quantile(field, rng.uniform(0.7, 0.95))).astype(np.uint8)
    if tube:
        top, thickness = rng.integers(0, height - 12), rng.integers(1, 12)
        part = mask[top : top + thickness, : rng.integers(10, width)]
        part[part == 0] = TUBE
    return mask


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_rims_of_tube_that_interpolation_leaves_are_refused(tmp_path, scale):
    rng = np.random.default_rng(scale)
    for _ in range(50):
        mask = plume(rng, tube=False)
        enlarged = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        assert set(np.unique(enlarged)) == {0, 1, 2} and has_rim(enlarged)
    kind, message = refused(saved(tmp_path, enlarged), PLAIN)
    assert kind == "mask_form" and "nearest neighbour" in message


def test_the_nearest_value_of_a_border_of_gas_may_be_tube_which_is_refused(tmp_path):
    enlarged = cv2.resize(SHOWN[BLOCKS], None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    assert refused(saved(tmp_path, enlarged), nearest(WIDE))[0] == "mask_form"


def test_real_tubes_are_no_rims():
    rng = np.random.default_rng(1)
    assert not any(has_rim(plume(rng, tube=True)) for _ in range(300))
    within = np.zeros((60, 80), np.uint8)
    within[20:40] = TUBE
    within[25:35, 10:60] = GAS
    assert not has_rim(within)
    assert not has_rim(BLOCKS) and not has_rim(0 * BLOCKS)
