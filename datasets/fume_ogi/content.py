"""Image files of annotated frames: reads and checks them, and compares them by digests of their pixels."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.fume_ogi.annotations import Row
from datasets.fume_ogi.faults import Fault
from fume_jax.data.images import UnreadableFrame, read_frame
from fume_jax.schema import MASK_CLASSES


@dataclasses.dataclass(frozen=True)
class Content:
    """Size in pixels and digests of a frame and its mask."""

    height: int
    width: int
    frame_digest: str
    mask_digest: str


def read_mask(path: Path) -> np.ndarray:
    """Reads a mask, uint8 [H, W], from grey levels, indices of a palette, or three equal channels.

    Raises UnreadableFrame if the file is missing, empty or no image, or if its channels differ.
    """
    try:
        with Image.open(path) as image:
            mask = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises these for damaged files
        raise UnreadableFrame("not an image, or a damaged one") from error
    if mask.ndim == 3:
        if (mask[..., :1] != mask[..., :3]).any():
            raise UnreadableFrame("a colour image; expected one channel of 0, 1 and 2")
        mask = mask[..., 0]
    # Values beyond 8 bits are clipped: wrapped round, they could become valid ones.
    return np.clip(mask, 0, 255).astype(np.uint8)


def check_content(source: Path, row: Row) -> tuple[list[Content | None], list[Fault]]:
    """Reads the files of a row; returns the content of each frame, None if it cannot be read, and the faults."""
    contents, faults = zip(*(_check(source, frame) for frame in row.frames), strict=True)
    return list(contents), [Fault(kind, row.place, message) for found in faults for kind, message in found]


def _check(source, frame):
    images, faults = [], []
    for path, read in ((source / frame.frame_path, read_frame), (source / frame.mask_path, read_mask)):
        if not path.is_file():
            faults.append(("missing_file", f"there is no {path}"))
            continue
        try:
            images.append(read(path))
        except UnreadableFrame as error:
            faults.append(("unreadable_file", f"{path}: {error}"))
    if faults:
        return None, faults
    pixels, mask = images
    (height, width), mask_size = pixels.shape[:2], mask.shape
    if mask_size != (height, width):
        faults.append(("size", f"{frame.frame_path} is {width}x{height}, its mask {mask_size[1]}x{mask_size[0]}"))
    values = np.unique(mask)
    if values[-1] >= len(MASK_CLASSES):
        faults.append(("mask_values", f"{frame.mask_path} holds {', '.join(map(str, values))}"))
    return Content(height, width, _digest(pixels), _digest(mask)), faults


def _digest(pixels):
    return hashlib.blake2b(pixels.tobytes() + repr(pixels.shape).encode(), digest_size=16).hexdigest()
