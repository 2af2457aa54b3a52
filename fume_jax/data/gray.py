"""Converts images of any depth to grey levels."""

import contextlib
from collections.abc import Iterable

import cv2
import numpy as np

from fume_jax.data.faults import UnreadableFrame, check_size

# Luminance of red, green and blue (ITU-R BT.601), as OpenCV has it.
LUMINANCE = (0.299, 0.587, 0.114)
# Values do not belong to the scene if they are farther from it than its range, or than `GAP` of its range if they fill
# corners of the frame. Nearer ones leave the scene 240 of the 256 levels.
GAP = 1 / 16
# The most lines at each border that may hold telemetry, and the width of what interpolation mixes, in pixels. Both are
# at most `LOCAL` of the frame, so that a plain gradient does not change by `GAP` over them.
BORDER_LINES, MIXED, LOCAL = 8, 2, 1 / 40
# The fewest pixels that mark their value as none of the scene: dead clusters, no-data regions, saturation.
FEWEST_MARKED = 9
# What is left of a frame has to be this share of it, and to hold that many values: all values of a drawing count.
SCENE_SHARE, FEWEST_VALUES = 0.05, 32
# Between which shares of the pixels of a recording its scale lies, in percent.
RECORDING_PERCENT = (0.1, 99.9)
_FLOAT32 = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)


def to_gray(image: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Converts an image to grey levels, uint8 [H, W, 1], by `luminance` and `to_levels`; raises as these do."""
    return to_levels(luminance(image), limits)


def luminance(image: np.ndarray) -> np.ndarray:
    """Returns an image without its colour, [H, W] of the same dtype, float64 for colours deeper than 16 bits.

    `image` has booleans, integers or floats [H, W], [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4], whose alpha is dropped,
    else this raises ValueError. It raises UnreadableFrame if the image is larger than the limit of `faults`.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size or image.dtype.kind not in "buif":
        raise ValueError(
            f"expected numbers [H, W], [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4], got {image.dtype} {image.shape}"
        )
    check_size(*image.shape[:2])
    if channels > 1 and image.dtype in (np.uint8, np.uint16):
        image = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2GRAY)
    elif channels > 1:
        with np.errstate(over="ignore", invalid="ignore"):
            image = image[..., :3].astype(np.float64) @ LUMINANCE
    return image.reshape(image.shape[:2])


