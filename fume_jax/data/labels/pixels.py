"""Masks in image files: the class of each pixel by its value or colour, or what is wrong with them."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fume_jax.data.images import read_pixels
from fume_jax.data.labels.label import CHOICES, Meaning, UnusableMask
from fume_jax.schema import BACKGROUND, GAS, IGNORE, MASK_CLASSES, NOT_GAS, TUBE

# What values stand for if nobody says so.
DEFAULT_VALUES = {value: value for value in (BACKGROUND, TUBE, GAS, NOT_GAS, IGNORE)}
# Formats that keep the values of a mask; a WebP or TIFF file may be compressed with loss all the same.
LOSSLESS = ("BMP", "GIF", "PNG", "PPM", "TIFF", "WEBP")
LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")
# Compression with loss moves values by less than half of this, in levels: of masks of plumes with steps of 127, JPEG of
# quality 75 moves 99.9 % of the pixels by at most 29.
LOSSY_GAP = 64
# Channels of grey pixels differ by less than this after it, in levels.
LOSSY_TINT = 16
# The most values of a mask that a message lists.
SHOWN = 6
# A rim of tube is about all of the border of gas, of a border of at least so many pixels.
RIM_SHARE, RIM_PIXELS, RIM_WIDTH = 0.9, 24, 2


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """Reads the mask of a `Label` from an image."""

    path: Path
    meaning: Meaning

    def __call__(self) -> np.ndarray:
        return self.read()[0]

    def read(self) -> tuple[np.ndarray, int]:
        """Returns the mask and the number of pixels that moved, as `read_mask_image` does."""
        return read_mask_image(self.path, self.meaning)


def read_mask_image(path: Path, meaning: Meaning) -> tuple[np.ndarray, int]:
    """Reads a mask, uint8 [H, W] of the values in `fume_jax.schema`, upright; also the number of pixels that moved.

    Grey levels of any depth and three equal channels are values, listed in `meaning.values`, or in `DEFAULT_VALUES` if
    it is empty. Other colours are listed in `meaning.colors`. Of a palette the colours count if any are listed, else
    the indices; but its grey levels, where these are 0, 1 and 2, or where they are listed and the indices are not, as
    programs that make files smaller leave them. A value 0 and a black that are not listed are background.

    With `meaning.nearest` a pixel that is not listed moves to the nearest value or colour, of two the lower one. That
    cannot help where the values are close and the compression has loss, nor where interpolation between background and
    gas went through tube, which lies between their values: a rim of tube around all gas is refused.

    Raises UnreadableFrame as `read_pixels` does, and UnusableMask of the kind `mask_form` or `mask_values`.
    """
    pixels = read_pixels(path)
    values = _with_zero(meaning.values, 0) if meaning.values else DEFAULT_VALUES
    lossy = lossy_form(path, pixels.format)
    points = _points(pixels, values, tint=LOSSY_TINT if lossy else 0, by_color=bool(meaning.colors))
    if points.ndim == 2:
        listed = {(value,): class_ for value, class_ in values.items()}
    else:
        listed = _with_zero(meaning.colors, (0, 0, 0)) if meaning.colors else {}
    mask, moved = _classes(points, dict(sorted(listed.items())), lossy, meaning.nearest)
    if has_rim(mask):
        message = "a rim of tube, one or two pixels wide, is around all gas, as interpolation to background leaves it"
        raise UnusableMask("mask_form", f"{message}; resize the first masks anew by the nearest neighbour")
    return mask, moved


def lossy_form(path: Path, kind: str) -> str:
    """Returns the name of a format of `Pixels`, or of the compression in the file, that changes values; else ""."""
    if kind not in LOSSLESS:
        return kind
    if kind == "WEBP":
        data = path.read_bytes()
        offset = 12
        while offset < len(data):  # chunks: name, size, content to an even size
            if data[offset : offset + 4] == b"VP8 ":
                return "lossy WebP"
            offset += 8 + (int.from_bytes(data[offset + 4 : offset + 8], "little") + 1) // 2 * 2
    if kind == "TIFF":
        with Image.open(path) as image:
            compression = image.info.get("compression")
        return f"TIFF compressed as {compression}" if compression in LOSSY_COMPRESSIONS else ""
    return ""


def has_rim(mask: np.ndarray) -> bool:
    """Returns whether tube of one or two pixels is around all gas of a mask [H, W], as no picture of a tube has it.

    Linear and cubic interpolation to 2 to 4 times the size leave such rims; others are too wide or broken.
    """
    gas, tube = mask == GAS, mask == TUBE
    border = _grown(gas, cv2.MORPH_CROSS, 1) & ~gas
    count = np.count_nonzero(border)
    thin = border & tube & _grown(~gas & ~tube, cv2.MORPH_RECT, RIM_WIDTH)
    return count >= RIM_PIXELS and np.count_nonzero(thin) > RIM_SHARE * count


def _grown(region, shape, radius):
    kernel = cv2.getStructuringElement(shape, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(region.astype(np.uint8), kernel).astype(bool)


def _with_zero(listed, zero):
    return {zero: BACKGROUND, **listed}


def _points(pixels, values, *, tint, by_color):
    """Returns what the classes depend on: values [H, W], also where channels differ by a tint, or colours [H, W, 3]."""
    points = pixels.values
    if pixels.palette is not None:
        return pixels.palette[points] if by_color else _of_palette(points, pixels.palette, values)
    if points.ndim == 2:
        return points
    if points.shape[2] in (2, 4):
        alpha = points[..., -1]
        opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
        if (alpha != opaque).any():
            raise UnusableMask(
                "mask_form", "partly transparent; save it without an alpha channel, as grey levels or RGB"
            )
        points = points[..., :-1]
    if points.shape[2] == 3 and (by_color or np.ptp(points, axis=2).max() > tint):
        if points.dtype.kind == "f":
            raise UnusableMask("mask_form", "colours of floating-point numbers; expected 8 bits a channel")
        return points
    return points[..., 0]


def _of_palette(indices, palette, values):
    """Returns the indices of a mask with a palette, or its grey levels if they are the values."""
    used = np.flatnonzero(np.bincount(indices.ravel()))
    colors = palette[used].astype(int)
    levels = colors[:, 0]
    if (colors != colors[:, :1]).any() or (levels == used).all():
        return indices
    repeated = len(set(levels)) < len(levels)
    are_listed = set(levels.tolist()) <= values.keys()
    if not repeated and are_listed and (levels.max() < len(MASK_CLASSES) or not set(used.tolist()) <= values.keys()):
        return palette[..., 0][indices]
    if repeated or (np.diff(levels) < 0).any():
        greys = ", ".join(f"{index} is {level}" for index, level in zip(used, levels, strict=True))
        raise UnusableMask("mask_form", f"a palette of greys in another order than its indices: {greys}")
    return indices


def _classes(points, listed, lossy, nearest):
    """Returns the mask of values [H, W] or colours [H, W, 3] by those that are listed, and how many pixels moved."""
    found, inverse, counts = _count(points)
    keys, classes = np.array(list(listed), float), np.array(list(listed.values()), np.uint8)
    index, distance = _nearest(found, keys)
    strange = np.flatnonzero(distance)
    strange = strange[np.argsort(-counts[strange], kind="stable")]
    if not len(keys) or (lossy and not nearest) or (len(strange) and not (nearest and np.isfinite(distance).all())):
        raise _refusal(points, found, inverse, counts, strange, keys, lossy)
    if lossy:
        _check_gap(keys, classes, lossy)
    return classes[index][inverse], int(counts[strange].sum())


def _count(points):
    """Returns the different values or colours, float [N, 1] or [N, 3], where they are, [H, W], and how many, [N]."""
    codes = points
    if points.ndim == 3:
        red, green, blue = np.moveaxis(points.astype(np.int64), 2, 0)
        codes = red << 32 | green << 16 | blue
    found = np.unique(codes)
    inverse = np.searchsorted(found, codes)  # faster than by np.unique, for few values
    counts = np.bincount(inverse.ravel(), minlength=len(found))
    channels = [found] if points.ndim == 2 else [found >> 32, found >> 16 & 0xFFFF, found & 0xFFFF]
    return np.stack(channels, axis=1).astype(float), inverse, counts


def _nearest(found, keys):
    """Returns the index of the key that is nearest to each of N points, and its Euclidean distance."""
    index, best = np.zeros(len(found), int), np.full(len(found), np.inf)
    for number, key in enumerate(keys):
        distance = np.sqrt(((found - key) ** 2).sum(axis=1))
        nearer = distance < best  # never for NaN
        index[nearer], best[nearer] = number, distance[nearer]
    return index, best


def _check_gap(keys, classes, lossy):
    for key, class_ in zip(keys, classes, strict=True):
        _, gap = _nearest(keys[classes != class_], key[None])
        if (gap < LOSSY_GAP).any():
            message = f"{lossy} moves values by more than the {gap.min():.3g} levels between two classes"
            raise UnusableMask("mask_form", f"{message}, so the nearest is not the right one; export it as PNG")


def _refusal(points, found, inverse, counts, strange, keys, lossy):
    """Returns the error that lists the strange values, the most frequent ones first, and names the way out."""
    name, flag = (_value, "values") if points.ndim == 2 else (_color, "colors")
    shown = [f"{name(found[k])} ({_pixels(counts[k])})" for k in strange[:SHOWN]]
    if rest := strange[SHOWN:].tolist():
        shown.append(f"{len(rest)} more ({_pixels(counts[rest].sum())})")
    holds = f"holds {', '.join(shown)}"
    if not len(keys):
        message = (
            f"a colour image, {holds}; say what they are, such as --colors={name(found[strange[0]])}:CLASS, {CHOICES}"
        )
        return UnusableMask("mask_form", message)
    nearest = "or take the nearest of {} by --nearest".format(", ".join(map(name, keys)))
    if lossy:
        what = f"{lossy}, which changes values"
        return UnusableMask("mask_form", f"{what}{f': {holds}' * bool(shown)}; export it as PNG, {nearest}")
    regions = [k for k in strange[:SHOWN] if _has_region(inverse == k)]
    if 2 * counts[regions].sum() > counts[strange].sum():
        remedy = f"say what it is by --{flag}={name(found[regions[0]])}:CLASS, {CHOICES}"
        return UnusableMask("mask_values", f"{holds}; expected {', '.join(map(name, keys))}: {remedy}")
    cause = "few pixels each, as interpolation and compression leave them at borders"
    return UnusableMask("mask_values", f"{holds}, {cause}; resize by the nearest neighbour and save PNG, {nearest}")


def _has_region(region):
    """Returns whether a region has a block of 3x3 pixels, as labels have and borders have not."""
    return cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8)).any()


def _value(point):
    return f"{point[0]:.7g}"


def _color(point):
    return "#" + "".join(f"{int(level):02x}" for level in point)


def _pixels(count):
    return f"{count} pixel{'' if count == 1 else 's'}"
