"""Images from files: what is read, what is refused, what pairs with what."""

import cv2
import numpy as np
import pytest

from fume_jax.errors import UserError
from fume_jax.frames import UnreadableFrame, match_frames, read_frame

GREY = np.tile(np.arange(0, 200, 4, dtype=np.uint8), (40, 1))


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def test_grey_and_colour_images_give_the_same_frame(tmp_path):
    grey = read_frame(write(tmp_path / "grey.png", GREY))
    np.testing.assert_array_equal(grey[..., 0], GREY)
    for name, code in (("rgb", cv2.COLOR_GRAY2BGR), ("rgba", cv2.COLOR_GRAY2BGRA)):
        np.testing.assert_array_equal(read_frame(write(tmp_path / f"{name}.png", cv2.cvtColor(GREY, code))), grey)


@pytest.mark.parametrize("dtype, factor, offset", [(np.uint16, 7, 20000), (np.float32, 1e-3, -5)])
def test_deeper_images_are_scaled_by_their_range(tmp_path, dtype, factor, offset):
    deep = (GREY.astype(np.float64) * factor + offset).astype(dtype)
    frame = read_frame(write(tmp_path / "deep.tiff", deep))
    assert frame.dtype == np.uint8
    np.testing.assert_allclose(frame[..., 0], GREY / GREY.max() * 255, atol=0.51)


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


def test_folders_pair_by_name_and_keep_what_has_no_partner(tmp_path):
    for name in ("co2/b.png", "co2/a.png", "ch4/b.tiff", "ch4/c.png", "ch4/notes.txt"):
        write(tmp_path / name, GREY) if not name.endswith("txt") else (tmp_path / name).write_text("")
    pairs = match_frames(str(tmp_path / "co2"), str(tmp_path / "ch4"))
    assert [(name, sorted(paths)) for name, paths in pairs] == [("a", ["co2"]), ("b", ["ch4", "co2"]), ("c", ["ch4"])]
    assert pairs[1][1]["ch4"].name == "b.tiff"


def test_two_files_are_a_pair_whatever_their_names(tmp_path):
    co2, ch4 = write(tmp_path / "left.png", GREY), write(tmp_path / "right.png", GREY)
    assert match_frames(str(co2), str(ch4)) == [("left", {"co2": co2, "ch4": ch4})]


def test_what_cannot_be_matched_is_refused(tmp_path):
    a, b = write(tmp_path / "co2" / "a.png", GREY).parent, write(tmp_path / "ch4" / "b.png", GREY).parent
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        ((str(a), str(b)), r"No frame of .*co2 \(such as a.png\) has the name of one of .*ch4 \(such as b.png\)"),
        ((str(tmp_path / "empty"), None), "holds no image"),
        ((str(tmp_path / "nowhere"), None), "no file or folder"),
        ((None, None), "at least one gas"),
    ]:
        with pytest.raises(UserError, match=message):
            match_frames(*arguments)
    write(a / "a.jpg", GREY)
    with pytest.raises(UserError, match="share a name"):
        match_frames(str(a), None)
