"""Image files: the pixels that every format gives, upright; damage, several frames and sizes that are refused."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from fume_jax.data.faults import LIMIT
from fume_jax.data.images import UnreadableFrame, pillow_to_gray, read_frame, read_pixels, read_size
from fume_jax.runtime.errors import UserError

GREY = np.tile(np.arange(0, 200, 4, dtype=np.uint8), (40, 1))
RNG = np.random.default_rng(0)
SCENE = cv2.GaussianBlur(RNG.integers(0, 256, (48, 64)).astype(np.uint8), (5, 5), 0)
COLOR = np.stack([SCENE, SCENE[::-1], 255 - SCENE], -1)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def test_grey_and_colour_images_give_the_same_frame(tmp_path):
    grey = read_frame(write(tmp_path / "grey.png", GREY))
    np.testing.assert_array_equal(grey[..., 0], GREY)
    for name, code in (("rgb", cv2.COLOR_GRAY2BGR), ("rgba", cv2.COLOR_GRAY2BGRA)):
        np.testing.assert_array_equal(read_frame(write(tmp_path / f"{name}.png", cv2.cvtColor(GREY, code))), grey)


def test_colours_of_a_file_count_by_luminance(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes BGR
    np.testing.assert_array_equal(read_frame(write(tmp_path / "red.png", red)), 60)


@pytest.mark.parametrize("dtype, factor, offset", [(np.uint16, 7, 20000), (np.float32, 1e-3, -5)])
def test_deeper_images_are_scaled_by_their_range(tmp_path, dtype, factor, offset):
    deep = (GREY.astype(np.float64) * factor + offset).astype(dtype)
    frame = read_frame(write(tmp_path / "deep.tiff", deep))
    assert frame.dtype == np.uint8
    np.testing.assert_allclose(frame[..., 0], GREY / GREY.max() * 255, atol=0.51)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_dead_and_hot_pixels_do_not_decide_the_range(tmp_path, dtype):
    deep = (GREY.astype(np.float64) * 7 + 20000).astype(dtype)
    expected = read_frame(write(tmp_path / "deep.tiff", deep))[..., 0]
    deep[5, 5], deep[9, 20] = 0, 65535
    frame = read_frame(write(tmp_path / "spoilt.tiff", deep))[..., 0]
    assert frame[5, 5] == 0 and frame[9, 20] == 255
    frame[5, 5], frame[9, 20] = expected[5, 5], expected[9, 20]
    np.testing.assert_allclose(frame, expected, atol=1)


def test_a_colour_image_of_floats_is_read(tmp_path):
    colour = np.repeat(GREY[..., None].astype(np.float64), 3, axis=-1)
    frame = read_frame(write(tmp_path / "floats.tiff", colour))
    np.testing.assert_allclose(frame[..., 0], GREY / GREY.max() * 255, atol=0.51)


def test_a_16_bit_image_of_one_level_is_black(tmp_path):
    assert not read_frame(write(tmp_path / "flat.png", np.full((8, 8), 3000, np.uint16))).any()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "empty"),
        (b"no image at all", "not an image"),
        (None, "No such file"),
        # A header that claims more pixels than can be decoded.
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + 2 * (60000).to_bytes(4) + b"\x08\0\0\0\0", "not an image"),
    ],
)
def test_a_file_that_is_no_image_is_said_to_be_none(tmp_path, content, message):
    path = tmp_path / "frame.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableFrame, match=message):
        read_frame(path)


def opencv_gray(path):
    """Grey levels of a file of 8 bits as OpenCV decodes it."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    return image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image[..., 2::-1]), cv2.COLOR_RGB2GRAY)


