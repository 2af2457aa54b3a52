"""Decodes image files and Pillow images, upright and without loss, and reads them as frames.

Pillow decodes what it holds without loss, simplejpeg decodes JPEG, since it alone reports damage there, and OpenCV
decodes the deep formats that Pillow would reduce to 8 bits.
"""

import contextlib
import io
import os
import stat
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401 (formats)

from fume_jax.data import tiff
from fume_jax.data.faults import LIMIT, UnreadableFrame, check_size, max_pixels, too_large
from fume_jax.data.gray import to_gray

# Files in folders that are taken for images.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
# Bytes of a pixel in the largest format, RGBA of 64 bits; files of more than that are not read.
MAX_PIXEL_BYTES = 32
# What Pillow may read; other formats could start programs, as PostScript does.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "PPM")
# Modes of Pillow whose arrays are the pixels; the others become the mode on the right.
_LOSSLESS = ("L", "LA", "P", "RGB", "RGBA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_CONVERTED = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"} | dict.fromkeys(
    ("CMYK", "HSV", "RGBX", "YCbCr"), "RGB"
)
# What EXIF orientations 2 to 8 ask for to see the picture upright (JEITA CP-3451, tag 0x0112).
_UPRIGHT = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}

if os.environ.get(LIMIT):
    Image.MAX_IMAGE_PIXELS = max_pixels()  # Pillow has a limit of its own, which must not be lower


class Pixels(NamedTuple):
    """Holds the pixels of an image file as they are stored, upright.

    Attributes:
      values: grey [H, W], grey and alpha [H, W, 2], RGB [H, W, 3] or RGBA [H, W, 4], of the depth of the file: uint8,
        uint16, int32, float32 or float64; with a palette its indices, uint8 [H, W].
      palette: RGB colours, uint8 [256, 3], or None.
      format: `PNG`, `JPEG`, `TIFF`, `WEBP`, ...
    """

    values: np.ndarray
    palette: np.ndarray | None
    format: str


def read_pixels(path: str | Path) -> Pixels:
    """Decodes an image file: all bits, turned as its EXIF orientation says, for frames and masks alike.

    Raises UnreadableFrame if the file is missing, no regular file, empty, no image, damaged as far as its format can
    tell, larger than the limit of `faults`, or holds several frames.
    """
    data = _read_bytes(path)
    with _decoder_errors():
        return _decode(data)


def read_frame(path: str | Path) -> np.ndarray:
    """Reads an image as grey levels, uint8 [H, W, 1], with `to_gray`; raises UnreadableFrame as `read_pixels` does."""
    pixels = read_pixels(path)
    with _decoder_errors():
        return _to_gray(pixels)


def pillow_to_gray(image: Image.Image) -> np.ndarray:
    """Converts a Pillow image to grey levels, uint8 [H, W, 1], upright as its EXIF orientation says.

    Raises ValueError for a mode without defined grey levels, such as LAB, and UnreadableFrame if its file is damaged or
    it is larger than the limit of `faults`.
    """
    check_size(image.height, image.width)
    if image.mode not in (*_LOSSLESS, *_CONVERTED):
        raise ValueError(f"Pillow images of mode {image.mode} have no defined grey levels; convert to L or RGB first.")
    with _decoder_errors():
        image.load()  # of a TIFF file Pillow drops the tag then, since it turns the pixels
        values, palette = _values(image)
        return _to_gray(Pixels(_UPRIGHT.get(_orientation(image), lambda x: x)(values), palette, ""))


def _to_gray(pixels):
    values = pixels.values if pixels.palette is None else pixels.palette[pixels.values]
    return to_gray(values[..., 0] if values.ndim == 3 and values.shape[2] == 2 else values)


def _read_bytes(path):
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFrame("not a regular file")  # a pipe or a device could be read for ever
        if not status.st_size:
            raise UnreadableFrame("the file is empty")
        if status.st_size > MAX_PIXEL_BYTES * max_pixels():
            raise UnreadableFrame(too_large(f"a file of {status.st_size / 1e6:,.0f} MB"))
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a ValueError if the path holds a zero byte
        if os.path.islink(path) and not os.path.exists(path):
            raise UnreadableFrame(f"a link to {os.readlink(path)}, which is not there") from error
        raise UnreadableFrame(getattr(error, "strerror", None) or str(error)) from error


