"""Decodes image files and Pillow images, upright and without loss, and reads them as frames.

Pillow decodes what it holds without loss, simplejpeg decodes JPEG, since it alone reports damage there, OpenCV decodes
the deep formats that Pillow would reduce to 8 bits, and flyr the temperatures in JPEG files of FLIR cameras.
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
from fume_jax.runtime.errors import needs_extra

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

# Mark of the end of a JPEG file, bytes at the end that are looked at for it, and the share of the rows, at most those
# of a block, that may be incomplete without it.
_EOI, _LAST_BYTES, _LAST_SHARE, _BLOCK = b"\xff\xd9", 64, 1 / 16, 16

# OpenCV warns of every tag of a TIFF file that it does not know, and logs what is wrong with a file that it refuses.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_FATAL)
if os.environ.get(LIMIT):
    Image.MAX_IMAGE_PIXELS = max_pixels()  # Pillow has a limit of its own, which must not be lower


# Unit of numbers that a file states no unit for.
LEVELS = "levels"
CELSIUS = "°C"
# Bytes before the picture in which a camera of FLIR puts its records, and what they begin with.
_RECORDS, _FLIR = 2**22, b"FLIR\0"
# Bytes in which the EXIF data name the maker of the camera.
_EXIF, _DJI = 2**12, b"DJI\0"
# Colours of a palette differ by more than those of a picture that a lossy format has tinted, in levels.
COLORED = 10
PALETTE_NOTE = (
    "a coloured palette, whose luminance is no measure of what the camera saw; export it white-hot, or radiometric"
)


class Pixels(NamedTuple):
    """Holds the pixels of an image file as they are stored, upright.

    Attributes:
      values: grey [H, W], grey and alpha [H, W, 2], RGB [H, W, 3] or RGBA [H, W, 4], of the depth of the file: uint8,
        uint16, int32, float32 or float64; with a palette its indices, uint8 [H, W].
      palette: RGB colours, uint8 [256, 3], or None.
      format: `PNG`, `JPEG`, `TIFF`, `WEBP`, ...
      note: what is wrong with the file although it can be read, for the user; "" if nothing is.
    """

    values: np.ndarray
    palette: np.ndarray | None
    format: str
    note: str = ""


class Values(NamedTuple):
    """Holds what a camera measured.

    Attributes:
      values: numbers [H, W], RGB [H, W, 3] or RGBA [H, W, 4] of any depth.
      unit: `°C` of temperatures, else `LEVELS`.
      note: what the user should know of the file, "" if nothing.
    """

    values: np.ndarray
    unit: str = LEVELS
    note: str = ""

    @property
    def kind(self) -> str | None:
        """What the numbers are, in words; one scale holds for those of one kind. None for grey levels of 8 bits."""
        if self.unit != LEVELS:
            return f"numbers in {self.unit}"
        return None if self.values.dtype == np.uint8 else "numbers of more than 8 bits"


def read_pixels(path: str | Path) -> Pixels:
    """Decodes an image file: all bits, turned as its EXIF orientation says, for frames and masks alike.

    Raises UnreadableFrame if the file is missing, no regular file, empty, no image, damaged as far as its format can
    tell, larger than the limit of `faults`, or holds several frames.
    """
    data = _read_bytes(path)
    with _decoder_errors():
        return _decode(data)


def read_size(path: str | Path) -> tuple[int, int]:
    """Returns height and width of an image file seen upright, from its header where that is certain.

    Raises UnreadableFrame as `read_pixels` does, but not for damage behind such a header.
    """
    data = _read_bytes(path)
    with _decoder_errors():
        if data[:4] not in tiff.MAGIC:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                check_size(image.height, image.width)
                # The EXIF data of PNG may be behind the pixels.
                late = image.format == "PNG" and (b"eXIf" in data or b"Raw profile" in data)
                if image.format in ("JPEG", "MPO", "PNG", "BMP") and not late:
                    turned = _orientation(image) in (5, 6, 7, 8)
                    return (image.width, image.height) if turned else (image.height, image.width)
        return _decode(data).values.shape[:2]


def read_values(path: str | Path) -> Values:
    """Reads what the camera measured: the temperatures in a radiometric JPEG of FLIR, else the pixels.

    Raises UnreadableFrame as `read_pixels` does, and UserError if temperatures need the extra `camera`.
    """
    data = _read_bytes(path)
    is_jpeg, notes = data[:2] == b"\xff\xd8", []
    if is_jpeg and _FLIR in data[:_RECORDS]:
        with needs_extra("camera", f"Reading the temperatures in {path}"):
            import flyr
        try:
            celsius = flyr.unpack(io.BytesIO(data)).celsius
        except Exception as error:  # of many types, for what flyr does not know
            notes.append(f"its temperatures cannot be read ({error}), so its picture is taken")
        else:
            check_size(*celsius.shape)
            with _decoder_errors(), Image.open(io.BytesIO(data), formats=("JPEG", "MPO")) as picture:
                return Values(upright(celsius, _orientation(picture)), CELSIUS)
    elif is_jpeg and _DJI in data[:_EXIF]:
        notes.append("temperatures of DJI cameras are not read, so its picture is taken")
    with _decoder_errors():
        pixels = _decode(data)
        values = _gray_or_color(pixels)
    notes += [note for note in (pixels.note, PALETTE_NOTE if is_colored(values) else "") if note]
    return Values(values, LEVELS, "; ".join(notes))


def read_frame(path: str | Path) -> np.ndarray:
    """Reads an image as grey levels, uint8 [H, W, 1], with `to_gray`; raises as `read_values` does."""
    values = read_values(path).values
    with _decoder_errors():
        return to_gray(values)


def is_colored(values: np.ndarray) -> bool:
    """Returns whether an image [H, W] or [H, W, C] shows colours, as false colours of a thermal camera do."""
    if values.ndim != 3 or values.shape[2] < 3 or values.dtype != np.uint8:
        return False
    sample = values[::4, ::4, :3].astype(np.int16)
    return float(np.ptp(sample, axis=2).mean()) > COLORED


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
        return to_gray(_gray_or_color(Pixels(upright(values, _orientation(image)), palette, "")))


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors pixels [H, W] or [H, W, C] as an EXIF orientation, 1 to 8, asks viewers to."""
    return np.ascontiguousarray(_UPRIGHT.get(orientation, lambda x: x)(values))


