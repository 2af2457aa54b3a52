"""Reads images of any bit depth and number of channels as grey levels."""

from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


class UnreadableFrame(Exception):
    """Signals an image without usable pixels; the message gives the reason."""


def read_frame(path: Path) -> np.ndarray:
    """Reads an image as grey levels, uint8 [H, W, 1], with `to_gray`; UnreadableFrame if the file holds no image."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UnreadableFrame(error.strerror or str(error)) from error
    if not data.size:
        raise UnreadableFrame("the file is empty")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnreadableFrame(f"not an image that can be decoded: {error.err}") from error
    if image is None:
        raise UnreadableFrame("not an image, or a damaged one")
    try:
        return to_gray(image if image.ndim == 2 else image[..., 2::-1])  # OpenCV's BGR, with or without alpha, as RGB
    except ValueError as error:
        raise UnreadableFrame(f"not an image of one frame: {error}") from error


def to_gray(image: np.ndarray) -> np.ndarray:
    """Converts an image to grey levels, uint8 [H, W, 1].

    Colour becomes luminance, and alpha is dropped. An image of another dtype than uint8, such as 16-bit, is scaled from
    its own range to 0..255. Single outliers, such as dead and hot pixels, do not widen that range; pixels that are not
    finite take its lowest value.

    `image` has booleans, integers or floats [H, W], [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4], else this raises
    ValueError, or UnreadableFrame if no pixel is finite.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size or image.dtype.kind not in "buif":
        raise ValueError(
            f"expected numbers [H, W], [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4], got {image.dtype} {image.shape}"
        )
    if channels > 1:
        if image.dtype not in (np.uint8, np.uint16):
            image = image.astype(np.float32)
        image = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2GRAY)  # keeps the dtype
    if image.dtype != np.uint8:
        image = _scale_by_range(image)
    return image.reshape(*image.shape[:2], 1)


def _scale_by_range(image):
    image = image.astype(np.float64)
    finite = np.isfinite(image)
    if not finite.any():
        raise UnreadableFrame("no finite pixel")
    image = np.where(finite, image, image[finite].min())
    offset = image.min()  # subtracted so that float32, which the median takes, has enough digits
    smooth = cv2.medianBlur((image - offset).astype(np.float32), 3)
    low, high = offset + float(smooth.min()), offset + float(smooth.max())
    return np.rint(np.clip((image - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1) * 255).astype(np.uint8)