@contextlib.contextmanager
def _decoder_errors():
    """Turns errors of decoders, whose types depend on the damage, into UnreadableFrame."""
    try:
        yield
    except UnreadableFrame:
        raise
    except MemoryError as error:
        raise UnreadableFrame("there is not enough memory to decode it") from error
    except Image.DecompressionBombError as error:
        raise UnreadableFrame(too_large("the size in its header")) from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableFrame("not an image, or a damaged one") from error
    except Exception as error:
        if isinstance(error, cv2.error) and error.code == cv2.Error.STS_NO_MEM:
            raise UnreadableFrame("there is not enough memory to decode it") from error
        reason = error.err if isinstance(error, cv2.error) else error
        raise UnreadableFrame(f"not an image, or a damaged one ({reason})") from error


def _decode(data):
    is_tiff = data[:4] in tiff.MAGIC
    if is_tiff and _check_tiff(data).is_deep:
        return Pixels(_decode_deep(data), None, "TIFF")  # OpenCV turns TIFF itself
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        check_size(image.height, image.width)
        kind = "JPEG" if image.format == "MPO" else image.format
        if kind == "PNG":
            with Image.open(io.BytesIO(data), formats=("PNG",)) as chunks:
                chunks.verify()  # their checksums, which decoders pass over
        # Further pictures in a JPEG file are previews and depth maps; the first one is what viewers show.
        if not is_tiff and kind != "JPEG":
            _check_count(getattr(image, "n_frames", 1))
        if kind == "JPEG":
            values, palette = _decode_jpeg(data, image)
        elif kind == "PNG" and data[24] == 16 and image.mode in ("LA", "RGB", "RGBA"):
            image.load()  # Pillow checks the whole file, and finds EXIF data at its end
            values, palette = _decode_deep(data), None
        else:
            values, palette = _values(image)
        # Pillow turns TIFF itself while it decodes, and drops the tag.
        turn = _UPRIGHT.get(_orientation(image), lambda x: x)
        return Pixels(np.ascontiguousarray(turn(values)), palette, kind)


def _orientation(image):
    """Returns the EXIF orientation of a loaded image; 1, upright, if it has none or its EXIF data are damaged."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # of many types; viewers show the picture as it is stored
        return 1


def _check_tiff(data):
    """Returns the page of a TIFF file, checked as far as its directories and checksums tell."""
    pages = tiff.read_pages(data)
    if not pages:
        raise UnreadableFrame("holds no picture")
    _check_count(len(pages))
    check_size(pages[0].height, pages[0].width)
    tiff.check_checksums(data, pages[0])
    return pages[0]


def _values(image):
    """Returns the pixels of a Pillow image as an array, and its palette or None."""
    if image.mode in _CONVERTED:
        image = image.convert(_CONVERTED[image.mode])
    elif image.mode not in _LOSSLESS:
        raise ValueError(f"pixels of mode {image.mode}; convert it to grey levels or RGB")
    values = np.asarray(image)
    if image.mode != "P":
        return values.astype(values.dtype.newbyteorder("="), copy=False), None
    palette = np.zeros((256, 3), np.uint8)
    colors = np.reshape(image.getpalette("RGB"), (-1, 3))[:256]
    palette[: len(colors)] = colors
    return values, palette


def _decode_jpeg(data, image):
    """Decodes a JPEG file and refuses what the decoder calls corrupt, which Pillow and OpenCV take."""
    space = {"L": "GRAY", "RGB": "RGB"}.get(image.mode, "CMYK")
    values = simplejpeg.decode_jpeg(data, space, strict=True)
    if space == "CMYK":
        return _values(image)  # there are inverted ones, which Pillow knows
    return values[..., 0] if space == "GRAY" else values, None


def _decode_deep(data):
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise UnreadableFrame("not an image, or a damaged one")
    if values.ndim == 3:
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]  # OpenCV's BGR as RGB
    return values


def _check_count(count):
    if count > 1:
        raise UnreadableFrame(f"holds {count} frames, and only files of one frame are read; save each as a file")