def _gray_or_color(pixels):
    """Returns pixels [H, W], [H, W, 3] or [H, W, 4], without a palette or the alpha of grey."""
    values = pixels.values if pixels.palette is None else pixels.palette[pixels.values]
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 2 else values


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
        note = ""
        if kind == "JPEG":
            values, palette, note = _decode_jpeg(data, image)
        elif kind == "PNG" and data[24] == 16 and image.mode in ("LA", "RGB", "RGBA"):
            image.load()  # Pillow checks the whole file, and finds EXIF data at its end
            values, palette = _decode_deep(data), None
        else:
            values, palette = _values(image)
        # Pillow turns TIFF itself while it decodes, and drops the tag.
        return Pixels(upright(values, _orientation(image)), palette, kind, note)


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
    """Decodes a JPEG file and refuses what the decoder calls corrupt, which Pillow and OpenCV take.

    Some cameras leave out the last bytes of a file; that is noted.
    """
    space = {"L": "GRAY", "RGB": "RGB"}.get(image.mode, "CMYK")
    note = ""
    try:
        values = simplejpeg.decode_jpeg(data, space, strict=True)
    except ValueError:
        values = _decode_to_the_end(data, space)
        if values is None:
            raise
        note = "the end of the file is missing, so pixels at the bottom right are grey"
    if space == "CMYK":
        return *_values(image), note  # there are inverted ones, which Pillow knows
    return values[..., 0] if space == "GRAY" else values, None, note


def _decode_to_the_end(data, space):
    """Decodes a JPEG file that lacks its end; None if more is missing than pixels in its last row of blocks."""
    if _EOI in data[-_LAST_BYTES:]:
        return None
    whole, less = (simplejpeg.decode_jpeg(part + _EOI, space, strict=False) for part in (data, data[:-_LAST_BYTES]))
    (rows,) = np.nonzero((whole != less).any(axis=(1, 2)))
    # The last bytes that there are decode to the last rows, whose colours are mixed into the row above.
    return whole if len(rows) and rows[0] >= len(whole) - min(_BLOCK, _LAST_SHARE * len(whole)) - 1 else None


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
