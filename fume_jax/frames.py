"""Frames in image files: finding, matching and reading them."""

from pathlib import Path

import cv2
import numpy as np

from fume_jax.errors import UserError
from fume_jax.vocabulary import GASES

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


class UnreadableFrame(Exception):
    """A file that holds no usable image; the message says why."""


def match_frames(co2: str | None, ch4: str | None) -> list[tuple[str, dict[str, Path]]]:
    """Pairs the frames of one or two gases, each given as an image or a folder of images.

    Two images make one pair, whatever their names. Otherwise frames pair by file name without ending; a frame without
    partner stands alone, its other gas absent.

    Returns:
      Name and path by gas of every frame or pair, in the order of names.

    Raises:
      UserError: if a path holds no image, two images of a folder share a name, or two folders share none.
    """
    given = {gas: path for gas, path in zip(GASES, (co2, ch4), strict=True) if path is not None}
    if not given:
        raise UserError("Give the frames of at least one gas: --co2=PATH, --ch4=PATH or both.")
    found = {gas: _find(path) for gas, path in given.items()}
    if len(given) == 2 and all(Path(path).is_file() for path in given.values()):
        name = Path(given["co2"]).stem
        return [(name, {gas: Path(path) for gas, path in given.items()})]
    if len(given) == 2 and not found["co2"].keys() & found["ch4"].keys():
        raise UserError(
            f"No frame of {co2} (such as {_some(found['co2'])}) has the name of one of {ch4} (such as "
            f"{_some(found['ch4'])}). Give the two frames of a pair one name, or predict one gas at a time."
        )
    names = sorted(set().union(*found.values()))
    return [(name, {gas: frames[name] for gas, frames in found.items() if name in frames}) for name in names]


def read_frame(path: Path) -> np.ndarray:
    """Reads an image as grey levels, uint8 [H, W, 1].

    Colour is converted by luminance. Deeper images, such as 16-bit ones, are scaled by their own range to 0..255.

    Raises:
      UnreadableFrame: if the file is missing, empty or no image, or has no finite pixel.
    """
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
    if image.ndim == 3:
        if image.dtype not in (np.uint8, np.uint16):
            image = image.astype(np.float32)
        # Conversion keeps the depth; an alpha channel is dropped.
        image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY) if image.shape[-1] >= 3 else image[..., 0]
    if image.dtype != np.uint8:
        image = _scale_by_range(image)
    return image[..., None]


def _scale_by_range(image):
    image = image.astype(np.float64)
    finite = np.isfinite(image)
    if not finite.any():
        raise UnreadableFrame("no finite pixel")
    low, high = image[finite].min(), image[finite].max()
    image = np.where(finite, image, low)
    return np.rint((image - low) / max(high - low, np.finfo(np.float64).tiny) * 255).astype(np.uint8)


def _find(path):
    path = Path(path)
    if path.is_file():
        return {path.stem: path}
    if not path.is_dir():
        raise UserError(f"There is no file or folder {path}.")
    frames = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            if file.stem in frames:
                raise UserError(f"{frames[file.stem]} and {file} share a name; keep one, since frames pair by name.")
            frames[file.stem] = file
    if not frames:
        raise UserError(f"{path} holds no image; expected files ending in {', '.join(SUFFIXES)}.")
    return frames


def _some(frames):
    return next(iter(frames.values())).name