def to_levels(image: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Scales numbers [H, W] to grey levels, uint8 [H, W, 1]; those of dtype uint8 are grey levels already.

    The lower of `limits` becomes 0 and the higher 255; without them, the range of its scene does, see `find_scene`.
    Pixels that are not finite become 0. Raises UnreadableFrame if none is finite.
    """
    if image.dtype == np.uint8:
        return image[..., None]
    if limits is None:
        smooth, scene, offset = _smooth_scene(image)
        limits = tuple(offset + end for end in _ends(smooth, scene))
    if image.dtype == np.uint16:
        return _to_levels(np.arange(65536.0), *limits)[image][..., None]
    with np.errstate(over="ignore"):  # of numbers of 128 bits
        image = image.astype(np.float64)
    finite = np.isfinite(image)
    if not finite.any():
        raise UnreadableFrame("no finite pixel")
    return (_to_levels(np.where(finite, image, 0), *limits) * finite)[..., None]


def _to_levels(values, low, high):
    span = max(high - low, np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        return np.rint(np.clip((values - low) / span, 0, 1) * 255).astype(np.uint8)


def recording_limits(frames: Iterable[np.ndarray]) -> tuple[float, float] | None:
    """Returns the values between which the scenes of a recording lie, of frames [H, W] spread over it.

    They are the 0.1 and 99.9 % of the pixels of all frames after a median of 3 x 3, which removes dead and hot pixels.
    What `find_scene` leaves out does not count. None if no frame has a finite pixel.
    """
    kept = []
    for image in frames:
        with contextlib.suppress(UnreadableFrame):
            smooth, scene, offset = _smooth_scene(image)
            kept.append(_sample(smooth[scene > 0], 50_000).astype(np.float64) + offset)
    if not kept:
        return None
    low, high = np.percentile(np.concatenate(kept), RECORDING_PERCENT)
    return float(low), float(high)


def _smooth_scene(image):
    """Returns numbers [H, W] after a median, uint16 or float32, the pixels that count, and what to add to the numbers.

    Raises UnreadableFrame if no pixel is finite.
    """
    if image.dtype == np.uint16:
        return *find_scene(np.ascontiguousarray(image)), 0.0
    with np.errstate(over="ignore"):  # of numbers of 128 bits, and of numbers near the largest of 64
        image = image.astype(np.float64)
        finite = np.isfinite(image)
        if not finite.any():
            raise UnreadableFrame("no finite pixel")
        if not finite.all():
            image = np.where(finite, image, image[finite].min())
        # The median filter takes float32, which has enough digits once a value of the scene is subtracted.
        offset = float(np.median(_sample(image[finite])))
        small = np.clip(image - offset, *_FLOAT32).astype(np.float32)
    return *find_scene(small, finite.view(np.uint8)), offset


def find_scene(image: np.ndarray, finite: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Finds the pixels between whose values an image lies, of dtype uint16 or float32 [H, W].

    Returns the image after a median of 3 x 3, which removes dead and hot pixels and lines, and the pixels of it that
    count, uint8 [H, W] of 0 and 1. Three kinds of pixels do not:

    - lines at the borders most of whose pixels are farther from the scene than its range, as of telemetry;
    - the pixels of the lowest or of the highest value if that is as far away, as of no-data values and dead clusters;
      `GAP` of the range is enough if they fill two corners of the frame, as the border of a frame does that was
      shifted or turned. Two pixels around them, which interpolation may have mixed with the scene, do not count either;
    - pixels that are not `finite`, uint8 [H, W] of 0 and 1, whatever the value in their place.
    """
    smooth = cv2.medianBlur(image, 3)
    scene = np.ones(image.shape, np.uint8) if finite is None else finite
    scene = _without_border_lines(image, smooth, scene)
    for _ in range(4):  # a frame may be saturated, dead and masked
        rest = _without_extreme(image, smooth, scene)
        if rest is scene:
            break
        scene = rest
    return smooth, scene


def _ends(smooth, scene):
    low, high, _, _ = cv2.minMaxLoc(smooth, scene)
    return low, high


def _without_border_lines(image, smooth, scene):
    """Leaves out the lines at the borders of which more than half is far from what they surround."""
    lines = [min(BORDER_LINES, int(size * LOCAL)) for size in image.shape]
    inner = tuple(slice(count, size - count) for count, size in zip(lines, image.shape, strict=True))
    if not scene[inner].any():
        return scene
    low, high = _ends(np.ascontiguousarray(smooth[inner]), np.ascontiguousarray(scene[inner]))
    low, high = low - (high - low), high + (high - low)
    lowest, highest = _ends(smooth, scene)
    if low <= lowest and highest <= high:
        return scene
    outside, rest = (image < low) | (image > high), scene.copy()
    for axis, count in enumerate(lines):
        out = outside.mean(axis=1 - axis) > 0.5
        out[count : len(out) - count] = False
        np.moveaxis(rest, axis, 0)[out] = 0
    rest = cv2.erode(rest, np.ones((3, 3), np.uint8))  # the median of their neighbours may be theirs in a corner
    return rest if _is_scene(smooth, rest) else scene


def _without_extreme(image, smooth, scene):
    """Leaves out the pixels of the lowest or of the highest value if these are many and far from all others."""
    around = np.ones(2 * (2 * min(MIXED, int(min(image.shape) * LOCAL)) + 1,), np.uint8)
    for value in _ends(smooth, scene):
        marked = (image == image.dtype.type(value)) * scene
        count = cv2.countNonZero(marked)
        if count < FEWEST_MARKED:
            continue
        low, high = _ends(smooth, scene * (cv2.dilate(marked, around) == 0))
        fills_corners = count > min(image.shape) // 2 and np.count_nonzero(marked[[0, -1]][:, [0, -1]]) >= 2
        if max(low - value, value - high) > (GAP if fills_corners else 1) * (high - low):
            # Beyond the frame there may be more of them, which interpolation mixed with its outermost pixels.
            near = cv2.dilate(marked, around, borderType=cv2.BORDER_CONSTANT, borderValue=1)
            rest = scene * (near == 0)
            if _is_scene(smooth, rest):
                return rest
    return scene


def _is_scene(smooth, scene):
    values = smooth[scene > 0]
    return len(values) >= SCENE_SHARE * smooth.size and len(np.unique(_sample(values))) >= FEWEST_VALUES


def _sample(values, most=10_000):
    return values[:: max(1, len(values) // most)]