FORMS = {
    "grey.png": (SCENE, {}),
    "color.png": (COLOR, {}),
    "grey.jpg": (SCENE, {"quality": 90}),
    "color.jpg": (COLOR, {"quality": 80}),
    "444.jpg": (COLOR, {"subsampling": 0}),
    "progressive.jpg": (COLOR, {"progressive": True}),
    "grey.bmp": (SCENE, {}),
    "lossless.webp": (COLOR, {"lossless": True}),
    "lossy.webp": (COLOR, {"quality": 70}),
    "plain.tif": (SCENE, {}),
    "lzw.tif": (COLOR, {"compression": "tiff_lzw"}),
    "deflate.tif": (COLOR, {"compression": "tiff_adobe_deflate"}),
    "jpeg.tif": (COLOR, {"compression": "jpeg"}),
    "big.tif": (SCENE, {"big_tiff": True}),
    "inverted.tif": (SCENE, {"tiffinfo": {262: 0}}),
    "deep.png": (SCENE.astype(np.uint16) * 200, {}),
    "int32.tif": (SCENE.astype(np.int32) * -900, {}),
    "float.tif": (SCENE.astype(np.float32), {}),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_format_gives_the_grey_levels_that_opencv_gives(tmp_path, name):
    array, options = FORMS[name]
    Image.fromarray(array).save(tmp_path / name, **options)
    pixels = read_pixels(tmp_path / name)
    assert pixels.values.dtype == array.dtype and pixels.palette is None
    if array.dtype == np.uint8:
        np.testing.assert_array_equal(read_frame(tmp_path / name)[..., 0], opencv_gray(tmp_path / name))
    else:
        np.testing.assert_array_equal(pixels.values, array)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_colour_keeps_its_bits(tmp_path, suffix, channels):
    deep = RNG.integers(0, 65536, (20, 30, channels)).astype(np.uint16)
    path = write(tmp_path / f"deep.{suffix}", deep[..., [2, 1, 0, 3][:channels]])
    np.testing.assert_array_equal(read_pixels(path).values, deep)


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.int8, np.uint32])
def test_tiff_files_that_pillow_does_not_know_are_read(tmp_path, dtype):
    array = (SCENE.astype(np.float64) / 2).astype(dtype)
    np.testing.assert_array_equal(read_pixels(write(tmp_path / "a.tif", array)).values, array)


def test_a_palette_is_given_with_its_indices(tmp_path):
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3, "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png")
    pixels = read_pixels(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels.values, np.arange(12).reshape(3, 4) % 3)
    np.testing.assert_array_equal(pixels.palette[:3], [[0, 0, 0], [255, 0, 0], [10, 20, 30]])
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png")[0, :3, 0], [0, 76, 18])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "deep.png", "color.png", "a.webp", "a.tif", "deep.tif", "f.tif"])
def test_files_are_upright_whatever_their_exif_orientation(tmp_path, name, orientation):
    # `stored` is what a camera that is held in this way writes of the scene.
    undo = {1: 0, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    exif = Image.Exif()
    exif[0x0112] = undo
    buffer = io.BytesIO()
    Image.fromarray(SCENE).save(buffer, "TIFF", exif=exif)
    stored = np.asarray(Image.open(buffer))
    exif[0x0112] = orientation
    deep = {"deep.png": np.uint16, "deep.tif": np.uint16, "f.tif": np.float32}.get(name, np.uint8)
    stored = stored.astype(deep)
    image = Image.fromarray(np.stack([stored] * 3, -1) if name == "color.png" else stored)
    image.save(tmp_path / name, exif=exif, **({"quality": 98} if name == "a.jpg" else {"lossless": True}))
    pixels = read_pixels(tmp_path / name).values.astype(int)
    np.testing.assert_allclose(pixels[..., 0] if pixels.ndim == 3 else pixels, SCENE, atol=8 if name == "a.jpg" else 0)
    if deep == np.uint8:
        # From memory: of an uncompressed TIFF file by its path, Pillow 12.3 itself shows orientations 5 to 8 scrambled.
        image = Image.open(io.BytesIO((tmp_path / name).read_bytes()))
        np.testing.assert_allclose(pillow_to_gray(image)[..., 0].astype(int), SCENE, atol=8)


@pytest.mark.parametrize("exif", [b"Exif\0\0no EXIF data", b"", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_data_do_not_matter(tmp_path, exif):
    Image.fromarray(SCENE).save(tmp_path / "a.jpg", exif=exif, quality=98)
    np.testing.assert_allclose(read_frame(tmp_path / "a.jpg")[..., 0].astype(int), SCENE, atol=8)


def test_formats_that_start_programs_are_not_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n%%EOF\n")
    with pytest.raises(UnreadableFrame, match="not an image"):
        read_frame(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.tif", "deep.tif", "a.gif", "a.png", "a.webp"])
def test_a_file_of_several_frames_is_refused_with_their_number(tmp_path, name):
    pages = [np.roll(SCENE, i, 1).astype(np.uint16 if "deep" in name else np.uint8) for i in range(5)]
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / name, save_all=True, append_images=others)
    with pytest.raises(UnreadableFrame, match="holds 5 frames, and only files of one frame are read"):
        read_frame(tmp_path / name)


def test_previews_in_a_file_are_no_frames(tmp_path):
    first, preview = Image.fromarray(SCENE), Image.fromarray(SCENE[::4, ::4])
    preview.encoderinfo = {"tiffinfo": {254: 1}}
    first.save(tmp_path / "a.tif", save_all=True, append_images=[preview])
    np.testing.assert_array_equal(read_frame(tmp_path / "a.tif")[..., 0], SCENE)
    Image.fromarray(SCENE).save(tmp_path / "a.mpo", save_all=True, append_images=[preview])
    assert read_frame(tmp_path / "a.mpo").shape == (*SCENE.shape, 1)


def test_pages_that_follow_each_other_in_a_circle_end(tmp_path):
    Image.fromarray(SCENE).save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(SCENE)])
    data = bytearray((tmp_path / "a.tif").read_bytes())
    at = int.from_bytes(data[4:8], "little")
    (count,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * count, at)
    (tmp_path / "a.tif").write_bytes(data)
    assert read_frame(tmp_path / "a.tif").shape == (*SCENE.shape, 1)


def flip_bits(data, seed):
    data, random = bytearray(data), np.random.default_rng(seed)
    for at in random.integers(len(data) // 3, len(data) - 20, 12):
        data[at] ^= 0x55
    return bytes(data)


NOISE = RNG.integers(0, 256, (120, 160)).astype(np.uint8)
DAMAGED = {
    "a.png": {},
    "deep.png": {},
    "a.jpg": {"quality": 90},
    "progressive.jpg": {"progressive": True},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
    "lzw.tif": {"compression": "tiff_lzw"},
    "deep.tif": {"compression": "tiff_adobe_deflate"},
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("seed", range(3))
def test_damage_that_the_format_can_tell_is_refused(tmp_path, name, seed):
    image = Image.fromarray(NOISE.astype(np.uint16) * 200 if "deep" in name else NOISE)
    image.save(tmp_path / name, **DAMAGED[name])
    data = (tmp_path / name).read_bytes()
    read_frame(tmp_path / name)
    for damaged in (flip_bits(data, seed), data[: len(data) * (seed + 1) // 4]):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UnreadableFrame, match="not an image, or a damaged one"):
            read_frame(tmp_path / name)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_png_file_whose_damage_decodes_is_refused_by_its_checksum(tmp_path, mode):
    Image.fromarray(NOISE).convert(mode).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"IDAT") + 4
    (size,) = struct.unpack(">I", data[at - 8 : at - 4])
    pixels = bytearray(zlib.decompress(data[at : at + size]))
    pixels[100] ^= 1
    # The picture is complete before the stream ends, so a decoder does not come to the checksum of that.
    stream = zlib.compress(bytes(pixels) + bytes(1000))
    damaged = data[: at - 8] + struct.pack(">I", len(stream)) + b"IDAT" + stream + data[at + size :]
    (tmp_path / "a.png").write_bytes(damaged)
    with pytest.raises(UnreadableFrame, match=r"checksum in b'IDAT'"):
        read_frame(tmp_path / "a.png")


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_end_in_pixels_or_in_words(tmp_path, seed):
    random = np.random.default_rng(seed)
    for name, (array, options) in FORMS.items():
        Image.fromarray(array).save(tmp_path / name, **options)
        data = bytearray((tmp_path / name).read_bytes())
        for start in random.integers(0, min(len(data), 400), 6):
            data[start : start + 4] = random.bytes(4)
        (tmp_path / name).write_bytes(data)
        try:
            frame = read_frame(tmp_path / name)
        except UnreadableFrame:
            continue
        assert frame.dtype == np.uint8 and frame.ndim == 3


def blank_png(width, height):
    """The bytes of a grey PNG file of zeros, made without its pixels in memory."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def deep_tiff_header(width, height):
    """A TIFF file of floats of 64 bits that has no pixels."""
    entries = {256: width, 257: height, 258: 64, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 8, 339: 3}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)


@pytest.mark.parametrize("content", [blank_png(7000, 6000), deep_tiff_header(30_000, 30_000)], ids=["png", "tiff"])
def test_pixels_above_the_limit_are_not_decoded(tmp_path, monkeypatch, content):
    path = tmp_path / "bomb"
    path.write_bytes(content)
    for decoder in ("_values", "_decode_deep"):
        monkeypatch.setattr(f"fume_jax.data.images.{decoder}", None)
    with pytest.raises(UnreadableFrame, match=rf"0x\d+ is more than 40 megapixels; .* {LIMIT}, raises"):
        read_frame(path)
    monkeypatch.setenv(LIMIT, "0.002")
    Image.fromarray(SCENE).save(tmp_path / "a.png")
    with pytest.raises(UnreadableFrame, match=r"64x48 is more than 0\.002 megapixels"):
        read_frame(tmp_path / "a.png")
    with pytest.raises(UnreadableFrame, match="64x48 is more"):
        pillow_to_gray(Image.fromarray(SCENE))
    monkeypatch.setenv(LIMIT, "many")
    with pytest.raises(UserError, match=f"{LIMIT}=many: expected a number of megapixels"):
        read_frame(tmp_path / "a.png")


def test_a_file_of_more_bytes_than_any_frame_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(10**10)  # sparse
    with pytest.raises(UnreadableFrame, match="10,000 MB is more than 40 megapixels"):
        read_frame(tmp_path / "a.png")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_deep_picture_that_is_cut_off_is_refused_and_its_decoder_is_silent(tmp_path, capfd, compression):
    path, noise = tmp_path / "deep.tif", np.random.default_rng(0).integers(0, 65536, (200, 100))
    tifffile.imwrite(path, noise.astype(np.uint16), compression=compression)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UnreadableFrame, match="damaged"):
        read_pixels(path)
    assert capfd.readouterr() == ("", "")


def test_what_is_no_file_is_told_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    for path, message in [
        (tmp_path / "pipe.png", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "link.png", r"a link to .*gone.png, which is not there"),
        (tmp_path / "circle.png", r"a link to .*circle.png, which is not there"),
        ("a\0b.png", "null byte|null character"),
    ]:
        with pytest.raises(UnreadableFrame, match=message):
            read_frame(path)


def test_too_little_memory_is_told_in_words(tmp_path, monkeypatch):
    Image.fromarray(SCENE).save(tmp_path / "a.png")

    def decode(*_):
        raise np._core._exceptions._ArrayMemoryError((10**6, 10**6), np.dtype(np.uint8))

    monkeypatch.setattr("fume_jax.data.images._decode", decode)
    with pytest.raises(UnreadableFrame, match="not enough memory"):
        read_frame(tmp_path / "a.png")


MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "La", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_pillow_images_of_every_mode_give_the_grey_levels_that_are_seen(mode):
    grey = Image.fromarray(SCENE)
    via = {"PA": "LA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
    if mode == "I;16":
        image = Image.fromarray(SCENE.astype(np.uint16) * 256)
    elif mode == "P":
        image = grey.quantize(256)
    elif mode == "1":
        image = grey.point(lambda level: 255 * (level > 128)).convert("1")
    else:
        image = grey.convert(via.get(mode, mode)).convert(mode)
    levels = pillow_to_gray(image)
    assert levels.dtype == np.uint8 and levels.shape == (*SCENE.shape, 1)
    expected = 255 * (SCENE > 128) if mode == "1" else SCENE
    if mode in ("I", "F", "I;16"):
        smooth = cv2.medianBlur(SCENE, 3)
        low, high = smooth.min(), smooth.max()
        expected = np.clip((SCENE.astype(float) - low) / (float(high) - low), 0, 1) * 255
    np.testing.assert_allclose(levels[..., 0], expected, atol=3 if mode in ("P", "YCbCr") else 0.51)


def test_a_pillow_image_without_grey_levels_is_refused():
    profiles = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
    lab = ImageCms.applyTransform(Image.fromarray(COLOR), ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    with pytest.raises(ValueError, match="mode LAB have no defined grey levels; convert to L or RGB"):
        pillow_to_gray(lab)


def test_a_damaged_pillow_image_is_unreadable(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    with pytest.raises(UnreadableFrame, match="damaged"):
        pillow_to_gray(Image.open(tmp_path / "a.png"))


def put_exif_at_the_end(path):
    """Moves the EXIF data of a PNG file behind its pixels."""
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
    path.write_bytes(data[:start] + data[stop:-12] + data[start:stop] + data[-12:])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["png", "late.png", "jpg", "tif", "webp", "bmp"])
def test_size_is_that_of_the_upright_pixels(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(SCENE).save(path, **({} if suffix == "bmp" else {"exif": exif}))
    if suffix == "late.png":
        put_exif_at_the_end(path)
    turned = orientation in (6, 8) and suffix != "bmp"
    assert read_size(path) == read_pixels(path).values.shape[:2] == (SCENE.shape[::-1] if turned else SCENE.shape)


def test_size_of_deep_images_and_of_none(tmp_path):
    for name in ("a.png", "a.tiff"):
        assert read_size(write(tmp_path / name, GREY.astype(np.uint16) * 9)) == GREY.shape
    with pytest.raises(UnreadableFrame):
        read_size(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(UnreadableFrame):
        read_size(tmp_path / "c.png")
